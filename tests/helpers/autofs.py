# SPDX-License-Identifier: Apache-2.0
"""An automount point with a path of its own, as automount(8) makes it for a direct map, autofs(5).

The daemon is a child process. Where somebody comes to the point it mounts a tmpfs with one file there, or says that
there is nothing.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct

from helpers import mounting

# struct autofs_v5_packet, linux/auto_fs.h: version, type, token, device, inode, uid, gid, pid, tgid, length, name.
_PACKET = struct.Struct("=iiIIQIIIII256s4x")
_READY, _FAIL = 0x9360, 0x9361  # AUTOFS_IOC_READY and AUTOFS_IOC_FAIL


class Automount:
    """A context manager: such a point on ``path``, which need not exist. ``exists``: there is something to mount."""

    def __init__(self, path: str, *, exists: bool = True) -> None:
        self.path = path
        os.makedirs(path, exist_ok=True)
        told, tell = os.pipe2(0)
        self.pid = mounting.forked(lambda: self._serve(told, tell, exists=exists))
        # The kernel writes to the pipe of the process that mounts. It asks the group of the daemon nothing.
        os.close(told)
        os.close(tell)
        while not any(info.mount_point == path for info in mounting.table()):
            os.sched_yield()

    def _serve(self, told: int, tell: int, *, exists: bool) -> None:
        os.setpgid(0, 0)
        options = f"fd={tell},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
        mounting.mount("tests", self.path, "autofs", data=options)
        point = os.open(self.path, os.O_RDONLY)
        os.close(tell)
        while packet := os.read(told, _PACKET.size):
            token = _PACKET.unpack(packet)[2]
            if exists:
                mounting.tmpfs(self.path)
                with open(f"{self.path}/word", "w", encoding="ascii") as file:
                    file.write("mounted\n")
            fcntl.ioctl(point, _READY if exists else _FAIL, token)

    def __enter__(self) -> Automount:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
