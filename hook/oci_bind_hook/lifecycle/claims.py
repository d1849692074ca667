# SPDX-License-Identifier: Apache-2.0
"""To which record a mount or mount namespace belongs, although the kernel reuses its number at once.

This concerns mounts before Linux 6.8, and mount namespaces before 6.11: two successive containers often have the same
numbers. So a number is never enough. In case of doubt a mount is kept, and its record too.

Loaded by every poststop: import only posix.
"""

from __future__ import annotations

from ..kernel.proc import Proc, boot_id
from ..mounting.mounted import DoubtError, find, is_in
from ..record.state_file import is_live, places_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..kernel.mountinfo import MountInfo, MountTable
    from ..record.state_file import MountRecord, Record

    Claimed = Callable[[MountInfo], bool]
    # The records of all containers and, for each that cannot be read, when it was written, and a remark.
    Everyone = Callable[[], tuple[Iterable[Record], Sequence[tuple[int, str]]]]


class Claims:
    """Which records claim a mount without a unique id. ``everyone`` reads them all, once, and only if needed."""

    def __init__(self, everyone: Everyone, proc: Proc) -> None:
        self._everyone = everyone
        self._by_number: dict[int | None, list[Record]] | None = None
        self._found: dict[tuple[int, str, int], list[Record]] = {}
        self._unread: Sequence[tuple[int, str]] = ()
        self._proc = proc
        self._boot = boot_id()

    def against(self, record: Record, neighbours: Sequence[Record] = ()) -> Claimed:
        """A function that returns whether another record has a better claim to a mount than ``record``.

        The other record must contain a mount with this number at this place, and its container must live, or it must
        be later. The function raises DoubtError if a later record that cannot be read may contain one. ``neighbours``
        are the current records on the same rootfs, which is locked: they may have changed since all were read.
        """

        def claimed(info: MountInfo) -> bool:
            inode = record["namespace"]["inode"]
            near = (other for other in neighbours if self._says(other, info, inode))
            if any(self._is_better(other, record) for others in (near, self._who(info, inode)) for other in others):
                return True
            if unread := next((remark for written, remark in self._unread if written >= record["created"]), ""):
                raise DoubtError(f"the mount on {info.mount_point} may now belong to another container: {unread}")
            return False

        return claimed

    def _who(self, info: MountInfo, inode: int) -> list[Record]:
        """The records that claim a mount, of which only these matter: the two latest, and the two latest alive."""
        key = (info.id, info.mount_point, inode)
        if key not in self._found:
            found = [other for other in self._with_number(info.id) if self._says(other, info, inode)]
            found.sort(key=lambda other: other["created"])
            live = [other for other in found if is_live(other, self._proc, self._boot)]
            self._found[key] = found[-2:] + live[-2:]
        return self._found[key]

    def _with_number(self, number: int) -> list[Record]:
        if self._by_number is None:
            self._by_number = {}
            records, self._unread = self._everyone()
            for record in records:
                for known in {known["id"] for mount in record["mounts"] for known in mount["attached"]}:
                    self._by_number.setdefault(known, []).append(record)
        return self._by_number.get(number, [])

    def _is_better(self, other: Record, record: Record) -> bool:
        # Of two live containers the later one has the mount. It is safe to leave it to the other: that one ends, too.
        is_later = other["created"] > record["created"]
        return other["id"] != record["id"] and (is_later or is_live(other, self._proc, self._boot))

    def _says(self, record: Record, info: MountInfo, inode: int) -> bool:
        """Whether a record claims a mount in the mount namespace ``inode``."""
        if record["boot"] != self._boot or record["namespace"]["inode"] != inode:
            return False
        for mount in record["mounts"]:
            # The id may be that of a mount below the top of a bind.
            if any(known["id"] == info.id for known in mount["attached"]):
                places = (place.rstrip("/") + "/" for place in places_of(mount, record))
                if any(f"{info.mount_point}/".startswith(place) for place in places):
                    return True
        return False


def is_same_namespace(record: Record, proc: Proc, pid: int | None = None) -> bool | None:
    """Whether this mount namespace, or that of the process ``pid``, is that of ``record``, written in this boot.

    None if only its inode number is known, which the kernel reuses.
    """
    known = record["namespace"]
    if known["inode"] != (proc.mount_namespace() if pid is None else proc.mount_namespace_of(pid)):
        return False
    if known["unique"] is None:
        return None
    unique = proc.mount_namespace_id() if pid is None else proc.mount_namespace_id_of(pid)
    return None if unique is None else unique == known["unique"]


def sees(mount: MountRecord, record: Record, table: MountTable, namespace: int | None, claimed: Claimed) -> bool:
    """Whether a bind is in the ``table`` of another mount namespace. ``namespace``: its unique id, None if unknown."""
    top = mount["attached"][0]
    if not is_in(top, table, namespace, places_of(mount, record)):
        return False
    if top["unique"] is not None and namespace is not None:
        return True
    info = table.get(top["id"])
    try:
        return info is not None and not claimed(info)
    except DoubtError:
        return True  # in case of doubt the mount is kept


def stands(mount: MountRecord, record: Record, table: MountTable, claimed: Claimed) -> bool | None:
    """Whether a bind is in the ``table`` of this mount namespace; None if that is unknown. Raises OSError."""
    top = mount["attached"][0]
    info = find(top, table)
    if info is None or top["unique"] is not None:
        return info is not None
    try:
        return False if claimed(info) else True if info.mount_point in places_of(mount, record) else None
    except DoubtError:
        return None
