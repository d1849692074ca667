# SPDX-License-Identifier: Apache-2.0
"""The man pages, made of the Markdown in `man/` when the package is built: of that much Markdown that stands there.

Headings, paragraphs, indented examples, lists with and without numbers, tables of two columns, **bold**, *italics* and
`code`. In a page of the state file a comment stands for the members that its schema describes.
"""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = os.path.dirname(os.path.abspath(__file__))
MAN = os.path.join(HERE, "man")
SCHEMAS = os.path.join(HERE, "oci_bind_hook/schemas")
MEMBERS = re.compile(r"<!-- members of schemas/(.+)\.json -->")
# Between the two stands what hook/generate.py writes.
GENERATED = re.compile(r"<!-- (generated: [a-z ]+|end) -->")
FONTS = {"**": r"\fB", "*": r"\fI", "`": r"\fB"}


def pages() -> dict[str, str]:
    """The man pages by their file names, as `man` reads them."""
    found = {}
    for name in sorted(os.listdir(MAN)):
        with open(os.path.join(MAN, name), encoding="utf-8") as file:
            found[name.removesuffix(".md")] = roff(file.read())
    return found


def roff(markdown: str) -> str:
    """One page. ValueError for Markdown that is not known here."""
    lines = [r".\" Made of Markdown by hook/manual.py."]
    for block in re.split(r"\n{2,}", markdown.strip("\n")):
        if comment := MEMBERS.fullmatch(block):
            lines += _table(list(members(comment[1])))
        elif not GENERATED.fullmatch(block):
            lines += _block(block)
    return "\n".join(lines) + "\n"


def _block(block: str) -> list[str]:
    if heading := re.fullmatch(r"(#+) (.*)", block):
        return _heading(len(heading[1]), heading[2])
    if block.startswith("    "):
        return [".PP", ".RS 4", ".EX", *(escaped(line[4:]) for line in block.splitlines()), ".EE", ".RE"]
    if block.startswith("- "):
        return [word for item in re.split(r"^- ", block, flags=re.MULTILINE)[1:] for word in _item(r"\(bu 2", item)]
    if block.startswith("1. "):
        items = re.split(r"^\d\. ", block, flags=re.MULTILINE)[1:]
        return [word for number, item in enumerate(items, 1) for word in _item(f"{number}. 3", item)]
    if block.startswith("| "):
        return _table([_cells(line) for line in block.splitlines()[2:]])
    if block.startswith(("<", "```")):
        raise ValueError(f"no Markdown that is known here: {block}")
    return [".PP", _inline(block)]


def _heading(depth: int, text: str) -> list[str]:
    if depth > 1:
        return [f".{'SH' if depth == 2 else 'SS'} {escaped(text)}"]
    name, _, section = text.rstrip(")").partition("(")
    return [f'.TH {name.upper()} {section} "" "oci-bind-hook" ""', ".nh", ".ad l"]


def _item(mark: str, item: str) -> list[str]:
    return [f".IP {mark}", _inline(item)]


def _cells(line: str) -> tuple[str, str]:
    cells = [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    if len(cells) != 2:
        raise ValueError(f"a table of two columns has no line {line}")
    return cells[0], cells[1]


def _table(rows: list[tuple[str, str]]) -> list[str]:
    return [word for tag, text in rows for word in (".TP", _inline(tag), _inline(text))]


def _inline(text: str) -> str:
    """Text of one paragraph on one line, with its fonts."""
    parts = re.split(r"(\*\*[^*]+\*\*|\*[^*]+\*|`[^`]+`)", " ".join(text.split()))
    return "".join(
        escaped(part, begins=not number) if number % 2 == 0 else _font(part) for number, part in enumerate(parts)
    )


def _font(part: str) -> str:
    mark = "**" if part.startswith("**") else part[0]
    return rf"{FONTS[mark]}{escaped(part.strip(mark), begins=False)}\fR"


def escaped(text: str, *, begins: bool = True) -> str:
    """Text that roff takes as it is; at a line's beginning a dot or an apostrophe would be a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if begins and text.startswith((".", "'")) else text


def members(name: str) -> Iterator[tuple[str, str]]:
    """Each member that a schema describes, in order: its path, and what it is."""
    schema = _load(name)
    yield from _members(schema, "", schema)


def _members(schema: dict[str, Any], path: str, top: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for member, there in schema.get("properties", {}).items():
        within = _resolved(there, top)
        yield f"`{path}{member}`", _told(there, within)
        yield from _members(within, f"{path}{member}.", top)
        if "items" in within:
            yield from _members(_resolved(within["items"], top), f"{path}{member}[].", top)


def _resolved(schema: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """What a schema says together with what it refers to."""
    if "$ref" not in schema:
        return schema
    document, _, pointer = schema["$ref"].partition("#")
    found = _load(document.rpartition(":")[2]) if document else top
    for step in filter(None, pointer.split("/")):
        found = found[step]
    # The members of another document are told in its own place.
    return {**found, **({"properties": {}} if document else {}), **schema}


def _told(own: dict[str, Any], whole: dict[str, Any]) -> str:
    """The kind of a member, or its values, and what it is, in its own words or in those of what it refers to."""
    kinds = whole.get("type", "")
    kind = " or ".join(kinds) if isinstance(kinds, list) else kinds
    if values := [whole["const"]] if "const" in whole else whole.get("enum"):
        kind = " or ".join(f"`{value}`" for value in values)
    text = own.get("description", "")
    if not text and "integer" not in kind:  # all numbers that refer to one definition would be told alike
        text = whole.get("description") or whole.get("title", "").capitalize()
    return f"({kind}) {text}".strip()


def _load(name: str) -> dict[str, Any]:
    with open(os.path.join(SCHEMAS, f"{name}.json"), encoding="utf-8") as file:
        schema: dict[str, Any] = json.load(file)
    return schema
