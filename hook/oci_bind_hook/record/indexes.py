# SPDX-License-Identifier: Apache-2.0
"""The folder ``rootfs`` in the state folder: for each rootfs a lock file that lists the containers recorded on it.

Loaded by every start of a container: import only errno, posix and stat.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..errors import RecordError
from ..kernel import errnos
from .lock import Index, read_index, sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_NAME = "rootfs"
_FLAGS = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC


class Indexes:
    """The lists in the state folder at ``path``, open as ``fd``. The folder of lists exists while it has a list.

    Its methods raise RecordError.
    """

    def __init__(self, path: str, fd: int) -> None:
        self._path = f"{path}/{_NAME}"
        self._above = fd
        self._fd: int | None = None

    def lock(self, key: str, seconds: float) -> Index:
        """Locks one key of a rootfs, rootfs.identity.keys.

        If another run keeps it locked for ``seconds``, raises the error of StateFolder.lock_id.
        """
        try:
            while True:
                if self._fd is None:
                    self._fd = self._open()
                try:
                    return Index(self._fd, key, seconds)
                except FileNotFoundError:
                    # Another run found the folder empty and removed it.
                    posix.close(self._fd)
                    self._fd = None
        except NotADirectoryError as reason:
            raise self._foreign() from reason
        except OSError as reason:
            raise unlocked(f"{self._path}/{key}", reason, wait=bool(seconds)) from reason

    def _foreign(self) -> RecordError:
        return RecordError(
            f"{self._path} is a file or a link, not a folder", hint="the hook did not create it: delete it"
        )

    def _open(self) -> int:
        while True:
            try:
                return posix.open(_NAME, _FLAGS, dir_fd=self._above)
            except FileNotFoundError:
                # Every record except those of version 1 is in a list. Without the sticky bit there may be others. The
                # bit has no other effect on a folder that only one user can enter.
                may_miss = any(name.endswith(".json") for name in posix.listdir(self._above))
                try:
                    posix.mkdir(_NAME, 0o700 if may_miss else 0o1700, dir_fd=self._above)
                except FileExistsError:
                    pass  # another run has created it meanwhile

    def remove_empty(self) -> None:
        """Removes the folder, if it is empty."""
        try:
            posix.rmdir(_NAME, dir_fd=self._above)
        except OSError:
            pass  # something is listed there

    def is_whole(self) -> bool:
        """Whether every record is in a list."""
        try:
            stat = posix.stat(_NAME, dir_fd=self._above, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except OSError as reason:
            raise refused(f"{self._path} cannot be inspected", reason) from reason
        return bool(stat.st_mode & modes.S_ISVTX)

    def note_whole(self) -> None:
        """Notes that every record is in a list. The caller has a lock of this folder."""
        assert self._fd is not None
        try:
            posix.chmod(self._fd, 0o1700)
        except OSError:
            pass  # then the next run reads all records, too

    def missing(self, containers: Iterable[str]) -> set[str]:
        """Those of ``containers``, which have a record, that should be in a list but are in none that can be read."""
        if not self.is_whole():
            return set()
        left = set(containers)
        try:
            for key in posix.listdir(self._path):
                try:
                    left.difference_update(self.listed(key))
                except RecordError:
                    pass  # its containers count as missing
        except FileNotFoundError:
            return set()  # the last list was removed meanwhile
        except OSError as reason:
            raise refused(f"{self._path} cannot be read", reason) from reason
        return left

    def doubt(self) -> None:
        """Notes that there may be records that are in no list.

        A list may have been removed, or emptied by a power loss.
        """
        try:
            posix.chmod(_NAME, 0o700, dir_fd=self._above)
        except FileNotFoundError:
            pass  # without the folder, is_whole returns False
        except OSError as reason:
            raise refused(f"{self._path} cannot be changed", reason) from reason

    def listed(self, key: str) -> list[str]:
        """The containers in the list of a key, read without its lock."""
        try:
            fd = posix.open(f"{_NAME}/{key}", posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=self._above)
        except FileNotFoundError:
            return []
        except OSError as reason:
            raise refused(f"{self._path}/{key} cannot be read", reason) from reason
        try:
            return read_index(fd)
        except OSError as reason:
            raise refused(f"{self._path}/{key} cannot be read", reason) from reason
        finally:
            posix.close(fd)

    def sweep(self, has: Callable[[str], bool]) -> None:
        """Removes containers that ``has`` no record of from the lists that are not locked: killed runs left them."""
        try:
            fd = posix.open(_NAME, _FLAGS, dir_fd=self._above)
        except FileNotFoundError:
            return
        except NotADirectoryError as reason:
            raise self._foreign() from reason
        except OSError as reason:
            raise refused(f"{self._path} cannot be opened", reason) from reason
        try:
            for name in posix.listdir(fd):
                sweep(fd, name, has)
        except OSError as reason:
            raise refused(f"{self._path} cannot be read", reason) from reason
        finally:
            posix.close(fd)
        self.remove_empty()


_HELD = "find out what it waits for; if it never ends, kill it and run gc"
_CROWDED = "no process hangs, but too many containers start and end at once: start fewer at a time"


def unlocked(path: str, reason: OSError, *, wait: bool) -> RecordError:
    """The error for a lock file that cannot be locked, or that another process has kept locked until the time limit."""
    problem = f"{path} cannot be locked"
    if isinstance(reason, BlockingIOError) and wait:
        advice = _CROWDED if reason.errno == errno.EBUSY else _HELD
        return RecordError(f"{problem}: {reason.strerror}", hint=advice)
    return refused(problem, reason)


def refused(problem: str, reason: OSError) -> RecordError:
    """The error for a call that the kernel refused in the state folder."""
    return RecordError(f"{problem}: {reason.strerror}", hint=errnos.hint("state", reason))
