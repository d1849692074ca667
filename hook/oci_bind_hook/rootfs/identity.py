# SPDX-License-Identifier: Apache-2.0
"""Which rootfs it is: the one notion of "the same rootfs" for locks, neighbours, set-up and undo.

A rootfs has no name that is always right. An overlay has another device number after each mount of it; its upper folder
keeps both numbers. Each start of the machine numbers devices anew. A path may lead to another rootfs since, and two
paths to one.

Loaded by every start of a container: it imports only posix and stat.
"""

from __future__ import annotations

import posix
import stat as modes

from ..kernel import files, linux
from ..kernel.errnos import unopened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..kernel.proc import MountTable
    from ..record.state_file import ObjectRecord, PathRecord, RootfsRecord


def identify(path: str, fd: int, mounts: Callable[[], MountTable]) -> RootfsRecord:
    """What the rootfs at ``path``, held by ``fd``, is known by.

    ``mounts`` returns the mounts of the current namespace, and is called for an overlay only. Raises OSError.
    """
    stat = posix.fstat(fd)
    overlay = is_overlay(fd)
    upper = _upper(path, fd, mounts()) if overlay else None
    place = upper["path"] if upper else path
    return {
        "path": path,
        "dev": stat.st_dev,
        "ino": stat.st_ino,
        "overlay": overlay,
        "upper": upper,
        "above": [{"dev": each.st_dev, "ino": each.st_ino} for each in map(posix.lstat, _above(place))],
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
            except OSError:
                continue  # also where this user may not look
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
    for folder, then in zip([*_above(place["path"]), place["path"]], recorded, strict=False):
        try:
            now = posix.lstat(folder)
        except FileNotFoundError:
            return above is not None
        except OSError:
            return False
        if now.st_ino != then["ino"] or (same_boot and now.st_dev != then["dev"]):
            return above == (now.st_dev, then["dev"]) and not modes.S_ISLNK(now.st_mode)
        above = now.st_dev, then["dev"]
    return False
