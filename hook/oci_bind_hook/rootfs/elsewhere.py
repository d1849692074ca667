# SPDX-License-Identifier: Apache-2.0
"""Finds a rootfs in this mount namespace if it is not at the path that the runtime named.

podman 5 mounts the rootfs of root's container a second time if the container's user namespace has no access to podman's
storage: at /var/tmp/intermediate-mountpoint-UID.GID, in a mount namespace of its own. So several containers have the
same path, and outside of that namespace there is only an empty folder. The rootfs itself is an overlay in podman's
storage, or a folder.

Loaded only if a rootfs is not at its path, and never after setns(2).
"""

from __future__ import annotations

import posix

from ..errors import HookError
from ..kernel import files
from ..kernel.mountinfo import first_that_may_wait
from .identity import identify, is_same_object, places
from .mount_points import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..kernel.mountinfo import MountTable
    from ..record.state_file import PathRecord, RootfsRecord
    from .mount_points import OwnerOf


def find(
    known: RootfsRecord, table: MountTable, owner_of: OwnerOf | None, *, same_boot: bool
) -> tuple[Rootfs, RootfsRecord] | None:
    """The rootfs ``known``, opened where this mount namespace has it, and what identifies it now.

    That is an overlay at another mount point in ``table``, or a folder that was bound on the recorded path. None if it
    is not found, or only where a server may not answer. ``owner_of`` is as for Rootfs.
    """
    upper = known["upper"]
    if upper is None:
        return None
    for point in _overlays(table) if known["overlay"] else (upper["path"],):
        if first_that_may_wait(table, point) is not None:
            continue
        # The path is a hint: another mount may cover it, or a link may be there. Only what was opened counts.
        try:
            rootfs = Rootfs(point, owner_of=owner_of)
        except HookError:
            continue
        try:
            now = identify(point, rootfs.fd, lambda: table)
            if _is(upper, now, rootfs, is_overlay=known["overlay"], same_boot=same_boot):
                return rootfs, now
        except OSError:
            pass  # of another container, or it cannot be inspected
        rootfs.close()
    return None


def _is(upper: PathRecord, now: RootfsRecord, rootfs: Rootfs, *, is_overlay: bool, same_boot: bool) -> bool:
    """Whether ``rootfs``, which is ``now``, is the folder ``upper`` or, if ``is_overlay``, its overlay. OSError."""
    if not is_overlay:
        return is_same_object(upper, now, same_boot=same_boot)
    found = now["upper"]
    return (
        found is not None and is_same_object(upper, found, same_boot=same_boot) and _is_upper(found["path"], rootfs.fd)
    )


def _is_upper(path: str, overlay: int) -> bool:
    """Whether the folder at ``path`` is the upper folder of the ``overlay``, of which the root is open. OSError."""
    # The mount table has the path as it was passed to mount(2). In a container with another root, that is the path of
    # another folder, and the mount can propagate to here. The root of an overlay has the times of its upper folder.
    fd = posix.open(path, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC)
    try:
        upper, root = files.statx(fd), files.statx(overlay)
    finally:
        posix.close(fd)
    return (upper.born or upper.changed) == (root.born or root.changed)


def beside(path: str, theirs: MountTable, mine: MountTable) -> str:
    """Where the mount table ``mine`` has the folder that is mounted at ``path`` in the table ``theirs``.

    ``theirs`` is that of the runtime's mount namespace. Returns ``path`` if nothing is mounted there, or if the folder
    is at the same path or unknown in ``mine``. Like every path, the result is a hint.
    """
    top = next(reversed(theirs.at(path)), None)
    if top is None or any((info.dev, info.root) == (top.dev, top.root) for info in mine.at(path)[-1:]):
        return path
    return next(places(top, mine), path)


def _overlays(table: MountTable) -> Iterator[str]:
    return (info.mount_point for info in table if info.type == "overlay" and info.root == "/")


def is_unmounted(known: RootfsRecord, table: MountTable, *, same_boot: bool) -> bool:
    """Whether the overlay ``known``, which ``find`` has not found, certainly exists and is not mounted in ``table``."""
    upper = known["upper"]
    if not known["overlay"] or upper is None:
        return False
    if any(first_that_may_wait(table, point) is not None for point in _overlays(table)):
        return False
    try:
        now = posix.lstat(upper["path"])
    except OSError:
        return False
    return is_same_object(upper, {**upper, "dev": now.st_dev, "ino": now.st_ino}, same_boot=same_boot)
