# SPDX-License-Identifier: Apache-2.0
"""What an errno means and what helps, by system call.

The same errno differs by call: ENOSPC is a full disk for mkdirat(2) and too many mounts for move_mount(2). Calls are
named as in the error messages; "" stands for every call without a row of its own.

Loaded by every start of a container: only errno and posix. A failure after setns(2) must find all of it loaded.
"""

from __future__ import annotations

import errno
import posix

from ..errors import KernelError, MissingError
from . import rights

# What says that nothing is there: a name, a folder on the way, what a link leads to, or what automount(8) knows.
# ``optional`` forgives these, and nothing else: any other errno may hide something that is there.
ABSENT = frozenset((errno.ENOENT, errno.ENOTDIR))

# The capabilities that a refused call needs. If the process lacks one, the hint names it; else HINTS applies.
NEEDS = {
    ("openat", errno.EACCES): ("CAP_DAC_OVERRIDE",),
    ("readlinkat", errno.EACCES): ("CAP_DAC_OVERRIDE",),
    ("mkdirat", errno.EACCES): ("CAP_DAC_OVERRIDE",),
    ("mkdirat", errno.EPERM): ("CAP_DAC_OVERRIDE",),
    ("mknodat", errno.EACCES): ("CAP_DAC_OVERRIDE",),
    ("mknodat", errno.EPERM): ("CAP_DAC_OVERRIDE",),
    ("setns", errno.EPERM): ("CAP_SYS_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE"),
    ("open_tree", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("mount_setattr", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("move_mount", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("mount(tmpfs)", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("mount(MS_BIND)", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("mount(MS_REMOUNT)", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("mount(MS_MOVE)", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("umount2", errno.EPERM): ("CAP_SYS_ADMIN",),
    ("write(id map)", errno.EPERM): ("CAP_SETUID", "CAP_SETGID"),
}

_MOUNT_MAX = "the limit of mounts in a namespace is reached: raise /proc/sys/fs/mount-max"
_READ_ONLY = "the rootfs is read-only; make it in the image, or, if at createContainer, register for createRuntime"
_FULL = "the disk below the rootfs is full, or has no inode left; or make the mount point in the image"
_LOCKED = "it is unbindable, or mounts below it are locked and need rbind"
_GONE = "the mount point was removed at this moment"
_OTHER_KIND = "the mount point was replaced at this moment by something of another kind"
_ELSEWHERE = "the mount point can no longer be mounted on, or is shared, and the bind unbindable"
_IMMUTABLE = "the folder is immutable, see lsattr(1), or its owner is not known in this user namespace"
_FORBIDDEN = "a security module forbids it: see the audit log"
_MAKE_ROOM = "make room there or let it be written, or give --root another folder"
_ATTRIBUTE = "an attribute of the source is locked"

HINTS = {
    ("", errno.EACCES): _FORBIDDEN,
    ("", errno.EBUSY): "something is mounted on it, or still uses it",
    ("", errno.EDQUOT): "the quota of its owner is used up",
    ("", errno.EIO): "the disk, or the server behind it, fails: see dmesg(1)",
    ("", errno.ELOOP): "it leads through too many links: a loop?",
    ("", errno.EMFILE): "raise the limit of open files of the runtime, RLIMIT_NOFILE",
    ("", errno.ENAMETOOLONG): "a name has more than 255 bytes, or the path more than 4095",
    ("", errno.ENFILE): "raise the machine's limit of open files, /proc/sys/fs/file-max",
    ("", errno.ENODEV): "there is no such device or driver",
    ("", errno.ENOMEM): "no memory is left for the kernel, or for the cgroup of the runtime",
    ("", errno.ENOSPC): "the disk is full, or has no inode left",
    ("", errno.ENOSYS): "the kernel has no such call, or a seccomp filter hides it",
    ("", errno.ENOTCONN): "the program behind this FUSE mount has ended: unmount it, and mount it again",
    ("", errno.ENOTDIR): "it, or something on the way there, is no folder",
    ("", errno.ENXIO): "nobody is behind this device or socket",
    ("", errno.EPERM): _FORBIDDEN,
    ("", errno.EROFS): "its file system is read-only",
    ("", errno.ESTALE): "the server has another file there by now, as on NFS: mount it again on the host",
    ("mkdirat", errno.EEXIST): "somebody else made it at this moment",
    ("mkdirat", errno.ENOENT): "its folder was removed at this moment",
    ("mkdirat", errno.ENOSPC): _FULL,
    ("mkdirat", errno.EPERM): _IMMUTABLE,
    ("mkdirat", errno.EROFS): _READ_ONLY,
    ("mknodat", errno.EEXIST): "somebody else made it at this moment",
    ("mknodat", errno.ENOENT): "its folder was removed at this moment",
    ("mknodat", errno.ENOSPC): _FULL,
    ("mknodat", errno.EPERM): _IMMUTABLE,
    ("mknodat", errno.EROFS): _READ_ONLY,
    ("open_tree", errno.EINVAL): _LOCKED,
    ("open_tree", errno.ENOSPC): _MOUNT_MAX,
    ("open_tree", errno.EPERM): "the source is in a mount namespace that another user owns",
    ("mount_setattr", errno.EBUSY): "somebody has a file open for writing there",
    ("mount_setattr", errno.EPERM): _ATTRIBUTE,
    ("mount_setattr(idmap)", errno.EPERM): "it is id-mapped already, or belongs to another user namespace",
    ("move_mount", errno.EINVAL): _ELSEWHERE,
    ("move_mount", errno.ENOENT): _GONE,
    ("move_mount", errno.ENOSPC): _MOUNT_MAX,
    ("move_mount", errno.ENOTDIR): _OTHER_KIND,
    ("mount(tmpfs)", errno.ENOSPC): _MOUNT_MAX,
    ("mount(MS_BIND)", errno.EINVAL): _LOCKED,
    ("mount(MS_BIND)", errno.ENOSPC): _MOUNT_MAX,
    ("mount(MS_REMOUNT)", errno.EBUSY): "somebody has a file open for writing there",
    ("mount(MS_REMOUNT)", errno.EPERM): _ATTRIBUTE,
    ("mount(MS_MOVE)", errno.EINVAL): _ELSEWHERE,
    ("mount(MS_MOVE)", errno.ENOENT): _GONE,
    ("mount(MS_MOVE)", errno.ENOSPC): _MOUNT_MAX,
    ("mount(MS_MOVE)", errno.ENOTDIR): _OTHER_KIND,
    ("unlinkat", errno.EPERM): "it or its folder is immutable or append-only, see lsattr(1)",
    ("umount2", errno.EINVAL): "a user namespace has locked it",
    ("setns", errno.EINVAL): "the process is just ending, or its namespace is",
    ("setns", errno.EPERM): "a user namespace that is not ours owns it",
    ("unshare", errno.ENOSPC): "the limit user.max_user_namespaces is reached",
    ("unshare", errno.EPERM): "user namespaces are forbidden here",
    ("unshare", errno.EUSERS): "user namespaces are nested too deep",
    ("write(id map)", errno.EINVAL): "an id is beyond 32 bits, runs of ids overlap, or there are more than 340",
    ("write(id map)", errno.EPERM): "the user namespace that we are in does not have these ids",
    ("state", errno.EACCES): _MAKE_ROOM,
    ("state", errno.EDQUOT): _MAKE_ROOM,
    ("state", errno.EEXIST): "it must be a folder: give --root another one",
    ("state", errno.ELOOP): "it must be no link: give --root the folder itself",
    ("state", errno.ENOLCK): "give --root a folder on a file system that has locks",
    ("state", errno.ENOSPC): _MAKE_ROOM,
    ("state", errno.ENOTDIR): "give --root a folder",
    ("state", errno.EPERM): _MAKE_ROOM,
    ("state", errno.EROFS): _MAKE_ROOM,
}


def hint(call: str, reason: OSError) -> str:
    """What a user can do when the kernel refused ``call``.

    "" if nothing is known, or if this package raised the error: then its text is not that of its errno.
    """
    number = reason.errno or 0
    if reason.strerror != posix.strerror(number):
        return ""
    if missing := rights.lacking(*NEEDS.get((call, number), ())):
        return f"it needs {missing}"
    return HINTS.get((call, number)) or HINTS.get(("", number), "")


def because(call: str, reason: OSError) -> str:
    """Why ``call`` is forbidden, as the end of a sentence: "without CAP_...", or "because ..."."""
    missing = rights.lacking(*NEEDS.get((call, reason.errno or 0), ()))
    return f"without {missing}" if missing else f"because {hint(call, reason)}"


def unopened(subject: str, reason: OSError, *, where: str = "") -> MissingError:
    """The error that says that ``subject`` cannot be opened, why, and what helps."""
    problem = f"{subject} cannot be opened: {reason.strerror}"
    return MissingError(problem, where=where, hint=hint("openat", reason))


def message(call: str, reason: OSError) -> str:
    """Why the kernel refused ``call`` and what helps, without the name of the call."""
    advice = hint(call, reason)
    return f"{reason.strerror}, {advice}" if advice else str(reason.strerror or reason)


def refused(call: str, subject: str, reason: OSError, *, where: str = "") -> KernelError:
    """The error that says that the kernel refused ``call`` on ``subject``, why, and what helps."""
    return KernelError(call, subject, reason, where=where, hint=hint(call, reason))
