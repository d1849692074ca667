# SPDX-License-Identifier: Apache-2.0
"""attach and detach: find the container, and report the result.

With a recorded id, both load no more than a start of a container does, because scripts call them for many containers
in sequence.
"""

from __future__ import annotations

import posix

from ..documents import oci
from ..errors import At, HookError, MissingError, UnavailableError, UsageError
from ..kernel import files
from ..kernel.proc import Proc, boot_id
from ..lifecycle.running import OTHERS_HINT
from ..log import one_line
from ..options import Options, absolute_to_here, parse, state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_of_another_user, source_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..documents.oci import State
    from ..log import Log
    from ..record.state_file import Record
    from .explain.containers import Container
    from .explain.report import Report


def run_in(argv: Sequence[str], log: Log) -> int | None:
    """Runs ``attach`` or ``detach``, the first word. Returns the exit code of a dry-run, else None. HookError."""
    name, *words = argv
    options, log.debug_wanted = parse(words, name)
    word, destination = _words(name, options)
    if options.dry_run:
        return _dry_run(options, word, log)
    if options.log is not None:
        log.open(options.log, as_json=options.log_format == "json", changeable=files.changeable)
    posix.umask(0o022)
    log.stage, log.container = name, word or ""
    is_whole = options.bundle is not None
    remarks: list[str] = []
    state = (None if is_whole else _recorded(options, word)) or _known(options, word, remarks)
    log.container = state.id
    # Each of the two imports only what it needs.
    if name == "attach":
        from ..lifecycle.attach import attach

        for bind in attach(options, state, log):
            _say(1, bind.summary())
            if bind.action == "mount":
                remarks += [f"{bind.request.origin}: {warning}" for warning in bind.warnings]
    else:
        from ..lifecycle.detach import detach

        try:
            detached, left = detach(options, state, destination, log)
        except HookError as problem:
            _warn(map(str, problem.remarks))
            raise
        remarks = [*map(str, left)]
        for mount in detached:
            _say(1, f"detached {source_of(mount['requested'])} from {mount['resolved']}")
    _warn(remarks)
    return None


def _warn(remarks: Iterable[str]) -> None:
    for remark in remarks:
        _say(2, f"oci-bind-hook: warning: {remark}")


def _words(name: str, options: Options) -> tuple[str | None, str | None]:
    """Returns the container, None if options select it, and for detach the destination, None for all. UsageError."""
    is_attach, others = name == "attach", options.others
    # --bundle or --pid alone selects a known container. Both with an id describe a container that is not known here.
    is_named = (options.bundle is None) is (options.pid is None)
    if len(others) != is_named + (not is_attach and not options.unfold):
        forms = "pass CONTAINER, --bundle DIR, --pid PID, or all three"
        raise UsageError(forms + ("" if is_attach else "; and DESTINATION or --all"), where=name)
    if options.unfold and is_attach and not options.dry_run:
        raise UsageError("this option requires --dry-run", where="--all")
    if others[:is_named] == [""]:
        raise UsageError("the name of the container is empty", where=name)
    if not is_attach and not options.unfold and not others[-1].startswith("/"):
        raise UsageError(f'"{others[-1]}" is not an absolute path', where="DESTINATION")
    if is_attach and not options.mounts:
        raise UsageError("--mount is required", where=name)
    if options.pid is not None:
        _check_process(options.pid)
    return others[0] if is_named else None, None if is_attach or options.unfold else others[-1]


def _check_process(pid: int) -> None:
    """Raises UsageError for a thread, since pidfd_open(2) takes a process."""
    try:
        process = Proc().process_of(pid)
    except OSError:
        return  # it has ended or is hidden, which is reported when it is opened
    if process != pid:
        raise UsageError(f"{pid} is a thread of the process {process}", where="--pid", hint=f"pass --pid {process}")


def _recorded(options: Options, word: str | None) -> State | None:
    """Returns the running container with the id ``word`` if the state folder of ``options`` has its record. HookError.

    An engine restarts a container with the same id. After an end without poststop, the old record still exists then.
    """
    if word is None or "/" in word:
        return None
    proc = Proc()
    folder = StateFolder.open(state_folder(options, proc), create=False)
    record = folder.load(word) if folder is not None else None
    return None if record is None else _state(record, proc)


