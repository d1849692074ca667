# SPDX-License-Identifier: Apache-2.0
"""What procfs tells: this process's mounts and namespaces, and whether another process still lives.

Held by fd from the start, because ``/proc`` may be anything once another mount namespace has been entered. Pid
numbers are those of the procfs instance, which need not be those of this process (createContainer runs in the
container's pid namespace, below the host's ``/proc``).
"""

from __future__ import annotations

import os

from ..errors import UnavailableError
from . import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


class MountInfo:
    """One line of mountinfo, proc_pid_mountinfo(5).

    ``id`` and ``parent`` are mount ids, ``dev`` is the file system's device as os.makedev gives it, ``root`` the part
    of the file system that is mounted, ``mount_point`` where, below this process's ``/``. ``options`` are the mount's
    own. ``shared`` is the number of its peer group, or None; ``is_propagated`` tells that it takes part in any
    propagation. ``type`` and ``source`` name the file system.
    """

    __slots__ = ("dev", "id", "is_propagated", "mount_point", "options", "parent", "root", "shared", "source", "type")

    def __init__(self, line: str) -> None:
        fields = line.split(" ")
        dash = fields.index("-", 6)
        self.id = int(fields[0])
        self.parent = int(fields[1])
        major, minor = fields[2].split(":")
        self.dev = os.makedev(int(major), int(minor))
        self.root = linux.unescape(fields[3])
        self.mount_point = linux.unescape(fields[4])
        self.options = fields[5].split(",")
        groups = [int(tag[7:]) for tag in fields[6:dash] if tag.startswith("shared:")]
        self.shared = groups[0] if groups else None
        self.is_propagated = any(tag.startswith(("shared:", "master:")) for tag in fields[6:dash])
        self.type = linux.unescape(fields[dash + 1])
        self.source = linux.unescape(fields[dash + 2])


class MountTable:
    """All mounts of a namespace at one moment, in the order of mountinfo. A line is parsed when it is asked for.

    That takes a tenth of the time where there are thousands, and nearly none of them is ours.
    """

    def __init__(self, text: str) -> None:
        self._lines: dict[int, str] = {}
        self._infos: dict[int, MountInfo] = {}
        self._children: dict[int, list[int]] = {}
        for line in text.split("\n"):
            if line:
                number, parent, _ = line.split(" ", 2)
                self._lines[int(number)] = line
                self._children.setdefault(int(parent), []).append(int(number))

    def __iter__(self) -> Iterator[MountInfo]:
        return (self._info(number) for number in self._lines)

    def _info(self, number: int) -> MountInfo:
        if number not in self._infos:
            self._infos[number] = MountInfo(self._lines[number])
        return self._infos[number]

    def get(self, mnt_id: int | None) -> MountInfo | None:
        """The mount of that id, None where there is none."""
        return self._info(mnt_id) if mnt_id in self._lines else None

    def ids(self) -> set[int]:
        """The ids of all mounts."""
        return set(self._lines)

    def on(self, parent: int) -> list[MountInfo]:
        """The mounts whose mount point is on the mount ``parent``."""
        return [self._info(number) for number in self._children.get(parent, ())]

    def below(self, top: int) -> list[MountInfo]:
        """The mounts on and below the mount ``top``, each after the one it stands on."""
        found: list[int] = []
        pending = [top]
        # The root of all mounts may be its own parent.
        seen = {top}
        while pending:
            children = [number for number in self._children.get(pending.pop(), ()) if number not in seen]
            seen.update(children)
            found += children
            pending += children
        return [self._info(number) for number in found]

    def has_below(self, path: str) -> bool:
        """Whether anything is mounted below ``path``, as in a container's namespace by the time of createContainer."""
        return any(info.mount_point.startswith(path + "/") for info in self)


