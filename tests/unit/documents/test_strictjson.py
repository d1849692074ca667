# SPDX-License-Identifier: Apache-2.0
"""JSON that two readers would understand differently is refused, with its place; all else is read."""

from __future__ import annotations

import gc
import json
import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook.documents import strictjson
from oci_bind_hook.errors import DataError


def refusal(data: bytes, most: int = 1) -> tuple[tuple[str, str], ...]:
    """The violations for which ``data`` is refused as JSON."""
    with pytest.raises(DataError) as caught:
        strictjson.documents(data, "config.json", most)
    assert caught.value.exit_code == os.EX_DATAERR
    assert str(caught.value).startswith("config.json")
    assert str(caught.value).isprintable()
    return caught.value.violations


# Bytes that are no strict JSON, and the message: a place in the text is part of it.
NOT_JSON = {
    "empty": (b"", "is empty"),
    "blank": (b" \n\t\r", "is empty"),
    "bom": (b"\xef\xbb\xbf{}", "byte order mark"),
    "utf-16-bom": ("{}".encode("utf-16"), "UTF-16"),
    "utf-16-le": ("{}".encode("utf-16-le"), "UTF-16"),
    "utf-16-be": ("{}".encode("utf-16-be"), "UTF-16"),
    "utf-32": ("{}".encode("utf-32-be"), "UTF-16 or UTF-32"),
    "invalid-utf-8": (b'{"a": "b\xff"}', "not UTF-8 at byte offset 8"),
    "utf-8-surrogate": (b'["\xed\xa0\x80"]', "not UTF-8 at byte offset 2"),
    "overlong-nul": (b'["\xc0\x80"]', "not UTF-8 at byte offset 2"),
    "too-large": (b" " * (strictjson.MAX_BYTES + 1), "larger than 16 MiB"),
    "word": (b"banana", "Expecting value: line 1 column 1"),
    "cut-off": (b'{"a":\n [1', "line 2 column 4"),
    "trailing-garbage": (b'{}\n {"b": 1}', "Text after the end of the document: line 2 column 2"),
    "trailing-garbage-close": (b"{}x", "Text after the end of the document: line 1 column 3"),
    "trailing-nul": (b'{"a": 1}\0', "Text after the end of the document: line 1 column 9"),
    "comment": (b'{\n /* c */ "a": 1}', "line 2 column 2"),
    "line-comment": (b"// c\n{}", "line 1 column 1"),
    "trailing-comma": (b"[1,]", "line 1 column"),
    "single-quotes": (b"{'a': 1}", "line 1 column 2"),
    "leading-zero": (b"[01]", "line 1 column 3"),
    "control-character": (b'["a\nb"]', "line 1 column 4"),
    "bad-escape": (b'["\\x"]', "line 1 column 3"),
    "form-feed": (b"\x0c{}", "line 1 column 1"),
    "arrays-too-deep": (b"[" * 100_000, "Nested deeper than 200 levels: line 1 column 201"),
    "objects-too-deep": (b'{"a":\n' * 100_000, "Nested deeper than 200 levels: line 201 column 1"),
    "closed-too-deep": (b"[" * 201 + b"]" * 201, "Nested deeper than 200 levels: line 1 column 201"),
    "deep-after-strings": (b'["]]\\"]","\\\\",' + b"[" * 200, "Nested deeper than 200 levels: line 1 column 214"),
}


# JSON whose values cannot be accepted, and where.
REFUSED = {
    "twice": ('{"a": 1, "a": 1}', "/a"),
    "twice-below": ('{"root": {"path": "A", "path": "B"}}', "/root/path"),
    "twice-root-merged": ('{"root": {"path": "A"}, "root": {}}', "/root"),
    "twice-in-array": ('{"mounts": [{}, {"source": 1, "x": 0, "source": 2}]}', "/mounts/1/source"),
    "twice-in-disguise": ('{"path": 1, "p\\u0061th": 2}', "/path"),
    "nan": ('{"x": NaN}', "/x"),
    "infinity": ("[[0, Infinity]]", "/0/1"),
    "minus-infinity": ("-Infinity", ""),
    "float-overflow": ('{"a": {"b": 1e400}}', "/a/b"),
    "float-negative-overflow": ('{"a": -1e400}', "/a"),
    "long-integer": ('{"pid": ' + "9" * 5000 + "}", "/pid"),
    "long-negative": ("[-" + "9" * 5000 + "]", "/0"),
    "65-bits": (f'{{"unknown": [{{"x": {2**64}}}]}}', "/unknown/0/x"),
    "65-bits-negative": (f'{{"linux": {{"unknown": {-(2**63) - 1}}}}}', "/linux/unknown"),
    "surrogate": ('{"a": "\\ud800"}', "/a"),
    "surrogate-low": ('["x", "\\uDC2F"]', "/1"),
    "surrogate-in-name": ('{"a": {"\\udcff": 1}}', "/a/\\udcff"),
    "escaped-pointer": ('{"a/b~c\\n": NaN}', "/a~1b~0c\\x0a"),
}


