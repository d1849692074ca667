# SPDX-License-Identifier: Apache-2.0
"""A FUSE server of the tests' own, fuse(4), that can go silent at one kind of request: it reads it and never answers.
It can answer one kind of request with an error, too.

The server is a child process. Whoever waits for its answer cannot be killed before the server has ended, so it is ended
by its pid when the block ends; then the kernel tells them that nobody is there.
"""

from __future__ import annotations

import errno
import mmap
import os
import signal
import stat
import struct
from typing import TYPE_CHECKING

from helpers import mounting, support
from oci_bind_hook.kernel import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

    # What is written to a transaction file is a question, and what is read then its answer, as in selinuxfs.
    Transaction = Callable[[bytes], bytes]
    Tree = Mapping[str, "bytes | Transaction | Tree"]

LOOKUP, FORGET, GETATTR, MKNOD, MKDIR, UNLINK, RMDIR = 1, 2, 3, 8, 9, 10, 11
OPEN, READ, WRITE, STATFS, RELEASE, FLUSH, INIT, OPENDIR = 14, 15, 16, 17, 18, 25, 26, 27
READDIR, RELEASEDIR, INTERRUPT, DESTROY, BATCH_FORGET = 28, 29, 36, 38, 42
GETXATTR, CREATE = 22, 35
UNANSWERED = {FORGET, INTERRUPT, BATCH_FORGET}

# What may be silent: each kind of request that a look at a path can lead to.
KINDS = {"LOOKUP": LOOKUP, "GETATTR": GETATTR, "STATFS": STATFS, "OPEN": OPEN, "OPENDIR": OPENDIR}

_HEADER = struct.Struct("=IIQQIIII")  # struct fuse_in_header: length, opcode, unique, nodeid, uid, gid, pid, padding
_ROOT = 1
_COUNTS = 64  # one for each opcode, behind the one that is silent and how many answers it still gives
_REFUSED = 2 + _COUNTS  # the opcode that is refused, and the errno
TREE: Tree = {"word": b"hello\n", "folder": {"below": b""}}
SECONDS = 20  # to wait for what happens at once


class Fuse:
    """A context manager: a file system of folders and files on ``path``, which need not exist.

    Everybody may enter it or, as where an ordinary user has mounted it, only ``user``.

    The kernel keeps nothing of what it is told: it asks for every look.
    """

    def __init__(self, path: str, tree: Tree = TREE, *, user: int | None = None) -> None:
        self.path = path
        os.makedirs(path, exist_ok=True)
        self._shared = memoryview(mmap.mmap(-1, 4 * (2 + _COUNTS + 2))).cast("I")
        self.stuck, told = os.pipe2(os.O_CLOEXEC)
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        words = f"fd={device},rootmode=40000,user_id={user or 0},group_id=0"
        words += "" if user else ",allow_other"
        mounting.mount("tests", path, "fuse", data=words)
        self.pid = mounting.forked(lambda: _Server(device, told, self._shared, tree).run())
        os.close(device)
        os.close(told)

    def __enter__(self) -> Fuse:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def silence(self, kind: str, after: int = 0) -> None:
        """From now on the server answers so many more requests of a kind, and then none."""
        self._shared[1] = after
        self._shared[0] = KINDS[kind]

    def refuse(self, kind: str, error: int) -> None:
        """From now on the server answers a kind of request with an errno; "MKNOD" is one of them."""
        self._shared[_REFUSED + 1] = error
        self._shared[_REFUSED] = {**KINDS, "MKNOD": MKNOD}[kind]

    def speak(self) -> None:
        """From now on it answers all again, but for what it has passed over."""
        self._shared[0] = 0

    def asked(self) -> dict[str, int]:
        """How often it was asked each kind of request, of those that were."""
        return {kind: self._shared[2 + number] for kind, number in KINDS.items() if self._shared[2 + number]}

    def asked_for_attributes(self) -> int:
        """How often it was asked for an extended attribute."""
        return self._shared[2 + GETXATTR]

    def await_stuck(self) -> None:
        """Waits until somebody waits for an answer that does not come."""
        assert support.is_readable(self.stuck, SECONDS)
        os.read(self.stuck, 1)

    def hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Lets each deadline of this process pass as soon as the one asked waits for an answer, and no earlier."""
        real = linux.wait_readable

        def wait(fd: int, seconds: float) -> bool:
            if seconds < 1:  # for one that was killed to end
                return real(fd, seconds)
            ready = support.readable(SECONDS, fd, self.stuck)
            assert ready
            if fd in ready:
                return True
            os.read(self.stuck, 1)
            return real(fd, 0.05)

        monkeypatch.setattr(linux, "wait_readable", wait)

    def end(self) -> None:
        """Ends the server: whoever waits is told that nobody is there."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0


