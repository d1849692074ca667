# SPDX-License-Identifier: Apache-2.0
"""A record undone: all that is ours goes, all that is not ours any more stays, and what resists stays recorded."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.mounting import (
    MADE,
    Bench,
    asked,
    five,
    look,
    mount,
    mount_points,
    plant,
    request,
    tmpfs,
    umount,
)
from oci_bind_hook.errors import LeftoverError, RecordError
from oci_bind_hook.mounting.undo import identity_of
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from oci_bind_hook.record.state_file import MadeRecord, Record


@pytest.mark.parametrize("number", [0, 1, 2], ids=["intent", "made", "done"])
def test_every_record_that_was_written_is_enough_to_undo_all(bench: Bench, number: int) -> None:
    before = look(bench)
    bench.mount(*five(bench))
    # As if we had been killed just before the next write.
    record = bench.saved[number]
    assert bench.undo(record) == []
    assert look(bench) == before
    assert (record["mounts"], record["made"]) == ([], [])


def test_an_intent_of_which_nothing_was_done_is_undone_too(bench: Bench) -> None:
    before = look(bench)
    with pytest.raises(RecordError):
        bench.attach(bench.plan(*five(bench)), save=lambda: (_ for _ in ()).throw(RecordError("killed")))
    assert bench.undo(bench.saved[0]) == []
    assert look(bench) == before


def made_only(bench: Bench) -> Record:
    """The record of a container whose mounts are gone with its namespace: a folder, a folder in it, and a file."""
    record = bench.mount(request(bench.source, "/new/folder"), request(bench.file, "/new/file"))
    bench.undo({**record, "made": []})
    record["mounts"] = []
    return record


def replace(path: str, make: Callable[[str], object]) -> None:
    (os.rmdir if os.path.isdir(path) else os.unlink)(path)
    make(path)


def write(path: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write("mine\n")


def empty(path: str) -> None:
    os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o644))


# What becomes of /new/folder or /new/file, and why it is left standing.
STRANGE: dict[str, tuple[str, Callable[[str], object], str]] = {
    "file-written": ("file", write, "it is not empty"),
    "folder-filled": ("folder", lambda path: os.mkdir(f"{path}/x"), "it is not empty"),
    "file-to-link": ("file", lambda path: replace(path, lambda p: os.symlink("/etc", p)), "it is no longer a file"),
    "file-to-fifo": ("file", lambda path: replace(path, os.mkfifo), "it is no longer a file"),
    "file-to-folder": ("file", lambda path: replace(path, os.mkdir), "it is no longer a file"),
    "folder-to-link": (
        "folder",
        lambda path: replace(path, lambda p: os.symlink("/etc", p)),
        "it is no longer a directory",
    ),
    "folder-to-file": ("folder", lambda path: replace(path, empty), "it is no longer a directory"),
    "other-owner": ("folder", lambda path: os.chown(path, 1000, 0), "its owner has changed"),
    "other-group": ("file", lambda path: os.chown(path, 0, 1000), "its owner has changed"),
    "other-folder": ("folder", lambda path: replace(path, os.mkdir), "another process created it"),
    "other-file": ("file", lambda path: replace(path, empty), "another process created it"),
}


@pytest.mark.parametrize(("name", "change", "remark"), STRANGE.values(), ids=list(STRANGE))
def test_what_is_no_longer_what_was_made_is_left_standing(
    bench: Bench, name: str, change: Callable[[str], object], remark: str
) -> None:
    record = made_only(bench)
    change(bench.inside(f"/new/{name}"))
    before = support.tree(bench.inside(f"/new/{name}"))
    assert bench.undo(record) == [
        f"/new/{name} is kept: {remark}",
        "/new is kept: it is not empty",
    ]
    assert support.tree(bench.inside(f"/new/{name}")) == before
    assert os.listdir(bench.inside("/new")) == [name]
    assert record["made"] == []


def test_what_is_gone_needs_no_remark(bench: Bench) -> None:
    record = made_only(bench)
    os.rmdir(bench.inside("/new/folder"))
    assert bench.undo(copy.deepcopy(record)) == []
    # Also where not even the folder is there, or is no folder.
    assert bench.undo(copy.deepcopy(record)) == []
    write(bench.inside("/new"))
    assert bench.undo(record) == ["/new is kept: it is no longer a directory"]


def test_no_link_is_followed_on_the_way_to_what_was_made(bench: Bench) -> None:
    record = made_only(bench)
    outside = f"{bench.path}/outside"
    os.rename(bench.inside("/new"), outside)
    os.symlink(outside, bench.inside("/new"))
    before = support.tree(outside)
    assert bench.undo(record) == ["/new is kept: it is no longer a directory"]
    assert support.tree(outside) == before


def test_on_overlayfs_numbers_are_not_trusted(bench: Bench) -> None:
    plant(bench.path, {"lower": {"etc": {}}, "disk": {}})
    data = f"lowerdir={bench.path}/lower,upperdir={bench.path}/disk/upper,workdir={bench.path}/disk/work"
    plant(f"{bench.path}/disk", {"upper": {}, "work": {}})
    mount("overlay", bench.rootfs, "overlay", data=data)
    record = made_only(bench)
    identities = [entry["identity"] for entry in record["made"]]
    assert [identity and (identity["dev"], identity["ino"]) for identity in identities] == [(None, None)] * 3
    for descriptor in bench.descriptors():
        os.close(descriptor)
    umount(bench.rootfs)
    mount("overlay", bench.rootfs, "overlay", data=data)
    os.rmdir(bench.inside("/new/folder"))
    os.mkdir(bench.inside("/new/folder"))
    assert bench.undo(record) == [
        "/new/folder is kept: another process created it",
        "/new is kept: it is not empty",
    ]
    assert os.listdir(bench.inside("/new")) == ["folder"]


# -- made, but not yet known to be -------------------------------------------------------------------------------------

UNKNOWN: dict[str, tuple[Callable[[str], object], int, str]] = {
    "ours": (lambda _: None, 0, ""),
    "older": (lambda _: None, 1, "it existed before"),
    "of-another": (lambda path: os.chown(path, 1000, 0), 0, "it existed before"),
    "not-empty": (write, 0, "it is not empty"),
}


@pytest.mark.parametrize(("change", "later", "remark"), UNKNOWN.values(), ids=list(UNKNOWN))
def test_what_was_not_identified_goes_only_if_it_can_be_ours(
    bench: Bench, change: Callable[[str], object], later: int, remark: str
) -> None:
    record = made_only(bench)
    made = record["made"] = [entry for entry in record["made"] if entry["kind"] == "file"]
    change(bench.inside("/new/file"))
    if later:
        born = made[0]["identity"] and made[0]["identity"]["born"]
        assert born
        record["created"] = born + 1
    made[0]["identity"] = None
    assert bench.undo(record) == ([f"/new/file is kept: {remark}"] if remark else [])
    assert os.path.exists(bench.inside("/new/file")) is bool(remark)


def test_what_somebody_else_needs_is_handed_over_identified(bench: Bench) -> None:
    record = made_only(bench)
    handed: list[MadeRecord] = []
    known = copy.deepcopy(record["made"])
    for entry in record["made"]:
        entry["identity"] = None

    def keep(made: MadeRecord) -> bool:
        handed.append(made)
        return made["path"] != "/new/file"

    assert bench.undo(record, keep) == []
    assert sorted(handed, key=lambda entry: known.index(entry)) == known
    assert os.listdir(bench.inside("/new")) == ["folder"]
    assert record["made"] == []


def test_what_is_strange_is_not_even_offered(bench: Bench) -> None:
    record = made_only(bench)
    write(bench.inside("/new/file"))
    offered: list[str] = []

    def keep(made: MadeRecord) -> bool:
        offered.append(made["path"])
        return False

    bench.undo(record, keep)
    assert offered == ["/new/folder", "/new"]


# -- what resists ------------------------------------------------------------------------------------------------------


BOTH = ["/new", "/new/folder", "/new/file"]


@pytest.mark.parametrize("path", ["/new/folder", "/new"], ids=["on-it", "above-it"])
def test_what_something_else_is_mounted_on_stays_recorded(bench: Bench, path: str) -> None:
    record = made_only(bench)
    tmpfs(bench.inside(path))
    with pytest.raises(LeftoverError) as raised:
        bench.undo(record)
    place = bench.inside("/new/folder" if path == "/new/folder" else "/new/file")
    how = f"something else is mounted on it: if nothing uses that, run umount {place}"
    if path == "/new":
        how = f"something is mounted on {bench.inside(path)}, above it: unmount that first"
    assert raised.value.problem.startswith(f"could not undo {place}: {how}")
    assert raised.value.hint.startswith(("it stays in the state file", "they stay in the state file"))
    assert [entry["path"] for entry in record["made"]] == (["/new", "/new/folder"] if path == "/new/folder" else BOTH)
    umount(bench.inside(path))
    assert bench.undo(record) == []
    assert not os.path.exists(bench.inside("/new"))


def test_as_long_as_a_mount_resists_no_mount_point_is_touched(bench: Bench) -> None:
    before = look(bench)
    record = bench.mount(*five(bench))
    tmpfs(bench.inside("/mnt/sub"))
    with pytest.raises(
        LeftoverError, match=r"could not undo /mnt: another process mounted something on .*/mnt/sub: unmount"
    ):
        raise_without_hint(bench, record)
    assert [entry["resolved"] for entry in record["mounts"]] == ["/mnt"]
    assert [entry["path"] for entry in record["made"]] == MADE
    assert mount_points(bench.rootfs) == ["/mnt", "/mnt/sub"]
    assert os.path.isdir(bench.inside("/new/three"))
    umount(bench.inside("/mnt/sub"))
    assert bench.undo(record) == []
    assert look(bench) == before


def raise_without_hint(bench: Bench, record: Record) -> None:
    try:
        bench.undo(record)
    except LeftoverError as problem:
        problem.hint = ""
        raise


@pytest.mark.parametrize("case", ["other-namespace", "no-rootfs"])
def test_what_is_gone_with_its_namespace_or_its_rootfs(bench: Bench, case: str) -> None:
    bench.own_tmpfs("/mnt")
    record = bench.mount(asked("/mnt"), request(bench.source, "/mnt/new"), request(bench.source, "/new"))
    if case == "other-namespace":
        # The mounts of another namespace are none of our business, and neither is its tmpfs.
        with pytest.raises(
            LeftoverError, match=r"could not undo .*/new: something else is mounted on it: if nothing uses that, run "
        ):
            bench.undo(record, here=False)
        assert [entry["path"] for entry in record["made"]] == ["/new"]
        assert mount_points(bench.rootfs) == ["/mnt", "/mnt/new", "/new"]
    else:
        assert bench.undo_in(None, record) == []
        assert mount_points(bench.rootfs) == ["/mnt"]
        assert record["made"] == []
        assert os.path.isdir(bench.inside("/new"))
    assert record["mounts"] == []


def test_identity_of_nothing_is_unknown(bench: Bench) -> None:
    rootfs = Rootfs(bench.rootfs)
    stat = rootfs.stat
    assert identity_of(None, rootfs) is None
    rootfs.owner_of = lambda stat: (stat.uid + 1000, stat.gid + 2000)
    known = {"uid": 1000, "gid": 2000, "born": stat.born, "dev": stat.dev, "ino": stat.ino}
    assert identity_of(stat, rootfs) == known
    for name in ("upper", "work"):
        os.mkdir(bench.path + "/" + name)
    layers = f"lowerdir={bench.source},upperdir={bench.path}/upper,workdir={bench.path}/work"
    mount("overlay", bench.rootfs, "overlay", data=layers)
    overlay = Rootfs(bench.rootfs)
    born = overlay.stat.born
    assert identity_of(overlay.stat, overlay) == {"uid": 0, "gid": 0, "born": born, "dev": None, "ino": None}
