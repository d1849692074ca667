# SPDX-License-Identifier: Apache-2.0
"""The rootfs as a handle: where a destination leads inside it, and the mount points made in it.

Everything below the rootfs was written by strangers and may be renamed while we look. So a walk opens one component
at a time from a held fd, never follows a link in the kernel, and answers with an fd, not with a path to look up
again. What is mounted there, and why, is no business of this module.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from . import linux
from .errors import EscapeError, RequestError
from .reasons import refused, unopened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    OwnerOf = Callable[[linux.Stat], tuple[int, int]]

MAX_LINKS = 40  # what the kernel allows in one lookup, path_resolution(7)
NAME_MAX = 255
PATH_MAX = 4096
DEPTH_MAX = 2048  # names that fit into the longest path the kernel takes, PATH_MAX
HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

# The only files of procfs that runc lets a mount hide (libcontainer, checkProcMount).
PROC_FILES = frozenset(
    f"/proc/{name}"
    for name in (
        "cpuinfo",
        "diskstats",
        "loadavg",
        "meminfo",
        "slabinfo",
        "stat",
        "swaps",
        "sys/crypto/fips_enabled",
        "sys/kernel/ns_last_pid",
        "uptime",
    )
)


class Cover:
    """A mount that is planned, or known to be the runtime's: what a walk finds at its mount point.

    ``held`` is the root of what will be mounted, fd and Stat. Where only the ``type`` of the file system is known it
    is None, and nothing is known of what is inside.
    """

    __slots__ = ("held", "type")

    def __init__(self, kind: str, fd: int | None = None) -> None:
        self.type = kind
        self.held = None if fd is None else (fd, linux.statx(fd))


class Step:
    """One name of a walk and what stands there: an object held by ``fd``, the unseen root of a cover, or nothing.

    ``cover`` is the cover it lies in, or is the root of. ``on_rootfs`` tells that the name itself, be it a mount
    point or not, belongs to the rootfs's own mount.
    """

    __slots__ = ("cover", "exists", "fd", "name", "on_rootfs", "stat")

    def __init__(self, name: str, held: tuple[int, linux.Stat] | None, cover: Cover | None, *, exists: bool) -> None:
        self.name = name
        self.fd = held[0] if held else None
        self.stat = held[1] if held else None
        self.cover = cover
        self.exists = exists
        self.on_rootfs = False

    @property
    def folder(self) -> bool:
        """Whether names can stand below it: what is missing can be made a folder, and an unseen root is one."""
        return self.stat is None or modes.S_ISDIR(self.stat.mode)

    def close(self) -> None:
        is_cover = self.cover is not None and self.cover.held == (self.fd, self.stat)
        if self.fd is not None and not is_cover:
            os.close(self.fd)
            self.fd = None


class Target:
    """Where a destination leads: the ``steps`` from the root to the object, the last of them perhaps missing.

    ``links`` are the links that were followed, pairs of where and to what. ``as_folder`` tells that the destination
    can only mean a folder (``/a/``). Of the steps only ``anchor``, the last that exists, is still held by fd.
    """

    __slots__ = ("anchor", "as_folder", "links", "missing", "path", "steps", "uses")

    def __init__(self, steps: list[Step], links: list[tuple[str, str]], *, as_folder: bool) -> None:
        self.steps = steps
        self.links = links
        self.as_folder = as_folder
        self.path = path_of(steps)
        existing = max(i for i, step in enumerate(steps) if step.exists)
        self.anchor = steps[existing]
        self.missing = steps[existing + 1 :]
        self.uses = [path_of(steps[: i + 1]) for i, step in enumerate(steps) if step.on_rootfs]

    @property
    def last(self) -> Step:
        return self.steps[-1]

    def close(self) -> None:
        """Lets go of the anchor, where only the path matters. The root and the covers stay held."""
        if self.anchor is not self.steps[0]:
            self.anchor.close()


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


def is_utf8(path: str) -> bool:
    """Whether a path of this file system can stand in a JSON document."""
    return path.isascii() or not any("\udc80" <= c <= "\udcff" for c in path)


def path_of(steps: Sequence[Step]) -> str:
    """The path, absolute and without links, that a walk has come to."""
    return "/" + "/".join(step.name for step in steps[1:])


class Rootfs:
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
        self._own_tmpfs = own_tmpfs
        try:
            self.fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as reason:
            raise unopened(f"the rootfs {path}", reason) from reason
        self.stat = linux.statx(self.fd)
        if os.path.samestat(os.fstat(self.fd), os.stat("/")):
            raise EscapeError(f"the rootfs {path} is the host's own /")
        self._covers: dict[Hashable, Cover] = {}
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

    # -- the walk ------------------------------------------------------------------------------------------------

    def resolve(self, destination: str) -> Target:
        """Where ``destination`` leads for a process in the container, path_resolution(7) with this root as ``/``.

        Links and ``..`` never leave the root. Nothing is cleaned beforehand: ``link/..`` is the parent of what the
        link points to. RequestError for a file used as a folder or too many links, EscapeError for a magic link.
        """
        steps = [Step("", (self.fd, self.stat), None, exists=True)]
        links: list[tuple[str, str]] = []
        pending = destination.split("/")[::-1]
        as_folder = False
        try:
            while pending:
                name = pending.pop()
                top = steps[-1]
                if not top.folder:
                    raise RequestError(f"{path_of(steps)} is not a folder", hint="the destination leads through it")
                as_folder = name in ("", ".", "..")
                if name == ".." and len(steps) > 1:
                    steps.pop().close()
                if as_folder:
                    continue
                if len(steps) > DEPTH_MAX:
                    raise RequestError(f"{destination[:NAME_MAX]} leads more than {DEPTH_MAX} folders deep")
                step, text = self._step(steps, name)
                if text is None:
                    steps.append(step)
                    continue
                links.append((path_of([*steps, step]), text))
                if len(links) > MAX_LINKS:
                    raise RequestError(f"{destination} leads through more than {MAX_LINKS} links", hint="a loop?")
                while text.startswith("/") and len(steps) > 1:
                    steps.pop().close()
                pending.extend(text.split("/")[::-1])
        except BaseException:
            for step in steps[1:]:
                step.close()
            raise
        target = Target(steps, links, as_folder=as_folder)
        for step in steps[1:]:
            if step is not target.anchor:
                step.close()
        return target

    def _step(self, steps: list[Step], name: str) -> tuple[Step, str | None]:
        """The step to ``name``, and its text where it is a link."""
        top = steps[-1]
        step = Step(name, None, top.cover, exists=False)
        if len(os.fsencode(name)) > NAME_MAX:
            raise RequestError(f"a name in {path_of([*steps, step])[:NAME_MAX]}... is longer than {NAME_MAX} bytes")
        if top.fd is not None:
            try:
                fd = os.open(name, HOLD, dir_fd=top.fd)
                step = Step(name, (fd, linux.statx(fd)), top.cover, exists=True)
            except FileNotFoundError:
                pass
            except OSError as reason:
                raise refused("openat", path_of([*steps, step]), reason) from reason
        step.on_rootfs = self._is_open_ground(top)
        if step.stat is not None and modes.S_ISLNK(step.stat.mode):
            try:
                return step, self._readlink(top, step, path_of([*steps, step]))
            finally:
                step.close()
        if (cover := self._covers.get(self._key([*steps, step]))) is not None:
            step.close()
            on_rootfs = step.on_rootfs
            step = Step(name, cover.held, cover, exists=True)
            step.on_rootfs = on_rootfs
        return step, None

    def _is_open_ground(self, step: Step) -> bool:
        """Whether what stands or will stand below ``step`` belongs to the rootfs's own mount."""
        if step.cover is not None:
            return False
        return step.on_rootfs if step.stat is None else step.stat.mnt_id == self.stat.mnt_id

    def _readlink(self, top: Step, link: Step, path: str) -> str:
        assert link.fd is not None
        assert top.fd is not None
        if linux.fstatfs_type(link.fd) == linux.PROC_SUPER_MAGIC:
            try:
                flags = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
                os.close(linux.openat2(top.fd, link.name, flags=os.O_PATH, resolve=flags))
            except OSError as reason:
                # Only a magic link loops here: procfs has no ordinary link that leads to itself. Before Linux 5.6
                # nobody tells, but they all are in folders, and nearly all others are directly in the root of procfs.
                is_absent = linux.is_absent(reason) and (top.stat is None or top.stat.ino != linux.PROC_ROOT_INO)
                if reason.errno == errno.ELOOP or is_absent:
                    raise EscapeError(f"{path} is a magic link of procfs and leads anywhere") from reason
        try:
            return os.readlink("", dir_fd=link.fd)
        except OSError as reason:
            raise refused("readlinkat", path, reason) from reason

    def _key(self, steps: Sequence[Step]) -> Hashable:
        """What tells one name in the tree of mounts from all others, be there an object or not.

        Not the object of that name: a file may have several, and only one of them is mounted on.
        """
        names = [steps[-1].name]
        for step in steps[-2::-1]:
            if step.stat is not None:
                return (step.cover, step.stat.mnt_id, step.stat.dev, step.stat.ino, *names)
            if step.exists:
                return (step.cover, *names)
            names.append(step.name)
        return tuple(names)

    # -- the plan ------------------------------------------------------------------------------------------------

    def admit(self, target: Target, *, directory: bool) -> None:
        """Refuses a target on which nothing may be mounted, or not a source of this kind.

        EscapeError for the root, procfs and sysfs; RequestError for a wrong kind and for mount points missing inside
        another mount.
        """
        path = target.path
        if len(os.fsencode(self.path + path)) >= PATH_MAX:
            raise RequestError(f"the destination is longer than {PATH_MAX} bytes with the rootfs before it")
        if not is_utf8(path):
            raise RequestError(f"{path!a} is not UTF-8, and the state file can hold nothing else")
        if len(target.steps) == 1:
            raise EscapeError("the destination is the rootfs itself")
        for place, text in target.links:
            if place in ("/proc", "/sys"):
                raise EscapeError(
                    f"{place} is a link, to {text}, and must be a folder",
                    hint=f"where {place[1:]} is to be mounted, as in runc",
                )
        kind = self._kind(target)
        if path == "/sys" or path.startswith("/sys/") or kind == "sysfs":
            raise EscapeError(f"{path} is on sysfs, where nothing may be mounted")
        if path == "/proc" or path.startswith("/proc/") or kind == "proc":
            # Of a /proc that the runtime will mount, a dry-run cannot see the files.
            is_unseen = target.anchor.cover is not None and target.anchor.cover.held is None
            if path not in PROC_FILES or (target.missing and not is_unseen):
                raise EscapeError(
                    f"{path} is on procfs, where only a few files may be hidden, as in runc",
                    hint=" ".join(sorted(PROC_FILES)),
                )
        last = target.last
        if target.as_folder and not directory:
            raise RequestError(f"{path} must be a folder, but the source is a file")
        exists = last.exists or self._key(target.steps) in self._reserved
        if exists and last.folder != directory:
            ours, theirs = ("a folder", "a file") if directory else ("a file", "a folder")
            raise RequestError(f"the source is {ours}, but {path} is {theirs}")
        if target.missing and path not in PROC_FILES:
            self._ground(target)

    def _kind(self, target: Target) -> str | None:
        """The type of the file system that ``target`` is or will be on, as far as it matters here."""
        anchor = target.anchor
        if anchor.stat is None or anchor.fd is None:
            return anchor.cover.type if anchor.cover is not None else None
        if anchor.stat.mnt_id == self.stat.mnt_id:
            return None
        return {linux.SYSFS_MAGIC: "sysfs", linux.PROC_SUPER_MAGIC: "proc"}.get(linux.fstatfs_type(anchor.fd))

    def _ground(self, target: Target) -> str:
        """On which file system the missing names of ``target`` will be made: "rootfs" or "tmpfs"."""
        anchor = target.anchor
        if self._is_open_ground(anchor):
            return "rootfs"
        if anchor.cover is None and anchor.stat is not None and self._own_tmpfs(anchor.stat):
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
        if target.missing and target.path not in PROC_FILES:
            filesystem = self._ground(target)
            first = len(target.steps) - len(target.missing)
            for i in range(first, len(target.steps)):
                steps = target.steps[: i + 1]
                key = self._key(steps)
                if key not in self._reserved:
                    is_folder = directory or i + 1 < len(target.steps)
                    point = MountPoint(path_of(steps), filesystem, directory=is_folder)
                    self._reserved[key] = point
                    points.append(point)
        self.cover(target, cover)
        return points

    def cover(self, target: Target, cover: Cover) -> None:
        """Every later walk that comes to ``target`` finds the root of ``cover`` there."""
        self._covers[self._key(target.steps)] = cover

    # -- mount points ----------------------------------------------------------------------------------------------

    def make(self, target: Target) -> int:
        """Makes what is missing of ``target``, as it was reserved, and returns the fd of the object itself.

        Folders get mode 0755, files 0644 and no content, as runc's do. The Stat of each is kept with its MountPoint.
        KernelError where the kernel refuses; what was made before that stays, and its MountPoint tells.
        """
        fd = target.anchor.fd
        first = len(target.steps) - len(target.missing)
        for i in range(first, len(target.steps)):
            steps = target.steps[: i + 1]
            key = self._key(steps)
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
