# SPDX-License-Identifier: Apache-2.0
"""The quick reader against the one that tells what is wrong, and what is written against what is read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import fuzz
from helpers.configs import CONFIGS, config
from helpers.properties import examples
from oci_bind_hook import FOLDER
from oci_bind_hook.documents import strictjson
from oci_bind_hook.errors import DataError

ENGINES = [config(name)[0] for name in CONFIGS]
SEEDS = [data for target in ("config", "record", "state") for _, data in fuzz.seeds(target)]
TELLING = [
    *(b'{"a":1,"a":1}', b'[{"b":{"a":1,"a":1}}]', b"NaN", b"[-Infinity]", b"1e999", b"[-1e999]"),
    *(b'"\\ud800"', b'"\\uDC00"', b'"\\\\ud800"', b'"0000000000000000000000000"', b"01", b"-0"),
    *(b"18446744073709551615", b"18446744073709551616", b"-9223372036854775808", b"-9223372036854775809"),
    *(b"[" * 200 + b"]" * 200, b"[" * 201 + b"]" * 201, b"[" * 2000, b"9" * 5000, b"-" + b"0" * 30),
    *(b"[1] 2", b"[1,]", b"{} {}", b"{}\xff", b"// x\n{}", b"\xef\xbb\xbf{}", b"", b" ", b"tru", b'["a'),
    *(b'{"a":1.0}', b"\t[\r\n]\n"),
]
PIECES = [b"{", b"}", b"[", b"]", b'"', b":", b",", b'"a"', b'"b"', b"1", b"-", b"0", b"\\", b"e9"]


def agree(data: bytes, most: int = 2) -> bool:
    """Whether the quick reader answers; what it answers is the other one's answer."""
    try:
        text = strictjson._text(data, "x").rstrip(strictjson.BLANKS)
    except DataError:
        return False
    quick = strictjson._scan(data, text, most)
    if quick is not None:
        assert repr(quick) == repr(strictjson._decode(text, "x", most))  # 1, 1.0 and true are equal, but not the same
    return quick is not None


@pytest.mark.parametrize("data", ENGINES, ids=CONFIGS)
def test_the_quick_reader_reads_what_engines_write(data: bytes) -> None:
    assert agree(data)


@pytest.mark.parametrize("data", TELLING, ids=repr)
def test_both_agree_about_what_is_telling(data: bytes) -> None:
    is_read = agree(data)
    try:
        strictjson.documents(data, "x", 2)
    except DataError:
        assert not is_read


@examples(1000)
@given(data=st.lists(st.sampled_from(TELLING + PIECES), max_size=8).map(b"".join))
def test_both_agree_about_anything_like_json(data: bytes) -> None:
    agree(data)


@examples(300)
@given(data=st.data())
def test_both_agree_about_a_damaged_document(data: st.DataObject) -> None:
    whole = data.draw(st.sampled_from(SEEDS))
    place = data.draw(st.integers(0, len(whole)))
    put_in = data.draw(
        st.sampled_from([b"", b'"', b"\\", b"{", b"}", b",", b"9" * 20, b"\\ud8", b"NaN", b"\xff", b"\0"])
    )
    agree(whole[:place] + put_in + whole[place + data.draw(st.integers(0, 3)) :])


def test_they_agree_where_json_is_not_loaded() -> None:
    program = """if True:
        import sys
        from oci_bind_hook.documents import strictjson
        told = []
        for line in sys.stdin:
            data = bytes.fromhex(line)
            text = data.decode().rstrip(strictjson.BLANKS)
            for name in [name for name in sys.modules if name.startswith("json")]:
                del sys.modules[name]  # since Python 3.13 _json loads it where it refuses
            told.append(strictjson._scan(data, text, 2) is not None)
        print(told)
    """
    texts = [data for data in TELLING if data.strip() and data.isascii()]
    folder = os.path.dirname(FOLDER)
    told = subprocess.run(
        [sys.executable, "-IS", "-c", f"import sys; sys.path.append({folder!r})\n{program}"],
        input="".join(f"{data.hex()}\n" for data in texts),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert told == f"{[agree(data) for data in texts]}\n"


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text(),
    lambda each: st.lists(each) | st.dictionaries(st.text(), each),
)


@given(value=VALUES)
def test_what_is_written_is_read_again_and_as_json_writes_it(value: Any) -> None:
    written = strictjson.encoded(value)
    assert b"\n" not in written
    assert strictjson.documents(written, "x") == [value]
    assert written == json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


@pytest.mark.parametrize("value", [{"a": {1, 2}}, [b"bytes"]])
def test_what_json_has_not_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        strictjson.encoded(value)


def test_half_a_surrogate_pair_is_not_written() -> None:
    with pytest.raises(UnicodeEncodeError):
        strictjson.encoded({"a": "\ud800"})


class TestAnotherPython:
    """One without the C functions behind json reads and writes the same."""

    @pytest.fixture(autouse=True)
    def _without(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(strictjson, "_json", None)

    def test_it_reads(self) -> None:
        assert not agree(b"{}")
        assert strictjson.documents(b'{"a": [1, "x"]} {}', "x", 2) == [{"a": [1, "x"]}, {}]

    def test_a_later_one_that_asks_for_more_reads(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def make_scanner(context: Any) -> None:
            context.something_new  # noqa: B018 - as _json does it

        monkeypatch.setattr(strictjson, "_json", types.SimpleNamespace(make_scanner=make_scanner))
        assert not agree(b"{}")
        assert strictjson.documents(b"{} {}", "x", 2) == [{}, {}]

    def test_it_writes(self) -> None:
        assert strictjson.encoded({"a": [1, None, "\u00e9"]}) == '{"a":[1,null,"\u00e9"]}'.encode()
