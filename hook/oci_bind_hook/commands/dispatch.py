# SPDX-License-Identifier: Apache-2.0
"""The commands by name. No start of a container loads any of them."""

from __future__ import annotations

import os

from ..documents.bundle import read_all, read_given
from ..errors import MissingError, UsageError
from ..kernel import files
from ..options import STAGES, Options, absolute_to_here, parse, unknown
from . import registering
from .command_line import Command, Example, Given
from .output import Progress, answer, has_unicode, tell
from .reference import RUNNING, VALIDATE, Option, options, options_of_hook

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..log import Log
    from .explain.containers import Container
    from .explain.drawing import Pen
    from .explain.report import Report
    from .upkeep.folders import Folder
    from .upkeep.gc import Outcome
    from .upkeep.listing import Entry


def run(argv: list[str], log: Log) -> int:
    """Runs a command and returns its exit code. Raises HookError."""
    commands = {tuple(command.name.split()): command for command in COMMANDS}
    first, *words = argv
    own = words[: words.index("--") if "--" in words else None]
    # An option may make it another command, such as "install --check".
    name = next(((first, word) for word in own if (first, word) in commands), (first,))
    command = commands.get(name)
    # What stands behind -- may be the name of a file; but of an option of the hook somebody asks what it means.
    asked = argv if command is None or command.only_behind else own
    if not {"--help", "-h"}.isdisjoint(asked):
        from . import help

        answer(help.of_command(command, COMMANDS) if command else help.of_words(argv, COMMANDS))
        return os.EX_OK
    if "--version" in asked:
        from .engines import doctor

        answer(doctor.version())
        return os.EX_OK
    if command is None:
        raise unknown(first, tuple(known for known, *_ in commands))
    return command.run(Given(command, words), log)


def dry_run(
    options: Options, container: Container | None = None, judge: Callable[[Report], None] = lambda _: None
) -> int:
    """Prints what the hook would do, and returns the exit code that it would have. Raises HookError.

    The bundle is that of ``options``, which is that of ``container`` if there is one, or of the state on stdin.
    ``judge`` adds to the report what a caller knows.
    """
    from .explain import dry_run
    from .explain.report import as_json, as_text

    if options.unfold and options.format != "tree":
        raise UsageError("only --format tree folds anything", where="--all")
    read = read_given if container is None else container.ended
    report = dry_run.dry_run(options, read, tell, container)
    judge(report)
    if options.format == "json":
        answer(as_json(report))
    elif options.format == "tree":
        answer(picture(report.document(), everything=options.unfold))
    else:
        answer(as_text(report, width=_width(), colour=_is_colourful()))
    return report.exit_code


def _explain(given: Given, log: Log) -> int:
    from .explain import by_name, meant

    stages = [word for word in given.others if word in STAGES]
    word = meant.word([word for word in given.others if word not in STAGES])
    options, log.debug_wanted = parse([*stages, *given.passed, "--dry-run"])
    options.format = "tree" if os.isatty(1) and "--format" not in given.values else given.format
    if meant.is_path(word):
        options.bundle = absolute_to_here("explain", word)
        if options.stage == "poststop":
            raise UsageError("poststop needs the id of a container, which a bundle does not tell", where=word)
        return dry_run(options)
    container = by_name.find_in_time(word, options.root, is_over=options.stage == "poststop")
    options.root = options.root or container.root
    if options.stage != "poststop":
        options.bundle = container.bundle
    return dry_run(options, container)


def picture(document: dict[str, object], *, everything: bool) -> str:
    """A document by schemas/plan.json as a picture, as it looks best where stdout leads. OSError without procfs."""
    from .explain.tree import as_tree

    return as_tree(document, width=_width(), is_unicode=_is_unicode(), colour=_is_colourful(), everything=everything)


def _pen() -> Pen:
    """What draws lines as they look best where stdout leads. OSError without procfs."""
    from .explain.drawing import Pen

    return Pen(width=_width(), is_unicode=_is_unicode(), colour=_is_colourful())


def _is_unicode() -> bool:
    with open("/proc/self/environ", "rb") as environment:
        return has_unicode(environment.read())


def _width() -> int:
    """The columns of the terminal, 0 where stdout is none."""
    return os.get_terminal_size(1).columns if os.isatty(1) else 0


def _is_colourful() -> bool:
    """Whether to use colours: on a terminal, not with NO_COLOR (https://no-color.org), nor if TERM is dumb."""
    return os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


# -- the commands ----------------------------------------------------------------------------------------------------


def _running(*_: object) -> int:
    """attach and detach: cli.py calls commands.running for them, since this parser takes longer than their work."""
    raise NotImplementedError


