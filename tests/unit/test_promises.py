# SPDX-License-Identifier: Apache-2.0
"""What a release has promised is still so. After a release: WRITE=yes .venv/bin/pytest tests/unit/test_promises.py"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import promises
from oci_bind_hook.record import document

TESTS = Path(__file__).resolve().parents[1]
PROMISED = TESTS / "data/promised.json"
PAGE = (TESTS.parent / "docs/COMPATIBILITY.md").read_text(encoding="utf-8")


def broken(promised: Any, now: Any, place: str = "") -> Iterator[str]:
    """Where what was promised is not so any more. What has come since breaks nothing."""
    if isinstance(promised, dict) and isinstance(now, dict):
        for name, inner in promised.items():
            if name in now:
                yield from broken(inner, now[name], f"{place}/{name}")
            else:
                yield f"{place}/{name} is gone"
    elif isinstance(promised, list) and isinstance(now, list) and not place.endswith("/type"):
        yield from (f"{place}: {each} is gone" for each in promised if each not in now)
    elif promised != now:
        yield f"{place} is {now}, and was {promised}"


def test_what_was_promised_is_still_so() -> None:
    now = promises.promised()
    if os.environ.get("WRITE") == "yes":
        # A line for each option and for each member of a document.
        text = re.sub(
            r"\[[^][{}]*\]|\{[^{}]*\"always\"[^{}]*\}",
            lambda match: " ".join(match[0].split()),
            json.dumps(now, indent=1),
        )
        PROMISED.write_text(text + "\n", encoding="utf-8")
    assert [*broken(json.loads(PROMISED.read_text(encoding="utf-8")), now)] == []


@pytest.mark.parametrize(
    ("place", "value", "told"),
    [
        (["commands", "gc", "--dry-run"], None, "/commands/gc/--dry-run is gone"),
        (["options", "--log"], "DIR", "/options/--log is DIR, and was FILE"),
        (["options", "--format"], ["text", "json"], "/options/--format: tree is gone"),
        (["exit codes", "66"], None, "/exit codes/66 is gone"),
        (["documents", "plan", "version"], 2, "/documents/plan/version is 2, and was 1"),
        (["documents", "plan", "members", "mounts[].found.path"], None, "mounts[].found.path is gone"),
        (
            ["documents", "gc", "members", "records[].problem.exit", "type"],
            "string",
            "exit/type is string, and was integer",
        ),
        (["documents", "records", "members", "records", "always"], False, "records/always is False, and was True"),
        (["documents", "records", "members", "records[].status", "words"], ["alive"], "status/words: dead is gone"),
        (["documents", "records", "members", "records[].init", "type"], ["object"], "was ['object', 'null']"),
        (["fields of --mount"], ["src"], "/fields of --mount: ro is gone"),
        (["state files"], [2], "/state files: 1 is gone"),
    ],
)
def test_what_breaks_a_promise_is_found(place: list[str], value: Any, told: str) -> None:
    now = json.loads(json.dumps(promises.promised()))
    *steps, last = place
    inside = now
    for step in steps:
        inside = inside[step]
    if value is None:
        del inside[last]
    else:
        inside[last] = value
    assert any(line.endswith(told) for line in broken(promises.promised(), now))


@pytest.mark.parametrize("version", promises.promised()["state files"])
def test_a_state_file_of_each_version_is_read(version: int) -> None:
    path = TESTS / f"data/state-files/{version}.json"
    assert json.loads(path.read_bytes())["version"] == version
    assert document.read(path.read_bytes(), str(path))["mounts"]


def test_each_test_that_is_said_to_hold_a_promise_is_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", PAGE)
    assert len(named) >= 8
    for path, name in named:
        text = (TESTS.parent / path).read_text(encoding="utf-8")
        assert f"def {name or 'test_'}" in text, (path, name)
