# SPDX-License-Identifier: Apache-2.0
"""What a person calls: all that is no hook. None of it is loaded where a container waits."""

from __future__ import annotations

import os

from ..documents.bundle import read_all, read_given
from ..errors import HookError, MissingError, UsageError
from ..kernel.errnos import refused
from ..log import one_line
from ..options import FLAGS, Arguments, Options, is_json, parse, unknown
from ..requests.mount_field import parse_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..log import Log

HELP = """\
usage: oci-bind-hook [STAGE] [OPTION]... < state.json
       oci-bind-hook [STAGE] --dry-run [--bundle DIR] [OPTION]...
       oci-bind-hook list | show ID [--root DIR] [--format text|json]
       oci-bind-hook gc [ID]... [--dry-run] [--root DIR] [--keep-mountpoints]
       oci-bind-hook validate [--format text|json] BUNDLE|FILE|-...
       oci-bind-hook install [--prefix DIR] [WHERE AND WHEN]... [-- OPTION...]
       oci-bind-hook install --check [--hooks-dir DIR]... [BUNDLE]
       oci-bind-hook uninstall [--prefix DIR] [--hooks-dir DIR]
       oci-bind-hook doctor [--format text|json]

An OCI runtime hook: makes the bind mounts of config.json and of --mount in the
container's rootfs, and takes them down again at poststop.

STAGE is prestart, createRuntime, createContainer or poststop. Left out, it is
told from the state.

validate needs no container: it prints each place where a config.json, all of
it, or a state breaks the schemas, and nothing where all is well.

list and show tell what is recorded, whether it is still so, and what to do. gc
undoes what dead containers and killed runs left, and touches none that lives.

  --mount SPEC          one more bind: type=bind,src=/on/host,dst=/in/container
                        [,ro][,...]; may be repeated. Also rro, nosuid, ...,
                        bind-propagation=, bind-recursive=, idmap[=MAP], and
                        optional, when-exists=PATH, type=glob
  --allow-annotations   take binds from annotations of config.json as well,
  --allow-source DIR    for sources below DIR only; may be repeated
  --root DIR            where the state files are (default: /run/oci-bind-hook;
                        rootless below XDG_RUNTIME_DIR or /run/user/UID)
  --dry-run             explain what would be done, and change nothing. Without
                        --mount: by the options that config.json registers
  --bundle DIR          with --dry-run: this bundle, without a state on stdin.
                        Of a container that runs it tells what is there
  --format text|json    what is printed: for a person or for a program
  --strict              refuse what breaks the schema anywhere in config.json,
                        not only where the hook uses it
  --allow-shared        allow destinations below a mount shared with the host
  --keep-mountpoints    never remove mount points of an earlier call
  --log FILE            append a log to FILE
  --log-format text|json
  --debug               tell each step on stderr as well
  --version, --help

install registers the hook with podman and CRI-O, oci-hooks(5); uninstall
undoes that; install --check tells which hooks such folders hold, what is wrong
with them, and which a bundle gets; doctor tells what this machine lacks.

  --prefix DIR          below which it is installed (default: /usr/local)
  --hooks-dir DIR       the folder for the hooks.d file, if not below --prefix;
                        with --check a folder to read, may be repeated
  --stages STAGE,...    when it is called (default: createRuntime,poststop)
  --annotation KEY=VALUE  for containers with it; may be repeated
  --command REGEX       for those whose command matches; may be repeated
  --has-bind-mounts     for those with bind mounts
  --always              for all: the default without the three above

exit codes: 0 done, 64 usage, 65 invalid state or config.json, 66 something is
not there, 69 not possible here, 70 a bug, 71 refused by the kernel, 74 state
file, 77 would leave the rootfs or leak, 78 a request that makes no sense
"""


def run(argv: list[str], log: Log) -> int:
    """One of the commands, and its exit code. HookError."""
    if "--help" in argv or "-h" in argv:
        _print(HELP)
        return os.EX_OK
    if "--version" in argv:
        from .engines import doctor

        _print(doctor.version())
        return os.EX_OK
    if argv[0] in _COMMANDS:
        return _COMMANDS[argv[0]](argv[1:])
    if argv[0] in _OF_RECORDS:
        return _records(argv[0], argv[1:], log)
    raise unknown(argv[0], (*_COMMANDS, *_OF_RECORDS))


