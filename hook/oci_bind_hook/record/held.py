# SPDX-License-Identifier: Apache-2.0
"""The state folder while the lock of one rootfs is held: many containers on it are undone with one reading.

While the lock is held nobody else writes, removes or adds a record on that rootfs, so what was read stays true.

May be loaded by any poststop: it imports nothing more than the folder does.
"""

from __future__ import annotations

from .folder import StateFolder
from .state_file import object_of
from .unrecorded import Unlocked

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    from collections.abc import Callable, Iterable

    from .folder import HeldLock
    from .state_file import MadeRecord, ObjectRecord, Record


class Users:
    """Records on one rootfs, in their order, found by the paths in it that they use."""

    def __init__(self, records: Iterable[Record]) -> None:
        self.records = {record["id"]: record for record in records}
        # By path, the ids in the order of the records: all, and those not known to be dead.
        self._all: dict[str, dict[str, None]] = {}
        self._perhaps_live: dict[str, dict[str, None]] = {}
        self._dead: set[str] = set()
        for container, record in self.records.items():
            for path in record["uses"]:
                self._all.setdefault(path, {})[container] = None
                self._perhaps_live.setdefault(path, {})[container] = None

    def heir(self, path: str, besides: str, is_live: Callable[[Record], bool] | None = None) -> Record | None:
        """The first record of another container than ``besides`` that uses ``path``, as state_file.heir.

        With ``is_live`` only a live one counts. Who is dead stays dead, and is not asked about again.
        """
        users = (self._all if is_live is None else self._perhaps_live).get(path, {})
        dead = []
        found = None
        for container in users:
            if container == besides:
                continue
            if is_live is None or (container not in self._dead and is_live(self.records[container])):
                found = self.records[container]
                break
            dead.append(container)
        self._dead.update(dead)
        for container in dead:
            del users[container]
        return found

    def replace(self, record: Record) -> None:
        """Takes notice that a record was written: it holds less than before, or what was handed over to it."""
        self.records[record["id"]] = record

    def drop(self, container: str) -> None:
        """Takes notice that a record was removed."""
        record = self.records.pop(container, None)
        for path in record["uses"] if record is not None else ():
            for users in (self._all, self._perhaps_live):
                users.get(path, {}).pop(container, None)


class HeldRootfs(StateFolder):
    """The state folder ``folder`` for a caller that holds the lock of ``rootfs``, whose records it has read.

    ``users`` are all of them, ``unread`` remarks on those that cannot be read. To be used until the lock is released,
    and for containers on this rootfs only. Raises RecordError.
    """

    def __init__(self, folder: StateFolder, rootfs: ObjectRecord) -> None:
        self.__dict__.update(folder.__dict__)
        self.rootfs = object_of(rootfs)
        found, self.unread = folder.on_rootfs(rootfs, "")
        self.users = Users(found)
        self._mine = ""

    def lock_rootfs(self, stat: posix.stat_result | ObjectRecord) -> HeldLock:  # type: ignore[override]
        """Nothing: the caller holds it."""
        assert object_of(stat) == self.rootfs
        return Unlocked()

    def on_rootfs(self, rootfs: posix.stat_result | ObjectRecord, besides: str) -> tuple[list[Record], list[str]]:
        """As that of StateFolder. ``hand_over`` is for the container ``besides`` from now on."""
        assert object_of(rootfs) == self.rootfs
        self._mine = besides
        others = self.users.records.copy()
        others.pop(besides, None)
        return list(others.values()), self.unread

    def hand_over(
        self,
        made: MadeRecord,
        neighbours: list[Record],  # noqa: ARG002 - they are found by the path
        is_live: Callable[[Record], bool] | None = None,
    ) -> bool:
        """As that of StateFolder, to one of the others that ``on_rootfs`` has returned last."""
        return self._give(made, self.users.heir(made["path"], self._mine, is_live))

    def save(self, record: Record) -> None:
        """As that of StateFolder."""
        super().save(record)
        self.users.replace(record)

    def remove(self, container: str) -> None:
        """As that of StateFolder."""
        super().remove(container)
        self.users.drop(container)
