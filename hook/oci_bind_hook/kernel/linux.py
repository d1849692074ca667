# SPDX-License-Identifier: Apache-2.0
"""System calls as functions, under the kernel's own names. No other module calls the C library.

Each function makes its call, raises OSError with the call's errno, and returns fds that are close-on-exec. This module
has no policy and does not depend on containers. Most fallbacks for older kernels are in kernel.files.

Loaded by every start of a container: import only posix, sys, errno and _ctypes. The module ctypes would add 0.2 units
(one unit is the bare start of Python).
"""

from __future__ import annotations

# The C module behind ctypes: 0.05 units to import instead of 0.2.
import _ctypes
import errno
import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Simple = _ctypes._SimpleCData[Any]
else:
    Simple = _ctypes._SimpleCData

# From the kernel's UAPI headers: fcntl.h, mount.h, sched.h, stat.h, openat2.h, magic.h.
AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
AT_NO_AUTOMOUNT = 0x800
AT_RECURSIVE = 0x8000
AT_STATX_DONT_SYNC = 0x4000
AT_SYMLINK_NOFOLLOW = 0x100
AUTOFS_SUPER_MAGIC = 0x187
CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
CLONE_NEWUTS = 0x4000000
LOCK_EX = 2
LOCK_NB = 4
LOCK_SH = 1
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
NSFS_MAGIC = 0x6E736673
# ioctl_nsfs(2): _IO(0xb7, 3), _IO(0xb7, 4), _IOR(0xb7, 5, __u64). Some architectures encode these in other bits.
_OLD_IOCTL = posix.uname().machine.startswith(("alpha", "mips", "ppc", "sparc"))
NS_GET_NSTYPE = 0x2000B703 if _OLD_IOCTL else 0xB703
NS_GET_OWNER_UID = 0x2000B704 if _OLD_IOCTL else 0xB704
NS_GET_MNTNS_ID = 0x4008B705 if _OLD_IOCTL else 0x8008B705
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = posix.O_CLOEXEC
OVERLAYFS_SUPER_MAGIC = 0x794C7630
POLLIN = 1
PROC_ROOT_INO = 1
PROC_SUPER_MAGIC = 0x9FA0
RESOLVE_IN_ROOT = 0x10
RESOLVE_NO_MAGICLINKS = 0x2
RLIMIT_NOFILE = {"alpha": 6, "mips": 5, "mips64": 5, "sparc": 6, "sparc64": 6}.get(posix.uname().machine, 7)
STATMOUNT_MNT_BASIC = 0x2
STATX_ATTR_MOUNT_ROOT = 0x2000
STATX_BASIC_STATS = 0x7FF
STATX_BTIME = 0x800
STATX_MNT_ID = 0x1000
STATX_MNT_ID_UNIQUE = 0x4000
SYSFS_MAGIC = 0x62656572

# Since Linux 5.0 new system calls have the same number on every architecture but alpha, which adds 110.
NR_OPEN_TREE = 428
NR_MOVE_MOUNT = 429
NR_CLOSE_RANGE = 436
NR_OPENAT2 = 437
NR_MOUNT_SETATTR = 442
NR_STATMOUNT = 457

CAP_SYS_ADMIN = 21  # the number of the bit, linux/capability.h
CLOCK_REALTIME_COARSE = 5  # the clock of inode timestamps; the module time has no name for it


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO


class _Library:
    """The C library that Python is linked with."""

    _handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]


class _Pointer(Simple):
    """void *: an integer, bytes, a buffer or None; anything that fits into a register."""

    _type_ = "P"


class _Int(Simple):
    _type_ = "i"


class _Long(Simple):
    _type_ = "l"


class _Number(Simple):
    """An unsigned 64-bit number."""

    _type_ = "Q"