# What may stand behind the commands that work on state files.
_OF_RECORDS = {
    "list": ("--root", "--format", "--debug"),
    "show": ("--root", "--format", "--debug"),
    "gc": ("--root", "--format", "--debug", "--dry-run", "--keep-mountpoints", "--log", "--log-format"),
}


def dry_run(options: Options) -> int:
    """Tells what the hook would do, and returns the exit code it would have. HookError."""
    from .explain import dry_run
    from .explain.report import as_json, as_text

    report = dry_run.dry_run(options, read_given)
    if options.as_json:
        _print(as_json(report))
    elif os.isatty(1):
        _print(as_text(report, width=os.get_terminal_size(1).columns, colour=_is_colourful()))
    else:
        _print(as_text(report))
    return report.exit_code


def _is_colourful() -> bool:
    """Whether a terminal may be sent colours: https://no-color.org, and one that can do nothing says so."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _print(text: str) -> None:
    """Writes to stdout, whatever the locale can say. KernelError where nobody reads it."""
    rest = text.encode(errors="backslashreplace")
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except OSError as reason:
        raise refused("write", "stdout", reason) from reason


class _Given:
    """The words of one of the commands: the values of its options, its flags, other words, and those after ``--``."""

    def __init__(self, command: str, words: list[str], values: str, flags: str = "", *, others: str = "") -> None:
        self.values: dict[str, list[str]] = {f"--{name}": [] for name in values.split()}
        self.flags: set[str] = set()
        self.others: list[str] = []
        self.rest: list[str] = []
        self.as_json = False
        arguments = Arguments(words)
        while arguments:
            word = arguments.option()
            if word in self.values:
                self.values[word].append(arguments.value(word))
                if word == "--format":
                    self.as_json = is_json(word, self.values[word][-1])
            elif word.removeprefix("--") in flags.split() and word.startswith("--"):
                self.flags.add(word)
            elif word == "--":
                self.rest = arguments.rest()
            elif (word.startswith("-") and word not in others.split()) or not others:
                raise UsageError(f"{command} does not know it", where=word, hint=_AFTER.get(command, "see --help"))
            else:
                self.others.append(word)

    def last(self, option: str, default: str | None = None) -> str | None:
        return self.values[option][-1] if self.values[option] else default


# Where words that look like options may be meant for something else.
_AFTER = {"install": "what the hook is given comes after --", "validate": "a file of that name comes after --"}


def _install(words: list[str]) -> int:
    if "--check" in words[: words.index("--") if "--" in words else None]:
        return _check(words)
    from .engines.install import Places, When, install, warnings

    given = _Given("install", words, "prefix hooks-dir stages annotation command", "always has-bind-mounts")
    when = When(
        always="--always" in given.flags,
        annotations=given.values["--annotation"],
        commands=given.values["--command"],
        has_bind_mounts="--has-bind-mounts" in given.flags,
    )
    _check_registered(given.rest)
    prefix, folder = given.last("--prefix", "/usr/local") or "", given.last("--hooks-dir")
    stages = [stage for value in given.values["--stages"][-1:] for stage in value.split(",")]
    for path in install(prefix, stages, given.rest, hooks_dir=folder, when=when):
        _print(f"{path}\n")
    _warn(warnings(Places(prefix, folder)))
    return os.EX_OK


def _check(words: list[str]) -> int:
    from .engines import check, hooks_d

    given = _Given("install --check", words, "hooks-dir format", "check", others="BUNDLE")
    if len(given.others) > 1:
        raise UsageError("one bundle at a time", where=given.others[1])
    found = check.Check(given.values["--hooks-dir"] or hooks_d.FOLDERS, next(iter(given.others), None))
    _print(check.as_json(found) if given.as_json else check.as_text(found))
    return os.EX_DATAERR if found.is_broken else os.EX_OK


def _uninstall(words: list[str]) -> int:
    from .engines.doctor import state_files
    from .engines.install import uninstall

    given = _Given("uninstall", words, "prefix hooks-dir")
    removed = uninstall(given.last("--prefix", "/usr/local") or "", given.last("--hooks-dir"))
    for path in removed.paths:
        _print(f"{path}\n")
    try:
        folder, left = state_files(parse(removed.arguments)[0])
    except UsageError:  # of a hooks.d file that somebody has edited
        folder, left = state_files(Options())
    if left:
        removed.kept.append(f"{folder} still has state files, which nobody undoes any more: {len(left)}")
    _warn(removed.kept)
    return os.EX_OK


def _doctor(words: list[str]) -> int:
    from .engines import doctor

    given = _Given("doctor", words, "format")
    findings = doctor.examine()
    _print(doctor.as_json(findings) if given.as_json else doctor.as_text(findings))
    return os.EX_UNAVAILABLE if any(each.is_problem for each in findings) else os.EX_OK


def _warn(remarks: list[str]) -> None:
    """On stderr, so that stdout has only paths."""
    for remark in remarks:
        os.write(2, f"oci-bind-hook: warning: {one_line(remark)}\n".encode(errors="backslashreplace"))


def _records(command: str, words: list[str], log: Log) -> int:
    as_json, names, passed = False, [], []
    arguments = Arguments(words)
    while arguments:
        word = arguments.option()
        if word == "--format":
            as_json = is_json(word, arguments.value(word))
        elif word in _OF_RECORDS[command]:
            passed += [word] if word in FLAGS else [word, arguments.value(word)]
        elif word.startswith("-"):
            raise UsageError(f"{command} does not know it", where=word, hint="see --help")
        else:
            names.append(word)
    if command == "list" and names:
        raise UsageError("list tells of all containers", where=names[0], hint="show tells of one")
    if command == "show" and len(names) != 1:
        raise UsageError("show tells of one container: name it", hint="list tells of all")
    options, log.debug_wanted = parse(passed)
    if options.log is not None and not options.dry_run:
        log.open(options.log, as_json=options.log_as_json)
    if command == "gc":
        return _gc(options, names, log, as_json=as_json)
    from .upkeep import listing

    folder, entries = listing.look(options, names)
    if as_json:
        _print(listing.as_json(folder, entries))
    else:
        _print(listing.as_list(folder, entries) if command == "list" else "".join(map(listing.as_text, entries)))
    return _worst([entry.problem for entry in entries if entry.problem is not None])


def _gc(options: Options, names: list[str], log: Log, *, as_json: bool) -> int:
    from .upkeep import gc

    os.umask(0o022)
    collection = gc.collect(options, names, log)
    _print(gc.as_json(collection, dry_run=options.dry_run) if as_json else gc.as_text(collection))
    return _worst(collection.problems)


def _worst(problems: list[HookError]) -> int:
    """The exit code for several problems: a state file that cannot be used before anything else."""
    codes = [problem.exit_code for problem in problems]
    return os.EX_IOERR if os.EX_IOERR in codes else next(iter(codes), os.EX_OK)


def _validate(words: list[str]) -> int:
    from . import validate

    given = _Given("validate", words, "format", others="BUNDLE FILE -")
    names = given.others + given.rest
    if not names:
        raise UsageError("nothing to validate", hint="name bundles or files, or - for stdin")
    if names.count("-") > 1:
        raise UsageError("stdin can be read once only", where="-")
    verdicts = list(validate.validate(names, _stdin))
    _print(validate.as_json(verdicts) if given.as_json else validate.as_text(verdicts))
    if any(verdict.violations for verdict in verdicts):
        return os.EX_DATAERR
    return next((verdict.problem.exit_code for verdict in verdicts if verdict.problem is not None), os.EX_OK)


def _stdin() -> bytes:
    """What validate is given on stdin. MissingError."""
    try:
        return read_all(0)
    except OSError as reason:
        raise MissingError(f"stdin cannot be read: {reason.strerror}") from reason


def _check_registered(words: list[str]) -> None:
    """Refuses what cannot be registered for every stage of every container. UsageError, RequestError."""
    options, _ = parse(words)
    if options.stage is not None:
        raise UsageError("the same words are given to the hook at each of its stages", where=options.stage)
    if options.dry_run:
        raise UsageError("a hook that changes nothing is of no use", where="--dry-run")
    for number, text in enumerate(options.mounts, 1):
        parse_mount(text, f"--mount {number}", f"--mount {number}")


_COMMANDS = {"install": _install, "uninstall": _uninstall, "validate": _validate, "doctor": _doctor}