class TestStrictJson:
    @pytest.mark.parametrize("name", NOT_JSON)
    def test_text_is_refused(self, name: str) -> None:
        data, expected = NOT_JSON[name]
        [(pointer, message)] = refusal(data)
        assert pointer == ""
        assert expected in message

    @pytest.mark.parametrize("name", REFUSED)
    def test_values_are_refused_at_their_place(self, name: str) -> None:
        text, expected = REFUSED[name]
        [(pointer, message)] = refusal(text.encode())
        assert pointer == expected
        assert len(message) < 100

    def test_all_are_collected_in_order(self) -> None:
        found = refusal(b'{"b": [' + b"0, " * 9 + b'NaN, 1, 1e999], "a": {"x": 1, "x": 2}}')
        assert [pointer for pointer, _ in found] == ["/a/x", "/b/9", "/b/11"]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("{}", {}),
            (' \r\n\t["a"]\n', ["a"]),
            ("0", 0),
            ("-1", -1),
            ("1.5e3", 1500.0),
            ('"\\ud83d\\ude00\\u00e9"', "\U0001f600\u00e9"),
            ('"\\\\ud800"', "\\ud800"),
            ('"\u00e9\u20ac"', "\u00e9\u20ac"),
            (str(2**64 - 1), 2**64 - 1),
            (str(-(2**63)), -(2**63)),
            ("1234567890123456789", 1234567890123456789),
            ('{"Root": 1, "root": 2}', {"Root": 1, "root": 2}),
        ],
    )
    def test_accepted(self, text: str, value: object) -> None:
        assert strictjson.documents(text.encode(), "x") == [value]

    def test_the_depth_that_is_allowed(self) -> None:
        text = '{"a":' * 100 + "[" * 100 + '"[[["' + "]" * 100 + "}" * 100
        assert strictjson.documents(text.encode(), "x") == [json.loads(text)]

    def test_many_brackets_are_not_depth(self) -> None:
        text = json.dumps([[{"a": "[{"}, {"b": '\\"['}]] * 500)
        assert strictjson.documents(text.encode(), "x") == [json.loads(text)]

    def test_many_deep_ones_take_no_longer_than_to_decode_them(self) -> None:
        text = "[" + ("[" * 198 + "]" * 198 + ",") * 5000 + "0]"
        gc.disable()
        try:
            start = time.process_time()
            json.loads(text)
            alone = time.process_time() - start
        finally:
            gc.enable()
        start = time.process_time()
        strictjson.documents(text.encode(), "x")
        assert time.process_time() - start < 5 * alone

    @pytest.mark.parametrize("text", ["[" * 300, '"' + "[" * 300, '["' + "[" * 300 + '"', "]" * 300 + "[" * 201])
    def test_brackets_that_are_left_open(self, text: str) -> None:
        assert len(refusal(text.encode())) == 1

    def test_of_very_many_faults_some_are_told(self) -> None:
        found = refusal(b"[" + b"NaN," * 1000 + b"0]")
        assert [pointer for pointer, _ in found] == [f"/{index}" for index in range(1000)]
        found = refusal(b"[" + b"NaN," * 5000 + b"0]")
        assert [pointer for pointer, _ in found] == [*(f"/{index}" for index in range(1000)), ""]
        assert found[-1][1] == "has more errors than the 1000 listed"

    def test_a_long_name_is_cut_before_it_is_escaped(self) -> None:
        [(pointer, _)] = refusal(b'{"' + b"a" * 199 + b'~b": NaN}')
        assert pointer == "/" + "a" * 199 + "~0..."

    def test_depth_holds_with_little_stack_left(self) -> None:
        def deeper(levels: int) -> list[object]:
            return deeper(levels - 1) if levels else strictjson.documents(b"[" * 200 + b"]" * 200, "x")

        assert len(deeper(500)) == 1

    def test_the_size_that_is_allowed(self) -> None:
        assert strictjson.documents(b"{}".ljust(strictjson.MAX_BYTES), "x") == [{}]

    @given(some.recursive(some.none() | some.booleans() | some.integers(-(2**63), 2**64 - 1) | some.text(), some.lists))
    def test_what_json_writes_is_read(self, value: object) -> None:
        assert strictjson.documents(json.dumps(value).encode(), "x") == [value]

    @given(some.binary(max_size=40) | some.text('[]{}",:0eE-\\ud8 \n', max_size=40).map(str.encode))
    def test_anything_is_read_or_refused(self, data: bytes) -> None:
        try:
            accepted = len(strictjson.documents(data, "x", 2))
        except DataError as error:
            accepted = len(error.violations) if str(error).isprintable() else 0
        assert accepted > 0


class TestTwoDocuments:
    def test_state_and_config(self) -> None:
        assert strictjson.documents(b'{"a": 1}\n{"b": 2}\n', "stdin", most=2) == [{"a": 1}, {"b": 2}]

    def test_one_is_enough(self) -> None:
        assert strictjson.documents(b"{} \n", "stdin", most=2) == [{}]

    @pytest.mark.parametrize(("data", "place"), [(b"{} {}\n{}", "line 2 column 1"), (b"{}{}{}", "line 1 column 5")])
    def test_not_three(self, data: bytes, place: str) -> None:
        [(_, message)] = refusal(data, 2)
        assert place in message

    def test_a_fault_in_the_second(self) -> None:
        assert refusal(b'[1] {"a": 1, "a": 2}', 2) == (
            ("/a", "appears twice; runtimes disagree about which one applies"),
        )
