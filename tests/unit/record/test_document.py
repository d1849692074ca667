# SPDX-License-Identifier: Apache-2.0
"""What is written of a record is what is read of it, whatever bytes a path has, and it grows with what was made."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.schema_tables import VALID
from oci_bind_hook.documents.strictjson import MAX_BYTES
from oci_bind_hook.errors import DataError
from oci_bind_hook.record import document

if TYPE_CHECKING:
    from typing import Any

    from oci_bind_hook.record.state_file import Record

FULL = document.read(json.dumps(VALID["state-file"]).encode(), "full")
# Bytes as names: what is not UTF-8 is decoded as Python decodes file names.
NAMES = (
    st.binary(min_size=1, max_size=6)
    .map(lambda name: name.replace(b"\0", b"0").replace(b"/", b"1"))
    .filter(lambda name: name not in (b".", b".."))
    .map(lambda name: name.decode(errors="surrogateescape"))
)
PATHS = st.lists(NAMES, min_size=1, max_size=5).map(lambda names: "/" + "/".join(names))


def closed(paths: list[str]) -> list[str]:
    """The paths and all above them, in the order of a walk."""
    found = {}
    for path in paths:
        names = path.split("/")[1:]
        found.update(dict.fromkeys("/" + "/".join(names[: end + 1]) for end in range(len(names))))
    return [*found]


def with_paths(paths: list[str], made: list[str]) -> Record:
    points = [{**FULL["made"][0], "path": path} for path in made]
    mount = {**FULL["mounts"][0], "resolved": made[-1] if made else "/real/data", "by": "".join(paths)}
    return cast("Record", {**FULL, "uses": closed([*paths, *made]), "made": points, "mounts": [mount]})


@given(st.lists(PATHS, max_size=5), st.lists(PATHS, max_size=5))
def test_what_was_written_can_be_read_back(paths: list[str], made: list[str]) -> None:
    record = with_paths(paths, made)
    data = document.write(record)
    data.decode()
    assert document.read(data, "c1.json") == record
    assert document.read_again(data) == record


def test_it_names_its_schema_and_earlier_files_of_the_version_do_not() -> None:
    data = document.write(FULL)
    assert data.startswith(b'{"$schema":"urn:oci-bind-hook:state-file","version":2,')
    assert "$schema" not in FULL
    earlier = data.replace(b'"$schema":"urn:oci-bind-hook:state-file",', b"")
    assert document.read(earlier, "c1.json") == document.read_again(earlier) == FULL


@given(st.text(st.characters(exclude_categories=["Cs"])), st.binary())
def test_an_escaped_text_is_utf_8_and_has_one_meaning(text: str, name: bytes) -> None:
    for each in (text, name.decode(errors="surrogateescape"), text + "\\" + name.decode(errors="surrogateescape")):
        escaped = document.escape(each)
        escaped.encode()
        assert document.unescape(escaped) == each


@pytest.mark.parametrize(
    ("text", "escaped"), [("/a b", "/a b"), ("/é", "/é"), ("/a\\b", r"/a\\b"), ("/\udcff\udc80x", r"/\xff\x80x")]
)
def test_how_a_text_is_escaped(text: str, escaped: str) -> None:
    assert document.escape(text) == escaped


@pytest.mark.parametrize("text", ["\\", "\\x", "\\xf", "\\x7f", "\\n", "\\u00e9", "a\\\\\\", "\\xgg", "\\x+f"])
def test_what_is_no_escape_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"escape|literal"):
        document.unescape(text)


def changed(**members: object) -> bytes:
    return json.dumps({**cast("dict[str, Any]", VALID["state-file"]), **members}).encode()


@pytest.mark.parametrize(
    ("members", "problem"),
    [
        ({"version": 3}, "/version: is 3, written by a newer oci-bind-hook"),
        ({"version": "2"}, '/version: must be 2, not "2"'),
        ({"uses": [{"in": 1, "name": "real"}]}, "'real' refers to no earlier folder"),
        ({"uses": []}, "a mount point refers to path 2, but there are 0 paths"),
        ({"stage": "a\\b"}, "/stage: must be"),
        ({"bundle": {"path": "/a\\b", "dev": 1, "ino": 1}}, "the backslash before 'b' starts no known escape"),
        ({"uses": [{"in": n, "name": "n" * 4000} for n in range(2)]}, "is longer than 4096 bytes"),
    ],
)
def test_what_makes_no_sense_is_refused(members: dict[str, object], problem: str) -> None:
    with pytest.raises(DataError) as refused:
        document.read(changed(**members), "c1.json")
    assert problem in str(refused.value)
    assert str(refused.value).startswith("c1.json: ")


def test_a_record_grows_with_what_was_made_and_not_with_its_square() -> None:
    def size(depth: int) -> int:
        path = "/\x01" * depth
        return len(document.write(with_paths([path], [path])))

    assert size(2000) - size(1000) == pytest.approx(size(1000) - size(0), rel=0.1)
    assert size(2000) < 200_000


@pytest.mark.parametrize(("name", "size"), [("a", 1), ("\x01", 6), ("\udcff", 5)], ids=["one", "six", "five"])
def test_what_cannot_be_read_back_is_known_before_anything_is_made(name: str, size: int) -> None:
    """Whatever the names take in JSON: one byte, six or five."""
    counts = 100, MAX_BYTES // (200 * size)
    few, many = (with_paths([], [f"/{name * 200}{number}" for number in range(count)]) for count in counts)
    assert not document.is_too_large(few)
    assert document.is_too_large(many)
    with pytest.raises(OverflowError):
        document.write(many)
    assert len(document.write(few)) < MAX_BYTES
