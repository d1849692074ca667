# SPDX-License-Identifier: Apache-2.0
"""The command uninstall: removes registrations and the timer, and says what remains and what to do about it."""

from __future__ import annotations

import os

from ..errors import HookError, MissingError, UsageError
from ..kernel.proc import Proc
from ..log import few, one_line
from ..options import Options, state_folder
from .engines import settings
from .engines.install import Places
from .engines.registration import options_of
from .engines.timer import Timer
from .engines.uninstall import Removed, uninstall, uninstall_all
from .engines.wrapper_file import Wrapper
from .engines.written import remove_folders
from .output import answer, tell, tell_changes, warn
from .registering import WITH_TIMER, where
from .upkeep import folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..log import Log
    from .command_line import Given
    from .engines.written import Change

# Options of uninstall for other registrations that may call the same launcher.
_OF_OTHERS = ("--hooks-dir", "--cdi-dir", "--apply")


def uninstall_command(given: Given, _: Log) -> int:
    """Removes registrations. Returns the exit code. Raises HookError."""
    timer = Timer(given.last("--units-dir"))
    if "--gc-timer" in given.values and WITH_TIMER.issuperset(given.values):
        _remove_timer(timer, given.last("--prefix"))
        return os.EX_OK
    everything, is_own = "--all" in given.values, "--own" in given.values
    for option in ("--name", "--cdi", "--runtime") if everything else ():
        if option in given.values:
            raise UsageError("--all removes all registrations", where=option)
    if is_own and not everything:
        raise UsageError("this option requires --all", where="--own")
    root_of_timer = timer.root
    removed, units = _remove(given, timer)
    tell_changes([*removed.paths, *units])
    if units:
        tell(f"to stop the timer: {timer.forgetting}")
    _withdraw(removed, is_wanted=everything or "--apply" in given.values)
    if removed.paths and removed.runtimes:
        removed.kept.append("running containers of a removed runtime can no longer be stopped through it")
    roots = _roots(removed.arguments)
    if everything:
        _remove_state_folders(removed, [None, *roots, *([root_of_timer] if units else [])], is_own=is_own)
    else:
        _warn_of_records(removed, roots)
    tell_changes(remove_folders(removed.folders))
    warn(removed.kept)
    if everything and not (removed.paths or removed.runtimes or units or removed.kept):
        tell("nothing that install wrote is left")
    return os.EX_OK


def _remove(given: Given, timer: Timer) -> tuple[Removed, list[Change]]:
    """Removes the registrations and, with the last one, the timer. Returns what was removed of each. Raises HookError.

    MissingError if there is none of them.
    """
    prefix, folder, name, instead = where(given, _OF_OTHERS)
    others = [*given.all("--hooks-dir"), *given.all("--cdi-dir")]
    removed, missing = Removed(), None
    if "--all" in given.values:
        is_own, launchers = "--own" in given.values, [timer.launcher] if timer.launcher else []
        removed = uninstall_all(given.last("--prefix"), others, is_own=is_own, launchers=launchers)
    else:
        try:
            removed = uninstall(prefix, folder, name, instead, others)
        except MissingError as problem:
            missing = problem
    # If the registration is not found, its name may be mistyped: the timer of the others stays.
    is_for_timer = "--gc-timer" in given.values and missing is None
    units = timer.remove(even_if_used=is_for_timer and not _is_anothers(timer, given.last("--prefix")))
    if is_for_timer and not units:
        why = f": the one there calls {timer.launcher}" if timer.launcher else ""
        removed.kept.append(f"install wrote no timer for this in {timer.folder}{why}")
    if isinstance(instead, Wrapper) and missing is not None and "--apply" in given.values:
        # An earlier uninstall has removed the wrapper, but not the entries in engines' files.
        removed.runtimes = settings.of(instead.name, instead.paths[0])
    if missing is not None and not units and not any(engine.names_it() for engine in removed.runtimes):
        raise missing
    return removed, units


def _is_anothers(timer: Timer, prefix: str | None) -> bool:
    """Whether the timer calls the launcher below another prefix than the one that is given."""
    return prefix is not None and timer.launcher not in ("", Places(prefix).launcher)


def _remove_timer(timer: Timer, prefix: str | None) -> None:
    """Removes the timer and its service, and no registration. Raises MissingError, KernelError."""
    others = _is_anothers(timer, prefix)
    if others or not (units := timer.remove(even_if_used=True)):
        hint = f"the one there calls {timer.launcher}" if others else "name its folder by --units-dir"
        raise MissingError(f"install wrote no such timer in {timer.folder}", hint=hint)
    tell_changes(units)
    tell(f"to stop the timer: {timer.forgetting}")


def _withdraw(removed: Removed, *, is_wanted: bool) -> None:
    """Removes the runtimes from the engines' files if ``is_wanted``. Otherwise says which files name them."""
    for engine in removed.runtimes:
        if not engine.names_it():
            continue
        if is_wanted:
            try:
                tell_changes(engine.withdraw())
            except HookError as problem:
                removed.kept.append(str(problem))
        if engine.names_it():
            removed.kept.append(f'{engine.file} still has the runtime "{engine.name}": remove it there')
        else:
            tell(f"to deactivate it in {engine.engine}: {engine.restart}")


def _records(path: str, names: Sequence[str], root: str | None, again: str = "", whose: str = "") -> str:
    """Returns the warning about containers that are recorded in the state folder ``path`` of a removed registration."""
    why = f"for which poststop is no longer called{whose}"
    return f'{path} has records of {few(names)}, {why}: once they have ended, {again}run "{folders.gc_command(root)}"'


def _remove_state_folders(removed: Removed, roots: Iterable[str | None], *, is_own: bool) -> None:
    """Removes the state folders without records that no remaining registration uses.

    ``is_own``: the program itself is removed next, as by a package.
    """
    in_use = folders.registered()
    again = "install the program again, " if is_own else ""
    for root in dict.fromkeys(roots):
        path = state_folder(folders.at(root), Proc())
        if not os.path.lexists(path):
            continue
        if root in in_use:
            removed.kept.append(f"{path} is still used by a registration: see install --list")
            names = folders.state_files(path)
            if names and removed.paths:
                whose = " if a removed registration bound into them"
                removed.kept.append(_records(path, names, root, whose=whose))
            continue
        try:
            names = folders.remove_unused(path)
        except HookError as problem:
            removed.kept.append(str(problem))
            continue
        if names:
            removed.kept.append(f"{_records(path, names, root, again)}, and remove the folder")
        else:
            answer(f"{one_line(f'removed {path}/')}\n")
    for uid, path, count in folders.of_users():
        steps = f"as user {uid}, {again}run `uninstall --all`, and `gc` after the containers have ended"
        removed.kept.append(f"{path} has records: {count}; {steps}")


def _warn_of_records(removed: Removed, roots: Iterable[str | None]) -> None:
    """Warns about containers that are recorded in the state folders of removed registrations."""
    for root in roots:
        path = state_folder(folders.at(root), Proc())
        if names := folders.state_files(path):
            removed.kept.append(_records(path, names, root))


def _roots(arguments: list[list[str]]) -> list[str | None]:
    """Returns the ``--root`` of each registration with these arguments, each once; None for the default.

    Invalid arguments count as the default: the files may have been edited.
    """
    found = [options_of(words) or Options() for words in arguments or [[]]]
    return list(dict.fromkeys(options.root for options in found))