class Proc:
    """procfs, seen from this process. UnavailableError where ``/proc`` is not procfs."""

    def __init__(self) -> None:
        try:
            self.fd = os.open("/proc/self", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as reason:
            raise UnavailableError(f"/proc/self cannot be opened: {reason.strerror}", hint="mount procfs") from reason
        if linux.fstatfs_type(self.fd) != linux.PROC_SUPER_MAGIC:
            raise UnavailableError("/proc is not procfs", hint="mount procfs")

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """An fd of a file below /proc/self; mountinfo goes on telling of the namespace it was opened in."""
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self.fd)

    def _read(self, name: str) -> str:
        fd = self.open(name)
        try:
            return read_text(fd)
        finally:
            os.close(fd)

    def mounts(self) -> MountTable:
        """The mounts that this process sees now."""
        return MountTable(self._read("mountinfo"))

    def mounts_of(self, pid: int) -> MountTable:
        """The mounts that another process sees; none where it is gone or we may not look."""
        try:
            return MountTable(self._read(f"../{pid}/mountinfo"))
        except OSError:
            return MountTable("")

    def mount_namespace(self) -> int:
        """The inode number of this process's mount namespace, namespaces(7)."""
        return os.stat("ns/mnt", dir_fd=self.fd).st_ino

    def pids(self) -> list[int]:
        """This process's pid in each pid namespace, from that of procfs down to its own (NSpid)."""
        return [int(number) for number in self._status("NSpid").split()]

    def parent(self) -> int:
        """The pid of the parent, as this procfs numbers it."""
        return int(self._status("PPid"))

    def _status(self, key: str) -> str:
        for line in self._read("status").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value.strip()
        return "0"

    def in_user_namespace(self) -> bool:
        """Whether user ids are not the machine's own, user_namespaces(7)."""
        return self._read("uid_map").split() != ["0", "0", "4294967295"]

    def is_ours(self) -> bool:
        """Whether our own user made the user namespace that we are in, as a rootless runtime does. OSError."""
        fd = self.open("ns/user")
        try:
            return linux.owner_of_user_namespace(fd) == os.geteuid()
        finally:
            os.close(fd)

    def uid_outside(self, uid: int) -> int:
        """A user id of ours as the user namespace around ours has it; on the machine itself that changes nothing."""
        return outside(uid, self._read("uid_map"))

    def owner_outside(self, stat: linux.Stat) -> tuple[int, int]:
        """The user and group of an object as the user namespace around ours has them."""
        return self.uid_outside(stat.uid), outside(stat.gid, self._read("gid_map"))

    def pid_of(self, pidfd: int) -> int:
        """The pid of a process held by pidfd, as this procfs numbers it; -1 when it is gone, pidfd_open(2)."""
        for line in self._read(f"fdinfo/{pidfd}").splitlines():
            if line.startswith("Pid:"):
                return int(line[4:])
        return -1

    def start_time(self, pid: int) -> int | None:
        """When process ``pid`` started, in clock ticks since boot; None when it is gone or a zombie."""
        try:
            stat = self._read(f"../{pid}/stat")
        except (FileNotFoundError, ProcessLookupError):
            return None
        fields = stat[stat.rindex(")") + 2 :].split()
        # Where the first thread has ended before others, the process looks like a zombie, and lives.
        has_ended = fields[0] in "ZX" and int(fields[17]) < 2
        return None if has_ended else int(fields[19])

    def first_start(self) -> int | None:
        """When process 1 started, by which the pid namespace of procfs is known; None where it is hidden, proc(5)."""
        try:
            return self.start_time(1)
        except PermissionError:
            return None

    def has_ended(self, pid: int, start: int, seconds: float) -> bool:
        """Whether the process ``pid`` that started at ``start`` is gone, now or within so many ``seconds``."""
        if self.start_time(pid) != start:
            return True
        try:
            pidfd = os.pidfd_open(pid)
        except OSError:
            return True
        if self.start_time(pid) == start:
            linux.wait_readable(pidfd, seconds)
        os.close(pidfd)
        return self.start_time(pid) != start

    def mount_namespace_of(self, pid: int) -> int | None:
        """The inode number of the mount namespace of a process; None where it is gone or we may not look."""
        try:
            return os.stat(f"../{pid}/ns/mnt", dir_fd=self.fd).st_ino
        except OSError:
            return None

    def mount_namespace_id_of(self, pid: int) -> int | None:
        """The id, never used again, of the mount namespace of a process; None where nothing tells it."""
        try:
            fd = os.open(f"../{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return None
        try:
            return linux.mount_namespace_id(fd)
        finally:
            os.close(fd)

    def user_of_namespace(self, inode: int) -> int | None:
        """A process in the mount namespace ``inode``, None where there is none. It looks at every process."""
        return next((pid for pid in self._all() if self.mount_namespace_of(pid) == inode), None)

    def may_see_all(self) -> bool:
        """Whether we may look at every process that is there."""
        for pid in self._all():
            try:
                os.stat(f"../{pid}/ns/mnt", dir_fd=self.fd)
            except PermissionError:
                return False
            except OSError:
                pass  # it has ended meanwhile
        return True

    def _all(self) -> list[int]:
        """The pids of all processes."""
        folder = os.open("..", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self.fd)
        try:
            return [int(name) for name in os.listdir(folder) if name.isdigit()]
        finally:
            os.close(folder)

    def mount(self, source: int | None, target: int, flags: int, *, kind: str | None = None) -> None:
        """mount(2) on the object ``target``, both held by fd, so that no path is looked up. OSError."""
        os.fchdir(self.fd)
        try:
            linux.mount(None if source is None else f"fd/{source}", f"fd/{target}", flags, kind=kind)
        finally:
            os.chdir("/")

    def umount(self, fd: int) -> None:
        """umount2(2): detaches the mount whose root is held by ``fd``, be it a file or a folder. OSError.

        Not as the current folder: to enter one takes a right that root of a user namespace need not have.
        """
        os.fchdir(self.fd)
        try:
            linux.umount2(f"fd/{fd}", linux.MNT_DETACH)
        finally:
            os.chdir("/")


def read_text(fd: int) -> str:
    """All that is left to read of ``fd``, as file names are decoded."""
    chunks = []
    while chunk := os.read(fd, 1 << 16):
        chunks.append(chunk)
    return os.fsdecode(b"".join(chunks))


def outside(number: int, id_map: str) -> int:
    """An id by the text of a uid_map or gid_map, user_namespaces(7); one that is not mapped is left as it is."""
    for line in id_map.splitlines():
        inside, host, size = map(int, line.split())
        if inside <= number < inside + size:
            return host + number - inside
    return number


def boot_id() -> str:
    """The random id of this boot of the kernel, random(4)."""
    fd = os.open("/proc/sys/kernel/random/boot_id", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_text(fd).strip()
    finally:
        os.close(fd)


class Namespace:
    """The mount namespace in which the binds are attached.

    ``kind`` is "container" where the runtime made it for the container, else "runtime". ``entered`` tells that it
    is not the one we were started in. ``assumed`` is a dry-run's: what the runtime would have mounted is taken as done.
    """

    def __init__(self, proc: Proc, kind: str, *, assumed: bool = False) -> None:
        self.proc = proc
        self.kind = kind
        self.assumed = assumed
        self.entered = False
        self.inode = proc.mount_namespace()
        self._before = proc.open("mountinfo")
        self._tables: dict[str, MountTable] = {}

    def enter(self, pidfd: int) -> None:
        """Enters the mount namespace of the process ``pidfd``; nothing can be imported afterwards. OSError."""
        linux.enter_mount_namespace(pidfd)
        inode = self.proc.mount_namespace()
        self.entered = inode != self.inode
        self.inode = inode

    def started_in(self) -> MountTable:
        """The mounts of the namespace that we were started in, whatever we have entered since."""
        if "before" not in self._tables:
            self._tables["before"] = MountTable(read_text(self._before))
        return self._tables["before"]

    def here(self) -> MountTable:
        """The mounts of the namespace we are in, as they were before our first change."""
        if not self.entered:
            return self.started_in()
        if "here" not in self._tables:
            self._tables["here"] = self.proc.mounts()
        return self._tables["here"]

    def mount_of(self, stat: linux.Stat) -> MountInfo | None:
        """The mount through which an object was reached, if this namespace has it."""
        return self.here().get(stat.mnt_id)

    def is_locked_by_host(self, stat: linux.Stat) -> bool:
        """Whether a mount was read-only already before the runtime bound it on itself: somebody else wants it so."""
        info = self.mount_of(stat)
        below = self.here().get(info.parent) if info is not None else None
        return below is None or "ro" in below.options

    def is_own_tmpfs(self, stat: linux.Stat, rootfs: str) -> bool:
        """Whether an object is on a tmpfs that nobody but this container has: one that the runtime made for it."""
        info = self.mount_of(stat)
        if self.kind != "container" or info is None or info.type != "tmpfs" or info.root != "/":
            return False
        inside = rootfs + "/"
        others = self.started_in() if self.entered else [m for m in self.here() if not m.mount_point.startswith(inside)]
        return all(other.dev != info.dev for other in others)
