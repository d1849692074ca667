# SPDX-License-Identifier: Apache-2.0
"""Mount points that are made: with which mode, on which file systems, and never where they would outlive us."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.mounting import MS_RDONLY, Bench, asked, bind, mount, mount_points, plant, remount, request, tmpfs, umount
from oci_bind_hook.errors import KernelError, RequestError

if TYPE_CHECKING:
    from oci_bind_hook.record.state_file import Record
    from oci_bind_hook.requests.request import Request

HINT = "create the mount point in the image, or register the hook for createRuntime, not createContainer"


def read_only_root(bench: Bench) -> None:
    """The rootfs as crun before 1.26 leaves it to createContainer: a mount of its own, read-only."""
    bind(bench.rootfs, bench.rootfs)
    remount(bench.rootfs, MS_RDONLY)


def made(record: Record) -> list[tuple[str, str]]:
    return [(entry["path"], entry["filesystem"]) for entry in record["made"]]


@pytest.mark.parametrize("umask", [0o000, 0o022], ids=["000", "022"])
def test_folders_are_0755_and_files_0644_and_empty(bench: Bench, umask: int) -> None:
    os.umask(umask)
    record = bench.mount(request(bench.source, "/new/folder"), request(bench.file, "/new/file"))
    assert made(record) == [("/new", "rootfs"), ("/new/folder", "rootfs"), ("/new/file", "rootfs")]
    bench.undo({**record, "made": []})
    found = {name: entry[:4] for name, entry in support.tree(bench.inside("/new")).items()}
    assert found == {
        ".": ("drwxr-xr-x", 0, 0, 0),
        "folder": ("drwxr-xr-x", 0, 0, 0),
        "file": ("-rw-r--r--", 0, 0, 0),
    }


def test_a_setgid_folder_passes_its_group_on_and_the_way_back_is_found(bench: Bench) -> None:
    os.chown(bench.inside("/etc"), 0, 1234)
    os.chmod(bench.inside("/etc"), 0o2755)
    record = bench.mount(request(bench.source, "/etc/new"))
    assert [entry["identity"] and entry["identity"]["gid"] for entry in record["made"]] == [1234]
    assert bench.undo(record) == []
    assert os.listdir(bench.inside("/etc")) == ["passwd"]


@pytest.mark.parametrize("what", ["folder", "file", "link", "fifo"])
def test_what_somebody_else_makes_at_the_same_moment_is_not_used_and_not_removed(bench: Bench, what: str) -> None:
    plan = bench.plan(request(bench.source, "/new"))
    path = bench.inside("/new")

    def meanwhile() -> None:
        if what == "folder":
            os.mkdir(path)
        elif what == "file":
            plant(bench.rootfs, {"new": b""})
        elif what == "link":
            os.symlink("/etc", path)
        else:
            os.mkfifo(path)

    record = bench.record()
    with pytest.raises(KernelError, match="mkdirat /new: File exists") as refused:
        bench.attach(plan, record, meanwhile)
    assert refused.value.hint == "another process has just created it"
    assert refused.value.where == "--mount 1"
    assert os.path.lexists(path)
    assert (record["mounts"], record["made"]) == ([], [])
    assert mount_points(bench.rootfs) == []


def test_a_folder_that_is_moved_away_meanwhile_keeps_its_mount_point(bench: Bench) -> None:
    plan = bench.plan(request(bench.source, "/etc/new"))
    os.rename(bench.inside("/etc"), bench.inside("/moved"))
    os.symlink(f"{bench.path}/source/sub", bench.inside("/etc"))
    bench.attach(plan)
    assert mount_points(bench.rootfs) == ["/moved/new"]
    assert os.listdir(f"{bench.source}/sub") == []


# -- a read-only root --------------------------------------------------------------------------------------------------


@pytest.mark.kernel(5, 12)
def test_mount_points_are_made_below_a_root_that_stays_read_only(bench: Bench) -> None:
    read_only_root(bench)
    before = support.tree(bench.rootfs)
    requests = [request(bench.source, "/new/folder"), request(bench.file, "/etc/new"), request(bench.file, "/new/x")]
    record = bench.attach(bench.plan(*requests, unlock=True))
    assert mount_points(bench.rootfs) == ["/etc/new", "/new/folder", "/new/x"]
    with pytest.raises(OSError, match="Read-only file system"):
        os.mkdir(bench.inside("/another"))
    # What has been made is the rootfs's own, whichever way one looks at it.
    rootfs = bench.plan(unlock=True).rootfs
    assert bench.undo_in(rootfs, record) == []
    assert support.tree(bench.rootfs) == before


def test_without_leave_to_unlock_it_is_an_error_that_says_what_to_do(bench: Bench) -> None:
    read_only_root(bench)
    with pytest.raises(KernelError, match="mkdirat /new: Read-only file system") as refused:
        bench.attach(bench.plan(request(bench.source, "/new")))
    assert refused.value.hint == HINT
    assert bench.attach(bench.plan(request(bench.source, "/mnt")))["made"] == []


def test_a_file_system_that_is_read_only_itself_is_an_error_too(bench: Bench) -> None:
    tmpfs(bench.rootfs)
    mount("", bench.rootfs, flags=0x20 | MS_RDONLY)
    with pytest.raises(KernelError, match=r"mknodat /new: Read-only file system") as refused:
        bench.attach(bench.plan(request(bench.file, "/new"), unlock=True))
    assert refused.value.hint == HINT


def test_only_the_very_folder_that_was_resolved_is_written_through_the_clone(bench: Bench) -> None:
    bind(bench.rootfs, bench.rootfs)
    os.mkdir(bench.inside("/etc/in"))
    remount(bench.rootfs, MS_RDONLY)
    plan = bench.plan(request(bench.source, "/etc/in/new"), unlock=True)
    remount(bench.rootfs, 0)
    os.rename(bench.inside("/etc"), bench.inside("/moved"))
    plant(bench.rootfs, {"etc": {"in": {}}})
    remount(bench.rootfs, MS_RDONLY)
    before = support.tree(bench.rootfs)
    with pytest.raises(KernelError, match="Read-only file system"):
        bench.attach(plan)
    assert support.tree(bench.rootfs) == before


# -- other mounts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [0, MS_RDONLY], ids=["writable", "read-only"])
@pytest.mark.parametrize("deep", ["", "/sub"], ids=["top", "deep"])
def test_nothing_is_written_into_a_volume(bench: Bench, flags: int, deep: str) -> None:
    bind(bench.source, bench.inside("/mnt"))
    remount(bench.inside("/mnt"), flags)
    before = support.tree(bench.source)
    plan = bench.plan(request(bench.source, f"/mnt{deep}/new/mount"), unlock=True)
    assert [type(problem) for problem in plan.problems] == [RequestError]
    assert support.tree(bench.source) == before


def test_mount_points_are_made_on_a_tmpfs_of_the_containers_own(bench: Bench) -> None:
    bench.own_tmpfs("/mnt")
    record = bench.mount(asked("/mnt"), request(bench.source, "/mnt/new/folder"))
    assert made(record) == [("/mnt/new", "tmpfs"), ("/mnt/new/folder", "tmpfs")]
    assert record["uses"] == ["/mnt"]
    # It dies with the container; while it is there, the way back removes them as all others.
    assert bench.undo(record) == []
    assert os.listdir(bench.inside("/mnt")) == []


def test_but_not_on_one_that_is_read_only(bench: Bench) -> None:
    bench.own_tmpfs("/mnt")
    remount(bench.inside("/mnt"), MS_RDONLY)
    with pytest.raises(KernelError, match="mkdirat /mnt/new: Read-only file system"):
        bench.attach(bench.plan(asked("/mnt"), request(bench.source, "/mnt/new"), unlock=True))


def foreign(bench: Bench, how: str) -> None:
    volume = tmpfs(f"{bench.path}/volume")
    os.makedirs(f"{volume}/part")
    if how == "bind":
        bind(volume, bench.inside("/mnt"))
    elif how == "part":
        bind(f"{volume}/part", bench.inside("/mnt"))
        umount(volume)
    elif how == "host-namespace":
        bench.own_tmpfs("/mnt")
        bench.kind = "runtime"
    else:
        tmpfs(bench.inside("/mnt"))
        if how == "below the bind of the rootfs":
            bind(bench.rootfs, bench.rootfs, recursive=True)


# What config.json asks for where the host has mounted a tmpfs on /mnt.
NOT_ASKED: dict[str, list[Request]] = {
    "nothing": [],
    "elsewhere": [asked("/etc")],
    "above": [asked("/"), asked("/etc")],
    "another type": [asked("/mnt", "sysfs")],
    "remounted": [asked("/mnt", "remount")],
}


@pytest.mark.parametrize("case", NOT_ASKED)
def test_nor_on_one_that_config_json_does_not_ask_for(bench: Bench, case: str) -> None:
    for name in ("/mnt", "/etc"):
        bench.own_tmpfs(name)
    plan = bench.plan(*NOT_ASKED[case], request(bench.source, "/mnt/new"))
    assert [problem.problem for problem in plan.problems] == [
        "the mount point /mnt/new does not exist, and it would be inside another mount, "
        f"the tmpfs on {bench.inside('/mnt')}"
    ]


@pytest.mark.parametrize("how", ["bind", "part", "host-namespace", "below the bind of the rootfs", "no such bind"])
def test_nor_on_one_that_others_see_as_well(bench: Bench, how: str) -> None:
    foreign(bench, how)
    plan = bench.plan(asked("/mnt"), request(bench.source, "/mnt/new"))
    assert [str(problem) for problem in plan.problems] == [
        "--mount 1: the mount point /mnt/new does not exist, and it would be inside another mount, the"
        f" tmpfs on {bench.inside('/mnt')} (create it in the source of that mount)"
    ]


def test_what_was_made_is_a_folder_or_an_empty_file(bench: Bench) -> None:
    plan = bench.plan(request(bench.source, "/new"), request("/dev/null", "/etc/null"))
    for bind_ in plan.binds:
        assert bind_.target
        os.close(plan.rootfs.make(bind_.target))
    assert stat.S_ISDIR(os.lstat(bench.inside("/new")).st_mode)
    assert stat.S_ISREG(os.lstat(bench.inside("/etc/null")).st_mode)
