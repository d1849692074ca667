# SPDX-License-Identifier: Apache-2.0
"""The ways in which a run can end badly, each with its exit code.

An error takes facts and builds the sentence, so that every caller words the same failure alike. ``str()`` gives one
line: the place, what is wrong there, and what to do about it. Exit codes are those of sysexits.h.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class HookError(Exception):
    """A failure that a person can do something about.

    ``problem`` says what is wrong, ``where`` names the place (``--mount 2``, ``config.json: /root/path``), ``hint``
    says what to do. Subclasses fix the exit code.
    """

    exit_code = os.EX_SOFTWARE

    def __init__(self, problem: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(problem)
        self.problem = problem
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        advice = f" ({self.hint})" if self.hint else ""
        return f"{place}{self.problem}{advice}"


class UsageError(HookError):
    """The command line cannot be understood."""

    exit_code = os.EX_USAGE


class DataError(HookError):
    """A document is not strict JSON or breaks its schema; ``violations`` holds every place, sorted.

    ``document`` is the name a person knows it by (``state``, ``config.json``). Each violation is a pair of JSON
    pointer (RFC 6901, "" for the whole document) and message.
    """

    exit_code = os.EX_DATAERR

    def __init__(self, document: str, violations: Sequence[tuple[str, str]]) -> None:
        pointer, message = violations[0]
        more = len(violations) - 1
        super().__init__(
            message,
            where=f"{document}: {pointer}" if pointer else document,
            hint=f"and {more} more violation{'s' if more > 1 else ''}: --dry-run lists all" if more else "",
        )
        self.document = document
        self.violations = tuple(violations)


class MissingError(HookError):
    """A bundle, config.json, rootfs or source is not there, or is not what it must be."""

    exit_code = os.EX_NOINPUT


class UnavailableError(HookError):
    """The kernel, the runtime or this stage cannot do what is asked."""

    exit_code = os.EX_UNAVAILABLE


class KernelError(HookError):
    """The kernel refused ``call`` on ``subject``; ``reason`` is its OSError."""

    exit_code = os.EX_OSERR

    def __init__(self, call: str, subject: str, reason: OSError, *, where: str = "", hint: str = "") -> None:
        super().__init__(f"{call} {subject}: {reason.strerror or reason}", where=where, hint=hint)
        self.call = call
        self.subject = subject
        self.errno = reason.errno


class LeftoverError(HookError):
    """Tear-down could not finish; what is left stays recorded in the state file."""

    exit_code = os.EX_OSERR


class RecordError(HookError):
    """The state file cannot be locked, read or written, or belongs to another live container."""

    exit_code = os.EX_IOERR


class EscapeError(HookError):
    """The bind would leave the rootfs, hide what must not be hidden, or leak to the host."""

    exit_code = os.EX_NOPERM


class RequestError(HookError):
    """A bind request makes no sense. ``unknown`` is the word in it that is not known, where that is the problem."""

    exit_code = os.EX_CONFIG
    unknown = ""
