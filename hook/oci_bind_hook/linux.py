# SPDX-License-Identifier: Apache-2.0
"""System calls as functions, under the kernel's own names.

Every function raises OSError with the errno of the call and does nothing else: no retries, no policy, no knowledge of
containers. Only ``statx`` makes up for kernels that tell less. File descriptors that come out are close-on-exec. This
is the only module that may import ctypes or prctl.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal
import sys

import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

# From the kernel's UAPI headers: fcntl.h, mount.h, sched.h, stat.h, openat2.h, magic.h.
AT_EMPTY_PATH = 0x1000
AT_NO_AUTOMOUNT = 0x800
AT_RECURSIVE = 0x8000
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
MNT_DETACH = 2
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NOSYMFOLLOW = 0x200000
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_RELATIME = 0x0
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_NOATIME = 0x400
MS_NODEV = 0x4
MS_NODIRATIME = 0x800
MS_NOEXEC = 0x8
MS_NOSUID = 0x2
MS_NOSYMFOLLOW = 0x100
MS_PRIVATE = 1 << 18
MS_RDONLY = 0x1
MS_REC = 0x4000
MS_RELATIME = 1 << 21
MS_REMOUNT = 0x20
MS_SHARED = 1 << 20
MS_SLAVE = 1 << 19
MS_STRICTATIME = 1 << 24
MS_UNBINDABLE = 1 << 17
# ioctl_ns(2): _IO(0xb7, 4), and some machines number the direction "none" of an ioctl 1 instead of 0.
NS_GET_OWNER_UID = 0xB704 | (0x20000000 if os.uname().machine.startswith(("alpha", "mips", "ppc", "sparc")) else 0)
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
OVERLAYFS_SUPER_MAGIC = 0x794C7630
PROC_ROOT_INO = 1
PROC_SUPER_MAGIC = 0x9FA0
RESOLVE_IN_ROOT = 0x10
RESOLVE_NO_MAGICLINKS = 0x2
STATMOUNT_MNT_BASIC = 0x2
STATX_ATTR_MOUNT_ROOT = 0x2000
STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_MNT_ID_UNIQUE = 0x4000
SYSFS_MAGIC = 0x62656572
UMOUNT_NOFOLLOW = 8

# The generic numbers: the same on every architecture since Linux 5.0 but alpha, which adds 110.
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442
NR_STATMOUNT = 457

CLOCK_REALTIME_COARSE = 5  # the clock of inode timestamps; not among Python's names

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_void_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.setns.argtypes = (ctypes.c_int, ctypes.c_int)
_libc.statx.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)
_libc.ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def _failed(path: str | bytes | int | None = None) -> NoReturn:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), path)


def _syscall(number: int, *arguments: object) -> int:
    result = int(_libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        _failed()
    return result


class _Timestamp(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_int64), ("nsec", ctypes.c_uint32), ("_pad", ctypes.c_int32))


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("_spare0", ctypes.c_uint16),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("attributes_mask", ctypes.c_uint64),
        ("atime", _Timestamp),
        ("btime", _Timestamp),
        ("ctime", _Timestamp),
        ("mtime", _Timestamp),
        ("rdev_major", ctypes.c_uint32),
        ("rdev_minor", ctypes.c_uint32),
        ("dev_major", ctypes.c_uint32),
        ("dev_minor", ctypes.c_uint32),
        ("mnt_id", ctypes.c_uint64),
        ("_spare", ctypes.c_uint64 * 13),
    )


class Stat:
    """What statx(2) says of an open object.

    ``mode uid gid ino size`` as in stat(2); ``dev`` as os.makedev gives it; ``mnt_id`` is the mount it was reached
    through, as /proc/self/mountinfo numbers it; ``mount_root`` tells whether it is the root of that mount; ``born`` is
    the time of its birth in nanoseconds since the epoch, None where it is not kept.
    """

    __slots__ = ("born", "dev", "gid", "ino", "mnt_id", "mode", "mount_root", "size", "uid")

    mode: int
    uid: int
    gid: int
    ino: int
    dev: int
    size: int
    mnt_id: int
    mount_root: bool
    born: int | None


def _statx(fd: int, mask: int) -> _Statx:
    raw = _Statx()
    if _libc.statx(fd, b"", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, mask, ctypes.byref(raw)) < 0:
        _failed()
    return raw


def statx(fd: int) -> Stat:
    """What is known of the object that ``fd`` holds, by statx(2).

    Where that does not tell of mounts (before Linux 5.8) procfs does. Before Linux 4.11 no time of birth is known.
    """
    try:
        raw = _statx(fd, STATX_BASIC_STATS | STATX_BTIME | STATX_MNT_ID)
    except OSError as reason:
        if not is_absent(reason):
            raise
        raw = _fstat(fd)
    stat = Stat()
    stat.mode = raw.mode
    stat.uid = raw.uid
    stat.gid = raw.gid
    stat.ino = raw.ino
    stat.dev = os.makedev(raw.dev_major, raw.dev_minor)
    stat.size = raw.size
    stat.born = raw.btime.sec * 10**9 + raw.btime.nsec if raw.mask & STATX_BTIME else None
    if raw.mask & STATX_MNT_ID and raw.attributes_mask & STATX_ATTR_MOUNT_ROOT:
        stat.mnt_id = raw.mnt_id
        stat.mount_root = bool(raw.attributes & STATX_ATTR_MOUNT_ROOT)
    else:
        stat.mnt_id = _mount_id(fd)
        stat.mount_root = _is_mount_root(fd, stat.mnt_id)
    return stat


def _fstat(fd: int) -> _Statx:
    """What fstat(2) knows, in the form of statx(2)."""
    known, raw = os.fstat(fd), _Statx()
    raw.mode, raw.uid, raw.gid = known.st_mode, known.st_uid, known.st_gid
    raw.ino, raw.size = known.st_ino, known.st_size
    raw.dev_major, raw.dev_minor = os.major(known.st_dev), os.minor(known.st_dev)
    return raw


def _read_proc(name: str) -> str:
    fd = os.open(f"/proc/self/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if fstatfs_type(fd) != PROC_SUPER_MAGIC:
            raise OSError(errno.ENOSYS, "neither statx(2) nor procfs tells of mounts")
        chunks = []
        while chunk := os.read(fd, 1 << 16):
            chunks.append(chunk)
    finally:
        os.close(fd)
    return os.fsdecode(b"".join(chunks))


def _mount_id(fd: int) -> int:
    """The mount that ``fd`` was reached through, proc_pid_fdinfo(5)."""
    return next(int(line[7:]) for line in _read_proc(f"fdinfo/{fd}").splitlines() if line.startswith("mnt_id:"))


def _is_mount_root(fd: int, mnt_id: int) -> bool:
    """What is above the root of a mount is another mount, or, for a process's own root, the root itself."""
    try:
        above = os.open("..", os.O_PATH | os.O_CLOEXEC, dir_fd=fd)
    except (NotADirectoryError, PermissionError):
        return os.readlink(f"/proc/self/fd/{fd}") == _mount_point(mnt_id)
    try:
        return _mount_id(above) != mnt_id or os.path.samestat(os.fstat(above), os.fstat(fd))
    finally:
        os.close(above)