class Function:
    """The C function ``name``, which takes that many ``arguments``: numbers, bytes up to their NUL, buffers, None.

    It returns int, or long if ``is_long``. A negative result raises OSError with errno, and with ``path`` as file name.
    """

    def __init__(self, name: str, arguments: int, *, is_long: bool = False) -> None:
        self._call: Any = _Function((name, _Library))  # type: ignore[arg-type]
        self._call.argtypes = (_Pointer,) * arguments
        self._call.restype = _Long if is_long else _Int

    def __call__(self, *arguments: Any, path: str | None = None) -> int:
        result: int = self._call(*arguments)
        if result < 0:
            number = _ctypes.get_errno()
            raise OSError(number, posix.strerror(number), path)
        return result


def numbers(*values: int, size: int = 0) -> Any:
    """A buffer of unsigned 64-bit ``values``, with zeros up to ``size`` of them; bytes() copies its contents."""
    count = max(size, len(values))
    return (_Number * count)(*values)


_syscall = Function("syscall", 7, is_long=True)
_flock = Function("flock", 2)
_mount = Function("mount", 5)
_umount2 = Function("umount2", 2)
_setns = Function("setns", 2)
_unshare = Function("unshare", 1)
_statx = Function("statx", 5)
_fstatfs = Function("fstatfs", 2)
_faccessat = Function("faccessat", 4)
_ioctl = Function("ioctl", 3)
_poll = Function("poll", 3)
# On 32-bit machines plain prlimit(2) takes 32-bit limits. The struct below has 64-bit ones.
_prlimit = Function("prlimit" if sys.maxsize > 2**32 else "prlimit64", 4)
_setfsuid = Function("setfsuid", 1)
_setfsgid = Function("setfsgid", 1)

_NOTHING = (0, 0, 0, 0, 0, 0)


def _call(number: int, *arguments: object) -> int:
    """Makes the system call ``number``, by syscall(2)."""
    return _syscall(number, *arguments, *_NOTHING[len(arguments) :])


# One buffer for all calls, because there is only one thread, and allocating it takes as long as the system call.
_STATX = numbers(size=32)


def raw_statx(fd: int, mask: int, flags: int = 0, path: bytes = b"") -> memoryview:
    """struct statx of the file ``fd``, or of ``path`` relative to it. AT_STATX_DONT_SYNC asks no server."""
    try:
        _statx(fd, path, AT_EMPTY_PATH | AT_NO_AUTOMOUNT | flags, mask, _STATX)
    except OSError as reason:
        # On a kernel without statx(2) the C library emulates it, and rejects this flag.
        if reason.errno != errno.EINVAL or not flags:
            raise
        raise OSError(errno.ENOSYS, posix.strerror(errno.ENOSYS)) from reason
    return memoryview(bytes(_STATX))


_STATMOUNT = numbers(size=128)


def has_mount(unique: int, namespace: int = 0) -> bool:
    """Whether the mount with the unique id ``unique`` exists in this mount namespace, by statmount(2). Linux 6.8.

    ``namespace``, an id from ``mount_namespace_id``, names another mount namespace to look in. Linux 6.11.
    """
    # struct mnt_id_req: its size, the mount's id, what to report, and since Linux 6.11 the namespace's id.
    size = 32 if namespace else 24
    request = numbers(size, unique, STATMOUNT_MNT_BASIC, namespace)
    try:
        _call(NR_STATMOUNT, request, _STATMOUNT, 1024, 0)
    except FileNotFoundError:
        return False
    return True


# The first member of struct statfs is a long, on s390 an int. On little-endian machines its lower half comes first.
_IS_INT = sys.byteorder == "little" or posix.uname().machine.startswith("s390")


def fstatfs_type(fd: int) -> int:
    """The magic number of the file system that ``fd`` is on (PROC_SUPER_MAGIC, ...), by fstatfs(2)."""
    buffer = numbers(size=32)
    _fstatfs(fd, buffer)
    raw = memoryview(bytes(buffer))
    return raw.cast("I")[0] if _IS_INT else raw.cast("L")[0]


