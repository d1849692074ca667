# SPDX-License-Identifier: Apache-2.0
"""The bundled schemas: well formed, few keywords, one truth for what is used, and every exception of ours told."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from oci_bind_hook import FOLDER
from oci_bind_hook.documents import acceptor

DRAFT = "https://json-schema.org/draft/2020-12/schema"

# The keywords we use, which kinds of value each of them speaks about, and how they hold schemas.
ANNOTATIONS = {"$schema", "$id", "$comment", "title", "description"}
ABOUT = {
    "properties": "object",
    "required": "object",
    "dependentRequired": "object",
    "additionalProperties": "object",
    "propertyNames": "object",
    "items": "array",
    "minItems": "array",
    "uniqueItems": "array",
    "uniqueBy": "array",
    "pattern": "string",
    "minLength": "string",
    "maxLength": "string",
    "minimum": "integer",
    "maximum": "integer",
}
ANY = {"type", "enum", "const", "$ref", "$defs"}
CHOICES = {"anyOf", "if", "then"}  # of what must be there; their schemas say nothing else


def subschemas(schema: dict[str, Any], place: str = "#") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema inside ``schema``, itself first, with its place; nothing that only looks like one."""
    yield place, schema
    for keyword in ("properties", "$defs"):
        for name, inner in schema.get(keyword, {}).items():
            yield from subschemas(inner, f"{place}/{keyword}/{name}")
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(keyword), dict):
            yield from subschemas(schema[keyword], f"{place}/{keyword}")


def demands(schema: dict[str, Any]) -> set[str]:
    """The members that a schema asks for, always or under conditions."""
    alternatives = [*schema.get("anyOf", ()), schema.get("if", {}), schema.get("then", {})]
    names = {name for each in (schema, *alternatives) for name in each.get("required", ())}
    return names | {name for needs in schema.get("dependentRequired", {}).values() for name in needs}


def oddities(schema: dict[str, Any]) -> Iterator[str]:
    """What a metaschema cannot see: keywords that are unknown, or stand where they say nothing."""
    for place, each in subschemas(schema):
        in_names = place.endswith("/propertyNames")
        kinds = each.get("type", "string" if in_names else "")
        for keyword in each:
            if keyword not in ANNOTATIONS | ABOUT.keys() | ANY | CHOICES:
                yield f"{place}/{keyword}: unknown"
            elif keyword in ABOUT and ABOUT[keyword] not in ([kinds] if isinstance(kinds, str) else kinds):
                yield f"{place}/{keyword}: not beside type {ABOUT[keyword]}"
            elif keyword in ("$schema", "$id") and place != "#":
                yield f"{place}/{keyword}: not at the top"
        if "$ref" in each and each.keys() - ANNOTATIONS - {"$ref"}:
            yield f"{place}: more than words beside $ref"
        if not each.keys() - ANNOTATIONS:
            yield f"{place}: constrains nothing"
        for alternative in each.get("anyOf", ()):
            if alternative.keys() != {"required"}:
                yield f"{place}/anyOf: more than what must be there"
        if each.get("then", {}).keys() - {"required"} or ("if" in each) != ("then" in each):
            yield f"{place}/then: more than what must be there"
        for name in (demands(each) | {*each.get("dependentRequired", ())}) - each.get("properties", {}).keys():
            yield f"{place}: requires {name}, which is no property"
        if "pattern" in each and "title" not in each:
            yield f"{place}: a pattern without a title to say it in words"


def resolved(name: str, reference: str) -> dict[str, Any]:
    """What a reference in the schema ``name`` leads to; LookupError."""
    address, _, pointer = reference.partition("#")
    found = acceptor.schema(address.removeprefix(acceptor.ADDRESS) if address else name)
    for step in pointer.split("/")[1:]:
        found = found[step]
    return found


def test_every_schema_file_is_known() -> None:
    folder = os.path.join(FOLDER, "schemas")
    assert set(os.listdir(folder)) == {f"{name}.json" for name in acceptor.SCHEMAS} | {"README.md"}


