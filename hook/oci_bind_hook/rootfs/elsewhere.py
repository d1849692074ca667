# SPDX-License-Identifier: Apache-2.0
"""Finds a rootfs in this mount namespace if it is not at the path that the runtime named.

podman 5 mounts the rootfs of root's container a second time if the container's user namespace has no access to podman's
storage: at /var/tmp/intermediate-mountpoint-UID.GID, in a mount namespace of its own. So several containers have the
same path, and outside of that namespace there is only an empty folder. The rootfs itself is in podman's storage.

Loaded only if a rootfs is not at its path, and never after setns(2).
"""

from __future__ import annotations

import posix

from ..errors import HookError
from ..kernel import files
from ..kernel.asking import first_that_may_wait
from .identity import identify, is_same
from .mount_points import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..kernel.mountinfo import MountInfo, MountTable
    from ..record.state_file import RootfsRecord
    from .mount_points import OwnerOf


def find(
    known: RootfsRecord, table: MountTable, owner_of: OwnerOf | None, *, same_boot: bool
) -> tuple[Rootfs, RootfsRecord] | None:
    """The overlay recorded as ``known``, opened at another mount point in ``table``, and what identifies it now.

    None if it is not mounted, or only where a server may not answer. ``table`` is that of this mount namespace, and
    ``owner_of`` is as for Rootfs.
    """
    if known["upper"] is None:
        return None  # only an overlay can be identified by more than its path and its mount
    for info in _overlays(table):
        if first_that_may_wait(table, info.mount_point) is not None:
            continue
        # The mount point is a hint: another mount may cover it, or a link may be there. Only what was opened counts.
        try:
            rootfs = Rootfs(info.mount_point, owner_of=owner_of)
        except HookError:
            continue
        try:
            now = identify(info.mount_point, rootfs.fd, lambda: table)
            if now["upper"] is not None and is_same(known, now, same_boot=same_boot):
                return rootfs, now
        except OSError:
            pass  # of another container, or it cannot be inspected
        rootfs.close()
    return None


def beside(path: str, theirs: MountTable, mine: MountTable) -> str:
    """Where the mount table ``mine`` has the folder that is mounted at ``path`` in the table ``theirs``.

    ``theirs`` is that of the runtime's mount namespace. Returns ``path`` if nothing is mounted there, or if the folder
    is at the same path or unknown in ``mine``. Like every path, the result is a hint.
    """
    top = next(reversed(theirs.at(path)), None)
    if top is None or any((info.dev, info.root) == (top.dev, top.root) for info in mine.at(path)[-1:]):
        return path
    for info in mine:
        above = info.root.rstrip("/")
        if info.dev == top.dev and f"{top.root}/".startswith(f"{above}/"):
            found = files.below(info.mount_point, top.root[len(above) + 1 :]).rstrip("/") or "/"
            if first_that_may_wait(mine, found) is None:
                return found
    return path


def _overlays(table: MountTable) -> Iterator[MountInfo]:
    return (info for info in table if info.type == "overlay" and info.root == "/")


def is_unmounted(known: RootfsRecord, table: MountTable, *, same_boot: bool) -> bool:
    """Whether the overlay ``known``, which ``find`` has not found, certainly exists and is not mounted in ``table``."""
    upper = known["upper"]
    if upper is None or any(first_that_may_wait(table, info.mount_point) is not None for info in _overlays(table)):
        return False
    try:
        now = posix.lstat(upper["path"])
    except OSError:
        return False
    return now.st_ino == upper["ino"] and (not same_boot or now.st_dev == upper["dev"])
