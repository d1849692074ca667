# SPDX-License-Identifier: Apache-2.0
"""Automount points as automount(8) makes them, autofs(5): one with a path of its own, or a folder of keys.

The daemon is a child process. Where somebody comes to a point it mounts a tmpfs with one file there, or says that there
is nothing.
"""

from __future__ import annotations

import fcntl
import os
import signal
import struct
from typing import TYPE_CHECKING

from helpers import mounting

if TYPE_CHECKING:
    from collections.abc import Sequence

# struct autofs_v5_packet, linux/auto_fs.h: version, type, token, device, inode, uid, gid, pid, tgid, length, name.
_PACKET = struct.Struct("=iiIIQIIIII256s4x")
_READY, _FAIL = 0x9360, 0x9361  # AUTOFS_IOC_READY and AUTOFS_IOC_FAIL


class Automount:
    """A context manager: such a point on ``path``, which need not exist. ``exists``: there is something to mount.

    With ``keys`` it is an indirect map: below ``path`` there is something to mount on each of these names. They are
    there before anybody comes if the map ``is_browsable``.
    """

    def __init__(
        self, path: str, *, exists: bool = True, keys: Sequence[str] | None = None, is_browsable: bool = False
    ) -> None:
        self.path = path
        os.makedirs(path, exist_ok=True)
        told, tell = os.pipe2(0)
        self._keys, self._is_browsable, self._exists = keys, is_browsable, exists
        self.pid = mounting.forked(lambda: self._serve(told, tell))
        # The kernel writes to the pipe of the process that mounts. It asks the group of the daemon nothing.
        os.close(told)
        os.close(tell)
        while not any(info.mount_point == path for info in mounting.table()):
            os.sched_yield()
        while is_browsable and keys and not os.path.exists(f"{path}/{keys[-1]}"):
            os.sched_yield()

    def _serve(self, told: int, tell: int) -> None:
        os.setpgid(0, 0)
        kind = "direct" if self._keys is None else "indirect"
        options = f"fd={tell},pgrp={os.getpgrp()},minproto=5,maxproto=5,{kind}"
        mounting.mount("tests", self.path, "autofs", data=options)
        point = os.open(self.path, os.O_RDONLY)
        os.close(tell)
        for key in self._keys if self._keys and self._is_browsable else ():
            os.mkdir(f"{self.path}/{key}")
        while packet := os.read(told, _PACKET.size):
            *_, length, name = _PACKET.unpack(packet)
            key = name[:length].decode()
            place = self.path if self._keys is None else f"{self.path}/{key}"
            is_there = self._exists if self._keys is None else key in self._keys
            if is_there:
                mounting.tmpfs(place)
                with open(f"{place}/word", "w", encoding="ascii") as file:
                    file.write("mounted\n")
            fcntl.ioctl(point, _READY if is_there else _FAIL, _PACKET.unpack(packet)[2])

    def __enter__(self) -> Automount:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
