# SPDX-License-Identifier: Apache-2.0
"""The commands by name. No start of a container loads any of them."""

from __future__ import annotations

import os

from ..documents.bundle import read_all, read_given
from ..errors import HookError, MissingError, UsageError
from ..kernel import files
from ..kernel.errnos import refused
from ..log import one_line
from ..options import Options, parse, unknown
from ..requests.mount_field import parse_mount
from .command_line import Command, Given
from .reference import Option, options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..log import Log
    from ..requests.request import Request
    from .engines.install import Instead
    from .engines.written import Change


def run(argv: list[str], log: Log) -> int:
    """Runs a command and returns its exit code. Raises HookError."""
    if "--help" in argv or "-h" in argv:
        from .help import summary

        _print(summary(COMMANDS))
        return os.EX_OK
    if "--version" in argv:
        from .engines import doctor

        _print(doctor.version())
        return os.EX_OK
    commands = {tuple(command.name.split()): command for command in COMMANDS}
    first, *words = argv
    own = words[: words.index("--") if "--" in words else None]
    # An option may make it another command, such as "install --check".
    name = next(((first, word) for word in own if (first, word) in commands), (first,))
    if name not in commands:
        raise unknown(first, tuple(known for known, *_ in commands))
    return commands[name].run(Given(commands[name], words), log)


def dry_run(options: Options) -> int:
    """Prints what the hook would do, and returns the exit code that it would have. Raises HookError."""
    from .explain import dry_run
    from .explain.report import as_json, as_text

    report = dry_run.dry_run(options, read_given, _tell)
    if options.as_json:
        _print(as_json(report))
    elif os.isatty(1):
        _print(as_text(report, width=os.get_terminal_size(1).columns, colour=_is_colourful()))
    else:
        _print(as_text(report))
    return report.exit_code