def _mount_point(mnt_id: int) -> str | None:
    lines = (line.split(" ", 5) for line in _read_proc("mountinfo").splitlines())
    points = (unescape(fields[4]) for fields in lines if int(fields[0]) == mnt_id)
    return next(points, None)


def unescape(field: str) -> str:
    r"""A field of mountinfo as it was: the kernel writes space, tab, newline, backslash and # as \ooo."""
    if "\\" not in field:
        return field
    head, *tails = field.split("\\")
    return head + "".join(chr(int(tail[:3], 8)) + tail[3:] for tail in tails)


def unique_mount_id(fd: int) -> int | None:
    """The id of the mount ``fd`` was reached through that is never used again; None before Linux 6.8."""
    try:
        raw = _statx(fd, STATX_MNT_ID_UNIQUE)
    except OSError as reason:
        if not is_absent(reason):
            raise
        return None
    return int(raw.mnt_id) if raw.mask & STATX_MNT_ID_UNIQUE else None


def has_mount(unique: int) -> bool:
    """Whether a mount, by its id that is never used again, is in this mount namespace, by statmount(2). Linux 6.8."""
    request = (ctypes.c_uint64 * 3)(24, unique, STATMOUNT_MNT_BASIC)  # struct mnt_id_req: its size, id, what to tell
    buffer = ctypes.create_string_buffer(1024)
    try:
        _syscall(NR_STATMOUNT, ctypes.byref(request), buffer, ctypes.c_size_t(len(buffer)), ctypes.c_uint(0))
    except FileNotFoundError:
        return False
    return True


