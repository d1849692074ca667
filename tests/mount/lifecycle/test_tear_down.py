# SPDX-License-Identifier: Apache-2.0
"""A record on a rootfs that does not answer: kept, unless nothing in the rootfs is needed to be done with it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.fuse import Fuse
from helpers.mounting import Bench, bind, named, plant, request, tmpfs, umount
from oci_bind_hook.errors import LeftoverError
from oci_bind_hook.lifecycle import reach, tear_down
from oci_bind_hook.log import Log
from oci_bind_hook.record.folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oci_bind_hook.record.held import HeldRootfs
    from oci_bind_hook.record.state_file import Record, RootfsRecord


@pytest.fixture
def fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fuse]:
    with Fuse(f"{tmp_path}/fuse") as fuse:
        fuse.hurry(monkeypatch)
        yield fuse


def recorded(bench: Bench, fuse: Fuse, folder: StateFolder, destination: str, *, here: bool) -> Record:
    """A record on the FUSE, which is silent from now on, of this mount namespace or of one that has ended."""
    bench.rootfs = fuse.path
    record = bench.mount(request(bench.source, destination))
    if not here:
        record = named(record, "c1", namespace={"kind": "container", "inode": 1, "unique": None})
    folder.save(record)
    fuse.silence("LOOKUP")
    return record


def take_down(bench: Bench, folder: StateFolder, record: Record, *, is_start: bool = False) -> None:
    tear_down.take_down(folder, record, bench.proc, Log(), keep_mountpoints=False, is_start=is_start)


@pytest.mark.parametrize(("here", "is_start"), [(True, False), (True, True), (False, False)])
def test_it_is_kept_where_something_is_to_be_done_there(
    bench: Bench, fuse: Fuse, folder: StateFolder, here: bool, is_start: bool
) -> None:
    record = recorded(bench, fuse, folder, "/new/a", here=here)
    with pytest.raises(LeftoverError) as refused:
        take_down(bench, folder, record, is_start=is_start)
    assert refused.value.problem.startswith(
        f"the rootfs {fuse.path} cannot be inspected: {fuse.path} (fuse) does not answer; process "
    )
    assert refused.value.hint == reach.silent_hint(bench.proc)
    assert folder.load("c1") == record
    assert folder.names() == {"c1": ["c1.json"]}


def test_the_next_start_of_the_id_does_not_wait_for_mount_points(bench: Bench, fuse: Fuse, folder: StateFolder) -> None:
    take_down(bench, folder, recorded(bench, fuse, folder, "/new/a", here=False), is_start=True)
    assert folder.names() == {}


def test_it_is_not_asked_where_nothing_is_to_be_done_there(bench: Bench, fuse: Fuse, folder: StateFolder) -> None:
    record = recorded(bench, fuse, folder, "/folder", here=False)
    asked = fuse.asked()
    take_down(bench, folder, record)
    assert (folder.names(), fuse.asked()) == ({}, asked)


def test_what_is_handed_over_to_it_meanwhile_is_undone_as_well(
    bench: Bench, folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had made nothing, so the rootfs was not looked at before it was locked."""
    bench.kind = "runtime"  # where a mount without a unique id is known by its place
    first = bench.mount(request(bench.source, "/new/a"))
    second = named(first, "c2", made=[], mounts=[])
    for each in (first, second):
        folder.save(each)
    real = StateFolder.lock_rootfs

    def meanwhile(self: StateFolder, *rootfs: RootfsRecord) -> HeldRootfs:
        monkeypatch.undo()
        take_down(bench, folder, first)
        assert os.path.isdir(bench.inside("/new/a"))
        return real(self, *rootfs)

    monkeypatch.setattr(StateFolder, "lock_rootfs", meanwhile)
    take_down(bench, folder, second)
    assert (folder.names(), os.path.exists(bench.inside("/new"))) == ({}, False)


def test_the_dead_are_collected_for_a_short_time_only(
    bench: Bench, folder: StateFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tear_down, "COLLECT_SECONDS", 0)
    bench.kind = "runtime"
    record = bench.mount(request(bench.source, "/new/a"))
    folder.save(record)
    with folder.lock_rootfs(record["rootfs"]) as held:
        held.save(named(record, "c2", boot="00000000-0000-4000-8000-000000000000", mounts=[], made=[]))
    tear_down.take_down(folder, record, bench.proc, Log(), keep_mountpoints=False, and_the_dead=True)
    assert folder.names() == {"c2": ["c2.json"]}


def test_a_bound_rootfs_is_found_where_its_own_path_is_no_longer_mounted(bench: Bench, tmp_path: Path) -> None:
    disk = tmpfs(f"{tmp_path}/disk")
    rootfs = plant(f"{disk}/folder/rootfs", {})
    place = plant(tmp_path / "place", {})
    bind(rootfs, place)
    bench.rootfs = place
    record = bench.mount(request(bench.source, "/new/a"))
    assert record["rootfs"]["upper"] is not None
    umount(disk)  # the bind stays
    found = reach.find_rootfs(record, bench.proc)
    assert found is not None
    found[0].close()
    assert found[1]["path"] == place
