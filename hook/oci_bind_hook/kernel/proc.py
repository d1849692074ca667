# SPDX-License-Identifier: Apache-2.0
"""procfs: the mounts and namespaces of this process, and whether another process is alive.

``/proc/self`` is opened once at the start, because ``/proc`` may be anything after setns(2). Pids are those of this
procfs instance. They may differ from the pid that this process sees as its own: a createContainer hook runs in the
container's pid namespace while ``/proc`` is still the host's.

Loaded by every start of a container: import only errno and posix. Lines are split without re, which takes half as long
to import as Python takes to start.
"""

from __future__ import annotations

import errno
import posix

from ..errors import UnavailableError
from . import files, linux
from .errnos import hint
from .mountinfo import MountTable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..record.state_file import IdRun, UserRecord


# The errors for a process that has ended, or that this process may not inspect, proc(5).
OUT_OF_SIGHT = (FileNotFoundError, ProcessLookupError, PermissionError)


# The characters that no shell interprets, besides letters and digits of ASCII.
_PLAIN = "/._-+:@%,="


class HiddenError(Exception):
    """A process exists, but procfs does not show it to this user, as with hidepid, proc(5)."""


class Proc:
    """procfs, through an fd of ``/proc/self``. Raises UnavailableError if ``/proc`` is not procfs.

    ``root`` is the ``--root`` of this call, which the commands in advice repeat.
    """

    def __init__(self, root: str | None = None) -> None:
        self._root = root
        try:
            self.fd = posix.open("/proc/self", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        except OSError as reason:
            is_missing = isinstance(reason, FileNotFoundError)
            advice = "mount procfs" if is_missing else hint("openat", reason)
            raise UnavailableError(f"/proc/self cannot be opened: {reason.strerror}", hint=advice) from reason
        with files.Named("/proc"):
            if linux.fstatfs_type(self.fd) != linux.PROC_SUPER_MAGIC:
                raise UnavailableError("/proc is not procfs", hint="mount procfs")
        self._ticks_ahead: int | None = None

    def open(self, name: str, flags: int = posix.O_RDONLY) -> int:
        """An fd of the file ``name`` below /proc/self. Raises OSError.

        An open mountinfo keeps showing the namespace in which it was opened, also after setns(2).
        """
        with _named(name):
            return posix.open(name, flags | posix.O_CLOEXEC, dir_fd=self.fd)

    def _read(self, name: str) -> str:
        fd = self.open(name)
        try:
            with _named(name):
                return read_text(fd)
        finally:
            posix.close(fd)

    def mounts(self) -> MountTable:
        """The mounts that this process sees now. Raises OSError."""
        return MountTable(self._read("mountinfo"))

    def mounts_of(self, pid: int) -> MountTable:
        """The mounts that the process ``pid`` sees; empty if it has ended or may not be inspected. Raises OSError."""
        try:
            return MountTable(self._read(f"../{pid}/mountinfo"))
        except OSError as reason:
            # EINVAL: a zombie, which has no namespaces any more.
            if isinstance(reason, OUT_OF_SIGHT) or reason.errno == errno.EINVAL:
                return MountTable("")
            raise

    def mount_namespace(self) -> int:
        """The inode number, which the kernel reuses, of this process's mount namespace, namespaces(7). OSError."""
        return self._mount_namespace("ns/mnt")

    def _mount_namespace(self, name: str) -> int:
        with _named(name):
            return posix.stat(name, dir_fd=self.fd).st_ino

    def pids(self, pid: int | None = None) -> list[int]:
        """The pid of this process, or of ``pid``, in each pid namespace from procfs's down to its own. Raises OSError.

        NSpid, proc_pid_status(5).
        """
        return [int(number) for number in self._status("NSpid", _of(pid)).split()]

    def process_of(self, thread: int) -> int:
        """The pid of the process that a thread belongs to, as this procfs numbers it. Raises OSError."""
        return int(self._status("Tgid", _of(thread)))

    def parent(self, pid: int | None = None) -> int:
        """The pid of the parent of this process, or of ``pid``, as this procfs numbers it. Raises OSError."""
        return int(self._status("PPid", _of(pid)))

    def arguments(self, pid: int) -> list[str]:
        """The command line of the process ``pid``; empty for a kernel thread or a zombie. Raises OSError."""
        return self._read(f"../{pid}/cmdline").split("\0")[:-1]

    def folder_of(self, pid: int) -> str:
        """The working folder of a process. Raises OSError."""
        return linux.decode_path(posix.readlink(f"../{pid}/cwd".encode(), dir_fd=self.fd))

    def name_of(self, pid: int) -> str:
        """The name that the process ``pid`` has given itself, proc_pid_comm(5). Raises OSError."""
        return self._read(f"../{pid}/comm").rstrip("\n")

    def mount_namespace_id(self) -> int | None:
        """The id, never reused, of this process's mount namespace; None before Linux 6.11. Raises OSError."""
        return self._namespace_id("ns/mnt")

    def _namespace_id(self, name: str) -> int | None:
        fd = self.open(name)
        try:
            with _named(name):
                return linux.mount_namespace_id(fd)
        finally:
            posix.close(fd)

    def _status(self, key: str, of: str = "") -> str:
        for line in self._read(f"{of}status").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value.strip()
        return "0"

    def in_user_namespace(self) -> bool:
        """Whether this process is in a user namespace other than the initial one, user_namespaces(7)."""
        return self._read("uid_map").split() != ["0", "0", "4294967295"]

    def is_ours(self) -> bool:
        """Whether this process's user owns its user namespace, as under a rootless runtime. Raises OSError."""
        return self._owner() == posix.geteuid()

    def command(self, words: str) -> str:
        """The command line of this hook with ``words`` that sees what this process sees, for advice.

        In the user namespace of a rootless podman, only `podman unshare` leads back there. Raises OSError.
        """
        is_podmans = posix.geteuid() == 0 != self.uid_outside(0) and self.is_ours()
        return f"{'podman unshare ' if is_podmans else ''}{self.program(words)}"

    def program(self, words: str) -> str:
        """The command line of this hook with ``words``, and with the ``--root`` of this call, which has its records."""
        if self._root is None:
            return f"oci-bind-hook {words}"
        return f"oci-bind-hook {words} --root {quoted(self._root)}"

    def _owner(self) -> int:
        """The owner of this process's user namespace, as numbered here. Raises OSError."""
        fd = self.open("ns/user")
        try:
            with _named("ns/user"):
                return linux.owner_of_user_namespace(fd)
        finally:
            posix.close(fd)

    def user_namespace(self) -> UserRecord:
        """This process's user namespace: its id maps, and the uid of its owner outside. Raises OSError."""
        owner, uid_map = self._owner(), self._read("uid_map")
        return {"owner": outside(owner, uid_map), "uids": _rows(uid_map), "gids": _rows(self._read("gid_map"))}

    def user_namespace_of(self, pid: int) -> UserRecord:
        """The user namespace of the process ``pid``, as far as it is visible from a user namespace inside it.

        ``outside`` is None: the kernel converts these numbers to the reader's user namespace.
        """
        maps = []
        for name in ("uid_map", "gid_map"):
            try:
                rows = _rows(self._read(f"../{pid}/{name}"))
            except OUT_OF_SIGHT:
                rows = []
            maps.append(rows)
            for row in rows:
                row["outside"] = None
        return {"owner": None, "uids": maps[0], "gids": maps[1]}

    def uid_outside(self, uid: int) -> int:
        """The user id ``uid`` of this user namespace, as the parent namespace numbers it."""
        return outside(uid, self._read("uid_map"))

    def owner_outside(self, stat: files.Stat) -> tuple[int, int]:
        """The user and group id of a file, as the parent user namespace numbers them."""
        return self.uid_outside(stat.uid), outside(stat.gid, self._read("gid_map"))

    def path_of(self, fd: int) -> str:
        """The current path of the file ``fd``, without links, proc_pid_fd(5). Raises OSError."""
        return posix.readlink(f"fd/{fd}", dir_fd=self.fd)

    def mount_id_of(self, fd: int) -> int:
        """The id of the mount that ``fd`` was reached through, proc_pid_fdinfo(5). Asks no server. Raises OSError."""
        lines = self._read(f"fdinfo/{fd}").splitlines()
        return next(int(line[7:]) for line in lines if line.startswith("mnt_id:"))

    def may_have(self, pid: int, capability: int) -> bool:
        """Whether the bounding set of the process ``pid`` has a capability, capabilities(7). Raises OSError."""
        return bool(int(self._status("CapBnd", _of(pid)), 16) >> capability & 1)

    def pid_of(self, pidfd: int) -> int:
        """The pid of the process ``pidfd`` in this procfs's pid namespace; -1 if it has ended, pidfd_open(2)."""
        for line in self._read(f"fdinfo/{pidfd}").splitlines():
            if line.startswith("Pid:"):
                return int(line[4:])
        return -1

    def start_time(self, pid: int) -> int | None:
        """The start time of the process ``pid`` in clock ticks since boot; None if it has ended or is a zombie.

        It is the same in each time namespace, because a createContainer hook may be in that of the container. Raises
        HiddenError if the process exists, but procfs does not show it.
        """
        try:
            stat = self._read(f"../{pid}/stat")
        except PermissionError:
            raise HiddenError from None
        except (FileNotFoundError, ProcessLookupError):
            if self._is_hidden(pid):
                raise HiddenError from None
            return None
        fields = stat[stat.rindex(")") + 2 :].split()
        # A process whose first thread has ended looks like a zombie while other threads run: fields[17] is num_threads.
        has_ended = fields[0] in "ZX" and int(fields[17]) < 2
        return None if has_ended else int(fields[19]) - self._ahead()

    def _is_hidden(self, pid: int) -> bool:
        """Whether a process that procfs does not show exists. False, for unknown, in a nested pid namespace."""
        if len(self.pids()) > 1:
            return False
        try:
            posix.kill(pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        # It exists. But it may have started after the first lookup in procfs, and then it is not hidden.
        try:
            posix.stat(f"../{pid}", dir_fd=self.fd)
        except FileNotFoundError:
            return True
        return False

    def runs(self, pid: int, start: int) -> bool:
        """Whether the process ``pid`` with the start time ``start`` runs, or one that procfs hides, which may be it."""
        try:
            return self.start_time(pid) == start
        except HiddenError:
            return True

    def _ahead(self) -> int:
        """The clock ticks that this process's time namespace is ahead of boot, time_namespaces(7). Raises OSError.

        0 if it is not an integer: a start time could be off by one, and a live process would seem to be another one.
        """
        if self._ticks_ahead is None:
            try:
                lines = self._read("timens_offsets").splitlines()
            except FileNotFoundError:
                lines = []  # before Linux 5.6
            # A line for each clock, with seconds and nanoseconds. Before Linux 5.11 it has the clock's number.
            offsets = [line.split()[1:] for line in lines if line.startswith(("boottime ", "7 "))]
            ahead = sum(int(seconds) * 10**9 + int(rest) for seconds, rest in offsets)
            tick = 10**9 // posix.sysconf("SC_CLK_TCK")
            self._ticks_ahead = 0 if ahead % tick else ahead // tick
        return self._ticks_ahead

    def first_start(self) -> int | None:
        """The start time of process 1, which identifies procfs's pid namespace; None under hidepid, proc(5)."""
        try:
            return self.start_time(1)
        except HiddenError:
            return None

    def has_ended(self, pid: int, start: int, seconds: float) -> bool:
        """Whether the process ``pid`` with the start time ``start`` has ended, or ends within ``seconds``.

        Raises OSError.
        """
        if not self.runs(pid, start):
            return True
        try:
            with files.Named(f"/proc/{pid}"):
                pidfd = posix.pidfd_open(pid)
        except ProcessLookupError:
            return True
        try:
            # The pid may have been reused before it was opened.
            if self.runs(pid, start):
                linux.wait_readable(pidfd, seconds)
        finally:
            posix.close(pidfd)
        return not self.runs(pid, start)

    def mount_namespace_of(self, pid: int) -> int | None:
        """The inode number of a process's mount namespace; None if it has ended or may not be inspected.

        Raises OSError for any other error: a namespace that is not visible now may still exist.
        """
        try:
            return self._mount_namespace(f"../{pid}/ns/mnt")
        except OUT_OF_SIGHT:
            return None

    def mount_namespace_id_of(self, pid: int) -> int | None:
        """The unique id of a process's mount namespace; None before Linux 6.11, or if it may not be inspected.

        Raises OSError.
        """
        try:
            return self._namespace_id(f"../{pid}/ns/mnt")
        except OUT_OF_SIGHT:
            return None

    def process_in_namespace(self, inode: int) -> int | None:
        """The pid of a process in the mount namespace ``inode``, None if there is none. Reads every process."""
        return self.mount_namespaces().get(inode)

    def mount_namespaces(self) -> dict[int, int]:
        """By inode number of each mount namespace, the pid of a process in it: if possible one that sees all mounts."""
        found: dict[int, int] = {}
        jailed: dict[int, int] = {}
        for pid in self._all():
            inode = self.mount_namespace_of(pid)
            if inode is not None and inode not in found:
                (jailed if self._is_jailed(pid) else found).setdefault(inode, pid)
        return jailed | found

    def _is_jailed(self, pid: int) -> bool:
        """Whether a process is not at the root of its mount namespace, as after chroot(2)."""
        try:
            return posix.readlink(f"../{pid}/root", dir_fd=self.fd) != "/"
        except OSError:
            return True

    def may_see_all(self) -> bool:
        """Whether this process may inspect every process in procfs."""
        for pid in self._all():
            try:
                self._mount_namespace(f"../{pid}/ns/mnt")
            except PermissionError:
                return False
            except OUT_OF_SIGHT:
                pass
        return True

    def _all(self) -> list[int]:
        """The pids of all processes."""
        folder = self.open("..", posix.O_RDONLY | posix.O_DIRECTORY)
        try:
            with _named(".."):
                return [int(name) for name in posix.listdir(folder) if name.isdigit()]
        finally:
            posix.close(folder)

    def mount(self, source: int | None, target: int, flags: int, *, kind: str | None = None) -> None:
        """Calls mount(2) on ``target``. Source and target are fds, so that no path is looked up. Raises OSError."""
        # Relative to the fd of /proc/self: an absolute path would be looked up in the namespace that was entered.
        posix.fchdir(self.fd)
        try:
            linux.mount(None if source is None else f"fd/{source}", f"fd/{target}", flags, kind=kind)
        finally:
            posix.chdir("/")

    def umount(self, fd: int) -> None:
        """Detaches the mount with the root ``fd``, a file or a folder, by umount2(2). Raises OSError.

        By /proc/self/fd, not fchdir(2) and ".", because fchdir(2) requires a permission on the folder that root in a
        user namespace may lack.
        """
        posix.fchdir(self.fd)  # without a return to "/", where a running container may have mounted anything
        linux.umount2(f"fd/{fd}", linux.MNT_DETACH)


def _of(pid: int | None) -> str:
    return "" if pid is None else f"../{pid}/"


def _named(name: str) -> files.Named:
    """Adds the path of the file ``name`` below /proc/self to errors."""
    return files.Named(f"/proc/{name[3:]}" if name.startswith("../") else f"/proc/self/{name}")


def read_text(fd: int) -> str:
    """The rest of the content of ``fd``, decoded like a file name. Raises OSError."""
    return linux.decode_path(files.read_all(fd))


def outside(number: int, id_map: str) -> int:
    """The id ``number`` mapped by the text of a uid_map or gid_map, user_namespaces(7); unchanged if not mapped."""
    for line in id_map.splitlines():
        inside, host, size = map(int, line.split())
        if inside <= number < inside + size:
            return host + number - inside
    return number


def _rows(id_map: str) -> list[IdRun]:
    rows = (map(int, line.split()) for line in id_map.splitlines())
    return [{"inside": inside, "outside": outside, "size": size} for inside, outside, size in rows]


def boot_id() -> str:
    """The random id of this boot of the kernel, random(4). Raises OSError."""
    # Read once: it does not change while this process runs, and after setns(2) nothing must be read by its path.
    if not _boot:
        path = "/proc/sys/kernel/random/boot_id"
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            with files.Named(path):
                _boot.append(read_text(fd).strip())
        finally:
            posix.close(fd)
    return _boot[0]


_boot: list[str] = []


def quoted(word: str) -> str:
    """A word as a shell has to be given it, sh(1)."""
    if word and all((char.isascii() and char.isalnum()) or char in _PLAIN for char in word):
        return word
    return "'" + word.replace("'", "'\\''") + "'"
