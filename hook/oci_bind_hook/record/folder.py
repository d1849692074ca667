# SPDX-License-Identifier: Apache-2.0
"""Where it is recorded what was done: one state file for each container, in a folder that only we can write.

``<folder>/<id>.json`` holds the record, as schemas/state-file.json describes it. It is written beside and renamed, so
that it is always whole. Locks are files beside it that exist only while they are held.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from ..documents.strictjson import MAX_BYTES, encoded, parse_trusted
from ..errors import DataError, RecordError
from ..kernel import linux
from ..kernel.errnos import hint
from .state_file import heir, names_other_rootfs, object_of, parse_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol, cast

    from ..errors import UnavailableError
    from .state_file import MadeRecord, ObjectRecord, Record

    class HeldLock(Protocol):
        """A lock, until it is let go."""

        def __enter__(self) -> HeldLock: ...

        def __exit__(self, *_: object) -> None: ...

    class Records(Protocol):
        """Where a set-up keeps its record: the state folder, or what stands in for it where nothing can be written."""

        def lock_id(self, container: str, *, wait: bool = True) -> HeldLock: ...

        def lock_rootfs(self, stat: os.stat_result | ObjectRecord) -> HeldLock: ...

        def load(self, container: str) -> Record | None: ...

        def save(self, record: Record) -> None: ...

        def remove(self, container: str) -> None: ...

        def staging(self, container: str) -> str: ...

        def make_staging(self, container: str) -> None: ...

        def remove_staging(self, container: str) -> None: ...

        def on_rootfs(self, rootfs: os.stat_result | ObjectRecord, besides: str) -> tuple[list[Record], list[str]]: ...

        def hand_over(self, made: MadeRecord, neighbours: list[Record]) -> bool: ...

        def cannot_record(self) -> UnavailableError | None:
            """Why nothing that outlives the container can be made, since it could not be recorded. None if it can."""

else:

    def cast(_: object, value: object) -> object:
        return value


MOVE_AWAY = "undo by hand what it may record, then move it away"
_SUFFIX = ".json"
_NEW = ".new"
_STAGING = ".staging"


class Lock:
    """An exclusive lock, flock(2), on a file that is removed when it is let go.

    BlockingIOError where another process holds it, and we do not want to ``wait``.
    """

    def __init__(self, folder: int, name: str, *, wait: bool) -> None:
        self._folder = folder
        self._name = name
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        while True:
            self._fd = os.open(name, flags, 0o600, dir_fd=folder)
            try:
                linux.flock(self._fd, linux.LOCK_EX if wait else linux.LOCK_EX | linux.LOCK_NB)
            except BaseException:
                os.close(self._fd)
                raise
            if os.fstat(self._fd).st_nlink:
                return
            # Whoever held it before us has removed it meanwhile: the next one would lock another file.
            os.close(self._fd)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            os.unlink(self._name, dir_fd=self._folder)
        except OSError:
            pass  # an empty file is left, and no reason to fail a run that is done
        os.close(self._fd)


_LOCKS = (".lock", ".rootfs")


class StateFolder:
    """The folder of state files, held by fd: it is found again whatever namespace has been entered since.

    RecordError for every failure, naming the file and what to do.
    """

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._judged: dict[str, bytes] = {}

    @classmethod
    def open(cls, path: str, *, create: bool) -> StateFolder | None:
        """The folder at ``path``; where it is missing it is made with mode 0700, or None without ``create``.

        RecordError where it is a link, or where anybody but us may write it.
        """
        try:
            if create:
                before = os.umask(0o077)
                try:
                    os.makedirs(path, exist_ok=True)
                finally:
                    os.umask(before)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError as reason:
            if reason.errno == errno.ENOENT and not create:
                return None
            raise _refused(f"the state folder {path} cannot be opened", reason) from reason
        above, stat = os.stat("..", dir_fd=fd), os.fstat(fd)
        is_sticky = above.st_mode & modes.S_ISVTX
        if above.st_uid not in (0, os.geteuid()) or (above.st_mode & 0o022 and not is_sticky):
            os.close(fd)
            raise RecordError(
                f"others than uid {os.geteuid()} can rename the state folder {path}",
                hint="give --root a folder below one that is root's or yours alone",
            )
        if stat.st_uid != os.geteuid() or stat.st_mode & 0o077:
            os.close(fd)
            raise RecordError(
                f"the state folder {path} is owned by uid {stat.st_uid} with mode {stat.st_mode & 0o7777:04o}",
                hint=f"it must belong to uid {os.geteuid()} alone: mode 0700",
            )
        return cls(path, fd)

    def cannot_record(self) -> UnavailableError | None:
        return None

    def lock_id(self, container: str, *, wait: bool = True) -> Lock:
        """Waits until nobody else works on the container ``container``. Taken before any lock of a rootfs.

        Without ``wait`` a RecordError, caused by a BlockingIOError, where somebody does.
        """
        return self._lock(container + _LOCKS[0], wait=wait)

    def lock_rootfs(self, stat: os.stat_result | ObjectRecord) -> Lock:
        """Waits until nobody else resolves, makes or removes mount points in this rootfs."""
        dev, ino = object_of(stat)
        return self._lock(f"{dev}:{ino}{_LOCKS[1]}")

    def _lock(self, name: str, *, wait: bool = True) -> Lock:
        try:
            return Lock(self._fd, name, wait=wait)
        except OSError as reason:
            raise _refused(f"{self.path}/{name} cannot be locked", reason) from reason

    def is_locked(self, container: str) -> bool:
        """Whether somebody works on a container now. Nothing is written."""
        try:
            fd = os.open(container + _LOCKS[0], os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
        except OSError:
            return False
        try:
            linux.flock(fd, linux.LOCK_SH | linux.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(fd)
        return False

    def load(self, container: str) -> Record | None:
        """The record of a container, None where there is none."""
        data = self._read(container)
        return None if data is None else self._understand(container, data)

    def _path(self, container: str) -> str:
        return f"{self.path}/{container}{_SUFFIX}"

    def _read(self, container: str) -> bytes | None:
        """What is in a state file of ours, None where there is none."""
        path = self._path(container)
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            fd = os.open(container + _SUFFIX, flags, dir_fd=self._fd)
        except FileNotFoundError:
            return None
        except OSError as reason:
            hint = MOVE_AWAY if reason.errno in (errno.ELOOP, errno.ENXIO) else ""
            raise RecordError(f"the state file {path} cannot be read: {reason.strerror}", hint=hint) from reason
        try:
            return _read_own(fd, path)
        except OSError as reason:
            raise RecordError(f"the state file {path} cannot be read: {reason.strerror}", hint=MOVE_AWAY) from reason
        finally:
            os.close(fd)

    def _understand(self, container: str, data: bytes) -> Record:
        path = self._path(container)
        try:
            # It is read again once the rootfs is locked, and has mostly not changed: then it need not be judged again.
            is_judged = data == self._judged.get(container)
            record = cast("Record", parse_trusted(data)) if is_judged else parse_record(data, path)
            self._judged[container] = data
        except DataError as problem:
            raise RecordError(str(problem), hint=f"it is no record of this version; {MOVE_AWAY}") from problem
        if record["id"] != container:
            raise RecordError(f'the state file {path} is of the container "{record["id"]}"', hint=MOVE_AWAY)
        return record

    def save(self, record: Record) -> None:
        """Writes a record, beside and renamed: a reader finds the old one or the new one, whole."""
        name = record["id"] + _SUFFIX
        beside = record["id"] + _NEW
        try:
            data = encoded(record)
        except UnicodeEncodeError as reason:
            text = reason.object[max(0, reason.start - 40) : reason.end]
            raise RecordError(f"a state file cannot hold {text!a}, which is not UTF-8") from reason
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            try:
                fd = os.open(beside, flags, 0o600, dir_fd=self._fd)
            except FileExistsError:
                # Somebody was killed while writing: we hold the lock, so nobody is writing now.
                os.unlink(beside, dir_fd=self._fd)
                fd = os.open(beside, flags, 0o600, dir_fd=self._fd)
            try:
                written = 0
                while written < len(data):
                    written += os.write(fd, data[written:])
                os.fsync(fd)
            finally:
                os.close(fd)
            os.rename(beside, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except OSError as reason:
            try:
                os.unlink(beside, dir_fd=self._fd)
            except OSError:
                pass  # it was never made, or is for the next one to remove
            raise _refused(f"the state file {self.path}/{name} cannot be written", reason) from reason

    def remove(self, container: str) -> None:
        """Forgets a container. Nothing is wrong where nothing was known of it."""
        for suffix in (_SUFFIX, _NEW):
            try:
                os.unlink(container + suffix, dir_fd=self._fd)
            except FileNotFoundError:
                pass
            except OSError as reason:
                path = f"{self.path}/{container}{suffix}"
                raise _refused(f"the state file {path} cannot be removed", reason) from reason

    def staging(self, container: str) -> str:
        """The path of a folder in which this container's mounts may be made ready; nobody else can look into it."""
        return f"{self.path}/{container}{_STAGING}"

    def make_staging(self, container: str) -> None:
        try:
            os.mkdir(container + _STAGING, 0o700, dir_fd=self._fd)
        except OSError as reason:
            path = self.staging(container)
            raise _refused(f"the folder {path} cannot be made", reason) from reason

    def remove_staging(self, container: str) -> None:
        """Removes that folder, if it is there. Nothing is mounted on it any more."""
        try:
            os.rmdir(container + _STAGING, dir_fd=self._fd)
        except FileNotFoundError:
            pass
        except OSError as reason:
            path = self.staging(container)
            raise _refused(f"the folder {path} cannot be removed", reason) from reason

    def on_rootfs(self, rootfs: os.stat_result | ObjectRecord, besides: str) -> tuple[list[Record], list[str]]:
        """The records of all other containers on a rootfs, and a remark on each record that cannot be read.

        The caller holds the rootfs's lock. One bad file must not keep all containers from starting or ending.
        """
        wanted = object_of(rootfs)
        found, remarks = [], []
        for container in self._containers():
            if container == besides:
                continue
            try:
                data = self._read(container)
                # Who shares the rootfs waits for us, and nearly all others have one of their own.
                if data is None or names_other_rootfs(data, wanted):
                    continue
                other = self._understand(container, data)
            except RecordError as problem:
                remarks.append(f"left out: {problem}")
                continue
            if object_of(other["rootfs"]) == wanted:
                found.append(other)
        return found, remarks

    def sweep(self) -> None:
        """Removes lock files that nobody holds: those of runs that were killed."""
        for name in os.listdir(self._fd):
            if name.endswith(_LOCKS):
                try:
                    fd = os.open(name, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)
                except OSError:
                    continue
                try:
                    linux.flock(fd, linux.LOCK_EX | linux.LOCK_NB)
                    if os.fstat(fd).st_nlink:
                        os.unlink(name, dir_fd=self._fd)
                except OSError:
                    pass
                finally:
                    os.close(fd)

    def names(self) -> dict[str, list[str]]:
        """What is here of which container, sorted: its state file, and what a run has left that was killed."""
        found: dict[str, list[str]] = {}
        for name in sorted(os.listdir(self._fd)):
            container, dot, kind = name.rpartition(".")
            if dot + kind in (_SUFFIX, _NEW, _STAGING):
                found.setdefault(container, []).append(name)
        return found

    def _containers(self) -> Iterator[str]:
        for name in sorted(os.listdir(self._fd)):
            if name.endswith(_SUFFIX):
                yield name[: -len(_SUFFIX)]

    def hand_over(self, made: MadeRecord, neighbours: list[Record]) -> bool:
        """Gives what was made to a neighbour that uses it too, which removes it some day. False if nobody does."""
        other = heir(made["path"], neighbours)
        if other is not None and all(known["path"] != made["path"] for known in other["made"]):
            other["made"].append(made)
            other["made"].sort(key=lambda known: known["path"].count("/"))
            self.save(other)
        return other is not None


def _read_own(fd: int, path: str) -> bytes:
    """A state file that is ours alone. RecordError for anything else that was put in its place."""
    stat = os.fstat(fd)
    # No link at all: it was replaced or removed since it was opened, by another container's hook, and is still whole.
    if not modes.S_ISREG(stat.st_mode) or stat.st_uid != os.geteuid() or stat.st_mode & 0o077 or stat.st_nlink > 1:
        raise RecordError(f"{path} is not a state file of ours", hint=f"regular, own, mode 0600, one link; {MOVE_AWAY}")
    if stat.st_size > MAX_BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    chunks = []
    while chunk := os.read(fd, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _refused(problem: str, reason: OSError) -> RecordError:
    return RecordError(f"{problem}: {reason.strerror}", hint=hint("state", reason))
