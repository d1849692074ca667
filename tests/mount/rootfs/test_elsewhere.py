# SPDX-License-Identifier: Apache-2.0
"""Where a rootfs is found that is not at its path: by what it is, whatever the mount table says of places."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.fuse import Fuse
from helpers.mounting import bind, mount, plant, tmpfs, umount
from oci_bind_hook.kernel.proc import Proc
from oci_bind_hook.rootfs import elsewhere
from oci_bind_hook.rootfs.identity import identify_path, places

if TYPE_CHECKING:
    from pathlib import Path

    from oci_bind_hook.record.state_file import RootfsRecord


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tmpfs(os.fspath(tmp_path))
    return tmp_path


def overlay(base: Path, name: str) -> str:
    top = plant(base / name, {"lower": {}, "upper": {}, "work": {}, "merged": {}})
    data = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
    mount("overlay", f"{top}/merged", "overlay", data=data)
    return f"{top}/merged"


def bound(base: Path, path: str) -> RootfsRecord:
    """What is recorded of a rootfs in a mount namespace that has it at another path, too."""
    place = plant(base / "place", {})
    bind(path, place)
    known = identify_path(place, Proc().mounts)
    umount(place)
    os.rmdir(place)
    return known


def found(known: RootfsRecord, *, same_boot: bool = True) -> str | None:
    """The path at which it is found, None if it is not."""
    result = elsewhere.find(known, Proc().mounts(), None, same_boot=same_boot)
    if result is None:
        return None
    rootfs, record = result
    assert record == identify_path(rootfs.path, Proc().mounts)
    rootfs.close()
    return rootfs.path


@pytest.mark.parametrize("same_boot", [True, False])
def test_an_overlay_is_found_by_its_upper_folder_alone(base: Path, *, same_boot: bool) -> None:
    overlay(base, "a")
    merged = overlay(base, "b")
    overlay(base, "c")
    known = bound(base, merged)
    assert found(known, same_boot=same_boot) == merged
    tmpfs(merged)  # covers it
    assert found(known, same_boot=same_boot) is None
    umount(merged)
    os.rename(base / "b", base / "moved")
    os.symlink(base / "a", base / "b")
    assert found(known, same_boot=same_boot) is None  # the path of its upper folder leads to another one


def test_an_overlay_of_another_root_with_the_same_names_is_not_found(base: Path) -> None:
    """As a container mounts it in its own root, on a shared volume: the mount table shows its path, not which root."""
    merged = overlay(base, "victim")
    known = bound(base, merged)
    root = plant(base / "attacker", {})
    plant(f"{root}{base}/victim", {"lower": {}, "upper": {}, "work": {}, "merged": {}})
    top = f"{base}/victim"
    data = f"lowerdir={top}/lower,upperdir={top}/upper,workdir={top}/work"
    if (pid := os.fork()) == 0:
        try:
            os.chroot(root)
            mount("overlay", f"{top}/merged", "overlay", data=data)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    assert any(info.mount_point == f"{root}{top}/merged" for info in Proc().mounts())
    assert found(known) == merged
    umount(merged)
    assert found(known) is None


def test_no_place_below_a_file_system_that_may_not_answer_is_looked_up(base: Path) -> None:
    rootfs = plant(base / "a/b/rootfs", {})
    place = plant(base / "place", {})
    bind(rootfs, place)
    own = identify_path(place, Proc().mounts)["upper"]
    assert own is not None
    assert own["path"] == rootfs
    with Fuse(f"{base}/a/b") as fuse:
        before = fuse.asked()
        table = Proc().mounts()
        assert identify_path(place, Proc().mounts)["upper"] is None
        assert rootfs not in places(table.at(place)[0], table)
        assert fuse.asked() == before


def test_a_folder_is_found_at_its_own_path(base: Path) -> None:
    rootfs = plant(base / "store/rootfs", {})
    known = bound(base, rootfs)
    assert found(known) == rootfs
    os.rename(rootfs, f"{rootfs}.away")
    assert found(known) is None
    plant(rootfs, {})
    assert found(known) is None