class _Node:
    def __init__(self, what: bytes | Transaction | Tree, nodes: list[_Node]) -> None:
        self.number = len(nodes)
        nodes.append(self)
        self.data = what if isinstance(what, bytes) else b""
        self.transaction = what if callable(what) else None
        names = {} if isinstance(what, bytes) or callable(what) else what
        self.mode = stat.S_IFREG | 0o644 if isinstance(what, bytes) or callable(what) else stat.S_IFDIR | 0o755
        self.names = {os.fsencode(name): _Node(below, nodes) for name, below in names.items()}

    def attributes(self) -> bytes:
        """struct fuse_attr."""
        times = (1, 1, 1, 0, 0, 0)
        return struct.pack("=6Q10I", self.number, len(self.data), 1, *times, self.mode, 1, 0, 0, 0, 4096, 0)


class _Server:
    def __init__(self, device: int, told: int, shared: memoryview, tree: Tree) -> None:
        self._device = device
        self._told = told
        self._shared = shared
        self._nodes: list[_Node] = []
        _Node(b"", self._nodes)  # number 0 is nobody's
        _Node(tree, self._nodes)
        self._answers: dict[int, Callable[[_Node, bytes], bytes]] = {
            INIT: lambda *_: struct.pack("=4I2HI2H8I", 7, 31, 0, 0, 9, 9, 4096, 1, 1, *[0] * 8),
            LOOKUP: lambda node, body: self._entry(node.names[body.rstrip(b"\0")]),
            GETATTR: lambda node, _: struct.pack("=Q2I", 0, 0, 0) + node.attributes(),
            MKNOD: lambda node, body: self._make(node, body[16:], b""),
            CREATE: lambda node, body: self._make(node, body[16:], b"") + bytes(16),
            MKDIR: lambda node, body: self._make(node, body[8:], {}),
            UNLINK: self._remove,
            RMDIR: self._remove,
            OPEN: lambda node, _: struct.pack("=Q2I", 0, int(node.transaction is not None), 0),  # FOPEN_DIRECT_IO
            OPENDIR: lambda *_: bytes(16),
            READ: self._read,
            WRITE: self._write,
            READDIR: self._list,
            STATFS: lambda *_: struct.pack("=5Q10I", 9, 9, 9, 9, 9, 4096, 255, 4096, *[0] * 7),
            RELEASE: lambda *_: b"",
            RELEASEDIR: lambda *_: b"",
            FLUSH: lambda *_: b"",
            DESTROY: lambda *_: b"",
        }

    def run(self) -> None:
        while True:
            try:
                data = os.read(self._device, 1 << 17)
            except OSError as reason:
                if reason.errno in (errno.ENOENT, errno.EINTR):
                    continue  # the request was taken back
                return  # it was unmounted
            length, kind, unique, number, *_ = _HEADER.unpack_from(data)
            if kind < _COUNTS:
                self._shared[2 + kind] += 1
            if kind in UNANSWERED:
                continue
            if kind == self._shared[0]:
                if not self._shared[1]:
                    os.write(self._told, b".")
                    continue
                self._shared[1] -= 1
            code, answer = 0, b""
            try:
                if kind == self._shared[_REFUSED]:
                    raise OSError(self._shared[_REFUSED + 1], "")
                answer = self._answers[kind](self._nodes[number], data[_HEADER.size : length])
            except OSError as reason:
                code = reason.errno or errno.EIO
            except KeyError:
                code = errno.ENOENT if kind in self._answers else errno.ENOSYS
            os.write(self._device, struct.pack("=IiQ", 16 + len(answer), -code, unique) + answer)

    def _entry(self, node: _Node) -> bytes:
        """struct fuse_entry_out."""
        return struct.pack("=4Q2I", node.number, 0, 0, 0, 0, 0) + node.attributes()

    def _make(self, folder: _Node, name: bytes, what: bytes | Tree) -> bytes:
        folder.names[name.rstrip(b"\0")] = node = _Node(what, self._nodes)
        return self._entry(node)

    def _remove(self, folder: _Node, name: bytes) -> bytes:
        if folder.names[name.rstrip(b"\0")].names:
            raise OSError(errno.ENOTEMPTY, "")
        del folder.names[name.rstrip(b"\0")]
        return b""

    def _read(self, node: _Node, body: bytes) -> bytes:
        _, offset, size = struct.unpack_from("=QQI", body)
        if node.transaction is not None:
            return node.data[:size]
        return node.data[offset : offset + size]

    def _write(self, node: _Node, body: bytes) -> bytes:
        """struct fuse_write_out. OSError is what the transaction answers."""
        if node.transaction is None:
            raise OSError(errno.EACCES, "")
        question = body[40:]  # behind struct fuse_write_in
        node.data = node.transaction(question)
        return struct.pack("=2I", len(question), 0)

    def _list(self, node: _Node, body: bytes) -> bytes:
        """struct fuse_dirent each: all of them in one answer."""
        _, offset = struct.unpack_from("=QQ", body)
        found = b""
        for place, (name, below) in enumerate(node.names.items(), 1):
            entry = struct.pack("=QQII", below.number, place, len(name), below.mode >> 12) + name
            found += entry + bytes(-len(entry) % 8) if place > offset else b""
        return found
