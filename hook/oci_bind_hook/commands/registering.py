# SPDX-License-Identifier: Apache-2.0
"""The commands install and uninstall: they check the combination of options, write files, and report the result."""

from __future__ import annotations

import os

from ..errors import HookError, MissingError, UnavailableError, UsageError
from ..kernel.proc import Proc
from ..log import few, one_line
from ..options import Options, parse, state_folder
from ..requests.mount_field import parse_mount
from .output import answer, tell, tell_changes, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..log import Log
    from .command_line import Given
    from .engines.install import Instead
    from .engines.settings import Settings
    from .engines.timer import Timer
    from .engines.uninstall import Removed
    from .engines.wrapper_file import Wrapper


def install_command(given: Given, _: Log) -> int:
    """Registers the hook. Returns the exit code. Raises HookError."""
    from .engines.cdi_file import Devices
    from .engines.conditions import When
    from .engines.install import Places, fleeting, install, unheard, unusable_sources, warnings, warnings_of_devices
    from .engines.launcher import is_launcher
    from .engines.registration import requests_binds
    from .engines.timer import Timer
    from .engines.wrapper_file import Wrapper

    prefix, folder, name, instead = _where(given, ())
    is_timer_alone = "--gc-timer" in given.values and _WITH_TIMER.issuperset(given.values) and not given.others
    if is_timer_alone and "--prefix" not in given.values:
        prefix = _prefix_of_timer()
    when = None
    if instead is None:
        when = When(
            always="--always" in given.values,
            annotations=given.all("--annotation"),
            commands=given.all("--command"),
            has_bind_mounts="--has-bind-mounts" in given.values,
        )
    options = _registered(given.others)
    places = Places(prefix, folder, name, instead)
    timer = Timer(given.last("--units-dir")) if "--gc-timer" in given.values else None
    units = timer.contents(places.launcher, options.root) if timer is not None else {}
    if timer is not None and is_timer_alone:
        if not is_launcher(places.launcher):
            raise _not_installed(f" below {prefix}")
        # The hook is registered already: another registration, for all containers and without a bind, would replace it.
        _add_timer(timer, units)
        return os.EX_OK
    stages = [stage for text in given.all("--stages")[-1:] for stage in text.split(",")]
    is_applied, only = "--apply" in given.values, given.last("--engine")
    engines = _engines(instead, only, apply=is_applied) if isinstance(instead, Wrapper) else []
    besides = [*units, *(engine.file for engine in engines if is_applied)]
    done = install(
        prefix, stages, given.others, hooks_dir=folder, when=when, name=name, instead=instead, besides=besides
    )
    tell_changes(done)
    if not requests_binds(given.others):
        warn(["the hook has no --mount, so it binds nothing; to add binds, run install again with -- --mount ..."])
    warn([*(when.warnings if when is not None else ()), *unusable_sources(places), *warnings(places)])
    warn(warnings_of_devices(instead) if isinstance(instead, Devices) else [])
    warn([*unheard(options.log), *fleeting()])
    if timer is not None:
        _add_timer(timer, units)
    if is_applied:
        _apply(engines)
    else:
        for engine in engines:
            answer(f"\n# Add this to {engine.file}, or let --apply do it. Then: {engine.restart}\n{engine.snippet()}\n")
    for use in instead.uses if instead is not None else ():
        if isinstance(instead, Devices) and (why := _why_not(use.split()[0])):
            tell(why)
        else:
            tell(f"to use it: {use}")
    return os.EX_OK


def _prefix_of_timer() -> str:
    """Returns the only prefix with a launcher of this installation. Raises UsageError for several, MissingError."""
    from .engines import machine

    found = machine.prefixes()
    if not found:
        raise _not_installed("")
    if len(found) > 1:
        raise UsageError(f"the hook is installed below {few(found)}", where="--gc-timer", hint="select one by --prefix")
    return found[0]


def _not_installed(below: str) -> MissingError:
    return MissingError(f"the hook is not installed{below}", where="--gc-timer", hint="run install with --mount first")


