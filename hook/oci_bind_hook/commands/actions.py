# SPDX-License-Identifier: Apache-2.0
"""The function of each command, from arguments to output and exit code. Each imports what it needs when called."""

from __future__ import annotations

import os

from ..documents.bundle import read_all, read_given
from ..errors import MissingError, UsageError
from ..kernel import files
from ..options import STAGES, Options, absolute_to_here, parse
from . import terminal
from .output import answer, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..log import Log
    from .command_line import Given
    from .explain.containers import Container
    from .explain.report import Report
    from .upkeep.folders import Folder
    from .upkeep.gc import Outcome
    from .upkeep.listing import Entry


def dry_run(
    options: Options, container: Container | None = None, judge: Callable[[Report], None] = lambda _: None
) -> int:
    """Prints what the hook would do, and returns the exit code that it would have. Raises HookError.

    The bundle is that of ``options`` (which is that of ``container``, if given), or of the state on stdin.
    ``judge`` adds to the report what the caller knows.
    """
    from .explain import dry_run
    from .explain.report import as_json, as_text
    from .explain.tree import as_tree

    if options.unfold and options.format != "tree":
        raise UsageError("this option requires --format tree", where="--all")
    read = read_given if container is None else container.ended
    report = dry_run.dry_run(options, read, tell, container)
    judge(report)
    if options.format == "json":
        answer(as_json(report))
    elif options.format == "tree":
        answer(
            as_tree(
                report.document(),
                width=terminal.width(),
                is_unicode=terminal.is_unicode(),
                colour=terminal.is_colourful(),
                everything=options.unfold,
            )
        )
    else:
        answer(as_text(report, width=terminal.width(), colour=terminal.is_colourful()))
    return report.exit_code


def explain_command(given: Given, log: Log) -> int:
    """Explains a bundle or a container. Returns the exit code. Raises HookError."""
    from .explain import by_name, meant

    stages = [word for word in given.others if word in STAGES]
    word = meant.word([word for word in given.others if word not in STAGES])
    options, log.debug_wanted = parse([*stages, *given.passed, "--dry-run"])
    options.format = "tree" if os.isatty(1) and "--format" not in given.values else given.format
    if meant.is_path(word):
        options.bundle = absolute_to_here("explain", word)
        if options.stage == "poststop":
            raise UsageError("poststop requires the id of a container, which a bundle does not contain", where=word)
        return dry_run(options)
    container = by_name.find_in_time(word, options.root, is_over=options.stage == "poststop")
    options.root = options.root or container.root
    if options.stage != "poststop":
        options.bundle = container.bundle
    return dry_run(options, container)


def list_command(given: Given, log: Log) -> int:
    """Shows the records of all containers. Returns the exit code. Raises HookError."""
    return _show_records(given, log)


def show_command(given: Given, log: Log) -> int:
    """Shows the record of one container. Returns the exit code. Raises HookError."""
    if len(given.others) != 1:
        raise UsageError("show takes the id of one container", hint="list shows all containers")
    return _show_records(given, log)


def _show_records(given: Given, log: Log) -> int:
    from .upkeep import described, folders, listing

    options, log.debug_wanted = parse(given.passed)
    found, entries = listing.look(options, given.others)
    if given.format == "json":
        answer(listing.as_json(found, entries))
    elif given.others:
        answer("".join(described.as_text(entry, terminal.pen()) for entry in entries))
    else:
        answer(described.as_list(found, entries, terminal.pen()))
    if not given.others:
        folders.tell_of_users(options)
    return _worst(given, found, entries)


def gc_command(given: Given, log: Log) -> int:
    """Undoes what dead containers and killed runs left behind. Returns the exit code. Raises HookError."""
    from .upkeep import folders, gc

    options, log.debug_wanted = parse(given.passed)
    if options.log is not None and not options.dry_run:
        log.open(options.log, as_json=options.log_format == "json", changeable=files.changeable)
    os.umask(0o022)
    if not given.others:
        folders.tell_of_users(options)
    pen = terminal.pen()  # before gc hides this process, whose environment an ordinary user cannot read from then on
    collection = gc.collect(options, given.others, log)
    answer(gc.as_json(collection, dry_run=options.dry_run) if given.format == "json" else gc.as_text(collection, pen))
    return _worst(given, collection.folders, collection.outcomes)


def _worst(given: Given, folders: Sequence[Folder], found: Sequence[Entry | Outcome]) -> int:
    """Returns the exit code for several problems. That of an unusable state file takes precedence."""
    # If containers are named and no error was raised, all were found, so unusable folders do not count.
    looked = found if given.others else (*folders, *found)
    codes = [each.problem.exit_code for each in looked if each.problem is not None]
    return os.EX_IOERR if os.EX_IOERR in codes else next(iter(codes), os.EX_OK)


def validate_command(given: Given, _: Log) -> int:
    """Validates documents. Returns the exit code. Raises HookError."""
    from . import schemas
    from .validate import Verdicts
    from .verdict_formats import FORMATS

    if not given.others:
        raise UsageError("nothing to validate", hint="pass bundles, files, or - for stdin")
    if given.others.count("-") > 1:
        raise UsageError("stdin can only be read once", where="-")
    schema = given.last("--schema")
    progress = terminal.Progress(len(given.others))
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
    """Returns the document on stdin, for validate. Raises MissingError."""
    try:
        return read_all(0)
    except OSError as reason:
        raise MissingError(f"stdin cannot be read: {reason.strerror}") from reason


def schema_command(given: Given, _: Log) -> int:
    """Prints schemas. Returns the exit code. Raises HookError."""
    from . import schemas

    is_bundled = given.last("--bundled") is not None
    if len(given.others) > 1:
        raise UsageError("schema prints one at a time", where=given.others[1])
    if not given.others:
        if is_bundled:
            raise UsageError(
                "the name of a schema is missing", where="--bundled", hint="oci-bind-hook schema lists all"
            )
        answer(schemas.as_list())
        return os.EX_OK
    name = schemas.known(given.others[0], "schema")
    answer(schemas.as_one_document(name) if is_bundled else schemas.as_text(name))
    return os.EX_OK


def doctor_command(given: Given, _: Log) -> int:
    """Examines this machine. Returns the exit code. Raises HookError."""
    from .engines import doctor, finding

    findings = doctor.examine()
    answer(finding.as_json(findings) if given.format == "json" else finding.as_text(findings, terminal.pen()))
    return os.EX_UNAVAILABLE if any(each.is_problem for each in findings) else os.EX_OK