def _state(record: Record, proc: Proc) -> State | None:
    """Returns the state of a recorded container, None if it has ended. UnavailableError if it cannot be entered."""
    if is_of_another_user(record, proc.user_namespace()):
        raise UnavailableError(f'the container "{record["id"]}" is in another user namespace', hint=OTHERS_HINT)
    init = record["init"]
    if init is None or not is_live(record, proc, boot_id()):
        return None
    return _running(record["id"], record["bundle"]["path"], init["pid"])


def _running(container: str, bundle: str, pid: int) -> State:
    return oci.state({"ociVersion": "1.0.2", "id": container, "status": "running", "bundle": bundle, "pid": pid})


def _known(options: Options, word: str | None, remarks: list[str]) -> State:
    """Returns the state of a container that explain can find. Sets the state folder, and adds remarks. HookError."""
    if options.bundle is not None:
        options.bundle = absolute_to_here("--bundle", options.bundle)
    container = _find(options, word)
    if container.pid is None:
        undone = f"{Proc(options.root).command('gc')} undoes its record" if container.root is not None else ""
        raise UnavailableError(f'the container "{container.name or container.id}" does not run', hint=undone)
    if container.root is None:
        registered = _poststop(container.bundle)
        if registered is None:
            gc = Proc(options.root).command("gc")
            remarks.append(f"config.json registers no poststop: run {gc} after the container has ended")
        elif options.root is None:
            options.root = state_folder(registered, Proc())
    options.root = options.root or container.root
    return _running(container.id, container.bundle, container.pid)


def _find(options: Options, word: str | None) -> Container:
    """Returns the container that a word or the options select. Raises HookError."""
    from .explain import by_name, containers

    if word is not None and options.bundle is not None and options.pid is not None:
        return containers.Container(word, options.bundle, "the command line", options.pid)
    if word is not None:
        return by_name.find_in_time(word, options.root, option="--bundle")
    found = [each for each in containers.find("", options.root) if each.pid is not None and each.has_config]
    if options.pid is not None:
        found = [each for each in found if each.pid == options.pid]
    else:
        found = [each for each in found if containers.is_at(each, options.bundle or "")]
    if len(found) != 1:
        which = f"the bundle {options.bundle}" if options.pid is None else f"the first process {options.pid}"
        hint = "give its id, or its id with --bundle and --pid"
        raise MissingError(f"{len(found) or 'no'} running containers with {which} are known", hint=hint)
    return found[0]


def _poststop(bundle: str) -> Options | None:
    """Returns this hook's options at poststop in config.json, None if not registered there. Raises HookError."""
    from ..documents.bundle import read_regular
    from ..documents.strictjson import documents
    from .explain.registered import find

    document = documents(read_regular(f"{bundle}/config.json"), "config.json")[0]
    return next((parse(list(entry.words))[0] for entry in find(document) if entry.stage == "poststop"), None)


def _dry_run(options: Options, word: str | None, log: Log) -> int:
    """Explains what attach would do. Returns the exit code that it would have. Raises HookError."""
    from ..lifecycle.attach import Attach
    from .actions import dry_run

    if options.bundle is not None:
        options.bundle = absolute_to_here("--bundle", options.bundle)
    container = _find(options, word)
    options.bundle, options.root = container.bundle, options.root or container.root

    def judge(report: Report) -> None:
        report.stage = "attach"
        try:
            if container.pid is None:
                raise UnavailableError("the container does not run")
            call = Attach(options, _running(container.id, container.bundle, container.pid), log)
            bundle, _ = call.prepare()
            with At("enter"):
                call.running.check_root(bundle.rootfs)
        except HookError as problem:
            if problem.problem not in (known["message"] for known in report.problems):
                report.add(problem, "read")

    return dry_run(options, container, judge)


def _say(fd: int, line: str) -> None:
    """Writes a line to stdout or stderr. Ignores errors."""
    try:
        posix.write(fd, f"{one_line(line)}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # the work is done, even if its output has no reader
