# SPDX-License-Identifier: Apache-2.0
"""Mount points in a container's rootfs: creates missing ones, and finds and removes those that were created.

Each is created or removed by its name in a folder that a walk has opened, never by a path that is looked up again.

Loaded by every start of a container: import only posix, errno and stat. It runs after setns(2), when nothing can be
imported.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..errors import EscapeError, RequestError
from ..kernel import files, linux
from ..kernel.errnos import refused, unopened
from ..kernel.proc import quoted
from .identity import is_overlay
from .walk import HOLD, Cover, Root, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from ..record.state_file import Filesystem

    OwnerOf = Callable[[files.Stat], tuple[int, int]]


class MountPoint:
    """A file or folder to be created at ``path`` in the rootfs. Once it is ``made``, ``stat`` describes it.

    ``filesystem`` is "rootfs", or "tmpfs" for a tmpfs of the container, which ends with it.
    """

    __slots__ = ("directory", "filesystem", "made", "path", "stat")

    def __init__(self, path: str, filesystem: Filesystem, *, directory: bool) -> None:
        self.path = path
        self.filesystem = filesystem
        self.directory = directory
        self.made = False
        self.stat: files.Stat | None = None

    @property
    def call(self) -> str:
        """The system call that creates it, for messages."""
        return "mkdirat" if self.directory else "mknodat"


class Rootfs(Root):
    """The root of a container's file system, open as ``fd``; ``path`` is its absolute path on the host.

    ``unlock`` allows creating mount points below a root that is mounted read-only. ``own_tmpfs`` returns whether a file
    is on a tmpfs that only this container has. Mount points may be created there if config.json has this tmpfs:
    ``asked`` has the ids of the mounts on the destinations of its tmpfs, and in a dry-run the covers that it assumes
    there. ``type_of`` returns the type of the file system that a file is on, None if unknown. ``owner_of`` returns uid
    and gid of a file, if not those of statx(2). ``fd`` is the root, if it is already open. ``may_open``: if mknod(2) is
    not supported, open(2) creates a file; the container has no process yet that could block it. Raises MissingError if
    ``path`` is not a folder, and EscapeError if it is the host's ``/``.
    """

    may_open = True
    inside = ""  # what follows a path in a message: which root it is a path in, if not the user's

    def __init__(
        self,
        path: str,
        *,
        unlock: bool = False,
        own_tmpfs: Callable[[files.Stat], bool] = lambda _: False,
        type_of: Callable[[files.Stat], str | None] = lambda _: None,
        owner_of: OwnerOf | None = None,
        fd: int | None = None,
    ) -> None:
        self.path = path
        self.type_of = type_of
        self.owner_of = owner_of or (lambda stat: (stat.uid, stat.gid))
        self.unlock = unlock
        self.is_own_tmpfs = own_tmpfs
        self.asked: set[Hashable] = set()
        try:
            super().__init__(_open(path) if fd is None else fd)
        except OSError as reason:
            raise unopened(f"the rootfs {path}", reason) from reason
        self._reserved: dict[Hashable, MountPoint] = {}
        self._assumed: set[Hashable] = set()
        self._objects: dict[Hashable, int] = {}
        self._made: dict[Hashable, int] = {}
        self._writable: int | None = None
        # For ``find``: the folder of the last path, its fd and those above, and whether they may be in other mounts.
        self._folder = ""
        self._way: list[int] = []
        self._is_across = False

    @property
    def is_overlay(self) -> bool:
        """Whether the rootfs is on overlayfs, where device and inode number of a file may change. Raises OSError."""
        with files.Named(self.path):
            return is_overlay(self.fd)

    def push_root(self, fd: int) -> None:
        """Makes ``fd`` the root: the same folder in another mount, which may be read-only. Raises OSError.

        Mount points are created through the mount that was the root before.
        """
        self._writable = self.fd if self._writable is None else self._writable
        self.unlock = True
        self._forget_way()
        self.fd, self.stat = fd, files.statx(fd)

    def reopen_root(self) -> None:
        """Opens the root again after a mount on it was detached. Keeps the old fd if ``path`` is another folder now."""
        try:
            fd = posix.open(self.path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError:
            return
        if files.is_same_file(posix.fstat(fd), posix.fstat(self.fd)):
            self._forget_way()
            self.fd, self.stat = fd, files.statx(fd)
        else:
            posix.close(fd)

    def place(self, path: str) -> str:
        """The path by which users reach ``path`` of the rootfs, for messages."""
        return f"{self.path}{path}"

    def umount(self, path: str) -> str:
        """The command that unmounts what is on ``path`` of the rootfs, for messages."""
        return f"umount {quoted(self.place(path))}{self.inside}"

    def hold_path(self, path: str) -> int:
        """An fd of the file at ``path``, a path of mountinfo. A link at its end is not followed. Raises OSError."""
        return posix.open(path, HOLD)

    def close(self) -> None:
        """Closes the root."""
        self._forget_way()
        posix.close(self.fd)

    def is_to_be_made(self, target: Target) -> bool:
        """Whether names of ``target`` are missing and can be created. Nothing can be created on procfs."""
        return bool(target.missing) and not target.path.startswith("/proc/")

    def has_reserved(self, target: Target) -> bool:
        """Whether an earlier bind already plans to create the missing ``target``."""
        return self.key_of(target) in self._reserved

    def filesystem_of(self, target: Target) -> Filesystem:
        """The file system in which the missing names of ``target`` will be created: "rootfs" or "tmpfs".

        Raises RequestError for any other mount, such as a volume, because they would stay on the host.
        """
        anchor = target.anchor
        if self.is_on_root(anchor):
            return "rootfs"
        stat = anchor.stat if anchor.cover is None else None
        if stat is not None and stat.mnt_id in self.asked and self.is_own_tmpfs(stat):
            return "tmpfs"
        if anchor.cover is not None and anchor.cover.type == "tmpfs" and anchor.cover in self.asked:
            return "tmpfs"
        raise RequestError(
            f"the mount point {target.path} does not exist, and it would be inside another mount",
            hint="create it in the source of that mount",
        )

    def reserve(self, target: Target, cover: Cover, *, directory: bool) -> list[MountPoint]:
        """Plans to mount ``cover`` on ``target``. Returns the mount points to create that no earlier bind has planned.

        Raises RequestError if one would have to be created inside another mount.
        """
        points = []
        if self.is_to_be_made(target) and not self._is_made_by_runtime(target):
            filesystem = self.filesystem_of(target)
            above = target.anchor
            for step, path in target.paths():
                if step.exists:
                    continue
                key = self.key(above, step)
                if key not in self._reserved:
                    point = MountPoint(path, filesystem, directory=directory or step is not target.last)
                    self._reserved[key] = point
                    points.append(point)
                above = step
        self.cover(target, cover)
        return points

    def assume(self, target: Target, cover: Cover) -> None:
        """Assumes that a runtime mounts ``cover`` on ``target`` and creates what is missing for it."""
        above = target.anchor
        for step, path in target.paths():
            if not step.exists:
                key = self.key(above, step)
                self._reserved.setdefault(key, MountPoint(path, "rootfs", directory=True))
                self._assumed.add(key)
                above = step
        self._is_made_by_runtime(target, note=True)
        self.cover(target, cover)

    def exists(self, target: Target) -> bool:
        """Whether ``target`` exists, or will exist when a run gets to it."""
        return target.last.exists or self.key_of(target) in self._assumed or self._is_made_by_runtime(target)

    def _is_made_by_runtime(self, target: Target, *, note: bool = False) -> bool:
        """Whether ``assume`` has noted the missing names, perhaps through another bind of the same folder.

        ``note``: notes them.
        """
        stat = target.anchor.stat
        if stat is None or not (note or self._assumed):
            return False
        place: Hashable = (stat.dev, stat.ino)
        for step in target.missing:
            key = (place, step.name)
            if not note and key not in self._objects:
                return False
            place = self._objects.setdefault(key, len(self._objects))
        return True

    def make(self, target: Target) -> int:
        """Creates the missing names of ``target``, as they were reserved, and returns an fd of the mount point.

        Folders get mode 0755, empty files 0644, as in runc. Each MountPoint gets its Stat. Raises KernelError, and
        EscapeError for a name replaced by another kind of object. What was created before stays and is marked ``made``.
        """
        fd = target.anchor.fd
        above = target.anchor
        for step in target.missing:
            key = self.key(above, step)
            if key not in self._made:
                assert fd is not None
                self._made[key] = self._make(fd, step.name, self._reserved[key])
            fd = self._made[key]
            above = step
        assert fd is not None
        return fd

    def check(self, target: Target, point: MountPoint, check_writable: Callable[[int], None]) -> None:
        """Raises the KernelError of ``make`` if ``point``, the first to be created for ``target``, cannot be created.

        ``check_writable`` answers like linux.check_writable, but for the process that will create it. Nothing changes.
        Some errors, such as a full disk, cannot be predicted. A folder that an earlier bind creates is not checked.
        """
        fd = target.anchor.fd
        if fd is None or point.path != next(path for step, path in target.paths() if not step.exists):
            return
        try:
            self._change(check_writable, fd, point.path, may_unlock=point.filesystem == "rootfs")
        except OSError as reason:
            raise refused(point.call, point.path, reason) from reason

    def _make(self, parent: int, name: str, point: MountPoint) -> int:
        try:
            self._change(
                lambda fd: _create(fd, name, directory=point.directory, may_open=self.may_open),
                parent,
                point.path,
                may_unlock=point.filesystem == "rootfs",
            )
            point.made = True
            # mkdirat(2) returns no fd. What is opened may be a replacement, and is used only if it is of the same kind:
            # such a mount point is equally good, is inside the rootfs, and its own identity is recorded.
            fd = posix.open(name, HOLD, dir_fd=parent)
            point.stat = files.statx(fd)
        except OSError as reason:
            raise refused(point.call, point.path, reason) from reason
        if modes.S_ISLNK(point.stat.mode) or modes.S_ISDIR(point.stat.mode) != point.directory:
            posix.close(fd)
            raise EscapeError(f"another process replaced {point.path} just after it was created")
        return fd

    def _change(self, change: Callable[[int], None], folder: int, path: str, *, may_unlock: bool = True) -> None:
        """Calls ``change`` with the ``folder`` of ``path``, and on EROFS again with ``_unlocked``. Raises OSError."""
        try:
            change(folder)
        except OSError as reason:
            if reason.errno != errno.EROFS or not self.unlock or not may_unlock:
                raise
            unlocked = self._unlocked(folder, path)
            try:
                change(unlocked)
            finally:
                posix.close(unlocked)

    def _unlocked(self, folder: int, path: str) -> int:
        """An fd of ``folder``, which contains ``path``, through a writable mount of the same file system.

        Raises OSError: EROFS if there is no such mount, or if ``path`` is in another folder now.
        """
        # crun before 1.26 makes the root read-only before createContainer hooks run. Remounting it writable, even for a
        # moment, would change the container's root, and a SIGKILL in between would leave it writable. Instead RDONLY is
        # cleared on a copy of the mount that only this process can reach: open_tree(OPEN_TREE_CLONE) does not attach
        # it, no path leads to it, and it ends with its last fd. A read-only superblock still returns EROFS. The names
        # are walked again in the copy, without links. If a folder was renamed meanwhile, an attacker may have put
        # another one in its place, so the walk must end at the same folder (dev, ino) that the caller has open. Only
        # the rootfs's own mount is copied. A read-only volume in it is meant to be read-only, and is never written to.
        if self._writable is None:
            if not linux.has_mount_api():
                raise OSError(errno.EROFS, posix.strerror(errno.EROFS))
            self._writable = linux.open_tree(self.fd, clone=True)
            linux.mount_setattr(self._writable, recursive=False, attr_clr=linux.MOUNT_ATTR_RDONLY)
        fd = posix.open(".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC, dir_fd=self._writable)
        for name in path.split("/")[1:-1]:
            below = posix.open(name, HOLD | posix.O_DIRECTORY, dir_fd=fd)
            posix.close(fd)
            fd = below
        if not files.is_same_file(posix.fstat(fd), posix.fstat(folder)):
            posix.close(fd)
            raise OSError(errno.EROFS, posix.strerror(errno.EROFS))
        return fd

    def find(self, path: str, *, across: bool) -> Found | None:
        """The file at ``path``, None if it does not exist. No link is followed. The caller closes it.

        Raises OSError, with EBUSY if the path leads into another mount and ``across`` is false. The folders on the way
        stay open for the next path, so that even deep mount points are found and removed in one pass.
        """
        if across is not self._is_across:
            self._forget_way()
            self._is_across = across
        parent, _, name = path.rpartition("/")
        try:
            folder = self._follow(parent, across=across)
            fd = self.hold(name, folder)
        except OSError as reason:
            if reason.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise
        return Found(path, folder, fd)

    def _follow(self, path: str, *, across: bool) -> int:
        """The fd of the folder at ``path`` below the root, "" for the root itself. Raises OSError."""
        # An open folder that was renamed since is fine: its content is compared with what was created.
        while not f"{path}/".startswith(f"{self._folder}/"):
            self._folder = self._folder.rpartition("/")[0]
            posix.close(self._way.pop())
        for name in path[len(self._folder) + 1 :].split("/") if path != self._folder else ():
            fd = self.hold(name, self._way[-1] if self._way else self.fd)
            if not across and files.mount_id(fd) != self.stat.mnt_id:
                posix.close(fd)  # an open fd would keep that mount busy
                above = self.place(f"{self._folder}/{name}")
                raise OSError(
                    errno.EBUSY, f"something is mounted on {above}{self.inside}, above it: unmount that first"
                )
            self._way.append(fd)
            self._folder = f"{self._folder}/{name}"
        return self._way[-1] if self._way else self.fd

    def _forget_way(self) -> None:
        """Closes the folders on the way to the last path of ``find``."""
        while self._way:
            posix.close(self._way.pop())
        self._folder = ""

    def remove(self, found: Found) -> None:
        """Removes the file or empty folder ``found``, by unlink(2) or rmdir(2). Raises OSError."""
        remove = posix.rmdir if modes.S_ISDIR(found.stat.mode) else posix.unlink
        name = found.path.rpartition("/")[2]
        self._change(lambda fd: remove(name, dir_fd=fd), found.folder, found.path)


def _open(path: str) -> int:
    fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        if files.is_same_file(posix.fstat(fd), posix.stat("/")):
            raise EscapeError(f"the rootfs {path} is the root folder of the host")
    except BaseException:
        posix.close(fd)
        raise
    return fd


class Found:
    """A file in the rootfs: its ``path`` there, its ``fd`` and ``stat``.

    The fd of its ``folder`` belongs to the Rootfs, and is valid until the next ``find``.
    """

    __slots__ = ("fd", "folder", "path", "stat")

    def __init__(self, path: str, folder: int, fd: int) -> None:
        self.path = path
        self.folder = folder
        self.fd = fd
        # ask=False: a mount may cover the path, and the server of that mount may not answer. If there is no birth time
        # and no such mount, the server of the file system may know more than the kernel.
        self.stat = files.statx(fd, ask=False)
        if self.stat.born is None and not self.stat.mount_root:
            self.stat = files.statx(fd)

    def close(self) -> None:
        """Closes the fd."""
        posix.close(self.fd)


def _create(parent: int, name: str, *, directory: bool, may_open: bool) -> None:
    try:
        _create_as_we_are(parent, name, directory=directory, may_open=may_open)
    except OSError as reason:
        if reason.errno != errno.EOVERFLOW:
            raise
        # The file system belongs to the container's user namespace, in which the uid of this process is not mapped. So
        # it is created as the owner of the folder.
        owner = posix.fstat(parent)
        linux.set_fs_ids(owner.st_uid, owner.st_gid)
        try:
            _create_as_we_are(parent, name, directory=directory, may_open=may_open)
        finally:
            linux.set_fs_ids(posix.geteuid(), posix.getegid())


def _create_as_we_are(parent: int, name: str, *, directory: bool, may_open: bool) -> None:
    if directory:
        posix.mkdir(name, 0o755, dir_fd=parent)
        return
    try:
        # Not by open(2), which a container can block by a permission event of fanotify(7).
        posix.mknod(name, modes.S_IFREG | 0o644, dir_fd=parent)
    except OSError as reason:
        if not may_open or reason.errno not in (errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        # A FUSE server may support create-and-open, but not mknod(2). O_NOFOLLOW: a link must not be followed.
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
        posix.close(posix.open(name, flags, 0o644, dir_fd=parent))