def _list(given: Given, log: Log) -> int:
    return _look(given, log)


def _show(given: Given, log: Log) -> int:
    if len(given.others) != 1:
        raise UsageError("show needs the id of one container", hint="list shows all")
    return _look(given, log)


def _look(given: Given, log: Log) -> int:
    from .upkeep import described, listing

    options, log.debug_wanted = parse(given.passed)
    folders, entries = listing.look(options, given.others)
    if given.format == "json":
        answer(listing.as_json(folders, entries))
    elif given.others:
        answer("".join(described.as_text(entry, _pen()) for entry in entries))
    else:
        answer(described.as_list(folders, entries, _pen()))
    return _worst(given, folders, entries)


def _gc(given: Given, log: Log) -> int:
    from .upkeep import gc

    options, log.debug_wanted = parse(given.passed)
    if options.log is not None and not options.dry_run:
        log.open(options.log, as_json=options.log_format == "json", changeable=files.changeable)
    os.umask(0o022)
    pen = _pen()  # before gc hides this process: then an ordinary user may not read its environment
    collection = gc.collect(options, given.others, log)
    answer(gc.as_json(collection, dry_run=options.dry_run) if given.format == "json" else gc.as_text(collection, pen))
    return _worst(given, collection.folders, collection.outcomes)


def _worst(given: Given, folders: Sequence[Folder], found: Sequence[Entry | Outcome]) -> int:
    """The exit code for several problems: that of an unusable state file first."""
    # Of containers that are named all have been found, whichever folder cannot be used.
    looked = found if given.others else (*folders, *found)
    codes = [each.problem.exit_code for each in looked if each.problem is not None]
    return os.EX_IOERR if os.EX_IOERR in codes else next(iter(codes), os.EX_OK)


def _validate(given: Given, _: Log) -> int:
    from . import schemas
    from .validate import Verdicts
    from .verdict_formats import FORMATS

    if not given.others:
        raise UsageError("nothing to validate", hint="name bundles or files, or - for stdin")
    if given.others.count("-") > 1:
        raise UsageError("stdin can be read once only", where="-")
    schema = given.last("--schema")
    progress = Progress(len(given.others))
    verdicts = Verdicts(
        progress.counted(given.others), _stdin, None if schema is None else schemas.known(schema, "--schema")
    )
    for text in FORMATS[given.format](verdicts):
        progress.clear()
        answer(text)
    progress.clear()
    if verdicts.has_violations:
        return os.EX_DATAERR
    return os.EX_OK if verdicts.problem is None else verdicts.problem.exit_code


def _stdin() -> bytes:
    """The document on stdin, for validate. Raises MissingError."""
    try:
        return read_all(0)
    except OSError as reason:
        raise MissingError(f"stdin cannot be read: {reason.strerror}") from reason


def _schema(given: Given, _: Log) -> int:
    from . import schemas

    is_bundled = given.last("--bundled") is not None
    if len(given.others) > 1:
        raise UsageError("schema prints one at a time", where=given.others[1])
    if not given.others:
        if is_bundled:
            raise UsageError("the name of a schema is missing", where="--bundled", hint="schema lists all")
        answer(schemas.as_list())
        return os.EX_OK
    name = schemas.known(given.others[0], "schema")
    answer(schemas.as_one_document(name) if is_bundled else schemas.as_text(name))
    return os.EX_OK


def _doctor(given: Given, _: Log) -> int:
    from .engines import doctor

    findings = doctor.examine()
    answer(doctor.as_json(findings) if given.format == "json" else doctor.as_text(findings, _pen()))
    return os.EX_UNAVAILABLE if any(each.is_problem for each in findings) else os.EX_OK


def _completion(given: Given, _: Log) -> int:
    from . import completion, help

    shell = given.others[0] if given.others else ""
    if shell == completion.WORDS_OF:
        answer(completion.complete(given.others[1:], COMMANDS, lambda: help.topics(COMMANDS)).text())
    elif shell in completion.SCRIPTS and len(given.others) == 1:
        answer(completion.script(shell))
    else:
        raise UsageError("name one shell", where="completion", hint=f"known: {', '.join(completion.SCRIPTS)}")
    return os.EX_OK


def _help(given: Given, _: Log) -> int:
    from . import help

    answer(help.topic(" ".join(given.others), COMMANDS))
    return os.EX_OK


