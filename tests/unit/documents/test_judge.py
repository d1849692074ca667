# SPDX-License-Identifier: Apache-2.0
"""What the bundled schemas accept and refuse: every constraint has a document that it alone refuses."""

from __future__ import annotations

import functools
import json
import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from referencing.exceptions import Unresolvable

from helpers import config_tables, schema_tables
from helpers.schema_tables import GONE, below, put
from oci_bind_hook.documents import acceptor, judge, oci

if TYPE_CHECKING:
    from collections.abc import Iterator

    Steps = tuple[Any, ...]

VALID: dict[str, Any] = schema_tables.VALID | config_tables.ROOMS | {"config": config_tables.WHOLE}
ALSO_VALID = schema_tables.ALSO_VALID + config_tables.ALSO_VALID
REFUSED: dict[str, list[tuple[Any, str]]] = (
    schema_tables.REFUSED
    | config_tables.REFUSED
    | {
        "config": [
            (GONE, "/ociVersion /root"),
            (1, "/ociVersion /root /mounts /hooks /annotations /hostname /domainname " + config_tables.OTHERS),
            (1, below("/linux", "namespaces uidMappings gidMappings rootfsPropagation resources seccomp")),
            (1, "/annotations/a"),
            (schema_tables.NUL, "/hostname /domainname /annotations/a"),
            *[
                (text, "/ociVersion")
                for text in ("", "1", "1.0", "v1.0.2", "1.0.02", "1.0.2-", "1.0.2\n", "1.0.2-a..b")
            ],
            ([], ""),
        ]
    }
)
ROWS = [(name, value, places.split() or [""]) for name, groups in REFUSED.items() for value, places in groups]

# Rows whose error is elsewhere, or whose words matter; with the pointer and the message.
TOLD: list[tuple[str, str, Any, str, str]] = [
    ("config-process", "/user", {"gid": 0}, "/user/uid", "is missing, and required unless username is present"),
    ("config-process", "/user", {"uid": 0}, "/user/gid", "is missing, and required unless username is present"),
    (
        "config-process",
        "/cwd",
        "x",
        "/cwd",
        'must be an absolute path without NUL characters (a Windows path if it begins with a drive), not "x"',
    ),
    ("config-process", "/env/1", "A", "/env/1", 'must be NAME=VALUE, not "A"'),
    (
        "config-process",
        "/capabilities/ambient/0",
        "CHOWN",
        "/capabilities/ambient/0",
        'must be a capability such as CAP_CHOWN, not "CHOWN"',
    ),
    (
        "config-process",
        "/rlimits/0/hard",
        2**64,
        "/rlimits/0/hard",
        "must be at most 18446744073709551615, not 18446744073709551616",
    ),
    ("config-process", "/oomScoreAdj", -1001, "/oomScoreAdj", "must be at least -1000, not -1001"),
    ("config-process", "/args", [], "/args", "must have at least 1 item"),
    ("config-process", "/user/uid", 1.0, "/user/uid", "must be of type integer, not 1.0"),
    ("config-process", "/user/uid", None, "/user/uid", "must be of type integer, not null"),
    (
        "config-process",
        "/ioPriority/class",
        "RT",
        "/ioPriority/class",
        'must be "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE" or "IOPRIO_CLASS_IDLE", not "RT"',
    ),
    ("config-linux", "/devices/0/major", GONE, "/devices/0/major", "is missing"),
    ("config-linux", "/devices/1", {"type": "b", "path": "/d", "major": 1}, "/devices/1/minor", "is missing"),
    ("config-linux", "/devices/1", {"type": "u", "path": "/d", "minor": 1}, "/devices/1/major", "is missing"),
    (
        "config-linux",
        "/sysctl/a\0b",
        "1",
        "/sysctl/a\\x00b",
        'has a name that must be text without NUL characters, and not empty, not "a\\x00b"',
    ),
    (
        "config-linux",
        "/netDevices/" + "a" * 16,
        {},
        "/netDevices/" + "a" * 16,
        f'has a name that must have at most 15 characters, but is "{"a" * 16}"',
    ),
    (
        "config-linux",
        "/intelRdt/memBwSchema",
        "L3",
        "/intelRdt/memBwSchema",
        'must be one line that begins with MB:, not "L3"',
    ),
    (
        "config-linux-resources",
        "/rdma/mlx5_1",
        {},
        "/rdma/mlx5_1/hcaHandles",
        "is missing, and required unless hcaObjects is present",
    ),
    (
        "config-linux-resources",
        "/unified/a~1b",
        "1",
        "/unified/a~1b",
        'has a name that must be the name of a file, without a slash or NUL characters, not "a/b"',
    ),
    (
        "config-linux-resources",
        "/cpu/cpus",
        "0-",
        "/cpu/cpus",
        'must be a list of numbers and ranges such as 0-3,8, not "0-"',
    ),
    (
        "config-seccomp",
        "/architectures/0",
        "x86",
        "/architectures/0",
        'must be an architecture of libseccomp such as SCMP_ARCH_X86_64, not "x86"',
    ),
    ("config-seccomp", "/listenerPath", GONE, "/listenerPath", "is missing, but required with listenerMetadata"),
    ("config-vm", "", config_tables.SPELLED_BY_GO | {"hwconfig": 1}, "/hwconfig", "must be of type object, not 1"),
    (
        "config-vm",
        "/hwconfig",
        {},
        "/hwconfig",
        'must not appear together with "hwConfig": some runtimes treat both as the same name',
    ),
    (
        "config",
        "/Process",
        {},
        "/Process",
        'must be spelled "process": some runtimes accept it as it is, others ignore it',
    ),
    ("config", "/linux/seccomp/syscalls/0/names", [], "/linux/seccomp/syscalls/0/names", "must have at least 1 item"),
    ("config", "/linux/resources/memory/limit", -2, "/linux/resources/memory/limit", "must be at least -1, not -2"),
    ("hooks-d-old", "", {"hook": "/bin/true"}, "/stages", "is missing, and required unless stage is present"),
    (
        "hooks-d",
        "/when",
        {},
        "/when/always",
        "is missing, and required unless annotations, commands or hasBindMounts is present",
    ),
    ("hooks-d", "/when", {"annotation": {}, "commands": []}, "/when/annotation", "is not a known member"),
    (
        "config",
        "/annotations/a\0b",
        "1",
        "/annotations/a\\x00b",
        'has a name that must be text without NUL characters, and not empty, not "a\\x00b"',
    ),
    ("state", "/annotations/a", "b\0c", "/annotations/a", 'must be text without NUL characters, not "b\\x00c"'),
    (
        "config-used",
        "/linux/namespaces/1/type",
        "mount",
        "/linux/namespaces/1/type",
        'must not repeat "mount"; runtimes disagree about which one applies',
    ),
    ("config", "/ociVersion", "1.0", "/ociVersion", 'must be a version such as 1.2.0 (semver.org), not "1.0"'),
]


