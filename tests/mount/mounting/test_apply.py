# SPDX-License-Identifier: Apache-2.0
"""A plan carried out whole or not at all, with a record that is true at every instant."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING

import pytest

from helpers.mounting import (
    FIVE,
    MADE,
    MS_SHARED,
    Bench,
    bind,
    five,
    look,
    mount_points,
    propagate,
    request,
    tmpfs,
    umount,
)
from oci_bind_hook.errors import KernelError, LeftoverError, RecordError, RequestError
from oci_bind_hook.mounting.undo import reconcile
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    pass


# -- before ------------------------------------------------------------------------------------------------------------


def test_what_no_state_file_can_hold_is_refused_before_anything_is_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oci_bind_hook.record.document.MAX_BYTES", 100_000)
    os.symlink("/\x01" * 900, bench.inside("/models"))
    before = look(bench)
    plan = bench.plan(request(bench.source, "/mnt"), request(bench.source, "/models/1"))
    record = bench.record()
    with pytest.raises(
        RequestError,
        match=r"the 2 binds do not fit in a state file; this one is 901 folders deep, through the link /models",
    ):
        bench.attach(plan, record)
    assert (look(bench), record["made"], bench.saved) == (before, [], [])


def test_more_names_than_any_image_needs_are_not_made_for_one_bind(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oci_bind_hook.mounting.apply.MOST_MADE", 4)
    os.symlink("/a/b/c/d/e", bench.inside("/models"))
    before, record = look(bench), bench.record()
    problem = "5 folders or files are missing behind the link /models, and the hook creates at most 4 for one bind"
    with pytest.raises(RequestError, match=problem):
        bench.attach(bench.plan(request(bench.source, "/mnt"), request(bench.source, "/models")), record)
    assert (look(bench), record["made"], bench.saved) == (before, [], [])
    bench.attach(bench.plan(request(bench.source, "/a/b/c/d")), record)
    assert len(record["made"]) == 4


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


@pytest.mark.kernel(5, 12)
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

    with pytest.raises(
        LeftoverError, match=r"^disk full; in addition, could not undo /new/one: another process mounted"
    ) as raised:
        bench.attach(bench.plan(*five(bench)), record, save)
    assert raised.value.hint.startswith(("it stays in the state file", "they stay in the state file"))
    assert [entry["resolved"] for entry in record["mounts"]] == ["/new/one"]
    assert [entry["path"] for entry in record["made"]] == MADE
    assert mount_points(bench.rootfs) == ["/new/one", "/new/one"]
    umount(bench.inside("/new/one"))
    assert bench.undo(record) == []
    assert look(bench) == before


# -- a call after a killed one -----------------------------------------------------------------------------------------


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
