# SPDX-License-Identifier: Apache-2.0
"""Policy: on which destinations a bind may be mounted, and with which kind of source. The walk does not depend on it.

Loaded by every start of a container: import only posix. It runs after setns(2), when nothing can be imported.
"""

from __future__ import annotations

from ..errors import EscapeError, RequestError
from ..kernel import files, linux
from ..kernel.mountinfo import may_wait
from .walk import PATH_MAX, Target

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .mount_points import Rootfs

# The only files of procfs on which runc allows a mount, libcontainer, checkProcMount.
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


def admit(rootfs: Rootfs, target: Target, *, directory: bool) -> None:
    """Checks that a source may be mounted on ``target``; ``directory`` is true if the source is a folder.

    Raises EscapeError for the root, procfs and sysfs, and RequestError for a long path or if only one is a folder.
    """
    path = target.path
    if len(linux.encode_path(rootfs.path + path)) >= PATH_MAX:
        raise RequestError(f"the path of the rootfs and the destination together are longer than {PATH_MAX - 1} bytes")
    if len(target.steps) == 1:
        raise EscapeError("the destination is the rootfs itself")
    for place, text in target.links:
        if place in ("/proc", "/sys"):
            raise EscapeError(
                f"{place} is a link to {text}, but must be a folder",
                hint=f"runtimes mount {place[1:]} there, and runc rejects a link",
            )
    kind = _kind(rootfs, target)
    if path == "/sys" or path.startswith("/sys/") or kind == "sysfs":
        raise EscapeError(f"{path} is on sysfs, where binds are not allowed")
    if path == "/proc" or path.startswith("/proc/") or kind == "proc":
        # A dry-run cannot see the files of a /proc that the runtime will mount later.
        is_unseen = target.anchor.cover is not None and target.anchor.cover.held is None
        if path not in PROC_FILES or (target.missing and not is_unseen):
            raise EscapeError(
                f"{_named(target)} is on procfs, where only a few files may be covered, as in runc",
                hint=f"allowed: {' '.join(sorted(PROC_FILES))}",
            )
    last = target.last
    if target.as_folder and not directory:
        raise RequestError(f"{path} must be a folder, but the source is a file")
    exists = last.exists or rootfs.has_reserved(target)
    if exists and last.folder != directory:
        ours, theirs = ("a folder", "a file") if directory else ("a file", "a folder")
        theirs, hint = ("a link", "only a file can be bound on a link") if last.is_link else (theirs, "")
        raise RequestError(f"the source is {ours}, but {path} is {theirs}", hint=hint)


def _named(target: Target) -> str:
    """The path of ``target``, in which links of procfs keep their names: their target depends on the process."""
    path = target.path
    for place, text in reversed(target.links):
        led = f"{place.rpartition('/')[0]}/{text}"
        if place.startswith("/proc/") and f"{path}/".startswith(f"{led}/"):
            path = place + path[len(led) :]
    return path


def _kind(rootfs: Rootfs, target: Target) -> str | None:
    """The type of the file system that ``target`` is or will be on, that of its cover if it is in one; None if unknown.

    "sysfs" and "proc" are always known; the other types do not matter.
    """
    anchor = target.anchor
    if anchor.stat is None or anchor.fd is None:
        return anchor.cover.type if anchor.cover is not None else None
    if anchor.stat.mnt_id == rootfs.stat.mnt_id:
        return None
    # fstatfs(2) may wait for a server, while this process has the rootfs locked. So a type that may wait is taken from
    # the mount table. No other type is: the table is older than the walk, and another mount may have reused the id.
    known = anchor.cover.types.get(anchor.stat.mnt_id) if anchor.cover is not None else rootfs.type_of(anchor.stat)
    if known is not None and may_wait(known):
        return known
    with files.Named(rootfs.path + target.path):
        return {linux.SYSFS_MAGIC: "sysfs", linux.PROC_SUPER_MAGIC: "proc"}.get(linux.fstatfs_type(anchor.fd))
