# SPDX-License-Identifier: Apache-2.0
"""gc of many containers on one rootfs: each takes the same work, and none of what is promised for one is lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import work
from helpers.mounting import Bench, named, request, tmpfs
from oci_bind_hook.commands.upkeep import gc, listing
from oci_bind_hook.errors import RecordError
from oci_bind_hook.log import Log
from oci_bind_hook.options import Options
from oci_bind_hook.record import held
from oci_bind_hook.record.folder import StateFolder
from oci_bind_hook.record.lock import Lock
from oci_bind_hook.rootfs.identity import keys

if TYPE_CHECKING:
    from oci_bind_hook.record.state_file import Record, RootfsRecord

SIZE = 20
NOBODY = 2**22 + 1  # no pid is so large


class Dead:
    """Containers that died without poststop, each with a mount point of its own below one that all use.

    ``unique``: mounts have ids that are not used again, if this kernel has them.
    """

    def __init__(self, path: Path, count: int, *, unique: bool = True) -> None:
        self.bench = Bench(Path(tmpfs(os.fspath(path))), kind="runtime")
        self.options = Options()
        self.options.root = os.fspath(path / "state")
        folder = StateFolder.open(self.options.root, create=True)
        assert folder is not None
        self.folder = folder
        record = self.bench.mount(*(request(self.bench.source, f"/new/{number}") for number in range(count)))
        shared, *points = record["made"]
        for number, (mount, point) in enumerate(zip(record["mounts"], points, strict=True)):
            if not unique:
                mount["attached"][0]["unique"] = None
            made = [point] if number else [shared, point]
            self.save(record, f"c{number:03}", mounts=[mount], made=made, uses=["/new", point["path"]])

    def save(self, record: Record, container: str, **members: object) -> None:
        init = {"pid": NOBODY, "start": 1, "first": self.bench.proc.first_start()}
        with self.folder.lock_rootfs(record["rootfs"]) as held:
            held.save(named(record, container, **{"phase": "done", "init": init, **members}))

    def collect(self) -> dict[str, str]:
        """What was done about each."""
        found = gc.collect(self.options, (), Log())
        return {outcome.id: outcome.action for outcome in found.outcomes}


UNIQUE = pytest.mark.parametrize("unique", [True, False], ids=["unique-ids", "ids-used-again"])


@UNIQUE
def test_each_of_the_dead_takes_the_same_work(tmp_path: Path, unique: bool) -> None:
    def measure(count: int) -> int:
        dead = Dead(tmp_path / str(count), count, unique=unique)
        found = work.opcodes(dead.collect)
        assert os.listdir(dead.options.root or "") == []
        assert "new" not in os.listdir(dead.bench.rootfs)
        return found

    work.check_growth(measure, SIZE)


@UNIQUE
@pytest.mark.parametrize("command", ["list", "gc --dry-run"])
def test_each_takes_the_same_work_to_be_looked_at(tmp_path: Path, command: str, unique: bool) -> None:
    def measure(count: int) -> int:
        dead = Dead(tmp_path / str(count), count, unique=unique)
        dead.options.dry_run = True
        return work.opcodes(dead.collect if command != "list" else lambda: listing.look(dead.options))

    work.check_growth(measure, 3 * SIZE)


def test_the_rootfs_is_locked_whenever_its_records_are_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Dead(tmp_path / "dead", 3)
    [name, *_] = sorted(keys(dead.bench.record()["rootfs"]))
    seen = []

    def watch(owner: type, method: str) -> None:
        real = getattr(owner, method)

        def watched(self: StateFolder, *arguments: object, **others: object) -> object:
            fd = os.open(f"{dead.options.root}/rootfs", os.O_RDONLY)
            try:
                with Lock(fd, name, 0):
                    is_locked = False
            except BlockingIOError:
                is_locked = True
            os.close(fd)
            seen.append((method, is_locked))
            return real(self, *arguments, **others)

        monkeypatch.setattr(owner, method, watched)

    for method in ("load_all", "save", "remove"):
        watch(StateFolder, method)
    assert set(dead.collect().values()) == {"finished"}
    assert {method for method, _ in seen} == {"load_all", "save", "remove"}
    assert all(is_locked for _, is_locked in seen)
    assert [method for method, _ in seen].count("load_all") == 1


def test_what_was_set_up_anew_on_another_rootfs_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = Dead(tmp_path / "dead", 2)
    real = StateFolder.lock_rootfs

    def meanwhile(self: StateFolder, *rootfs: RootfsRecord, wait: bool) -> held.HeldRootfs:
        monkeypatch.undo()
        record = dead.folder.load("c001")
        assert record is not None
        dead.save(record, "c001", rootfs={**record["rootfs"], "ino": record["rootfs"]["ino"] + 1})
        return real(self, *rootfs, wait=wait)

    monkeypatch.setattr(StateFolder, "lock_rootfs", meanwhile)
    assert dead.collect() == {"c000": "finished", "c001": "kept"}
    assert os.path.isdir(dead.bench.inside("/new/1"))
    assert dead.folder.load("c001") is not None


def test_what_could_not_be_handed_over_is_handed_over_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that could not be written holds no more than its file: the next one is asked to write it again."""
    dead = Dead(tmp_path / "dead", 3)
    real = StateFolder.save
    refusals = ["c001"]

    def save(self: StateFolder, record: Record) -> None:
        if record["id"] in refusals:
            refusals.remove(record["id"])
            raise RecordError("the disk is full")
        real(self, record)

    monkeypatch.setattr(StateFolder, "save", save)
    found = dead.collect()
    assert found == {"c000": "finished", "c001": "finished", "c002": "finished"}
    assert refusals == []
    assert "new" not in os.listdir(dead.bench.rootfs)