def check_writable(fd: int) -> None:
    """Raises the OSError of creating a name in the folder ``fd``, by faccessat(2): EROFS, EACCES, EPERM.

    A full disk, a quota and a security module may still refuse it.
    """
    _faccessat(fd, b".", posix.W_OK | posix.X_OK, 0)


def encode_path(path: str) -> bytes:
    """A path as bytes for the kernel, the reverse of decode_path."""
    return path.encode(_ENCODING, _ERRORS)


def decode_path(path: bytes) -> str:
    """A path of the kernel as Python's own functions return it: undecodable bytes become surrogates, PEP 383."""
    return path.decode(_ENCODING, _ERRORS)


# Read once, because after setns(2) no codec can be loaded.
_ENCODING, _ERRORS = sys.getfilesystemencoding(), sys.getfilesystemencodeerrors()


def is_absent(reason: OSError) -> bool:
    """Whether an error may mean that the kernel lacks the system call, or that a seccomp filter hides it."""
    return reason.errno in (errno.ENOSYS, errno.EPERM)


# Each system call with arguments that every kernel rejects as invalid, so that a probe changes nothing.
_MOUNT_API: dict[str, tuple[Any, ...]] = {
    "open_tree": (NR_OPEN_TREE, -1, b"", 0xFFFFFFFF),
    "mount_setattr": (NR_MOUNT_SETATTR, -1, b"", 0xFFFFFFFF, None, 0),
    "move_mount": (NR_MOVE_MOUNT, -1, b"", -1, b"", 0xFFFFFFFF),
}


def has_mount_api() -> bool:
    """Whether open_tree(2), move_mount(2) and mount_setattr(2) can be called: all three since Linux 5.12. Cached."""
    if not _mount_api:
        _mount_api.append(all(_knows(*probe) for probe in _MOUNT_API.values()))
    return _mount_api[0]


_mount_api: list[bool] = []


def _knows(number: int, *arguments: Any) -> bool:
    """Whether a system call exists and no filter hides it, tried with invalid ``arguments``."""
    try:
        _call(number, *arguments)
    except OSError as reason:
        # move_mount(2) checks capabilities before its arguments, so its EPERM does not indicate a filter. The other
        # calls check their arguments first.
        return reason.errno != errno.ENOSYS and (number == NR_MOVE_MOUNT or not is_absent(reason))
    return True


def tells_mounts() -> bool:
    """Whether statx(2) reports the mount of a file, since Linux 5.8, and no filter hides it. Raises OSError."""
    try:
        return bool(raw_statx(AT_FDCWD, STATX_MNT_ID, path=b"/").cast("I")[0] & STATX_MNT_ID)
    except OSError as reason:
        if is_absent(reason):
            return False
        raise


def version() -> tuple[int, int]:
    """The version of the kernel, uname(2). Only for features that cannot be probed: vendors backport newer ones."""
    major, minor = posix.uname().release.replace("-", ".").split(".")[:2]
    return int(major), int(minor)


def features() -> dict[str, bool]:
    """The kernel features that the hook uses, by name: true if present and not hidden by a filter. Changes nothing."""
    found = {name: _knows(*probe) for name, probe in _MOUNT_API.items()}
    found["idmapped mounts"] = found["mount_setattr"]  # both are in Linux 5.12
    found["idmapped tmpfs"] = found["mount_setattr"] and version() >= (6, 3)
    found["openat2"] = _knows(NR_OPENAT2, -1, b"", None, 0)
    for name, mask in (("statx mnt_id", STATX_MNT_ID), ("statx mnt_id_unique", STATX_MNT_ID_UNIQUE)):
        try:
            found[name] = bool(raw_statx(0, mask).cast("I")[0] & mask)
        except OSError:
            found[name] = False
    found["statmount"] = _knows(NR_STATMOUNT, None, None, 0, 0xFFFFFFFF)
    fd = posix.open("/proc/self/ns/mnt", posix.O_RDONLY | posix.O_CLOEXEC)
    found["mount namespace id"] = mount_namespace_id(fd) is not None
    posix.close(fd)
    found["pidfd"] = _enters_by_pidfd()
    return found


