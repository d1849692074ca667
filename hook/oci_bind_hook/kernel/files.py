# SPDX-License-Identifier: Apache-2.0
"""The file and the mount behind an fd: from statx(2), and from procfs on kernels whose statx(2) reports less.

Loaded by every start of a container: import only errno, posix and stat. It also runs after setns(2), when nothing can
be imported.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from . import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

OVERFLOW_UID = 65534  # an owner that is not mapped in this user namespace, user_namespaces(7)
USERS = "/run/user"  # a runtime folder for each user, XDG_RUNTIME_DIR, named after the uid
MAX_LINKS = 40  # the kernel's limit for one lookup, path_resolution(7)


class Named:
    """A context manager that sets ``path`` as the filename of an OSError that does not have an absolute path."""

    # A call with an fd, or with a name relative to one, puts only this into its error. The message "14: Input/output
    # error" would not show which disk failed.

    __slots__ = ("_path",)

    def __init__(self, path: str) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and not str(error.filename).startswith("/"):
            error.filename = self._path


class Stat:
    """The attributes of an open file, from statx(2).

    ``mode uid gid ino size`` are as in stat(2), and ``dev`` is as posix.makedev returns it. ``mnt_id`` is the id of the
    mount the file was reached through, as in /proc/self/mountinfo; ``mount_root`` is true if the file is the root of
    that mount. ``born`` is the birth time in nanoseconds since the epoch, None if the file system has none.
    ``changed`` is the time of the last change of its inode, st_ctime, likewise.
    """

    __slots__ = ("born", "changed", "dev", "gid", "ino", "mnt_id", "mode", "mount_root", "size", "uid")

    mode: int
    uid: int
    gid: int
    ino: int
    dev: int
    size: int
    mnt_id: int
    mount_root: bool
    born: int | None
    changed: int


def statx(fd: int, *, ask: bool = True) -> Stat:
    """The attributes of the file ``fd``, by statx(2). Raises OSError.

    Without ``ask`` they are those that the kernel has cached, AT_STATX_DONT_SYNC: the server of a FUSE or network file
    system is not asked, and cannot block this process. The file type is right; owner, size and times may be outdated,
    and ``born`` may be missing.

    Before Linux 5.8 statx(2) does not report mounts: procfs does. Before Linux 4.11, or if a seccomp filter hides
    statx(2), fstat(2) is used and ``born`` is None.
    """
    stat = Stat()
    try:
        wanted = linux.STATX_BASIC_STATS | linux.STATX_BTIME | linux.STATX_MNT_ID
        raw = linux.raw_statx(fd, wanted, 0 if ask else linux.AT_STATX_DONT_SYNC)
    except OSError as reason:
        if not linux.is_absent(reason):
            raise
        known = posix.fstat(fd)
        stat.mode, stat.uid, stat.gid = known.st_mode, known.st_uid, known.st_gid
        stat.ino, stat.dev, stat.size = known.st_ino, known.st_dev, known.st_size
        stat.born, stat.changed = None, known.st_ctime_ns
    else:
        words, longs = raw.cast("I"), raw.cast("Q")
        stat.mode, stat.uid, stat.gid = raw.cast("H")[14], words[5], words[6]
        stat.ino, stat.size = longs[4], longs[5]
        stat.dev = posix.makedev(words[34], words[35])
        signed = raw.cast("q")
        stat.born = signed[10] * 10**9 + words[22] if words[0] & linux.STATX_BTIME else None
        stat.changed = signed[12] * 10**9 + words[26]
        if words[0] & linux.STATX_MNT_ID and longs[7] & linux.STATX_ATTR_MOUNT_ROOT:
            stat.mnt_id = longs[18]
            stat.mount_root = bool(longs[1] & linux.STATX_ATTR_MOUNT_ROOT)
            return stat
    stat.mnt_id = _mount_id(fd)
    stat.mount_root = _is_mount_root(fd, stat.mnt_id)
    return stat


def look_at(path: str) -> tuple[int, int, bool | None]:
    """Device and inode number of the file at ``path``, not following a link, and whether it is the root of a mount.

    The last is None before Linux 5.8, or if a seccomp filter hides statx(2). Raises OSError.
    """
    flags = linux.AT_SYMLINK_NOFOLLOW
    try:
        with Named(path):
            raw = linux.raw_statx(linux.AT_FDCWD, linux.STATX_BASIC_STATS, flags, linux.encode_path(path))
    except OSError as reason:
        if not linux.is_absent(reason):
            raise
        known = posix.lstat(path)
        return known.st_dev, known.st_ino, None
    words, longs = raw.cast("I"), raw.cast("Q")
    attributes, mask = longs[1], longs[7]
    is_root = bool(attributes & linux.STATX_ATTR_MOUNT_ROOT) if mask & linux.STATX_ATTR_MOUNT_ROOT else None
    return posix.makedev(words[34], words[35]), longs[4], is_root


def mount_id(fd: int) -> int:
    """The id of the mount that ``fd`` was reached through, as in mountinfo. Asks no server. Raises OSError."""
    # A server that does not answer would block a call that needs more: even stat(2) of the root of its mount asks it.
    try:
        raw = linux.raw_statx(fd, linux.STATX_MNT_ID, linux.AT_STATX_DONT_SYNC)
    except OSError as reason:
        if not linux.is_absent(reason):
            raise
    else:
        if raw.cast("I")[0] & linux.STATX_MNT_ID:
            return raw.cast("Q")[18]
    return _mount_id(fd)


def _read_proc(name: str) -> str:
    fd = posix.open(f"/proc/self/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        if linux.fstatfs_type(fd) != linux.PROC_SUPER_MAGIC:
            raise OSError(errno.ENOSYS, "neither statx(2) nor procfs provides mount ids")
        return linux.decode_path(read_all(fd))
    finally:
        posix.close(fd)


def read_all(fd: int) -> bytes:
    """The rest of the content of ``fd``. Raises OSError."""
    chunks = []
    while chunk := posix.read(fd, 1 << 16):
        chunks.append(chunk)
    return b"".join(chunks)


def _mount_id(fd: int) -> int:
    """The id of the mount that ``fd`` was reached through, proc_pid_fdinfo(5)."""
    return next(int(line[7:]) for line in _read_proc(f"fdinfo/{fd}").splitlines() if line.startswith("mnt_id:"))


def _is_mount_root(fd: int, mnt_id: int) -> bool:
    """Whether ``fd`` is the root of its mount: ``..`` is on another mount, or ``fd`` itself in the process's root."""
    try:
        above = posix.open("..", posix.O_PATH | posix.O_CLOEXEC, dir_fd=fd)
    except (NotADirectoryError, PermissionError):
        return posix.readlink(f"/proc/self/fd/{fd}") == _mount_point(mnt_id)
    try:
        return _mount_id(above) != mnt_id or is_same_file(posix.fstat(above), posix.fstat(fd))
    finally:
        posix.close(above)