@pytest.mark.parametrize("name", acceptor.SCHEMAS)
class TestForm:
    def test_it_obeys_its_metaschema(self, name: str) -> None:
        Draft202012Validator.check_schema(acceptor.schema(name))

    def test_its_id_is_its_name(self, name: str) -> None:
        document = acceptor.schema(name)
        assert document["$schema"] == DRAFT
        assert document["$id"] == f"urn:oci-bind-hook:{name}"
        assert document["title"]

    def test_every_keyword_is_known_and_in_its_place(self, name: str) -> None:
        assert list(oddities(acceptor.schema(name))) == []

    def test_it_refers_to_what_is_there(self, name: str) -> None:
        for place, each in subschemas(acceptor.schema(name)):
            assert "$ref" not in each or resolved(name, each["$ref"]), place

    def test_its_patterns_end_the_same_in_python_and_elsewhere(self, name: str) -> None:
        # Python's $ also matches before a last newline; and its classes know more than ECMA's.
        for place, each in subschemas(acceptor.schema(name)):
            if pattern := each.get("pattern"):
                assert re.search(r"\]\*\$$|\]\+\$$|\$\(\?!\\n\)$", pattern), place
                assert not re.search(r"\\[dDwWsSbBAZ]|\(\?[^!:]", pattern), place
                assert not re.search(r"\[[^^][^]]*\][*+]\$$", pattern), f"{place}: may end before a newline"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        # A property beside "required" instead of under "properties" is never enforced, and no metaschema minds.
        ({"type": "object", "required": ["to"], "properties": {"to": {"type": "string"}}, "source": {}}, "#/source"),
        ({"type": "object", "required": ["a"]}, "#: requires a"),
        ({"type": "string", "minimum": 1}, "#/minimum: not beside"),
        ({"$ref": "#/$defs/a", "type": "string"}, "#: more than words"),
        ({"type": "array", "items": {"description": "x"}}, "#/items: constrains nothing"),
        ({"type": "string", "pattern": "x"}, "#: a pattern without"),
        ({"type": "object", "anyOf": [{"required": ["a"]}]}, "#: requires a"),
        ({"type": "object", "anyOf": [{"type": "object"}]}, "#/anyOf: more"),
        ({"type": "object", "if": {"required": ["a"]}}, "#/then: more"),
    ],
)
def test_the_walker_finds_what_it_should(schema: dict[str, Any], expected: str) -> None:
    assert [each for each in oddities(schema) if each.startswith(expected)]


class TestUsed:
    """What a normal run judges is a part of the whole, and written once."""

    def test_the_whole_asks_for_the_same(self) -> None:
        whole, used = acceptor.schema("config"), acceptor.schema("config-used")
        assert (whole["type"], whole["required"]) == (used["type"], used["required"])

    @pytest.mark.parametrize(
        "member", [name for name in acceptor.schema("config-used")["properties"] if name not in ("linux", "process")]
    )
    def test_a_member_is_the_same(self, member: str) -> None:
        whole, used = (acceptor.schema(name)["properties"][member] for name in ("config", "config-used"))
        if member == "ociVersion":  # used as nothing but text
            assert whole["type"] == resolved("config-used", used["$ref"])["type"]
            return
        assert address("config", whole["$ref"]) == address("config-used", used["$ref"])

    def test_linux_is_the_same(self) -> None:
        whole, used = acceptor.schema("config-linux"), acceptor.schema("config-used")["properties"]["linux"]
        assert acceptor.schema("config")["properties"]["linux"] == {"$ref": "urn:oci-bind-hook:config-linux"}
        assert used.keys() == {"type", "properties"}
        assert used["type"] == whole["type"]
        for member, schema in used["properties"].items():
            there = address("config-linux", whole["properties"][member]["$ref"])
            assert there == address("config-used", schema["$ref"]), member

    def test_process_has_the_same_names(self) -> None:
        whole, used = acceptor.schema("config-process"), acceptor.schema("config-used")["properties"]["process"]
        assert used["properties"].keys() == {"capabilities"}
        names = [each["properties"]["capabilities"]["properties"].keys() for each in (whole, used)]
        assert names[0] == names[1]


def address(name: str, reference: str) -> str:
    """A reference in the schema ``name``, with the name of the file in any case."""
    return reference if reference.startswith(acceptor.ADDRESS) else f"{acceptor.ADDRESS}{name}{reference}"


def _names(schema: object) -> Iterator[str]:
    """Every name of a member that a schema or a part of it knows."""
    if isinstance(schema, dict):
        for keyword, value in schema.items():
            yield from value if keyword in ("properties", "required", "dependentRequired") else ()
            yield from _names(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from _names(each)


def test_no_schema_knows_a_name_with_nul() -> None:
    """The acceptor may count on that: for readers in C such a name is another one, up to its NUL."""
    names = [name for schema in acceptor.SCHEMAS for name in _names(acceptor.schema(schema))]
    assert len(names) > 500
    assert [name for name in names if "\0" in name] == []


def test_every_exception_is_in_the_list() -> None:
    with open(os.path.join(FOLDER, "schemas", "README.md"), encoding="utf-8") as file:
        rows = re.findall(r"^\| `([\w-]+\.json)(#[^`]*)` \| (.*) \|$", file.read(), re.MULTILINE)
    start = "Wider than runtime-spec's schema"
    comments = [
        (f"{name}.json", place, each["$comment"].removeprefix(start).lstrip(",: "))
        for name in acceptor.SCHEMAS
        for place, each in subschemas(acceptor.schema(name))
        if each.get("$comment", "").startswith(start)
    ]
    assert sorted(rows) == sorted(comments)
    assert len(rows) > 5