def _add_timer(timer: Timer, units: dict[str, str]) -> None:
    """Writes the timer and its service. Raises HookError."""
    tell_changes(timer.write(units))
    tell(f"to enable the timer: {timer.enabling}")


def _is_anothers(timer: Timer, prefix: str | None) -> bool:
    """Whether the timer calls the launcher below another prefix than the one that is given."""
    from .engines.install import Places

    return prefix is not None and timer.launcher not in ("", Places(prefix).launcher)


def _remove_timer(timer: Timer, prefix: str | None) -> None:
    """Removes the timer and its service, and no registration. Raises MissingError, KernelError."""
    others = _is_anothers(timer, prefix)
    if others or not (units := timer.remove(even_if_used=True)):
        hint = f"the one there calls {timer.launcher}" if others else "name its folder by --units-dir"
        raise MissingError(f"install wrote no such timer in {timer.folder}", hint=hint)
    tell_changes(units)
    tell(f"to stop the timer: {timer.forgetting}")


def _why_not(engine: str) -> str:
    """Returns why the installed version of this engine reads no CDI devices, "" if it does or is not installed."""
    from .engines import doctor, machine

    path = dict(machine.programs()).get(engine, "")
    version = doctor.version_of(path) if path else ""
    if not version or machine.knows_cdi(engine, version):
        return ""
    return f"{version} does not read CDI here: use install --runtime NAME --apply"


def _engines(wrapper: Wrapper, engine: str | None, *, apply: bool) -> list[Settings]:
    """Returns the settings of the engines that call runtimes by name: those on this machine or, without any, all.

    ``engine`` restricts them to one. With ``apply``, raises HookError in advance if one of them cannot be changed.
    """
    from .engines import settings

    found = settings.of(wrapper.name, wrapper.paths[0], list(wrapper.annotations))
    names = [one.engine for one in found]
    if engine is not None and engine not in names:
        raise UsageError(
            f"{engine} has no file that lists runtimes", where="--engine", hint=f"known: {', '.join(names)}"
        )
    found = [one for one in found if engine in (None, one.engine)]
    here = [one for one in found if one.is_installed]
    if apply and not here:
        missing = "neither docker nor containerd is" if engine is None else f"{engine} is not"
        raise UnavailableError(f"{missing} installed", where="--apply")
    for one in here if apply else ():
        one.check()
    return here or found


def _apply(engines: list[Settings]) -> None:
    """Writes into the engines' files. Raises HookError, whose hint has what was done so far and what to do."""
    done: list[str] = []
    for engine in engines:
        try:
            tell_changes(engine.apply())
        except HookError as problem:
            stands = " and ".join([engine.path, *done])
            advice = (
                f"to remove it, run uninstall --runtime {engine.name} --apply; to go on, run the same install again"
            )
            problem.hint = "; ".join(filter(None, (problem.hint, f"done so far: {stands}; {advice}")))
            raise
        tell(f"to activate it in {engine.engine}: {engine.restart}")
        done.append(engine.file)


# The options with which `install --gc-timer` only adds a timer to a hook that is registered, and with which
# `uninstall --gc-timer` only removes the timer.
_WITH_TIMER = frozenset({"--gc-timer", "--prefix", "--units-dir"})

# The messages for options that exclude each other.
_HOOKS_D = "this option is for hooks.d; "
_NOT_FOR_CDI = f"{_HOOKS_D}a CDI device applies to containers that request it by --device"
_NOT_FOR_RUNTIME = f"{_HOOKS_D}a runtime applies to all containers that use it, or to those with an --annotation"
_ONLY_FOR_CDI = "this option requires --cdi"
_ONLY_FOR_RUNTIME = "this option requires --runtime"
_FOR_HOOKS_D = ("--hooks-dir", "--name", "--command", "--has-bind-mounts", "--always")
_FOR_CDI = ("--cdi-dir", "--env")
_FOR_RUNTIME = ("--oci-runtime", "--apply", "--engine")
# Options of uninstall for other registrations that may call the same launcher.
_OF_OTHERS = ("--hooks-dir", "--cdi-dir", "--apply")


