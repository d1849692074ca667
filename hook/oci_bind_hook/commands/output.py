# SPDX-License-Identifier: Apache-2.0
"""What commands write: the answer to stdout, remarks to stderr."""

from __future__ import annotations

import os
import time

from ..kernel.errnos import refused
from ..log import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .engines.written import Change


def answer(text: str) -> None:
    """Writes to stdout, independent of the locale. Raises KernelError if it is closed."""
    rest = text.encode(errors="backslashreplace")
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except OSError as reason:
        raise refused("write", "stdout", reason) from reason


def asked_by(origin: str, seconds: object) -> str:
    """Who asked for a bind, and when, if that was ``seconds`` since 1970 and not at the container's start."""
    if not isinstance(seconds, int):
        return origin
    return f"{origin} at {time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(seconds))}"


def has_unicode(environment: bytes) -> bool:
    """Whether the locale writes UTF-8, by an environment as procfs has it: the first that is set decides, locale(7).

    Not by os.environ: in the locale C Python itself puts an LC_CTYPE with UTF-8 there, PEP 538.
    """
    variables = dict(line.partition(b"=")[::2] for line in environment.split(b"\0"))
    locale = next(filter(None, map(variables.get, (b"LC_ALL", b"LC_CTYPE", b"LANG"))), b"")
    return b"utf8" in locale.lower().replace(b"-", b"")


def warn(remarks: Iterable[str]) -> None:
    """Prints a line on stderr for each."""
    for remark in remarks:
        tell(f"warning: {remark}")


def tell_changes(changes: Iterable[Change]) -> None:
    """Prints what was done to files, on stdout. KernelError."""
    for change in changes:
        answer(f"{one_line(change.line())}\n")


class Progress:
    """A line on stderr that says how many of ``total`` are done, if that is a terminal and there are many.

    It says nothing new before another hundredth is done, and has to be cleared before anything else is written.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._is_shown = total >= _MANY and os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"

    def counted(self, names: Iterable[str]) -> Iterator[str]:
        """The same names, each of which is done when the next is asked for."""
        for done, name in enumerate(names):
            if self._is_shown and done * 100 // self._total > (done - 1) * 100 // self._total:
                self._write(f"{done} of {self._total}")
            yield name

    def clear(self) -> None:
        """Takes the line away."""
        if self._is_shown:
            self._write("")

    def _write(self, text: str) -> None:
        os.write(2, f"\r\033[K{text}".encode())  # the second is EL of ECMA-48: it erases the rest of the line


_MANY = 100


def tell(remark: str) -> None:
    """Prints one line on stderr, so that stdout holds only the answer, or what was done to files."""
    try:
        os.write(2, f"oci-bind-hook: {one_line(remark)}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # nobody reads it
