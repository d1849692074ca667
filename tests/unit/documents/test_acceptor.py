# SPDX-License-Identifier: Apache-2.0
"""The acceptor against the judge: what it accepts, jsonschema accepts, and it takes what engines write."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from helpers import config_tables, schema_tables
from helpers.configs import CONFIGS, config
from helpers.properties import examples
from helpers.schema_tables import put
from oci_bind_hook.documents import acceptor, judge, oci

VALID: dict[str, Any] = schema_tables.VALID | config_tables.ROOMS | {"config": config_tables.WHOLE}
ALSO_VALID = schema_tables.ALSO_VALID + config_tables.ALSO_VALID
REFUSED = {**schema_tables.REFUSED, **config_tables.REFUSED}
ROWS = [(name, value, places.split() or [""]) for name, groups in REFUSED.items() for value, places in groups]
LANE = acceptor.Acceptor(acceptor.schema)


def takes(document: object, name: str) -> bool:
    return LANE.accepts(document, acceptor.ADDRESS + name)


class TestOwnSchemas:
    @pytest.mark.parametrize("name", VALID)
    def test_both_accept_what_is_valid(self, name: str) -> None:
        assert judge.violations(VALID[name], name) == []
        document = json.loads(json.dumps(VALID[name]))
        # hwConfig may not stand beside hwconfig, and of all devices a pipe needs no numbers: that is for the judge.
        for place, member in (("vm", "hwConfig"), ("linux", "devices")):
            room = document.get(place, {}) if name == "config" else document if name == f"config-{place}" else {}
            if room:
                assert not takes(document, name)
                del room[member]
        assert takes(document, name)

    @pytest.mark.parametrize(("name", "place", "value"), ALSO_VALID)
    def test_the_judge_accepts_what_is_also_valid(self, name: str, place: str, value: Any) -> None:
        assert judge.violations(put(VALID[name], place, value), name) == []

    @pytest.mark.parametrize(("name", "value", "places"), ROWS)
    def test_the_acceptor_takes_nothing_that_is_refused(self, name: str, value: Any, places: list[str]) -> None:
        assert [place for place in places if takes(put(VALID[name], place, value), name)] == []

    @pytest.mark.parametrize("name", CONFIGS)
    @pytest.mark.parametrize("schema", ["config-used", "config"])
    def test_the_acceptor_takes_what_engines_write(self, name: str, schema: str) -> None:
        _, document = config(name)
        assert takes(document, schema)
        assert judge.violations(document, schema) == []


class TestPatterns:
    @pytest.mark.parametrize("pattern", acceptor._PATTERNS)
    @examples(300)
    @given(text=st.text(st.sampled_from("/.a\0\n=-0fA_ é"), max_size=12) | st.text(max_size=210))
    def test_each_is_what_re_makes_of_it(self, pattern: str, text: str) -> None:
        assert acceptor._PATTERNS[pattern](text) == bool(re.search(pattern, text))

    def test_an_id_has_two_hundred_characters_at_most(self) -> None:
        [accept] = [each for pattern, each in acceptor._PATTERNS.items() if "1,200" in pattern]
        assert (accept("a" * 200), accept("a" * 201)) == (True, False)

    def test_a_boot_id(self) -> None:
        [accept] = [each for pattern, each in acceptor._PATTERNS.items() if "{12}" in pattern]
        boot = "01234567-89ab-cdef-0123-456789abcdef"
        assert (accept(boot), accept(f"{boot}\n"), accept(boot.upper())) == (True, False, False)

    def test_each_is_in_a_schema(self) -> None:
        texts = {pattern for name in acceptor.SCHEMAS for pattern in patterns(acceptor.schema(name))}
        assert acceptor._PATTERNS.keys() <= texts


def patterns(schema: Any) -> set[str]:
    """Every pattern in a schema."""
    inner = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    found = {each for member in inner for each in patterns(member)}
    if isinstance(schema, dict) and isinstance(schema.get("pattern"), str):
        found.add(schema["pattern"])
    return found


# Documents made from valid ones

LEAVES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.sampled_from(
        [0, 1, -1, 1.0, 0.5, 1e300, 2**32 - 1, 2**32, 2**63, 2**64, "", "/", "/a\0", "a=b", "..", "é", "K"]
    )
    | st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=5)
)
VALUES = st.recursive(LEAVES, lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each))


@st.composite
def mutated(draw: st.DrawFn, document: Any) -> Any:
    """A document with a value, an item or a member's name changed somewhere, taken away or put in."""
    copy = json.loads(json.dumps(document))
    for _ in range(draw(st.integers(1, 3))):
        parent = copy
        while True:
            inner = list(parent.values() if isinstance(parent, dict) else parent)
            further = [each for each in inner if isinstance(each, dict | list) and each]
            if not further or not draw(st.integers(0, 3)):
                break
            parent = draw(st.sampled_from(further))
        if isinstance(parent, dict):
            if not parent:
                continue
            name = draw(st.sampled_from(sorted(parent)))
            what = draw(st.sampled_from(["put", "drop", "case", "add", "swap"]))
            if what == "put":
                parent[name] = draw(VALUES)
            elif what == "drop":
                del parent[name]
            elif what == "case":
                spelled = draw(
                    st.sampled_from([name.upper(), name.lower(), name.capitalize(), name.replace("s", "\u017f")])
                )
                parent[spelled] = parent.pop(name)
            elif what == "add":
                parent[draw(st.text(max_size=4))] = draw(VALUES)
            else:
                parent[name] = parent[draw(st.sampled_from(sorted(parent)))]
        elif parent:
            index = draw(st.integers(0, len(parent) - 1))
            parent[index] = draw(st.one_of(VALUES, st.sampled_from(parent)))
    return copy


