# SPDX-License-Identifier: Apache-2.0
"""Verdicts in each of their formats, as those read them who are meant."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from jsonschema import Draft202012Validator

from oci_bind_hook.commands.positions import Position
from oci_bind_hook.commands.validate import Verdict, Verdicts, Violation
from oci_bind_hook.commands.verdict_formats import FORMATS
from oci_bind_hook.documents import oci
from oci_bind_hook.errors import MissingError

ODD = "a b,c:d%\nü.json"
FOUND = [
    Verdict("good.json", []),
    Verdict("/b/config.json", [Violation("/root", "is missing", Position(1, 1)), Violation("", "m", Position(12, 3))]),
    Verdict(ODD, [Violation("/a%", "must be 100 %", Position(2, 7))]),
    Verdict("none", [], MissingError("none cannot be opened")),
    Verdict("-", [Violation("/x", "m", Position(4, 5))]),
]


def written(name: str, verdicts: list[Verdict] = FOUND) -> str:
    return "".join(FORMATS[name](verdicts))


def test_text() -> None:
    assert written("text").splitlines() == [
        "/b/config.json:1:1: /root: is missing",
        "/b/config.json:12:3: m",
        "a b,c:d%\\x0aü.json:2:7: /a%: must be 100 %",
        "none cannot be opened",
        "-:4:5: /x: m",
    ]


def test_json() -> None:
    document = json.loads(written("json"))
    assert oci.violations(document, "validation") == []
    assert [(one["name"], one["valid"], len(one["violations"])) for one in document["documents"]] == [
        ("good.json", True, 0),
        ("/b/config.json", False, 2),
        ("a b,c:d%\nü.json", False, 1),
        ("none", False, 0),
        ("-", False, 1),
    ]
    assert document["documents"][1]["violations"][1] == {"pointer": "", "message": "m", "line": 12, "column": 3}
    assert document["documents"][3]["problem"] == "none cannot be opened"


@pytest.mark.parametrize("name", ["json", "sarif"])
def test_nothing_to_tell_is_a_whole_document_too(name: str) -> None:
    document = json.loads(written(name, []))
    assert document.get("documents", document.get("runs", [{}])[0].get("results")) == []


# -- GitHub ------------------------------------------------------------------------------------------------------------


def commands(text: str) -> Iterator[tuple[dict[str, str], str]]:
    """Workflow commands as the runner of GitHub Actions reads them: a comma ends a property, and ``::`` the last."""
    for line in text.splitlines():
        match = re.fullmatch(r"::error ?((?:(?!::).)*)::(.*)", line)
        assert match, line
        properties = dict(each.split("=", 1) for each in match[1].split(",") if each)
        yield {name: _plain(value) for name, value in properties.items()}, _plain(match[2])


def _plain(text: str) -> str:
    for escaped, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(escaped, character)
    return text


def test_github() -> None:
    assert [*commands(written("github"))] == [
        ({"file": "/b/config.json", "line": "1", "col": "1"}, "/root: is missing"),
        ({"file": "/b/config.json", "line": "12", "col": "3"}, "m"),
        ({"file": ODD, "line": "2", "col": "7"}, "/a%: must be 100 %"),
        ({"file": "none"}, "none cannot be opened"),
        ({"line": "4", "col": "5"}, "/x: m"),
    ]


# -- SARIF -------------------------------------------------------------------------------------------------------------


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """The schema of an object of SARIF, with those of its members that are used."""
    return {
        "type": "object",
        "required": required.split(),
        "additionalProperties": False,
        "properties": properties,
    }


def several(items: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": items}


# By the text of the specification, SARIF 2.1.0: 3.13 log, 3.14 run, 3.18 tool, 3.19 driver, 3.49 rule, 3.27 result,
# 3.11 message, 3.28 location, 3.29 physical location, 3.30 region, 3.4 artifact location, 3.33 logical location.
TEXT = {"type": "string", "minLength": 1}
NUMBER = {"type": "integer", "minimum": 1}
RULE = closed("id", id=TEXT, shortDescription=closed("text", text=TEXT))
PLACE = closed(
    "artifactLocation",
    artifactLocation=closed("uri", uri={"type": "string", "pattern": "^[!-~]+$"}),
    region=closed("startLine", startLine=NUMBER, startColumn=NUMBER),
)
MEMBER = closed("", fullyQualifiedName=TEXT)
RESULT = closed(
    "message",
    ruleId=TEXT,
    level={"enum": ["none", "note", "warning", "error"]},
    message=closed("text", text=TEXT),
    locations=several(closed("", physicalLocation=PLACE, logicalLocations=several(MEMBER))),
)
DRIVER = closed("name", name=TEXT, version=TEXT, rules=several(RULE))
RUN = closed(
    "tool",
    tool=closed("driver", driver=DRIVER),
    columnKind={"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
    results=several(RESULT),
)
SARIF = closed(
    "version runs",
    **{"$schema": {"type": "string", "pattern": "^https://.*/sarif-schema-2.1.0.json$"}},
    version={"const": "2.1.0"},
    runs=several(RUN),
)


def test_sarif() -> None:
    document = json.loads(written("sarif"))
    assert [error.message for error in Draft202012Validator(SARIF).iter_errors(document)] == []
    [run] = document["runs"]
    assert {one["ruleId"] for one in run["results"]} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}
    first, _, odd, unread, stdin = run["results"]
    assert first["locations"] == [
        {
            "physicalLocation": {
                "artifactLocation": {"uri": "file:///b/config.json"},
                "region": {"startLine": 1, "startColumn": 1},
            },
            "logicalLocations": [{"fullyQualifiedName": "/root"}],
        }
    ]
    address = urlsplit(odd["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
    assert (address.scheme, unquote(address.path)) == ("", ODD)
    assert unread["locations"] == [{"physicalLocation": {"artifactLocation": {"uri": "none"}}}]
    assert stdin["locations"] == [{"logicalLocations": [{"fullyQualifiedName": "/x"}]}]


# -- one after the other -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_one_document_is_told_before_the_next_is_read(name: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"root": 1}')
    asked: list[str] = []

    def names() -> Iterator[str]:
        for _ in range(3):
            asked.append(str(file))
            yield asked[-1]

    seen = [len(asked) for text in FORMATS[name](Verdicts(names(), bytes)) if "root" in text]
    assert seen[0] == 1
    assert {*seen} == {1, 2, 3}
