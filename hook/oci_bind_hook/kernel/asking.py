# SPDX-License-Identifier: Apache-2.0
"""Asking a file system that may never answer: a FUSE server that was stopped, a server of the network that is away.

The kernel keeps whoever asks it, beyond signals, until it answers or is given up. So somebody else asks: a child that
holds nothing that others wait for.

Loaded by commands, and else only where the mount table shows such a file system, never after setns(2): it imports only
marshal, posix, sys and what is behind the module signal, all parts of Python itself.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import marshal
import posix
import sys

from .. import open_stdio
from . import files, linux
from .mountinfo import may_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .mountinfo import MountInfo, MountTable

    # What a child can tell: numbers, texts, None, and tuples, lists and dicts of these.
    Told = Any

SECONDS = 2.0  # within which a file system that is well answers, far from it as it may be

_MOST_LAYERS = 1000  # overlays on overlays: what has more is taken for one that may wait


def first_that_may_wait(table: MountTable, path: str) -> MountInfo | None:
    """A mount on the way to ``path``, absolute and without links, that may wait; None if there is none.

    On the way through an overlay are its layers, too. Nothing is asked: it is all in the mount ``table``.
    """
    pending, seen = [path], {path}
    while pending:
        way = pending.pop().rstrip("/")
        while True:
            for info in table.at(way or "/"):
                if may_wait(info.type) or len(seen) > _MOST_LAYERS:
                    return info
                layers = [layer for layer in _layers(info) if layer.startswith("/") and layer not in seen]
                pending += layers
                seen.update(layers)
            if not way:
                break
            way = way.rpartition("/")[0]
    return None


def _layers(info: MountInfo) -> list[str]:
    """The folders that an overlay is made of, as its options name them, proc_pid_mountinfo(5)."""
    found = []
    for option in info.super_options.split(",") if info.type == "overlay" else ():
        name, _, value = files.unescape(option).partition("=")
        if name == "lowerdir":
            # A colon in the name of a folder has a backslash before it.
            found += [part.replace("\0", ":") for part in value.replace("\\:", "\0").split(":")]
        elif name in ("lowerdir+", "datadir+", "upperdir"):
            found.append(value)
    return found


class Outcome:
    """What came of a question: an ``answer``; or the ``error`` with which it failed; or silence.

    ``left`` is the pid of the child that still waits for the answer, None if it has ended.
    """

    __slots__ = ("answer", "error", "is_silent", "left")

    def __init__(self) -> None:
        self.answer: Told = None
        self.error: OSError | None = None
        self.is_silent = False
        self.left: int | None = None

    def silence(self, who: str) -> str:
        """That ``who`` was asked and is silent, in words."""
        left = f"; process {self.left} still waits for it" if self.left is not None else ""
        return f"{who} does not answer{left}"


def ask(
    question: Callable[[], Told],
    seconds: float = SECONDS,
    *,
    fds: Sequence[int] = (),
    goes_on: Callable[[int], bool] = lambda _: False,
) -> Outcome:
    """Has a child call ``question``, and waits up to ``seconds`` for what it returns or for the OSError that it raises.

    The child has no fds but ``fds``, and works in ``/``: so while it waits it holds no lock, no state file, no output
    that a runtime reads to its end, and no file system that is to be unmounted, such as the bundle's. After the
    deadline it gets a SIGKILL. Where the kernel does not let it die before the server answers, it is left behind and
    told of. Any other exception than OSError is a bug, and is RuntimeError here. ``goes_on`` is asked when the time is
    up whether to wait as long once more for the child, whose pid it is given.

    Raises OSError if there can be no child, by fork(2), memfd_create(2) or pidfd_open(2), Linux 5.3.
    """
    # The child runs what this process has loaded. After setns(2) it would load the image's code with its first import.
    assert sys.meta_path, "never after setns(2)"
    outcome = Outcome()
    # If who started this process ignores it, the kernel takes away a child by itself, and its pid may be another's.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    # Not a pipe: a long answer would fill it, and the child would wait for a reader who waits for its end.
    told = posix.memfd_create("answer", posix.MFD_CLOEXEC)
    try:
        child = posix.fork()
        if child == 0:
            _answer(question, told, fds)
        outcome.left = child
        pidfd = _open(child)
        try:
            while not linux.wait_readable(pidfd, seconds):
                if goes_on(child):
                    continue
                outcome.is_silent = True
                posix.kill(child, 9)  # SIGKILL. Its pid cannot be another's: nobody else has waited for it.
                linux.wait_readable(pidfd, _GRACE)
                break
        finally:
            posix.close(pidfd)
        if posix.waitpid(child, posix.WNOHANG)[0]:
            outcome.left = None
        if not outcome.is_silent:
            _read(outcome, told)
    finally:
        posix.close(told)
    return outcome


def _open(child: int) -> int:
    try:
        return posix.pidfd_open(child)
    except OSError:
        posix.kill(child, 9)
        raise


_GRACE = 0.05  # for a process to end that has been killed, and can be


def _answer(question: Callable[[], Told], told: int, fds: Sequence[int]) -> None:
    """What the child does; it never returns."""
    try:
        _close_all_but({told, *fds})
        posix.chdir("/")
        try:
            answer = ("answer", question())
        except OSError as reason:
            answer = ("error", (reason.errno, reason.strerror, reason.filename))
        except BaseException as bug:  # noqa: BLE001 - it must not get back into what the parent was doing
            answer = ("bug", f"{type(bug).__name__}: {bug}")
        data = marshal.dumps(answer)
        while data:
            data = data[posix.write(told, data) :]
    finally:
        posix._exit(0)


def _close_all_but(fds: set[int]) -> None:
    first = 0
    for fd in sorted(fds):
        posix.closerange(first, fd)
        first = fd + 1
    linux.close_from(first)
    open_stdio()


def _read(outcome: Outcome, told: int) -> None:
    posix.lseek(told, 0, 0)
    data = files.read_all(told)
    if not data:  # it was killed by somebody else
        outcome.is_silent = True
        return
    what, value = marshal.loads(data)
    if what == "bug":
        raise RuntimeError(value)
    if what == "error":
        outcome.error = OSError(*value)
    else:
        outcome.answer = value
