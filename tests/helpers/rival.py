# SPDX-License-Identifier: Apache-2.0
"""A rival: a process that exchanges names in a rootfs, as fast as it can, while the hook works there.

It keeps count, so that a test can tell whether a run has met it at all, and it waits for nothing but an order.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

AT_FDCWD = -100
RENAME_EXCHANGE = 2
CLONE_NEWNS = 0x20000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18

_libc = ctypes.CDLL(None, use_errno=True)


def exchange(one: str, other: str) -> bool:
    """renameat2(2): the two names change places at once. False where one of them is not there, else OSError."""
    names = os.fsencode(one), os.fsencode(other)
    if _libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number == errno.ENOENT:
        return False
    raise OSError(number, os.strerror(number), one)


class Rival:
    """A process that exchanges ``one`` and ``other``; a context manager, which ends it.

    It starts paused. While it is paused both names are where they were in the beginning, unless one of them has gone.
    """

    def __init__(self, one: str, other: str) -> None:
        self.names = one, other
        self._shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")  # swaps, and whether to pause

    @property
    def swaps(self) -> int:
        """How often it has exchanged the names so far."""
        return int(self._shared[0])

    def __enter__(self) -> Rival:
        self._shared[1] = 1
        orders, self._order = os.pipe()
        self._answers, answer = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                os.close(self._order)
                os.close(self._answers)
                self._work(orders, answer)
            finally:
                os._exit(1)
        os.close(orders)
        os.close(answer)
        assert os.read(self._answers, 1) == b"."
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._order)
        os.close(self._answers)

    def _work(self, orders: int, answer: int) -> None:
        shared = self._shared
        # Of its own, as a container's: elsewhere a mount point can be renamed.
        if _libc.unshare(CLONE_NEWNS) or _libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None):
            return
        while True:
            if shared[1]:
                if shared[0] % 2:
                    shared[0] += exchange(*self.names)
                os.write(answer, b".")
                os.read(orders, 1)
                shared[0] += exchange(*self.names)
                os.write(answer, b".")
            shared[0] += exchange(*self.names)

    @contextlib.contextmanager
    def at_work(self) -> Iterator[None]:
        """Lets it work for as long as the block lasts. It has tried once when the block begins."""
        self._shared[1] = 0
        os.write(self._order, b".")
        assert os.read(self._answers, 1) == b".", "the rival has ended"
        try:
            yield
        finally:
            self._shared[1] = 1
            assert os.read(self._answers, 1) == b".", "the rival has ended"
