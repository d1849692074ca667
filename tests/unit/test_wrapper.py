# SPDX-License-Identifier: Apache-2.0
"""Hooks added to the text of a config.json: whatever else is in it stays as it was written."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from oci_bind_hook.wrapper import with_hooks

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
STAGES = st.sampled_from(["prestart", "createRuntime", "poststop"])
ENTRIES = st.lists(
    st.fixed_dictionaries({"path": TEXT}, optional={"timeout": st.integers(1, 99), "more": VALUES}), max_size=2
)
HOOKS = st.dictionaries(STAGES, ENTRIES | st.none(), max_size=3)
DOCUMENTS = st.tuples(st.dictionaries(TEXT, VALUES, max_size=4), st.none() | HOOKS)
OURS: dict[str, list[object]] = {
    "createRuntime": [{"path": "/ours", "args": ["a", "é\n\\"]}],
    "poststop": [{"path": "/ours"}],
}
# How it may be written: each gives the same document.
WRITTEN: list[dict[str, Any]] = [{}, {"indent": 1}, {"ensure_ascii": False}, {"separators": (" ,\t", "\r\n: ")}]


def pairs(members: list[tuple[str, object]]) -> object:
    """An object with the order of its members, and numbers as they are written."""
    return ("object", tuple(members))


def read(text: str) -> Any:
    return json.loads(text, parse_int=str, parse_float=str, object_pairs_hook=pairs)


@given(DOCUMENTS, st.sampled_from(WRITTEN))
def test_all_else_stays_as_it_is_written(drawn: tuple[dict[str, object], dict[str, Any] | None], how: Any) -> None:
    document, hooks = drawn
    document = {name: value for name, value in document.items() if name != "hooks"}
    whole = {**document, "hooks": hooks} if hooks is not None else document
    text = json.dumps(whole, **how)
    changed = with_hooks(text, hooks, OURS)
    assert with_hooks(changed, json.loads(changed)["hooks"], OURS) == changed
    before, after = read(text)[1], read(changed)[1]
    assert [member for member in after if member[0] != "hooks"] == [member for member in before if member[0] != "hooks"]
    known, theirs = dict(dict(before)["hooks"][1]) if hooks else {}, hooks or {}
    now = json.loads(changed)["hooks"]
    for stage, entries in dict(after)["hooks"][1]:
        if stage not in OURS:
            assert entries == known[stage]
            continue
        assert (entries or [])[: len(known.get(stage) or [])] == (known.get(stage) or [])
        there = theirs.get(stage) or []
        assert now[stage] == there + [entry for entry in OURS[stage] if entry not in there]
