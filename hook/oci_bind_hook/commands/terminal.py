# SPDX-License-Identifier: Apache-2.0
"""The terminal that a command writes to: how wide, in which signs and colours, and a line of progress."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .explain.drawing import Pen


def pen() -> Pen:
    """What draws lines as they look best where stdout leads."""
    from .explain.drawing import Pen

    return Pen(width=width(), is_unicode=is_unicode(), colour=is_colourful())


def is_unicode() -> bool:
    """Whether the locale of this process writes UTF-8, as far as procfs tells: no command fails for its looks."""
    try:
        with open("/proc/self/environ", "rb") as environment:
            return has_unicode(environment.read())
    except OSError:
        return False


def width() -> int:
    """The columns of the terminal, 0 where stdout is none."""
    return os.get_terminal_size(1).columns if os.isatty(1) else 0


def is_colourful() -> bool:
    """Whether to use colours: on a terminal, not with NO_COLOR (https://no-color.org), nor if TERM is dumb."""
    return os.isatty(1) and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def has_unicode(environment: bytes) -> bool:
    """Whether the locale writes UTF-8, by an environment as procfs has it: the first that is set decides, locale(7).

    Not by os.environ: in the locale C Python itself puts an LC_CTYPE with UTF-8 there, PEP 538.
    """
    variables = dict(line.partition(b"=")[::2] for line in environment.split(b"\0"))
    locale = next(filter(None, map(variables.get, (b"LC_ALL", b"LC_CTYPE", b"LANG"))), b"")
    return b"utf8" in locale.lower().replace(b"-", b"")


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
