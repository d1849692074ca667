# SPDX-License-Identifier: Apache-2.0
"""Registers the hook: writes the launcher, and files of hooks.d, CDI or runtimes that name it.

All registrations below a prefix share one launcher, which is removed with the last of them.
"""

from __future__ import annotations

import compileall
import os
import sys
from typing import TYPE_CHECKING

from ... import FOLDER
from ...errors import UnavailableError, UsageError
from ...options import STAGES
from . import cdi, conditions, hooks_d, machine, registration, runtimes, sources
from .conditions import When
from .conflicts import conflicts
from .launcher import LAUNCHER_PATH, closed, folders_made, home, import_folders, is_launcher, launcher_text
from .problems import of_cdi_folders
from .registration import HOOKS_FOLDERS, HOOKS_PATH, checked_name, file_name
from .written import is_taken, missing_folders, write_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .cdi_file import Devices
    from .registration import Kind
    from .wrapper_file import Wrapper
    from .written import Change, Content

    # What registers the hook instead of a hooks.d file.
    Instead = Devices | Wrapper

DEFAULT_STAGES = ("createRuntime", "poststop")


class Places:
    """The paths of the launcher and of the registrations: below ``prefix``, or in the given folder.

    ``name`` is that of a hooks.d file, None for the one without a name. ``instead`` replaces it. Raises UsageError.
    """

    def __init__(
        self, prefix: str, hooks_dir: str | None = None, name: str | None = None, instead: Instead | None = None
    ) -> None:
        if not prefix:
            raise UsageError("the prefix is empty", where="--prefix")
        if hooks_dir == "":
            raise UsageError("the folder is empty", where="--hooks-dir")
        self.launcher = os.path.join(os.path.abspath(prefix), LAUNCHER_PATH)
        below_prefix = os.path.join(os.path.abspath(prefix), HOOKS_PATH)
        self.kind: Kind = "hooks.d" if instead is None else instead.kind
        self.folder = below_prefix if hooks_dir is None else os.path.abspath(hooks_dir)
        # Wrappers here may name the same launcher.
        self.runtimes = os.path.join(os.path.abspath(prefix), runtimes.RUNTIMES_PATH)
        self.known = [*HOOKS_FOLDERS, self.folder, below_prefix, *cdi.FOLDERS, *runtimes.FOLDERS, self.runtimes]
        if instead is None:
            found = checked_name("--name", name) if name is not None else ""
            self.registrations = [os.path.join(self.folder, file_name(found))]
        else:
            self.folder, self.registrations = instead.folder, instead.paths
            self.known.append(instead.folder)


def install(
    prefix: str,
    stages: Sequence[str] = (),
    arguments: Sequence[str] = (),
    *,
    hooks_dir: str | None = None,
    when: When | None = None,
    name: str | None = None,
    instead: Instead | None = None,
    besides: Iterable[str] = (),
) -> list[Change]:
    """Installs below ``prefix``. Returns the paths, the launcher first, with what was done to each.

    ``stages`` are those at which the hook is called (none: createRuntime and poststop), ``arguments`` its arguments at
    each stage. ``hooks_dir`` is another folder for the hooks.d file, ``name`` distinguishes it from others, ``instead``
    are CDI devices or a runtime in its place. ``besides`` are files that the caller writes next: the launcher records
    the folders that are created for all of these. Installing again changes nothing. Raises UsageError, KernelError,
    and UnavailableError for an interpreter that no ``#!`` line can name, or for a file that install did not write.
    After an error nothing has changed.
    """
    places = Places(prefix, hooks_dir, name, instead)
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is not a stage", where="--stages", hint=f"known: {', '.join(STAGES)}")
    stages = stages or DEFAULT_STAGES
    mode = 0o644 if instead is None else instead.mode
    if instead is None:
        texts = [conditions.text(places.launcher, stages, arguments, when or When())]
    else:
        texts = instead.texts(places.launcher, stages, arguments)
    made = [*folders_made(places.launcher), *missing_folders([places.launcher, *places.registrations, *besides])]
    made = [path for path in dict.fromkeys(made) if path not in ("", "/")]
    contents: dict[str, Content] = {places.launcher: (0o755, launcher_text(sys.executable, import_folders(), made))}
    contents |= {path: (mode, text) for path, text in zip(places.registrations, texts, strict=True)}
    before = _checked(places, arguments)
    umask = os.umask(0o022)
    try:
        changes = write_all(contents, before)
        # Best effort: the launcher writes no byte code, and with a read-only package folder it only starts slower.
        compileall.compile_dir(FOLDER, quiet=2)
    finally:
        os.umask(umask)
    return changes


