# SPDX-License-Identifier: Apache-2.0
"""The records on one rootfs while it is locked: read once, and written together with the list of its containers.

Meanwhile no other process writes, removes or adds a record on that rootfs, so the records that were read stay valid.

Loaded by every start of a container: import nothing of the standard library.
"""

from __future__ import annotations

from ..rootfs.identity import keys, may_be_same, primary
from .indexes import refused
from .lock import LOCK_SECONDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .folder import StateFolder
    from .lock import Index
    from .state_file import MadeRecord, Record, RootfsRecord


class Users:
    """Records on one rootfs, in their order, indexed by the paths in it that they use.

    ``unread`` are remarks on records that cannot be read: their containers may be alive, and use any path.
    """

    def __init__(self, records: Iterable[Record], unread: Iterable[str] = ()) -> None:
        self.records = {record["id"]: record for record in records}
        self.unread = [*unread]
        # By path, the ids in the order of the records: all ids, and those that are not known to be dead.
        self._all: dict[str, dict[str, None]] | None = None
        self._perhaps_live: dict[str, dict[str, None]] = {}
        self._dead: set[str] = set()

    def besides(self, container: str) -> list[Record]:
        """The records of all other containers."""
        return [record for each, record in self.records.items() if each != container]

    def heir(self, path: str, besides: str, is_live: Callable[[Record], bool] | None = None) -> Record | None:
        """The first record of a container other than ``besides`` that uses ``path``, None if there is none.

        With ``is_live`` only a live container counts. A dead container stays dead, and is not checked again.
        """
        everyone = self._by_path()
        users = (everyone if is_live is None else self._perhaps_live).get(path, {})
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

    def _by_path(self) -> dict[str, dict[str, None]]:
        if self._all is None:
            self._all = {}
            for container, record in self.records.items():
                for path in record["uses"]:
                    self._all.setdefault(path, {})[container] = None
                    self._perhaps_live.setdefault(path, {})[container] = None
        return self._all

    def drop(self, container: str) -> None:
        """Drops the record of ``container``, which was removed."""
        record = self.records.pop(container, None)
        if record is not None and self._all is not None:
            for path in record["uses"]:
                for users in (self._all, self._perhaps_live):
                    users.get(path, {}).pop(container, None)


def peek(folder: StateFolder, rootfs: RootfsRecord, boot: str) -> Users:
    """As HeldRootfs.users, but without the lock, for a caller that changes nothing. The result may soon be outdated."""
    named = {container for key in keys(rootfs) for container in folder.indexes.listed(key)}
    return _users(folder, named, rootfs, boot, is_locked=False)


def _users(folder: StateFolder, named: Iterable[str], rootfs: RootfsRecord, boot: str, *, is_locked: bool) -> Users:
    found, unread = folder.load_all(sorted(named), is_locked=is_locked)
    return Users((one for one in found if may_be_same(one["rootfs"], rootfs, same_boot=one["boot"] == boot)), unread)