def fstatfs_type(fd: int) -> int:
    """The magic number of the file system that ``fd`` is on, by fstatfs(2)."""
    buffer = (ctypes.c_long * 32)()
    if _libc.fstatfs(fd, buffer) < 0:
        _failed()
    return int(buffer[0])


def is_absent(reason: OSError) -> bool:
    """Whether an error can mean that the kernel has no such system call, or that a seccomp filter hides it."""
    return reason.errno in (errno.ENOSYS, errno.EPERM)


def has_mount_api() -> bool:
    """Whether open_tree(2), move_mount(2) and mount_setattr(2) are there to be called: all of them since Linux 5.12.

    Each is tried with what every kernel that knows it refuses as invalid.
    """
    flags = ctypes.c_uint(0xFFFFFFFF)
    probes = (
        (NR_OPEN_TREE, ctypes.c_int(-1), b"", flags),
        (NR_MOUNT_SETATTR, ctypes.c_int(-1), b"", flags, None, ctypes.c_size_t(0)),
        (NR_MOVE_MOUNT, ctypes.c_int(-1), b"", ctypes.c_int(-1), b"", flags),
    )
    for number, *arguments in probes:
        try:
            _syscall(number, *arguments)
        except OSError as reason:
            # Of the three only move_mount looks at our rights before it looks at its arguments: EPERM says nothing.
            if reason.errno == errno.ENOSYS or (is_absent(reason) and number != NR_MOVE_MOUNT):
                return False
    return True


def open_tree(fd: int, *, clone: bool, recursive: bool = False) -> int:
    """A new fd of the mount at ``fd``, by open_tree(2); with ``clone`` of a detached copy of it. Linux 5.2."""
    flags = AT_EMPTY_PATH | OPEN_TREE_CLOEXEC
    flags |= OPEN_TREE_CLONE if clone else 0
    flags |= AT_RECURSIVE if recursive else 0
    return _syscall(NR_OPEN_TREE, ctypes.c_int(fd), b"", ctypes.c_uint(flags))


def mount_setattr(
    fd: int, *, recursive: bool, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, userns_fd: int = 0
) -> None:
    """Changes attributes and propagation of the mount at ``fd``, by mount_setattr(2). Linux 5.12.

    ``attr_set`` and ``attr_clr`` are MOUNT_ATTR_* bits, ``propagation`` one of MS_PRIVATE, MS_SLAVE, MS_SHARED,
    MS_UNBINDABLE or 0 to leave it, ``userns_fd`` the user namespace for MOUNT_ATTR_IDMAP.
    """
    attr = (ctypes.c_uint64 * 4)(attr_set, attr_clr, propagation, userns_fd)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    size = ctypes.c_size_t(ctypes.sizeof(attr))
    _syscall(NR_MOUNT_SETATTR, ctypes.c_int(fd), b"", ctypes.c_uint(flags), ctypes.byref(attr), size)


def move_mount(tree_fd: int, target_fd: int) -> None:
    """Attaches the detached tree ``tree_fd`` on top of the object ``target_fd``, by move_mount(2). Linux 5.2."""
    flags = ctypes.c_uint(MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)
    _syscall(NR_MOVE_MOUNT, ctypes.c_int(tree_fd), b"", ctypes.c_int(target_fd), b"", flags)


def openat2(fd: int, path: str, *, flags: int, resolve: int) -> int:
    """Opens ``path`` below ``fd`` with the limits ``resolve`` (RESOLVE_*), by openat2(2). Linux 5.6."""
    how = (ctypes.c_uint64 * 3)(flags | os.O_CLOEXEC, 0, resolve)
    size = ctypes.c_size_t(ctypes.sizeof(how))
    return _syscall(NR_OPENAT2, ctypes.c_int(fd), os.fsencode(path), ctypes.byref(how), size)