def _checked(places: Places, arguments: Sequence[str]) -> dict[str, str]:
    """Returns what the existing files register. Raises UnavailableError for a file that install did not write.

    Raises UsageError if ``arguments`` request no bind, and an existing registration does: an install that is repeated,
    for example for a new launcher, would remove the binds. Links are not checked, since they are replaced.
    """
    before = {}
    foreign = [places.launcher] if is_taken(places.launcher) and not is_launcher(places.launcher) else []
    for path in places.registrations:
        known = registration.at(path, places.kind)
        if known is not None:
            before[path] = known.summary()
            if registration.requests_binds(known.arguments) and not registration.requests_binds(arguments):
                problem = "registers binds, which this install would remove because it has no --mount"
                hint = f"to keep them, pass {before[path]}; to remove them, run uninstall first"
                raise UsageError(problem, where=path, hint=hint)
        elif is_taken(path):
            foreign.append(path)
    if foreign:
        hint = "move the file, or choose another name or folder"
        raise UnavailableError("was not written by install", where=foreign[0], hint=hint)
    return before


def unusable_sources(places: Places) -> list[str]:
    """Returns warnings about sources that cannot be bound now: the hook would not start a container without them."""
    # All files of a registration have the same arguments.
    written = registration.at(places.registrations[0], places.kind)
    return [problem.text for problem in sources.problems([written] if written is not None else [])]


def warnings_of_devices(devices: Devices) -> list[str]:
    """Returns warnings about the devices that were written, also in combination with existing ones."""
    folders = cdi.read(dict.fromkeys([*cdi.FOLDERS, devices.folder]))
    found = [problem for problem in of_cdi_folders(folders) if problem.path in devices.paths]
    return [f"{problem.path}: {problem.message}" for problem in found]


def fleeting() -> list[str]:
    """Returns a warning if the hook runs from a virtual environment, which one command deletes without uninstall."""
    folder, command = home()
    if not folder:
        return []
    lost = f"the hook is in {folder}: without it, containers for which the hook is registered do not start"
    return [f"{lost}; run oci-bind-hook uninstall --all --own before {command}"]


def unheard(log: str | None) -> list[str]:
    """Returns a warning if failures are lost: no ``log`` of the hook, no journal and no syslog."""
    if log is not None or machine.syslog():
        return []
    lost = "this machine has neither a journal nor syslog, and crun discards what hooks print"
    return [f"{lost}: to see why a container does not start, install again with --log FILE after --"]


def warnings(places: Places) -> list[str]:
    """Returns warnings about an installation that was written but does not work for all users or engines."""
    found = []
    if places.kind == "CDI" and places.folder not in (*cdi.FOLDERS, *machine.named()[1]):
        found.append(
            f"engines read {places.folder} only if their list of CDI folders, such as cdi_spec_dirs, contains it"
        )
    if places.kind == "hooks.d":
        found += filter(None, [machine.why_unread(places.folder)])
        found += machine.without_hooks_d()
        found += _conflicts(places)
        found += _namesakes(places)
    if not machine.is_for_all_users(places.folder):
        return found
    needed: dict[str, str] = {}
    pythons = os.path.realpath(sys.executable), sys.executable
    for path in (*pythons, *import_folders(), places.launcher, *places.registrations):
        if kept := closed(path):
            needed.setdefault(kept, path)
    for kept, path in needed.items():
        which = kept if kept == path else f"{kept}, and so {path}"
        found.append(
            f"other users cannot read {which}: their rootless containers cannot run this hook; "
            "install it from a folder, and with a Python, that all users can read"
        )
    return found


def _namesakes(places: Places) -> Iterator[str]:
    """Yields a warning for each other folder that has a file with the name of the registration, which is replaced."""
    for path in places.registrations:
        for folder in dict.fromkeys([*HOOKS_FOLDERS, *machine.named()[0]]):
            other = os.path.join(folder, os.path.basename(path))
            if other != path and os.path.lexists(other):
                yield (
                    f"{other} has the same name: of these two, an engine that reads both folders uses only the one in "
                    "the folder that it reads last; to use both, uninstall the one that was just installed, and "
                    "install it with another --name"
                )


def _conflicts(places: Places) -> Iterator[str]:
    """Yields what other registrations in hooks.d bind on a destination of the one that was written, and the effect."""
    read = hooks_d.read(dict.fromkeys([hooks_d.FOLDERS[0], *machine.named()[0], places.folder]))
    used = (registration.of_hooks_d(file) for file in hooks_d.in_order(read) if file.is_used)
    for each in conflicts(one for one in used if one is not None):
        if places.registrations[0] in each.files:
            yield f"{each.path}: {each.text}"
