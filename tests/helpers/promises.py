# SPDX-License-Identifier: Apache-2.0
"""What a release promises, docs/COMPATIBILITY.md, read off the program; tests/data/promised.json has what it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.reference import EXIT_CODES, HOOK
from oci_bind_hook.documents.acceptor import ADDRESS, schema
from oci_bind_hook.options import STAGES
from oci_bind_hook.record.document import VERSION
from oci_bind_hook.requests import mount_field, request
from oci_bind_hook.requests.collect import ANNOTATION

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from oci_bind_hook.commands.reference import Option

PRINTED = ("plan", "validation", "records", "gc", "hooks-check", "registrations", "doctor")


def promised() -> dict[str, Any]:
    """All of it, as JSON has it."""
    return {
        "stages": [*STAGES],
        "options": _options(HOOK),
        "commands": {command.name: _options(command.options) for command in COMMANDS},
        "fields of --mount": sorted({*mount_field.FIELDS, *request.WORDS}),
        "annotation": ANNOTATION,
        "exit codes": {str(code): text for code, text, _ in EXIT_CODES},
        "documents": {name: _document(name) for name in PRINTED},
        "state files": [*range(1, VERSION + 1)],
    }


def _options(options: Iterable[Option]) -> dict[str, list[str] | str]:
    """Each option with the words that it takes, or what its value is, "" for none."""
    return {option.name: [*option.choices] or option.value for option in options}


def _document(name: str) -> dict[str, Any]:
    """The version of a document, and each of its members: its type, or its words, and whether it is always there."""
    whole = schema(name)
    return {"version": whole["properties"]["version"]["const"], "members": dict(_members(whole, "", name))}


def _members(there: dict[str, Any], path: str, base: str) -> Iterator[tuple[str, dict[str, Any]]]:
    there, base = _resolved(there, base)
    for member, inner in there.get("properties", {}).items():
        found, _ = _resolved(inner, base)
        values = {"words": found["enum"]} if "enum" in found else {"type": found.get("const", found.get("type"))}
        yield path + member, {**values, "always": member in there.get("required", ())}
        yield from _members(inner, f"{path}{member}.", base)
    if "items" in there:
        yield from _members(there["items"], f"{path.removesuffix('.')}[].", base)


def _resolved(there: dict[str, Any], base: str) -> tuple[dict[str, Any], str]:
    """What a schema leads to by its references, and the file that this is in."""
    while "$ref" in there:
        address, _, pointer = there["$ref"].partition("#")
        base = address.removeprefix(ADDRESS) or base
        there = schema(base)
        for step in pointer.split("/")[1:]:
            there = there[step]
    return there, base
