# SPDX-License-Identifier: Apache-2.0
"""Text measured, cut and folded for a terminal."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers.properties import examples
from oci_bind_hook.commands.explain.drawing import Pen, Span, cells

WIDE = "日本"
COMBINED = "e\u0301"
# What one_line lets through: all that is printable.
PRINTABLE = some.text(some.characters(exclude_categories=("C", "Z")) | some.sampled_from(f" /{WIDE}{COMBINED}"))

CELLS = {"": 0, "abc": 3, "é": 1, COMBINED: 1, WIDE: 4, "…": 1, "\uff57": 2, "\u20dd": 0}


@pytest.mark.parametrize("text", CELLS)
def test_cells(text: str) -> None:
    assert cells(text) == CELLS[text]


SHORTENED = [
    ("/srv/models", 11, "/srv/models"),
    ("/srv/models", 7, "/sr…els"),
    ("/srv/models", 1, "…"),
    ("/srv/models", 0, "…"),
    ("日本日本日本", 7, "日…本"),
    ("日本日本日本", 6, "日…本"),
    (f"{COMBINED}xxxx{COMBINED}", 3, f"{COMBINED}…{COMBINED}"),
]


@pytest.mark.parametrize(("text", "room", "short"), SHORTENED)
def test_shortened_keeps_both_ends(text: str, room: int, short: str) -> None:
    assert Pen(width=80).shortened(text, room) == short
    assert Pen().shortened(text, room) == text


def test_shortened_in_ascii() -> None:
    assert Pen(width=80, is_unicode=False).shortened("/srv/models", 8) == "/s...els"


FOLDED = [
    ("one two three", 80, ["one two three"]),
    ("one two three", 8, ["one two", "three"]),
    ("one two three", 3, ["one", "two", "thr", "ee"]),
    ("a/long/path b", 5, ["a/lon", "g/pat", "h b"]),
    (f"{WIDE} x", 3, ["日", "本", "x"]),
    (WIDE, 1, ["日", "本"]),
    ("", 5, [""]),
]


@pytest.mark.parametrize(("text", "room", "lines"), FOLDED)
def test_folded(text: str, room: int, lines: list[str]) -> None:
    assert Pen(width=80).folded(text, room) == lines
    assert Pen().folded(text, room) == [text]


@given(PRINTABLE, some.integers(2, 60))
@examples(100)
def test_folding_loses_nothing_and_fits(text: str, room: int) -> None:
    lines = Pen(width=80).folded(text, room)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(cells(line) <= room for line in lines)


@given(PRINTABLE, some.integers(1, 60))
@examples(100)
def test_shortening_fits_and_cuts_no_character_from_what_combines_with_it(text: str, room: int) -> None:
    short = Pen(width=80).shortened(text, room)
    assert cells(short) <= room
    head, cut, tail = short.partition("…")
    if cut and short != text:
        assert text.startswith(head)
        assert text.endswith(tail)
        assert not tail or unicodedata.category(tail[0]) not in ("Mn", "Me")


NAMES = {
    "models": "models",
    "a b": '"a b"',
    'say"hi"': 'say"hi"',
    '"x': '"\\"x"',
    "a→b": '"a→b"',
    "": '""',
    "a\x1b[31mb": "a\\x1b[31mb",
    "a\nready: 1 bind": '"a\\x0aready: 1 bind"',
    "a\udcf6": "a\\xf6",
    "->": "->",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_could_be_taken_for_more_stands_in_quotes(name: str) -> None:
    assert Pen().name(name) == NAMES[name]


@given(some.lists(some.tuples(PRINTABLE, some.sampled_from(("", "dim", "bind"))), max_size=6), some.integers(24, 60))
@examples(100)
def test_a_line_is_as_wide_as_the_terminal_at_most(pieces: list[tuple[str, str]], width: int) -> None:
    line = Pen(width=width, colour=True).line([Span(*piece) for piece in pieces])
    assert cells(re.sub("\x1b\\[[0-9;]*m", "", line)) <= width


def test_colours_only_where_they_are_wanted() -> None:
    spans = [Span("a", "bind"), Span(" b"), Span("", "dim")]
    assert Pen(colour=True).line(spans) == "\x1b[1;32ma\x1b[0m b"
    assert Pen().line(spans) == "a b"
