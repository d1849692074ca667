# SPDX-License-Identifier: Apache-2.0
"""Waits for a lock of flock(2) with a time limit, and finds out which process has it.

Loaded only if another process has a lock, before setns(2). It imports only errno, posix and the C module behind signal,
which is built into Python.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import errno
import posix

from . import files, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType

_AGAIN = 0.1  # seconds
_LEAST = 0.001


def wait(fd: int, seconds: float) -> float:
    """Waits for the exclusive lock on ``fd``. Returns the seconds left, above 0.

    Raises BlockingIOError if that takes more than ``seconds``: EAGAIN, with the pid of the process, if the same one has
    kept the lock for the second half of the time; EBUSY if processes took turns. Raises OSError for other errors.
    """
    holders = []
    for later in (seconds / 2, 0.0):
        if (left := _wait(fd, seconds / 2)) is not None:
            return left + later
        holders.append(_holder(fd))
    first, last = holders
    if first != last:
        raise BlockingIOError(
            errno.EBUSY, f"other processes have kept it locked in turn for over {seconds:.0f} seconds"
        )
    who = f"process {last}" if last is not None else "another run of the hook"
    raise BlockingIOError(errno.EAGAIN, f"{who} has kept it locked for over {seconds / 2:.0f} seconds")


def _wait(fd: int, seconds: float) -> float | None:
    """Waits for the lock. Returns the seconds left, above 0, or None after ``seconds``. Raises OSError."""
    is_late = False

    def ring(_number: int, _frame: FrameType | None) -> None:
        nonlocal is_late
        is_late = True

    before = _signal.signal(_signal.SIGALRM, ring)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, [_signal.SIGALRM])
    # The timer repeats: if the first signal comes just before flock(2), the call would otherwise wait forever.
    timer = _signal.setitimer(_signal.ITIMER_REAL, seconds, _AGAIN)
    try:
        linux.flock(fd, linux.LOCK_EX, lambda: is_late)
        left: float = _signal.getitimer(_signal.ITIMER_REAL)[0]
        return max(left, _LEAST)
    except InterruptedError:
        return None
    finally:
        _signal.setitimer(_signal.ITIMER_REAL, 0)
        _signal.signal(_signal.SIGALRM, before)
        _signal.setitimer(_signal.ITIMER_REAL, *timer)


def _holder(fd: int) -> int | None:
    """The pid of the process that has locked the file ``fd``, from proc_locks(5); None if it is not known here."""
    # Call it rarely: reading the file blocks every flock(2) of the machine.
    stat = posix.fstat(fd)
    place = f"{posix.major(stat.st_dev):02x}:{posix.minor(stat.st_dev):02x}:{stat.st_ino}"
    try:
        table = posix.open("/proc/locks", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        text = files.read_all(table).decode("ascii", "replace")
    except OSError:
        return None
    finally:
        posix.close(table)
    for line in text.splitlines():
        fields = line.split()
        # Lines of waiting processes have an arrow, and follow. A process of another pid namespace has no pid here.
        if len(fields) == 8 and fields[1] == "FLOCK" and fields[5] == place and int(fields[4]) > 0:
            return int(fields[4])
    return None
