# SPDX-License-Identifier: Apache-2.0
"""Whose a mount or a mount namespace is, where the kernel gives its number to the next one at once.

It does that with mounts before Linux 6.8, and with mount namespaces before 6.11: two containers one after the other
often have the same numbers. So a number is never enough. What is in doubt is kept, and its record, too.

Loaded by every poststop: it imports only posix.
"""

from __future__ import annotations

from ..kernel.proc import Proc, boot_id
from ..mounting.mounted import find, is_in
from ..record.state_file import is_live, places_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..kernel.proc import MountInfo, MountTable
    from ..record.state_file import MountRecord, Record

    Claimed = Callable[[MountInfo], bool]


class Claims:
    """Which record has the best claim to a mount without a unique id. ``everyone`` reads all records, if need be."""

    def __init__(self, everyone: Callable[[], Iterable[Record]], proc: Proc) -> None:
        self._everyone = everyone
        self._all: list[Record] | None = None
        self._proc = proc
        self._boot = boot_id()

    def against(self, record: Record, neighbours: Iterable[Record] | None = None) -> Claimed:
        """A function that says whether another record has a better claim to a mount than ``record``.

        It has if it says that a mount with this number is at this place, and its container lives or, of two dead ones,
        is the later one. ``neighbours`` are the records on the same rootfs, if they are known: only they can say so of
        a place in it.
        """

        def claimed(info: MountInfo) -> bool:
            is_near = neighbours is not None and f"{info.mount_point}/".startswith(record["rootfs"]["path"] + "/")
            others = neighbours if is_near and neighbours is not None else self._records()
            return any(self._is_better(other, record) for other in others if _says(other, record, info))

        return claimed

    def _records(self) -> list[Record]:
        if self._all is None:
            self._all = [*self._everyone()]
        return self._all

    def _is_better(self, other: Record, record: Record) -> bool:
        return self._standing(other) > self._standing(record)

    def _standing(self, record: Record) -> tuple[bool, int]:
        return is_live(record, self._proc, self._boot), record["created"]


def _says(other: Record, record: Record, info: MountInfo) -> bool:
    """Whether a record of another container says that the mount ``info`` is its own."""
    if other["id"] == record["id"] or other["boot"] != record["boot"]:
        return False
    if other["namespace"]["inode"] != record["namespace"]["inode"]:
        return False
    return any(
        mount["attached"][0]["id"] == info.id and info.mount_point in places_of(mount, other)
        for mount in other["mounts"]
    )


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
    if not is_in(top, table, namespace):
        return False
    if top["unique"] is not None and namespace is not None:
        return True
    info = table.get(top["id"])
    return info is not None and info.mount_point in places_of(mount, record) and not claimed(info)


def stands(mount: MountRecord, record: Record, table: MountTable, claimed: Claimed) -> bool | None:
    """Whether a bind is in the ``table`` of this mount namespace; None if that cannot be known. Raises OSError."""
    top = mount["attached"][0]
    info = find(top, table)
    if info is None or (top["unique"] is None and claimed(info)):
        return False
    is_at_place = top["unique"] is not None or info.mount_point in places_of(mount, record)
    return True if is_at_place else None