def _enters_by_pidfd() -> bool:
    """Whether setns(2) takes a pidfd, since Linux 5.8. Tried with this process's own UTS namespace: nothing changes."""
    if not _knows_setns():
        return False
    try:
        pidfd = posix.pidfd_open(posix.getpid())
    except OSError:
        return False
    try:
        _setns(pidfd, CLONE_NEWUTS)
    except OSError as reason:
        # EPERM is that of a user who may enter no namespace. An older kernel takes the fd of a namespace only: EINVAL.
        return reason.errno == errno.EPERM
    finally:
        posix.close(pidfd)
    return True


def _knows_setns() -> bool:
    """Whether no filter hides setns(2), which checks the fd before anything else."""
    try:
        _setns(-1, CLONE_NEWUTS)
    except OSError as reason:
        return reason.errno == errno.EBADF
    return True


def open_tree(fd: int, *, clone: bool, recursive: bool = False) -> int:
    """A new fd of the mount at ``fd``, or of a detached copy with ``clone``, by open_tree(2). Linux 5.2.

    ``recursive`` copies the mounts below it too.
    """
    flags = AT_EMPTY_PATH | OPEN_TREE_CLOEXEC
    flags |= OPEN_TREE_CLONE if clone else 0
    flags |= AT_RECURSIVE if recursive else 0
    return _call(NR_OPEN_TREE, fd, b"", flags)


def mount_setattr(
    fd: int, *, recursive: bool, attr_set: int = 0, attr_clr: int = 0, propagation: int = 0, userns_fd: int = 0
) -> None:
    """Changes attributes and propagation of the mount at ``fd``, by mount_setattr(2). Linux 5.12.

    ``attr_set`` and ``attr_clr`` are MOUNT_ATTR_* bits. ``propagation`` is MS_PRIVATE, MS_SLAVE, MS_SHARED or
    MS_UNBINDABLE, or 0 to keep it. ``userns_fd`` is the user namespace for MOUNT_ATTR_IDMAP.
    """
    attr = numbers(attr_set, attr_clr, propagation, userns_fd)
    _call(NR_MOUNT_SETATTR, fd, b"", AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0), attr, 32)


