# SPDX-License-Identifier: Apache-2.0
"""The errors that end a run, each with an exit code from sysexits.h.

Errors take facts and build the message from them, so the same failure always has the same wording. ``str()`` returns
one line: the place, the problem, and a hint.

Every start of a container loads this module, so it imports only posix.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from .mounting.undo import Remark

    Step = Literal["read", "ask", "open", "clone", "state folder", "rootfs", "enter", "resolve", "make", "attach"]

# The steps of a set-up in order, lifecycle.set_up. A dry-run finds problems in another order than a real run, so the
# problem with the earliest step decides the result of both.
STEPS: tuple[Step, ...] = (
    *("read", "ask", "open", "clone", "state folder", "rootfs", "enter", "resolve", "make", "attach"),
)


REFUSED = posix.EX_CANTCREAT  # in a dry-run: no problem of the hook, but no runtime would start the bundle


class HookError(Exception):
    """A failure that a user or an administrator can fix. Subclasses set the exit code.

    ``problem`` says what is wrong, ``where`` names the place (``--mount 2``, ``config.json: /root/path``), ``hint``
    says what to do. ``step`` is the step of STEPS at which a set-up fails, None outside of a set-up. ``remarks`` are
    about what a tear-down left in the rootfs that is no longer recorded.
    """

    exit_code = posix.EX_SOFTWARE

    def __init__(self, problem: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.hint = hint
        self.step: Step | None = None
        self.remarks: Sequence[Remark] = ()

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.problem}{advice}"


class At:
    """A context manager that sets ``step`` on errors that have none."""

    __slots__ = ("_step",)

    def __init__(self, step: Step) -> None:
        self._step = step

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, HookError):
            error.step = error.step or self._step


class UsageError(HookError):
    """The command line is wrong, or stdin is invalid."""

    exit_code = posix.EX_USAGE


class DataError(HookError):
    """A document is not strict JSON, or violates its schema.

    ``document`` is its name in messages (``state``, ``config.json``). ``violations`` are sorted pairs of JSON pointer
    (RFC 6901, "" for the whole document) and message. There is at least one, and the first is shown. ``index`` is that
    of the character at which a text stops being JSON, or None.
    """

    exit_code = posix.EX_DATAERR

    def __init__(self, document: str, violations: Sequence[tuple[str, str]], index: int | None = None) -> None:
        pointer, message = violations[0]
        more = len(violations) - 1
        super().__init__(
            message,
            where=f"{document}: {pointer}" if pointer else document,
            hint=f"{more} more violation{'s' if more > 1 else ''}: --dry-run lists all" if more else "",
        )
        self.document = document
        self.violations = tuple(violations)
        self.index = index


class MissingError(HookError):
    """A bundle, config.json, rootfs or source does not exist or is of the wrong kind."""

    exit_code = posix.EX_NOINPUT


class UnavailableError(HookError):
    """The kernel, the runtime or the stage does not support what is requested."""

    exit_code = posix.EX_UNAVAILABLE


class KernelError(HookError):
    """The kernel refused the system call ``call`` on ``subject``. ``reason`` is its OSError."""

    exit_code = posix.EX_OSERR

    def __init__(self, call: str, subject: str, reason: OSError, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{call} {subject}: {reason.strerror or reason}", where=where, hint=hint)
        self.call = call
        self.subject = subject
        self.errno = reason.errno


class LeftoverError(HookError):
    """Something could not be undone. It stays recorded in the state file."""

    exit_code = posix.EX_OSERR


class RecordError(HookError):
    """The state file cannot be locked, read or written, or belongs to another live container."""

    exit_code = posix.EX_IOERR


class EscapeError(HookError):
    """The bind would leave the rootfs, hide what must not be hidden, or propagate to the host."""

    exit_code = posix.EX_NOPERM


class RequestError(HookError):
    """A bind request is invalid. ``unknown`` is the unknown word in it, if that is the problem."""

    exit_code = posix.EX_CONFIG
    unknown = ""
