# SPDX-License-Identifier: Apache-2.0
"""What may be covered: not the root, nothing on procfs or sysfs but a few files, and only by a source of its kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.mounting import mount, plant, tmpfs
from oci_bind_hook.errors import EscapeError, RequestError
from oci_bind_hook.rootfs.admit import admit
from oci_bind_hook.rootfs.mount_points import Rootfs
from oci_bind_hook.rootfs.walk import Cover

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("destination", "directory", "problem"),
    [
        ("/", True, "is the rootfs itself"),
        ("//", True, "is the rootfs itself"),
        ("/..", True, "is the rootfs itself"),
        (".", True, "is the rootfs itself"),
        ("/root", True, "is the rootfs itself"),
        ("/root-above", True, "is the rootfs itself"),
        ("/missing/..", True, "is the rootfs itself"),
        ("/proc", True, "on procfs"),
        ("/proc/self/attr/exec", False, "on procfs"),
        ("/proc/sys/kernel/core_pattern", False, "on procfs"),
        ("/proc/sysrq-trigger", False, "on procfs"),
        ("/proc/acpi", True, "on procfs"),
        ("/proc/new", True, "on procfs"),
        ("/proc/mounts", False, "on procfs"),
        ("/elsewhere", True, "on procfs"),
        ("/elsewhere/meminfo", False, "on procfs"),
        ("/elsewhere/new", False, "on procfs"),
        ("/sys", True, "on sysfs"),
        ("/sys/kernel", True, "on sysfs"),
        ("/elsewhere-sys/kernel", True, "on sysfs"),
        ("/sys/new", True, "on sysfs"),
    ],
)
def test_root_procfs_and_sysfs_are_refused(with_proc: Rootfs, destination: str, directory: bool, problem: str) -> None:
    with pytest.raises(EscapeError, match=problem):
        admit(with_proc, with_proc.resolve(destination), directory=directory)


@pytest.mark.parametrize(
    "destination", ["/proc/cpuinfo", "/proc/uptime", "/proc/sys/kernel/ns_last_pid", "/my/meminfo"]
)
def test_some_files_of_procfs_may_be_covered(with_proc: Rootfs, destination: str) -> None:
    admit(with_proc, with_proc.resolve(destination), directory=False)


@pytest.mark.parametrize("name", ["proc", "sys", "proc/new", "sys/new", "proc/meminfo/"])
def test_their_places_are_refused_even_where_nothing_is_mounted(golden: Rootfs, name: str) -> None:
    with pytest.raises(EscapeError, match=f"on {name.partition('/')[0]}"):
        admit(golden, golden.resolve(f"/{name}"), directory=True)


def test_what_a_link_in_place_of_proc_leads_to_is_no_procfs(tmp_path: Path) -> None:
    rootfs = Rootfs(plant(tmp_path / "rootfs", {"proc": "/bad", "bad": {"sys": {}}, "dev": "/../../outside"}))
    assert rootfs.resolve("/proc/sys").path == "/bad/sys"
    with pytest.raises(EscapeError, match="/proc is a link to /bad, but must be a folder"):
        admit(rootfs, rootfs.resolve("/proc/sys"), directory=True)
    mount("proc", f"{rootfs.path}/bad", "proc")
    with pytest.raises(EscapeError, match="on procfs"):
        admit(rootfs, rootfs.resolve("/bad/sys"), directory=True)
    target = rootfs.resolve("/dev/null")
    missing = [step.name for step in target.missing]
    assert (target.path, len(target.links), missing) == ("/outside/null", 1, ["outside", "null"])


@pytest.mark.parametrize(
    ("destination", "directory", "problem"),
    [
        ("/etc", False, "the source is a file, but /etc is a folder"),
        ("/file", True, "the source is a folder, but /file is a file"),
        ("/to-file", True, "the source is a folder, but /file is a file"),
        ("/new/", False, "/new must be a folder, but the source is a file"),
        ("/dangling/.", False, "/absent/place must be a folder, but the source is a file"),
    ],
)
def test_source_and_mount_point_are_of_one_kind(
    golden: Rootfs, destination: str, directory: bool, problem: str
) -> None:
    with pytest.raises(RequestError, match=problem):
        admit(golden, golden.resolve(destination), directory=directory)


def test_nothing_is_missing_inside_another_mount(golden: Rootfs) -> None:
    tmpfs(f"{golden.path}/real/conf")
    golden.reserve(golden.resolve("/relative"), Cover("bind"), directory=True)
    with pytest.raises(RequestError, match="inside another mount") as refused:
        golden.reserve(golden.resolve("/relative/new"), Cover("bind"), directory=True)
    assert refused.value.hint == "create it in the source of that mount"
