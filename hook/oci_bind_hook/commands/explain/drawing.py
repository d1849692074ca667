# SPDX-License-Identifier: Apache-2.0
"""Lines on a terminal: text in colours, as wide as it is there, cut or folded to what fits.

It knows nothing of a dry-run. Text comes here escaped, log.one_line: a colour is the only control character that this
module lets through, and it adds colours itself.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

from ...log import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_RESET = "\x1b[0m"
_COLOURS = {
    "bind": "\x1b[1;32m",
    "good": "\x1b[1;32m",
    "bad": "\x1b[1;31m",
    "hint": "\x1b[31m",
    "warning": "\x1b[33m",
    "link": "\x1b[36m",
    "made": "\x1b[32m",
    "strong": "\x1b[1m",
    "dim": "\x1b[2m",
}
_NARROWEST = 24  # columns: a terminal that has fewer gets lines that are this wide


class Span(NamedTuple):
    """A piece of a line in one style: a key of the colours above, "" for none."""

    text: str
    style: str = ""


class Signs(NamedTuple):
    """What trees are drawn with. A name with one of the characters ``names`` could be taken for more than a name."""

    branch: str
    last: str
    rail: str
    source: str
    link: str
    cut: str

    @property
    def names(self) -> frozenset[str]:
        # Of ASCII the space is enough: a sign stands between two.
        return frozenset(" ").union(character for character in "".join(self) if not character.isascii())


UNICODE = Signs("├─ ", "└─ ", "│  ", "←", "→", "…")
ASCII = Signs("|- ", "`- ", "|  ", "<-", "->", "...")


def escaped(text: str) -> str:
    """The text as log.one_line has it, with escapes for blanks after a blank: a fold would make them the end of a line,
    and what a name has behind them a line of its own.
    """
    return re.sub("(?<= ) ", r"\\x20", one_line(text))


def painted(text: str, style: str) -> str:
    """The text in the colour of its style, "" for none."""
    return f"{_COLOURS[style]}{text}{_RESET}" if style and text else text


def cells(text: str) -> int:
    """How many columns a text takes."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    """Columns of one character: none for what combines with the one before it, two for wide ones, UAX 11."""
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _clusters(text: str) -> Iterator[str]:
    """Characters with what combines with them, so that nothing is cut between."""
    cluster = ""
    for character in text:
        if cluster and _columns(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _head(clusters: Iterable[str], room: int) -> list[str]:
    """As many from the front as fit."""
    fitting = []
    for cluster in clusters:
        room -= cells(cluster)
        if room < 0:
            break
        fitting.append(cluster)
    return fitting


def _pieces(word: str, room: int) -> Iterator[str]:
    """A word in pieces that fit. One that does not has one character, which is wider than all the room."""
    piece, used = "", 0
    for cluster in _clusters(word):
        columns = cells(cluster)
        if piece and used + columns > room:
            yield piece
            piece, used = "", 0
        piece += cluster
        used += columns
    yield piece


class Pen:
    """Draws for a terminal of ``width`` columns, 0 for none: then nothing is cut or folded."""

    def __init__(self, *, width: int = 0, is_unicode: bool = True, colour: bool = False) -> None:
        self.width = max(width, _NARROWEST) if width else 0
        self.signs = UNICODE if is_unicode else ASCII
        self._colour = colour

    def name(self, text: str) -> str:
        """A name or a path for people: escaped, and in quotes if it could be taken for more than that."""
        text = escaped(text)
        if text and text[0] != '"' and self.signs.names.isdisjoint(text):
            return text
        return '"{}"'.format(text.replace('"', '\\"'))

    def shortened(self, text: str, room: int) -> str:
        """The text, or its two ends if it does not fit: of a path both tell something."""
        if not self.width or cells(text) <= room:
            return text
        clusters, room = [*_clusters(text)], max(room - cells(self.signs.cut), 0)
        end = _head(reversed(clusters), room - room // 2)[::-1]
        return "".join((*_head(clusters, room // 2), self.signs.cut, *end))

    def folded(self, text: str, room: int) -> list[str]:
        """The text in lines that fit, folded between words. A word that is too long goes on in the next line."""
        if not self.width:
            return [text]
        lines, line = [], ""
        for word in text.split(" "):
            longer = f"{line} {word}" if line else word
            if cells(longer) <= room:
                line = longer
                continue
            if line:
                lines.append(line)
            *whole, line = _pieces(word, room)
            lines += whole
        return [*lines, line]

    def line(self, spans: Iterable[Span]) -> str:
        """One line, cut at its end if nothing else has made it fit."""
        spans = [*spans]
        if self.width and sum(cells(span.text) for span in spans) > self.width:
            spans = [*self._cut(spans, self.width - cells(self.signs.cut)), Span(self.signs.cut, "dim")]
        while spans and not spans[-1].text.strip(" "):
            spans.pop()
        spans[-1:] = [span._replace(text=span.text.rstrip(" ")) for span in spans[-1:]]
        return "".join(painted(*span) if self._colour else span.text for span in spans)

    def _cut(self, spans: Iterable[Span], room: int) -> Iterator[Span]:
        for span in spans:
            text = "".join(_head(_clusters(span.text), room))
            yield Span(text, span.style)
            room -= cells(text)
            if text != span.text:
                return
