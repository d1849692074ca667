# SPDX-License-Identifier: Apache-2.0
"""config.json as a whole: what real engines write is accepted, what two readers could take differently is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from helpers import config_tables, schema_tables
from helpers.configs import CONFIGS, config
from helpers.schema_tables import GONE, put
from oci_bind_hook.documents import oci, strictjson
from oci_bind_hook.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

WHOLE = config_tables.WHOLE


class TestEngines:
    @pytest.mark.parametrize("name", CONFIGS)
    def test_what_they_write_is_accepted(self, name: str) -> None:
        _, document = config(name)
        assert oci.config_violations(document) == []
        assert len(oci.config(document).mounts) == len(document["mounts"]) > 0

    @pytest.mark.parametrize("name", CONFIGS)
    def test_nothing_tells_where_it_was_made(self, name: str) -> None:
        data, _ = config(name)
        assert b'"/tmp/' not in data
        assert b'"/root/' not in data
        assert b"://" not in data

    def test_none_is_missing(self) -> None:
        engines = {name.split("-")[0] for name in CONFIGS}
        assert engines == {"runc", "crun", "podman", "buildah", "containerd", "crio", "docker"}
        variants = {name.split("-", 2)[2] for name in CONFIGS if name.startswith("podman")}
        assert {"plain", "device", "privileged", "volumes", "rslave", "rshared", "userns"} <= variants

    @pytest.mark.parametrize(
        ("pointer", "value"),
        [
            ("linux/devices/fileMode", 8630),
            ("linux/rootfsPropagation", "rslave"),
            ("process/rlimits/hard", 2**64 - 1),
        ],
    )
    def test_what_others_refuse_is_really_written(self, pointer: str, value: object) -> None:
        assert any(value in values(config(name)[1], pointer.split("/")) for name in CONFIGS)


def values(document: Any, steps: list[str]) -> Iterator[Any]:
    """Everything at a place, in every item of the arrays on the way."""
    if isinstance(document, list):
        for item in document:
            yield from values(item, steps)
    elif not steps:
        yield document
    elif steps[0] in document:
        yield from values(document[steps[0]], steps[1:])


class TestUsedAndWhole:
    """A normal run looks at what the hook uses; the rest is left to those who ask for it."""

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("/process/cwd", GONE),
            ("/process/user/uid", "0"),
            ("/process/Cwd", "/"),
            ("/Hostname", "a"),
            ("/hostname", None),
            ("/linux/seccomp", None),
            ("/linux/Seccomp", {}),
            ("/linux/resources/unified/", "1"),
            ("/vm", 1),
        ],
    )
    def test_what_is_not_used_is_not_fatal(self, place: str, value: Any) -> None:
        document = put(WHOLE, place, value)
        assert oci.config(document).root_path == WHOLE["root"]["path"]
        assert [pointer for pointer, _ in oci.config_violations(document)] == [place]

    @pytest.mark.parametrize(
        ("place", "value"),
        [
            ("/root/path", ""),
            ("/mounts/0/destination", GONE),
            ("/Mounts", []),
            ("/Process", {}),
            ("/process/Capabilities", {}),
            ("/hooks/prestart/0/timeout", 0),
            ("/annotations/a", None),
            ("/linux/Namespaces", []),
            ("/linux/rootfsPropagation", "x"),
            ("/linux/uidMappings/0/size", 1.0),
        ],
    )
    def test_what_is_used_is_fatal_and_told_the_same(self, place: str, value: Any) -> None:
        document = put(WHOLE, place, value)
        with pytest.raises(DataError) as caught:
            oci.config(document)
        assert list(caught.value.violations) == oci.config_violations(document)
        assert [pointer for pointer, _ in caught.value.violations] == [place]

    def test_whatever_is_fatal_is_in_the_whole_too(self) -> None:
        for value, places in schema_tables.REFUSED["config-used"]:
            for place in places.split():
                document = put(schema_tables.VALID["config-used"], place, value)
                used = oci.violations(document, "config-used")
                assert len(used) == 1, place
                assert used == oci.config_violations(document)


# A member of each room, whose value another reader could take for something else.
MEMBERS = (
    *(
        "process/user/uid",
        "linux/devices/0/major",
        "linux/resources/memory/limit",
        "linux/timeOffsets/boottime/nanosecs",
    ),
    *("linux/seccomp/syscalls/0/args/0/value", "windows/resources/cpu/shares", "vm/hwConfig/vcpus"),
    *("freebsd/jail/enforceStatfs", "zos/devices/0/minor", "linux/resources/rdma/mlx5_1/hcaHandles"),
    *("unknown", "linux/unknown", "process/unknown", "windows/credentialSpec/any"),
)
FREE = ("annotations", "linux/sysctl", "linux/resources/unified")


def text(place: str, value: str) -> str:
    """A config as text with ``value`` at ``place``, which no other member has."""
    return json.dumps(put(WHOLE, f"/{place}", "HERE")).replace('"HERE"', value)


def refusal(data: bytes) -> list[tuple[str, str]]:
    """The violations for which bytes are refused, strict JSON first."""
    try:
        [document] = strictjson.documents(data, "config.json")
    except DataError as error:
        return list(error.violations)
    return oci.config_violations(document)


@pytest.mark.parametrize("place", MEMBERS)
class TestNumbersInEveryRoom:
    @pytest.mark.parametrize("value", [str(2**64), str(-(2**63) - 1), "9" * 400, "NaN", "1e999"])
    def test_too_large(self, place: str, value: str) -> None:
        assert [pointer for pointer, _ in refusal(text(place, value).encode())] == [f"/{place}"]

    @pytest.mark.parametrize("value", ["1.0", "1e0", '"1"', "true", "null"])
    def test_no_integer(self, place: str, value: str) -> None:
        known = "unknown" not in place and "any" not in place
        found = [pointer for pointer, _ in refusal(text(place, value).encode())]
        assert found == ([f"/{place}"] if known else [])

    def test_twice(self, place: str) -> None:
        name = place.rpartition("/")[2]
        twice = text(place, f'1, "{name}": 2')
        assert refusal(twice.encode()) == [(f"/{place}", "appears twice; runtimes disagree about which one applies")]


@pytest.mark.parametrize("place", FREE)
class TestFreeNames:
    def test_they_may_differ_by_letter_case(self, place: str) -> None:
        document = put(put(WHOLE, f"/{place}/a.b", "1"), f"/{place}/A.B", "2")
        assert oci.config_violations(document) == []
        assert oci.config_violations(put(WHOLE, f"/{place}/Limit", "2")) == []

    def test_but_not_be_there_twice(self, place: str) -> None:
        assert [pointer for pointer, _ in refusal(text(f"{place}/x", '"1", "x": "2"').encode())] == [f"/{place}/x"]

    @pytest.mark.parametrize("value", ["null", "1", "{}", '"\\ud800"'])
    def test_and_hold_text_only(self, place: str, value: str) -> None:
        assert [pointer for pointer, _ in refusal(text(f"{place}/x", value).encode())] == [f"/{place}/x"]


TEXT = json.dumps(WHOLE)
BYTES: dict[str, tuple[str | bytes, str]] = {
    "trailing": (TEXT + " {}", "Text after the end of the document"),
    "trailing-nul": (TEXT + "\0", "Text after the end of the document"),
    "comment": (TEXT.replace('"process"', '/* c */ "process"'), "Expecting property name"),
    "utf-16": (TEXT.encode("utf-16"), "is not UTF-8"),
    "utf-16-le": (TEXT.encode("utf-16-le"), "is not UTF-8"),
    "bom": (b"\xef\xbb\xbf" + TEXT.encode(), "byte order mark"),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_strict_json(name: str) -> None:
    data, expected = BYTES[name]
    [(pointer, message)] = refusal(data.encode() if isinstance(data, str) else data)
    assert pointer == ""
    assert expected in message


@pytest.mark.parametrize(
    "place", ["hostname", "process/args/0", "linux/mountLabel", "vm/kernel/parameters/0", "unknown"]
)
def test_half_a_surrogate_pair(place: str) -> None:
    assert refusal(text(place, '"a\\udc00"').encode()) == [(f"/{place}", "contains half a surrogate pair")]
