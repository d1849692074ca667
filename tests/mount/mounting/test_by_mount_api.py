# SPDX-License-Identifier: Apache-2.0
"""Detached trees: which attributes and which propagation a bind really has, and what can be a source."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers.mounting import (
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_SHARED,
    MS_UNBINDABLE,
    Bench,
    bind,
    line,
    mount,
    mount_points,
    propagate,
    remount,
    request,
    tags,
    tmpfs,
    umount,
)
from oci_bind_hook.commands.explain.facts import attributes_of, describe
from oci_bind_hook.errors import KernelError, LeftoverError

if TYPE_CHECKING:
    from collections.abc import Callable

FLAGS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "noatime": 0x400, "nodiratime": 0x800, "relatime": 0x1000}
FLAGS["nosymfollow"] = 0x2000
CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x20000

pytestmark = pytest.mark.kernel(5, 12)


def words(path: str | int) -> set[str]:
    """The attributes of the mount at ``path``, as statvfs(3) tells them."""
    flags = os.statvfs(path).f_flag
    return {word for word, bit in FLAGS.items() if flags & bit}


@pytest.fixture
def volume(bench: Bench) -> str:
    """A source that is a mount with a mount below it, and things in both that attributes forbid to use."""
    volume = tmpfs(f"{bench.path}/volume")
    for folder in (volume, tmpfs(f"{volume}/sub")):
        os.mknod(f"{folder}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.symlink("null", f"{folder}/link")
        shutil.copy("/bin/true", f"{folder}/true")
    return volume


ATTRIBUTES = [
    ((), "relatime"),
    (("ro",), "ro relatime"),
    (("ro", "rw"), "relatime"),
    (("nosuid", "nodev", "noexec"), "nosuid nodev noexec relatime"),
    (("noatime",), "noatime"),
    (("strictatime",), ""),
    (("strictatime", "nodiratime"), "nodiratime"),
    (("noatime", "relatime"), "relatime"),
    (("noatime", "atime"), "relatime"),
    (("nosymfollow",), "nosymfollow relatime"),
]


@pytest.mark.parametrize(("options", "expected"), ATTRIBUTES, ids=[",".join(row[0]) or "-" for row in ATTRIBUTES])
def test_attributes_are_those_asked_for(bench: Bench, volume: str, options: tuple[str, ...], expected: str) -> None:
    plan = bench.plan(request(volume, "/mnt", *options))
    said = describe(plan)[0]["attributes"]
    bench.attach(plan)
    assert words(bench.inside("/mnt")) == set(expected.split())
    assert isinstance(said, list)
    assert set(said) - {"strictatime"} == set(expected.split())
    assert words(volume) == {"relatime"}


KEPT = [
    ((), "nosuid nodev noexec noatime"),
    (("ro",), "ro nosuid nodev noexec noatime"),
    (("suid", "exec"), "nodev noatime"),
    (("dev", "relatime"), "nosuid noexec relatime"),
    (("strictatime", "ro"), "ro nosuid nodev noexec"),
]


@pytest.mark.parametrize(("options", "expected"), KEPT, ids=[",".join(row[0]) or "-" for row in KEPT])
def test_attributes_not_asked_for_are_kept_from_the_source(
    bench: Bench, volume: str, options: tuple[str, ...], expected: str
) -> None:
    remount(volume, MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME)
    plan = bench.plan(request(volume, "/mnt", *options))
    assert set(str(word) for word in attributes_of(plan.binds[0].source)) - {"strictatime"} == set(expected.split())
    bench.attach(plan)
    assert words(bench.inside("/mnt")) == set(expected.split())


def test_a_read_only_source_can_be_asked_for_writable(bench: Bench, volume: str) -> None:
    remount(volume, MS_RDONLY)
    os.mkdir(bench.inside("/two"))
    bench.mount(request(volume, "/mnt", "rw"), request(volume, "/two"))
    os.mkdir(bench.inside("/mnt/written"))
    with pytest.raises(OSError, match="Read-only"):
        os.mkdir(bench.inside("/two/another"))


def use(what: str, folder: str) -> None:
    """Does what one attribute forbids. OSError where it is forbidden."""
    if what == "ro":
        os.close(os.open(f"{folder}/new", os.O_CREAT | os.O_WRONLY, 0o600))
    elif what == "noexec":
        subprocess.run([f"{folder}/true"], check=True)
    elif what == "nodev":
        os.close(os.open(f"{folder}/null", os.O_RDONLY))
    else:
        os.close(os.open(f"{folder}/link", os.O_PATH))


EFFECTS = {"ro": errno.EROFS, "noexec": errno.EACCES, "nodev": errno.EACCES, "nosymfollow": errno.ELOOP}


@pytest.mark.parametrize(("what", "number"), EFFECTS.items(), ids=list(EFFECTS))
@pytest.mark.parametrize("deep", [False, True], ids=["top", "deep"])
def test_attributes_have_their_effect_on_the_top_or_on_all(
    bench: Bench, volume: str, what: str, number: int, deep: bool
) -> None:
    bench.mount(request(volume, "/mnt", "rbind", f"r{what}" if deep else what))
    with pytest.raises(OSError, match=os.strerror(number)) as refused:
        use(what, bench.inside("/mnt"))
    assert refused.value.errno == number
    if deep:
        with pytest.raises(OSError, match=os.strerror(number)) as refused:
            use(what, bench.inside("/mnt/sub"))
        assert refused.value.errno == number
    else:
        use(what, bench.inside("/mnt/sub"))
    use(what, volume)
    use(what, f"{volume}/sub")


@pytest.mark.parametrize(
    ("options", "top", "sub"),
    [
        (("rro", "rw"), set(), {"ro"}),
        (("rnoexec", "ro"), {"ro", "noexec"}, {"noexec"}),
        (("rro", "rrw", "ro"), {"ro"}, set()),
        (("ro", "rrw"), set(), set()),
    ],
)
def test_the_top_may_differ_from_the_rest(
    bench: Bench, volume: str, options: tuple[str, ...], top: set[str], sub: set[str]
) -> None:
    bench.mount(request(volume, "/mnt", "rbind", *options))
    assert words(bench.inside("/mnt")) == {*top, "relatime"}
    assert words(bench.inside("/mnt/sub")) == {*sub, "relatime"}


def test_bind_takes_the_top_only_and_rbind_all(bench: Bench, volume: str) -> None:
    os.mkdir(bench.inside("/all"))
    bench.mount(request(volume, "/mnt"), request(volume, "/all", "rbind"))
    assert mount_points(bench.rootfs) == ["/all", "/all/sub", "/mnt"]


def test_a_tree_has_its_attributes_before_anybody_can_see_it(bench: Bench, volume: str) -> None:
    plan = bench.plan(request(volume, "/mnt", "rbind", "rro", "rnoexec"))
    tree = plan.binds[0].source.fd
    assert words(tree) == {"ro", "noexec", "relatime"}
    for folder in (f"/proc/self/fd/{tree}", f"/proc/self/fd/{tree}/sub"):
        with pytest.raises(OSError, match="Read-only"):
            use("ro", folder)
    assert mount_points(bench.rootfs) == []


# -- propagation -------------------------------------------------------------------------------------------------------

# word, source shared, parent shared -> tags of the mount and of the mount below it
PROPAGATIONS = [
    ("rprivate", True, False, [], []),
    ("rprivate", True, True, [], []),
    ("rprivate", False, True, [], []),
    ("private", True, False, [], ["shared"]),
    ("rslave", True, False, ["master"], ["master"]),
    ("rslave", True, True, ["master"], ["master"]),
    ("slave", True, False, ["master"], ["shared"]),
    ("slave", False, False, [], []),
    ("rshared", False, False, ["shared"], ["shared"]),
    ("shared", False, False, ["shared"], []),
    ("rshared", True, False, ["shared"], ["shared"]),
    ("runbindable", True, False, ["unbindable"], ["unbindable"]),
    ("unbindable", True, False, ["unbindable"], ["shared"]),
]


@pytest.mark.parametrize(("word", "source", "parent", "top", "sub"), PROPAGATIONS)
def test_propagation(
    bench: Bench, volume: str, word: str, source: bool, parent: bool, top: list[str], sub: list[str]
) -> None:
    for path in (volume, f"{volume}/sub"):
        propagate(path, MS_SHARED if source else MS_PRIVATE)
    bind(bench.rootfs, bench.rootfs)
    propagate(bench.rootfs, MS_SHARED if parent else MS_PRIVATE)
    bench.attach(bench.plan(request(volume, "/mnt", "rbind", word), allow_shared=True))
    assert tags(bench.inside("/mnt")) == top
    assert tags(bench.inside("/mnt/sub")) == sub


# -- sources of all kinds ----------------------------------------------------------------------------------------------


def make_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)


KINDS: dict[str, tuple[Callable[[str], object], Callable[[int], bool]]] = {
    "file": (lambda path: os.close(os.open(path, os.O_CREAT)), stat.S_ISREG),
    "fifo": (os.mkfifo, stat.S_ISFIFO),
    "socket": (make_socket, stat.S_ISSOCK),
    "device": (lambda path: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3)), stat.S_ISCHR),
    # One that cannot be opened, because nothing drives it.
    "dead-device": (lambda path: os.mknod(path, stat.S_IFBLK | 0o666, os.makedev(511, 9)), stat.S_ISBLK),
    "link": (lambda path: os.symlink("word", path), stat.S_ISREG),
}


@pytest.mark.parametrize("destination", ["/file", "/etc/new"], ids=["on-a-file", "on-nothing"])
@pytest.mark.parametrize(("make", "is_kind"), KINDS.values(), ids=list(KINDS))
def test_a_source_is_never_opened_for_reading(
    bench: Bench, make: Callable[[str], object], is_kind: Callable[[int], bool], destination: str
) -> None:
    # To read from the FIFO would wait for a writer until the test's time is up.
    source = f"{bench.source}/thing"
    make(source)
    record = bench.mount(request(source, destination, "ro"))
    assert is_kind(os.lstat(bench.inside(destination)).st_mode)
    bench.undo(record)
    assert mount_points(bench.rootfs) == []
    assert stat.S_ISREG(os.lstat(bench.inside("/file")).st_mode)


@pytest.mark.parametrize("config", [False, True], ids=["argument", "config"])
def test_an_unbindable_source_is_an_error_that_says_so(bench: Bench, volume: str, config: bool) -> None:
    propagate(volume, MS_UNBINDABLE)
    bench.kind = "runtime"
    with pytest.raises(KernelError, match=r"open_tree .*/volume: Invalid argument") as refused:
        raise bench.plan(request(volume, "/mnt", config=config)).problems[0]
    assert refused.value.hint == "it is unbindable, or it has locked mounts below it, which require rbind"
    assert refused.value.where == ("config.json: /mounts/0/source" if config else "--mount 1")


def test_an_unbindable_source_that_is_mounted_already_is_no_error(bench: Bench, volume: str) -> None:
    bind(volume, bench.inside("/mnt"))
    propagate(volume, MS_UNBINDABLE)
    plan = bench.plan(request(volume, "/mnt", config=True))
    assert [bind.action for bind in plan.binds] == ["present"]
    assert plan.problems == []


def enter_user_namespace() -> None:
    """Becomes root of a user namespace, where all mounts that were there before are locked."""
    assert ctypes.CDLL(None).unshare(CLONE_NEWUSER | CLONE_NEWNS) == 0
    for name, text in (("uid_map", "0 0 1"), ("setgroups", "deny"), ("gid_map", "0 0 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
            file.write(text)


def test_in_a_user_namespace(bench: Bench, volume: str) -> None:
    remount(volume, MS_NOSUID | MS_NODEV)
    enter_user_namespace()
    with pytest.raises(KernelError, match="Invalid argument") as refused:
        bench.plan(request(volume, "/mnt"))
    assert "it has locked mounts below it, which require rbind" in refused.value.hint
    with pytest.raises(KernelError, match=r"mount_setattr .*/volume: Operation not permitted") as refused:
        bench.plan(request(volume, "/mnt", "rbind", "suid"))
    assert refused.value.hint == "the source was mounted outside this user namespace, which locks nosuid"
    record = bench.mount(request(volume, "/mnt", "rbind", "ro"))
    assert words(bench.inside("/mnt")) == {"ro", "nosuid", "nodev", "relatime"}
    bench.undo(record)
    assert mount_points(bench.rootfs) == []


# -- identity ----------------------------------------------------------------------------------------------------------


def below(path: str) -> set[int]:
    return {line(f"{path}{name}").id for name in mount_points(path)} | {line(path).id}


def test_the_ids_of_all_mounts_of_a_tree_are_known_before_it_is_attached(bench: Bench, volume: str) -> None:
    tmpfs(f"{volume}/sub/sub")
    tmpfs(f"{volume}/other place")
    os.mkdir(f"{volume}/plain")
    bind(f"{volume}/plain", f"{volume}/plain")
    record = bench.mount(request(volume, "/mnt", "rbind"), request(f"{volume}/sub", "/etc", "rbind"))
    intent = bench.saved[0]
    known = [{entry["id"] for entry in mount["attached"]} for mount in intent["mounts"]]
    assert known == [below(bench.inside("/mnt")), below(bench.inside("/etc"))]
    assert [len(ids) for ids in known] == [5, 2]
    assert intent["mounts"] == record["mounts"]
    told = [(entry["root"], entry["source"], entry["type"]) for entry in intent["mounts"][0]["attached"]]
    assert sorted(told) == sorted([*[("/", "tmpfs", "tmpfs")] * 4, ("/plain", "tmpfs", "tmpfs")])


@pytest.mark.kernel(6, 8)
def test_each_mount_of_a_tree_has_a_unique_id(bench: Bench, volume: str) -> None:
    tmpfs(f"{volume}/sub/sub")
    record = bench.mount(request(volume, "/mnt", "rbind"), request(f"{volume}/sub", "/etc", "rbind"))
    assert bench.saved[0]["mounts"] == record["mounts"]
    uniques = [entry["unique"] for mount in record["mounts"] for entry in mount["attached"]]
    assert len(uniques) == 5
    assert len(set(uniques)) == len(uniques)
    assert None not in uniques


@pytest.mark.parametrize("hidden", ["sub", "sub/sub"], ids=["stacked", "below-another"])
def test_a_submount_that_another_one_hides_is_known_by_its_looks(bench: Bench, volume: str, hidden: str) -> None:
    plain = tmpfs(f"{volume}/{hidden}") if hidden != "sub" else f"{volume}/sub"
    tmpfs(f"{volume}/sub")
    record = bench.mount(request(volume, "/mnt", "rbind"))
    before = mount_points(bench.rootfs)
    assert before == sorted(["/mnt", "/mnt/sub", "/mnt/sub", *(["/mnt/sub/sub"] if plain.endswith("sub/sub") else [])])
    # The kernel shows it to nobody until the tree is attached.
    ids = [entry["id"] for entry in bench.saved[0]["mounts"][0]["attached"]]
    assert len(ids) == len(before)
    assert ids.count(None) == len(before) - 2
    bench.undo(record)
    assert mount_points(bench.rootfs) == []
    assert len(mount_points(volume)) == len(before) - 1


@pytest.mark.parametrize("hidden", [False, True], ids=["seen", "hidden"])
def test_what_took_the_place_of_a_submount_is_somebody_elses(bench: Bench, volume: str, hidden: bool) -> None:
    if hidden:
        tmpfs(f"{volume}/sub")
    record = bench.mount(request(volume, "/mnt", "rbind"))
    for _ in range(2 if hidden else 1):
        umount(bench.inside("/mnt/sub"))
    # It may well get the number that has become free.
    mount("other", bench.inside("/mnt/sub"), "tmpfs")
    with pytest.raises(LeftoverError, match="another process mounted something on"):
        bench.undo(record)
    assert mount_points(bench.rootfs) == ["/mnt", "/mnt/sub"]
    umount(bench.inside("/mnt/sub"))
    bench.undo(record)
    assert mount_points(bench.rootfs) == []


@pytest.mark.parametrize("name", ["", "/in", "/in/word"])
def test_the_root_of_a_mount_is_told_as_mountinfo_tells_it(bench: Bench, volume: str, name: str) -> None:
    os.mkdir(f"{volume}/in")
    with open(f"{volume}/in/word", "w", encoding="utf-8"):
        pass
    destination = "/file" if name.endswith("word") else "/mnt"
    record = bench.mount(request(volume + name, destination))
    attached = record["mounts"][0]["attached"]
    info = line(bench.inside(destination))
    told = [(entry["id"], entry["root"], entry["type"]) for entry in attached]
    assert told == [(info.id, info.root, info.type)]
