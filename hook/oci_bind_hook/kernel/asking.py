# SPDX-License-Identifier: Apache-2.0
"""Accesses a file system that may never answer: a FUSE server that was stopped, a network server that is down.

The kernel blocks a process that accesses it, regardless of signals, until it answers or is given up. So a child process
accesses it, which has no lock or other resource that another process waits for.

Loaded by commands, otherwise only if the mount table shows such a file system, and never after setns(2). It imports
only marshal, posix, sys and the C module behind signal, all of them built into Python.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import marshal
import posix
import sys

from .. import open_stdio
from . import files, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    # What a child can return: numbers, texts, None, and tuples, lists and dicts of these.
    Answer = Any

SECONDS = 2.0  # the time limit: a working file system answers sooner, even a remote one


class Outcome:
    """The result of ``ask``: an ``answer``, or the ``error`` with which it failed, or no answer (``is_silent``).

    ``left`` is the pid of the child that still waits for the answer, None if it has ended.
    """

    __slots__ = ("answer", "error", "is_silent", "left")

    def __init__(self) -> None:
        self.answer: Answer = None
        self.error: OSError | None = None
        self.is_silent = False
        self.left: int | None = None

    def silence(self, who: str) -> str:
        """The message that ``who`` does not answer."""
        left = f"; process {self.left} still waits for it" if self.left is not None else ""
        return f"{who} does not answer{left}"


def ask(
    question: Callable[[], Answer],
    seconds: float = SECONDS,
    *,
    fds: Sequence[int] = (),
    goes_on: Callable[[int], bool] = lambda _: False,
) -> Outcome:
    """Lets a child call ``question``, and waits up to ``seconds`` for its result or its OSError.

    The child has only the fds ``fds``, and works in ``/``: while it waits it has no lock, no state file, no output
    that a runtime reads to its end, and no file system that is to be unmounted, such as that of the bundle. After the
    deadline it gets a SIGKILL. If the kernel does not end it before the server answers, it is left behind, and
    ``Outcome.left`` is its pid. Any exception other than OSError is a bug, and becomes a RuntimeError. ``goes_on`` is
    called with the pid of the child after the time limit, and returns whether to wait as long again.

    Raises OSError if no child can be created: by fork(2), memfd_create(2) or pidfd_open(2), Linux 5.3.
    """
    # The child continues with the modules of this process. After setns(2) its first import would load the image's code.
    assert sys.meta_path, "never after setns(2)"
    outcome = Outcome()
    # If SIGCHLD is ignored, by inheritance, the kernel reaps a child by itself, and its pid may be reused.
    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    # Not a pipe: a long answer would fill it, and the child would wait for its parent, which waits for its end.
    answer_fd = posix.memfd_create("answer", posix.MFD_CLOEXEC)
    try:
        child = posix.fork()
        if child == 0:
            _answer(question, answer_fd, fds)
        outcome.left = child
        pidfd = _open(child)
        try:
            while not linux.wait_readable(pidfd, seconds):
                if goes_on(child):
                    continue
                outcome.is_silent = True
                posix.kill(child, 9)  # SIGKILL. Its pid cannot be reused, because only this process can reap it.
                linux.wait_readable(pidfd, _GRACE)
                break
        finally:
            posix.close(pidfd)
        if posix.waitpid(child, posix.WNOHANG)[0]:
            outcome.left = None
        if not outcome.is_silent:
            _read(outcome, answer_fd)
    finally:
        posix.close(answer_fd)
    return outcome


def _open(child: int) -> int:
    try:
        return posix.pidfd_open(child)
    except OSError:
        posix.kill(child, 9)
        raise


_GRACE = 0.05  # seconds for a process to end after SIGKILL, if the kernel can end it


def _answer(question: Callable[[], Answer], answer_fd: int, fds: Sequence[int]) -> None:
    """Runs in the child; never returns."""
    try:
        _close_all_but({answer_fd, *fds})
        posix.chdir("/")
        try:
            answer = ("answer", question())
        except OSError as reason:
            answer = ("error", (reason.errno, reason.strerror, reason.filename))
        except BaseException as bug:  # noqa: BLE001 - the child must not continue the code of its parent
            answer = ("bug", f"{type(bug).__name__}: {bug}")
        data = marshal.dumps(answer)
        while data:
            data = data[posix.write(answer_fd, data) :]
    finally:
        posix._exit(0)


def _close_all_but(fds: set[int]) -> None:
    first = 0
    for fd in sorted(fds):
        posix.closerange(first, fd)
        first = fd + 1
    linux.close_from(first)
    open_stdio()


def _read(outcome: Outcome, answer_fd: int) -> None:
    posix.lseek(answer_fd, 0, 0)
    data = files.read_all(answer_fd)
    if not data:  # another process killed the child
        outcome.is_silent = True
        return
    what, value = marshal.loads(data)
    if what == "bug":
        raise RuntimeError(value)
    if what == "error":
        outcome.error = OSError(*value)
    else:
        outcome.answer = value