def move_mount(tree_fd: int, target_fd: int) -> None:
    """Attaches the detached tree ``tree_fd`` on the file or folder ``target_fd``, by move_mount(2). Linux 5.2."""
    _call(NR_MOVE_MOUNT, tree_fd, b"", target_fd, b"", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def openat2(fd: int, path: str, *, flags: int, resolve: int) -> int:
    """Opens ``path`` below ``fd`` under the restrictions ``resolve`` (RESOLVE_*), by openat2(2). Linux 5.6."""
    return _call(NR_OPENAT2, fd, encode_path(path), numbers(flags | posix.O_CLOEXEC, 0, resolve), 24)


def mount(source: str | None, target: str, flags: int, *, kind: str | None = None) -> None:
    """Calls mount(2) with MS_* ``flags`` and without data. ``kind`` is the type of a new file system."""
    path = None if source is None else encode_path(source)
    kind_of_fs = None if kind is None else encode_path(kind)
    _mount(path, encode_path(target), kind_of_fs, flags, None, path=target)


def umount2(path: str, flags: int) -> None:
    """Calls umount2(2) with MNT_* ``flags``."""
    _umount2(encode_path(path), flags, path=path)


def wait_readable(fd: int, seconds: float) -> bool:
    """Whether ``fd`` becomes readable within ``seconds``, by poll(2). A pidfd does when its process has ended."""
    # struct pollfd: the fd as int, and as shorts the events to wait for and those that occurred.
    members = fd.to_bytes(4, sys.byteorder) + POLLIN.to_bytes(2, sys.byteorder) + bytes(2)
    return _poll(numbers(int.from_bytes(members, sys.byteorder)), 1, max(0, int(seconds * 1000))) > 0


def flock(fd: int, operation: int, is_late: Callable[[], bool] = lambda: False) -> None:
    """Calls flock(2) with LOCK_SH or LOCK_EX, and LOCK_NB for BlockingIOError instead of waiting.

    Calls again after a signal, as fcntl.flock does, whose module would be one more to import. Raises InterruptedError
    if it ``is_late`` by then.
    """
    while True:
        try:
            _flock(fd, operation)
        except InterruptedError:
            if is_late():
                raise
            continue
        return


def raise_open_files() -> int:
    """Raises the soft limit of open files, RLIMIT_NOFILE, to the hard one by prlimit(2), and returns it."""
    limits = numbers(size=2)  # struct rlimit: soft, hard
    _prlimit(0, RLIMIT_NOFILE, None, limits)
    hard = int(limits[1])
    _prlimit(0, RLIMIT_NOFILE, numbers(hard, hard), None)
    return hard


def close_from(first: int) -> None:
    """Closes all fds from ``first`` on, by close_range(2), or one by one before Linux 5.9."""
    try:
        _call(NR_CLOSE_RANGE, first, 0xFFFFFFFF, 0)
    except OSError:
        posix.closerange(first, raise_open_files())


def seal_imports() -> None:
    """Makes every later import of a module that is not loaded yet fail, regardless of the file system."""
    # After setns(2) every path is looked up in the image. An attacker puts /usr/lib/python3.11/json/__init__.py there
    # and waits for the next import, perhaps a lazy one in an error path, which would run that file as root of the host.
    # Without finders and hooks an import raises ModuleNotFoundError instead, so everything that a run may still need
    # must be imported before. Clearing sys.path alone is not enough: submodules of a loaded package (encodings, this
    # one) are found by the package's __path__.
    sys.path.clear()
    sys.meta_path.clear()
    sys.path_hooks.clear()
    sys.path_importer_cache.clear()


def enter_mount_namespace(pidfd: int) -> None:
    """Moves this process into the mount namespace of the process ``pidfd``, by setns(2). Linux 5.8.

    Nothing can be imported afterwards, even if the call fails.
    """
    seal_imports()  # before the call, so that no import can happen in between
    _setns(pidfd, CLONE_NEWNS)


def set_fs_ids(uid: int, gid: int) -> None:
    """Sets the user and group for file systems, by setfsgid(2) and setfsuid(2), which report no error."""
    _setfsgid(gid)
    _setfsuid(uid)


def unshare_user() -> None:
    """Moves this process into a new user namespace, by unshare(2)."""
    _unshare(CLONE_NEWUSER)


def owner_of_user_namespace(fd: int) -> int:
    """The uid, as this process sees it, that owns the user namespace ``fd``, by ioctl_nsfs(2).

    Raises OSError if ``fd`` is not a user namespace.
    """
    buffer = numbers(size=1)
    _ioctl(fd, NS_GET_OWNER_UID, buffer)
    return memoryview(bytes(buffer)).cast("I")[0]


def namespace_type(fd: int) -> int:
    """The kind of the namespace ``fd``, as its CLONE_ flag, by ioctl_nsfs(2). Raises OSError."""
    return int(_ioctl(fd, NS_GET_NSTYPE, 0))


def mount_namespace_id(fd: int) -> int | None:
    """The id, never reused, of the mount namespace ``fd``, by ioctl_nsfs(2); None before Linux 6.11. Raises OSError."""
    buffer = numbers(size=1)
    try:
        _ioctl(fd, NS_GET_MNTNS_ID, buffer)
    except OSError as reason:
        if reason.errno != errno.ENOTTY and not is_absent(reason):
            raise
        return None
    return memoryview(bytes(buffer)).cast("Q")[0]