class Constraint(NamedTuple):
    """A constraint, as documents of one schema meet it: the schema path of its errors, and where it is written."""

    route: Steps
    file: str
    place: Steps


def constraints(file: str, place: Steps = (), route: Steps = ()) -> Iterator[Constraint]:
    """Every constraint below ``place`` in a schema file, references followed, but not those to another room."""
    schema = dug(acceptor.schema(file), place)
    for keyword, value in schema.items():
        here, there = (*route, keyword), (*place, keyword)
        if keyword == "$ref":
            if value.endswith("/anything"):
                continue
            yield Constraint(here, file, there)
            address, _, pointer = value.partition("#")
            target = address.removeprefix(acceptor.ADDRESS) if address else file
            if target == file or not target.startswith("config"):
                yield from constraints(target, tuple(pointer.split("/")[1:]), route)
        elif keyword in ("required", "dependentRequired", "anyOf", "then"):
            yield from (Constraint((*route, *steps), file, (*place, *steps)) for steps in _names(keyword, value))
        elif keyword == "properties":
            for name in value:
                if name == "hwconfig":  # hwConfig, which leads to the same, has all the rows
                    yield Constraint((*here, name, "$ref"), file, (*there, name, "$ref"))
                else:
                    yield from constraints(file, (*there, name), (*here, name))
        elif isinstance(value, dict) and keyword in ("items", "additionalProperties", "propertyNames"):
            yield from constraints(file, there, here)
        elif keyword == "type" and ("propertyNames" in route or (isinstance(value, list) and len(value) == 6)):
            pass  # names are text always; and six types are all there are
        elif keyword not in ("$schema", "$id", "$comment", "title", "description", "$defs", "if"):
            yield Constraint(here, file, there)


def _names(keyword: str, value: Any) -> Iterator[Steps]:
    if keyword == "required":
        yield from ((keyword, name) for name in value)
    elif keyword == "then":
        yield from ((keyword, "required", name) for name in value["required"])
    elif keyword == "anyOf":
        yield from ((keyword, index, "required", name) for index, each in enumerate(value) for name in each["required"])
    else:
        yield from ((keyword, name, need) for name, needs in value.items() for need in needs)


