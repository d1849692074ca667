# SPDX-License-Identifier: Apache-2.0
"""Which names match a pattern, and that nobody who plants links makes it endless."""

from __future__ import annotations

import glob
import re
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers.mounting import plant
from helpers.properties import examples
from oci_bind_hook.errors import RequestError
from oci_bind_hook.mounting.confined import Allowed
from oci_bind_hook.mounting.patterns import matches
from oci_bind_hook.requests.mount_field import parse_mount

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.mounting import Tree
    from oci_bind_hook.requests.request import Request


def asked(source: str, *, allowed: str = "") -> Request:
    request = parse_mount(f"type=glob,src={source},dst=/x,follow-links", "--mount 1", "--mount 1")
    request.opener = Allowed([allowed]) if allowed else None
    return request


@pytest.fixture
def loops(tmp_path: Path) -> str:
    """A folder with links to itself, as a container can make them in a volume."""
    return plant(tmp_path, {str(number): "." for number in range(8)})


@pytest.mark.parametrize("last", ["*", "absent", "*/"])
def test_links_to_the_folder_itself_do_not_multiply_for_ever(loops: str, last: str) -> None:
    pattern = f"{loops}/*/*/*/*/*/{last}"
    with pytest.raises(RequestError) as raised:
        matches(asked(pattern))
    assert str(raised.value) == (
        f"--mount 1: the pattern {pattern} requires more than 100000 lookups (check for links to a parent folder)"
    )


def test_an_annotation_reads_each_folder_once(loops: str) -> None:
    found = matches(asked(f"{loops}/*/*/*/*/*/*", allowed=loops))
    assert [match.source for match in found] == [f"{loops}/0/0/0/0/0/{number}" for number in range(8)]


@pytest.mark.parametrize("is_allowed", [False, True], ids=["--mount", "annotation"])
def test_a_pattern_of_more_names_than_a_path_may_have(loops: str, is_allowed: bool) -> None:
    pattern = f"{loops}/[0]" + "/[0]" * 100_000
    assert matches(asked(pattern, allowed=loops if is_allowed else "")) == []


NAMES = some.sampled_from(("a", "b", "c.d", ".h"))
LEAVES = some.one_of(some.just(b""), some.sampled_from((".", "..", "a", "absent", "b/a", "../c.d")))
TREES = some.recursive(
    some.dictionaries(NAMES, LEAVES, max_size=4),
    lambda trees: some.dictionaries(NAMES, some.one_of(LEAVES, trees), min_size=1, max_size=4),
    max_leaves=10,
)
WILD = some.lists(
    some.sampled_from(("*", "a", "?", ".*", "[ab]", "*.d", "..", ".", "**", "[!a]", "")), min_size=1, max_size=4
)


@examples(100)
@given(tree=TREES, words=WILD)
def test_they_are_what_glob_finds(tree: Tree, words: list[str]) -> None:
    with tempfile.TemporaryDirectory() as top:
        # No pattern comes out of it by "..": what is above may change.
        folder = plant(f"{top}/1/2/3/4/5/6/7/8", tree)
        pattern = f"{folder}/{'/'.join(words)}"
        found = {re.sub("//+", "/", match.source) for match in matches(asked(pattern))}
        assert found == {re.sub("//+", "/", path) for path in glob.glob(pattern)}
