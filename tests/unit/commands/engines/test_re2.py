# SPDX-License-Identifier: Apache-2.0
"""Regular expressions of Go. That the table is right is asked of podman, in tests/e2e/test_podman.py."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from helpers import hooks_d_tables as tables
from helpers import work
from helpers.properties import examples
from oci_bind_hook.commands.engines import automaton, re2
from oci_bind_hook.commands.engines.conditions import quoted


@pytest.mark.parametrize(("pattern", "text", "is_match"), tables.REGEXPS, ids=[repr(row[:2]) for row in tables.REGEXPS])
def test_it_means_what_it_means_to_go(pattern: str, text: str, is_match: bool | None) -> None:
    if is_match is None:
        with pytest.raises(re2.InvalidError, match=r"^[ -~]{5,100}$"):
            re2.compile(pattern)
    else:
        assert re2.compile(pattern).matches(text) == is_match


BEYOND = {
    "a class of Unicode": r"\pN",
    "one in brackets": r"[\p{Greek}]",
    "a name as of Go 1.22": "(?<name>a)",
    "too deep": "(" * 2000 + ")" * 2000,
    "too long": "a" * 10_001,
    "too large": "(abcdef){1000}",
    "too large in sum": "a{1000}" * 6,
    "too many alternatives": "|" * 9000,
}


@pytest.mark.parametrize("pattern", BEYOND.values(), ids=BEYOND)
def test_what_cannot_be_told_is_not_guessed(pattern: str) -> None:
    with pytest.raises(re2.UnknownError):
        re2.compile(pattern)


@given(some.text(max_size=12), some.text(max_size=12))
def test_a_quoted_text_matches_itself_only(text: str, other: str) -> None:
    pattern = re2.compile(f"^{quoted(text)}$")
    assert pattern.matches(text)
    assert pattern.matches(other) == (text == other)


@given(some.text(alphabet=r"ab(|)[]{}*+?^$\.:-,12dzQEi<>P=" + "\n", max_size=12))
def test_any_text_is_an_expression_or_refused(pattern: str) -> None:
    try:
        compiled = re2.compile(pattern)
    except (re2.InvalidError, re2.UnknownError):
        return
    assert compiled.matches("") in (False, True)


# The same for Go and for Python.
ATOMS = some.sampled_from(
    ("a", "b", "_", "1", ".", r"\n", "[ab]", "[^a]", "[a-z_]", "(?i:A)", "(?s:.)", "(?m:^)", "(?m:$)", "^")
)
COUNTS = some.sampled_from(("*", "+", "?", "{2}", "{0}", "{0,2}", "{1,3}", "{2,}", "*?", "{1,}?"))
EXPRESSIONS = some.recursive(
    ATOMS,
    lambda inner: some.one_of(
        some.builds("({}){}".format, inner, COUNTS),
        some.builds("(?:{}|{})".format, inner, inner),
        some.builds("{}{}".format, inner, inner),
    ),
    max_leaves=8,
)


@examples(500)
@given(EXPRESSIONS, some.lists(some.text(alphabet="abA_1 \n", max_size=8), max_size=6))
@example("(a*)*b", ["aab", "aac"])
@example("(a|b)*a(a|b){3}", ["abbab", "bbbb"])
@example("(?:|a)+^", ["", "a"])
def test_it_matches_what_python_matches(pattern: str, texts: list[str]) -> None:
    program = re2.compile(pattern)
    for text in texts:
        assert program.matches(text) == (re.search(pattern, text) is not None)


@pytest.mark.parametrize("pattern", ["^([a-z]+,?)+$", "(a*)*b", "^(a|a)*$", "(a|b)*a(a|b){9}c", "^(a?){30}a{30}$"])
def test_each_character_takes_the_same_work(pattern: str) -> None:
    """Python's re takes exponential time for most of them: an annotation of 28 letters took seconds."""
    program = re2.compile(pattern)
    work.check_growth(lambda size: work.opcodes(lambda: re2.compile(pattern).matches("ab" * size + "!")), 50)
    assert program.matches("a" * 100_000 + "!") is False


def test_what_is_kept_of_texts_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(automaton, "_KEPT", 20)
    program = re2.compile("(a|b)*a(a|b){4}$")
    for number in range(1 << 9):
        text = f"{number:09b}".translate({ord("0"): "a", ord("1"): "b"})
        assert program.matches(text) == (text[-5] == "a")
        assert len(program._states) <= 21
