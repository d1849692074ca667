# SPDX-License-Identifier: Apache-2.0
"""The command schema: names, one schema, and one that needs no other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from helpers.schema_tables import REFUSED, VALID, put
from oci_bind_hook import FOLDER, cli
from oci_bind_hook.commands import schemas
from oci_bind_hook.documents import judge
from oci_bind_hook.documents.acceptor import SCHEMAS

Captured = pytest.CaptureFixture[str]


def printed(capfd: Captured, *words: str) -> str:
    assert cli.main(["schema", *words]) == 0
    out, told = capfd.readouterr()
    assert told == ""
    return out


def test_each_has_a_line(capfd: Captured) -> None:
    lines = printed(capfd).splitlines()
    assert [line.split()[0] for line in lines] == list(SCHEMAS)
    title = "The plan: output of `oci-bind-hook explain` and `--dry-run` with --format json"
    assert f"{'plan'.ljust(24)}{title}" in lines


@pytest.mark.parametrize("word", ["plan", "plan.json", "urn:oci-bind-hook:plan"])
def test_one_is_printed_as_its_file_has_it(capfd: Captured, word: str) -> None:
    assert printed(capfd, word) == Path(FOLDER, "schemas/plan.json").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["plam"], 'schema: there is no schema "plam" (did you mean "plan"? oci-bind-hook schema lists all)'),
        (["../plan"], 'schema: there is no schema "../plan" (did you mean "plan"? oci-bind-hook schema lists all)'),
        (["plan", "gc"], "gc: schema prints one at a time"),
        (["--bundled"], "--bundled: the name of a schema is missing (oci-bind-hook schema lists all)"),
    ],
)
def test_wrong_words(capfd: Captured, words: list[str], line: str) -> None:
    assert cli.main(["schema", *words]) == 64
    assert capfd.readouterr() == ("", f"oci-bind-hook: {line}\n")


# -- one document ------------------------------------------------------------------------------------------------------


def keywords(value: Any, keyword: str) -> Iterator[Any]:
    """Each text that stands for a keyword anywhere in a schema; nothing that is the name of a member."""
    if isinstance(value, dict) and isinstance(value.get(keyword), str):
        yield value[keyword]
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from keywords(inner, keyword)


@pytest.mark.parametrize("name", SCHEMAS)
class TestBundled:
    def test_it_leads_nowhere_else(self, capfd: Captured, name: str) -> None:
        document = json.loads(printed(capfd, name, "--bundled"))
        assert document["$id"] == f"urn:oci-bind-hook:{name}"
        assert [*keywords(document, "$id")] == [document["$id"]]
        assert [*keywords(document, "$schema")] == [document["$schema"]]
        assert [*keywords(document, "uniqueBy"), *keywords(document, "$anchor")] == []
        for reference in keywords(document, "$ref"):
            found = document
            assert reference.startswith("#/")
            for step in reference.split("/")[1:]:
                found = found[step]

    def test_a_plain_validator_takes_it_and_what_is_valid_by_it(self, name: str) -> None:
        Draft202012Validator.check_schema(schemas.bundled(name))
        if name in VALID:
            alone = Draft202012Validator(schemas.bundled(name))
            assert [error.message for error in alone.iter_errors(VALID[name])] == []


@pytest.mark.parametrize("name", ["plan", "records", "cdi"])
def test_a_plain_validator_refuses_by_it_alone(name: str) -> None:
    alone = Draft202012Validator(schemas.bundled(name))
    refused = 0
    for value, places in REFUSED[name]:
        document = put(VALID[name], (places.split() or [""])[0], value)
        broken = {error.validator for error in judge.validator(name).iter_errors(document)}
        # Only our own judge knows two spellings of one name, texts that must differ, and that 1.0 is no integer.
        if broken - {"properties", "uniqueBy", "type"}:
            assert not alone.is_valid(document), (places, value)
            refused += 1
    assert refused > 5
