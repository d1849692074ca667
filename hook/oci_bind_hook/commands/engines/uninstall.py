# SPDX-License-Identifier: Apache-2.0
"""Removes registrations: files that install wrote, recognised by their content, and finally the launcher."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING

from ...errors import MissingError, UnavailableError
from ...log import few
from . import cdi, machine, registration, settings
from .install import Places
from .launcher import NAME, folders_made, is_launcher, prefix_of, runs_this
from .registration import PREFIXES
from .written import existing, remove

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .install import Instead
    from .registration import Registration
    from .written import Change


class Removed:
    """What uninstall did: the ``paths`` and empty ``folders`` that it removed, and why others were ``kept``.

    ``arguments`` are the hook's arguments in each removed registration, ``runtimes`` the engines' settings that may
    name a removed wrapper.
    """

    def __init__(self) -> None:
        self.paths: list[Change] = []
        self.folders: list[str] = []
        self.kept: list[str] = []
        self.arguments: list[list[str]] = []
        self.runtimes: list[settings.Settings] = []


def uninstall(
    prefix: str,
    hooks_dir: str | None = None,
    name: str | None = None,
    instead: Instead | None = None,
    others: Sequence[str] = (),
) -> Removed:
    """Removes one registration that ``install`` wrote, and nothing else. Files are recognised by their content.

    The launcher stays if other files in the folders that engines read, or in ``others``, name it. Raises MissingError
    if there is nothing to remove, UsageError, KernelError.
    """
    places = Places(prefix, hooks_dir, name, instead)
    known = {path: registration.at(path, places.kind) for path in places.registrations if os.path.lexists(path)}
    removed = Removed()
    called = _remove_registrations(removed, known)
    _remove_launchers(removed, called or [places.launcher], [*places.known, *map(os.path.abspath, others)])
    if not removed.paths:
        where = " and ".join([*places.registrations, *([] if is_launcher(places.launcher) else [places.launcher])])
        others = [_removal(one) for one in machine.everywhere() if one.is_written]
        hints = [*removed.kept, *([f"to remove what is registered, run {few(others)}"] if others else [])]
        hint = "; ".join(hints) or "nothing is registered on this machine"
        raise MissingError(f"install wrote nothing at {where}", hint=hint)
    return removed


def prefix_option(prefix: str) -> list[str]:
    """Returns the words that select a prefix, [] for the default."""
    return ["--prefix", prefix] if prefix != PREFIXES[0] else []


def _removal(one: Registration) -> str:
    """Returns the command that removes one registration."""
    prefix = prefix_of(one.launcher) or PREFIXES[0]
    own, names = Places(prefix), {"hooks.d": "--name", "CDI": "--cdi", "runtime": "--runtime"}
    folder = os.path.dirname(one.path)
    words = ["oci-bind-hook", "uninstall", *prefix_option(prefix)]
    words += [names[one.kind], one.name] if one.name else []
    words += ["--hooks-dir", folder] if one.kind == "hooks.d" and folder != own.folder else []
    words += ["--cdi-dir", folder] if one.kind == "CDI" and folder != cdi.FOLDERS[0] else []
    return f"`{shlex.join(words)}`"


def uninstall_all(
    prefix: str | None, others: Sequence[str] = (), *, is_own: bool = False, launchers: Sequence[str] = ()
) -> Removed:
    """Removes everything that ``install`` wrote: each registration that calls the launcher below ``prefix``, or any.

    Searches the folders that engines read by default, those in their settings, ``others``, and the prefixes of all
    launchers that are found or given. With ``is_own``, only removes what runs this installation of the program. If
    nothing is found, nothing is done. Raises UsageError, UnavailableError, KernelError.
    """
    prefixes = [*map(os.path.expanduser, PREFIXES), *_prefixes(launchers)] if prefix is None else [prefix]
    found, folders = _found(prefixes, others)
    if prefix is None:
        new = [each for each in dict.fromkeys(_prefixes(one.launcher for one in found)) if each not in prefixes]
        for place in map(Places, new):
            found += _written([place.folder], [], [place.runtimes], but=folders)
            folders += [place.folder, place.runtimes]
        prefixes += new
    removed = Removed()
    called = [Places(each).launcher for each in prefixes]
    if prefix is None:
        called += [one.launcher for one in found]
        found = [one for one in found if _may_be_removed(one.path, removed)]
        called = [path for path in dict.fromkeys(called) if _may_be_removed(path, removed)]
    if is_own:
        called = [path for path in called if runs_this(path)]
        prefixes = _prefixes(called)
    known = {one.path: one for one in found if one.launcher in called}
    # Wrappers that no longer exist, perhaps after an earlier uninstall, although engines still name them.
    gone = [path for _, path in settings.dangling()]
    _remove_registrations(removed, known)
    _remove_launchers(removed, called, folders)
    wrappers = [Places(each).runtimes for each in prefixes]
    for path in dict.fromkeys(gone):
        if (prefix is None and not is_own) or os.path.dirname(path) in wrappers:
            removed.runtimes += settings.of(os.path.basename(path).removeprefix(f"{NAME}-"), path)
    return removed


def _prefixes(launchers: Iterable[str]) -> list[str]:
    return [*filter(None, map(prefix_of, launchers))]


def _found(prefixes: Sequence[str], others: Sequence[str]) -> tuple[list[Registration], list[str]]:
    """Returns what install wrote that calls any launcher, and the folders that were searched."""
    more = [*(path for each in prefixes for path in Places(each).known), *map(os.path.abspath, others)]
    hooks, devices, wrappers = ([*each, *more] for each in machine.places())
    return _written(hooks, devices, wrappers), [*hooks, *devices, *wrappers]


def _written(
    hooks: Sequence[str], devices: Sequence[str], wrappers: Sequence[str], but: Sequence[str] = ()
) -> list[Registration]:
    """Returns what install wrote into these folders, without those that were searched before (``but``)."""
    folders = ([path for path in each if path not in but] for each in (hooks, devices, wrappers))
    return [one for one in registration.find(*folders) if one.is_written]


def _may_be_removed(path: str, removed: Removed) -> bool:
    """Whether this user may remove a file. A user who removes their own files does not fail because of root's."""
    if not os.path.lexists(path):
        return True
    if os.access(existing(os.path.dirname(path)), os.W_OK | os.X_OK):
        return True
    removed.kept.append(f"this user cannot remove {path}: its folder is not writable")
    return False