COMMANDS = (
    Command(
        "explain",
        _explain,
        "[BUNDLE|FILE|CONTAINER] [STAGE] [OPTION]...",
        "explain what the hook does for a bundle, as --dry-run does: by folder or config.json, or by id or name of a "
        "container; of the current folder if none is named",
        options_of_hook(
            "--mount --allow-annotations --allow-source --root --format --all --strict --allow-shared "
            "--keep-mountpoints --log --log-format --debug"
        ),
        takes=("BUNDLE", "FILE", "ID", "STAGE"),
        examples=(
            Example("The bundle in the current folder, as a picture", "explain --format tree"),
            Example(
                "What a bind would do to a bundle that does not register the hook",
                "explain /srv/bundle --mount src=/srv/models,dst=/models,ro",
            ),
            Example("A container of podman or docker, by its name", "explain web"),
        ),
        exits=(
            (0, "a real run would succeed"),
            (73, "neither runc nor crun would start the bundle"),
            (69, "or another code: that of the real run, which would fail so"),
        ),
    ),
    Command(
        "attach",
        _running,
        "CONTAINER --mount SPEC... [OPTION]...",
        "bind into a container that runs: by its id, the beginning of one, or name, by its bundle or first process",
        (
            *options_of_hook("--mount --root --dry-run --format --all --strict --allow-shared --log --log-format"),
            *options_of_hook("--debug"),
            *RUNNING,
        ),
        takes=("ID",),
        examples=(
            Example("A folder for a container by its name", "attach web --mount type=bind,src=/srv/db,dst=/data,ro"),
            Example("What that would do", "attach web --mount src=/srv/db,dst=/data --dry-run --format tree"),
        ),
        exits=(
            (0, "done, or there already"),
            (66, "there is no such container, or a source is not there"),
            (69, "the container cannot be entered from here, or has another root"),
            (71, "the kernel refused"),
            (77, "it would leave the rootfs or leak, or `ro` would bind nobody"),
            (78, "a bind that makes no sense"),
        ),
    ),
    Command(
        "detach",
        _running,
        "CONTAINER DESTINATION|--all [OPTION]...",
        "take a bind out of a container that runs, or all that are recorded of it",
        (
            *options_of_hook("--root --keep-mountpoints --log --log-format --debug"),
            *RUNNING[:2],
            Option("--all", "", "all binds that are recorded, those of the container's start as well"),
        ),
        takes=("ID",),
        examples=(
            Example("One bind, by where it is", "detach web /data"),
            Example("All of a container, by its first process", "detach --pid 4242 --all"),
        ),
        exits=(
            (0, "done"),
            (66, "nothing is recorded there"),
            (69, "the container cannot be entered from here, or has another root"),
            (71, "something is mounted on it, or the kernel refused: it stays, and stays recorded"),
        ),
    ),
    Command(
        "list",
        _list,
        "[--root DIR] [--format text|json]",
        "show what is recorded of all containers, whether it is still so, and what to do",
        options("--root --format --debug"),
        hint="show ID shows one container",
        examples=(
            Example("All containers, and what to do about those that need it", "list"),
            Example(
                "Those of a hook that is registered with another state folder", "list --root /var/lib/oci-bind-hook"
            ),
        ),
        exits=((0, "done"), (74, "a state file cannot be read")),
    ),
    Command(
        "show",
        _show,
        "ID [--root DIR] [--format text|json]",
        "show what is recorded of one container: its binds, what was made for them, and whether that is still so",
        options("--root --format --debug"),
        takes=("ID",),
        examples=(
            Example("One container, by the beginning of its id", "show 4f1c"),
            Example("The same for a program", "show 4f1c --format json"),
        ),
        exits=(
            (0, "done"),
            (64, "the beginning of an id is that of several, which are listed"),
            (66, "nothing is recorded for such a container"),
            (74, "its state file cannot be read"),
        ),
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
        examples=(
            Example("What would be undone", "gc --dry-run"),
            Example("All that dead containers left", "gc"),
            Example("What one container left, by the beginning of its id", "gc 4f1c"),
        ),
        exits=(
            (0, "done, or nothing to do"),
            (69, "a container that is named lives"),
            (71, "something could not be undone, and stays recorded"),
            (74, "a state file cannot be read, and stays"),
        ),
    ),
    Command(
        "validate",
        _validate,
        "[OPTION]... BUNDLE|FILE|-...",
        "print where a config.json or a state breaks the schemas, used by the hook or not",
        VALIDATE,
        takes=("BUNDLE", "FILE", "-"),
        hint="a file of that name comes after --",
        examples=(
            Example("All bundles of a folder", "validate /srv/containers/*"),
            Example("The same as annotations of GitHub Actions", "validate --format github /srv/containers/*"),
            Example("A plan that a program has kept", "validate --schema plan plan.json"),
        ),
        exits=((0, "all are valid"), (65, "one is not"), (66, "one cannot be read, and the others are valid")),
    ),
    Command(
        "schema",
        _schema,
        "[SCHEMA] [--bundled]",
        "list the JSON schemas of what the hook reads and prints, or print one",
        options("--bundled"),
        takes=("SCHEMA",),
        examples=(
            Example("The schemas, each with a line on what it is for", "schema"),
            Example("One for a validator or an editor, without references to others", "schema state-file --bundled"),
        ),
    ),
    Command(
        "install",
        registering.install_command,
        "[--prefix DIR] [WHERE AND WHEN]... [-- OPTION...]",
        "register the hook with engines, in hooks.d for podman and CRI-O, in CDI for all, or as a runtime for docker",
        options(
            "--prefix --name --hooks-dir --stages --annotation --command --has-bind-mounts --always --cdi --cdi-dir "
            "--env --runtime --oci-runtime --apply --engine --gc-timer --units-dir"
        ),
        takes=("OPTION",),
        only_behind=True,
        hint="what the hook is given comes after --",
        examples=(
            Example(
                "A folder for every container of podman and CRI-O",
                "install --prefix /usr -- --mount src=/srv/models,dst=/models,ro",
            ),
            Example(
                "The same for containers that ask for it, under docker, podman and containerd",
                "install --cdi models -- --mount src=/srv/models,dst=/models,ro",
            ),
            Example(
                "For docker before 25, as a runtime: docker run --runtime models",
                "install --runtime models --apply -- --mount src=/srv/models,dst=/models,ro",
            ),
        ),
        exits=((0, "done"), (71, "a file cannot be written: all are as before"), (78, "a bind makes no sense")),
    ),
    Command(
        "install --check",
        registering.check_command,
        "[--prefix DIR] [WHERE]... [BUNDLE]",
        "show the hooks in hooks.d and CDI folders and of runtimes, what is wrong with them, and which a bundle gets",
        options("--check --prefix --hooks-dir --cdi-dir --format"),
        takes=("BUNDLE",),
        examples=(
            Example("All hooks that podman and CRI-O would find", "install --check"),
            Example("Which of them a bundle gets, and why not the others", "install --check /srv/bundle"),
        ),
        exits=((0, "nothing is wrong"), (65, "a hook fails, is passed over, or keeps containers from starting")),
    ),
    Command(
        "install --list",
        registering.list_command,
        "[--prefix DIR] [WHERE]...",
        "show what registers the hook, with the words that it is given",
        options("--list --prefix --hooks-dir --cdi-dir --format"),
        examples=(
            Example("What registers the hook", "install --list"),
            Example(
                "Also in a folder that only the engine's hooks_dir names", "install --list --hooks-dir /etc/hooks.d"
            ),
        ),
    ),
    Command(
        "uninstall",
        registering.uninstall_command,
        "[--prefix DIR] [WHERE]...",
        "remove what install wrote",
        options("--prefix --name --hooks-dir --cdi --cdi-dir --runtime --apply --all --units-dir"),
        examples=(
            Example("One registration of several", "uninstall --prefix /usr --name models"),
            Example("All that call the launcher below the prefix", "uninstall --prefix /usr --all"),
        ),
        exits=((0, "done, or nothing to do"), (71, "a file cannot be removed")),
    ),
    Command(
        "doctor",
        _doctor,
        "[--format text|json]",
        "show what this machine has of what the hook uses, and what it lacks",
        options("--format"),
        examples=(
            Example("What works here", "doctor"),
            Example("The same for a program", "doctor --format json"),
        ),
        exits=((0, "all that is needed is there"), (69, "something that is needed is missing")),
    ),
    Command(
        "help",
        _help,
        "[TOPIC]",
        "print the help of a command or of options, or the manual or a section of it",
        (),
        takes=("TOPIC",),
        examples=(
            Example("The options of the hook and of --mount", "help options"),
            Example("A command, as by its --help", "help install"),
            Example("A section of the manual", "help troubleshooting"),
            Example("All of it, where man is not installed", "help manual"),
        ),
        exits=((0, "done"), (64, "there is no such topic")),
    ),
    Command(
        "completion",
        _completion,
        "bash|zsh|fish",
        "print the completion of a shell, for where none is loaded by itself",
        (),
        takes=("SHELL",),
        examples=(
            Example(
                "Where bash-completion looks by itself",
                "completion bash >~/.local/share/bash-completion/completions/oci-bind-hook",
            ),
            Example("Where fish looks by itself", "completion fish >~/.config/fish/completions/oci-bind-hook.fish"),
            Example("In a folder of zsh's fpath", "completion zsh >/usr/local/share/zsh/site-functions/_oci-bind-hook"),
        ),
    ),
)
