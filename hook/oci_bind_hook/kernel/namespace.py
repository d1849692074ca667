# SPDX-License-Identifier: Apache-2.0
"""The mount namespace in which binds are attached, and the mounts of it and of the one before, from mountinfo.

Loaded by every start of a container.
"""

from __future__ import annotations

import posix

from . import files, linux
from .mountinfo import MountTable
from .proc import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..record.state_file import NamespaceKind
    from .mountinfo import MountInfo
    from .proc import Proc


class Namespace:
    """The mount namespace in which binds are attached: at first the one in which the hook was started.

    ``kind`` is "container" if the runtime created it for the container, otherwise "runtime". ``entered`` is true after
    this process has entered another one. ``assumed``: a dry-run, which assumes that the runtime's mounts exist.
    """

    def __init__(self, proc: Proc, kind: NamespaceKind, *, assumed: bool = False) -> None:
        self.proc = proc
        self.kind = kind
        self.assumed = assumed
        self.entered = False
        self.inode = proc.mount_namespace()
        self.root = posix.stat("/")  # of the process, before it enters another one
        # Opened here, because after setns(2) procfs shows the new namespace. Read only when needed, as it may be long.
        self._before = proc.open("mountinfo")
        self._tables: dict[str, MountTable] = {}
        self._groups: set[int | None] | None = None
        self._devices: dict[str, set[int]] = {}
        self._masters: dict[str, set[int | None]] = {}

    def enter(self, pidfd: int) -> None:
        """Enters the mount namespace of the process ``pidfd``. Nothing can be imported afterwards. Raises OSError."""
        linux.enter_mount_namespace(pidfd)
        inode = self.proc.mount_namespace()
        self.entered = inode != self.inode
        self.inode = inode

    def started_in(self) -> MountTable:
        """The mounts of the namespace in which the hook was started, also after ``enter``. Raises OSError."""
        if "before" not in self._tables:
            self._tables["before"] = self._read_before()
        return self._tables["before"]

    def _read_before(self) -> MountTable:
        with files.Named("/proc/self/mountinfo"):
            return MountTable(read_text(self._before))

    def groups_started_in(self) -> set[int | None]:
        """The peer groups of ``started_in``, and None if a mount there has none."""
        if self._groups is None:
            self._groups = {info.shared for info in self.started_in()}
        return self._groups

    def here(self) -> MountTable:
        """The mounts of the current namespace, as they were before the hook's first change."""
        if not self.entered:
            return self.started_in()
        if "here" not in self._tables:
            self._tables["here"] = self.proc.mounts()
        return self._tables["here"]

    def mount_of(self, stat: files.Stat) -> MountInfo | None:
        """The mount through which a file was reached, None if it is not in the current namespace."""
        return self.here().get(stat.mnt_id)

    def type_of(self, stat: files.Stat) -> str | None:
        """The type of the file system that a file is on, None if its mount is not in the current namespace."""
        info = self.mount_of(stat)
        return info.type if info is not None else None

    def is_locked_by_host(self, stat: files.Stat) -> bool:
        """Whether the mount below the file's own is read-only or unknown.

        A runtime makes a rootfs read-only by a bind on itself. If the mount below that bind is read-only too, it
        belongs to the host, and is meant to be read-only.
        """
        info = self.mount_of(stat)
        below = self.here().get(info.parent) if info is not None else None
        return below is None or "ro" in below.options

    def is_own_tmpfs(self, stat: files.Stat, rootfs: str) -> bool:
        """Whether a file is on a tmpfs that mountinfo shows only for this container, and that may end with it.

        A dry-run, for which the container's tmpfs is not mounted yet, finds only those of the host.
        """
        info = self.mount_of(stat)
        if self.kind != "container" or self.assumed or info is None or info.type != "tmpfs" or info.root != "/":
            return False
        inside = f"{rootfs}/"
        if not self.entered and self._may_be_hosts(info, inside):
            return False
        if inside not in self._devices:
            self._devices[inside] = self._devices_of_host(inside)
        # The table is older than the walk, and another mount may have reused the id.
        return info.dev == stat.dev and info.dev not in self._devices[inside]

    def _may_be_hosts(self, info: MountInfo, inside: str) -> bool:
        """Whether, at createContainer, a mount may come from the host or be there as well, and nothing shows it.

        ``inside`` is the rootfs, with a slash.
        """
        # The hook started inside the container's namespace, and does not know the host's mounts. What propagates from
        # the host into a slave also gets into the other slaves of the same group. The runtime's copies of the host's
        # mounts, outside of the rootfs, may be among these: _devices_of_host finds it there. But crun makes the copies
        # private, and for a container in a user namespace it makes a volume a slave or a peer of the host's mount.
        table = self.started_in()
        if inside not in self._masters:
            self._masters[inside] = {other.master for other in table if not other.mount_point.startswith(inside)}
        masters = self._masters[inside]
        way = [each for each in (info, *table.above(info)) if each.mount_point.startswith(inside)]
        return any(each.is_propagated and (each.master is None or each.master not in masters) for each in way)

    def _devices_of_host(self, inside: str) -> set[int]:
        """The devices of all mounts that other namespaces may have, too. ``inside`` is the rootfs, with a slash."""
        if self.entered:
            # Read again, after the table of this namespace: what came from the host meanwhile is in the host's, too.
            posix.lseek(self._before, 0, 0)
            return {info.dev for info in self._read_before()}
        table = self.started_in()
        # At createContainer the hook starts inside the container's namespace, where mounts of the host below the rootfs
        # are among the container's. But a runtime first binds the rootfs recursively on itself. So a mount of the host
        # is there twice, with the same mount point: covered by that bind, and in it. Without such a bind all may be
        # the host's.
        is_bound = any(info.dev == below.dev for info in table.at(inside[:-1]) if (below := table.get(info.parent)))
        devices, places = set(), set()
        for info in table:
            place = info.dev, info.mount_point
            if not is_bound or place in places or not info.mount_point.startswith(inside):
                devices.add(info.dev)
            places.add(place)
        return devices
