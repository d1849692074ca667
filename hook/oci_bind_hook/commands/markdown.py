# SPDX-License-Identifier: Apache-2.0
"""The Markdown of the manual, parsed. Only the subset that `man/` uses is supported.

That is headings, paragraphs, indented examples, lists with and without numbers, tables of two columns, **bold**,
*italics* and `code`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    Kind = Literal["heading", "text", "example", "item", "row"]

# The text between two of these comments is written by hook/generate.py.
_GENERATED = re.compile(r"<!-- (generated: [a-z ]+|end) -->")


class Block(NamedTuple):
    """A part of a page. ``mark`` is the level of a heading, the mark of an item, or the first cell of a row."""

    kind: Kind
    text: str
    mark: str = ""


class Span(NamedTuple):
    """A part of a text, and the mark of its style: "**", "*", "`", or "" for none."""

    text: str
    style: str


def blocks(markdown: str) -> Iterator[Block]:
    """Yields the blocks of a page. Raises ValueError for unsupported Markdown."""
    for text in re.split(r"\n{2,}", markdown.strip("\n")):
        if not _GENERATED.fullmatch(text):
            yield from _blocks(text)


def _blocks(text: str) -> Iterator[Block]:
    if heading := re.fullmatch(r"(#+) (.*)", text):
        yield Block("heading", heading[2], heading[1])
    elif text.startswith("    "):
        yield Block("example", "\n".join(line[4:] for line in text.splitlines()))
    elif text.startswith("- "):
        yield from (Block("item", _joined(item), "-") for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:])
    elif text.startswith("1. "):
        items = re.split(r"^\d\. ", text, flags=re.MULTILINE)[1:]
        yield from (Block("item", _joined(item), f"{number}.") for number, item in enumerate(items, 1))
    elif text.startswith("| "):
        yield from (_row(line) for line in text.splitlines()[2:])
    elif text.startswith(("<", "```")):
        raise ValueError(f"no Markdown that is known here: {text}")
    else:
        yield Block("text", _joined(text))


def _row(line: str) -> Block:
    cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    if len(cells) != 2:
        raise ValueError(f"a table of two columns has no line {line}")
    return Block("row", cells[1], cells[0])


def _joined(text: str) -> str:
    return " ".join(text.split())


def spans(text: str) -> Iterator[Span]:
    """Yields the parts of a text by style."""
    for part in filter(None, re.split(r"(\*\*[^*]+\*\*|\*[^*]+\*|`[^`]+`)", text)):
        style = next((mark for mark in ("**", "*", "`") if part.startswith(mark) and len(part) > len(mark)), "")
        inner = part[len(style) : -len(style)] if style and part.endswith(style) else part
        yield Span(inner, style if inner != part else "")
