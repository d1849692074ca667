# SPDX-License-Identifier: Apache-2.0
"""The manual as text: the same that the man pages have, on lines that fit a terminal."""

from __future__ import annotations

import os
import re

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands import help as helping
from oci_bind_hook.commands import manual
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.markdown import Span, blocks, spans

TEXT = """\
# name(8)

## A TITLE

One `--word` of **bold** and *it*,
with more words than there is room for on a line of eighty columns, so that it goes on below.

### A part

    $ example \\
        -x

- one
- two

1. first

| a | b |
|---|---|
| `x` `y` | what they are |
"""
AS_TEXT = """\
name(8)

A TITLE
       One --word of bold and it, with more words than there is room for on a
       line of eighty columns, so that it goes on below.

   A part
           $ example \\
               -x

       -  one

       -  two

       1. first

       x y
              what they are
"""


def test_each_kind_of_block_has_its_place() -> None:
    lines = manual._as_text(list(blocks(TEXT))).splitlines()
    assert lines == AS_TEXT.replace("name(8)\n\n", "name(8)\n").splitlines()


SPANS = {
    "a `b` *c* **d**": [("a ", ""), ("b", "`"), (" ", ""), ("c", "*"), (" ", ""), ("d", "**")],
    "`src=*` and 2 * 3": [("src=*", "`"), (" and 2 * 3", "")],
    "*": [("*", "")],
    "`a": [("`a", "")],
}


@pytest.mark.parametrize("text", SPANS)
def test_spans(text: str) -> None:
    assert [*spans(text)] == [Span(*each) for each in SPANS[text]]


@pytest.mark.parametrize("topic", manual.PAGES)
def test_a_page_is_printed(topic: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", topic]) == os.EX_OK
    text = capfd.readouterr().out
    assert text.startswith(f"{manual.PAGES[topic][:-2]}({manual.PAGES[topic][-1]})\nNAME\n")
    assert "\nSEE ALSO\n" in text
    assert not re.search(r"\\\||<!--", text)
    # Only an example, which is printed as it is, may be wider than a terminal.
    assert [line for line in text.splitlines() if len(line) > 80 and not line.startswith(" " * 11)] == []


@pytest.mark.parametrize("title", manual.sections())
def test_each_section_is_a_topic(title: str, capfd: pytest.CaptureFixture[str]) -> None:
    commands = {command.name for command in COMMANDS}
    assert cli.main(["help", *title.split()]) == os.EX_OK
    text = capfd.readouterr().out
    if title not in {*commands, "options"}:
        assert text.startswith(f"{title.upper()}\n       ")
        assert len(re.findall(r"^\S", text, re.MULTILINE)) == 1
    assert cli.main(["help", title.replace(" ", "-").replace(",", "").upper()]) == os.EX_OK
    assert capfd.readouterr().out == text


def test_the_topics_are_named_where_they_are_asked_for() -> None:
    [line] = re.findall(r"Topics: ([^.]*)\.", helping.topic("help", COMMANDS))
    topics = line.replace("\n", " ").split(", ")
    assert topics == [*helping.topics(COMMANDS)]
    assert {"options", "install", "manual", "state-file", "mounts", "troubleshooting", "environment"} <= {*topics}
