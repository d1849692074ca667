# SPDX-License-Identifier: Apache-2.0
"""Whether a recorded container lives, judged by the processes and mount namespaces of this machine.

Loaded to judge records of other containers: by list, show and gc, and by a poststop that finds others on its rootfs.
"""

from __future__ import annotations

import posix

from ..kernel import linux
from ..kernel.proc import HiddenError, Proc, boot_id
from ..record.state_file import is_live, is_unseen
from .claims import is_same_namespace, sees, stands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from ..record.state_file import MountRecord, Record
    from .claims import Claims

    Has = Callable[[MountRecord], bool | None]
    Life = Literal["alive", "dead", "unknown"]


class Witness:
    """The mounts and processes of this machine at one moment. ``claims`` are those of all records."""

    def __init__(self, proc: Proc, claims: Claims) -> None:
        self.proc = proc
        self.claims = claims
        self.boot = boot_id()
        self.table = proc.mounts()
        self._processes: dict[int, int] | None = None

    def judge(self, record: Record) -> tuple[Life, str]:
        """Whether a container is "alive", "dead" or "unknown", and the fact that shows it."""
        if record["boot"] != self.boot:
            return "dead", "the host has rebooted since"
        init = record["init"]
        if init is None:
            return "unknown", "its first process is not recorded"
        if is_unseen(init, self.proc):
            return "unknown", f"its first process {init['pid']} is in a pid namespace that /proc does not show here"
        try:
            self.proc.start_time(init["pid"])
        except HiddenError:
            return "unknown", f"procfs hides process {init['pid']}, which may be its first process"
        if is_live(record, self.proc, self.boot):
            return "alive", f"its first process {init['pid']} runs"
        inode = record["namespace"]["inode"]
        if record["namespace"]["kind"] == "container" and inode != self.proc.mount_namespace():
            user = self._process_in(record)
            if user is not None and (in_use := self._why_in_use(record, user)):
                return in_use
            if (file := self._file_of(record)) is not None:
                return (
                    "unknown",
                    f"its first process {init['pid']} has ended, but {file} keeps its mount namespace alive",
                )
        return "dead", f"its first process {init['pid']} has ended"

    def _why_in_use(self, record: Record, user: int) -> tuple[Life, str] | None:
        """Why a container may not have ended while the process ``user`` is in its mount namespace; None if it has.

        A container without binds may have mounts of config.json on mount points that other containers created.
        """
        seen = [*filter(self._seen_by(user, record), record["mounts"])]
        if record["mounts"] and not seen:
            return None
        init = record["init"]
        ended = f"its first process {init['pid'] if init else ''} has ended, but process {user}"
        if is_same_namespace(record, self.proc, user):
            return "alive", f"{ended} {'still sees its binds' if seen else 'is still in its mount namespace'}"
        if not seen:
            return "unknown", f"{ended} is in its mount namespace, or in a newer one with the same number"
        where = f"check the mount on {seen[0]['resolved']} in /proc/{user}/mountinfo"
        return "unknown", f"{ended} sees its binds, or newer mounts with the same ids: {where}"

    def look(self, record: Record) -> Has:
        """A function that returns whether a bind of the record is mounted, None if this user may not find out."""
        inode = record["namespace"]["inode"]
        if record["boot"] != self.boot:
            return lambda _: False
        if is_same_namespace(record, self.proc) is not False:
            claimed = self.claims.against(record)
            return lambda mount: stands(mount, record, self.table, claimed)
        init = record["init"]
        user = init["pid"] if init and self.proc.mount_namespace_of(init["pid"]) == inode else None
        user = user or self._process_in(record)
        if user is not None:
            return self._seen_by(user, record)
        may_look = posix.geteuid() == 0 and not self.proc.in_user_namespace() and self._file_of(record) is None
        return lambda _: False if may_look else None

    def _file_of(self, record: Record) -> str | None:
        """A file that keeps the mount namespace of a record, or one with the same number, alive, namespaces(7)."""
        name = f"mnt:[{record['namespace']['inode']}]"
        file = next((info.mount_point for info in self.table if info.type == "nsfs" and info.root == name), None)
        known = record["namespace"]["unique"]
        if file is None or known is None:
            return file
        try:
            fd = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError:
            return file
        try:
            unique = linux.mount_namespace_id(fd)
        finally:
            posix.close(fd)
        return file if unique in (None, known) else None

    def _process_in(self, record: Record) -> int | None:
        """A process in the mount namespace of a record, None if there is none."""
        # Processes are listed only when needed: usually all neighbours of a poststop live, and none is looked up.
        if self._processes is None:
            self._processes = self.proc.mount_namespaces()
        inode = record["namespace"]["inode"]
        user = self._processes.get(inode)
        if user is not None and self.proc.mount_namespace_of(user) != inode:
            user = self.proc.process_in_namespace(inode)  # the process has left the namespace: search again
        if user is None or is_same_namespace(record, self.proc, user) is False:
            return None
        return user

    def _seen_by(self, pid: int, record: Record) -> Has:
        table, namespace = self.proc.mounts_of(pid), self.proc.mount_namespace_id_of(pid)
        may_look = next(iter(table), None) is not None
        claimed = self.claims.against(record)
        return lambda mount: sees(mount, record, table, namespace, claimed) if may_look else None
