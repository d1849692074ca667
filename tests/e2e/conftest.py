# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the launcher as it is installed, and a world for one test."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from helpers.world import World
from oci_bind_hook.commands.engines.install import install

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The launcher as `oci-bind-hook install` writes it."""
    prefix = tmp_path_factory.mktemp("prefix")
    prefix.chmod(0o755)
    path, _ = install(str(prefix))
    return path


@pytest.fixture
def world(tmp_path: Path, launcher: str) -> World:
    return World(tmp_path, launcher)


@pytest.fixture
def mute(world: World) -> Iterator[int]:
    """A FUSE file system on /mute of the rootfs that says hello to the kernel, and then answers nothing."""
    os.mkdir(f"{world.rootfs}/mute")
    server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    words = f"fd={server},rootmode=40000,user_id=0,group_id=0"
    subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", words, "mute", f"{world.rootfs}/mute"], check=True, pass_fds=[server]
    )
    unique = struct.unpack_from("=IIQ", os.read(server, 1 << 17))[2]
    hello = struct.pack("=IIIIHHII32x", 7, 31, 1 << 16, 0, 12, 9, 1 << 16, 1)
    os.write(server, struct.pack("=IiQ", 16 + len(hello), 0, unique) + hello)
    yield server
    os.close(server)
    mounting.umount(f"{world.rootfs}/mute", mounting.MNT_DETACH)
