# SPDX-License-Identifier: Apache-2.0
"""The root of a container that runs, seen from inside of its mount namespace.

The container may be hostile, and can serve a file system itself, by FUSE, that answers nobody: whoever looks up a name
there is kept, beyond signals, with all the locks that they hold. So names are looked up only in file systems that no
process of the container can serve or hold up.

Loaded by attach and detach: it runs after setns(2), when nothing can be imported.
"""

from __future__ import annotations

import posix

from ..errors import EscapeError, UnavailableError
from ..kernel.mountinfo import may_wait
from .mount_points import Rootfs
from .walk import HOLD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.mountinfo import MountInfo
    from ..kernel.namespace import Namespace

# They are in memory and answer at once, whoever has mounted them, filesystems(5).
_OF_THE_KERNEL = frozenset("cgroup cgroup2 devpts devtmpfs mqueue proc ramfs sysfs tmpfs".split())

# Lines of mount tables, for all mounts that one call steps into: about two seconds of work. Each table counts for some
# more lines, since one that is short takes its time as well.
_MOST_LINES = 1_000_000
_MORE_LINES = 100


class Inside(Rootfs):
    """The root of the mount namespace that was entered, with its ``path`` on the host.

    ``unlock`` as for Rootfs. KernelError, and UnavailableError if the root itself is served by nobody knows whom.
    """

    may_open = False
    inside = " in the container"

    def __init__(self, path: str, namespace: Namespace, *, unlock: bool) -> None:
        self._proc = namespace.proc
        self._namespace = namespace
        self._devices: set[int] | None = None
        # Of each mount that was stepped into its id, what the table says of it, and a fd that keeps others from getting
        # the id.
        self._entered: dict[int, tuple[MountInfo, int]] = {}
        self._lines = 0
        self._number = -1
        # What is mounted on "/" since is not entered: this process has the root that it got by setns(2).
        fd = posix.open("/", posix.O_PATH | posix.O_CLOEXEC)
        self._check(fd, "/", is_root=True)
        self._number = self._proc.mount_id_of(fd)
        super().__init__(
            path,
            fd=fd,
            unlock=unlock,
            own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, path),
            type_of=namespace.type_of,
        )

    def hold(self, name: str, folder: int) -> int:
        """As Root.hold. UnavailableError for what must not be stepped into: then no name in it was looked up."""
        fd = posix.open(name, HOLD, dir_fd=folder)
        try:
            self._check(fd, name)
        except BaseException:
            posix.close(fd)
            raise
        return fd

    def place(self, path: str) -> str:
        """As Rootfs.place: users reach it in the container."""
        return path

    def hold_path(self, path: str) -> int:
        """As Rootfs.hold_path, name by name. What is mounted at the end may be anything. UnavailableError."""
        *above, last = path[1:].split("/")
        folder = posix.dup(self.fd)
        try:
            for name in above:
                below = self.hold(name, folder)
                posix.close(folder)
                folder = below
            return posix.open(last or ".", HOLD, dir_fd=folder)
        finally:
            posix.close(folder)

    def _check(self, fd: int, name: str, *, is_root: bool = False) -> None:
        """Raises UnavailableError if names in ``fd``, just opened as ``name`` in ``folder``, must not be looked up."""
        # The mount's id comes from fdinfo: statx(2) is a question to some file systems.
        number = self._proc.mount_id_of(fd)
        if number == self._number:
            return
        info = self._entered[number][0] if number in self._entered else self._enter(fd, number, name)
        # Of processes some names may keep who looks them up: /proc/PID/map_files, where the process maps a file.
        if info.type == "proc" and (name.isdigit() or info.root[1:].split("/")[0].isdigit()):
            raise EscapeError(f"{info.mount_point} is on procfs, where only a few files may be covered, as in runc")
        if not (self._is_the_hosts(info) or info.type in _OF_THE_KERNEL) and (not is_root or may_wait(info.type)):
            raise UnavailableError(
                f"the {info.type} file system on {info.mount_point} is on the path, and may never answer",
                hint="the container may have mounted it, so the hook looks up nothing there",
            )

    def _enter(self, fd: int, number: int, name: str) -> MountInfo:
        """What the table says of the mount ``number``, which ``fd`` is in. UnavailableError.

        The container can make the table very long, and links lead from one mount to another and back as often as they
        like. So the table is read once for each mount, after its first fd was opened.
        """
        if self._lines > _MOST_LINES:
            raise UnavailableError(
                f"the way to {name} crosses too many mounts: {len(self._entered)} so far",
                hint="attach fewer binds at once, or above those mounts",
            )
        table = self._proc.mounts()
        self._lines += len(table) + _MORE_LINES
        info = table.get(number)
        if info is None:
            raise UnavailableError(f"{name} has just been unmounted, or the container has just changed its root")
        self._entered[number] = info, posix.dup(fd)
        return info

    def _is_the_hosts(self, info: MountInfo) -> bool:
        """Whether a file system was mounted outside of the container, and has no server that may be silent."""
        if self._devices is None:
            self._devices = {other.dev for other in self._namespace.started_in()}
        return info.dev in self._devices and (not may_wait(info.type) or self._number == -1)
