# SPDX-License-Identifier: Apache-2.0
"""Binds by mount(2), as on kernels without the new mount API: the same mounts, the same way back."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, support
from helpers.mounting import (
    MNT_DETACH,
    MS_NODEV,
    MS_NOSUID,
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
from oci_bind_hook.errors import EscapeError, KernelError, LeftoverError, UnavailableError
from oci_bind_hook.kernel import files, linux
from oci_bind_hook.requests.mount_field import parse_mount
from oci_bind_hook.requests.request import IdMap, Request
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    from oci_bind_hook.mounting.plan import Plan
    from oci_bind_hook.record.state_file import NamespaceKind

OLDER = pytest.mark.usefixtures("older_kernel")


@pytest.fixture
def volume(bench: Bench) -> str:
    """A source that is a mount with mounts below it."""
    volume = tmpfs(f"{bench.path}/volume")
    for folder in ("one", "two", "two/deep"):
        tmpfs(f"{volume}/{folder}")
    return volume


def requests(bench: Bench, volume: str) -> list[Request]:
    """Binds of every shape: a tree, into that tree, a file, mount points to make, one on the other."""
    found = [
        request(volume, "/mnt", "rbind", "rro", "nosuid"),
        request(bench.source, "/mnt/two/deep"),
        request(bench.file, "/mnt/two/deep/word", "ro"),
        request(bench.file, "/new/folder/file", "nodev"),
        request(bench.source, "/etc/../new/other", "rshared"),
    ]
    if bench.kind == "runtime":
        found += [request(file, "/etc/passwd", config=True) for file in (bench.file, f"{bench.source}/word")]
    return found


def seen(bench: Bench) -> list[tuple[str, list[str], str, str]]:
    """What mountinfo says of the mounts in the rootfs, but for their numbers."""
    lines = [fields for fields in map(str.split, support.mounts()) if fields[4].startswith(bench.rootfs)]
    return [(fields[4], sorted(fields[5].split(",")), fields[3], fields[6].partition(":")[0]) for fields in lines]


def is_classic(plan: Plan) -> bool:
    return not any(bind.source.is_detached for bind in plan.binds)


@pytest.mark.parametrize("kind", ["container", "runtime"])
@pytest.mark.parametrize(
    ("lacking", "error"),
    [
        *((call, "ENOSYS") for call in (*kernels.MOUNT_API, "openat2", "statx", "statmount")),
        *((call, "EPERM") for call in ("open_tree", "mount_setattr", "openat2", "statx", "statmount")),
    ],
)
def test_whatever_is_lacking_the_mounts_are_the_same(
    bench: Bench, volume: str, lacking: str, error: str, kind: NamespaceKind
) -> None:
    bench.kind = kind
    is_old = not linux.has_mount_api()
    before = (support.tree(bench.rootfs), support.mounts())
    record = bench.mount(*requests(bench, volume))
    wanted = seen(bench)
    assert len(wanted) == {"container": 8, "runtime": 10}[kind]
    assert bench.undo(record) == []
    kernels.refuse(lacking, error=getattr(errno, error))
    plan = bench.plan(*requests(bench, volume))
    assert is_classic(plan) == (is_old or lacking in kernels.MOUNT_API)
    record = bench.attach(plan)
    assert seen(bench) == wanted
    assert bench.undo(record) == []
    assert (support.tree(bench.rootfs), support.mounts()) == before


@OLDER
def test_no_path_is_looked_up_when_a_mount_point_is_renamed(bench: Bench) -> None:
    os.mkdir(bench.inside("/a"))
    os.symlink("/tmp", bench.inside("/evil"))
    plan = bench.plan(request(bench.source, "/a", "ro"))
    os.rename(bench.inside("/a"), bench.inside("/b"))
    os.rename(bench.inside("/evil"), bench.inside("/a"))
    record = bench.attach(plan)
    assert mount_points(bench.rootfs) == ["/b"]
    assert "ro" in line(bench.inside("/b")).options
    if record["mounts"][0]["attached"][0]["unique"] is None:
        # Then its place is a part of what it is known by.
        with pytest.raises(LeftoverError, match=f"could not undo /a: the mount on {bench.rootfs}/b"):
            bench.undo(record)
        umount(bench.inside("/b"), MNT_DETACH)
    bench.undo(record)
    assert mount_points(bench.rootfs) == []


@OLDER
def test_the_source_stays_what_it_was(bench: Bench, volume: str) -> None:
    remount(volume, MS_NODEV | MS_NOSUID)
    propagate(volume, MS_SHARED)
    before = [fields for fields in support.mounts() if volume in fields]
    record = bench.mount(request(volume, "/mnt", "rbind", "rro", "rprivate"))
    assert [fields for fields in support.mounts() if volume in fields] == before
    assert {"ro", "nodev", "nosuid"} <= set(line(bench.inside("/mnt")).options)
    bench.undo(record)
    assert [fields for fields in support.mounts() if volume in fields] == before


@OLDER
def test_owners_cannot_be_mapped(bench: Bench) -> None:
    wish = request(bench.source, "/mnt")
    wish.idmap = IdMap(((0, 1000, 1),), ((0, 1000, 1),), recursive=False)
    (problem,) = bench.plan(wish).problems
    assert isinstance(problem, UnavailableError)
    assert str(problem) == "--mount 1: this kernel cannot map the owners of a mount"


@OLDER
def test_a_hidden_mount_cannot_be_made_read_only(bench: Bench, volume: str) -> None:
    tmpfs(f"{volume}/two")
    plan = bench.plan(request(volume, "/mnt", "rbind", "rro"))
    assert [type(problem) for problem in plan.problems] == [UnavailableError]
    assert "so this kernel cannot change its attributes" in str(plan.problems[0])
    record = bench.mount(request(volume, "/mnt", "rbind", "ro"))
    assert bench.undo(record) == []
    assert mount_points(bench.rootfs) == []


@OLDER
def test_where_it_may_stay_writable_the_mount_on_top_is_read_only_all_the_same(bench: Bench, volume: str) -> None:
    """docker's bind-recursive=enabled."""
    tmpfs(f"{volume}/two")
    asked = parse_mount(f"src={volume},dst=/mnt,ro,bind-recursive=enabled", "--mount 1", "--mount 1")
    plan = bench.plan(asked, assumed=True)
    assert plan.problems == []
    assert plan.binds[0].warnings == [
        "ro does not apply to the mounts below, which stay writable: one, two; rro includes them"
    ]
    bench.mount(parse_mount(f"src={volume},dst=/mnt,ro,bind-recursive=enabled", "--mount 1", "--mount 1"))
    assert ["ro" in line(bench.inside(path)).options for path in ("/mnt", "/mnt/one")] == [True, False]