def dug(document: Any, place: Steps) -> Any:
    """What is at a place."""
    for step in place:
        document = document[step]
    return document


def tripped(name: str, document: Any) -> set[Steps]:
    """The constraints without any one of which ``document`` would be accepted, by the routes of ``constraints``."""
    found: set[Steps] = set()
    for error in judge.validator(name).iter_errors(document):
        path = tuple(error.absolute_schema_path)
        if error.validator in ("required", "dependentRequired"):
            match = re.match(r"'([\w$]+)' is a (?:required property|dependency of '(\w+)')", error.message)
            assert match
            path += (match[2], match[1]) if match[2] else (match[1],)
            found.add(path)
        elif error.validator == "anyOf":
            for index, each in enumerate(error.validator_value):
                missing = [need for need in each["required"] if need not in error.instance]
                if len(missing) == 1:
                    found.add((*path, index, "required", missing[0]))
        else:
            found.add(path)
    return found


@functools.cache
def seen(name: str) -> dict[Steps, Any]:
    """By the route of each constraint that the rows of a schema trip, a document that does."""
    rows = [(place, value) for each, value, places in ROWS if each == name for place in places]
    rows += [(place, value) for each, place, value, _, _ in TOLD if each == name]
    documents = [put(VALID[name], *row) for row in rows]
    return {route: document for document in documents for route in tripped(name, document)}


def document_for(name: str, constraint: Constraint) -> Any:
    """A document that only this constraint refuses; LookupError. A reference stands for all that it leads to."""
    if constraint.route[-1] != "$ref":
        return seen(name)[constraint.route]
    before = constraint.route[:-1]
    return next(seen(name)[route] for route in seen(name) if route[: len(before)] == before)


def without(schema: dict[str, Any], place: Steps) -> dict[str, Any]:
    """A copy of a schema without one constraint."""
    copy: dict[str, Any] = json.loads(json.dumps(schema))
    *steps, last = place
    holder = dug(copy, tuple(steps))
    if isinstance(holder, list):
        holder.remove(last)
    else:
        del holder[last]
    return copy


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a schema asked for the network")

    monkeypatch.setattr(socket, "socket", refuse)


