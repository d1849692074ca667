# SPDX-License-Identifier: Apache-2.0
"""A process that sees another one's pid, as one of another container may, and tries all it could look into it by."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from functools import partial
from typing import TYPE_CHECKING

import prctl

if TYPE_CHECKING:
    from collections.abc import Callable, Set

CLONE_NEWNS = 0x20000
CLONE_NEWPID = 0x20000000
PTRACE_SEIZE = 0x4206
NR_PIDFD_GETFD = 438

# What docker and podman give a container, capabilities(7).
ORDINARY = frozenset(
    getattr(prctl, f"CAP_{name}")
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "NET_BIND_SERVICE"),
        *("NET_RAW", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SETFCAP"),
    )
)
PTRACE = prctl.CAP_SYS_PTRACE  # what it is for is to look into every process that one sees
NEARLY_ALL = frozenset(prctl.ALL_CAPS) - {PTRACE}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long
_libc.syscall.restype = ctypes.c_long


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _follow(name: str, pid: int) -> None:
    os.stat(f"/proc/{pid}/{name}")


def _read(name: str, pid: int) -> None:
    if not os.read(os.open(f"/proc/{pid}/{name}", os.O_RDONLY), 1):
        raise PermissionError


def _open_memory(pid: int) -> None:
    os.open(f"/proc/{pid}/mem", os.O_RDWR)


def _get_fd(pid: int) -> None:
    _check(_libc.syscall(NR_PIDFD_GETFD, os.pidfd_open(pid), 0, 0))


def _trace(pid: int) -> None:
    _check(_libc.ptrace(PTRACE_SEIZE, pid, None, None))


WAYS: dict[str, Callable[[int], None]] = {
    **{name: partial(_follow, name) for name in ("root", "cwd", "exe", "fd/0", "ns/mnt")},
    "memory": _open_memory,
    "pidfd_getfd": _get_fd,
    "ptrace": _trace,
}
# Since Linux 6.15 open to who may measure performance as well, and CAP_SYS_ADMIN is enough for that.
MEASURED: dict[str, Callable[[int], None]] = {name: partial(_read, name) for name in ("environ", "maps", "auxv")}


def _limit(kept: Set[int]) -> None:
    dropped = [number for number in prctl.ALL_CAPS if number not in kept]
    prctl.set_caps(*((dropped, which, False) for which in (prctl.CAP_EFFECTIVE, prctl.CAP_PERMITTED)))


def open_ways(pid: int, kept: Set[int]) -> list[str]:
    """The ways into a process that are open to root with these capabilities."""
    return _answer(lambda: _open_ways(pid, kept))


class Inside:
    """The same from inside the container whose first process is ``init``; pids are those that it sees."""

    def __init__(self, init: int) -> None:
        self._init = init

    def named(self, name: str) -> list[int]:
        """The processes that are called so."""
        return [int(pid) for pid in self._answer(lambda: [pid for pid in _pids() if _name(pid) == name])]

    def open_ways(self, pid: int, kept: Set[int]) -> list[str]:
        return self._answer(lambda: _open_ways(pid, kept))

    def kill(self, pid: int) -> None:
        def act() -> list[str]:
            os.kill(pid, signal.SIGKILL)
            return []

        self._answer(act)

    def _answer(self, action: Callable[[], list[str]]) -> list[str]:
        def enter() -> list[str]:
            for kind, flag in (("pid", CLONE_NEWPID), ("mnt", CLONE_NEWNS)):
                _check(_libc.setns(os.open(f"/proc/{self._init}/ns/{kind}", os.O_RDONLY), flag))
            # Only a child is in the pid namespace.
            return _answer(action)

        return _answer(enter)


def _pids() -> list[str]:
    return [name for name in os.listdir("/proc") if name.isdigit()]


def _name(pid: str) -> str:
    with open(f"/proc/{pid}/comm", encoding="utf-8") as comm:
        return comm.read().rstrip("\n")


def _open_ways(pid: int, kept: Set[int]) -> list[str]:
    _limit(kept)
    ways = WAYS if prctl.CAP_SYS_ADMIN in kept else WAYS | MEASURED
    found = []
    for name, way in ways.items():
        with contextlib.suppress(OSError):
            way(pid)
            found.append(name)
    return found


def _answer(action: Callable[[], list[str]]) -> list[str]:
    """What ``action`` answers in a child, which keeps neither the capabilities nor the namespaces of this process."""
    answers, answer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(answer, "\n".join(action()).encode())
            os._exit(0)
        finally:
            os._exit(1)
    os.close(answer)
    with open(answers, encoding="utf-8") as file:
        text = file.read()
    assert os.waitpid(child, 0)[1] == 0
    return text.split("\n") if text else []
