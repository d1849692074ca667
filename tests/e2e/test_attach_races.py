# SPDX-License-Identifier: Apache-2.0
"""The container's own root is in the way all the time while something is attached to it and detached: it gains nothing,
nothing hangs, and nothing is left outside.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from helpers.rival import exchange
from helpers.running import pivot
from helpers.sweep import Scene, assert_same

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.kernel(5, 12)

CODES = {0, os.EX_NOINPUT, os.EX_UNAVAILABLE, os.EX_OSERR, os.EX_IOERR, os.EX_NOPERM, os.EX_CONFIG}
IN_CREATE, IN_MOVED_TO = 0x100, 0x80
_libc = ctypes.CDLL(None)
MS_MOVE, MS_SHARED, MS_PRIVATE, MS_REC = 0x2000, 1 << 20, 1 << 18, 0x4000


def _rename() -> None:
    exchange("/made", "/evil")


def _mount_over() -> None:
    mounting.tmpfs("/made")
    os.makedirs("/made/deep")
    mounting.umount("/made", mounting.MNT_DETACH)


def _mount_over_root() -> None:
    mounting.tmpfs("/")
    mounting.umount("/", mounting.MNT_DETACH)


def _bind_root() -> None:
    # Each one that a rival before has left would double the mounts of the container.
    with contextlib.suppress(OSError):
        mounting.umount("/made", mounting.MNT_DETACH)
    mounting.bind("/", "/made", recursive=True)
    mounting.umount("/made", mounting.MNT_DETACH)


def _move() -> None:
    mounting.mount("/empty", "/shared", None, MS_MOVE)
    mounting.umount("/shared", mounting.MNT_DETACH)


def _unmount() -> None:
    for place in ("/empty", "/made/deep/folder", "/etc/one-file"):
        with contextlib.suppress(OSError):
            mounting.umount(place, mounting.MNT_DETACH)


def _share() -> None:
    mounting.propagate("/", MS_SHARED | MS_REC)
    mounting.propagate("/", MS_PRIVATE | MS_REC)


def _serve() -> None:
    """A FUSE that answers nobody. Whoever asked it would be held until the server has ended, which is this process."""
    server = os.open("/dev/fuse", os.O_RDWR)
    try:
        mounting.mount("nobody", "/made", "fuse", data=f"fd={server},rootmode=40000,user_id=0,group_id=0")
        mounting.umount("/made", mounting.MNT_DETACH)
    finally:
        os.close(server)


def _pivot() -> None:
    mounting.bind("/", "/made")
    pivot("/made")


RIVALS: dict[str, Callable[[], None]] = {
    "renames": _rename,
    "mounts over": _mount_over,
    "mounts over its root": _mount_over_root,
    "binds its root": _bind_root,
    "moves": _move,
    "unmounts": _unmount,
    "shares": _share,
    "serves": _serve,
    "pivots": _pivot,
}


def numbers(short: int, long: int) -> pytest.MarkDecorator:
    """How many ``runs``: in every test run, and with ``-m long``."""
    forms = [pytest.param(short, id=f"{short}"), pytest.param(long, id=f"{long}", marks=pytest.mark.long)]
    return pytest.mark.parametrize("runs", forms)


@contextlib.contextmanager
def rival(pid: int, act: Callable[[], None]) -> Iterator[memoryview]:
    """A process in the mount namespace of ``pid`` that does ``act`` all the time, and counts it."""
    count = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")

    def work() -> None:
        mounting.enter(pid)
        os.chdir("/")
        while True:
            with contextlib.suppress(OSError):
                act()
            count[0] += 1

    child = mounting.forked(work)
    try:
        while not count[0]:
            os.sched_yield()
        yield count
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("what", RIVALS)
@numbers(6, 400)
def test_a_rival_inside_gains_nothing(tmp_path: Path, launcher: str, what: str, runs: int) -> None:
    scene = Scene(tmp_path, launcher, "running")
    os.mkdir(f"{scene.rootfs}/made")
    os.mkdir(f"{scene.rootfs}/evil")
    scene.base = scene.look()
    fuse = os.open("/dev/fuse", os.O_RDWR)
    os.close(fuse)
    outside = {name: value for name, value in scene.base.items() if name in ("source", "mounts")}
    met, codes = 0, []
    scene.start_container()
    assert scene.container is not None
    for _ in range(runs):
        with rival(scene.container.pid, RIVALS[what]) as count:
            before = count[0]
            done = scene.run(*scene.begin("set-up"))
            undone = scene.run(*scene.begin("detach"))
            met += count[0] > before
        codes += [done.returncode, undone.returncode]
        assert done.returncode in CODES, done
        assert undone.returncode in CODES, undone
        for each in (done, undone):
            lines = each.stderr.splitlines()
            assert len(lines) == 1 if each.returncode else all(" warning: " in line for line in lines), each
        now = scene.look()
        assert_same(now, outside)
    scene.tear_down()
    # Only what a mount point is in may have been carried away with it.
    assert_same(scene.look(), outside | {"state": scene.base["state"]})
    assert met == runs
    print(f"{what}: {runs} runs, codes {sorted({(code, codes.count(code)) for code in codes})}")


# When the container ends: once there has been such a file in the state folder, by the event of inotify(7).
MOMENTS = {"c1.lock": IN_CREATE, "c1.new": IN_CREATE, "c1.json": IN_MOVED_TO}


def notified(folder: str, events: int) -> int:
    """An fd from which the events in a folder are read, inotify(7)."""
    fd = _libc.inotify_init1(os.O_CLOEXEC)
    assert fd >= 0
    assert _libc.inotify_add_watch(fd, os.fsencode(folder), events) >= 0
    return int(fd)


@pytest.mark.parametrize("moment", MOMENTS)
@numbers(4, 300)
def test_a_container_that_ends_meanwhile_leaves_nothing(tmp_path: Path, launcher: str, moment: str, runs: int) -> None:
    scene = Scene(tmp_path, launcher, "running")
    codes = []
    for _ in range(runs):
        scene.start_container()
        assert scene.container is not None
        pid = scene.container.pid
        begun = scene.begin("set-up")

        events = notified(str(scene.state), MOMENTS[moment])

        def watch(pid: int = pid, events: int = events) -> None:
            while moment.encode() not in os.read(events, 1 << 16):
                pass
            os.kill(pid, signal.SIGKILL)

        killer = mounting.forked(watch)
        done = scene.run(*begun)
        os.waitpid(killer, 0)
        os.close(events)
        codes.append(done.returncode)
        assert done.returncode in CODES, done
        scene.container = None
        os.waitpid(pid, 0)
        scene.tear_down()
        assert_same(scene.look(), scene.base)
    print(f"{moment}: {runs} runs, codes {sorted({(code, codes.count(code)) for code in codes})}")


def test_a_container_that_is_frozen_holds_up_nobody(tmp_path: Path, launcher: str) -> None:
    scene = Scene(tmp_path, launcher, "running")
    scene.start_container()
    assert scene.container is not None
    os.kill(scene.container.pid, signal.SIGSTOP)
    for act in ("set-up", "detach"):
        assert scene.run(*scene.begin(act)) == (0, "")
    os.kill(scene.container.pid, signal.SIGCONT)
    scene.tear_down()
    assert_same(scene.look(), scene.base)
