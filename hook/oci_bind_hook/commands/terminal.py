# SPDX-License-Identifier: Apache-2.0
"""The terminal that a command writes to: its width, characters and colours, and a line of progress."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .explain.drawing import Pen


def pen() -> Pen:
    """Returns a Pen for the terminal at stdout."""
    from .explain.drawing import Pen

    return Pen(width=width(), is_unicode=is_unicode(), colour=is_colourful())


def is_unicode() -> bool:
    """Whether this process's locale writes UTF-8, as procfs shows it. No command fails because of its appearance."""
    try:
        with open("/proc/self/environ", "rb") as environment:
            return has_unicode(environment.read())
    except OSError:
        return False


def width() -> int:
    """Returns the columns of the terminal, 0 if stdout is no terminal."""
    return os.get_terminal_size(1).columns if os.isatty(1) else 0


def is_colourful() -> bool:
    """Whether to use colours: on a terminal, without NO_COLOR (https://no-color.org), and unless TERM is dumb."""
    return os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def has_unicode(environment: bytes) -> bool:
    """Whether the locale writes UTF-8, by an environment as in procfs. The first of the variables counts, locale(7).

    Not by os.environ, because in the locale C Python itself sets LC_CTYPE to UTF-8 there (PEP 538).
    """
    variables = dict(line.partition(b"=")[::2] for line in environment.split(b"\0"))
    locale = next(filter(None, map(variables.get, (b"LC_ALL", b"LC_CTYPE", b"LANG"))), b"")
    return b"utf8" in locale.lower().replace(b"-", b"")


class Progress:
    """A line on stderr with how many of ``total`` are done, if stderr is a terminal and there are many.

    It is updated after each further hundredth, and has to be cleared before other output.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._is_shown = total >= _MANY and os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb"

    def counted(self, names: Iterable[str]) -> Iterator[str]:
        """Yields the same names. Each counts as done when the next one is requested."""
        for done, name in enumerate(names):
            if self._is_shown and done * 100 // self._total > (done - 1) * 100 // self._total:
                self._write(f"{done} of {self._total}")
            yield name

    def clear(self) -> None:
        """Erases the line."""
        if self._is_shown:
            self._write("")

    def _write(self, text: str) -> None:
        try:
            os.write(2, f"\r\033[K{text}".encode())  # EL of ECMA-48 erases the rest of the line
        except OSError:
            pass  # the terminal was closed


_MANY = 100
