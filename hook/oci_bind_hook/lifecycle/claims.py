# SPDX-License-Identifier: Apache-2.0
"""Whose a mount or a mount namespace is, where the kernel gives its number to the next one at once.

It does that with mounts before Linux 6.8, and with mount namespaces before 6.11: two containers one after the other
often have the same numbers. So a number is never enough. What is in doubt is kept, and its record, too.

Loaded by every poststop: it imports only posix.
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
    # The records of all containers and, for each that cannot be read, when it was written and what is to be told.
    Everyone = Callable[[], tuple[Iterable[Record], Sequence[tuple[int, str]]]]


class Claims:
    """Which records claim a mount without a unique id. ``everyone`` reads them all, once, and only if need be."""

    def __init__(self, everyone: Everyone, proc: Proc) -> None:
        self._everyone = everyone
        self._by_number: dict[int | None, list[Record]] | None = None
        self._found: dict[tuple[int, str, int], list[Record]] = {}
        self._unread: Sequence[tuple[int, str]] = ()
        self._proc = proc
        self._boot = boot_id()

    def against(self, record: Record, neighbours: Sequence[Record] = ()) -> Claimed:
        """A function that says whether another record has a better claim to a mount than ``record``.

        It has if it says that a mount with this number is at this place, and its container lives, or its record is
        later. Raises DoubtError if a later one that cannot be read may say so. ``neighbours`` may have been written
        since all were read: those on the same rootfs, while it is locked.
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
        """Of all who say so of a mount those that matter: the two latest, and two that live."""
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
        # Of two that live the later one has the mount. Nothing is lost if it is left to the other: that ends, too.
        is_later = other["created"] > record["created"]
        return other["id"] != record["id"] and (is_later or is_live(other, self._proc, self._boot))

    def _says(self, record: Record, info: MountInfo, inode: int) -> bool:
        """Whether a record says that a mount in the mount namespace ``inode`` is one of its own."""
        if record["boot"] != self._boot or record["namespace"]["inode"] != inode:
            return False
        for mount in record["mounts"]:
            # The number may be that of a mount below its top.
            if any(known["id"] == info.id for known in mount["attached"]):
                places = (place.rstrip("/") + "/" for place in places_of(mount, record))
                if any(f"{info.mount_point}/".startswith(place) for place in places):
                    return True
        return False


def is_same_namespace(record: Record, proc: Proc, pid: int | None = None) -> bool | None:
    """Whether this mount namespace, or that of the process ``pid``, is that of a record of this start of the machine.

    None if nothing but its number tells.
    """
    known = record["namespace"]
    if known["inode"] != (proc.mount_namespace() if pid is None else proc.mount_namespace_of(pid)):
        return False
    if known["unique"] is None:
        return None
    unique = proc.mount_namespace_id() if pid is None else proc.mount_namespace_id_of(pid)
    return None if unique is None else unique == known["unique"]


def sees(mount: MountRecord, record: Record, table: MountTable, namespace: int | None, claimed: Claimed) -> bool:
    """Whether a bind is in the ``table`` of another mount namespace, ``namespace`` being its unique id if known."""
    top = mount["attached"][0]
    if not is_in(top, table, namespace, places_of(mount, record)):
        return False
    if top["unique"] is not None and namespace is not None:
        return True
    info = table.get(top["id"])
    try:
        return info is not None and not claimed(info)
    except DoubtError:
        return True  # what may be there is kept


def stands(mount: MountRecord, record: Record, table: MountTable, claimed: Claimed) -> bool | None:
    """Whether a bind is in the ``table`` of this mount namespace; None if that cannot be known. Raises OSError."""
    top = mount["attached"][0]
    info = find(top, table)
    if info is None or top["unique"] is not None:
        return info is not None
    try:
        return False if claimed(info) else True if info.mount_point in places_of(mount, record) else None
    except DoubtError:
        return None
