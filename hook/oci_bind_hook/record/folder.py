# SPDX-License-Identifier: Apache-2.0
"""The state folder: one state file for each container, in a folder that only this user can write.

``<folder>/<id>.json`` is a record, as schemas/state-file.json describes it. ``<id>.lock`` is a lock file, which exists
only while it is locked. ``rootfs/<key>`` is the lock file of a rootfs and lists the containers that have a record on
it. It exists while it lists a container, and the folder ``rootfs`` while it contains such a file.

Loaded by every start of a container: import only posix, errno and stat. After setns(2), when nothing can be imported,
only the fd of the folder is used, because its path would lead into the container.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..documents.strictjson import MAX_BYTES
from ..errors import DataError, RecordError
from ..kernel import files, linux
from ..rootfs.identity import keys
from . import document
from .held import HeldRootfs
from .indexes import Indexes, refused, unlocked
from .lock import LOCK_SECONDS, Lock, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Protocol

    from ..errors import UnavailableError
    from .held import Users
    from .state_file import MadeRecord, Record, RootfsRecord

    class HeldLock(Protocol):
        """A lock that is released when the block ends."""

        def __enter__(self) -> HeldLock: ...

        def __exit__(self, *_: object) -> None: ...

    class HeldRecords(Protocol):
        """The records on one rootfs, which stays locked until the block ends: held.HeldRootfs, or its stand-in."""

        def __enter__(self) -> HeldRecords: ...

        def __exit__(self, *_: object) -> None: ...

        def users(self, rootfs: RootfsRecord, boot: str, recorded: str = "") -> Users: ...

        def holds(self, rootfs: RootfsRecord) -> bool: ...

        def save(self, record: Record) -> None: ...

        def remove(self, container: str) -> None: ...

        def hand_over(
            self, made: MadeRecord, users: Users, besides: str, is_live: Callable[[Record], bool] | None = None
        ) -> bool: ...

    class Records(Protocol):
        """Where a set-up stores its record: the state folder, or a stand-in if nothing can be written."""

        def lock_id(self, container: str, *, wait: bool = True) -> HeldLock: ...

        def lock_rootfs(self, *rootfs: RootfsRecord) -> HeldRecords: ...

        def load(self, container: str) -> Record | None: ...

        def everyone(self) -> tuple[list[Record], list[tuple[int, str]]]: ...

        def remove(self, container: str) -> None: ...

        def staging(self, container: str) -> str: ...

        def make_staging(self, container: str) -> None: ...

        def remove_staging(self, container: str) -> None: ...

        def why_unrecorded(self) -> UnavailableError | None:
            """The error for a mount point that would have to be recorded but cannot be, None if it can be recorded."""


BY_HAND = "unmount the container's binds and remove its mount points by hand, then delete the file"
_SUFFIX = ".json"
_NEW = ".new"
_STAGING = ".staging"
_LOCK = ".lock"


class StateFolder:
    """The folder of state files, kept open as an fd, which works in any mount namespace.

    Its methods raise RecordError, which names the file and what to do.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.indexes = Indexes(path, fd)
        self._judged: dict[str, bytes] = {}

    @classmethod
    def open(cls, path: str, *, create: bool) -> StateFolder | None:
        """The folder at ``path``. If it does not exist, ``create`` creates it with mode 0700; otherwise returns None.

        Raises RecordError if it is a link, or if another user could write or rename it.
        """
        try:
            if create:
                _make_folders(path)
            fd = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        except OSError as reason:
            if reason.errno == errno.ENOENT and not create:
                return None
            if create and isinstance(reason, PermissionError):
                from .missing import check_above

                check_above(path)
            raise refused(f"the state folder {path} cannot be opened", reason) from reason
        try:
            stat = posix.fstat(fd)
            # A user who can write a folder above can replace the state folder, unless the sticky bit prevents renaming
            # what belongs to another user. poststop would find no record in it, and succeed without undoing anything.
            is_changeable = bool(files.changeable(path))
        except OSError as reason:
            posix.close(fd)
            raise refused(f"the state folder {path} cannot be inspected", reason) from reason
        if stat.st_uid != posix.geteuid() or stat.st_mode & 0o077:
            posix.close(fd)
            raise _not_private(path, stat)
        if is_changeable:
            posix.close(fd)
            raise changeable_by_others(path)
        return cls(path, fd)

    def why_unrecorded(self) -> UnavailableError | None:
        """None: a state folder can record everything."""
        return None

    def lock_id(self, container: str, *, wait: bool = True) -> Lock:
        """Locks a container: one run at a time works on it. Call it before ``lock_rootfs``, or without ``wait``.

        If another run keeps the lock, raises RecordError, caused by BlockingIOError: without ``wait`` at once.
        """
        return self._lock(container + _LOCK, wait=wait)

    def lock_rootfs(self, *rootfs: RootfsRecord, wait: bool = True) -> HeldRootfs:
        """Locks a rootfs by the keys of all records in ``rootfs``. Raises the errors of ``lock_id``.

        One run at a time resolves, creates or removes mount points in it, or writes a record on it.
        """
        return HeldRootfs(self, *rootfs, wait=wait)

    def _lock(self, name: str, *, wait: bool = True) -> Lock:
        try:
            return Lock(self._fd, name, LOCK_SECONDS if wait else 0)
        except OSError as reason:
            raise unlocked(f"{self.path}/{name}", reason, wait=wait) from reason

    def check_lock(self, container: str) -> None:
        """Raises the error of ``lock_id`` if no file can be created in the folder. Locks nothing."""
        try:
            linux.check_writable(self._fd)
        except OSError as reason:
            raise unlocked(f"{self.path}/{container}{_LOCK}", reason, wait=True) from reason

    def is_locked(self, container: str) -> bool:
        """Whether another run has locked a container now. Writes nothing."""
        name = container + _LOCK
        try:
            fd = posix.open(name, posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=self._fd)
        except FileNotFoundError:
            return False
        except OSError as reason:
            raise refused(f"{self.path}/{name} cannot be inspected", reason) from reason
        try:
            linux.flock(fd, linux.LOCK_SH | linux.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as reason:
            raise refused(f"{self.path}/{name} cannot be inspected", reason) from reason
        finally:
            posix.close(fd)
        return False

    def load(self, container: str) -> Record | None:
        """The record of a container, None if there is none."""
        data = self._read(container)
        return None if data is None else self._parse(container, data)

    def everyone(self) -> tuple[list[Record], list[tuple[int, str]]]:
        """The records of all containers and, for each that cannot be read, a pair (time of the last change, remark)."""
        found, unread = [], []
        for container in [*self._containers()]:
            try:
                record = self.load(container)
            except RecordError as problem:
                unread.append((self._written(container), str(problem)))
            else:
                if record is not None:
                    found.append(record)
        return found, unread

    def _written(self, container: str) -> int:
        """When a state file was last changed, in nanoseconds since the epoch; ``1 << 63`` if that is unknown."""
        try:
            return posix.stat(container + _SUFFIX, dir_fd=self._fd, follow_symlinks=False).st_ctime_ns
        except OSError:
            return 1 << 63

    def _path(self, container: str) -> str:
        return f"{self.path}/{container}{_SUFFIX}"

    def _read(self, container: str) -> bytes | None:
        """The content of a container's state file, None if there is none."""
        path = self._path(container)
        try:
            # O_NONBLOCK: a FIFO under that name must not block the hook.
            flags = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_NONBLOCK | posix.O_CLOEXEC
            fd = posix.open(container + _SUFFIX, flags, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as reason:
            raise _unread(path, reason) from reason
        try:
            return _read_own(fd, path)
        except OSError as reason:
            raise _unread(path, reason) from reason
        finally:
            posix.close(fd)

    def _parse(self, container: str, data: bytes) -> Record:
        path = self._path(container)
        try:
            # A record is read again after the rootfs is locked. Usually it has not changed, and is not validated again.
            is_judged = data == self._judged.get(container)
            record = document.read_again(data) if is_judged else document.read(data, path)
            self._judged[container] = data
        except DataError as problem:
            is_newer = isinstance(problem, document.NewerError)
            hint = f"use that version, or {BY_HAND}" if is_newer else f"the file is damaged: {BY_HAND}"
            raise RecordError(f"{problem.where}: {problem.problem}", hint=hint) from problem
        if record["id"] != container:
            raise RecordError(
                f'the state file {path} contains the record of another container, "{record["id"]}"', hint=BY_HAND
            )
        return record

    def load_all(self, containers: Sequence[str], *, is_locked: bool) -> tuple[list[Record], list[str]]:
        """The records of ``containers``, and a remark on each one that cannot be read.

        Reads those of all containers if there may be records that no rootfs lists: an earlier version wrote them, or
        their lists were removed. With ``is_locked``, the lock of their rootfs, it notes if there are no such records.
        """
        found, remarks = [], []
        is_whole = self.indexes.is_whole()
        are_all_listed = True
        for container in containers if is_whole else self._containers():
            try:
                if (record := self.load(container)) is not None:
                    found.append(record)
                    are_all_listed = are_all_listed and (is_whole or self._is_listed(record))
            except RecordError as problem:
                remarks.append(f"a container whose record cannot be read may use the same mount points: {problem}")
        if is_locked and not is_whole and are_all_listed and not remarks:
            self.indexes.note_whole()
        return found, remarks

    def check_lists(self) -> None:
        """If a record is in no list, makes later calls read the records of all containers, not only those listed."""
        for container in self.indexes.missing([*self._containers()]):
            try:
                record = self.load(container)
            except RecordError:
                continue  # read, it would keep the mount points of all others; and it may never have been in a list
            if record is not None:
                self.indexes.doubt()

    def _is_listed(self, record: Record) -> bool:
        return all(record["id"] in self.indexes.listed(key) for key in keys(record["rootfs"]))

    def save(self, record: Record) -> None:
        """Writes a record atomically: a reader finds the old one or the new one. The caller has locked the rootfs."""
        # A run can be killed between any two system calls, and list, gc and neighbours read without the id's lock. If
        # the file were written in place, they could find half a record, and what it describes could not be undone. So
        # a second file is written and renamed. fsync(2) comes before the rename, because a power loss could otherwise
        # leave the name on an empty file. The second name is fixed, so that the next writer finds and removes what a
        # killed run left there. O_EXCL and O_NOFOLLOW: it is always a new file, never a link.
        name = record["id"] + _SUFFIX
        beside = record["id"] + _NEW
        try:
            data = document.write(record)
        except OverflowError as reason:
            raise RecordError(
                f"the state file {self.path}/{name} would be too large to read back: {reason}"
            ) from reason
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        try:
            try:
                fd = posix.open(beside, flags, 0o600, dir_fd=self._fd)
            except FileExistsError:
                # A killed run left it. No other run is writing it, because this run has the lock.
                posix.unlink(beside, dir_fd=self._fd)
                fd = posix.open(beside, flags, 0o600, dir_fd=self._fd)
            try:
                written = 0
                while written < len(data):
                    written += posix.write(fd, data[written:])
                posix.fsync(fd)
            finally:
                posix.close(fd)
            posix.rename(beside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as reason:
            try:
                posix.unlink(beside, dir_fd=self._fd)
            except OSError:
                pass  # it was never created, or the next writer removes it
            raise refused(f"the state file {self.path}/{name} cannot be written", reason) from reason

    def remove(self, container: str) -> None:
        """Removes the record of a container, if it exists."""
        for suffix in (_SUFFIX, _NEW):
            try:
                posix.unlink(container + suffix, dir_fd=self._fd)
            except FileNotFoundError:
                pass
            except OSError as reason:
                path = f"{self.path}/{container}{suffix}"
                raise refused(f"the state file {path} cannot be removed", reason) from reason

    def staging(self, container: str) -> str:
        """The path of the private folder in which this container's mounts are prepared on older kernels."""
        return f"{self.path}/{container}{_STAGING}"

    def make_staging(self, container: str) -> None:
        """Creates the folder ``staging``, with mode 0700."""
        try:
            posix.mkdir(container + _STAGING, 0o700, dir_fd=self._fd)
        except OSError as reason:
            path = self.staging(container)
            raise refused(f"the folder {path} cannot be created", reason) from reason

    def remove_staging(self, container: str) -> None:
        """Removes the folder ``staging``, if it exists. The caller has unmounted everything on it."""
        try:
            posix.rmdir(container + _STAGING, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except OSError as reason:
            path = self.staging(container)
            raise refused(f"the folder {path} cannot be removed", reason) from reason

    def sweep(self, *, indexes: bool = False) -> None:
        """Removes the lock files that killed runs have left; with ``indexes``, those of rootfs as well.

        With many containers there are many of the latter, and poststop does not need to read them.
        """
        for name in self._listed():
            if name.endswith(_LOCK):
                sweep(self._fd, name, self.has)
        if indexes:
            self.indexes.sweep(self.has)

    def has(self, container: str) -> bool:
        """Whether a container has a state file, regardless of its content. True if that cannot be determined."""
        try:
            posix.stat(container + _SUFFIX, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError:
            pass
        return True

    def names(self) -> dict[str, list[str]]:
        """The names of the files here by container, sorted: its state file, and what a killed run left."""
        found: dict[str, list[str]] = {}
        for name in self._listed():
            container, dot, kind = name.rpartition(".")
            if dot + kind in (_SUFFIX, _NEW, _STAGING):
                found.setdefault(container, []).append(name)
        return found

    def files(self, container: str) -> list[str]:
        """The names of a container's files, as in ``names``; an empty list if there are none."""
        found = []
        for suffix in (_SUFFIX, _NEW, _STAGING):
            try:
                posix.stat(container + suffix, dir_fd=self._fd, follow_symlinks=False)
            except FileNotFoundError:
                continue
            except OSError as reason:
                raise refused(f"{self.path}/{container}{suffix} cannot be inspected", reason) from reason
            found.append(container + suffix)
        return found

    def _containers(self) -> Iterator[str]:
        for name in self._listed():
            if name.endswith(_SUFFIX):
                yield name[: -len(_SUFFIX)]

    def _listed(self) -> list[str]:
        try:
            return sorted(posix.listdir(self._fd))
        except OSError as reason:
            raise refused(f"the state folder {self.path} cannot be read", reason) from reason


def _outside(uid: int) -> int:
    """The number of a uid outside this user namespace, where an administrator sees the folder."""
    from ..kernel.proc import Proc

    proc = Proc()
    try:
        return proc.uid_outside(uid)
    finally:
        posix.close(proc.fd)


def _not_private(path: str, stat: posix.stat_result) -> RecordError:
    """The error for a state folder that belongs to another user, or that other users may enter."""
    owner = f"uid {_outside(stat.st_uid)} and has mode {stat.st_mode & 0o7777:04o}"
    hint = f"it must belong to uid {_outside(posix.geteuid())} and have mode 0700"
    if posix.geteuid() == 0 and stat.st_uid != 0:
        hint += "; to use that user's records, run the command as that user, for rootless podman in `podman unshare`"
    return RecordError(f"the state folder {path} belongs to {owner}", hint=hint)


def changeable_by_others(path: str) -> RecordError:
    """The error for a state folder that other users could replace."""
    return RecordError(
        f"users other than uid {_outside(posix.geteuid())} can rename the state folder {path}",
        hint="pass --root a folder whose parent folders only root or you can write",
    )


def _make_folders(path: str) -> None:
    """Creates a folder, and missing folders above it, with mode 0700. Raises OSError."""
    try:
        if modes.S_ISDIR(posix.stat(path).st_mode):
            return
    except OSError:
        pass  # makedirs raises the reason
    import os

    before = posix.umask(0o077)
    try:
        os.makedirs(path, exist_ok=True)
    finally:
        posix.umask(before)


def _unread(path: str, reason: OSError) -> RecordError:
    """The error for a state file that cannot be read. It advises deletion only if the file is certainly no record."""
    problem = f"the state file {path} cannot be read"
    if reason.errno in (errno.ELOOP, errno.ENXIO, errno.EFBIG):
        return RecordError(f"{problem}: {reason.strerror}", hint=BY_HAND)
    return refused(problem, reason)


def _read_own(fd: int, path: str) -> bytes:
    """The content of a state file. Raises OSError, and RecordError if it is not a private regular file of this user."""
    stat = posix.fstat(fd)
    # st_nlink may be 0: another run has replaced or removed the file since it was opened. It is still complete.
    if not modes.S_ISREG(stat.st_mode) or stat.st_uid != posix.geteuid() or stat.st_mode & 0o077 or stat.st_nlink > 1:
        raise RecordError(
            f"{path} is not a valid state file: it must be a regular file of this user, mode 0600, with one hard link",
            hint=BY_HAND,
        )
    if stat.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, posix.strerror(errno.EFBIG))
    return files.read_all(fd)