class HeldRootfs:
    """The lock of a rootfs, by the keys of all records in ``rootfs``, and the records on it. Raises RecordError."""

    def __init__(self, folder: StateFolder, *rootfs: RootfsRecord, wait: bool = True) -> None:
        self._folder = folder
        self._indexes: dict[str, Index] = {}
        self._users: dict[tuple[int, int], Users] = {}
        # By id, the records that took over mount points and are not saved yet, and the paths of all their mount points.
        self._heirs: dict[str, Record] = {}
        self._taken: dict[str, set[str]] = {}
        # By id, what its tear-down has handed over: the paths in the rootfs, and the containers that record them now.
        self.handed: dict[str, dict[str, str]] = {}
        self._unsaved: list[tuple[str, str, str]] = []  # the same, but not saved yet, as (id, path, container)
        try:
            # In sorted order; otherwise two runs could each wait for a lock of the other.
            seconds = LOCK_SECONDS if wait else 0
            for key in sorted(set().union(*map(keys, rootfs))):
                index = self._indexes[key] = folder.indexes.lock(key, seconds)
                seconds = index.seconds_left
        except BaseException:
            self.release()
            raise

    def __enter__(self) -> HeldRootfs:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lock."""
        for index in self._indexes.values():
            index.release()
        if not all(index.size for index in self._indexes.values()):
            self._folder.indexes.remove_empty()

    def holds(self, rootfs: RootfsRecord) -> bool:
        """Whether ``rootfs`` is locked by all its keys."""
        return keys(rootfs) <= self._indexes.keys()

    def users(self, rootfs: RootfsRecord, boot: str, recorded: str = "") -> Users:
        """The records of all containers that may be on ``rootfs``, as identified now, in the boot with the id ``boot``.

        ``recorded`` is a container that certainly has a record there, "" if none is known: the list must contain it.
        """
        at = primary(rootfs)
        if at not in self._users:
            named = {container for index in self._mine(rootfs) for container in index.containers}
            if recorded and recorded not in named:
                self._folder.indexes.doubt()
            self._users[at] = _users(self._folder, named, rootfs, boot, is_locked=True)
            for container in named.difference(self._users[at].records):
                if not self._folder.has(container):
                    self._discard(container)
        return self._users[at]

    def _mine(self, rootfs: RootfsRecord) -> list[Index]:
        return [self._indexes[key] for key in sorted(keys(rootfs)) if key in self._indexes]

    def save(self, record: Record) -> None:
        """Writes a record atomically, after the records that took over mount points from it."""
        self._save_heirs()
        self._save(record)

    def _save_heirs(self) -> None:
        while self._heirs:
            container, heir = next(iter(self._heirs.items()))
            # By depth, because undo starts at the end: a folder is removed after its content.
            heir["made"].sort(key=lambda made: made["path"].count("/"))
            self._save(heir)
            del self._heirs[container]
        for besides, path, container in self._unsaved:
            self.handed.setdefault(besides, {})[path] = container
        self._unsaved.clear()

    def _save(self, record: Record) -> None:
        added = []
        try:
            for index in self._mine(record["rootfs"]):
                if record["id"] not in index.containers:
                    added.append(index)
                    index.add(record["id"])
            self._folder.save(record)
        except BaseException as problem:
            for index in added:
                index.discard(record["id"])
            if isinstance(problem, OSError):
                raise refused(
                    f"the list of containers {self._folder.path}/rootfs cannot be written", problem
                ) from problem
            raise
        if record["id"] not in self._heirs:
            self._taken.pop(record["id"], None)
        for users in self._users.values():
            if record["id"] in users.records:
                users.records[record["id"]] = record

    def remove(self, container: str) -> None:
        """Removes the record of a container, if it exists, after writing those that took over mount points from it."""
        self._save_heirs()
        self._taken.pop(container, None)
        self._folder.remove(container)
        self._discard(container)
        for users in self._users.values():
            users.drop(container)

    def _discard(self, container: str) -> None:
        for index in self._indexes.values():
            index.discard(container)

    def hand_over(
        self, made: MadeRecord, users: Users, besides: str, is_live: Callable[[Record], bool] | None = None
    ) -> bool:
        """Hands over a mount point of the container ``besides`` to another one that uses it. False if none does.

        With ``is_live`` only a live container counts. Its record is written before that of ``besides``.
        """
        # rmdir(2) and unlink(2) of a mount point silently detach what is mounted there in all other mount namespaces: a
        # container that ends would detach the bind of one that still runs on the same rootfs. So the first one to end
        # moves its mount point to the record of a neighbour that uses it, and the last one to end removes it. The
        # rootfs is locked, so that no neighbour starts or ends meanwhile. The neighbour's record is saved before the
        # caller's: a kill in between leaves the mount point in both, and the second to remove it finds it gone. It is
        # saved once for all: a link in the image can lead two thousand folders deep, and others wait for the lock.
        other = users.heir(made["path"], besides, is_live)
        if other is None:
            return False
        container = other["id"]
        self._unsaved.append((besides, made["path"], container))
        if container not in self._taken:
            self._taken[container] = {known["path"] for known in other["made"]}
        if made["path"] not in self._taken[container]:
            self._taken[container].add(made["path"])
            other["made"].append(made)
            self._heirs[container] = other
        return True
