# SPDX-License-Identifier: Apache-2.0
"""The state folders on this machine: the default one, and those of registrations of the hook."""

from __future__ import annotations

import copy
import os
from functools import partial

from ...errors import HookError
from ...kernel.asking import ask
from ...kernel.errnos import refused
from ...kernel.files import USERS
from ...kernel.proc import Proc
from ...log import one_line
from ...options import DEFAULT_ROOT, Options, state_folder
from ...record.folder import StateFolder
from ..engines import machine, registration
from ..engines.timer import Timer, which
from ..output import tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol, TypeVar

    class InFolder(Protocol):
        """Anything found in a state folder, with the path of that folder."""

        folder: str

    F = TypeVar("F", bound=InFolder)


class Folder:
    """A state folder: its ``path``, the ``problem`` if it cannot be used, and whether it exists (``is_there``)."""

    def __init__(self, path: str, problem: HookError | None = None, *, is_there: bool = True) -> None:
        self.path = path
        self.problem = problem
        self.is_there = is_there


def registered() -> list[str | None]:
    """Returns the ``--root`` of each registration of this hook and of its timer, None for the default one."""
    found = registration.roots(machine.everywhere())
    # The registration of the timer may be in a folder that an engine only reads if its settings name it.
    timer = Timer()
    return list(dict.fromkeys([*found, *([timer.root] if timer.launcher else [])]))


def at(root: str | None) -> Options:
    """Returns the options that select the state folder ``root``, None for the default one."""
    options = Options()
    options.root = root
    return options


def of(options: Options) -> list[Options]:
    """Returns a copy of ``options`` for each state folder. ``root`` is None for the default one, which is the first.

    A ``root`` in ``options`` is the only one. The default one is left out if it does not exist and all registrations
    use others. Raises HookError.
    """
    if options.root is not None:
        return [options]
    roots = registered()
    found, known = [], set()
    for root in dict.fromkeys([None, *roots]):
        one = copy.copy(options)
        one.root = root
        path = state_folder(one, Proc())
        is_unused = root is None and roots and None not in roots and not os.path.lexists(path)
        if (key := _key(path)) not in known and not is_unused:
            known.add(key)
            found.append(one)
    return found


def state_files(path: str) -> list[str]:
    """Returns the containers with a state file in the state folder ``path``, as far as this user may read it."""
    try:
        return sorted(name[:-5] for name in os.listdir(path) if name.endswith(".json"))
    except OSError:
        return []


def gc_command(root: str | None) -> str:
    """Returns the command line of a gc of the state folder ``root``, None for the default one."""
    proc = Proc(root)
    if os.geteuid() != 0 and which("podman"):
        return f"podman unshare {proc.program('gc')}"  # the containers of an ordinary user are podman's
    return proc.command("gc")


def tell_of_users(options: Options) -> None:
    """Prints a line on stderr for each state folder of an ordinary user that has records, which root does not read.

    Only if root asks about all folders.
    """
    if options.root is None:
        for uid, path, count in of_users():
            tell(f"{path} has records, too: {count}; only `list` and `gc` of user {uid} read them")


def of_users() -> list[tuple[str, str, int]]:
    """Returns the uid, the path and the number of records of each state folder of an ordinary user that has records.

    Only for root outside of user namespaces; others get [].
    """
    if os.geteuid() != 0 or Proc().in_user_namespace():
        return []
    try:
        uids = sorted(filter(str.isdecimal, os.listdir(USERS)), key=int)
    except OSError:
        return []
    paths = [(uid, f"{USERS}/{uid}/{os.path.basename(DEFAULT_ROOT)}") for uid in uids]
    # A user may have mounted a file system there that does not answer.
    counted = ((uid, path, ask(partial(_records_in, path)).answer) for uid, path in paths)
    return [(uid, path, count) for uid, path, count in counted if count]


def _records_in(path: str) -> int:
    """The number of records in a state folder of another user. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return sum(name.endswith(".json") for name in os.listdir(fd))
    finally:
        os.close(fd)


def documents(folders: Iterable[Folder]) -> list[dict[str, object]]:
    """Returns the folders in the form of schemas/records.json and schemas/gc.json."""
    return [{"path": each.path, **problem_member(each.problem)} for each in folders]


def remove_unused(path: str) -> list[str]:
    """Removes a state folder unless containers are recorded in it. Returns these containers.

    Raises RecordError if the folder cannot be used, KernelError if it cannot be removed because it has other files.
    """
    folder = StateFolder.open(path, create=False)
    if folder is None:
        return []
    if names := list(folder.names()):
        return names
    folder.sweep(indexes=True)
    try:
        os.rmdir(path)
    except OSError as reason:
        raise refused("remove", path, reason) from reason
    return []


def as_text(folders: Sequence[Folder], found: Sequence[F], lines: Callable[[Sequence[F]], list[str]]) -> str:
    """Returns what was ``found``, made into ``lines``, folder by folder. With several folders, each has a heading."""
    parts = []
    for folder in folders:
        here = [each for each in found if each.folder == folder.path]
        if folder.problem is not None:
            part = [one_line(str(folder.problem))]
        elif not folder.is_there:
            part = [one_line(f"nothing is recorded: {folder.path} does not exist")]
        elif not here:
            part = [one_line(f"nothing is recorded in {folder.path}")]
        else:
            part = [*([one_line(f"recorded in {folder.path}:")] if len(folders) > 1 else []), *lines(here)]
        parts.append("".join(f"{line}\n" for line in part))
    return "\n".join(parts)


def problem_member(problem: HookError | None) -> dict[str, object]:
    """Returns the member "problem" of a document, {} without a problem."""
    return {} if problem is None else {"problem": {"message": one_line(str(problem)), "exit": problem.exit_code}}


def _key(path: str) -> object:
    """Returns a key that is the same for all paths of one folder."""
    try:
        found = os.stat(path)
    except OSError:
        return os.path.normpath(path)
    return found.st_dev, found.st_ino
