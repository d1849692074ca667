# SPDX-License-Identifier: Apache-2.0
"""The command install: it checks the combination of options, writes files, and reports the result."""

from __future__ import annotations

import os
import shlex

from ..errors import HookError, MissingError, UnavailableError, UsageError
from ..log import few
from ..options import Options, parse
from ..requests.mount_field import parse_mount
from .output import answer, tell, tell_changes, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..log import Log
    from .command_line import Given
    from .engines.install import Instead
    from .engines.settings import Settings
    from .engines.timer import Timer
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

    prefix, folder, name, instead = where(given, ())
    is_timer_alone = "--gc-timer" in given.values and WITH_TIMER.issuperset(given.values) and not given.others
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
    if isinstance(instead, Wrapper) and os.geteuid() != 0 and "createContainer" not in stages:
        said = "if an ordinary user starts runc or crun, the hook can bind only at createContainer"
        warn([f"{said}: add --stages createContainer,poststop"])
    if timer is not None:
        _add_timer(timer, units)
    if is_applied:
        _apply(engines, prefix)
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


def _why_not(engine: str) -> str:
    """Returns why the installed version of this engine reads no CDI devices, "" if it does or is not installed."""
    from .engines import doctor, machine

    path = dict(machine.programs()).get(engine, "")
    version = doctor.version_of(path) if path else ""
    if not version or machine.knows_cdi(engine, version):
        return ""
    return f"{version} does not read CDI here: use install --runtime NAME --apply"


def _engines(wrapper: Wrapper, engine: str | None, *, apply: bool) -> list[Settings]:
    """Returns the settings of the engines that call runtimes by name: those on this machine or, without any, those
    that may be installed later.

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
    here = [one for one in found if not one.why_unused]
    if apply and not here:
        is_there = any(one.is_installed for one in found)
        hint = (
            ""
            if is_there
            else "without --apply, install writes the wrapper, and prints what to add to the files of engines"
        )
        raise UnavailableError("; ".join(one.why_unused for one in found), where="--apply", hint=hint)
    for one in here if apply else ():
        one.check()
    return here or [one for one in found if not one.is_installed]


def _apply(engines: list[Settings], prefix: str) -> None:
    """Writes into the engines' files. Raises HookError, whose hint has what was done so far and what to do."""
    from .engines.uninstall import prefix_option

    done: list[str] = []
    for engine in engines:
        try:
            tell_changes(engine.apply())
        except HookError as problem:
            stands = " and ".join([engine.path, *done])
            removal = shlex.join(["uninstall", *prefix_option(prefix), "--runtime", engine.name, "--apply"])
            advice = f"to remove it, run {removal}; to go on, repeat this command"
            problem.hint = "; ".join(filter(None, (problem.hint, f"done so far: {stands}; {advice}")))
            raise
        tell(f"to activate it in {engine.engine}: {engine.restart}")
        done.append(engine.file)


# The options with which `install --gc-timer` only adds a timer to a hook that is registered, and with which
# `uninstall --gc-timer` only removes the timer.
WITH_TIMER = frozenset({"--gc-timer", "--prefix", "--units-dir"})

# The messages for options that exclude each other.
_HOOKS_D = "this option is for hooks.d; "
_NOT_FOR_CDI = f"{_HOOKS_D}a CDI device applies to containers that request it by --device"
_NOT_FOR_RUNTIME = f"{_HOOKS_D}a runtime applies to all containers that use it, or to those with an --annotation"
_ONLY_FOR_CDI = "this option requires --cdi"
_ONLY_FOR_RUNTIME = "this option requires --runtime"
_FOR_HOOKS_D = ("--hooks-dir", "--name", "--command", "--has-bind-mounts", "--always")
_FOR_CDI = ("--cdi-dir", "--env")
_FOR_RUNTIME = ("--oci-runtime", "--apply", "--engine")


def where(given: Given, besides: tuple[str, ...]) -> tuple[str, str | None, str | None, Instead | None]:
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
