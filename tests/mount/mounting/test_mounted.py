# SPDX-License-Identifier: Apache-2.0
"""Unmounting what is ours and nothing else, wherever it has been carried and whatever was put in its place."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.mounting import (
    MNT_DETACH,
    MS_MOVE,
    MS_SHARED,
    Bench,
    bind,
    elsewhere,
    fds,
    line,
    mount,
    mount_points,
    plant,
    propagate,
    request,
    tmpfs,
    umount,
)
from oci_bind_hook.errors import LeftoverError
from oci_bind_hook.kernel.mountinfo import MountTable
from oci_bind_hook.kernel.proc import Proc
from oci_bind_hook.mounting import mounted as module
from oci_bind_hook.mounting.undo import tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from oci_bind_hook.kernel.mountinfo import MountInfo
    from oci_bind_hook.record.state_file import AttachedRecord


def attached(bench: Bench, destination: str = "/a/mnt", *options: str, source: str = "") -> list[AttachedRecord]:
    """Mounts a source and returns the record of its mounts; the mount points are not to be undone."""
    requests = [request(source or bench.source, destination, *options)]
    return bench.attach(bench.plan(*requests, allow_shared=True))["mounts"][0]["attached"]


def detach(
    bench: Bench,
    mounts: Sequence[AttachedRecord],
    path: str = "/a/mnt",
    claimed: Callable[[MountInfo], bool] = lambda _: False,
) -> None:
    """Detaches one tree, or raises why it cannot be."""
    tree = module.Tree(mounts, path, places=[bench.inside(path)], claimed=claimed)
    module.detach([tree], bench.proc)
    if tree.problem is not None:
        raise tree.problem


def everywhere() -> list[str]:
    return mount_points("")


NAMES = [
    "a b",
    "a\nb",
    "a\tb",
    "a\rb",
    "a\vb",
    "a\x1cb",
    "a\x85b",
    "a\u2028b",
    "a\\b",
    "a\\040b",
    "#a",
    "a,b",
    "caf\xe9",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_name(bench: Bench, name: str) -> None:
    before = everywhere()
    mounts = attached(bench, f"/{name}/{name}")
    assert mount_points(bench.rootfs) == [f"/{name}/{name}"]
    detach(bench, mounts, f"/{name}/{name}")
    assert everywhere() == before


@pytest.mark.parametrize("kind", ["folder", "file", "fifo"])
def test_a_mount_is_gone_once_and_for_all(bench: Bench, kind: str) -> None:
    os.mkfifo(f"{bench.path}/fifo")
    source = {"folder": bench.source, "file": bench.file, "fifo": f"{bench.path}/fifo"}[kind]
    mounts = attached(bench, source=source)
    before = fds()
    detach(bench, mounts)
    assert mount_points(bench.rootfs) == []
    detach(bench, mounts)
    assert fds() == before


def test_a_mount_in_use_goes_nevertheless(bench: Bench) -> None:
    mounts = attached(bench)
    with open(bench.inside("/a/mnt/word"), encoding="utf-8") as file:
        detach(bench, mounts)
        assert mount_points(bench.rootfs) == []
        assert file.read() == "hello\n"


def test_a_mount_whose_source_was_removed_goes(bench: Bench) -> None:
    mounts = attached(bench, source=bench.file)
    os.unlink(bench.file)
    detach(bench, mounts)
    assert mount_points(bench.rootfs) == []


# -- what a container may have done meanwhile --------------------------------------------------------------------------


def host_mount(bench: Bench) -> str:
    """A folder of the host with a mount in it that nobody may touch."""
    folder = f"{bench.path}/host"
    tmpfs(f"{folder}/mnt")
    return folder


@pytest.mark.kernel(6, 8)
@pytest.mark.parametrize("kind", ["folder", "file"])
def test_it_is_found_where_a_rename_has_carried_it(bench: Bench, kind: str) -> None:
    host = host_mount(bench)
    mounts = attached(bench, source=bench.source if kind == "folder" else bench.file)
    os.rename(bench.inside("/a"), f"{bench.path}/carried away")
    os.symlink(host, bench.inside("/a"))
    detach(bench, mounts)
    assert mount_points(bench.path) == ["/host/mnt"]


@pytest.mark.kernel(6, 8)
def test_it_is_found_where_it_was_moved_as_a_mount(bench: Bench) -> None:
    mounts = attached(bench)
    mount(bench.inside("/a/mnt"), bench.inside("/mnt"), flags=MS_MOVE)
    detach(bench, mounts)
    assert mount_points(bench.path) == []


@pytest.mark.kernel(6, 8)
def test_of_two_one_may_have_been_moved_into_the_other(bench: Bench) -> None:
    """Whichever was attached first."""
    os.mkdir(f"{bench.source}/in")
    record = bench.mount(request(bench.source, "/first"), request(bench.source, "/second"))
    mount(bench.inside("/first"), bench.inside("/second/in"), flags=MS_MOVE)
    assert mount_points(bench.rootfs) == ["/second", "/second/in"]
    assert bench.undo(record) == []
    assert mount_points(bench.rootfs) == []


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_a_link_in_the_place_of_a_mount_that_was_cut_off_is_not_followed(bench: Bench, kind: str) -> None:
    host = host_mount(bench)
    mounts = attached(bench, source=bench.source if kind == "folder" else bench.file)

    def cut_off() -> None:
        umount(bench.inside("/a/mnt"))
        (os.rmdir if kind == "folder" else os.unlink)(bench.inside("/a/mnt"))
        os.symlink(f"{host}/mnt", bench.inside("/a/mnt"))

    elsewhere(cut_off)
    assert mount_points(bench.path) == ["/host/mnt"]
    detach(bench, mounts)
    assert mount_points(bench.path) == ["/host/mnt"]


@pytest.mark.kernel(6, 8)
def test_a_mount_that_got_the_same_number_is_not_ours(bench: Bench) -> None:
    mounts = attached(bench)
    detach(bench, mounts)
    # Numbers are given again at once, but to whom is not for us to say.
    bind(bench.source, bench.inside("/a/mnt"))
    mounts[0]["id"] = line(bench.inside("/a/mnt")).id
    detach(bench, mounts)
    assert mount_points(bench.rootfs) == ["/a/mnt"]


def without_unique_ids(mounts: Sequence[AttachedRecord]) -> Sequence[AttachedRecord]:
    """As a kernel before Linux 6.8 would have it."""
    for each in mounts:
        each["unique"] = None
    return mounts


@pytest.mark.parametrize("member", ["root", "source", "type", None])
def test_without_unique_ids_all_else_must_agree(bench: Bench, member: str | None) -> None:
    mounts = without_unique_ids(attached(bench))
    if member is not None:
        mounts[0][member] = "'other'"  # type: ignore[literal-required]
    detach(bench, mounts)
    assert mount_points(bench.rootfs) == ([] if member is None else ["/a/mnt"])


def got_its_number(bench: Bench, path: str) -> Sequence[AttachedRecord]:
    """Our bind is gone, and another of the same source on ``path`` has its number, as before Linux 6.8."""
    mounts = without_unique_ids(attached(bench))
    detach(bench, mounts)
    os.makedirs(path, exist_ok=True)
    bind(bench.source, path)
    mounts[0]["id"] = line(path).id
    return mounts


@pytest.mark.parametrize("place", ["/elsewhere", "/rootfs/mnt"])
def test_what_stands_elsewhere_and_may_be_ours_stays_and_is_named(bench: Bench, place: str) -> None:
    mounts = got_its_number(bench, bench.path + place)
    with pytest.raises(LeftoverError, match=f"the mount on {bench.path}{place} may be this bind or another one"):
        detach(bench, mounts)
    assert mount_points(bench.path) == [place]


@pytest.mark.parametrize("place", ["/elsewhere", "/rootfs/a/mnt"])
def test_what_another_record_claims_is_not_ours(bench: Bench, place: str) -> None:
    mounts = got_its_number(bench, bench.path + place)
    detach(bench, mounts, claimed=lambda info: info.mount_point == bench.path + place)
    assert mount_points(bench.path) == [place]


def test_what_was_put_on_top_at_the_last_moment_does_not_go_in_its_place(bench: Bench) -> None:
    mounts = without_unique_ids(attached(bench))
    unmount = module.unmount

    def late(fd: int, proc: Proc) -> None:
        module.unmount = unmount
        tmpfs(bench.inside("/a/mnt"))
        unmount(fd, proc)

    module.unmount = late
    detach(bench, mounts)
    assert mount_points(bench.rootfs) == []


def test_an_id_that_goes_to_another_between_two_looks(bench: Bench) -> None:
    """The table says that it is ours; when it is opened, another has its number and its place."""
    mounts = without_unique_ids(attached(bench))
    other = plant(f"{bench.path}/other", {})

    class Late(Proc):
        looks = 0

        def mounts(self) -> MountTable:
            found = super().mounts()
            if not self.looks:
                umount(bench.inside("/a/mnt"), MNT_DETACH)
                bind(other, bench.inside("/a/mnt"))
                # Where the kernel gives another number, the first look shows that one.
                found = MountTable("\n".join(support.mounts()).replace("/other ", "/source ", 1))
                mounts[0]["id"] = line(bench.inside("/a/mnt")).id
            self.looks += 1
            return found

    bench.proc = Late()
    detach(bench, mounts)
    assert line(bench.inside("/a/mnt")).root.endswith("/other")


def test_more_than_are_held_at_once(bench: Bench) -> None:
    names = [f"/mnt/{number}" for number in range(module._MOST_HELD + 3)]
    record = bench.mount(*(request(bench.source, name) for name in names))
    for each in record["mounts"]:
        without_unique_ids(each["attached"])
    before = fds()
    trees = [tree_of(each, record) for each in record["mounts"]]
    module.detach(trees, bench.proc)
    assert [tree.problem for tree in trees] == [None] * len(trees)
    assert mount_points(bench.rootfs) == []
    assert fds() == before


def test_one_on_the_other_goes_without_unique_ids(bench: Bench) -> None:
    os.mkdir(f"{bench.source}/in")
    record = bench.mount(*(request(bench.source, name) for name in ("/first", "/first/in", "/mnt")))
    for each in record["mounts"]:
        without_unique_ids(each["attached"])
    assert bench.undo(record) == []
    assert mount_points(bench.rootfs) == []


# -- what others have mounted ------------------------------------------------------------------------------------------

ON = "another process mounted something on {}"
HIDDEN = "the mount on /a/mnt cannot be reached: another mount hides it"
FOREIGN = {
    "on-it": (["/a/mnt"], ON + "/a/mnt"),
    "on-it-twice": (["/a/mnt", "/a/mnt"], ON + "/a/mnt"),
    "below-it": (["/a/mnt/sub"], ON + "/a/mnt/sub"),
    "on-its-submount": (["/a/mnt/own"], ON + "/a/mnt/own"),
    "hiding-it": (["/a"], HIDDEN),
    "hiding-it-with-another": (["/a", "/a/mnt"], HIDDEN),
}


@pytest.mark.parametrize(("places", "problem"), FOREIGN.values(), ids=list(FOREIGN))
def test_what_somebody_else_has_mounted_stays_and_so_does_ours(bench: Bench, places: list[str], problem: str) -> None:
    tmpfs(f"{bench.source}/own")
    mounts = attached(bench, "/a/mnt", "rbind")
    for place in places:
        tmpfs(bench.inside(place))
    before, held = everywhere(), fds()
    with pytest.raises(LeftoverError, match=problem.format(bench.rootfs)):
        detach(bench, mounts)
    assert everywhere() == before
    assert fds() == held
    for place in reversed(places):
        umount(bench.inside(place))
    detach(bench, mounts)
    assert mount_points(bench.rootfs) == []
    assert mount_points(bench.path) == ["/source/own"]


def test_a_foreign_mount_that_ours_stands_on_stays(bench: Bench) -> None:
    volume = tmpfs(bench.inside("/mnt"))
    plant(volume, {"in": {}})
    mounts = attached(bench, "/mnt/in")
    detach(bench, mounts, "/mnt/in")
    assert mount_points(bench.rootfs) == ["/mnt"]


@pytest.mark.parametrize("word", ["rshared", "rslave", "rprivate"])
def test_the_submounts_of_a_shared_source_survive(bench: Bench, word: str) -> None:
    volume = tmpfs(f"{bench.path}/volume")
    propagate(volume, MS_SHARED)
    propagate(tmpfs(f"{volume}/sub"), MS_SHARED)
    mounts = attached(bench, "/a/mnt", "rbind", word, source=volume)
    assert mount_points(bench.rootfs) == ["/a/mnt", "/a/mnt/sub"]
    detach(bench, mounts)
    assert mount_points(bench.path) == ["/volume", "/volume/sub"]


def test_copies_that_a_shared_parent_has_spread_go_too(bench: Bench) -> None:
    bind(bench.rootfs, bench.rootfs)
    propagate(bench.rootfs, MS_SHARED)
    copy = plant(f"{bench.path}/copy", {})
    bind(bench.rootfs, copy)
    mounts = attached(bench, "/a/mnt")
    assert mount_points(bench.path) == ["/copy", "/copy/a/mnt", "/rootfs", "/rootfs/a/mnt"]
    detach(bench, mounts)
    assert mount_points(bench.path) == ["/copy", "/rootfs"]


def test_we_do_not_stay_in_what_was_detached(bench: Bench) -> None:
    os.chdir(bench.path)
    detach(bench, attached(bench))
    assert os.getcwd() == f"/proc/{os.getpid()}"
