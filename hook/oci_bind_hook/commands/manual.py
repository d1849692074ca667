# SPDX-License-Identifier: Apache-2.0
"""The manual as text, for machines without `man`. It is made of the same Markdown as the man pages."""

from __future__ import annotations

import os
import textwrap
from typing import TYPE_CHECKING

from .. import FOLDER
from . import markdown

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from .markdown import Block

    __loader__: Any

# The pages by topic of help, in the package's folder `man`.
PAGES = {"manual": "oci-bind-hook.8", "state-file": "oci-bind-hook-state-file.5"}
WIDTH = 80
_INDENT = 7  # columns, for text below a heading, as in man(1)


def sections() -> list[str]:
    """Returns the titles of the manual's sections, in lower case."""
    return [block.text.lower() for block in _blocks("manual") if block.mark == "##"]


def page(topic: str) -> str:
    """Returns the text of a page. ``topic`` is one of ``PAGES``."""
    return _as_text(_blocks(topic))


def section(title: str) -> str:
    """Returns the text of one section of the manual. Raises ValueError if ``sections`` has no such title."""
    blocks = _blocks("manual")
    [start] = [place for place, block in enumerate(blocks) if block.mark == "##" and block.text.lower() == title]
    ends = [place for place, block in enumerate(blocks) if block.mark == "##" and place > start]
    return _as_text(blocks[start : next(iter(ends), None)])


def _blocks(topic: str) -> list[Block]:
    # By the loader, because the package may be in a zip archive.
    data: bytes = __loader__.get_data(os.path.join(FOLDER, f"man/{PAGES[topic]}.md"))
    return list(markdown.blocks(data.decode()))


def _as_text(blocks: list[Block]) -> str:
    lines: list[str] = []
    for number, block in enumerate(blocks):
        before = blocks[number - 1].kind if number else ""
        # A heading is directly above its text.
        if number and before != "heading":
            lines.append("")
        lines += _lines(block)
    return "\n".join(lines) + "\n"


def _lines(block: Block) -> Iterator[str]:
    indent = " " * _INDENT
    if block.kind == "heading":
        yield " " * (3 if block.mark == "###" else 0) + block.text
    elif block.kind == "example":
        yield from (f"{indent}    {line}".rstrip() for line in block.text.splitlines())
    elif block.kind == "item":
        yield from _folded(block.text, f"{indent}{block.mark.ljust(2)} ")
    elif block.kind == "row":
        yield from _folded(block.mark, indent)
        yield from _folded(block.text, indent * 2)
    else:
        yield from _folded(block.text, indent)


def _folded(text: str, before: str) -> list[str]:
    plain = "".join(span.text for span in markdown.spans(text))
    return textwrap.wrap(
        plain,
        WIDTH,
        initial_indent=before,
        subsequent_indent=" " * len(before),
        break_on_hyphens=False,
        break_long_words=False,
    )
