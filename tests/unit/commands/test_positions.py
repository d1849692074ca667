# SPDX-License-Identifier: Apache-2.0
"""Where in a text the places of a document are."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers.work import check_growth, opcodes
from oci_bind_hook.commands.positions import Position, positions
from oci_bind_hook.documents.strictjson import documents, shortened, step

TEXT = """\
{"ociVersion": "1.2.0",
 "root": {},
  "mounts": [ {"a/b~": 1}
  , "é", 5],
\t"x": [[], [2]], "n": {"n": {"n": 1}}, "\\n": 1e400,
 "y": 1, "y": {"z": "]}\\""}
}
"""


@pytest.mark.parametrize(
    ("pointer", "line", "column"),
    [
        ("", 1, 1),
        ("/ociVersion", 1, 2),
        ("/root", 2, 2),
        ("/root/path", 2, 2),  # missing: what should have it
        ("/mounts", 3, 3),
        ("/mounts/0", 3, 15),
        ("/mounts/0/a~1b~0", 3, 16),
        ("/mounts/1", 4, 5),
        ("/mounts/2", 4, 10),  # characters, not bytes
        ("/mounts/3", 3, 3),
        ("/x/0", 5, 8),
        ("/x/1/0", 5, 13),
        ("/n/n/n", 5, 30),
        ("/\\x0a", 5, 40),
        ("/y", 6, 10),  # the second of two
        ("/y/z", 6, 16),
        ("/none/of/these", 1, 1),
    ],
)
def test_a_place(pointer: str, line: int, column: int) -> None:
    assert positions(TEXT, [[pointer]]) == [{pointer: Position(line, column)}]


def test_all_at_once_and_in_two_documents() -> None:
    found = positions('{"a": 1}\n\n {"a": 2,\n"b": [3]} ', [["/a", ""], ["/b/0", "", "/a"]])
    assert found == [{"/a": (1, 2), "": (1, 1)}, {"/b/0": (4, 7), "": (3, 2), "/a": (3, 3)}]


def test_a_number_of_more_digits_than_python_takes() -> None:
    assert positions(f'{{"a": {"9" * 5000},\n"b": 1}}', [["/b"]]) == [{"/b": (2, 1)}]


TEXTS = some.text('ab~/é {}[],:"\n\x01', max_size=4)
VALUES = some.recursive(
    some.none() | some.integers() | TEXTS,
    lambda inner: some.lists(inner) | some.dictionaries(TEXTS, inner),
    max_leaves=20,
)


def places(value: Any, pointer: str = "") -> dict[str, Any]:
    """Each place in a document, with its name or, in an array, its value."""
    found: dict[str, Any] = {}
    if isinstance(value, dict):
        for name, each in value.items():
            at = pointer + step(shortened(name))
            found |= {at: name} | places(each, at)
    elif isinstance(value, list):
        for index, each in enumerate(value):
            at = f"{pointer}/{index}"
            found |= {at: each} | places(each, at)
    return found


@given(VALUES, some.sampled_from([None, 1]))
def test_the_text_at_a_place_is_the_name_or_the_item(value: Any, indent: int | None) -> None:
    text = json.dumps([value], indent=indent, ensure_ascii=False)
    wanted = places([value])
    lines = text.split("\n")
    for pointer, (line, column) in positions(text, [wanted])[0].items():
        rest = "\n".join([lines[line - 1][column - 1 :], *lines[line:]])
        assert json.JSONDecoder().raw_decode(rest)[0] == wanted[pointer]


def test_the_work_grows_with_the_text() -> None:
    def work(size: int) -> int:
        text = json.dumps({"a": [{"b": [number]} for number in range(size)]})
        assert documents(text.encode(), "x")
        pointers = [f"/a/{number}/b/0" for number in range(size)]
        return opcodes(lambda: positions(text, [pointers]))

    check_growth(work, 500)
