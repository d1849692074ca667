# SPDX-License-Identifier: Apache-2.0
"""What an errno means and what helps, by system call.

The same errno differs by call: ENOSPC is a full disk for mkdirat(2) and too many mounts for move_mount(2). Calls are
named as in the error messages; "" stands for every call without its own row.

Loaded by every start of a container: import only errno and posix. It must be complete before a failure after setns(2).
"""

from __future__ import annotations

import errno
import posix

from ..errors import KernelError, MissingError
from . import rights

# The errors for what does not exist: a name, a folder on the way, the target of a link, a key of automount(8).
# ``optional`` ignores only these: with any other errno, the file may exist.
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

_MOUNT_MAX = "the namespace has reached its limit of mounts: raise /proc/sys/fs/mount-max"
_READ_ONLY = "create the mount point in the image, or register the hook for createRuntime, not createContainer"
_NO_MKNOD = "the server of the rootfs lacks mknod(2): create the mount point in the image, or bind at the start"
_FULL = "the disk of the rootfs has no space or inodes: free some, or create the mount point in the image"
_LOCKED = "it is unbindable, or it has locked mounts below it, which require rbind"
_GONE = "another process has just removed the mount point"
_OTHER_KIND = "another process has just replaced the mount point with something of another kind"
_ELSEWHERE = "the mount point can no longer be mounted on, or it is shared and the bind is unbindable"
_IMMUTABLE = "the folder is immutable (see lsattr(1)), or its owner has no id in this user namespace"
_FORBIDDEN = "a security module denies it: see the audit log"
_MAKE_ROOM = "free space there or make it writable, or choose another folder with --root"
_ATTRIBUTE = "an attribute of the source is locked: see mount_namespaces(7)"

