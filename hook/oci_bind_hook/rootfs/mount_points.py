# SPDX-License-Identifier: Apache-2.0
"""Mount points in a container's rootfs: what is missing is made, and what was made is found again and removed.

All by fds of folders that a walk has come to, never by a path that is looked up again.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from ..errors import EscapeError, RequestError
from ..kernel import linux
from ..kernel.errnos import refused, unopened
from .walk import HOLD, Cover, Root, Step, Target, path_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    OwnerOf = Callable[[linux.Stat], tuple[int, int]]


class MountPoint:
    """A file or folder to be made: ``path`` in the rootfs, whether it was ``made``, and what it then became.

    ``filesystem`` is "rootfs" or "tmpfs", a mount of the container's own that dies with it.
    """

    __slots__ = ("directory", "filesystem", "made", "path", "stat")

    def __init__(self, path: str, filesystem: str, *, directory: bool) -> None:
        self.path = path
        self.filesystem = filesystem
        self.directory = directory
        self.made = False
        self.stat: linux.Stat | None = None


class Rootfs(Root):
    """The root of a container's file system, held by fd.

    ``path`` is where the host finds it, absolute. MissingError where there is no folder, EscapeError where it is the
    host's own ``/``. ``unlock`` allows to make mount points below a root that is already mounted read-only;
    ``own_tmpfs`` tells of the mount of an object whether it is a tmpfs of the container's own: there they may be made
    as well. ``owner_of`` tells user and group of an object, where that is not what statx(2) says.
    """

    def __init__(
        self,
        path: str,
        *,
        unlock: bool = False,
        own_tmpfs: Callable[[linux.Stat], bool] = lambda _: False,
        owner_of: OwnerOf | None = None,
    ) -> None:
        self.path = path
        self.owner_of = owner_of or (lambda stat: (stat.uid, stat.gid))
        self.unlock = unlock
        self.is_own_tmpfs = own_tmpfs
        try:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as reason:
            raise unopened(f"the rootfs {path}", reason) from reason
        super().__init__(fd)
        if os.path.samestat(os.fstat(self.fd), os.stat("/")):
            raise EscapeError(f"the rootfs {path} is the host's own /")
        self._reserved: dict[Hashable, MountPoint] = {}
        self._made: dict[Hashable, int] = {}
        self._writable: int | None = None

    @property
    def is_overlay(self) -> bool:
        """Whether device and inode numbers may change from one look to the next, as overlayfs's do."""
        return linux.fstatfs_type(self.fd) == linux.OVERLAYFS_SUPER_MAGIC

    def lay(self, fd: int) -> None:
        """From now on the root is ``fd``, of another mount of the same folder, perhaps a read-only one.

        What has to be made below is made in the mount that was the root before.
        """
        self._writable = self.fd if self._writable is None else self._writable
        self.unlock = True
        self.fd, self.stat = fd, linux.statx(fd)

    def lift(self) -> None:
        """Finds the root again after a mount that was laid over it has gone. It stays what it is if it has moved."""
        try:
            fd = os.open(self.path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return
        if os.path.samestat(os.fstat(fd), os.fstat(self.fd)):
            self.fd, self.stat = fd, linux.statx(fd)
        else:
            os.close(fd)

    def close(self) -> None:
        """Lets go of the root, of one that was only looked into."""
        os.close(self.fd)

    def is_to_be_made(self, target: Target) -> bool:
        """Whether names of ``target`` are missing and can be made. On procfs nobody can make any."""
        return bool(target.missing) and not target.path.startswith("/proc/")

    def has_reserved(self, target: Target) -> bool:
        """Whether what is missing at ``target`` will be made for a bind that was planned before."""
        return self.key(target.steps) in self._reserved

    def filesystem_of(self, target: Target) -> str:
        """On which file system the missing names of ``target`` will be made: "rootfs" or "tmpfs"."""
        anchor = target.anchor
        if self.is_on_root(anchor):
            return "rootfs"
        if anchor.cover is None and anchor.stat is not None and self.is_own_tmpfs(anchor.stat):
            return "tmpfs"
        if anchor.fd is None and anchor.cover is not None and anchor.cover.type == "tmpfs":
            return "tmpfs"
        raise RequestError(
            f"the mount point {target.path} does not exist, and would have to be made inside another mount",
            hint="make it in the source of that mount",
        )

    def reserve(self, target: Target, cover: Cover, *, directory: bool) -> list[MountPoint]:
        """Plans ``cover`` to be mounted on ``target``. Returns what must be made for it and nobody has reserved yet."""
        points = []
        if self.is_to_be_made(target):
            filesystem = self.filesystem_of(target)
            first = len(target.steps) - len(target.missing)
            for i in range(first, len(target.steps)):
                steps = target.steps[: i + 1]
                key = self.key(steps)
                if key not in self._reserved:
                    is_folder = directory or i + 1 < len(target.steps)
                    point = MountPoint(path_of(steps), filesystem, directory=is_folder)
                    self._reserved[key] = point
                    points.append(point)
        self.cover(target, cover)
        return points

    def make(self, target: Target) -> int:
        """Makes what is missing of ``target``, as it was reserved, and returns the fd of the object itself.

        Folders get mode 0755, files 0644 and no content, as runc's do. The Stat of each is kept with its MountPoint.
        KernelError where the kernel refuses; what was made before that stays, and its MountPoint tells.
        """
        fd = target.anchor.fd
        first = len(target.steps) - len(target.missing)
        for i in range(first, len(target.steps)):
            steps = target.steps[: i + 1]
            key = self.key(steps)
            if key not in self._made:
                assert fd is not None
                self._made[key] = self._make(fd, steps, self._reserved[key])
            fd = self._made[key]
        assert fd is not None
        return fd

    def _make(self, parent: int, steps: Sequence[Step], point: MountPoint) -> int:
        name = steps[-1].name
        call = "mkdirat" if point.directory else "openat(O_CREAT)"
        try:
            try:
                _create(parent, name, directory=point.directory)
            except OSError as reason:
                if reason.errno != errno.EROFS or not self.unlock or point.filesystem != "rootfs":
                    raise
                unlocked = self._unlocked(parent, [step.name for step in steps[1:-1]])
                try:
                    _create(unlocked, name, directory=point.directory)
                finally:
                    os.close(unlocked)
            point.made = True
            fd = os.open(name, HOLD, dir_fd=parent)
            point.stat = linux.statx(fd)
        except OSError as reason:
            raise refused(call, point.path, reason) from reason
        if modes.S_ISLNK(point.stat.mode) or modes.S_ISDIR(point.stat.mode) != point.directory:
            os.close(fd)
            raise EscapeError(f"{point.path} was replaced at the moment it was made")
        return fd

    def _unlocked(self, folder: int, names: Sequence[str]) -> int:
        """The same ``folder`` through the mount below, or a detached copy of the rootfs's own that is not read-only.

        crun before 1.26 makes the root read-only before createContainer. For the container it stays so.
        """
        if self._writable is None:
            if not linux.has_mount_api():
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            self._writable = linux.open_tree(self.fd, clone=True)
            linux.mount_setattr(self._writable, recursive=False, attr_clr=linux.MOUNT_ATTR_RDONLY)
        fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._writable)
        for name in names:
            below = os.open(name, HOLD | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        if not os.path.samestat(os.fstat(fd), os.fstat(folder)):
            os.close(fd)
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return fd

    def find(self, path: str, *, across: bool) -> Found | None:
        """What stands at ``path``, a path without links, and the folder it stands in; None where nothing does.

        No link is followed, and other mounts are entered only if ``across`` allows it: else OSError(EBUSY). The
        caller closes what was found.
        """
        names = path.split("/")[1:]
        folder = os.dup(self.fd)
        try:
            for name in names[:-1]:
                below = os.open(name, HOLD | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
                if not across and linux.statx(folder).mnt_id != self.stat.mnt_id:
                    raise OSError(errno.EBUSY, "something else is mounted above it")
            fd = os.open(names[-1], HOLD, dir_fd=folder)
        except OSError as reason:
            os.close(folder)
            if reason.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        return Found(folder, fd, names)

    def remove(self, found: Found) -> None:
        """Removes the empty file or folder that was found. OSError as of unlink(2) and rmdir(2)."""
        remove = os.rmdir if modes.S_ISDIR(found.stat.mode) else os.unlink
        try:
            remove(found.names[-1], dir_fd=found.folder)
        except OSError as reason:
            if reason.errno != errno.EROFS or not self.unlock:
                raise
            unlocked = self._unlocked(found.folder, found.names[:-1])
            try:
                remove(found.names[-1], dir_fd=unlocked)
            finally:
                os.close(unlocked)


class Found:
    """An object in the rootfs, ``fd`` with its ``stat``, and the ``folder`` it stands in."""

    __slots__ = ("fd", "folder", "names", "stat")

    def __init__(self, folder: int, fd: int, names: list[str]) -> None:
        self.folder = folder
        self.fd = fd
        self.names = names
        self.stat = linux.statx(fd)

    def close(self) -> None:
        os.close(self.fd)
        os.close(self.folder)


def _create(parent: int, name: str, *, directory: bool) -> None:
    try:
        _create_as_we_are(parent, name, directory=directory)
    except OSError as reason:
        if reason.errno != errno.EOVERFLOW:
            raise
        # The file system belongs to the container's user namespace, and has no number for whom we are.
        owner = os.fstat(parent)
        linux.set_fs_ids(owner.st_uid, owner.st_gid)
        try:
            _create_as_we_are(parent, name, directory=directory)
        finally:
            linux.set_fs_ids(os.geteuid(), os.getegid())


def _create_as_we_are(parent: int, name: str, *, directory: bool) -> None:
    if directory:
        os.mkdir(name, 0o755, dir_fd=parent)
    else:
        flags = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(name, flags, 0o644, dir_fd=parent))
