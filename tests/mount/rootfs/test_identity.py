# SPDX-License-Identifier: Apache-2.0
"""Which rootfs it is, on real file systems: mounted anew, bound elsewhere, replaced, removed, or not mounted now."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, cast

import pytest

from helpers import kernels, mounting
from helpers.mounting import mount, plant, tmpfs, umount
from oci_bind_hook.kernel.proc import Proc
from oci_bind_hook.rootfs.identity import identify_path, is_gone, is_same, keys, may_be_same, primary

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oci_bind_hook.record.state_file import RootfsRecord

MS_BIND = 4096


def known(path: str) -> RootfsRecord:
    return identify_path(path, Proc().mounts)


def told(before: RootfsRecord, now: RootfsRecord) -> tuple[bool, bool]:
    """Whether both are the same rootfs, and lock each other out."""
    return is_same(before, now, same_boot=True), not keys(before).isdisjoint(keys(now))


def overlay(path: Path, at: str, upper: str = "upper", **options: str) -> str:
    """An overlay at a folder below ``path``, which is on a tmpfs; where it is."""
    for name in ("lower", upper, f"work-{upper}", at):
        os.makedirs(path / name, exist_ok=True)
    data = f"lowerdir={path}/lower,upperdir={path}/{upper},workdir={path}/work-{upper}"
    mount("overlay", f"{path}/{at}", "overlay", data=options.get("data", data))
    return f"{path}/{at}"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tmpfs(os.fspath(tmp_path))
    return tmp_path


def test_a_folder_is_known_by_its_numbers_wherever_it_is_bound(base: Path) -> None:
    plant(base / "rootfs", {})
    plant(base / "other", {})
    mount(f"{base}/rootfs", f"{base}/other", None, MS_BIND)
    before = known(f"{base}/rootfs")
    assert told(before, known(f"{base}/other")) == (True, True)
    umount(f"{base}/other")
    assert told(before, known(f"{base}/other")) == (False, False)
    assert before["upper"] is None
    assert [(each["dev"], each["ino"]) for each in before["above"]] == [
        (stat.st_dev, stat.st_ino) for stat in map(os.stat, [*list(map(str, base.parents))[::-1], str(base)])
    ]


def test_a_folder_that_is_bound_has_its_own_path_as_well(base: Path) -> None:
    rootfs, other = plant(base / "store/rootfs", {}), plant(base / "other", {})
    mount(rootfs, other, None, MS_BIND)
    mount(other, other, None, MS_BIND)  # as runtimes bind it on itself
    before = known(other)
    assert before["upper"] == {"path": rootfs, "dev": before["dev"], "ino": before["ino"]}
    assert told(before, known(rootfs)) == told(known(rootfs), before) == (True, True)
    umount(other)
    umount(other)
    assert not is_gone(before, same_boot=True)
    os.rmdir(rootfs)
    assert is_gone(before, same_boot=True)
    mount(other, other, None, MS_BIND)
    assert known(other)["upper"] is None


def test_an_overlay_is_known_by_its_upper_folder_when_it_is_mounted_anew(base: Path) -> None:
    before = known(overlay(base, "merged"))
    keep = overlay(base, "elsewhere", "other")
    os.mkdir(base / "bound")
    mount(f"{base}/merged", f"{base}/bound", None, MS_BIND)
    assert told(before, known(f"{base}/bound")) == (True, True)
    assert told(before, known(keep)) == (False, False)
    umount(f"{base}/bound")
    umount(f"{base}/merged")
    another = overlay(base, "third", "third")
    again = known(mounting.anew(lambda: overlay(base, "new"), before["dev"]))
    assert again["dev"] != before["dev"]
    assert told(before, again) == (True, True)
    assert primary(before) == primary(again)
    assert told(before, known(another)) == (False, False)


def test_another_overlay_with_the_same_device_number_is_another(base: Path) -> None:
    """The kernel gives the number again as soon as it is free."""
    before = known(overlay(base, "merged"))
    umount(f"{base}/merged")
    now = known(overlay(base, "merged", "other"))
    assert not is_same(before, {**now, "dev": before["dev"], "ino": before["ino"]}, same_boot=True)


@pytest.mark.parametrize("name", ["a,b c", "back\\slash", "colon:"])
def test_an_upper_folder_of_any_name_is_found(base: Path, name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace(",", "\\,").replace(":", "\\:")
    for folder in ("lower", "work", name, quoted, "merged"):
        os.makedirs(base / folder, exist_ok=True)
    data = f"lowerdir={base}/lower,upperdir={base}/{quoted},workdir={base}/work"
    mount("overlay", f"{base}/merged", "overlay", data=data)
    upper = known(f"{base}/merged")["upper"]
    assert upper is not None
    assert upper["path"] == f"{base}/{name}"


def test_an_upper_folder_that_was_given_relative_is_found_beside_the_rootfs(base: Path) -> None:
    """As docker gives it where there are many layers."""
    for folder in ("l1", "l1/lower", "l1/diff", "l1/work", "l1/merged"):
        os.mkdir(base / folder)
    os.chdir(base)
    mount("overlay", "l1/merged", "overlay", data="lowerdir=l1/lower,upperdir=l1/diff,workdir=l1/work")
    os.chdir("/")
    upper = known(f"{base}/l1/merged")["upper"]
    assert upper is not None
    assert upper["path"] == f"{base}/l1/diff"


def test_an_overlay_whose_upper_folder_cannot_be_found_is_known_as_long_as_it_is_mounted(base: Path) -> None:
    before = known(overlay(base, "merged"))
    os.rename(base / "upper", base / "away")
    hidden = known(f"{base}/merged")
    assert hidden["upper"] is None
    assert told(before, hidden) == (True, True)


def test_a_folder_in_an_overlay_is_not_the_overlay(base: Path) -> None:
    plant(base / "upper", {"one": {}, "two": {}})
    merged = overlay(base, "merged")
    one, two = known(f"{merged}/one"), known(f"{merged}/two")
    assert told(one, two) == (False, False)
    assert told(one, known(merged)) == (False, False)


def test_after_a_restart_the_path_and_the_inode_number_count(base: Path) -> None:
    plant(base / "rootfs", {})
    now = known(f"{base}/rootfs")
    before: RootfsRecord = {**now, "dev": 1}
    assert told(before, now) == (False, True)
    assert is_same(before, now, same_boot=False)
    for other in ({**before, "ino": 1}, {**before, "path": "/elsewhere"}):
        assert not is_same(cast("RootfsRecord", other), now, same_boot=False)
    assert may_be_same({**before, "ino": 1}, now, same_boot=False)
    assert not may_be_same({**before, "path": "/elsewhere"}, now, same_boot=False)


# What became of a rootfs, in the same boot, and whether it is gone for good.
def removed(base: Path) -> None:
    shutil.rmtree(base / "b/rootfs")


def removed_with_its_bundle(base: Path) -> None:
    shutil.rmtree(base / "b")


def replaced(base: Path) -> None:
    os.rename(base / "b/rootfs", base / "old")
    os.mkdir(base / "b/rootfs")


def bundle_replaced(base: Path) -> None:
    os.rename(base / "b", base / "old")
    os.makedirs(base / "b")


def replaced_by_a_file(base: Path) -> None:
    os.rmdir(base / "b/rootfs")
    (base / "b/rootfs").write_bytes(b"")


def moved_behind_a_link(base: Path) -> None:
    os.rename(base / "b", base / "larger")
    os.symlink("larger", base / "b")


def covered(base: Path) -> None:
    tmpfs(f"{base}/b")


def covered_itself(base: Path) -> None:
    tmpfs(f"{base}/b/rootfs")


def unmounted(base: Path) -> None:
    mounting.umount(os.fspath(base))


def another_mounted(base: Path) -> None:
    number = os.stat(base).st_dev
    umount(os.fspath(base))
    mounting.anew(lambda: tmpfs(os.fspath(base)), number)


def dead(base: Path) -> None:
    os.close(mounting.dead_fuse(f"{base}/b"))


def nothing(_: Path) -> None:
    pass


@pytest.mark.parametrize("become", [removed, removed_with_its_bundle, replaced, bundle_replaced, replaced_by_a_file])
def test_what_was_removed_or_replaced_is_gone(base: Path, become: Callable[[Path], None]) -> None:
    assert gone(base, become)


@pytest.mark.parametrize(
    "become", [nothing, moved_behind_a_link, covered, covered_itself, unmounted, another_mounted, dead]
)
def test_what_is_not_seen_now_is_not_gone(base: Path, become: Callable[[Path], None]) -> None:
    assert not gone(base, become)


def gone(base: Path, become: Callable[[Path], None]) -> bool:
    os.makedirs(base / "b/rootfs")
    before = known(f"{base}/b/rootfs")
    become(base)
    return is_gone(before, same_boot=True)


@pytest.mark.parametrize("same_boot", [True, False])
def test_an_overlay_is_gone_with_its_upper_folder(base: Path, *, same_boot: bool) -> None:
    merged = overlay(base, "c1/merged", "c1/diff")
    before = known(merged)
    umount(merged)
    assert not is_gone(before, same_boot=same_boot)
    os.rmdir(merged)  # as docker does when a container stops
    assert not is_gone(before, same_boot=same_boot)
    shutil.rmtree(base / "c1")
    assert is_gone(before, same_boot=same_boot)


def test_where_the_folders_above_are_not_recorded_nothing_is_known_to_be_gone(base: Path) -> None:
    """As in records of version 1."""
    os.mkdir(base / "rootfs")
    before = known(f"{base}/rootfs")
    os.rmdir(base / "rootfs")
    assert is_gone(before, same_boot=True)
    assert not is_gone({**before, "above": []}, same_boot=True)


@pytest.mark.parametrize("same_boot", [True, False])
@pytest.mark.parametrize("kernel_is", ["this", "before 4.11"])
def test_a_mount_point_that_was_removed_with_its_mount_is_not_gone(
    base: Path, kernel_is: str, *, same_boot: bool
) -> None:
    """As udisks, autofs and podman remove it: what is missing there may be mounted again."""
    kernels.play(kernel_is)
    disk = tmpfs(f"{base}/media/disk")
    plant(base / "kept", {})
    mount(disk, f"{base}/kept", None, MS_BIND)
    os.makedirs(f"{disk}/b/rootfs")
    inside, itself = known(f"{disk}/b/rootfs"), known(disk)
    umount(disk)
    assert not is_gone(inside, same_boot=same_boot)
    os.rmdir(disk)
    for each in (inside, itself):
        assert not is_gone(each, same_boot=same_boot)
    mount(f"{base}/kept", folder(disk), None, MS_BIND)
    shutil.rmtree(f"{disk}/b")
    assert is_gone(inside, same_boot=same_boot)
    umount(disk)
    shutil.rmtree(f"{base}/media")
    assert not is_gone(inside, same_boot=same_boot)
    # Who mounts a rootfs removes the folder with the container, if it was not lost with a /run in memory.
    assert is_gone(itself, same_boot=same_boot) is same_boot


@pytest.mark.kernel(5, 8)
def test_a_bind_of_the_same_file_system_is_a_mount_point_as_well(base: Path) -> None:
    plant(base / "disk", {"b": {"rootfs": {}}})
    plant(base / "bound", {})
    mount(f"{base}/disk", f"{base}/bound", None, MS_BIND)
    before = known(f"{base}/bound/b/rootfs")
    umount(f"{base}/bound")
    os.rmdir(base / "bound")
    assert not is_gone(before, same_boot=True)
    os.symlink("disk", base / "bound")
    assert not is_gone(before, same_boot=True)


def folder(path: str) -> str:
    os.makedirs(path)
    return path


@pytest.mark.parametrize("same_boot", [True, False])
def test_what_a_runtime_has_bound_on_itself_is_no_mount_point_outside(base: Path, *, same_boot: bool) -> None:
    """As a hook sees it at createContainer."""
    rootfs = f"{base}/b/rootfs"
    os.makedirs(rootfs)
    mount(rootfs, rootfs, None, MS_BIND)
    before = known(rootfs)
    umount(rootfs)
    os.rmdir(rootfs)
    assert is_gone(before, same_boot=same_boot)
