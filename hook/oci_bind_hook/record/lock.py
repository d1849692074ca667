# SPDX-License-Identifier: Apache-2.0
"""Lock files in the state folder: one for each container, and one for each rootfs, which lists its containers.

Loaded by every start of a container: import only posix.
"""

from __future__ import annotations

import posix

from ..kernel import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# The time to wait for earlier runs on a rootfs, for all its keys together. A run may wait twice, once for its id, and
# stays below the timeout of a registered hook (install), after which the runtime kills it without a reason.
LOCK_SECONDS = 10.0


class Lock:
    """An exclusive lock, by flock(2), on a file that is removed when the lock is released, if it is empty.

    Raises OSError: BlockingIOError if another process keeps it locked for ``seconds``. ``seconds_left`` is the part of
    ``seconds`` that was not needed.
    """

    # The file is unlinked before the lock is released; otherwise the folder would keep a file for every container and
    # rootfs. But a process that waits in flock(2) then locks a file without a name, while the next one creates a new
    # file and locks that: both would have the lock, and one could remove what the other has just made. So a lock counts
    # only if its file still has a link; otherwise the name is opened again. An unlink after the release would be the
    # reverse mistake: it could remove the name of a file that another process has just locked.

    def __init__(self, folder: int, name: str, seconds: float) -> None:
        self.seconds_left = seconds
        self._folder = folder
        self._name = name
        flags = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC
        while True:
            self._fd = posix.open(name, flags, 0o600, dir_fd=folder)
            try:
                self._take()
                stat = posix.fstat(self._fd)
            except BaseException:
                posix.close(self._fd)  # an open fd would stay locked
                raise
            if stat.st_nlink:
                self.size = stat.st_size
                return
            # The previous owner of the lock has removed the file, so the next process would lock another one.
            posix.close(self._fd)

    def _take(self) -> None:
        try:
            linux.flock(self._fd, linux.LOCK_EX | linux.LOCK_NB)
        except BlockingIOError:
            if not self.seconds_left:
                raise
            from ..kernel import locks

            self.seconds_left = locks.wait(self._fd, self.seconds_left)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Releases the lock."""
        if not self.size:
            try:
                posix.unlink(self._name, dir_fd=self._folder)
            except OSError:
                pass  # an empty file is left, and a finished run must not fail because of it
        posix.close(self._fd)


class Index(Lock):
    """The lock of a rootfs. Its file lists the ``containers`` that have a record on it, one id a line.

    With this list a start finds its neighbours without reading the records of other rootfs. An id is added before the
    record is first written, and removed after it, so a killed run can leave an extra id, but never a missing one.
    Raises OSError.
    """

    def __init__(self, folder: int, name: str, seconds: float) -> None:
        super().__init__(folder, name, seconds)
        self.containers: dict[str, None] = {}
        self._is_changed = False
        self._is_cut = False
        if self.size:
            try:
                data = posix.pread(self._fd, self.size, 0)
            except BaseException:
                posix.close(self._fd)
                raise
            self.containers = dict.fromkeys(_ids(data))
            self._is_cut = not data.endswith(b"\n")
            self._is_changed = self._content() != data

    def add(self, container: str) -> None:
        """Adds a container, and writes it immediately. Raises OSError."""
        line = f"\n{container}\n".encode() if self._is_cut else f"{container}\n".encode()
        self.containers[container] = None
        self._write(line, self.size)
        self.size += len(line)

    def _content(self) -> bytes:
        return "\n".join([*self.containers, ""]).encode()

    def _write(self, data: bytes, at: int) -> None:
        # A disk that becomes full accepts only a part, and then refuses the rest.
        while data:
            written = posix.pwrite(self._fd, data, at)
            data, at = data[written:], at + written

    def discard(self, container: str) -> None:
        """Removes a container. The file changes when the lock is released."""
        if container in self.containers:
            del self.containers[container]
            self._is_changed = True

    def release(self) -> None:
        """Writes the list without discarded containers, and releases the lock."""
        if self._is_changed:
            data = self._content()
            try:
                self._write(data, 0)
                posix.ftruncate(self._fd, len(data))
                self.size = len(data)
            except OSError:
                pass  # an extra id is left, which a later run removes
        super().release()


def read_index(fd: int) -> list[str]:
    """The ids in the file of an Index. Raises OSError."""
    return _ids(posix.pread(fd, posix.fstat(fd).st_size, 0))


_LETTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-")  # of an id
_MOST = 200  # characters of an id


def _ids(data: bytes) -> list[str]:
    # A run that was killed while it wrote leaves a part of an id, which has no record. A power loss leaves zeros: the
    # list is not synced, because all containers end with the machine. What cannot be an id is skipped.
    words = data.decode("ascii", "replace").replace("\0", " ").split()
    return [word for word in words if len(word) <= _MOST and _LETTERS.issuperset(word)]


def sweep(folder: int, name: str, has: Callable[[str], bool]) -> None:
    """Removes containers that ``has`` no record of from a lock file, and removes the file if none is left.

    A file that another process has locked stays unchanged.
    """
    try:
        index = Index(folder, name, 0)
    except OSError:
        return
    for container in [*index.containers]:
        if not has(container):
            index.discard(container)
    index.release()
