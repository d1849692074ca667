# SPDX-License-Identifier: Apache-2.0
"""Whether a recorded container lives, by the processes and mount namespaces of this machine.

Loaded where other records than the caller's own are judged: by list, show and gc, and by a poststop that finds others
on its rootfs.
"""

from __future__ import annotations

import posix

from ..kernel.proc import Proc, boot_id
from ..mounting.mounted import find, is_in
from ..record.state_file import is_live, is_unseen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from ..record.state_file import MountRecord, Record

    Has = Callable[[MountRecord], bool | None]
    Life = Literal["alive", "dead", "unknown"]


class Witness:
    """The mounts and processes of this machine at one moment."""

    def __init__(self, proc: Proc) -> None:
        self.proc = proc
        self.boot = boot_id()
        self.table = proc.mounts()
        self._processes: dict[int, int] | None = None
        self._files_of_namespaces = {info.root for info in self.table if info.type == "nsfs"}

    def judge(self, record: Record) -> tuple[Life, str]:
        """Whether a container is "alive", "dead" or "unknown", and by which fact."""
        if record["boot"] != self.boot:
            return "dead", "the machine was started anew since"
        init = record["init"]
        if init is None:
            return "unknown", "no first process is recorded that could tell whether it lives"
        if is_unseen(init, self.proc):
            return "unknown", f"its first process {init['pid']} is in another pid namespace than what /proc shows here"
        if is_live(record, self.proc, self.boot):
            return "alive", f"its first process {init['pid']} runs"
        inode = record["namespace"]["inode"]
        if record["namespace"]["kind"] == "container" and inode != self.proc.mount_namespace() and record["mounts"]:
            user = self._process_in(inode)
            if user is not None and any(map(self._seen_by(user), record["mounts"])):
                return "alive", f"its first process {init['pid']} has ended, but process {user} still sees its binds"
        return "dead", f"its first process {init['pid']} has ended"

    def look(self, record: Record) -> Has:
        """A function that says whether a bind of the record is mounted, None if this user may not look."""
        inode = record["namespace"]["inode"]
        if record["boot"] != self.boot:
            return lambda _: False
        if inode == self.proc.mount_namespace():
            return lambda mount: find(mount["attached"][0], self.table) is not None
        init = record["init"]
        user = init["pid"] if init and self.proc.mount_namespace_of(init["pid"]) == inode else None
        user = user or self._process_in(inode)
        if user is not None:
            return self._seen_by(user)
        is_kept = f"mnt:[{inode}]" in self._files_of_namespaces
        may_look = posix.geteuid() == 0 and not self.proc.in_user_namespace()
        return lambda _: False if may_look and not is_kept else None

    def _process_in(self, inode: int) -> int | None:
        """A process in the mount namespace ``inode``, None if there is none. Looks at all only if that one has left."""
        # A poststop asks about its neighbours, and mostly all of them live: then no process is looked at.
        if self._processes is None:
            self._processes = self.proc.mount_namespaces()
        user = self._processes.get(inode)
        is_there = user is None or self.proc.mount_namespace_of(user) == inode
        return user if is_there else self.proc.process_in_namespace(inode)

    def _seen_by(self, pid: int) -> Has:
        table, namespace = self.proc.mounts_of(pid), self.proc.mount_namespace_id_of(pid)
        may_look = next(iter(table), None) is not None
        return lambda mount: is_in(mount["attached"][0], table, namespace) if may_look else None
