# SPDX-License-Identifier: Apache-2.0
"""The source of a bind: held by fd from the moment it is found, with what is known of its mounts.

How a source becomes a mount of the container depends on the kernel: see the subclasses in by_mount_api and by_mount.

Loaded by every start of a container: it imports only os, errno and stat.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from ..errors import EscapeError, HookError
from ..kernel import linux
from ..kernel.errnos import unopened
from ..kernel.proc import MountInfo, Namespace

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.proc import Proc
    from ..record.state_file import AttachedRecord
    from ..requests.request import Request

# The attributes of a mount as the bits of f_flag, statvfs(3).
STATVFS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "nodiratime": 0x800, "nosymfollow": 0x2000}
_STATVFS_ATIMES = {"noatime": 0x400, "relatime": 0x1000}


class Source:
    """The source of a bind, held by ``fd``. If it cannot be opened, ``error`` says why; ``is_missing`` if it is absent.

    ``info`` is the mount it is on, ``root`` its path inside that file system, as mountinfo will show it for a bind.
    ``submounts`` are the mounts below it, as pairs (relative path, MountInfo), and ``visible`` those that no other one
    hides. ``attached`` identifies the mounts that the bind will consist of, the top first.

    ``clone`` turns ``fd`` into the mount to attach: in the namespace of the source if ``is_detached``, else in the
    container's. ``call`` names the system call that attaches.
    """

    is_detached = True
    call = "move_mount"

    def __init__(self, request: Request, bundle: str, namespace: Namespace) -> None:
        self.request = request
        self.path = os.path.join(bundle, request.source)
        self.fd = -1
        self.error: HookError | None = None
        self.attached: list[AttachedRecord] = []
        self.infos: dict[int | None, MountInfo | None] = {}
        self.submounts: list[tuple[str, MountInfo]] = []
        self.visible: list[tuple[str, MountInfo]] = []
        self.info: MountInfo | None = None
        self.is_missing = False
        try:
            self.fd = self._open(namespace.proc)
            self.stat = linux.statx(self.fd)
        except EscapeError as refusal:
            self.error = refusal
            return
        except OSError as reason:
            self.is_missing = reason.errno in (errno.ENOENT, errno.ENOTDIR)
            self.error = unopened(f"the source {self.path}", reason, where=request.at("source"))
            self.error.__cause__ = reason
            return
        self.namespace = namespace
        self._locate()

    def _open(self, proc: Proc) -> int:
        # O_PATH: to open a FIFO or a device for reading could block, or act on it. Links are followed, because
        # config.json and the command line are trusted. An annotation is not, so its source must be below an allowed
        # folder.
        if self.request.allowed_sources is None:
            return os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        from .allowed import open_allowed

        return open_allowed(self.request, self.request.allowed_sources, lambda fd: real_path(fd, proc))

    @property
    def is_folder(self) -> bool:
        return modes.S_ISDIR(self.stat.mode)

    def _locate(self) -> None:
        table = self.namespace.started_in()
        self.info = table.get(self.stat.mnt_id)
        self.root = "/"
        if self.info is None:
            return
        # A bind of /mnt/a/b from a file system mounted on /mnt will have the root /a/b in mountinfo.
        path = real_path(self.fd, self.namespace.proc)
        inside = path[len(self.info.mount_point.rstrip("/")) :]
        self.root = (self.info.root.rstrip("/") + inside).rstrip("/") or "/"
        if self.request.recursive:
            prefix = path.rstrip("/") + "/"
            below = [info for info in table.below(self.info.id) if info.mount_point.startswith(prefix)]
            self.submounts = [(info.mount_point[len(prefix) :], info) for info in below]
            self.visible = [(path, info) for path, info in self.submounts if self._shows(path, info)]

    def _shows(self, path: str, info: MountInfo) -> bool:
        """Whether a mount below the source can be reached, so that no other mount hides it."""
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return False
        try:
            return linux.statx(fd).mnt_id == info.id
        finally:
            os.close(fd)

    def attributes(self) -> list[str]:
        """The attributes that the mount will have, some kept from the source, in a fixed order. Raises OSError."""
        flags = os.fstatvfs(self.fd).f_flag if self.error is None else 0
        wanted = {**self.request.deep, **self.request.top}
        words = [word for word, bit in STATVFS.items() if wanted.get(word, bool(flags & bit))]
        kept = next((word for word, bit in _STATVFS_ATIMES.items() if flags & bit), "")
        atime = str(wanted.get("atime", kept))
        return [*words, atime] if atime else words

    def clone(self) -> None:
        """Prepares the mount with all its attributes, where no process can see it. Raises HookError."""
        raise NotImplementedError

    def attach(self, target: int) -> None:
        """Attaches the mount on the file or folder ``target``. Raises OSError.

        A mount that was attached before the error is found by its recorded id.
        """
        raise NotImplementedError

    def shares(self, mnt_id: int) -> bool:
        """Whether a later mount inside the bind, in the mount with the id ``mnt_id``, would propagate to the source."""
        word = self.request.propagation
        if word in ("rprivate", "rslave", "runbindable"):
            return False
        # Without "r" only the top mount gets the propagation. The mounts below keep that of the source, where a shared
        # mount is a peer of its clone.
        top = self.attached[0]["id"] if self.attached else None
        is_top = mnt_id == (self.stat.mnt_id if top is None else top)
        if is_top and word not in ("shared", "rshared"):
            return False
        info = self.info if is_top else self.infos.get(mnt_id)
        if info is None:
            info = next((below for _, below in self.submounts if below.id == mnt_id), None)
        return info is None or info.shared is not None


def real_path(fd: int, proc: Proc) -> str:
    """The current path of the file ``fd``, without links, proc_pid_fd(5). Raises OSError."""
    return os.readlink(f"fd/{fd}", dir_fd=proc.fd)