@pytest.mark.parametrize("name", VALID)
@examples(60)
@given(data=st.data())
def test_what_the_acceptor_takes_of_a_changed_document_is_valid(name: str, data: st.DataObject) -> None:
    document = data.draw(mutated(VALID[name]))
    if takes(document, name):
        assert judge.violations(document, name) == []


@pytest.mark.parametrize("schema", ["config-used", "config"])
@examples(250)
@given(data=st.data())
def test_what_the_acceptor_takes_of_an_engines_changed_config_is_valid(schema: str, data: st.DataObject) -> None:
    _, document = config(data.draw(st.sampled_from(CONFIGS)))
    document = data.draw(mutated(document))
    if takes(document, schema):
        assert judge.violations(document, schema) == []


# Schemas made up, with documents that may fit them

NAMES = st.sampled_from(["a", "A", "a\0", "b", "type", "é", "k", "K", "\u212a"])
# Of a schema. None has a name with NUL, which test_schemas holds: of two names that are alike up to it, the judge
# refuses the other, and the acceptor need not know that.
PROPERTIES = NAMES.filter(lambda name: "\0" not in name)
ITEMS: st.SearchStrategy[Any] = st.sampled_from([None, True, False, 0, 1, -1, 1.0, 2, "", "a", "b", "/a", "A", [], {}])
DOCUMENTS = st.recursive(ITEMS, lambda each: st.lists(each, max_size=3) | st.dictionaries(NAMES, each, max_size=3))
TYPES = ["object", "array", "string", "integer", "number", "boolean", "null"]


