# SPDX-License-Identifier: Apache-2.0
"""Writes what follows from the tables of the code and from a schema into the man pages.

Run it as .venv/bin/python hook/generate.py. Each piece stands between a line with "generated: " and its name and a line
with "end". The text around it is written by hand. A test fails if a page is not as this would write it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from oci_bind_hook.commands import reference
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.help import typed, usages
from oci_bind_hook.documents import acceptor

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from oci_bind_hook.commands.reference import Option

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = re.compile(r"(^[^\n]*generated: ([a-z ]*[a-z])[^\n]*\n)(.*?)(^[^\n]* end\b)", re.DOTALL | re.MULTILINE)


def files() -> dict[str, str]:
    """Each file with what is generated in it, as it should be."""
    return {os.path.join(HERE, name): _filled(os.path.join(HERE, name)) for name in FILES}


def _filled(path: str) -> str:
    pieces = FILES[os.path.relpath(path, HERE)]
    with open(path, encoding="utf-8") as file:
        return PIECE.sub(lambda match: match[1] + pieces[match[2]] + match[4], file.read())


# -- the man pages -----------------------------------------------------------------------------------------------------


def _table(head: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {head} | meaning |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
    return "\n" + "\n".join(lines) + "\n\n"


def _options(options: Iterable[Option]) -> str:
    return _table("option", ((f"`{each.form}`".replace("|", r"\|"), each.text + each.more) for each in options))


def _examples() -> str:
    """The examples of all commands, each with its text."""
    found = []
    for command in COMMANDS:
        for example in command.examples:
            found += [f"{example.text}:", "\n".join(typed(example, " " * 4))]
    return "\n" + "\n\n".join(found) + "\n\n"


# The members of a schema


def members(name: str) -> Iterator[tuple[str, str]]:
    """Yields each member in a schema, in order: its path and its description."""
    schema = acceptor.schema(name)
    yield from _members(schema, "", schema)


def _members(schema: dict[str, Any], path: str, top: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for member, there in schema.get("properties", {}).items():
        within = _resolved(there, top)
        yield f"`{path}{member}`", _described(there, within)
        yield from _members(within, f"{path}{member}.", top)
        if "items" in within:
            yield from _members(_resolved(within["items"], top), f"{path}{member}[].", top)


def _resolved(schema: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Returns a schema merged with the schema that its $ref names."""
    if "$ref" not in schema:
        return schema
    document, _, pointer = schema["$ref"].partition("#")
    found = acceptor.schema(document) if document else top
    for step in filter(None, pointer.split("/")):
        found = found[step]
    # Members of another document are described in the page of that document.
    return {**found, **({"properties": {}} if document else {}), **schema}


def _described(own: dict[str, Any], whole: dict[str, Any]) -> str:
    """Returns the type or the values of a member, and its description, by default that of the schema it refers to."""
    kinds = whole.get("type", "")
    kind = " or ".join(kinds) if isinstance(kinds, list) else kinds
    if values := [whole["const"]] if "const" in whole else whole.get("enum"):
        kind = " or ".join(f"`{value}`" for value in values)
    text = own.get("description", "")
    if not text and "integer" not in kind:  # all numbers with the same definition would get the same text
        title = whole.get("title", "")
        text = whole.get("description") or title[:1].upper() + title[1:]
    return f"({kind}) {text}".strip()


MAN = {
    "examples": _examples(),
    "usage": "\n" + "".join(f"    {usage}\n" for usage in usages(COMMANDS)) + "\n",
    "options of the hook": _options(reference.HOOK),
    "options of install": _options(reference.INSTALL),
    "fields": _table(
        "field", ((" ".join(f"`{name}`" for name in row.split()), text) for row, text in reference.FIELD_TEXTS)
    ),
    "exit codes": _table("exit code", ((str(code), text) for code, _, text in reference.EXIT_CODES)),
}

STATE_FILE = {"members": _table("member", members("state-file"))}

FILES = {"man/oci-bind-hook.8.md": MAN, "man/oci-bind-hook-state-file.5.md": STATE_FILE}

if __name__ == "__main__":
    for path, text in files().items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
