# SPDX-License-Identifier: Apache-2.0
"""Binds by mount(2), for kernels without detached trees (before Linux 5.12), or a filter that hides them.

What a detached tree is there, a mount in a private staging folder is here: it gets its ids and attributes where nobody
looks, and is moved to its mount point complete. mount(2) binds only what is in the namespace it is called in, so that
all this happens after that has been entered.
"""

from __future__ import annotations

import errno
import os

from ..errors import MissingError, UnavailableError
from ..kernel import linux
from ..kernel.errnos import hint, refused
from ..kernel.proc import MountInfo, MountTable, Proc
from .mounted import TRIES, describe, identity, open_root, propagate, unmount
from .source import Source, real_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.proc import Namespace
    from ..record.state_file import AttachedRecord
    from ..requests.request import Request

_FLAGS = {
    "ro": linux.MS_RDONLY,
    "nosuid": linux.MS_NOSUID,
    "nodev": linux.MS_NODEV,
    "noexec": linux.MS_NOEXEC,
    "nodiratime": linux.MS_NODIRATIME,
    "nosymfollow": linux.MS_NOSYMFOLLOW,
}
_ATIMES = {
    "noatime": linux.MS_NOATIME,
    "relatime": linux.MS_RELATIME,
    "strictatime": linux.MS_STRICTATIME,
}


class Staging:
    """An empty tmpfs on ``path`` for mounts that are not finished. What is left in it goes with it.

    It is unbindable: nothing spreads from it, and no source that ``path`` lies below takes it along. KernelError.
    """

    def __init__(self, path: str, proc: Proc) -> None:
        self._proc = proc
        self._count = 0
        try:
            below = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                before = proc.mounts().ids()
                proc.mount(None, below, linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, kind="tmpfs")
                top = _new_mount(proc.mounts(), before, linux.statx(below).mnt_id)
            finally:
                os.close(below)
            self._fd = _open_root(top, proc)
            propagate(self._fd, "unbindable", proc)
        except OSError as reason:
            raise refused("mount(tmpfs)", path, reason) from reason

    def place(self, *, directory: bool) -> int:
        """An fd of a new folder or file to mount on. OSError."""
        self._count += 1
        name = str(self._count)
        if directory:
            os.mkdir(name, 0o700, dir_fd=self._fd)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._fd))
        return os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._fd)

    def close(self) -> None:
        """Takes down the tmpfs, and all that was never moved out of it. OSError."""
        try:
            unmount(self._fd, self._proc)
        except OSError:
            # All that is asked for may be attached by now: one refusal is no reason to leave it half done.
            unmount(self._fd, self._proc)
        finally:
            os.close(self._fd)


