# SPDX-License-Identifier: Apache-2.0
"""What each star of a pattern matched, and a destination that is filled with it."""

from __future__ import annotations

import fnmatch
import glob

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers.properties import examples
from helpers.support import calls
from oci_bind_hook.errors import RequestError
from oci_bind_hook.requests import stars
from oci_bind_hook.requests.mount_field import parse_mount

# Pattern, name, what its stars matched: each as little as it can, the last one the rest.
MATCHED: tuple[tuple[str, str, list[str]], ...] = (
    ("a", "a", []),
    ("*", "ab", ["ab"]),
    ("*", "", [""]),
    ("**", "ab", ["ab"]),
    ("a*", "ab", ["b"]),
    ("*b", "bbb", ["bb"]),
    ("*.*", "a.b.c", ["a", "b.c"]),
    ("lib*-*.so", "liba-b-c.so", ["a", "b-c"]),
    ("*[0-9]*", "ab12c", ["ab", "2c"]),
    ("?*", "ab", ["b"]),
    ("*[*]*", "a*b", ["a", "b"]),
    ("[*]", "*", []),
    ("[!*]*", "ab", ["b"]),
    ("[]*]*", "]b", ["b"]),
    ("[!]*]*", "a", [""]),
    ("[*", "[ab", ["ab"]),
    ("*.so.[0-9]", "x.so.1", ["x"]),
    (".*", ".h", ["h"]),
    ("*x", "\udcff\nx", ["\udcff\n"]),
)


@pytest.mark.parametrize(("pattern", "name", "parts"), MATCHED)
def test_what_each_star_matched(pattern: str, name: str, parts: list[str]) -> None:
    assert fnmatch.fnmatchcase(name, pattern)
    assert stars.matched([pattern], [name]) == parts
    assert stars.count(f"/x/{pattern}") == len(parts)
    assert stars.matched(["", "y", pattern, pattern], ["", "y", name, name]) == parts + parts


PIECES = some.sampled_from(("a", "b", "*", "?", "[ab]", "[!a]", "[*]", "]", "!"))


@examples(300)
@given(pieces=some.lists(PIECES, max_size=8), name=some.text("ab*[]!", max_size=8))
def test_a_name_is_what_its_pattern_says_with_the_parts_for_its_stars(pieces: list[str], name: str) -> None:
    pieces = [piece for number, piece in enumerate(pieces) if piece != "*" or pieces[number - 1 : number] != ["*"]]
    if fnmatch.fnmatchcase(name, "".join(pieces)):
        parts = iter(stars.matched(["".join(pieces)], [name]))
        assert fnmatch.fnmatchcase(name, "".join(glob.escape(next(parts)) if p == "*" else p for p in pieces))
        assert list(parts) == []


FILLED = {
    "/a/*/b": "/a/1/b",
    "/a*b/*": "/a1b/2",
    "/**/*": "/1/2",
    "/a": "/a",
    "/a/[*]/*": "/a/*/1",
    "/a?/[ab]*": "/a?/[ab]1",
    "/*/": "/1/",
}


@pytest.mark.parametrize("destination", FILLED)
def test_the_first_star_stands_for_the_first_of_the_source(destination: str) -> None:
    assert stars.filled(destination, ("1", "2")) == FILLED[destination]


@pytest.mark.parametrize("part", ["", ".", ".."])
def test_no_name_leads_elsewhere(part: str) -> None:
    assert stars.filled("/a/*/b", (part,)) is None
    assert stars.filled("/a/../x*/b", (part,)) == f"/a/../x{part}/b"
    assert stars.filled("/a/.*", (part,)) == {"..": "/a/..."}.get(part)


REFUSED = {
    "src=/a/b,dst=/x/*": "the destination has 1 * but the source has none: each * in dst needs one in src",
    "src=/a/?[*]/[ab],dst=/x/*": "the destination has 1 * but the source has none: each * in dst needs one in src",
    "src=/a/*,dst=/x/*/*": "the destination has 2 * but the source has 1: each * in dst needs one in src",
    "src=/a/**,dst=/x/*-*": "the destination has 2 * but the source has 1: each * in dst needs one in src",
}


@pytest.mark.parametrize("spec", REFUSED)
def test_more_stars_than_the_source_has(spec: str) -> None:
    with pytest.raises(RequestError) as raised:
        parse_mount(f"type=glob,{spec}", "--mount 1", "--mount 1")
    assert str(raised.value) == f"--mount 1: {REFUSED[spec]} ([*] is a literal star)"


@pytest.mark.parametrize("spec", ["src=/a/*/*,dst=/x/*", "src=/a/*,dst=/x/[*]/*", "src=/a/?,dst=/x/[*]?"])
def test_as_many_or_fewer(spec: str) -> None:
    assert parse_mount(f"type=glob,{spec}", "--mount 1", "--mount 1").is_glob


@pytest.mark.parametrize("text", ["[", "[]", "[!", "*[", "**"])
def test_many_brackets_take_no_long_time(text: str) -> None:
    counts = [calls(lambda size=size: stars.count(text * size)) for size in (1000, 2000)]  # type: ignore[misc]
    assert counts[1] < 2.2 * counts[0]


def test_a_destination_is_taken_apart_once() -> None:
    """Somebody who may name a long one may also have made thousands of matches."""
    destination = f"/{'a/../' * 800}x"
    first, again = (calls(lambda: stars.filled(destination, ())) for _ in range(2))
    assert 3 * again < first
