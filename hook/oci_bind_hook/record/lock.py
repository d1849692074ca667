# SPDX-License-Identifier: Apache-2.0
"""Lock files in the state folder: one for each container, and one for each rootfs, which lists its containers.

Loaded by every start of a container: it imports only posix.
"""

from __future__ import annotations

import posix

from ..kernel import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


# For those before to finish with a rootfs, by all its names. A run may wait so long twice, for its id as well, and
# stays below the timeout of a registered hook (install), after which the runtime kills it without a reason.
LOCK_SECONDS = 10.0


class Lock:
    """An exclusive lock, by flock(2), on a file that is removed when the lock is released, if it is empty.

    Raises OSError: BlockingIOError if another process holds it for ``seconds`` more. ``seconds_left`` of them were not
    needed.
    """

    # The file is unlinked while the lock is held; otherwise the folder would keep one for every container and rootfs
    # that ever was. But a process that waits in flock(2) then locks a file without a name, while the next one creates a
    # new file and locks that: both would hold the lock, and one could remove what the other has just made. So a lock
    # counts only if its file still has a link, else the name is opened again. To unlink after the release would be the
    # same fault in reverse: it takes the name from a process that has just locked the file.

    def __init__(self, folder: int, name: str, seconds: float) -> None:
        self.seconds_left = seconds
        self._folder = folder
        self._name = name
        flags = posix.O_RDWR | posix.O_CREAT | posix.O_NOFOLLOW | posix.O_CLOEXEC
        while True:
            self._fd = posix.open(name, flags, 0o600, dir_fd=folder)
            try:
                self._take()
            except BaseException:
                posix.close(self._fd)
                raise
            stat = posix.fstat(self._fd)
            if stat.st_nlink:
                self.size = stat.st_size
                return
            # The previous holder has removed it: the next process would lock another file.
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
        """Ends the lock."""
        if not self.size:
            try:
                posix.unlink(self._name, dir_fd=self._folder)
            except OSError:
                pass  # an empty file is left, which is no reason to fail a finished run
        posix.close(self._fd)


class Index(Lock):
    """The lock of a rootfs. Its file lists the ``containers`` that have a record on it, one id a line.

    A start finds its neighbours by it, however many records of other rootfs there are. An id is added before the record
    is first written and taken away after it was removed, so a killed run leaves an id too much, never one too few.
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

    def add(self, container: str) -> None:
        """Adds a container, at once."""
        line = f"\n{container}\n".encode() if self._is_cut else f"{container}\n".encode()
        self.containers[container] = None
        self._write(line, self.size)
        self.size += len(line)

    def _write(self, data: bytes, at: int) -> None:
        # A disk that becomes full takes a part, and refuses the rest.
        while data:
            written = posix.pwrite(self._fd, data, at)
            data, at = data[written:], at + written

    def discard(self, container: str) -> None:
        """Takes a container away, at the latest when the lock is released."""
        if container in self.containers:
            del self.containers[container]
            self._is_changed = True

    def release(self) -> None:
        """Writes what was taken away, and ends the lock."""
        if self._is_changed:
            data = "\n".join([*self.containers, ""]).encode()
            try:
                self._write(data, 0)
                posix.ftruncate(self._fd, len(data))
                self.size = len(data)
            except OSError:
                pass  # an id too much is left, which the next one takes away
        super().release()


def read_index(fd: int) -> list[str]:
    """The ids that the file of an Index lists. Raises OSError."""
    return _ids(posix.pread(fd, posix.fstat(fd).st_size, 0))


def _ids(data: bytes) -> list[str]:
    # A run that was killed while it wrote leaves a part of an id, which names no record.
    return data.decode("ascii", "replace").split()


def sweep(folder: int, name: str, has: Callable[[str], bool]) -> None:
    """Takes containers that ``has`` no record of out of a lock file, and removes it if none is left.

    One that somebody holds is left alone.
    """
    try:
        index = Index(folder, name, 0)
    except OSError:
        return
    for container in [*index.containers]:
        if not has(container):
            index.discard(container)
    index.release()
