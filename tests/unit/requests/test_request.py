# SPDX-License-Identifier: Apache-2.0
"""What is asked for: each option word of runtime-spec's table, and the normal form of a request in config.json."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers.requests import GIDS, UIDS, from_config, mapped
from oci_bind_hook.documents import oci
from oci_bind_hook.requests.request import Request

TOP: dict[str, tuple[str, bool | str]] = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "nosuid": ("nosuid", True),
    "suid": ("nosuid", False),
    "nodev": ("nodev", True),
    "dev": ("nodev", False),
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "nodiratime": ("nodiratime", True),
    "diratime": ("nodiratime", False),
    "nosymfollow": ("nosymfollow", True),
    "symfollow": ("nosymfollow", False),
    "noatime": ("atime", "noatime"),
    "atime": ("atime", "relatime"),
    "relatime": ("atime", "relatime"),
    "norelatime": ("atime", "relatime"),
    "strictatime": ("atime", "strictatime"),
    "nostrictatime": ("atime", "relatime"),
}
DEEP = {f"r{option}": meaning for option, meaning in TOP.items()}
PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
SUPERBLOCK = (
    *("sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime", "iversion", "noiversion"),
    *("acl", "noacl", "tmpcopyup"),
)
ENGINES = {
    "z": "relabels the source for SELinux",
    "Z": "relabels the source for SELinux",
    "U": "changes the owner of the source",
    "relabel=shared": "relabels the source for SELinux",
}
SILENT = ("defaults", "silent", "loud", "consistency=cached")
UNKNOWN = ("foo", "", "RO", " ro", "size=10m", "rsync", "rrro", "bind=1", "r", "\x1b[2J", "no\nline")


# Option words


@pytest.mark.parametrize(("option", "meaning"), TOP.items())
def test_option_for_the_top_mount(option: str, meaning: tuple[str, bool | str]) -> None:
    request = from_config("bind", option)
    assert (request.top, request.deep, request.warnings) == (dict([meaning]), {}, [])


@pytest.mark.parametrize(("option", "meaning"), DEEP.items())
def test_option_for_the_whole_tree(option: str, meaning: tuple[str, bool | str]) -> None:
    request = from_config("rbind", option)
    assert (request.top, request.deep, request.warnings) == ({}, dict([meaning]), [])


@pytest.mark.parametrize("option", PROPAGATIONS)
def test_propagation(option: str) -> None:
    request = from_config("bind", option)
    assert (request.propagation, request.top, request.deep, request.warnings) == (option, {}, {}, [])


@pytest.mark.parametrize(
    ("options", "recursive"), [(("bind",), False), (("rbind",), True), (("rbind", "bind"), False), ((), False)], ids=str
)
def test_recursion_is_what_the_last_word_says(options: tuple[str, ...], *, recursive: bool) -> None:
    request = from_config(*options)
    assert (request.recursive, request.propagation, request.is_bind) == (recursive, "rprivate", True)


def test_crun_s_word_for_a_link_at_the_destination() -> None:
    request = from_config("bind", "dest-nofollow", "ro")
    assert (request.nofollow, request.options, request.warnings) == (True, ("bind", "ro", "nofollow", "rprivate"), [])
    assert from_config("dest-nofollow", type="tmpfs").nofollow
    unknown = from_config("bind", "nofollow")  # --mount's own word
    assert (unknown.nofollow, unknown.warnings) == (
        False,
        ['option "nofollow" is not known to the hook; the runtime decides'],
    )


@pytest.mark.parametrize(
    ("option", "what"),
    [
        ("copy-symlink", "copies a link and mounts nothing"),
        ("src-nofollow", "binds a link itself"),
    ],
)
def test_crun_s_words_that_only_crun_can_do(option: str, what: str) -> None:
    request = from_config("bind", option)
    assert (request.is_bind, request.is_runtimes_alone) == (True, True)
    assert request.warnings == [f'option "{option}" {what}; only the runtime can do that']
    assert not from_config("bind").is_runtimes_alone


@pytest.mark.parametrize("option", SUPERBLOCK)
def test_option_of_a_whole_file_system_is_warned_of(option: str) -> None:
    request = from_config("bind", option)
    assert request.warnings == [f'option "{option}" applies to a whole file system and has no effect on a bind']
    assert request.options == from_config("bind").options


@pytest.mark.parametrize("option", UNKNOWN, ids=ascii)
def test_unknown_option_is_left_to_the_runtime_with_a_warning(option: str) -> None:
    request = from_config("bind", option)
    assert request.warnings == [f'option "{option}" is not known to the hook; the runtime decides']
    assert request.options == from_config("bind").options


@pytest.mark.parametrize(("option", "what"), ENGINES.items())
def test_what_the_engine_must_do_is_warned_of(option: str, what: str) -> None:
    request = from_config("bind", option)
    assert request.warnings == [f'option "{option}" {what}; only the engine can do that']
    assert request.options == from_config("bind").options


@pytest.mark.parametrize("option", SILENT)
def test_option_without_effect(option: str) -> None:
    request = from_config("bind", option)
    assert (request.warnings, request.options) == ([], from_config("bind").options)


@pytest.mark.parametrize(("options", "recursive"), [((), False), (("idmap",), False), (("ridmap",), True)], ids=str)
def test_bind_with_id_mappings(options: tuple[str, ...], *, recursive: bool) -> None:
    request = from_config("bind", *options, uidMappings=UIDS, gidMappings=GIDS)
    assert mapped(request) == (((0, 1000, 1),), ((0, 2000, 10),), recursive)
    mount = request.as_mount()
    assert oci.violations(mount, "bind-request") == []
    assert (mount["uidMappings"], mount["gidMappings"]) == (UIDS, GIDS)
    assert mount["options"] == ["bind", "ridmap" if recursive else "idmap", "rprivate"]


def test_bind_with_empty_id_mappings_is_not_mapped() -> None:
    request = from_config("bind", uidMappings=[], gidMappings=[])
    assert (request.idmap, request.options) == (None, ("bind", "rprivate"))


ORDERS: list[tuple[str, dict[str, object], dict[str, object]]] = [
    ("ro rw", {"ro": False}, {}),
    ("rw ro", {"ro": True}, {}),
    ("nosuid suid", {"nosuid": False}, {}),
    ("suid", {"nosuid": False}, {}),
    ("rro rrw", {}, {"ro": False}),
    ("ro rro", {}, {"ro": True}),
    ("rw rro", {}, {"ro": True}),
    ("rro ro", {}, {"ro": True}),
    ("rro rw ro", {}, {"ro": True}),
    ("rro rw rro", {}, {"ro": True}),
    ("rro rw", {"ro": False}, {"ro": True}),
    ("rro rw rrw", {}, {"ro": False}),
    ("rnosuid nodev", {"nodev": True}, {"nosuid": True}),
    ("noatime relatime", {"atime": "relatime"}, {}),
    ("noatime strictatime", {"atime": "strictatime"}, {}),
    ("strictatime nostrictatime", {"atime": "relatime"}, {}),
    ("noatime rrelatime", {}, {"atime": "relatime"}),
]


@pytest.mark.parametrize(("options", "top", "deep"), ORDERS, ids=[case[0] for case in ORDERS])
def test_last_word_wins(options: str, top: dict[str, object], deep: dict[str, object]) -> None:
    request = from_config("bind", *options.split())
    assert (request.top, request.deep) == (top, deep)


def test_last_propagation_wins() -> None:
    assert from_config("bind", "rshared", "private", "rslave").propagation == "rslave"


# Normal form

NORMAL_FORMS = [
    ("", "bind rprivate"),
    ("bind", "bind rprivate"),
    ("rbind", "rbind rprivate"),
    ("shared rbind ro", "rbind ro shared"),
    ("nosuid bind nodev ro noexec", "bind nodev noexec nosuid ro rprivate"),
    ("bind ro nosuid rro", "bind rro nosuid rprivate"),
    ("bind rro rw", "bind rro rw rprivate"),
    ("bind norelatime", "bind relatime rprivate"),
    ("bind atime", "bind relatime rprivate"),
    ("bind ratime", "bind rrelatime rprivate"),
    ("bind suid dev exec symfollow diratime", "bind dev diratime exec suid symfollow rprivate"),
    ("bind defaults z sync", "bind rprivate"),
]


@pytest.mark.parametrize(("options", "normal"), NORMAL_FORMS)
def test_normal_form(options: str, normal: str) -> None:
    assert from_config(*options.split()).options == tuple(normal.split())


@pytest.mark.parametrize("destination", ["/b", "b", "./b", "../b"])
def test_request_as_a_mount_is_a_valid_bind_request(destination: str) -> None:
    mount = from_config("rbind", "ro", "foo", destination=destination).as_mount()
    assert oci.violations(mount, "bind-request") == []
    assert mount["destination"] == (destination if destination[0] == "/" else f"/{destination}")
    assert (mount["source"], mount["type"], mount["options"]) == ("/a", "bind", ["rbind", "ro", "rprivate"])


WORDS = some.sampled_from(
    [*TOP, *DEEP, *PROPAGATIONS, *SUPERBLOCK, *SILENT, *UNKNOWN, *ENGINES, "bind", "rbind", "idmap", "ridmap"]
)
PATHS = some.text(some.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(some.lists(WORDS | some.text(max_size=8)), PATHS, PATHS)
def test_normal_form_is_valid_and_says_the_same_again(options: list[str], source: str, destination: str) -> None:
    request = Request("o", "p", source, destination, options)
    assert oci.violations(request.as_mount(), "bind-request") == []
    again = Request("o", "p", source, destination, request.options)
    for member in ("top", "deep", "recursive", "propagation", "options"):
        assert getattr(again, member) == getattr(request, member)
    assert again.warnings == []


@given(some.permutations(["rbind", "ro", "rnosuid", "nodev", "noatime", "rslave"]))
def test_order_of_independent_options_makes_no_difference(options: list[str]) -> None:
    assert Request("o", "p", "/a", "/b", options).as_mount() == {
        "destination": "/b",
        "source": "/a",
        "type": "bind",
        "options": ["rbind", "rnosuid", "noatime", "nodev", "ro", "rslave"],
    }
