# SPDX-License-Identifier: Apache-2.0
"""Requests of config.json and of the command line together: which of them are binds, and their order."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.requests import GIDS, UIDS, config, from_config, mapped
from oci_bind_hook.errors import RequestError
from oci_bind_hook.mounting.confined import Allowed
from oci_bind_hook.requests import collect


@pytest.mark.parametrize(("option", "recursive"), [("idmap", False), ("ridmap", True)])
def test_idmap_without_ids_is_that_of_the_container(option: str, *, recursive: bool) -> None:
    found = collect.requests(
        config(
            {"destination": "/b", "type": "bind", "source": "/a", "options": ["bind", option]},
            linux={"uidMappings": UIDS, "gidMappings": GIDS},
        ),
        [f"src=/a,dst=/c,{option}"],
    )
    assert [mapped(request) for request in found] == [(((0, 1000, 1),), ((0, 2000, 10),), recursive)] * 2


PLACES = {"config.json: /mounts/0/options": (["bind", "idmap"], []), "--mount 1": (["bind"], ["src=/a,dst=/b,idmap"])}


@pytest.mark.parametrize(("place", "asked"), PLACES.items(), ids=PLACES)
def test_idmap_without_ids_needs_a_user_namespace(place: str, asked: tuple[list[str], list[str]]) -> None:
    options, arguments = asked
    mount = {"destination": "/b", "type": "bind", "source": "/a", "options": options}
    with pytest.raises(RequestError) as raised:
        collect.requests(config(mount), arguments)
    assert str(raised.value) == (
        f"{place}: idmap has no ids, and the container has no user namespace to take them from "
        "(for example idmap=uids=0-1000-1;gids=0-1000-1)"
    )


KINDS = {
    "type bind, option bind": ({"type": "bind", "options": ["bind"]}, "bind"),
    "type bind, no option": ({"type": "bind", "options": []}, "bind"),
    "type none, option bind": ({"type": "none", "options": ["bind"]}, "bind"),
    "type none, option rbind": ({"type": "none", "options": ["ro", "rbind"]}, "bind"),
    "any type, option bind": ({"type": "ext4", "options": ["bind"]}, "bind"),
    "no type, option bind": ({"type": None, "options": ["bind"]}, "bind"),
    "tmpfs": ({"type": "tmpfs", "options": ["nosuid", "mode=755"]}, "tmpfs"),
    "no type, no option": ({"type": None, "options": []}, "none"),
    "remount of a bind": ({"type": "bind", "options": ["bind", "remount", "ro"]}, "remount"),
    "remount of a tmpfs": ({"type": "tmpfs", "options": ["remount", "ro"]}, "remount"),
}


@pytest.mark.parametrize(("members", "kind"), KINDS.values(), ids=KINDS)
def test_what_is_a_bind(members: dict[str, Any], kind: str) -> None:
    request = from_config(**members)
    assert (request.type, request.is_bind) == (kind, kind == "bind")
    if kind != "bind":
        assert (request.top, request.deep, request.warnings) == ({}, {}, [])


def test_type_bind_without_option_is_warned_of() -> None:
    assert from_config("ro").warnings == [
        'the type is "bind", but the options contain neither bind nor rbind: runtimes reject this'
    ]


def test_relative_destination_is_warned_of() -> None:
    request = from_config("bind", destination="b/c")
    assert request.warnings == [
        "the destination is relative, which runtime-spec deprecates; it is read as relative to /"
    ]


def test_relative_source_is_as_it_was_given() -> None:
    assert from_config("bind", source="folder/../a").source == "folder/../a"


@pytest.mark.parametrize("source", [None, ""], ids=["absent", "empty"])
def test_bind_without_source_is_refused(source: str | None) -> None:
    with pytest.raises(RequestError) as raised:
        from_config("bind", source=source)
    assert str(raised.value) == "config.json: /mounts/0/source: a bind requires a source"


def test_mount_that_is_no_bind_needs_no_source() -> None:
    assert from_config(type="tmpfs", source=None).source == ""


def test_order_origins_and_places() -> None:
    found = collect.requests(
        config(
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/x", "type": "bind", "source": "/a", "options": ["bind"]},
        ),
        ["type=bind,src=/c,dst=/x/y", "src=/d,dst=/z"],
    )
    assert [(each.origin, each.at("destination"), each.destination, each.is_from_mounts) for each in found] == [
        ("config.json#/mounts/0", "config.json: /mounts/0/destination", "/proc", True),
        ("config.json#/mounts/1", "config.json: /mounts/1/destination", "/x", True),
        ("--mount 1", "--mount 1", "/x/y", False),
        ("--mount 2", "--mount 2", "/z", False),
    ]
    assert [each.origin_kind for each in found] == ["mounts", "mounts", "argument", "argument"]


def test_what_an_annotation_asks_for_comes_last() -> None:
    key = f"{collect.ANNOTATION}models"
    found = collect.requests(config(annotations={key: "src=/a/b,dst=/x"}), ["src=/c,dst=/y"], Allowed(["/a"]))
    place = f"config.json: /annotations/{key}"
    assert [(each.origin, each.place, each.origin_kind) for each in found] == [
        ("--mount 1", "--mount 1", "argument"),
        (f"config.json#/annotations/{key}", place, "annotation"),
    ]
    assert (found[1].at("source"), found[1].is_from_mounts, found[1].is_root) == (place, False, False)


def test_the_read_only_root_is_a_bind_of_its_own_kind() -> None:
    request = collect.read_only_root("/bundle/rootfs")
    assert (request.origin, request.origin_kind) == ("config.json#/root", "root")
    assert (request.is_root, request.is_from_mounts, request.is_bind) == (True, False, True)