def _is_colourful() -> bool:
    """Whether to use colours on a terminal: not with NO_COLOR (https://no-color.org), nor if TERM is dumb."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _print(text: str) -> None:
    """Writes to stdout, independent of the locale. Raises KernelError if it is closed."""
    rest = text.encode(errors="backslashreplace")
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except OSError as reason:
        raise refused("write", "stdout", reason) from reason


# -- the commands ----------------------------------------------------------------------------------------------------


def _list(given: Given, log: Log) -> int:
    return _look(given, log)


def _show(given: Given, log: Log) -> int:
    if len(given.others) != 1:
        raise UsageError("show needs the id of one container", hint="list shows all")
    return _look(given, log)


def _look(given: Given, log: Log) -> int:
    from .upkeep import listing

    options, log.debug_wanted = parse(given.passed)
    folder, entries = listing.look(options, given.others)
    if given.as_json:
        _print(listing.as_json(folder, entries))
    elif given.others:
        _print("".join(map(listing.as_text, entries)))
    else:
        _print(listing.as_list(folder, entries))
    return _worst([entry.problem for entry in entries if entry.problem is not None])


def _gc(given: Given, log: Log) -> int:
    from .upkeep import gc

    options, log.debug_wanted = parse(given.passed)
    if options.log is not None and not options.dry_run:
        log.open(options.log, as_json=options.log_as_json, changeable=files.changeable)
    os.umask(0o022)
    collection = gc.collect(options, given.others, log)
    _print(gc.as_json(collection, dry_run=options.dry_run) if given.as_json else gc.as_text(collection))
    return _worst(collection.problems)


def _worst(problems: list[HookError]) -> int:
    """The exit code for several problems: that of an unusable state file first."""
    codes = [problem.exit_code for problem in problems]
    return os.EX_IOERR if os.EX_IOERR in codes else next(iter(codes), os.EX_OK)


def _validate(given: Given, _: Log) -> int:
    from . import validate

    if not given.others:
        raise UsageError("nothing to validate", hint="name bundles or files, or - for stdin")
    if given.others.count("-") > 1:
        raise UsageError("stdin can be read once only", where="-")
    verdicts = list(validate.validate(given.others, _stdin))
    _print(validate.as_json(verdicts) if given.as_json else validate.as_text(verdicts))
    if any(verdict.violations for verdict in verdicts):
        return os.EX_DATAERR
    return next((verdict.problem.exit_code for verdict in verdicts if verdict.problem is not None), os.EX_OK)


def _stdin() -> bytes:
    """The document on stdin, for validate. Raises MissingError."""
    try:
        return read_all(0)
    except OSError as reason:
        raise MissingError(f"stdin cannot be read: {reason.strerror}") from reason


def _install(given: Given, _: Log) -> int:
    from .engines.cdi_file import Devices
    from .engines.conditions import When
    from .engines.install import Places, install, missing_sources, warnings, warnings_of_devices
    from .engines.timer import Timer

    prefix, folder, name, instead = _where(given, ())
    when = None
    if instead is None:
        when = When(
            always="--always" in given.values,
            annotations=given.all("--annotation"),
            commands=given.all("--command"),
            has_bind_mounts="--has-bind-mounts" in given.values,
        )
    options, requests = _registered(given.others)
    places = Places(prefix, folder, name, instead)
    timer = Timer(given.last("--units-dir")) if "--gc-timer" in given.values else None
    units = timer.contents(places.launcher, options.root) if timer is not None else {}
    stages = [stage for text in given.all("--stages")[-1:] for stage in text.split(",")]
    _tell_changes(install(prefix, stages, given.others, hooks_dir=folder, when=when, name=name, instead=instead))
    _warn([*(when.warnings if when is not None else ()), *missing_sources(requests), *warnings(places)])
    _warn(warnings_of_devices(instead) if isinstance(instead, Devices) else [])
    if timer is not None:
        _tell_changes(timer.write(units))
        _tell(f"to enable the timer: {timer.enabling}")
    for use in instead.uses if instead is not None else ():
        _tell(f"to use it: {use}")
    return os.EX_OK


# What does not go with another kind of registration, and why.
_HOOKS_D = "it is for hooks.d; "
_NOT_FOR_CDI = f"{_HOOKS_D}a CDI device is for the containers that ask for it by --device"
_NOT_FOR_RUNTIME = f"{_HOOKS_D}a runtime is for all containers that it is named for, or for those with an --annotation"
_ONLY_FOR_CDI = "it is for CDI: name a device with --cdi as well"
_ONLY_FOR_RUNTIME = "it is for a runtime: name it with --runtime as well"
_FOR_HOOKS_D = ("--hooks-dir", "--name", "--command", "--has-bind-mounts", "--always")
_FOR_CDI = ("--cdi-dir", "--env")
_FOR_RUNTIME = ("--oci-runtime", "--apply")


# What uninstall is told of other registrations that may call the same launcher.
_OF_OTHERS = ("--hooks-dir", "--cdi-dir", "--apply")


def _where(given: Given, besides: tuple[str, ...]) -> tuple[str, str | None, str | None, Instead | None]:
    """The prefix, the folder of the hooks.d file if it is elsewhere, its name; or what takes its place.

    UsageError for an option that does not go with it, if it is not among ``besides``.
    """
    from .engines.cdi_file import Devices
    from .engines.wrapper_file import Wrapper

    prefix = given.last("--prefix")
    prefix = "/usr/local" if prefix is None else prefix
    instead: Instead | None = None
    if "--cdi" in given.values:
        refused = dict.fromkeys((*_FOR_HOOKS_D, "--annotation"), _NOT_FOR_CDI)
        refused |= dict.fromkeys(("--runtime", *_FOR_RUNTIME), "a CDI device needs no runtime")
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


def _registered(words: list[str]) -> tuple[Options, list[Request]]:
    """The options that the hook is given, and the binds. UsageError, RequestError for what makes no sense anywhere."""
    options, _ = parse(words)
    if options.stage is not None:
        raise UsageError("the same words are given to the hook at each of its stages", where=options.stage)
    if options.dry_run:
        raise UsageError("a hook that changes nothing is of no use", where="--dry-run")
    places = [(f"--mount {number}", text) for number, text in enumerate(options.mounts, 1)]
    return options, [parse_mount(text, place, place) for place, text in places]


def _check(given: Given, _: Log) -> int:
    from .engines import check, hooks_d

    if len(given.others) > 1:
        raise UsageError("one bundle at a time", where=given.others[1])
    hooks = given.all("--hooks-dir") or hooks_d.FOLDERS
    found = check.Check(hooks, next(iter(given.others), None), given.all("--cdi-dir") or None)
    _print(check.as_json(found) if given.as_json else check.as_text(found))
    return os.EX_DATAERR if found.is_broken else os.EX_OK


def _list_registrations(given: Given, _: Log) -> int:
    from .engines import cdi, install, registration, runtimes

    places = [install.Places(each) for each in given.all("--prefix")]
    hooks = [*(each.folder for each in places), *given.all("--hooks-dir")]
    folders, wrappers = given.all("--cdi-dir"), [each.runtimes for each in places]
    if not hooks and not folders:
        hooks, folders, wrappers = [*registration.HOOKS_FOLDERS], [*cdi.FOLDERS], [*runtimes.FOLDERS]
    found = registration.find(hooks, folders, wrappers)
    _print(registration.as_json(found) if given.as_json else registration.as_text(found))
    return os.EX_OK


def _uninstall(given: Given, _: Log) -> int:
    from .engines.doctor import state_files
    from .engines.install import Removed, uninstall
    from .engines.timer import Timer

    timer = Timer(given.last("--units-dir"))
    everything = "--all" in given.values
    for option in ("--name", "--cdi", "--runtime") if everything else ():
        if option in given.values:
            raise UsageError("--all removes all registrations", where=option)
    try:
        others = [*given.all("--hooks-dir"), *given.all("--cdi-dir")]
        removed, missing = uninstall(*_where(given, _OF_OTHERS), others, everything=everything), None
    except MissingError as problem:
        removed, missing = Removed(), problem
    units = timer.remove()
    if missing is not None and not units:
        raise missing
    _tell_changes([*removed.paths, *units])
    if units:
        _tell(f"to make systemd forget the timer: {timer.forgetting}")
    for folder, left in dict(map(state_files, _all_options(removed.arguments))).items():
        if left:
            removed.kept.append(
                f"{folder} still has state files, and poststop can no longer be called: {len(left)} (once their "
                'containers have ended, "oci-bind-hook gc" undoes them)'
            )
    _warn(removed.kept)
    return os.EX_OK


def _all_options(arguments: list[list[str]]) -> list[Options]:
    """What registrations gave the hook, as far as it can be understood: somebody may have edited them."""
    found = []
    for words in arguments or [[]]:
        try:
            found.append(parse(words)[0])
        except UsageError:
            found.append(Options())
    return found


def _doctor(given: Given, _: Log) -> int:
    from .engines import doctor

    findings = doctor.examine()
    _print(doctor.as_json(findings) if given.as_json else doctor.as_text(findings))
    return os.EX_UNAVAILABLE if any(each.is_problem for each in findings) else os.EX_OK


def _warn(remarks: list[str]) -> None:
    for remark in remarks:
        _tell(f"warning: {remark}")


def _tell_changes(changes: list[Change]) -> None:
    for change in changes:
        _print(f"{one_line(change.line())}\n")


def _tell(remark: str) -> None:
    """Prints one line on stderr, so that stdout holds only the answer, or what was done to files."""
    try:
        os.write(2, f"oci-bind-hook: {one_line(remark)}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # nobody reads it


COMMANDS = (
    Command(
        "list",
        _list,
        "[--root DIR] [--format text|json]",
        "show what is recorded of all containers, whether it is still so, and what to do",
        options("--root --format --debug"),
        hint="show ID shows one container",
    ),
    Command(
        "show",
        _show,
        "ID [--root DIR] [--format text|json]",
        "show the same of one container, with each bind and each mount point that was made",
        options("--root --format --debug"),
        takes=("ID",),
    ),
    Command(
        "gc",
        _gc,
        "[ID]... [--dry-run] [--root DIR] [--keep-mountpoints]",
        "undo what dead containers and killed runs left; what lives is left alone",
        (
            *options("--root --format --debug --keep-mountpoints --log --log-format"),
            Option("--dry-run", "", "show what would be undone, and change nothing"),
        ),
        takes=("ID",),
    ),
    Command(
        "validate",
        _validate,
        "[--format text|json] BUNDLE|FILE|-...",
        "print each place where a config.json or a state breaks the schemas, used by the hook or not",
        options("--format"),
        takes=("BUNDLE", "FILE", "-"),
        hint="a file of that name comes after --",
    ),
    Command(
        "install",
        _install,
        "[--prefix DIR] [WHERE AND WHEN]... [-- OPTION...]",
        "register the hook with engines, in hooks.d for podman and CRI-O, in CDI for all, or as a runtime for docker",
        options(
            "--prefix --name --hooks-dir --stages --annotation --command --has-bind-mounts --always --cdi --cdi-dir "
            "--env --runtime --oci-runtime --apply --gc-timer --units-dir"
        ),
        takes=("OPTION",),
        only_behind=True,
        hint="what the hook is given comes after --",
    ),
    Command(
        "install --check",
        _check,
        "[WHERE]... [BUNDLE]",
        "show the hooks in hooks.d and CDI folders, what is wrong with them, and which a bundle gets",
        options("--check --hooks-dir --cdi-dir --format"),
        takes=("BUNDLE",),
    ),
    Command(
        "install --list",
        _list_registrations,
        "[--prefix DIR] [WHERE]...",
        "show what registers the hook, with the words that it is given",
        options("--list --prefix --hooks-dir --cdi-dir --format"),
    ),
    Command(
        "uninstall",
        _uninstall,
        "[--prefix DIR] [WHERE]...",
        "remove what install wrote",
        options("--prefix --name --hooks-dir --cdi --cdi-dir --runtime --apply --all --units-dir"),
    ),
    Command(
        "doctor",
        _doctor,
        "[--format text|json]",
        "show what this machine has of what the hook uses, and what it lacks",
        options("--format"),
    ),
)
