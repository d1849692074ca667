# SPDX-License-Identifier: Apache-2.0
"""The words behind a command: options and their values, other words, and what stands behind ``--``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook.commands.command_line import Command, Given
from oci_bind_hook.commands.reference import options
from oci_bind_hook.errors import UsageError

if TYPE_CHECKING:
    from oci_bind_hook.log import Log


def nothing(_: Given, __: Log) -> int:
    return 0


PLAIN = Command("plain", nothing, "", "", options("--root --hooks-dir --debug --format"))
WITH_WORDS = PLAIN._replace(name="words", takes=("FILE", "-"))
BEHIND = PLAIN._replace(name="behind", takes=("OPTION",), only_behind=True, hint="others come after --")

UNDERSTOOD: dict[str, tuple[Command, list[str], dict[str, list[str]], list[str]]] = {
    "nothing": (PLAIN, [], {}, []),
    "a value": (PLAIN, ["--root", "/x"], {"--root": ["/x"]}, []),
    "a value behind =": (PLAIN, ["--root=/x=y"], {"--root": ["/x=y"]}, []),
    "an empty value": (PLAIN, ["--root="], {"--root": [""]}, []),
    "a value like an option": (PLAIN, ["--root", "--debug"], {"--root": ["--debug"]}, []),
    "the value --": (PLAIN, ["--root", "--"], {"--root": ["--"]}, []),
    "twice": (PLAIN, ["--hooks-dir", "a", "--hooks-dir=b"], {"--hooks-dir": ["a", "b"]}, []),
    "a flag twice": (PLAIN, ["--debug", "--debug"], {"--debug": ["", ""]}, []),
    "words anywhere": (WITH_WORDS, ["a", "--debug", "b"], {"--debug": [""]}, ["a", "b"]),
    "stdin": (WITH_WORDS, ["-"], {}, ["-"]),
    "words behind --": (WITH_WORDS, ["a", "--", "--debug", "--", "-x"], {}, ["a", "--debug", "--", "-x"]),
    "only behind --": (BEHIND, ["--debug", "--", "--mount=x", "a"], {"--debug": [""]}, ["--mount=x", "a"]),
    "nothing behind --": (BEHIND, ["--"], {}, []),
    "nothing behind -- where nothing can be": (PLAIN, ["--debug", "--"], {"--debug": [""]}, []),
}


@pytest.mark.parametrize(("command", "words", "values", "others"), UNDERSTOOD.values(), ids=UNDERSTOOD)
def test_words(command: Command, words: list[str], values: dict[str, list[str]], others: list[str]) -> None:
    found = Given(command, words)
    assert (found.values, found.others) == (values, others)


REFUSED = {
    "a word": (PLAIN, ["x"], "x: unknown argument of plain (see --help)"),
    "a dash": (PLAIN, ["-"], "-: unknown argument of plain (see --help)"),
    "a word behind --": (PLAIN, ["--", "x"], "x: unknown argument of plain (see --help)"),
    "another option": (WITH_WORDS, ["--rot=x"], '--rot: unknown argument of words (did you mean "--root"? see --help)'),
    "an abbreviation": (PLAIN, ["--debu"], '--debu: unknown argument of plain (did you mean "--debug"? see --help)'),
    "before --": (BEHIND, ["x", "--"], "x: unknown argument of behind (others come after --)"),
    "no value": (PLAIN, ["--root"], "--root: the value is missing"),
    "a flag with a value": (PLAIN, ["--debug=1"], "--debug: this option takes no value"),
    "another format": (PLAIN, ["--format=xml"], '--format: "xml" is not text or json'),
}


@pytest.mark.parametrize(("command", "words", "message"), REFUSED.values(), ids=REFUSED)
def test_wrong_words(command: Command, words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        Given(command, words)
    assert str(raised.value) == message


def test_values() -> None:
    found = Given(PLAIN, ["--root", "/a", "--root=/b", "--format", "json", "--debug"])
    assert (found.last("--root"), found.last("--hooks-dir")) == ("/b", None)
    assert (found.all("--root"), found.all("--hooks-dir")) == (["/a", "/b"], [])
    assert found.format == "json"
    assert (Given(PLAIN, []).format, Given(PLAIN._replace(options=()), []).format) == ("text", "text")
    # What the hook's own parser gets: --format is for a --dry-run there.
    assert found.passed == ["--root=/a", "--root=/b", "--debug"]


@given(
    some.lists(some.text(max_size=4) | some.sampled_from(["--", "-", "--root", "--debug", "--format=json", "--root=/"]))
)
def test_any_words_are_understood_or_refused(words: list[str]) -> None:
    for command in (PLAIN, WITH_WORDS, BEHIND):
        try:
            found = Given(command, words)
        except UsageError:
            continue
        assert set(found.values) <= {option.name for option in command.options}