HINTS = {
    ("", errno.EACCES): _FORBIDDEN,
    ("", errno.EBUSY): "it is a mount point, or a process still uses it",
    ("", errno.EDQUOT): "the disk quota of its owner is exhausted",
    ("", errno.EIO): "the disk or its server reports an error: see dmesg(1)",
    ("", errno.ELOOP): "the path contains too many symbolic links, or a loop of them",
    ("", errno.EMFILE): "raise RLIMIT_NOFILE, the limit of open files, of the runtime",
    ("", errno.ENAMETOOLONG): "a name is longer than 255 bytes, or the path is longer than 4095",
    ("", errno.ENFILE): "raise /proc/sys/fs/file-max, the limit of open files of the machine",
    ("", errno.ENODEV): "the device or its driver does not exist",
    ("", errno.ENOMEM): "the kernel or the cgroup of the runtime is out of memory",
    ("", errno.ENOSPC): "the file system has no space or inodes left",
    ("", errno.ENOSYS): "the kernel lacks this system call, or a seccomp filter blocks it",
    ("", errno.ENOTCONN): "the server of this FUSE mount has ended: unmount it and mount it again",
    ("", errno.ENOTDIR): "a component of the path is not a folder",
    ("", errno.ENXIO): "it is a socket, a device without a driver, or a FIFO without a reader",
    ("", errno.EPERM): _FORBIDDEN,
    ("", errno.EROFS): "its file system is read-only",
    ("", errno.ESTALE): "the server has replaced the file, as on NFS: mount it again on the host",
    ("mkdirat", errno.EEXIST): "another process has just created it",
    ("mkdirat", errno.ENOENT): "another process has just removed its folder",
    ("mkdirat", errno.ENOSPC): _FULL,
    ("mkdirat", errno.EPERM): _IMMUTABLE,
    ("mkdirat", errno.EROFS): _READ_ONLY,
    ("mknodat", errno.ENOSYS): _NO_MKNOD,
    ("mknodat", errno.EOPNOTSUPP): _NO_MKNOD,
    ("mknodat", errno.EEXIST): "another process has just created it",
    ("mknodat", errno.ENOENT): "another process has just removed its folder",
    ("mknodat", errno.ENOSPC): _FULL,
    ("mknodat", errno.EPERM): _IMMUTABLE,
    ("mknodat", errno.EROFS): _READ_ONLY,
    ("open_tree", errno.EINVAL): _LOCKED,
    ("open_tree", errno.ENOSPC): _MOUNT_MAX,
    ("open_tree", errno.EPERM): "the source is in a mount namespace of another user",
    ("mount_setattr", errno.EBUSY): "a process has a file of this mount open for writing",
    ("mount_setattr", errno.EPERM): _ATTRIBUTE,
    ("mount_setattr(idmap)", errno.EPERM): "it is already id-mapped, or belongs to another user namespace",
    ("move_mount", errno.EINVAL): _ELSEWHERE,
    ("move_mount", errno.ENOENT): _GONE,
    ("move_mount", errno.ENOSPC): _MOUNT_MAX,
    ("move_mount", errno.ENOTDIR): _OTHER_KIND,
    ("mount(tmpfs)", errno.ENOSPC): _MOUNT_MAX,
    ("mount(MS_BIND)", errno.EINVAL): _LOCKED,
    ("mount(MS_BIND)", errno.ENOSPC): _MOUNT_MAX,
    ("mount(MS_REMOUNT)", errno.EBUSY): "a process has a file of this mount open for writing",
    ("mount(MS_REMOUNT)", errno.EPERM): _ATTRIBUTE,
    ("mount(MS_MOVE)", errno.EINVAL): _ELSEWHERE,
    ("mount(MS_MOVE)", errno.ENOENT): _GONE,
    ("mount(MS_MOVE)", errno.ENOSPC): _MOUNT_MAX,
    ("mount(MS_MOVE)", errno.ENOTDIR): _OTHER_KIND,
    ("unlinkat", errno.EROFS): "remount its file system writable",
    ("unlinkat", errno.EPERM): "it or its folder is immutable or append-only: see lsattr(1)",
    ("umount2", errno.EINVAL): "a user namespace locks it: see mount_namespaces(7)",
    ("setns", errno.EINVAL): "the process or its namespace is ending",
    ("setns", errno.EPERM): "it belongs to a user namespace in which this process has no rights",
    ("unshare", errno.ENOSPC): "the limit user.max_user_namespaces is reached: raise it with sysctl(8)",
    ("unshare", errno.EPERM): "this machine denies user namespaces",
    ("unshare", errno.EUSERS): "user namespaces are nested too deep",
    ("write(id map)", errno.EINVAL): "an id exceeds 32 bits, ranges of ids overlap, or there are more than 340 ranges",
    ("write(id map)", errno.EPERM): "the current user namespace does not have these ids",
    ("state", errno.EACCES): "run this as a user who may write there, or choose another folder with --root",
    ("state", errno.EDQUOT): _MAKE_ROOM,
    ("state", errno.EEXIST): "it must be a folder: choose another with --root",
    ("state", errno.ELOOP): "it must not be a link: pass the folder itself to --root",
    ("state", errno.ENOLCK): "pass --root a folder on a file system that supports locks",
    ("state", errno.ENOSPC): _MAKE_ROOM,
    ("state", errno.ENOTDIR): "pass a folder to --root",
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
        return f"the process lacks {missing}"
    return HINTS.get((call, number)) or HINTS.get(("", number), "")


def because(call: str, reason: OSError) -> str:
    """Why ``call`` is forbidden, as the end of a sentence: "without CAP_...", or "because ..."."""
    missing = rights.lacking(*NEEDS.get((call, reason.errno or 0), ()))
    return f"without {missing}" if missing else f"because {hint(call, reason)}"


def unopened(subject: str, reason: OSError, *, where: str = "") -> MissingError:
    """The error that ``subject`` cannot be opened, with the reason and a hint."""
    problem = f"{subject} cannot be opened: {reason.strerror}"
    return MissingError(problem, where=where, hint=hint("openat", reason))


def message(call: str, reason: OSError) -> str:
    """Why the kernel refused ``call`` and what helps, without the name of the call."""
    advice = hint(call, reason)
    return f"{reason.strerror}, {advice}" if advice else str(reason.strerror or reason)


def refused(call: str, subject: str, reason: OSError, *, where: str = "") -> KernelError:
    """The error that the kernel refused ``call`` on ``subject``, with the reason and a hint."""
    return KernelError(call, subject, reason, where=where, hint=hint(call, reason))
