# SPDX-License-Identifier: Apache-2.0
"""What a container that runs can do to keep attach waiting, with the locks of its id and its rootfs."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from helpers.fuse import Fuse
from helpers.running import Running
from helpers.world import call, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

pytestmark = pytest.mark.kernel(5, 12)

_libc = ctypes.CDLL(None, use_errno=True)
FAN_CLASS_CONTENT = 4
FAN_MARK_ADD_MOUNT = 0x11
FAN_OPEN_PERM, FAN_ACCESS_PERM = 0x10000, 0x20000


def ask_leave() -> None:
    """From now on whoever opens a file below ``/`` waits for this process, fanotify(7), which never answers."""
    group = _libc.fanotify_init(FAN_CLASS_CONTENT, os.O_RDONLY)
    assert group >= 0, os.strerror(ctypes.get_errno())
    mask = ctypes.c_uint64(FAN_OPEN_PERM | FAN_ACCESS_PERM)
    assert _libc.fanotify_mark(group, FAN_MARK_ADD_MOUNT, mask, -1, b"/") == 0, os.strerror(ctypes.get_errno())


def test_nobody_is_asked_for_leave_to_make_a_file(world: World) -> None:
    with Running(world, is_admin=True) as container:
        ready, told = os.pipe()

        def watch() -> None:
            mounting.enter(container.pid)
            os.chdir("/")
            ask_leave()
            os.write(told, b"!")
            while True:
                signal.pause()

        watcher = mounting.forked(watch)
        assert os.read(ready, 1) == b"!"
        os.close(ready)
        os.close(told)
        try:
            done = container.attach("--mount", f"src={world.file},dst=/new/file", before=("timeout", "10"))
            assert (done.returncode, container.points()) == (0, ["/new/file"]), done
            done = container.detach("--all", before=("timeout", "10"))
            assert (done.returncode, os.path.exists(f"{world.rootfs}/new")) == (0, False), done
        finally:
            os.kill(watcher, signal.SIGKILL)
            os.waitpid(watcher, 0)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_server_of_the_rootfs_that_cannot_make_a_file_alone(world: World, error: int) -> None:
    """A start makes it by open(2). attach does not, since somebody in the container could keep it waiting."""
    with Fuse(f"{world.path}/fuse", {"dev": {}, "proc": {}, "etc": {}}) as fuse:
        fuse.refuse("MKNOD", error)
        world.rootfs = fuse.path
        words = ["--mount", f"src={world.file},dst=/etc/file"]
        with Running(world) as container:
            done = container.attach(*words)
            assert (done.returncode, "the server of the rootfs lacks mknod(2)" in done.stderr) == (
                71,
                True,
            ), done
            assert (container.points(), os.listdir(f"{fuse.path}/etc")) == ([], [])
        sent = state(world, bundle=container.bundle)
        done = call(world, "prestart", *words, stdin=sent)
        assert (done.returncode, mounted(world)) == (0, ["/etc/file"]), done
        done = call(world, "poststop", stdin=state(world, status="stopped", bundle=container.bundle))
        assert (done.returncode, os.listdir(f"{fuse.path}/etc")) == (0, []), done
        mounting.umount(fuse.path)


def test_the_mount_table_is_not_read_for_each_folder(world: World) -> None:
    """The container can make it very long: 3000 mounts and 100 folders took seven seconds."""
    counts = []
    with Running(world) as container:
        for depth in (2, 40):
            place = "/dev" + "/d" * depth
            container.do(lambda place=place: os.makedirs(place, exist_ok=True))  # type: ignore[misc]
            trace = world.path / "trace"
            traced = ("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=openat")
            spec = ["--mount", f"src={world.source},dst={place}"]
            assert container.attach(*spec, before=traced).returncode == 0
            attached = trace.read_text().count('"mountinfo"')
            assert container.detach("--all", before=traced).returncode == 0
            counts.append((attached, trace.read_text().count('"mountinfo"')))
    assert counts[0] == counts[1]


def test_the_mount_table_is_not_read_for_each_link_that_leads_back(world: World) -> None:
    """Links of a container can lead from one mount to another and back: forty of them, of 4096 bytes each."""
    counts = []
    trace = world.path / "trace"
    with Running(world) as container:
        for times in (1, 100):

            def lay(times: int = times) -> None:
                if times == 1:
                    mounting.tmpfs("/tmp")
                os.symlink("/dev/../tmp/.." * times + "/real/new", f"/bounce-{times}")

            container.do(lay)
            traced = ("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=openat")
            done = container.attach("--mount", f"src={world.source},dst=/bounce-{times}", before=traced)
            assert done.returncode == 0, done
            counts.append(trace.read_text().count('"mountinfo"'))
            assert container.detach("--all").returncode == 0
    assert counts[0] == counts[1]