def keywords(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A schema of some of the keywords that the acceptor knows, and of some that it does not."""
    sizes = st.integers(0, 2)
    names = st.lists(NAMES, max_size=2, unique=True)
    return st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(TYPES) | st.lists(st.sampled_from(TYPES), min_size=1, max_size=2, unique=True),
            "enum": st.lists(ITEMS, min_size=1, max_size=3),
            "const": ITEMS,
            "minimum": st.integers(-1, 2),
            "maximum": st.integers(-1, 2),
            "minLength": sizes,
            "maxLength": sizes,
            "minItems": sizes,
            "maxItems": sizes,
            "uniqueItems": st.booleans(),
            "uniqueBy": NAMES,
            "pattern": st.sampled_from(["^a$", "^/[^\\u0000]*$", "b"]),
            "required": names,
            "dependentRequired": st.dictionaries(NAMES, names, max_size=2),
            "properties": st.dictionaries(PROPERTIES, inner, max_size=3),
            "additionalProperties": st.booleans() | inner,
            "propertyNames": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "not": inner,
            "if": inner,
            "then": inner,
            "else": inner,
            "title": st.just("a title"),
            "$ref": st.sampled_from(["#/$defs/one", "#/$defs/two"]),
        },
    )


SCHEMAS = st.recursive(st.sampled_from(TYPES).map(lambda name: {"type": name}) | st.just({}), keywords, max_leaves=6)


@examples(400)
@given(one=SCHEMAS, two=SCHEMAS, top=SCHEMAS, document=DOCUMENTS)
def test_what_the_acceptor_takes_by_any_schema_is_valid(one: Any, two: Any, top: Any, document: Any) -> None:
    assume("$ref" not in json.dumps(two))
    assume("#/$defs/one" not in json.dumps(one))
    schema = {**top, "$defs": {"one": one, "two": two}}
    if acceptor.Acceptor(lambda _: schema).accepts(document, "urn:x"):
        assert list(judge.STRICT(schema).iter_errors(document)) == []


SOME: tuple[Any, ...] = ("a", 1, True, None, 1.5, [], {})
ALONE: list[tuple[str, Any]] = [
    *(("type", name) for name in TYPES),
    *(("enum", [value]) for value in SOME),
    *(("const", value) for value in SOME),
    *((name, size) for name in ("minLength", "maxLength", "minItems", "maxItems") for size in (0, 1, 2)),
    *((name, number) for name in ("minimum", "maximum") for number in (0, 1, 2)),
    *(
        ("uniqueItems", True),
        ("uniqueBy", "a"),
        ("pattern", "^a$"),
        ("required", ["a"]),
        ("dependentRequired", {"a": ["b"]}),
    ),
    *(("properties", {"a": {"type": "integer"}}), ("additionalProperties", {"type": "integer"})),
    *(
        ("propertyNames", {"pattern": "a"}),
        ("items", {"type": "integer"}),
        ("anyOf", [{"type": "null"}, {"minimum": 1}]),
    ),
    *(("not", {"type": "null"}), ("if", {"type": "null"}), ("then", {"type": "null"}), ("else", {"type": "null"})),
]
DOCUMENT_FOR_EACH: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        1,
        2,
        -1,
        0.5,
        1.0,
        1.5,
        2.5,
        "",
        "a",
        "b",
        "aa",
        "aaa",
        [],
        [1],
        [1, 1],
        ["a", "a"],
        ["a"],
    ),
    *([{"a": "x"}, {"a": "x"}], [{"a": "x"}, {"a": "y"}, {}], [{"a": 1}, {"a": 1.0}], [{"a": []}, 1]),
    *(
        [1.0],
        [True],
        [None, 1],
        {},
        {"a": 1},
        {"a": "x"},
        {"A": 1},
        {"a\0b": 1},
        {"b": 1},
        {"b": "x"},
        {"a": 1, "b": 1},
        {"a": 1.0},
    ),
]


@pytest.mark.parametrize(("keyword", "value"), ALONE, ids=repr)
def test_what_the_acceptor_takes_by_one_keyword_is_valid(keyword: str, value: Any) -> None:
    schema = {keyword: value}
    only = acceptor.Acceptor(lambda _: schema)
    taken = [document for document in DOCUMENT_FOR_EACH if only.accepts(document, "urn:x")]
    assert [document for document in taken if list(judge.STRICT(schema).iter_errors(document))] == []


def test_oci_asks_the_acceptor_first_and_then_the_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def violations(document: object, name: str) -> list[tuple[str, str]]:
        asked.append((document, name))
        return [("", "the judge has spoken")]

    monkeypatch.setattr(judge, "violations", violations)
    assert oci.violations(VALID["state"], "state") == []
    assert asked == []
    assert oci.violations({}, "state") == [("", "the judge has spoken")]
    assert asked == [({}, "state")]


def test_a_schema_that_could_not_be_read_is_read_when_it_is_asked_for_again() -> None:
    refusals = [OSError(5, "refused")]

    def load(address: str) -> dict[str, Any]:
        if refusals:
            raise refusals.pop()
        return {"$id": address, "type": "string"}

    found = acceptor.Acceptor(load)
    with pytest.raises(OSError, match="refused"):
        found.accepts("text", "urn:x")
    assert (found.accepts("text", "urn:x"), found.accepts(1, "urn:x")) == (True, False)
