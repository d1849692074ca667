# SPDX-License-Identifier: Apache-2.0
"""Which rootfs it is: the one notion of "the same rootfs" for locks, neighbours, set-up and undo.

A rootfs has no name that is always right. An overlay has another device number after each mount of it; its upper folder
keeps both numbers. Each start of the machine numbers devices anew. A path may lead to another rootfs since, and two
paths to one.

Loaded by every start of a container: it imports only posix and stat.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..kernel import files, linux
from ..kernel.errnos import unopened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..kernel.mountinfo import MountTable
    from ..record.state_file import ObjectRecord, PathRecord, RootfsRecord

# What a path that leads to no folder is refused with.
_NOT_HERE = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENAMETOOLONG)


def identify(path: str, fd: int, mounts: Callable[[], MountTable]) -> RootfsRecord:
    """What the rootfs at ``path``, held by ``fd``, is known by.

    ``mounts`` returns the mounts of the current namespace, and is called for an overlay only. Raises OSError.
    """
    stat = posix.fstat(fd)
    overlay = is_overlay(fd)
    upper = _upper(path, fd, mounts()) if overlay else None
    place = upper["path"] if upper else path
    above, points = _way(place)
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
    """Whether a file is on overlayfs, where device and inode number may change. Raises OSError."""
    return linux.fstatfs_type(fd) == linux.OVERLAYFS_SUPER_MAGIC


def identify_path(path: str, mounts: Callable[[], MountTable]) -> RootfsRecord:
    """The same for the folder that is at ``path`` now. Raises MissingError."""
    try:
        fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        try:
            return identify(path, fd, mounts)
        finally:
            posix.close(fd)
    except OSError as reason:
        raise unopened(f"the rootfs {path}", reason) from reason


def _upper(path: str, fd: int, table: MountTable) -> PathRecord | None:
    """The folder that takes what is written to the overlay ``fd`` at ``path``; None if it is unknown.

    It is not looked for if the rootfs is only a folder somewhere in an overlay.
    """
    stat = files.statx(fd)
    info = table.get(stat.mnt_id) if stat.mount_root else None
    upper = info.super_option("upperdir") if info is not None and info.root == "/" else None
    if upper is None:
        return None
    # An engine gives a relative path if there are many layers, whose paths would not fit into one page. The path is
    # shown as it was given: to mount(2) with a backslash before commas, colons and backslashes.
    for folder in ["/"] if upper.startswith("/") else [*_above(path)][::-1]:
        for each in dict.fromkeys((_unquoted(upper), upper)):
            try:
                real = files.real_path(files.below(folder, each))
                known = posix.lstat(real)
            except OSError as reason:
                # Also where this user may not look. But a folder that only does not answer now is not unknown: without
                # it this rootfs would be another one than that of its neighbours.
                if reason.errno not in _NOT_HERE:
                    raise
                continue
            return {"path": real, "dev": known.st_dev, "ino": known.st_ino}
    return None


def _unquoted(path: str) -> str:
    """A path without the backslashes that quote a character, two of them being one."""
    return "\\".join(part.replace("\\", "") for part in path.split("\\\\"))


def _above(path: str) -> Iterator[str]:
    """The folders above an absolute path, ``/`` first."""
    end = 0
    while path != "/" and end >= 0:
        yield path[:end] or "/"
        end = path.find("/", end + 1)


def _way(place: str) -> tuple[list[ObjectRecord], list[int]]:
    """The folders above ``place``, and which of them, by number, are mount points, ``place`` being the last."""
    found: list[ObjectRecord] = []
    mounts = []
    for folder in (*_above(place), place):
        dev, ino, is_root = files.look_at(folder)
        is_another = bool(found) and found[-1]["dev"] != dev
        # By createContainer a runtime has bound the rootfs on itself. Outside it is a folder like any other.
        if is_another if is_root is None or folder == place else is_root:
            mounts.append(len(found))
        found.append({"dev": dev, "ino": ino})
    return found[:-1], mounts


def keys(rootfs: RootfsRecord) -> set[str]:
    """Names for a rootfs, of which two have one in common if they are, or may be, the same. At most 41 characters."""
    found = {f"{one['dev']}:{one['ino']}" for one in (rootfs, rootfs["upper"]) if one is not None}
    # Another start of the machine leaves nothing but the path. Two paths with one number only wait for each other.
    found.add(f"{int.from_bytes(linux.encode_path(rootfs['path']), 'big') % (2**61 - 1):x}")
    return found


def primary(rootfs: RootfsRecord) -> tuple[int, int]:
    """Device and inode number by which a rootfs that is there now is told from all others that are there."""
    own = rootfs["upper"] or rootfs
    return own["dev"], own["ino"]


def is_same(known: RootfsRecord, now: RootfsRecord, *, same_boot: bool) -> bool:
    """Whether ``now`` is certainly the rootfs recorded as ``known``, in this boot of the machine or in one before."""
    upper, upper_now = known["upper"], now["upper"]
    if upper is not None and upper_now is not None:
        # Whichever mount it is: what was made is in the upper folder.
        return _is_same_object(upper, upper_now, same_boot=same_boot)
    return known["overlay"] == now["overlay"] and _is_same_object(known, now, same_boot=same_boot)


def _is_same_object(known: PathRecord, now: PathRecord, *, same_boot: bool) -> bool:
    if same_boot:
        return (known["dev"], known["ino"]) == (now["dev"], now["ino"])
    return (known["path"], known["ino"]) == (now["path"], now["ino"])


def may_be_same(known: RootfsRecord, now: RootfsRecord, *, same_boot: bool) -> bool:
    """Whether ``now`` may be the rootfs recorded as ``known``. Then nothing that is used there is removed."""
    return is_same(known, now, same_boot=same_boot) or (not same_boot and known["path"] == now["path"])


def is_gone(known: RootfsRecord, *, same_boot: bool) -> bool:
    """Whether the rootfs recorded as ``known`` was certainly removed, or another folder put in its place.

    Certain is only: all folders above are those recorded, down to one in which the next name is missing, or is another
    folder, and no mount point, now and then. All else may be a file system that is not mounted at this moment, or one
    that does not answer. For an overlay its upper folder decides: while it is not mounted there may be no folder at all
    at its path.
    """
    place: PathRecord = known["upper"] or known
    recorded: list[ObjectRecord] = [*known["above"], place]
    above: tuple[int, int] | None = None  # the device of the folder above, now and then
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
    """Whether what is missing may be the mount point of a file system that lives on, or a folder above one.

    Some who unmount a disk remove its mount point as well: udisks, autofs, podman with a fuse-overlayfs.
    """
    last = len(known["above"])
    # The mount of a rootfs itself is its engine's, and so is the folder in which it is: that is removed with the
    # container. Only /run, where it may be, is empty after another start of the machine.
    return any(at == missing or (at > missing and (at != last or not same_boot)) for at in known["mounts"])