class ClassicSource(Source):
    """A source that is bound by mount(2)."""

    is_detached = False
    call = "mount(MS_MOVE)"
    staging: Staging  # set once there is one

    def check(self) -> None:
        """Refuses what mount(2) cannot do. UnavailableError."""
        request = self.request
        if request.idmap is not None:
            raise UnavailableError("this kernel cannot map the owners of a mount", where=request.at("options"))
        if request.deep and len(self.visible) < len(self.submounts):
            raise UnavailableError(
                f"a mount below {self.path} is hidden by another one, and this kernel cannot change it there",
                where=request.at("options"),
            )

    def clone(self) -> None:
        try:
            self._clone()
        except OSError as reason:
            raise refused("mount", self.path, reason, where=self.request.at("source")) from reason

    def _clone(self) -> None:
        proc, request = self.namespace.proc, self.request
        target = self.staging.place(directory=self.is_folder)
        try:
            source = self._open_here()
            before = proc.mounts().ids()
            self._bind(source, target)
            table = proc.mounts()
            top = _new_mount(table, before, linux.statx(target).mnt_id)
        finally:
            os.close(target)
        os.close(source)
        below = table.below(top.id)
        self._check_below(below, top)
        self.fd = _open_root(top, proc)
        self.attached = [identity(self.fd, top.root, top), *map(_numbered, below)]
        self.infos = {info.id: info for info in (top, *below)}
        self._set_attributes(self.fd, top, {**request.deep, **request.top})
        for info in below if request.deep else ():
            fd = _open_root(info, proc)
            try:
                self._set_attributes(fd, info, request.deep)
            finally:
                os.close(fd)
        propagate(self.fd, request.propagation, proc)
        self._check_attributes([top, *below])

    def _open_here(self) -> int:
        """The same object by a mount of the namespace we are in. OSError, MissingError."""
        if not self.namespace.entered:
            return self.fd
        path = real_path(self.fd, self.namespace.proc)
        os.close(self.fd)
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError as reason:
            problem = f"the container's namespace has nothing at {path}: {reason.strerror}"
            raise MissingError(problem, where=self.request.at("source"), hint=hint("openat", reason)) from reason
        here = linux.statx(fd)
        if (here.dev, here.ino) != (self.stat.dev, self.stat.ino):
            os.close(fd)
            problem = f"the container's namespace has something else at {path}"
            raise MissingError(problem, where=self.request.at("source"))
        return fd

    def _bind(self, source: int, target: int) -> None:
        recursive = linux.MS_REC if self.request.recursive else 0
        try:
            self.namespace.proc.mount(source, target, linux.MS_BIND | recursive)
        except OSError as reason:
            raise refused("mount(MS_BIND)", self.path, reason, where=self.request.at("source")) from reason

    def _check_below(self, below: list[MountInfo], top: MountInfo) -> None:
        """Refuses mounts that are not the source's but the container's own, such as a /proc not masked yet."""
        if not self.namespace.entered:
            return
        expected = {path for path, _ in self.submounts}
        for info in below:
            if info.mount_point[len(top.mount_point) + 1 :] not in expected:
                raise UnavailableError(
                    f"mounts of the container's own are below {self.path}, and this kernel would bind them too",
                    where=self.request.at("source"),
                    hint="bind-recursive=disabled binds none of them",
                )

    def _set_attributes(self, fd: int, info: MountInfo, wanted: dict[str, bool | str]) -> None:
        """Changes what is ``wanted`` of a mount. mount(2) sets all attributes at once, so the others are said again."""
        if not wanted:
            return
        flags = linux.MS_REMOUNT | linux.MS_BIND
        for attribute, value in {**_attributes(info), **wanted}.items():
            if attribute == "atime":
                flags |= _ATIMES[str(value)]
            elif value:
                flags |= _FLAGS[attribute]
        try:
            self.namespace.proc.mount(None, fd, flags)
        except OSError as reason:
            raise refused("mount(MS_REMOUNT)", self.path, reason, where=self.request.at("options")) from reason

    def _check_attributes(self, mounts: list[MountInfo]) -> None:
        """Compares what was asked for with what has become of it. OSError."""
        request, table = self.request, self.namespace.proc.mounts()
        for number, each in enumerate(mounts):
            now = table.get(each.id)
            wanted = request.deep if number else {**request.deep, **request.top}
            for attribute, value in wanted.items():
                if now is None or _attributes(now)[attribute] != value:
                    raise OSError(errno.EIO, f"it did not become what {attribute} asks for")

    def attach(self, target: int) -> None:
        proc = self.namespace.proc
        proc.mount(self.fd, target, linux.MS_MOVE)
        # Below a shared mount the tree has become shared again, whatever it was.
        propagate(self.fd, self.request.propagation, proc)


def open_classic(request: Request, bundle: str, namespace: Namespace) -> ClassicSource:
    """A source, or one with the error that mount(2) cannot do what is asked of it."""
    source = ClassicSource(request, bundle, namespace)
    if source.error is None:
        try:
            source.check()
        except UnavailableError as problem:
            source.error = problem
    return source


def _open_root(known: MountInfo, proc: Proc) -> int:
    """An fd of the root of a mount that was just made. OSError."""
    for _ in range(TRIES):
        info = proc.mounts().get(known.id)
        fd = open_root(info) if info is not None else None
        if fd is not None:
            return fd
    raise OSError(errno.ESTALE, "the new mount cannot be reached: another one hides it")


def _new_mount(table: MountTable, before: set[int], parent: int) -> MountInfo:
    """The mount that was just made on ``parent``. OSError."""
    found = [info for info in table.on(parent) if info.id not in before]
    if len(found) != 1:
        raise OSError(errno.ESTALE, f"{len(found)} new mounts are there")
    return found[0]


def _numbered(info: MountInfo) -> AttachedRecord:
    return {**describe(info.root, info), "id": info.id}


def _attributes(info: MountInfo) -> dict[str, bool | str]:
    atime = next((word for word in ("noatime", "relatime") if word in info.options), "strictatime")
    return {**{word: word in info.options for word in _FLAGS}, "atime": atime}