@OLDER
def test_an_unbindable_source_is_an_error_that_says_so(bench: Bench, volume: str) -> None:
    propagate(volume, MS_UNBINDABLE)
    before = support.mounts()
    with pytest.raises(KernelError, match=r"mount .*/volume: Invalid argument \(it is unbindable, or"):
        bench.plan(request(bench.source, "/new"), request(volume, "/mnt"))
    assert support.mounts() == before


@OLDER
def test_a_mount_whose_source_was_removed_goes(bench: Bench) -> None:
    record = bench.mount(request(bench.file, "/etc/passwd"))
    os.unlink(bench.file)
    assert bench.undo(record) == []
    assert mount_points(bench.rootfs) == []


@OLDER
def test_a_read_only_root_is_not_unlocked(bench: Bench) -> None:
    bind(bench.rootfs, bench.rootfs)
    remount(bench.rootfs, MS_RDONLY)
    plan = bench.plan(request(bench.source, "/new"), unlock=True)
    with pytest.raises(KernelError, match=r"mkdirat /new: Read-only file system .*register the hook for createRuntime"):
        bench.attach(plan)


# -- what statx(2) would tell ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "file", "link", "device", "fifo", "socket", "mount", "file mount", "root"])
def test_without_statx_the_same_is_known(bench: Bench, kind: str) -> None:
    path = f"{bench.path}/a #\\ th\ri\vn\u2028g"
    if kind in ("folder", "mount"):
        os.mkdir(path)
    elif kind in ("file", "file mount"):
        os.close(os.open(path, os.O_CREAT))
    elif kind == "link":
        os.symlink("x", path)
    elif kind == "device":
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    elif kind == "root":
        path = "/"
    if kind == "mount":
        tmpfs(path)
    if kind == "file mount":
        bind(bench.file, path)
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
    names = [name for name in files.Stat.__slots__ if name != "born"]
    expected = [getattr(files.statx(fd), name) for name in names]
    assert files.statx(fd).mount_root == (kind in ("mount", "file mount", "root"))
    kernels.refuse("statx")
    assert [getattr(files.statx(fd), name) for name in names] == expected
    assert files.statx(fd).born is None
    assert files.unique_mount_id(fd) is None


