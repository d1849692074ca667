# SPDX-License-Identifier: Apache-2.0
"""Which state folders there are on this machine: the default one, and those with which the hook is registered."""

from __future__ import annotations

import copy
import os

from ...errors import HookError
from ...kernel.errnos import refused
from ...kernel.proc import Proc
from ...log import one_line
from ...options import state_folder
from ...record.folder import StateFolder
from ..engines import machine, registration
from ..engines.timer import Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol, TypeVar

    from ...options import Options

    class InFolder(Protocol):
        """What is found in a state folder, whose path it has."""

        folder: str

    F = TypeVar("F", bound=InFolder)


class Folder:
    """A state folder that was asked for: its ``path``, and the ``problem`` of one that cannot be used."""

    def __init__(self, path: str, problem: HookError | None = None) -> None:
        self.path = path
        self.problem = problem


def registered() -> list[str | None]:
    """The ``--root`` of each registration of this hook on this machine and of its timer, None for the default one."""
    found = registration.roots(machine.everywhere())
    # The timer may be of a registration in a folder that is read only where an engine is told to.
    timer = Timer()
    return list(dict.fromkeys([*found, *([timer.root] if timer.launcher else [])]))


def of(options: Options) -> list[Options]:
    """``options`` once for each state folder, ``root`` None for the default one, which is the first. HookError.

    A ``root`` that they have decides alone. The default one is left out where it is not there and nothing is registered
    with it, but something with another.
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


def documents(folders: Iterable[Folder]) -> list[dict[str, object]]:
    """The folders as schemas/records.json and schemas/gc.json have them."""
    return [{"path": each.path, **problem_member(each.problem)} for each in folders]


def remove_unused(path: str) -> list[str]:
    """Removes a state folder in which nothing is recorded, and returns the containers that are, which keep it.

    RecordError if it cannot be used, KernelError if it cannot be removed: something else is in it.
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
    """What was ``found`` in the folders, in ``lines``; of several folders one after the other, each with its name."""
    parts = []
    for folder in folders:
        here = [each for each in found if each.folder == folder.path]
        if folder.problem is not None:
            part = [one_line(str(folder.problem))]
        elif not here:
            part = [one_line(f"nothing is recorded in {folder.path}")]
        else:
            part = [*([one_line(f"recorded in {folder.path}:")] if len(folders) > 1 else []), *lines(here)]
        parts.append("".join(f"{line}\n" for line in part))
    return "\n".join(parts)


def problem_member(problem: HookError | None) -> dict[str, object]:
    """The member "problem" of a document, if there is one."""
    return {} if problem is None else {"problem": {"message": one_line(str(problem)), "exit": problem.exit_code}}


def _key(path: str) -> object:
    """What is the same for two names of one folder."""
    try:
        found = os.stat(path)
    except OSError:
        return os.path.normpath(path)
    return found.st_dev, found.st_ino
