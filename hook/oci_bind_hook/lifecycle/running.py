# SPDX-License-Identifier: Apache-2.0
"""A container that runs, as attach and detach enter it.

It has its own root already, and may do anything there at any moment. So its mount namespace is entered by pidfd, its
root must be the one that its bundle names, and its file systems are walked as rootfs.inside does.
"""

from __future__ import annotations

import posix

from ..errors import RecordError, UnavailableError
from ..kernel import files, linux, rights
from ..kernel.namespace import Namespace
from ..kernel.proc import OUT_OF_SIGHT
from ..record.state_file import is_object
from ..rootfs.inside import Inside
from .stage import NOT_CHROOT, Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents.bundle import Bundle
    from ..documents.oci import State
    from ..kernel.proc import Proc
    from ..record.state_file import InitRecord, Record, RootfsRecord
    from ..rootfs.mount_points import Rootfs

OTHERS_HINT = (
    "run this as root; for a rootless container of podman, run podman unshare oci-bind-hook as the user who started it"
)


class Running(Place):
    """A container that runs, by its first process, which is held by pidfd."""

    without_rights = OTHERS_HINT
    when_ended = "if the container was restarted, try again"
    when_moved = "its first process has since changed its namespace: the earlier binds stay until the container ends"

    def __init__(self, state: State, proc: Proc) -> None:
        super().__init__(None, state, proc)
        self.stage = "attach"
        self._is_locked = True
        self._rootfs: files.Stat | None = None

    def hold(self) -> InitRecord:
        """Opens the process. UnavailableError if it cannot be entered, or need not be."""
        if lacking := rights.lacking("CAP_SYS_ADMIN"):
            raise UnavailableError(f"entering a container requires {lacking}", hint=OTHERS_HINT)
        with files.Named("/"):
            tells_mounts = linux.tells_mounts()
        if not linux.has_mount_api() or not tells_mounts:
            raise UnavailableError("this requires the mount API of Linux 5.12, which this kernel lacks or hides")
        assert self._pid is not None
        self._open(self._pid)
        assert self.init is not None
        inode = self.proc.mount_namespace_of(self.init["pid"])
        if inode is None:
            if not self.proc.runs(self.init["pid"], self.init["start"]):
                raise self._ended()
            raise UnavailableError(f"the process {self._pid} belongs to another user", hint=OTHERS_HINT)
        if inode == self.proc.mount_namespace():
            raise UnavailableError(
                f"the process {self._pid} is in this mount namespace",
                hint="it is not a container, or has no mount namespace of its own: use mount(8)",
            )
        return self.init

    def may_have(self, capability: int) -> bool:
        """Whether the process may have a capability by its bounding set. OSError; UnavailableError if it has ended."""
        assert self.init is not None
        try:
            return self.proc.may_have(self.init["pid"], capability)
        except (FileNotFoundError, ProcessLookupError):
            raise self._ended() from None

    def choose(self, bundle: Bundle) -> str:
        """As Place.choose; and notes how the rootfs is mounted here. UnavailableError for another than the first."""
        init = self.hold()
        # With another one for the first, the container could be taken for dead while it lives, and be undone.
        try:
            pids = self.proc.pids(init["pid"])
        except OSError:
            raise self._ended() from None
        has_own_pids = bundle.config.namespaces.get("pid", "") is None
        if has_own_pids and len(pids) > len(self.proc.pids()) and pids[-1] != 1:
            raise UnavailableError(
                f"the process {init['pid']} is not the container's first process",
                hint="runc state or crun state shows its pid",
            )
        bundle.rootfs = rootfs_here(bundle.rootfs, init["pid"], self.proc)
        self.look_at(bundle.rootfs, Namespace(self.proc, "runtime"))
        return super().choose(bundle)

    def look_at(self, rootfs: str, namespace: Namespace) -> None:
        """Notes which rootfs it is, and whether it is read-only for the host, too, before the namespace is entered."""
        try:
            fd = posix.open(rootfs, posix.O_PATH | posix.O_CLOEXEC)
        except OSError:
            return
        try:
            with files.Named(rootfs):
                self._rootfs = files.statx(fd, ask=False)
        finally:
            posix.close(fd)
        info = namespace.mount_of(self._rootfs)
        self._is_locked = info is None or "ro" in info.options

    def runtimes(self) -> tuple[str, ...]:
        """None: no runtime changes what is bound from now on."""
        return ()

    def open_rootfs(self, bundle: Bundle, known: RootfsRecord, namespace: Namespace) -> Rootfs:
        """As Place.open_rootfs, for a container that has its root."""
        return self.open_inside(bundle.rootfs, known, namespace)

    def open_inside(self, path: str, known: RootfsRecord, namespace: Namespace) -> Rootfs:
        """The root of the container, which must be ``known``. UnavailableError."""
        if not namespace.entered:
            raise UnavailableError("the container's process has just changed its mount namespace")
        rootfs = Inside(path, namespace, unlock=not self._is_locked)
        with files.Named(path):
            there = posix.fstat(rootfs.fd)
        if not is_object(known, there):
            raise self._in_chroot(path) or _has_another_root(path)
        return rootfs

    def _in_chroot(self, path: str) -> UnavailableError | None:
        """The error if the first process has its root in a chroot, as if its runtime runs in one; None otherwise."""
        if not self.root_elsewhere():
            return None
        problem = f"the rootfs {path} is not the root of the container's mount namespace, but that of a chroot"
        return UnavailableError(problem, hint=f"if the runtime runs in a chroot, {NOT_CHROOT}")

    def check_root(self, path: str) -> None:
        """For a dry-run: raises the UnavailableError of ``open_inside``, without entering the namespace."""
        assert self.init is not None
        try:
            fd = self.proc.open(f"../{self.init['pid']}/root", posix.O_PATH)
        except OSError:
            return  # it has just ended, or this process may not look
        root = files.statx(fd, ask=False)
        posix.close(fd)
        # Whoever enters the namespace gets what is mounted on its root, setns(2); the process itself does not see it.
        is_covered = any(
            (info.parent, info.mount_point) == (root.mnt_id, "/") for info in self.proc.mounts_of(self.init["pid"])
        )
        known = self._rootfs
        if is_covered or (known is not None and (root.dev, root.ino) != (known.dev, known.ino)):
            raise _has_another_root(path)


