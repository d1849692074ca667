# SPDX-License-Identifier: Apache-2.0
"""Lines for a terminal: coloured text, measured in columns, cut or folded to fit.

This module knows nothing of a dry-run. All text is escaped first (log.one_line), so the only control characters in a
line are the colours that this module adds.
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
_NARROWEST = 24  # columns: lines for a narrower terminal are this wide


class Span(NamedTuple):
    """A piece of a line in one style: a key of the colours above, "" for none."""

    text: str
    style: str = ""


class Signs(NamedTuple):
    """The characters that trees are drawn with. A name that has one of ``names`` is ambiguous unless it is quoted."""

    branch: str
    last: str
    rail: str
    source: str
    link: str
    cut: str

    @property
    def names(self) -> frozenset[str]:
        # In ASCII, quoting names with spaces is enough, because each sign is between two spaces.
        return frozenset(" ").union(character for character in "".join(self) if not character.isascii())


UNICODE = Signs("├─ ", "└─ ", "│  ", "←", "→", "…")
ASCII = Signs("|- ", "`- ", "|  ", "<-", "->", "...")


def escaped(text: str) -> str:
    """Escapes the text as log.one_line does, and each space after a space. Otherwise a fold could end a line at these
    spaces, and the rest of a name would look like a line of its own.
    """
    return re.sub("(?<= ) ", r"\\x20", one_line(text))


def painted(text: str, style: str) -> str:
    """Returns the text in the colour of its style, unchanged if the style is ""."""
    return f"{_COLOURS[style]}{text}{_RESET}" if style and text else text


def cells(text: str) -> int:
    """Returns the width of a text in columns."""
    return len(text) if text.isascii() else sum(map(_columns, text))


def _columns(character: str) -> int:
    """Returns the width of one character in columns: 0 for a combining character, 2 for a wide one (UAX 11)."""
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def _clusters(text: str) -> Iterator[str]:
    """Splits a text between characters. A combining character stays with its base character."""
    cluster = ""
    for character in text:
        if cluster and _columns(character):
            yield cluster
            cluster = ""
        cluster += character
    if cluster:
        yield cluster


def _head(clusters: Iterable[str], room: int) -> list[str]:
    """Returns the clusters from the front that fit in ``room`` columns."""
    fitting = []
    for cluster in clusters:
        room -= cells(cluster)
        if room < 0:
            break
        fitting.append(cluster)
    return fitting


def _pieces(word: str, room: int) -> Iterator[str]:
    """Splits a word into pieces of at most ``room`` columns. Only a single character may be wider."""
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
    """Draws for a terminal of ``width`` columns. With 0, nothing is cut or folded."""

    def __init__(self, *, width: int = 0, is_unicode: bool = True, colour: bool = False) -> None:
        self.width = max(width, _NARROWEST) if width else 0
        self.signs = UNICODE if is_unicode else ASCII
        self._colour = colour

    def name(self, text: str) -> str:
        """Returns a name or a path for people: escaped, and in quotes if it could be mistaken for more than a name."""
        text = escaped(text)
        if text and text[0] != '"' and self.signs.names.isdisjoint(text):
            return text
        return '"{}"'.format(text.replace('"', '\\"'))

    def shortened(self, text: str, room: int) -> str:
        """Returns the text, or its beginning and end if it does not fit: both ends of a path are informative."""
        if not self.width or cells(text) <= room:
            return text
        clusters, room = [*_clusters(text)], max(room - cells(self.signs.cut), 0)
        end = _head(reversed(clusters), room - room // 2)[::-1]
        return "".join((*_head(clusters, room // 2), self.signs.cut, *end))

    def folded(self, text: str, room: int) -> list[str]:
        """Folds the text between words into lines that fit. A word that is too long continues on the next line."""
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
        """Returns one line, cut if it is still too long."""
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