@pytest.mark.parametrize("link", ["root", "cwd", "exe", "fd/0", "ns/mnt", "task/../root"])
def test_without_openat2_a_magic_link_is_refused(bench: Bench, link: str) -> None:
    kernels.refuse("openat2")
    with pytest.raises(EscapeError, match="is a magic link of procfs, which may lead out of the rootfs"):
        Rootfs(bench.path).resolve(f"{proc(bench)}/self/{link}")


@pytest.mark.parametrize("link", ["self", "mounts", "thread-self/fd"])
def test_without_openat2_the_ordinary_links_of_procfs_are_followed(bench: Bench, link: str) -> None:
    kernels.refuse("openat2")
    assert Rootfs(bench.path).resolve(f"{proc(bench)}/{link}").last.exists


def proc(bench: Bench) -> str:
    """A procfs below the bench."""
    os.mkdir(f"{bench.path}/proc")
    mount("proc", f"{bench.path}/proc", "proc")
    return "/proc"


@OLDER
@pytest.mark.parametrize("first", [True, False])
def test_of_the_copies_on_a_shared_mount_the_right_one_is_known(bench: Bench, *, first: bool) -> None:
    """Each peer of the mount point's mount gets a copy, as read-only as ours."""
    one, two = bench.inside("/shared"), f"{bench.path}/peer"
    os.mkdir(one)
    os.mkdir(two)
    made_first, bound = (one, two) if first else (two, one)
    propagate(tmpfs(made_first), MS_SHARED)
    os.mkdir(f"{made_first}/here")
    bind(made_first, bound)
    bench.kind = "runtime"
    record = bench.mount(request(bench.source, "/shared/here", "ro"))
    assert "ro" in line(bench.inside("/shared/here")).options
    assert "ro" in line(f"{bench.path}/peer/here").options
    assert tags(bench.inside("/shared/here")) == []
    assert bench.undo(record) == []
    assert mount_points(bench.path).count("/peer/here") == 0


def test_what_nothing_tells_from_others_is_left_standing(bench: Bench) -> None:
    """On overlayfs numbers mean nothing, and before Linux 4.11 there is no time of birth either."""
    kernels.play("before 4.11")
    for name in ("lower", "upper", "work"):
        os.mkdir(f"{bench.path}/{name}")
    data = f"lowerdir={bench.path}/lower,upperdir={bench.path}/upper,workdir={bench.path}/work"
    mount("overlay", bench.rootfs, "overlay", data=data)
    record = bench.mount(request(bench.source, "/new/folder"))
    why = "is kept: this file system provides nothing to identify it by"
    assert bench.undo(record) == [f"/new/folder {why}", f"/new {why}"]
    assert mount_points(bench.rootfs) == []
