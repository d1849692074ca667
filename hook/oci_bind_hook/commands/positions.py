# SPDX-License-Identifier: Apache-2.0
"""The line and the column of a JSON pointer in the text of a document.

JSON parsers keep no positions. This module finds them again in a text that has been parsed, when a message needs them.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from json.decoder import scanstring  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, NamedTuple

from ..documents.strictjson import BLANKS, shortened, step

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


class Position(NamedTuple):
    """A position in a text. Both numbers start at 1, and the column counts characters, not bytes."""

    line: int
    column: int


class Lines:
    """Converts an index in a text to a line and a column."""

    def __init__(self, text: str) -> None:
        self._starts = [0]
        while (end := text.find("\n", self._starts[-1])) >= 0:
            self._starts.append(end + 1)

    def position(self, index: int) -> Position:
        """Returns the position of the character with this index."""
        line = bisect_right(self._starts, index)
        return Position(line, index - self._starts[line - 1] + 1)


def positions(text: str, wanted: Sequence[Iterable[str]]) -> list[dict[str, Position]]:
    """Returns the positions of the JSON pointers ``wanted``, for each of the documents that ``text`` has in sequence.

    ``strictjson.documents`` has parsed the text; the pointers are as in its messages. A member's position is that of
    its name, an item's that of its value, a missing one's that of its parent. Of two members with one name, the last
    counts. The time grows with the text, not with the number of pointers.
    """
    lines, walk, at = Lines(text), _Walk(text), 0
    found = []
    for pointers in wanted:
        top = _Wanted(at := walk.next(at))
        for pointer in pointers:
            top.add(pointer)
        at = walk.value(at, top)
        found.append({pointer: lines.position(top.index_of(pointer)) for pointer in pointers})
    return found


class _Wanted:
    """A wanted member, or one on the way to it: its index in the text (-1: not found yet), and the members inside."""

    __slots__ = ("index", "inside")

    def __init__(self, index: int = -1) -> None:
        self.index = index
        self.inside: dict[str, _Wanted] = {}

    def add(self, pointer: str) -> None:
        here = self
        for name in pointer.split("/")[1:]:
            here = here.inside.setdefault(name, _Wanted())

    def index_of(self, pointer: str) -> int:
        """Returns the index of a pointer's target, or of the last member on the way that exists."""
        here = self
        for name in pointer.split("/")[1:]:
            if here.inside[name].index < 0:
                break
            here = here.inside[name]
        return here.index


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        # A number may have more digits than Python parses, and its value is not needed here.
        self._decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)

    def next(self, at: int) -> int:
        """Returns the index of the first character from ``at`` on that is not blank, or the end of the text."""
        while self._text[at : at + 1] and self._text[at] in BLANKS:
            at += 1
        return at

    def value(self, at: int, wanted: _Wanted | None) -> int:
        """Sets the indexes of wanted members in the value at ``at``. Returns the end of the value."""
        if wanted is None or not wanted.inside or self._text[at] not in "{[":
            return self._decoder.raw_decode(self._text, at)[1]
        is_object = self._text[at] == "{"
        at = self.next(at + 1)
        index = 0
        while self._text[at] not in "}]":
            if self._text[at] == ",":
                at = self.next(at + 1)
            start, name = at, str(index)
            if is_object:
                name, at = scanstring(self._text, at + 1)
                at = self.next(self.next(at) + 1)  # after the colon
            one = wanted.inside.get(step(shortened(name))[1:])
            if one is not None:
                one.index = start
            at = self.next(self.value(at, one))
            index += 1
        return at + 1
