# SPDX-License-Identifier: Apache-2.0
"""The man pages for `man`, made of the Markdown in `man/` when the package is built."""

from __future__ import annotations

import os
import re
import textwrap

import oci_bind_hook
from oci_bind_hook.commands import markdown
from oci_bind_hook.commands.markdown import Block

HERE = os.path.dirname(os.path.abspath(__file__))
MAN = os.path.join(HERE, "man")
CHANGELOG = os.path.join(os.path.dirname(HERE), "CHANGELOG.md")
FONTS = {"**": r"\fB", "*": r"\fI", "`": r"\fB", "": r"\fR"}
WIDTH = 79  # of a line of the source, as mandoc(1) wants it


def pages() -> dict[str, str]:
    """The man pages by their file names, as `man` reads them."""
    found = {}
    for name in sorted(os.listdir(MAN)):
        with open(os.path.join(MAN, name), encoding="utf-8") as file:
            found[name.removesuffix(".md")] = roff(file.read(), date())
    return found


def date() -> str:
    """The day of this version, by CHANGELOG.md: the same for each build. ValueError where there is none."""
    with open(CHANGELOG, encoding="utf-8") as file:
        found = re.search(rf"^## \[{re.escape(oci_bind_hook.__version__)}\] - (\d{{4}}-\d\d-\d\d)$", file.read(), re.M)
    if found is None:
        raise ValueError(f"CHANGELOG.md has no day for {oci_bind_hook.__version__}: ## [VERSION] - YYYY-MM-DD")
    return found[1]


def roff(text: str, day: str) -> str:
    """One page, man(7), with the day in its footer. ValueError for Markdown that is not known here."""
    lines = [r".\" Made of Markdown by hook/manual.py."]
    is_first = False  # behind a heading, which makes the paragraph by itself
    for block in markdown.blocks(text):
        lines += _block(block, day, is_first=is_first)
        is_first = block.kind == "heading"
    return "\n".join(lines) + "\n"


def _block(block: Block, day: str, *, is_first: bool) -> list[str]:
    paragraph = [] if is_first else [".PP"]
    if block.kind == "heading":
        return _heading(len(block.mark), block.text, day)
    if block.kind == "example":
        return [*paragraph, ".RS 4", ".EX", *(escaped(line) for line in block.text.splitlines()), ".EE", ".RE"]
    if block.kind == "item":
        mark = r"\(bu 2" if block.mark == "-" else f"{block.mark} 3"
        return [f".IP {mark}", *_filled(block.text)]
    if block.kind == "row":
        return [".TP", _inline(block.mark), *_filled(block.text)]
    return [*paragraph, *_filled(block.text)]


def _heading(depth: int, text: str, day: str) -> list[str]:
    if depth > 1:
        return [f".{'SH' if depth == 2 else 'SS'} {escaped(text)}"]
    name, _, section = text.rstrip(")").partition("(")
    version = f"oci-bind-hook {oci_bind_hook.__version__}"
    return [f'.TH {name.upper()} {section} {day} "{version}" "OCI hooks"', ".nh", ".ad l"]


def _filled(text: str) -> list[str]:
    """Text of one paragraph in lines, with its fonts."""
    lines = textwrap.wrap(_inline(text), WIDTH, break_long_words=False, break_on_hyphens=False)
    return [_begun(line) for line in lines]


def _inline(text: str) -> str:
    return _begun(
        "".join(
            FONTS[style] + _quoted(part) + FONTS[""] if style else _quoted(part) for part, style in markdown.spans(text)
        )
    )


def escaped(text: str) -> str:
    """A line that roff takes as it is."""
    return _begun(_quoted(text))


def _quoted(text: str) -> str:
    return text.replace("\\", r"\e").replace("-", r"\-")


def _begun(line: str) -> str:
    """At a line's beginning a dot or an apostrophe would be a request."""
    return rf"\&{line}" if line.startswith((".", "'")) else line
