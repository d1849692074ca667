# SPDX-License-Identifier: Apache-2.0
"""Where in the text of a document its members stand: the line and the column of a JSON pointer.

Readers of JSON keep no places. They are looked for in a text that has been read, once a person is to be told of some.
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
    """A place in a text, each counted from 1. The column counts characters, not bytes."""

    line: int
    column: int


class Lines:
    """A text in which characters are counted by lines."""

    def __init__(self, text: str) -> None:
        self._starts = [0]
        while (end := text.find("\n", self._starts[-1])) >= 0:
            self._starts.append(end + 1)

    def position(self, index: int) -> Position:
        """The place of the character with this index."""
        line = bisect_right(self._starts, index)
        return Position(line, index - self._starts[line - 1] + 1)


def positions(text: str, wanted: Sequence[Iterable[str]]) -> list[dict[str, Position]]:
    """Where in ``text`` the JSON pointers ``wanted`` lead, for each of the documents in it, one behind the other.

    ``strictjson.documents`` has read the text. Pointers are as its messages have them. A member stands where its name
    does, an item of an array where its value does, and the last of two with one name counts. For what is missing, it is
    what should have it. The time grows with the text, not with the number of pointers.
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
    """A member that is looked for, or one on the way there: its index, -1 until it is found, and those inside."""

    __slots__ = ("index", "inside")

    def __init__(self, index: int = -1) -> None:
        self.index = index
        self.inside: dict[str, _Wanted] = {}

    def add(self, pointer: str) -> None:
        here = self
        for name in pointer.split("/")[1:]:
            here = here.inside.setdefault(name, _Wanted())

    def index_of(self, pointer: str) -> int:
        """The index of what a pointer leads to, or of the last found on the way."""
        here = self
        for name in pointer.split("/")[1:]:
            if here.inside[name].index < 0:
                break
            here = here.inside[name]
        return here.index


class _Walk:
    def __init__(self, text: str) -> None:
        self._text = text
        # A number may have more digits than Python takes: nobody needs its value here.
        self._decoder = json.JSONDecoder(parse_int=str, parse_float=str, parse_constant=str)

    def next(self, at: int) -> int:
        """The index of the first character from ``at`` on that is no blank; the end of the text if there is none."""
        while self._text[at : at + 1] and self._text[at] in BLANKS:
            at += 1
        return at

    def value(self, at: int, wanted: _Wanted | None) -> int:
        """Notes where things wanted stand in the value at ``at``, and returns where that ends."""
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
                at = self.next(self.next(at) + 1)  # behind the colon
            one = wanted.inside.get(step(shortened(name))[1:])
            if one is not None:
                one.index = start
            at = self.next(self.value(at, one))
            index += 1
        return at + 1
