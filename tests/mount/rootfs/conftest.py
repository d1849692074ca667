# SPDX-License-Identifier: Apache-2.0
"""The hostile rootfs, as it is and with procfs and sysfs in it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import hostile_rootfs
from helpers.mounting import mount, plant
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def golden(tmp_path: Path) -> Rootfs:
    plant(tmp_path, {"outside": {"place": {}}, "rootfs-evil": {}})
    return Rootfs(plant(tmp_path / "rootfs", hostile_rootfs.TREE))


@pytest.fixture
def with_proc(golden: Rootfs) -> Rootfs:
    for name, kind in (("proc", "proc"), ("sys", "sysfs"), ("elsewhere", "proc"), ("elsewhere-sys", "sysfs")):
        os.mkdir(f"{golden.path}/{name}")
        mount(kind, f"{golden.path}/{name}", kind)
    plant(golden.path, {"to-proc": "/proc/self/root", "my": {"meminfo": "/proc/meminfo"}})
    return golden