def _mount_point(mnt_id: int) -> str | None:
    # Not str.splitlines: it splits at other characters too, which a file name may contain.
    lines = (line.split(" ", 5) for line in _read_proc("mountinfo").split("\n") if line)
    points = (unescape(fields[4]) for fields in lines if int(fields[0]) == mnt_id)
    return next(points, None)


def unescape(field: str) -> str:
    r"""A field of mountinfo, unescaped: the kernel escapes space, tab, newline, backslash and # as \ooo."""
    if "\\" not in field:
        return field
    head, *tails = field.split("\\")
    return head + "".join(chr(int(tail[:3], 8)) + tail[3:] for tail in tails)


def unique_mount_id(fd: int) -> int | None:
    """The unique id, never reused, of the mount that ``fd`` was reached through; None before Linux 6.8."""
    try:
        raw = linux.raw_statx(fd, linux.STATX_MNT_ID_UNIQUE, linux.AT_STATX_DONT_SYNC)
    except OSError as reason:
        if not linux.is_absent(reason):
            raise
        return None
    return raw.cast("Q")[18] if raw.cast("I")[0] & linux.STATX_MNT_ID_UNIQUE else None


def is_same_file(one: posix.stat_result, other: posix.stat_result) -> bool:
    """Whether two results of stat(2) are of the same file or folder."""
    return (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)


def clean_path(path: str) -> str:
    """An absolute path without ``.``, ``..`` and double slashes. Lexical: links are not considered."""
    names: list[str] = []
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return "/" + "/".join(names)


def real_path(path: str) -> str:
    """The absolute ``path`` of an existing file or folder, with links resolved, path_resolution(7). Raises OSError.

    It looks up each name. /proc/self/fd would have another path if the file was renamed after it was opened, and the
    state file would then contain the wrong folder.
    """
    real = ""
    for _, end, here in _way(path):
        if isinstance(here, OSError):
            raise here
        real = end
    return real or "/"


def changeable(path: str, by: int = 0o022) -> str:
    """The first folder on the way to ``path`` in which users other than root and this one can replace the next name.

    "" if there is none. Such a folder belongs to them, or its mode has one of the bits ``by``. If it is sticky, the
    next name must belong to them. Links are followed. A missing name ends the way. Raises OSError.
    """
    for folder, _, here in _way(path):
        above = posix.lstat(folder or "/")
        if not _is_trusted(above.st_uid) or (above.st_mode & by and not above.st_mode & modes.S_ISVTX):
            return folder or "/"
        if isinstance(here, FileNotFoundError):
            return ""
        if isinstance(here, OSError):
            raise here
        if above.st_mode & by and not _is_trusted(here.st_uid):
            return folder or "/"
    return ""


def _way(path: str) -> Iterator[tuple[str, str, posix.stat_result | OSError]]:
    """Each name on the way to ``path``: its folder, the path that it leads to ("" for ``/`` in both), and its lstat(2).

    Links are followed. If the way ends early, the last item has the OSError instead of the stat.
    """
    names = path.split("/")[::-1]
    real, links = "", 0
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        folder = real
        try:
            # Also for "..": "absent/.." does not exist for the kernel and crun. For runc it is the folder itself.
            here = posix.lstat(f"{folder}/{name}")
            if name == "..":
                real = folder.rpartition("/")[0]
            elif not modes.S_ISLNK(here.st_mode):
                real = f"{folder}/{name}"
            elif (links := links + 1) > MAX_LINKS:
                raise OSError(errno.ELOOP, posix.strerror(errno.ELOOP), path)
            else:
                target = posix.readlink(f"{folder}/{name}")
                real = "" if target.startswith("/") else folder
                names += target.split("/")[::-1]
        except OSError as reason:
            yield folder, folder, reason
            return
        yield folder, real, here


def _is_trusted(uid: int) -> bool:
    """Whether a user is root or this one. In a user namespace, root may be unmapped, like other users: OVERFLOW_UID."""
    if uid in (0, posix.geteuid()):
        return True
    return uid == OVERFLOW_UID and _read_proc("uid_map").split() != ["0", "0", "4294967295"]


def below(folder: str, path: str) -> str:
    """``path`` as seen from ``folder``: unchanged if it is absolute."""
    if path.startswith("/"):
        return path
    return f"{folder}{path}" if folder.endswith("/") else f"{folder}/{path}"