# dockerd keeps its default runtime if a SIGHUP finds none in the file, and crashes if that one is gone (20.10).
_INSTEAD = (
    "set another runtime there first, such as runc; if docker's default-runtime is deleted instead, docker keeps the "
    "old default until a restart"
)


def _remove_registrations(removed: Removed, known_at: Mapping[str, Registration | None]) -> list[str]:
    """Removes the registrations. Returns the launchers that they called. Raises UnavailableError, KernelError."""
    for path, known in known_at.items():
        engines = settings.of(known.name, path) if known is not None and known.kind == "runtime" else []
        if needed := next(filter(None, (each.why_needed() for each in engines)), ""):
            raise UnavailableError(f"engines need {path}: {needed}", hint=_INSTEAD)
        removed.runtimes += engines
    called = []
    for path, known in known_at.items():
        if known is None:
            removed.kept.append(f"{path} was not written by install")
        else:
            removed.arguments.append(known.arguments)
            called.append(known.launcher)
            removed.paths.append(remove(path))
    return called


def _remove_launchers(removed: Removed, launchers: Iterable[str], folders: Sequence[str]) -> None:
    """Removes the launchers that no file in the folders and no base spec names. Raises KernelError."""
    specs = machine.base_specs()
    for launcher in dict.fromkeys(launchers):
        if not os.path.lexists(launcher):
            continue
        users = [*registration.users(launcher, folders), *(one.path for one in specs if one.launcher == launcher)]
        if not is_launcher(launcher):
            removed.kept.append(f"{launcher} was not written by install")
        elif users:
            removed.kept.append(f"{launcher} is still used by {', '.join(users)}")
        else:
            removed.folders += folders_made(launcher)
            removed.paths.append(remove(launcher))
