# SPDX-License-Identifier: Apache-2.0
"""The hook's entry point: reads arguments and stdin, returns an exit code, and prints one line on stderr on failure."""

from __future__ import annotations

import posix
import sys

from . import open_stdio
from .errors import HookError
from .kernel import files
from .log import Log
from .options import STAGES, is_teardown, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(argv: list[str]) -> int:
    """Runs the hook with the arguments ``argv`` and returns its exit code. Never raises an exception."""
    log = Log()
    try:
        open_stdio()
        return _main(argv, log)
    except HookError as problem:
        log.failure(str(problem))
        log.traceback(problem)
        return problem.exit_code
    except KeyboardInterrupt:
        log.failure("interrupted")
        return 130
    except ImportError as problem:
        packages = {"_prctl": "python-prctl", "prctl": "python-prctl", "jsonschema": "jsonschema"}
        package = packages.get(problem.name or "", "oci-bind-hook")
        again = f"reinstall {package}, for example with pip; if its folder changes, repeat your oci-bind-hook install"
        log.failure(f"the installation is broken: {problem} ({again})")
        log.traceback(problem)
        return posix.EX_SOFTWARE
    except OSError as reason:
        from .kernel.errnos import message  # after setns(2) it is loaded

        subject = f" {reason.filename}" if reason.filename is not None else ""
        log.failure(f"the kernel refused a system call{subject}: {message('', reason)} (--debug shows where)")
        log.traceback(reason)
        return posix.EX_OSERR
    except BaseException as bug:  # noqa: BLE001 - a traceback would be more than one line
        log.failure(f"a bug: {type(bug).__name__}: {bug} (--debug shows where; please report it)")
        log.traceback(bug)
        return posix.EX_SOFTWARE


def _main(argv: list[str], log: Log) -> int:
    # Not with the other imports: it imports a dependency, which may be missing.
    from .documents.bundle import read_given, read_state

    if argv[:1] in (["attach"], ["detach"]) and {"--help", "-h", "--version"}.isdisjoint(argv):
        from .commands.running import run_in  # not through the commands' parser, which takes longer than the work

        return run_in(argv, log) or posix.EX_OK
    is_command = bool(argv) and argv[0] not in STAGES and not argv[0].startswith("-")
    if is_command or not {"--help", "-h", "--version"}.isdisjoint(argv):
        from .commands.dispatch import run

        return run(argv, log)
    options, log.debug_wanted = parse(argv)
    if options.dry_run:
        from .commands.actions import dry_run

        return dry_run(options)
    if options.log is not None:
        log.open(options.log, as_json=options.log_format == "json", changeable=files.changeable)
    posix.umask(0o022)
    log.stage = options.stage or ""
    state, document = read_state(read_given())
    log.container = state.id
    log.step("state read")
    # Each of the two imports only what it needs.
    if is_teardown(options.stage, state):
        from .lifecycle.tear_down import tear_down

        tear_down(options, state, log)
    else:
        from .lifecycle.set_up import set_up

        set_up(options, state, document, log)
    log.step("done")
    return posix.EX_OK


def console() -> NoReturn:
    """The entry point of the launcher and of the installed command: runs ``main`` and ends the process.

    Does not finalise the interpreter: that takes time, and after setns(2) it could import nothing.
    """
    code = main(sys.argv[1:])
    try:
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
    except OSError:
        code = code or posix.EX_IOERR
    posix._exit(code)