def _where(given: Given, besides: tuple[str, ...]) -> tuple[str, str | None, str | None, Instead | None]:
    """Returns the prefix, the folder of the hooks.d file (None: default), its name, and what replaces the file.

    Raises UsageError for an option that does not go with these, unless it is in ``besides``.
    """
    from .engines.cdi_file import Devices
    from .engines.registration import PREFIXES
    from .engines.wrapper_file import Wrapper

    prefix = given.last("--prefix")
    prefix = PREFIXES[0] if prefix is None else prefix
    instead: Instead | None = None
    if "--cdi" in given.values:
        refused = dict.fromkeys((*_FOR_HOOKS_D, "--annotation"), _NOT_FOR_CDI)
        refused |= dict.fromkeys(("--runtime", *_FOR_RUNTIME), "--cdi and --runtime exclude each other")
        names = [name for text in given.all("--cdi") for name in text.split(",")]
        instead = Devices(names, given.last("--cdi-dir"), given.all("--env"))
    elif (runtime := given.last("--runtime")) is not None:
        refused = dict.fromkeys(_FOR_HOOKS_D, _NOT_FOR_RUNTIME) | dict.fromkeys(_FOR_CDI, _ONLY_FOR_CDI)
        instead = Wrapper(runtime, prefix, given.last("--oci-runtime"), given.all("--annotation"))
    else:
        refused = dict.fromkeys(_FOR_CDI, _ONLY_FOR_CDI) | dict.fromkeys(_FOR_RUNTIME, _ONLY_FOR_RUNTIME)
    for option, why in refused.items():
        if option in given.values and option not in besides:
            raise UsageError(why, where=option)
    return prefix, given.last("--hooks-dir"), given.last("--name"), instead


def _registered(words: list[str]) -> Options:
    """Returns the hook's options. Raises UsageError, RequestError for what is invalid for all containers."""
    options, _ = parse(words)
    if options.stage is not None:
        raise UsageError("the hook gets the same arguments at each stage", where=options.stage)
    if options.dry_run:
        raise UsageError("a registered hook must not be a dry-run", where="--dry-run")
    for number, text in enumerate(options.mounts, 1):
        parse_mount(text, f"--mount {number}", f"--mount {number}")
    return options


def check_command(given: Given, _: Log) -> int:
    """Prints the problems of registrations. Returns the exit code. Raises HookError."""
    from .engines import check, install, machine
    from .explain import by_name, meant

    if len(given.others) > 1:
        raise UsageError("only one bundle or container is allowed", where=given.others[1])
    bundle = next(iter(given.others), None)
    if bundle is not None and not meant.is_path(bundle):
        bundle = by_name.find_in_time(bundle, None).bundle
    places = [install.Places(each) for each in given.all("--prefix")]
    hooks = [*(each.folder for each in places), *given.all("--hooks-dir")]
    by_engines, devices = machine.searched()
    wrappers = [each.runtimes for each in places] or None
    found = check.Check(hooks or by_engines, bundle, given.all("--cdi-dir") or devices, wrappers)
    found.judge_sources()
    if not hooks:
        found.judge_folders()
    answer(check.as_json(found) if given.format == "json" else check.as_text(found))
    return os.EX_DATAERR if found.is_broken else os.EX_OK


def list_command(given: Given, _: Log) -> int:
    """Prints what registers the hook. Returns the exit code. Raises HookError."""
    from .engines import install, machine, registration

    places = [install.Places(each) for each in given.all("--prefix")]
    hooks = [*(each.folder for each in places), *given.all("--hooks-dir")]
    folders, wrappers = given.all("--cdi-dir"), [each.runtimes for each in places]
    found = registration.find(hooks, folders, wrappers) if hooks or folders else machine.everywhere()
    unread = machine.unread(found)
    answer(registration.as_json(found, unread) if given.format == "json" else registration.as_text(found, unread))
    return os.EX_OK