def mount(source: str | None, target: str, flags: int, *, kind: str | None = None) -> None:
    """mount(2). ``flags`` are MS_*; ``kind`` is the type of a new file system, which has no source and no options."""
    path = None if source is None else os.fsencode(source)
    kind_of_fs = None if kind is None else os.fsencode(kind)
    if _libc.mount(path, os.fsencode(target), kind_of_fs, flags, None) < 0:
        _failed(target)


def umount2(path: str, flags: int) -> None:
    """umount2(2). ``flags`` are MNT_DETACH and UMOUNT_NOFOLLOW."""
    if _libc.umount2(os.fsencode(path), flags) < 0:
        _failed(path)


def raise_open_files() -> int:
    """Raises the soft limit of open files to the hard one, getrlimit(2), and returns it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def seal_imports() -> None:
    """From now on nothing can be imported that has not been imported already, whatever stands in the file system."""
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def enter_mount_namespace(pidfd: int) -> None:
    """Moves this process into the mount namespace of the process ``pidfd``, by setns(2). Linux 5.8.

    Imports are sealed first: afterwards Python would look for its own modules below the ``/`` of that namespace, and
    run what it finds there with all rights of the host's root.
    """
    seal_imports()
    if _libc.setns(pidfd, CLONE_NEWNS) < 0:
        _failed()


def set_fs_ids(uid: int, gid: int) -> None:
    """Whom the file system takes us for from now on, by setfsgid(2) and setfsuid(2), which never tell if they fail."""
    _libc.setfsgid(gid)
    _libc.setfsuid(uid)


def unshare_user() -> None:
    """Moves this process into a user namespace of its own, by unshare(2)."""
    if _libc.unshare(CLONE_NEWUSER) < 0:
        _failed()


def owner_of_user_namespace(fd: int) -> int:
    """The uid, as this process sees it, of who made the user namespace ``fd``, by ioctl_ns(2). OSError for no such."""
    uid = ctypes.c_uint32()
    if _libc.ioctl(fd, NS_GET_OWNER_UID, ctypes.byref(uid)) < 0:
        _failed()
    return uid.value


# All that a run still needs once it has read what it is told to do, capabilities(7).
CAPABILITIES = {
    "CAP_SYS_ADMIN": "setns(2), and every call that makes, changes or removes a mount",
    "CAP_SYS_CHROOT": "setns(2) into a mount namespace changes the root",
    "CAP_SYS_PTRACE": "setns(2) by pidfd, and to see in which namespace another process is",
    "CAP_DAC_OVERRIDE": "mount points are made and removed in folders of the image's users",
    "CAP_FOWNER": "a mount point made for another user is removed from a folder with the sticky bit",
    "CAP_SETUID": "setfsuid(2), for a tmpfs of the container's user namespace, which does not know our uid",
    "CAP_SETGID": "setfsgid(2), for the same",
}


def lacking(*names: str) -> str:
    """Those capabilities among ``names`` that this process lacks, for a message; "" where it lacks none."""
    return " and ".join(name for name in names if not getattr(prctl.cap_effective, name[4:].lower()))


def die_with_parent() -> None:
    """This process is killed when the one that forked it ends, by prctl(2)."""
    prctl.set_pdeathsig(signal.SIGKILL)


def harden(name: str, *, hide: bool) -> None:
    """Names this process, forbids it new privileges, and takes from it all capabilities that are not needed any more.

    With ``hide`` nobody may look into its memory and fds either. But what is not dumpable belongs to the machine's
    root, so that in a user namespace even we could not use our own /proc/self any more. prctl(2), capset(2).
    """
    prctl.set_name(name)
    prctl.set_no_new_privs(1)
    kept = {getattr(prctl, each) for each in CAPABILITIES}
    dropped = [each for each in prctl.ALL_CAPS if each not in kept]
    sets = ((dropped, prctl.CAP_EFFECTIVE), (dropped, prctl.CAP_PERMITTED), (prctl.ALL_CAPS, prctl.CAP_INHERITABLE))
    prctl.set_caps(*((caps, which, False) for caps, which in sets))
    if hide:
        prctl.set_dumpable(0)
