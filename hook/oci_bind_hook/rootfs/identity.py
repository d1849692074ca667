# SPDX-License-Identifier: Apache-2.0
"""Identifies a rootfs. Locks, neighbours, set-up and undo all use this definition of "the same rootfs".

No single property identifies a rootfs. An overlay gets a new device number with each mount; its upper folder keeps
device and inode number. A bind of a folder ends with its mount namespace; the folder stays at its own path. A reboot
may change device numbers. A path may later lead to another rootfs, and two paths may lead to the same one.

Loaded by every start of a container: import only errno, posix and stat.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..kernel import files, linux
from ..kernel.errnos import unopened
from ..kernel.mountinfo import first_that_may_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..kernel.mountinfo import MountInfo, MountTable
    from ..record.state_file import ObjectRecord, PathRecord, RootfsRecord

# The errors of a path that does not lead to a folder.
_NOT_HERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


def identify(path: str, fd: int, mounts: Callable[[], MountTable]) -> RootfsRecord:
    """The record that identifies the rootfs at ``path``, which is open as ``fd``.

    ``mounts`` returns the mounts of the current namespace, and is called only if the rootfs is a mount. Raises OSError.
    """
    stat = posix.fstat(fd)
    overlay = is_overlay(fd)
    upper = _upper(path, fd, mounts()) if overlay else None
    above, points, is_mount = _way(upper["path"] if upper else path)
    if not overlay and is_mount and (upper := _bound(path, fd, mounts())):
        above, points, _ = _way(upper["path"])
    return {
        "path": path,
        "dev": stat.st_dev,
        "ino": stat.st_ino,
        "overlay": overlay,
        "upper": upper,
        "above": above,
        "mounts": points,
    }


def is_overlay(fd: int) -> bool:
    """Whether ``fd`` is on overlayfs, where device and inode number may change. Raises OSError."""
    return linux.fstatfs_type(fd) == linux.OVERLAYFS_SUPER_MAGIC


def identify_path(path: str, mounts: Callable[[], MountTable]) -> RootfsRecord:
    """The same as ``identify``, for the folder that is at ``path`` now. Raises MissingError."""
    try:
        fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            return identify(path, fd, mounts)
        finally:
            posix.close(fd)
    except OSError as reason:
        raise unopened(f"the rootfs {path}", reason) from reason


def _upper(path: str, fd: int, table: MountTable) -> PathRecord | None:
    """The upper folder of the overlay ``fd`` at ``path``; None if it is unknown. Raises OSError.

    None also if the rootfs is a folder inside an overlay, and not its root.
    """
    stat = files.statx(fd)
    info = table.get(stat.mnt_id) if stat.mount_root else None
    upper = info.super_option("upperdir") if info is not None and info.root == "/" else None
    if upper is None:
        return None
    # An engine uses relative paths if there are many layers, whose absolute paths would not fit in one page. mountinfo
    # shows the path as it was passed to mount(2), with a backslash before commas, colons and backslashes.
    for folder in ["/"] if upper.startswith("/") else [*_above(path)][::-1]:
        for each in dict.fromkeys((_unquoted(upper), upper)):
            try:
                real = files.real_path(files.below(folder, each))
                known = posix.lstat(real)
            except OSError as reason:
                # These errors, also a denied access, mean that it is unknown. Others, such as a server that does not
                # answer now, do not: without it this rootfs would seem to be another one than that of its neighbours.
                if reason.errno not in _NOT_HERE:
                    raise
                continue
            return {"path": real, "dev": known.st_dev, "ino": known.st_ino}
    return None


def _bound(path: str, fd: int, table: MountTable) -> PathRecord | None:
    """The folder of another path that is bound on ``path``, None if there is none or it is unknown. Raises OSError."""
    info = table.get(files.mount_id(fd))
    if info is None or info.root == "/":  # a whole file system, which is not a part of another place
        return None
    below = next((each for each in table.above(info) if each.mount_point != path), None)
    if below is not None and (below.dev, beneath(below, path)) == (info.dev, info.root):
        return None  # a runtime binds the rootfs on itself
    here = posix.fstat(fd)
    for place in places(info, table):
        try:
            known = posix.lstat(place)
        except OSError as reason:
            if reason.errno not in _NOT_HERE:
                raise
            continue
        if files.is_same_file(known, here):
            return {"path": place, "dev": known.st_dev, "ino": known.st_ino}
    return None


def beneath(info: MountInfo, path: str) -> str:
    """The path in the file system of the mount ``info`` that is below its mount point at ``path``."""
    return info.root.rstrip("/") + path[len(info.mount_point.rstrip("/")) :]


def places(bind: MountInfo, table: MountTable) -> Iterator[str]:
    """The paths at which other mounts of ``table`` may have the folder that is the root of the mount ``bind``.

    They are hints: another mount may cover one. Those at which a server may not answer are left out.
    """
    for info in table:
        above = info.root.rstrip("/")
        if info.dev != bind.dev or info.mount_point == bind.mount_point or not f"{bind.root}/".startswith(f"{above}/"):
            continue
        place = files.below(info.mount_point, bind.root[len(above) + 1 :]).rstrip("/") or "/"
        # The whole way counts: the lookup would enter a mount between the mount point and the place.
        if first_that_may_wait(table, place) is None:
            yield place


def _unquoted(path: str) -> str:
    """A path without the backslashes that quote a character. Two backslashes stand for one."""
    return "\\".join(part.replace("\\", "") for part in path.split("\\\\"))


def _above(path: str) -> Iterator[str]:
    """The folders above an absolute path, ``/`` first."""
    end = 0
    while path != "/" and end >= 0:
        yield path[:end] or "/"
        end = path.find("/", end + 1)


def _way(place: str) -> tuple[list[ObjectRecord], list[int], bool | None]:
    """The folders above ``place``, ``/`` first, and the indexes of those, and of ``place``, that are mount points.

    Also whether ``place`` is the root of a mount, as files.look_at.
    """
    found: list[ObjectRecord] = []
    mounts = []
    is_root: bool | None = None
    for folder in (*_above(place), place):
        dev, ino, is_root = files.look_at(folder)
        is_another = bool(found) and found[-1]["dev"] != dev
        # At createContainer a runtime has bound the rootfs on itself, so for ``place`` only another device counts.
        if is_another if is_root is None or folder == place else is_root:
            mounts.append(len(found))
        found.append({"dev": dev, "ino": ino})
    return found[:-1], mounts, is_root


def keys(rootfs: RootfsRecord) -> set[str]:
    """Keys of a rootfs, of at most 41 characters. Records of what is or may be the same rootfs have one in common."""
    found = {f"{one['dev']}:{one['ino']}" for one in (rootfs, rootfs["upper"]) if one is not None}
    # After a reboot only the path is the same. Two paths with the same hash only wait for each other.
    found.add(f"{int.from_bytes(linux.encode_path(rootfs['path']), 'big') % (2**61 - 1):x}")
    return found


def primary(rootfs: RootfsRecord) -> tuple[int, int]:
    """The device and inode number that distinguish rootfs that exist at the same time."""
    own = rootfs["upper"] or rootfs
    return own["dev"], own["ino"]


def is_same(known: RootfsRecord, now: RootfsRecord, *, same_boot: bool) -> bool:
    """Whether ``now`` is certainly the rootfs recorded as ``known``, in this boot (``same_boot``) or an earlier one."""
    upper, upper_now = known["upper"], now["upper"]
    if upper is not None and upper_now is not None:
        # The mount does not matter: mount points were created in the upper folder.
        return is_same_object(upper, upper_now, same_boot=same_boot)
    return known["overlay"] == now["overlay"] and is_same_object(known, now, same_boot=same_boot)


def is_same_object(known: PathRecord, now: PathRecord, *, same_boot: bool) -> bool:
    """Whether ``now`` is the folder ``known``, in this boot or an earlier one."""
    if same_boot:
        return (known["dev"], known["ino"]) == (now["dev"], now["ino"])
    return (known["path"], known["ino"]) == (now["path"], now["ino"])


def may_be_same(known: RootfsRecord, now: RootfsRecord, *, same_boot: bool) -> bool:
    """Whether ``now`` may be the rootfs recorded as ``known``. If so, nothing that the record uses is removed."""
    return is_same(known, now, same_boot=same_boot) or (not same_boot and known["path"] == now["path"])


def is_gone(known: RootfsRecord, *, same_boot: bool) -> bool:
    """Whether the rootfs recorded as ``known`` was certainly removed or replaced by another folder.

    It is certain only if the folders above are the recorded ones, down to one in which the next name does not exist or
    is another folder, and this name neither is nor was a mount point. In all other cases a file system may not be
    mounted at this moment, or may not answer. For an overlay its upper folder decides, because while the overlay is not
    mounted there may be no folder at its path.
    """
    place: PathRecord = known["upper"] or known
    recorded: list[ObjectRecord] = [*known["above"], place]
    above: tuple[int, int] | None = None  # the device of the folder above: current, recorded
    for number, (folder, then) in enumerate(zip([*_above(place["path"]), place["path"]], recorded, strict=False)):
        try:
            now = posix.lstat(folder)
        except FileNotFoundError:
            return above is not None and not _is_unmounted(known, number, same_boot=same_boot)
        except OSError:
            return False
        if now.st_ino != then["ino"] or (same_boot and now.st_dev != then["dev"]):
            is_another = above == (now.st_dev, then["dev"]) and not modes.S_ISLNK(now.st_mode)
            return is_another and not _is_unmounted(known, number, same_boot=same_boot)
        above = now.st_dev, then["dev"]
    return False


def _is_unmounted(known: RootfsRecord, missing: int, *, same_boot: bool) -> bool:
    """Whether folder number ``missing`` may be the mount point of a file system that still exists, or be above one.

    Some programs remove the mount point when they unmount a disk: udisks, autofs, podman with fuse-overlayfs.
    """
    last = len(known["above"])
    # A mount on the rootfs itself belongs to its engine, which removes the folder with the container. But that folder
    # may be in /run, which is empty after a reboot.
    return any(at == missing or (at > missing and (at != last or not same_boot)) for at in known["mounts"])
