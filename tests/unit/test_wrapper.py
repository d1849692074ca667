# SPDX-License-Identifier: Apache-2.0
"""What a runtime around another does to the text of config.json, and to nothing else of it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from helpers.properties import examples
from oci_bind_hook.documents import strictjson
from oci_bind_hook.errors import DataError
from oci_bind_hook.wrapper import marks_of, with_hooks

OURS: dict[str, list[object]] = {
    "createRuntime": [{"path": "/é", "args": ["oci-bind-hook", '\\"]},{'], "timeout": 30}],
    "poststop": [{"path": "/é"}],
}


class Written(str):
    """A number as it is written, since another text may be the same number."""

    __slots__ = ()


NUMBERS = some.integers(-(2**63), 2**64 - 1) | some.sampled_from(
    [Written(text) for text in ("1.50", "1E2", "-0", "-0.0", "1e-400", "0.1000")]
)
NAMES = some.text('ab"\\é{', max_size=3)
VALUES = some.recursive(
    some.none() | some.booleans() | NUMBERS | some.text(some.characters(exclude_categories=["Cs"])),
    lambda inner: (
        some.lists(inner, max_size=3) | some.dictionaries(some.text('ab"\\é{', max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)
ENTRIES = some.lists(VALUES | some.sampled_from([entry for entries in OURS.values() for entry in entries]), max_size=3)
HOOKS = some.none() | some.dictionaries(some.sampled_from(["prestart", *OURS]), some.none() | ENTRIES, max_size=3)
CONFIGS = some.fixed_dictionaries({}, optional={"hooks": HOOKS, "a": VALUES, "\u00e9": VALUES, "z": VALUES})


def exactly(text: str) -> Any:
    """A document, with members in their order and numbers as they are written."""
    return json.loads(text, object_pairs_hook=tuple, parse_float=Written, parse_int=Written)


def spelled(value: object, blank: str, *, ascii_only: bool) -> str:
    """The value as JSON: texts that are numbers as they are, with blanks everywhere."""
    if isinstance(value, dict):
        names = (f"{json.dumps(name, ensure_ascii=ascii_only)}{blank}:" for name in value)
        inner = (spelled(member, blank, ascii_only=ascii_only) for member in value.values())
        return f"{blank}{{{blank}{','.join(map(''.join, zip(names, inner, strict=True)))}}}{blank}"
    if isinstance(value, list):
        return f"{blank}[{','.join(spelled(one, blank, ascii_only=ascii_only) for one in value)}{blank}]{blank}"
    if isinstance(value, Written):
        return f"{blank}{value}{blank}"
    return f"{blank}{json.dumps(value, ensure_ascii=ascii_only)}{blank}"


@examples(300)
@given(config=CONFIGS, blank=some.sampled_from(["", " ", "\n\t", "\r\n"]), ascii_only=some.booleans())
@example(config={}, blank="", ascii_only=False)
@example(config={"hooks": None}, blank=" ", ascii_only=False)
@example(config={"hooks": {}, "a": 2**64 - 1}, blank="", ascii_only=True)
@example(config={"hooks": {"poststop": [], "createRuntime": None}}, blank=" ", ascii_only=True)
def test_all_members_stay_as_they_are_and_ours_are_there_once(
    config: dict[str, Any], blank: str, *, ascii_only: bool
) -> None:
    text = spelled(config, blank, ascii_only=ascii_only)
    [document] = strictjson.documents(text.encode(), "config.json")
    assert isinstance(document, dict)
    known = document.get("hooks")
    changed = with_hooks(text, known, OURS)
    strictjson.documents(changed.encode(), "config.json")
    before, after = dict(exactly(text)), dict(exactly(changed))
    hooks, then = dict(after.pop("hooks")), dict(before.pop("hooks", None) or ())
    assert [*before.items()] == [*after.items()]
    for stage in {*hooks, *then}:
        there = list(then.get(stage) or ())
        # Those of others first, and as they are written.
        assert list(hooks[stage] or ())[: len(there)] == there
    read = json.loads(changed)["hooks"]
    for stage, entries in OURS.items():
        had = (known or {}).get(stage) or []
        missing = [entry for entry in entries if entry not in had]
        assert read[stage] == [*had, *missing]
    assert with_hooks(changed, read, OURS) == changed


MARKED: dict[str, Any] = {"path": "/é", "env": ["A=1", "OCI_BIND_HOOK_RUNTIME=models"], "timeout": 30}
WANTED: dict[str, list[object]] = {"createRuntime": [{**MARKED, "args": ["new"]}], "poststop": [MARKED]}


@pytest.mark.parametrize("blank", ["", " ", "\n\t"])
def test_what_the_same_wrapper_added_before_is_replaced(blank: str) -> None:
    others: list[dict[str, Any]] = [{"path": "/a", "timeout": Written("1e2")}, {"path": "/b", "env": ["A=1"]}, {}]
    another = {**MARKED, "env": ["OCI_BIND_HOOK_RUNTIME=models2"]}
    known = {
        "createRuntime": [others[0], MARKED, others[1], another],
        "prestart": [{**MARKED, "timeout": 3}, *others],
        "createContainer": [MARKED],
        "poststop": [MARKED, None],
        "poststart": None,
    }
    text = spelled({"a": 1, "hooks": known}, blank, ascii_only=False)
    read = json.loads(text)["hooks"]
    changed = with_hooks(text, read, WANTED, marks_of(WANTED))
    hooks = dict(dict(exactly(changed))["hooks"])
    was = dict(dict(exactly(text))["hooks"])
    assert hooks["createRuntime"][:3] == [was["createRuntime"][index] for index in (0, 2, 3)]
    assert json.loads(changed)["hooks"] == {
        "createRuntime": [*(read["createRuntime"][index] for index in (0, 2, 3)), *WANTED["createRuntime"]],
        "prestart": read["prestart"][1:],
        "createContainer": [],
        "poststop": [MARKED, None],
        "poststart": None,
    }
    assert with_hooks(changed, json.loads(changed)["hooks"], WANTED, marks_of(WANTED)) == changed
    # And all of them where the container is not meant any more.
    without = json.loads(with_hooks(changed, json.loads(changed)["hooks"], {}, marks_of(WANTED)))["hooks"]
    assert without["createRuntime"] == [read["createRuntime"][index] for index in (0, 2, 3)]
    assert without["poststop"] == [None]


@pytest.mark.parametrize("hooks", [[], "x", 1, True, {"poststop": {}}, {"createRuntime": "x"}], ids=repr)
def test_hooks_of_another_kind_are_told(hooks: object) -> None:
    with pytest.raises(DataError, match="/hooks"):
        with_hooks(json.dumps({"hooks": hooks}), hooks, OURS)