def rootfs_here(path: str, pid: int, proc: Proc) -> str:
    """Where this mount namespace has the rootfs that a runtime found at ``path``; ``path`` if unknown.

    ``pid`` is the container's first process. Its parent is outside of the container, in the runtime's mount namespace
    or the host's. Raises OSError, and UnavailableError for a rootfs that only the runtime has read-only.
    """
    try:
        parent = proc.parent(pid)
    except OUT_OF_SIGHT:
        return path  # it has just ended, or procfs hides it
    if proc.mount_namespace_of(parent) in (None, proc.mount_namespace()):
        return path
    from ..rootfs.elsewhere import beside

    theirs = proc.mounts_of(parent)
    here = beside(path, theirs, proc.mounts())
    if here != path and "ro" in theirs.at(path)[-1].options:
        # The place here says nothing about it: mount points would be created in what the runtime must not change.
        raise UnavailableError(
            f"the rootfs {path} is mounted read-only in the runtime's mount namespace, that of process {parent}",
            hint=f"run it there: nsenter --mount=/proc/{parent}/ns/mnt oci-bind-hook",
        )
    return here


def _has_another_root(path: str) -> UnavailableError:
    return UnavailableError(
        f"the root of the container is not the rootfs {path}",
        hint="it runs in a sandbox such as runsc, or it has mounted or entered another root: nothing can be bound "
        "there",
    )


def check_process(record: Record, running: Running) -> None:
    """Raises RecordError if a record belongs to another first process than the one that is held."""
    if record["init"] != running.init:
        raise RecordError(
            f'the state file of the container "{record["id"]}" belongs to another first process',
            hint="give only the container's id, and try again",
        )
