# SPDX-License-Identifier: Apache-2.0
"""A container that runs, without a runtime: a process that has made a rootfs its root, as runtimes do before the end of
`create`, and waits. What its own root might do is done in its mount namespace by ``do``.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
from typing import TYPE_CHECKING

from helpers import mounting, support
from oci_bind_hook.kernel import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from helpers.world import World

_libc = ctypes.CDLL(None, use_errno=True)


def _drop_from_bounding(capability: int) -> None:
    assert _libc.prctl(24, capability, 0, 0, 0) == 0  # PR_CAPBSET_DROP


def pivot(rootfs: str) -> None:
    """Makes ``rootfs``, which is a mount, the root of this mount namespace, pivot_root(2)."""
    os.chdir(rootfs)
    if _libc.pivot_root(b".", b".") != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), rootfs)
    mounting.umount(".", mounting.MNT_DETACH)
    os.chdir("/")


def init(rootfs: str, *, is_admin: bool = False) -> int:
    """The pid of a process with a mount namespace of its own, in which ``rootfs`` is ``/`` and /dev a tmpfs.

    Its bounding set has CAP_SYS_ADMIN if it ``is_admin``.
    """
    ready, told = os.pipe()

    def act() -> None:
        mounting.unshare()
        mounting.bind(rootfs, rootfs, recursive=True)
        mounting.tmpfs(f"{rootfs}/dev")
        if os.path.isdir(f"{rootfs}/proc"):
            mounting.mount("proc", f"{rootfs}/proc", "proc")
        pivot(rootfs)
        if not is_admin:
            _drop_from_bounding(linux.CAP_SYS_ADMIN)
        signal.signal(signal.SIGUSR1, lambda *_: mounting.unshare())
        os.write(told, b"!")
        while True:
            signal.pause()

    pid = mounting.forked(act)
    os.close(told)
    assert os.read(ready, 1) == b"!"
    os.close(ready)
    return pid


def without_admin(bundle: str) -> str:
    """The bundle, with a config.json that gives no CAP_SYS_ADMIN."""
    path = f"{bundle}/config.json"
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    config["process"]["capabilities"] = {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    return bundle


class Running:
    """The container ``name`` of a world, with its bundle; a context manager, which ends it and leaves its record."""

    def __init__(self, world: World, name: str = "c1", *, is_admin: bool = False) -> None:
        self.world = world
        self.name = name
        self.bundle = str(world.path / f"bundle-{name}")
        support.bundle(self.bundle, ["true"], rootfs=world.rootfs)
        if not is_admin:
            without_admin(self.bundle)
        self.pid = init(world.rootfs, is_admin=is_admin)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    @property
    def named(self) -> list[str]:
        """The words that name it to attach and detach, whether it has a record or not."""
        return [self.name, "--bundle", self.bundle, "--pid", str(self.pid)]

    def attach(self, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return run(self.world, "attach", *self.named, *words, before=before)

    def detach(self, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
        return run(self.world, "detach", *self.named, *words, before=before)

    def do(self, action: Callable[[], object]) -> None:
        """Does something in its mount namespace, and waits for it. AssertionError if that fails."""

        def act() -> None:
            mounting.enter(self.pid)
            os.chdir("/")
            action()

        assert mounting.ended_well(mounting.forked(act))

    def unshare(self) -> None:
        """Its first process moves to another mount namespace, which it makes."""
        before = os.readlink(f"/proc/{self.pid}/ns/mnt")
        os.kill(self.pid, signal.SIGUSR1)
        while os.readlink(f"/proc/{self.pid}/ns/mnt") == before:
            os.sched_yield()

    def points(self) -> list[str]:
        """Where something is mounted in it, besides what was there from the start."""
        found = [info.mount_point for info in mounting.table(self.pid)]
        return sorted(point for point in found if point not in ("/", "/dev", "/proc"))


def run(world: World, *words: str, before: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """The launcher with these words, and the state folder of the world."""
    command = [*before, world.launcher, *words, *world.root_option()]
    return subprocess.run(command, capture_output=True, text=True, timeout=support.TIMEOUT, check=False)
