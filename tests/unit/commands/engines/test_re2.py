# SPDX-License-Identifier: Apache-2.0
"""Regular expressions of Go. That the table is right is asked of podman, in tests/e2e/test_podman.py."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers import hooks_d_tables as tables
from oci_bind_hook.commands.engines import re2
from oci_bind_hook.commands.engines.install import quoted


@pytest.mark.parametrize(("pattern", "text", "is_match"), tables.REGEXPS, ids=[repr(row[:2]) for row in tables.REGEXPS])
def test_it_means_what_it_means_to_go(pattern: str, text: str, is_match: bool | None) -> None:
    if is_match is None:
        with pytest.raises(re2.InvalidError, match=r"^[ -~]{5,100}$"):
            re2.compile(pattern)
    else:
        assert (re2.compile(pattern).search(text) is not None) == is_match


@pytest.mark.parametrize("pattern", [r"\pN", r"[\p{Greek}]", "(?<name>a)", "(" * 2000 + ")" * 2000])
def test_what_cannot_be_told_is_not_guessed(pattern: str) -> None:
    with pytest.raises(re2.UnknownError):
        re2.compile(pattern)


@given(some.text(max_size=12), some.text(max_size=12))
def test_a_quoted_text_matches_itself_only(text: str, other: str) -> None:
    pattern = re2.compile(f"^{quoted(text)}$")
    assert pattern.search(text)
    assert (pattern.search(other) is not None) == (text == other)


@given(some.text(alphabet=r"ab(|)[]{}*+?^$\.:-,12dzQEi<>P=" + "\n", max_size=12))
def test_any_text_is_an_expression_or_refused(pattern: str) -> None:
    try:
        compiled = re2.compile(pattern)
    except (re2.InvalidError, re2.UnknownError):
        return
    assert isinstance(compiled, re.Pattern)
