# SPDX-License-Identifier: Apache-2.0
"""A plan carried out whole or not at all, with a record that is true at every instant; and a record undone."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.mounting import MS_SHARED, Bench, bind, mount, mount_points, plant, propagate, request, tmpfs, umount
from oci_bind_hook.errors import KernelError, LeftoverError, RecordError
from oci_bind_hook.mounting.apply import reconcile
from oci_bind_hook.mounting.undo import identity_of
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from oci_bind_hook.record.state_file import MadeRecord, Record
    from oci_bind_hook.requests.request import Request


def five(bench: Bench, third: str = "rprivate") -> list[Request]:
    return [
        request(bench.source, "/new/one"),
        request(bench.file, "/new/two"),
        request(bench.source, "/new/three", third),
        request(bench.source, "/mnt"),
        request(bench.file, "/mnt/word"),
    ]


FIVE = ["/mnt", "/mnt/word", "/new/one", "/new/three", "/new/two"]
MADE = ["/new", "/new/one", "/new/two", "/new/three"]


def look(bench: Bench) -> dict[str, object]:
    return {
        "tree": support.tree(bench.rootfs),
        "mounts": mount_points(bench.path),
        "source": support.tree(bench.source),
    }


# -- forth -------------------------------------------------------------------------------------------------------------


def test_three_writes_each_true_at_its_time(bench: Bench) -> None:
    seen: list[tuple[list[str], list[str]]] = []
    plan = bench.plan(*five(bench))
    record = bench.attach(
        plan, save=lambda: seen.append((mount_points(bench.rootfs), sorted(os.listdir(bench.rootfs))))
    )
    assert seen == [
        ([], ["etc", "file", "mnt"]),
        ([], ["etc", "file", "mnt", "new"]),
        (FIVE, ["etc", "file", "mnt", "new"]),
    ]
    intent, made, done = bench.saved
    assert [saved["phase"] for saved in bench.saved] == ["intent", "made", "done"]
    assert done == record
    assert [(entry["path"], entry["kind"], entry["identity"]) for entry in intent["made"]] == [
        ("/new", "directory", None),
        ("/new/one", "directory", None),
        ("/new/two", "file", None),
        ("/new/three", "directory", None),
    ]
    assert intent["mounts"] == made["mounts"] == done["mounts"]
    assert [entry["resolved"] for entry in done["mounts"]] == [
        "/new/one",
        "/new/two",
        "/new/three",
        "/mnt",
        "/mnt/word",
    ]
    assert made["made"] == done["made"]


def test_what_was_made_is_recorded_as_it_is(bench: Bench) -> None:
    record = bench.mount(request(bench.file, "/etc/new"))
    bench.undo({**record, "made": []})
    stat = os.stat(bench.inside("/etc/new"))
    identity = record["made"][0]["identity"]
    assert identity is not None
    assert (identity["uid"], identity["gid"], identity["dev"], identity["ino"]) == (0, 0, stat.st_dev, stat.st_ino)
    assert identity["born"] is not None
    assert record["created"] <= identity["born"] <= stat.st_ctime_ns


def test_a_second_call_appends(bench: Bench) -> None:
    record = bench.mount(request(bench.source, "/new/one"))
    bench.attach(bench.plan(request(bench.source, "/new/two")), record)
    assert [entry["resolved"] for entry in record["mounts"]] == ["/new/one", "/new/two"]
    assert [entry["path"] for entry in record["made"]] == ["/new", "/new/one", "/new/two"]
    bench.undo(record)
    assert not os.path.exists(bench.inside("/new"))


# -- a failure on the way ----------------------------------------------------------------------------------------------


def test_one_that_fails_in_the_middle_takes_all_others_with_it(bench: Bench) -> None:
    bind(bench.rootfs, bench.rootfs)
    propagate(bench.rootfs, MS_SHARED)
    before = look(bench)
    record = bench.record()
    # The kernel refuses to attach what is unbindable below what is shared.
    plan = bench.plan(*five(bench, "runbindable"), allow_shared=True)
    with pytest.raises(KernelError, match=r"^--mount 1: move_mount /new/three: Invalid argument \(the mount"):
        bench.attach(plan, record)
    assert look(bench) == before
    assert [saved["phase"] for saved in bench.saved] == ["intent", "made"]
    assert (record["mounts"], record["made"]) == ([], [])


@pytest.mark.parametrize("failure", [RecordError("disk full"), KeyboardInterrupt(), ZeroDivisionError()], ids=type)
@pytest.mark.parametrize("number", [1, 2, 3], ids=["intent", "made", "done"])
def test_a_write_that_fails_undoes_all(bench: Bench, number: int, failure: BaseException) -> None:
    before = look(bench)
    record = bench.record()

    def save() -> None:
        if len(bench.saved) == number:
            raise failure

    with pytest.raises(type(failure)) as raised:
        bench.attach(bench.plan(*five(bench)), record, save)
    assert raised.value is failure
    assert look(bench) == before
    assert (record["mounts"], record["made"]) == ([], [])


def test_what_an_earlier_call_did_stays(bench: Bench) -> None:
    record = bench.mount(request(bench.source, "/new/one"))
    before, known = look(bench), copy.deepcopy(record)

    def save() -> None:
        if len(bench.saved) == 4:
            raise RecordError("disk full")

    with pytest.raises(RecordError):
        bench.attach(bench.plan(request(bench.source, "/new/two/deep")), record, save)
    assert look(bench) == before
    assert record == known


def test_what_cannot_be_rolled_back_stays_in_the_record(bench: Bench) -> None:
    before = look(bench)
    record = bench.record()

    def save() -> None:
        if len(bench.saved) == 3:
            tmpfs(bench.inside("/new/one"))
            raise RecordError("disk full")

    with pytest.raises(LeftoverError, match=r"^disk full; then could not undo /new/one: somebody mounted") as raised:
        bench.attach(bench.plan(*five(bench)), record, save)
    assert raised.value.hint.startswith("it stays in the state file")
    assert [entry["resolved"] for entry in record["mounts"]] == ["/new/one"]
    assert [entry["path"] for entry in record["made"]] == MADE
    assert mount_points(bench.rootfs) == ["/new/one", "/new/one"]
    umount(bench.inside("/new/one"))
    assert bench.undo(record) == []
    assert look(bench) == before


# -- back --------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("number", [0, 1], ids=["intent", "made"])
def test_a_later_call_strikes_what_a_killed_one_has_not_done(bench: Bench, number: int) -> None:
    class Killed(BaseException):
        pass

    def save() -> None:
        if len(bench.saved) == number + 1:
            raise Killed

    plan = bench.plan(request(bench.source, "/new/one"), request(bench.file, "/new/two"))
    with pytest.raises(Killed):
        bench.attach(plan, save=save)
    record = bench.saved[number]
    # The way back was taken, so that it is as if the call had been killed at the first of two mount points.
    os.mkdir(bench.inside("/new"))
    record["made"][0]["identity"] = None
    reconcile(record, bench.proc, Rootfs(bench.rootfs))
    assert record["mounts"] == []
    known = [(entry["path"], entry["identity"] and entry["identity"]["ino"]) for entry in record["made"]]
    assert known[0] == ("/new", os.stat(bench.inside("/new")).st_ino)
    assert bench.undo(record) == []
    assert not os.path.exists(bench.inside("/new"))


def test_a_later_call_keeps_what_was_done_and_disowns_what_was_there(bench: Bench) -> None:
    record = bench.mount(request(bench.source, "/new/one"))
    older = Rootfs(bench.rootfs).resolve("/etc").last.stat
    assert older
    assert older.born
    # The bench is so quick that both may have the same time.
    record["created"] = older.born + 1
    known = copy.deepcopy(record)
    reconcile(record, bench.proc, Rootfs(bench.rootfs))
    assert record == known
    # The clock of inodes may not have ticked since the rootfs was made.
    record["created"] = known["created"] = record["created"] + 10**9
    record["made"].append({"path": "/etc", "kind": "directory", "filesystem": "rootfs", "identity": None})
    record["made"].append({"path": "/absent", "kind": "directory", "filesystem": "rootfs", "identity": None})
    reconcile(record, bench.proc, Rootfs(bench.rootfs))
    assert record == known


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
    "other-folder": ("folder", lambda path: replace(path, os.mkdir), "it was made by somebody else"),
    "other-file": ("file", lambda path: replace(path, empty), "it was made by somebody else"),
}


@pytest.mark.parametrize(("name", "change", "remark"), STRANGE.values(), ids=list(STRANGE))
def test_what_is_no_longer_what_was_made_is_left_standing(
    bench: Bench, name: str, change: Callable[[str], object], remark: str
) -> None:
    record = made_only(bench)
    change(bench.inside(f"/new/{name}"))
    before = support.tree(bench.inside(f"/new/{name}"))
    assert bench.undo(record) == [
        f"/new/{name} is left standing: {remark}",
        "/new is left standing: it is not empty",
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
    assert bench.undo(record) == ["/new is left standing: it is no longer a directory"]


def test_no_link_is_followed_on_the_way_to_what_was_made(bench: Bench) -> None:
    record = made_only(bench)
    outside = f"{bench.path}/outside"
    os.rename(bench.inside("/new"), outside)
    os.symlink(outside, bench.inside("/new"))
    before = support.tree(outside)
    assert bench.undo(record) == ["/new is left standing: it is no longer a directory"]
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
        "/new/folder is left standing: it was made by somebody else",
        "/new is left standing: it is not empty",
    ]
    assert os.listdir(bench.inside("/new")) == ["folder"]


# -- made, but not yet known to be -------------------------------------------------------------------------------------

UNKNOWN: dict[str, tuple[Callable[[str], object], int, str]] = {
    "ours": (lambda path: None, 0, ""),
    "older": (lambda path: None, 1, "it was there before"),
    "of-another": (lambda path: os.chown(path, 1000, 0), 0, "it was there before"),
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
    assert bench.undo(record) == ([f"/new/file is left standing: {remark}"] if remark else [])
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
    with pytest.raises(LeftoverError, match=r"could not undo /new.*: something else is mounted") as raised:
        bench.undo(record)
    assert raised.value.hint.startswith("it stays in the state file")
    assert [entry["path"] for entry in record["made"]] == (["/new", "/new/folder"] if path == "/new/folder" else BOTH)
    umount(bench.inside(path))
    assert bench.undo(record) == []
    assert not os.path.exists(bench.inside("/new"))


def test_as_long_as_a_mount_resists_no_mount_point_is_touched(bench: Bench) -> None:
    before = look(bench)
    record = bench.mount(*five(bench))
    tmpfs(bench.inside("/mnt/sub"))
    with pytest.raises(
        LeftoverError, match=r"could not undo /mnt: somebody mounted something else on .*/mnt/sub, which must"
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
    tmpfs(bench.inside("/mnt"))
    record = bench.mount(request(bench.source, "/mnt/new"), request(bench.source, "/new"))
    if case == "other-namespace":
        # The mounts of another namespace are none of our business, and neither is its tmpfs.
        with pytest.raises(LeftoverError, match="could not undo /new: something else is mounted on it"):
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