def meetings(name: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Every value in the valid document of a schema: its place, the schema it meets, the value."""
    yield from _meetings(name, acceptor.schema(name), VALID[name], "")


def _meetings(file: str, schema: dict[str, Any], value: Any, place: str) -> Iterator[tuple[str, dict[str, Any], Any]]:
    if "$ref" in schema:
        address, _, pointer = schema["$ref"].partition("#")
        file = address.removeprefix(acceptor.ADDRESS) if address else file
        yield from _meetings(file, dug(acceptor.schema(file), tuple(pointer.split("/")[1:])), value, place)
        return
    yield place, schema, value
    if isinstance(value, dict):
        for name, member in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            if inner:
                below = name.replace("~", "~0").replace("/", "~1")
                yield from _meetings(file, inner, member, f"{place}/{below}")
    elif isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _meetings(file, schema["items"], item, f"{place}/{index}")


@pytest.mark.usefixtures("no_network")
class TestDocuments:
    @pytest.mark.parametrize("name", VALID)
    def test_valid(self, name: str) -> None:
        assert oci.violations(VALID[name], name) == []

    @pytest.mark.parametrize(
        ("name", "place", "value"),
        ALSO_VALID,
        ids=[f"{name}{place}={value!r:.20}" for name, place, value in ALSO_VALID],
    )
    def test_also_valid(self, name: str, place: str, value: Any) -> None:
        assert oci.violations(put(VALID[name], place, value), name) == []

    @pytest.mark.parametrize(
        ("name", "value", "places"),
        ROWS,
        ids=[f"{name}{places[0]}={'gone' if value is GONE else repr(value)[:20]}" for name, value, places in ROWS],
    )
    def test_refused_at_its_place_and_nowhere_else(self, name: str, value: Any, places: list[str]) -> None:
        for place in places:
            found = oci.violations(put(VALID[name], place, value), name)
            assert [pointer for pointer, _ in found] == [place]
            [(_, message)] = found
            assert re.match(r"(must|is|has) [ -~]{5,500}$", message), "no sentence on one line"
            assert "^" not in message, "a pattern is not for people"

    @pytest.mark.parametrize(("name", "place", "value", "pointer", "message"), TOLD)
    def test_told(self, name: str, place: str, value: Any, pointer: str, message: str) -> None:
        assert oci.violations(put(VALID[name], place, value), name) == [(pointer, message)]

    @pytest.mark.parametrize("name", VALID)
    def test_every_constraint_refuses_a_document(self, name: str) -> None:
        assert sorted(str(each) for each in constraints(name) if not _has_document(name, each)) == []

    @pytest.mark.parametrize("file", acceptor.SCHEMAS)
    def test_no_constraint_can_be_dropped(self, file: str, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = {each: acceptor.schema(each) for each in acceptor.SCHEMAS}
        met = {(each.file, each.place): (name, each) for name in VALID for each in constraints(name)}
        documents = {place: (name, document_for(name, each)) for (at, place), (name, each) in met.items() if at == file}
        assert documents, "no schema meets this one"
        for place, (name, document) in documents.items():
            changed = whole | {file: without(whole[file], place)}
            with monkeypatch.context() as patch:
                patch.setattr(judge, "schema", changed.__getitem__)
                patch.setattr(judge, "_validators", {})
                assert judge.violations(document, name) == [], place

    @pytest.mark.parametrize("name", [name for name in VALID if name != "config-linux"])  # that is in "config"
    def test_the_valid_document_has_every_member(self, name: str) -> None:
        missing: dict[frozenset[str], set[str]] = {}
        for _, schema, value in meetings(name):
            if properties := frozenset(schema.get("properties", ())):
                missing.setdefault(properties, set(properties)).difference_update(value)
        assert set().union(*missing.values()) <= {"hwconfig"}  # which must not stand beside hwConfig

    @pytest.mark.parametrize("name", [name for name in VALID if name.startswith("config-")])
    def test_every_word_of_a_choice_is_accepted(self, name: str) -> None:
        met = {}
        for place, schema, value in meetings(name):
            if "enum" in schema:
                met[re.sub(r"/\d+", "/0", place)] = set(schema["enum"])
                for word in schema["enum"] if value != "p" else ():  # a pipe has no numbers, other devices have
                    found = oci.violations(put(VALID[name], place, word), name)
                    found = [one for one in found if "must not repeat" not in one[1]]  # another item has that word
                    assert found == [], f"{place}: {word}"
        assert met == config_tables.CHOICES[name]

    @pytest.mark.parametrize("name", [name for name in VALID if name.startswith("config-")])
    def test_every_name_in_other_letter_case_is_refused(self, name: str) -> None:
        for place, schema, value in meetings(name):
            for member in value if "properties" in schema else ():
                if member in schema["properties"]:
                    other = {each.swapcase() if each == member else each: value[each] for each in value}
                    found = oci.violations(put(VALID[name], place, other), name)
                    pointers = {pointer for pointer, message in found if not message.startswith("is missing")}
                    assert pointers == {f"{place}/{member.swapcase()}"}

    def test_rooms_are_as_strict_in_the_whole_as_alone(self) -> None:
        whole = json.loads(json.dumps(VALID["config"]))
        real, misspelled = [], []
        for place, schema, value in list(meetings("config")):
            if type(value) is int:
                whole = put(whole, place, float(value))
                real.append(place)
            elif isinstance(value, dict) and value and schema.get("properties", {}).keys() >= value.keys():
                whole = put(whole, f"{place}/{next(iter(value)).swapcase()}", 0)
                misspelled.append(f"{place}/{next(iter(value)).swapcase()}")
        found = oci.config_violations(whole)
        assert sorted(place for place, message in found if message.startswith("must be of type")) == sorted(real)
        assert sorted(place for place, message in found if message.startswith("must be spelled")) == sorted(misspelled)
        assert (len(real) > 80, len(misspelled) > 40) == (True, True)

    def test_all_are_collected_in_the_order_of_the_document(self) -> None:
        mount = {"destination": "", "type": 1}
        document = {"mounts": [mount] * 11, "root": {"path": "r", "readonly": 0}, "ociVersion": "1.0.0"}
        pointers = [pointer for pointer, _ in oci.violations(document, "config")]
        assert pointers == [
            *[f"/mounts/{index}/{member}" for index in range(11) for member in ("destination", "type")],
            "/root/readonly",
        ]

    def test_nothing_outside_is_fetched(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def elsewhere(_: str) -> dict[str, Any]:
            return {"$schema": "https://json-schema.org/draft/2020-12/schema", "$ref": "http://localhost/schema.json"}

        monkeypatch.setattr(judge, "schema", elsewhere)
        monkeypatch.setattr(judge, "_validators", {})
        with pytest.raises(Unresolvable, match="localhost"):
            oci.violations({}, "state")


def _has_document(name: str, constraint: Constraint) -> bool:
    try:
        document_for(name, constraint)
    except (LookupError, StopIteration):
        return False
    return True