def uninstall_command(given: Given, _: Log) -> int:
    """Removes registrations. Returns the exit code. Raises HookError."""
    from .engines import settings
    from .engines.timer import Timer
    from .engines.uninstall import Removed, uninstall, uninstall_all
    from .engines.wrapper_file import Wrapper
    from .engines.written import remove_folders

    timer = Timer(given.last("--units-dir"))
    is_for_timer = "--gc-timer" in given.values
    if is_for_timer and _WITH_TIMER.issuperset(given.values):
        _remove_timer(timer, given.last("--prefix"))
        return os.EX_OK
    root_of_timer = [timer.root] if timer.launcher else []
    everything = "--all" in given.values
    for option in ("--name", "--cdi", "--runtime") if everything else ():
        if option in given.values:
            raise UsageError("--all removes all registrations", where=option)
    if "--own" in given.values and not everything:
        raise UsageError("this option requires --all", where="--own")
    prefix, folder, name, instead = _where(given, _OF_OTHERS)
    others = [*given.all("--hooks-dir"), *given.all("--cdi-dir")]
    removed, missing = Removed(), None
    if everything:
        is_own, launchers = "--own" in given.values, [timer.launcher] if timer.launcher else []
        removed = uninstall_all(given.last("--prefix"), others, is_own=is_own, launchers=launchers)
    else:
        try:
            removed = uninstall(prefix, folder, name, instead, others)
        except MissingError as problem:
            missing = problem
    # If the registration is not found, its name may be mistyped: the timer of the others stays.
    is_wanted = is_for_timer and missing is None and not _is_anothers(timer, given.last("--prefix"))
    units = timer.remove(even_if_used=is_wanted)
    if is_for_timer and missing is None and not units:
        why = f": the one there calls {timer.launcher}" if timer.launcher else ""
        removed.kept.append(f"install wrote no timer for this in {timer.folder}{why}")
    if isinstance(instead, Wrapper) and missing is not None and "--apply" in given.values:
        # An earlier uninstall has removed the wrapper, but not the entries in engines' files.
        removed.runtimes = settings.of(instead.name, instead.paths[0])
    if missing is not None and not units and not any(engine.names_it() for engine in removed.runtimes):
        raise missing
    tell_changes([*removed.paths, *units])
    if units:
        tell(f"to stop the timer: {timer.forgetting}")
    _withdraw(removed, is_wanted=everything or "--apply" in given.values)
    if removed.paths and removed.runtimes:
        removed.kept.append("running containers of a removed runtime can no longer be stopped through it")
    roots = _roots(removed.arguments)
    if everything:
        _remove_state_folders(
            removed, [None, *roots, *(root_of_timer if units else [])], is_own="--own" in given.values
        )
    else:
        _warn_of_records(removed, roots)
    tell_changes(remove_folders(removed.folders))
    warn(removed.kept)
    if everything and not (removed.paths or removed.runtimes or units or removed.kept):
        tell("nothing that install wrote is left")
    return os.EX_OK


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
    from .engines.doctor import gc_command

    why = f"for which poststop is no longer called{whose}"
    return f'{path} has records of {few(names)}, {why}: once they have ended, {again}run "{gc_command(root)}"'


def _remove_state_folders(removed: Removed, roots: Iterable[str | None], *, is_own: bool) -> None:
    """Removes the state folders without records that no remaining registration uses.

    ``is_own``: the program itself is removed next, as by a package.
    """
    from .engines.doctor import state_files
    from .upkeep import folders

    in_use = folders.registered()
    again = "install the program again, " if is_own else ""
    for root in dict.fromkeys(roots):
        path = state_folder(_at(root), Proc())
        if not os.path.lexists(path):
            continue
        if root in in_use:
            removed.kept.append(f"{path} is still used by a registration: see install --list")
            _, names = state_files(_at(root))
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
    from .engines.doctor import state_files

    for root in roots:
        path, names = state_files(_at(root))
        if names:
            removed.kept.append(_records(path, names, root))


def _at(root: str | None) -> Options:
    options = Options()
    options.root = root
    return options


def _roots(arguments: list[list[str]]) -> list[str | None]:
    """Returns the ``--root`` of each registration with these arguments, each once; None for the default.

    Invalid arguments count as the default: the files may have been edited.
    """
    from .engines.registration import options_of

    found = [options_of(words) or Options() for words in arguments or [[]]]
    return list(dict.fromkeys(options.root for options in found))
