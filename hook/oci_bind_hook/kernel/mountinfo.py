# SPDX-License-Identifier: Apache-2.0
"""The mounts of a mount namespace, from mountinfo.

Loaded by every start of a container: import only posix. Lines are split without re, because importing re takes half as
long as starting Python.
"""

from __future__ import annotations

import posix

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Set


# File systems whose server is a process or another machine, filesystems(5). FUSE types also begin with "fuse.".
_MAY_WAIT = frozenset(
    "9p afs autofs beegfs ceph cifs coda fuse fuseblk gfs2 gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs panfs smb3 smbfs"
    " vboxsf virtiofs vmhgfs wekafs".split()
)


def may_wait(kind: str) -> bool:
    """Whether a call to a file system of this type (as in mountinfo) may wait for a server that does not answer."""
    return kind in _MAY_WAIT or kind.startswith("fuse.")


_MOST_LAYERS = 1000  # of overlays on overlays: a file system with more counts as one that may wait


def first_that_may_wait(table: MountTable, path: str) -> MountInfo | None:
    """A mount on the way to ``path``, absolute and without links, that may wait; None if there is none.

    The layers of an overlay are on the way, too. No file system is accessed: the mount ``table`` has all of this.
    """
    pending, seen = [path], {path}
    while pending:
        way = pending.pop().rstrip("/")
        while True:
            for info in table.at(way or "/"):
                if may_wait(info.type) or len(seen) > _MOST_LAYERS:
                    return info
                layers = [layer for layer in _layers(info) if layer.startswith("/") and layer not in seen]
                pending += layers
                seen.update(layers)
            if not way:
                break
            way = way.rpartition("/")[0]
    return None


def _layers(info: MountInfo) -> list[str]:
    """The layers and the upper folder of an overlay, from its options, proc_pid_mountinfo(5)."""
    found = []
    for option in info.super_options.split(",") if info.type == "overlay" else ():
        name, _, value = files.unescape(option).partition("=")
        if name == "lowerdir":
            # A backslash precedes a colon in the name of a folder.
            found += [part.replace("\0", ":") for part in value.replace("\\:", "\0").split(":")]
        elif name in ("lowerdir+", "datadir+", "upperdir"):
            found.append(value)
    return found


class MountInfo:
    """One mount: a line of mountinfo, proc_pid_mountinfo(5).

    ``id`` and ``parent`` are mount ids and ``dev`` is the device as os.makedev returns it. ``root`` is the path inside
    the file system that is mounted, ``mount_point`` the path below the reader's ``/`` where it is. ``options`` are the
    per-mount options. ``shared`` is the peer group, ``master`` that whose slave it is, or None. ``type`` and ``source``
    are those of the file system, ``super_options`` its own options, still escaped.
    """

    __slots__ = (
        *("dev", "id", "master", "mount_point", "options", "parent", "root", "shared", "source"),
        *("super_options", "type"),
    )

    def __init__(self, line: str) -> None:
        fields = line.split(" ")
        dash = fields.index("-", 6)
        self.id = int(fields[0])
        self.parent = int(fields[1])
        major, minor = fields[2].split(":")
        self.dev = posix.makedev(int(major), int(minor))
        self.root = files.unescape(fields[3])
        self.mount_point = files.unescape(fields[4])
        self.options = fields[5].split(",")
        groups = {tag[:6]: int(tag[7:]) for tag in fields[6:dash] if tag.startswith(("shared:", "master:"))}
        self.shared, self.master = groups.get("shared"), groups.get("master")
        self.type = files.unescape(fields[dash + 1])
        self.source = files.unescape(fields[dash + 2])
        self.super_options = fields[dash + 3] if len(fields) > dash + 3 else ""

    @property
    def is_propagated(self) -> bool:
        """Whether it is a shared or slave mount."""
        return self.shared is not None or self.master is not None

    def super_option(self, name: str) -> str | None:
        """The value of an option ``name=value`` of the file system, None if there is none."""
        # A comma in a value is escaped as \054.
        values = (option.partition("=") for option in self.super_options.split(","))
        return next((files.unescape(value) for key, _, value in values if key == name), None)


class MountTable:
    """The mounts of a namespace at one moment, in the order of mountinfo.

    A line is parsed when it is first needed: a host may have thousands, and few of them are needed.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[int, str] = {}
        self._infos: dict[int, MountInfo] = {}
        self._children: dict[int, list[int]] = {}
        self._points: dict[str, list[int]] = {}
        self._inside: dict[int, dict[str, list[MountInfo]]] = {}
        for line in text.split("\n"):
            if line:
                number, parent, _ = line.split(" ", 2)
                self._lines[int(number)] = line
                self._children.setdefault(int(parent), []).append(int(number))

    def __iter__(self) -> Iterator[MountInfo]:
        return (self._info(number) for number in self._lines)

    def __len__(self) -> int:
        return len(self._lines)

    def _info(self, number: int) -> MountInfo:
        if number not in self._infos:
            self._infos[number] = MountInfo(self._lines[number])
        return self._infos[number]

    def types(self) -> set[str]:
        """The types of all file systems."""
        return {line.partition(" - ")[2].partition(" ")[0] for line in self._lines.values()}

    def at(self, path: str) -> list[MountInfo]:
        """The mounts with the mount point ``path``, in order. The first call indexes all mount points."""
        if not self._points:
            for number, line in self._lines.items():
                self._points.setdefault(files.unescape(line.split(" ", 5)[4]), []).append(number)
        return [self._info(number) for number in self._points.get(path, ())]

    def get(self, mnt_id: int | None) -> MountInfo | None:
        """The mount with the id ``mnt_id``, None if there is none."""
        return self._info(mnt_id) if mnt_id in self._lines else None

    def ids(self) -> set[int]:
        """The ids of all mounts."""
        return set(self._lines)

    def on(self, parent: int) -> list[MountInfo]:
        """The mounts whose mount point is on the mount ``parent``."""
        return [self._info(number) for number in self._children.get(parent, ())]

    def above(self, info: MountInfo) -> Iterator[MountInfo]:
        """The mounts that a mount is on or below, the nearest first."""
        seen = {info.id}
        above = self.get(info.parent)
        while above is not None and above.id not in seen:
            yield above
            # The root mount may be its own parent.
            seen.add(above.id)
            above = self.get(above.parent)

    def below(self, top: int, besides: Set[int] = frozenset()) -> Iterator[MountInfo]:
        """The mounts on and below the mount with the id ``top``, each after its parent.

        Omits those with the ids ``besides``, and all mounts on and below them. Only the mounts that the caller consumes
        are parsed.
        """
        pending = [top]
        # The root mount may be its own parent.
        seen = {top}
        while pending:
            children = self._children.get(pending.pop(), ())
            children = [number for number in children if number not in seen and number not in besides]
            seen.update(children)
            pending += children
            yield from map(self._info, children)

    def inside(self, top: int, path: str) -> list[MountInfo]:
        """The mounts on and below the mount ``top`` that have a mount point below the folder ``path``, in order.

        The first call indexes them by folder, so that not every bind iterates over all mounts of the host.
        """
        if top not in self._inside:
            found = self._inside[top] = {}
            for info in self.below(top):
                folder = info.mount_point
                while folder:
                    folder = folder.rpartition("/")[0]
                    found.setdefault(folder, []).append(info)
        return self._inside[top].get(path.rstrip("/"), [])

    def has_below(self, path: str) -> bool:
        """Whether anything is mounted below ``path``, as below the rootfs in a container's namespace."""
        return any(info.mount_point.startswith(path + "/") for info in self)
