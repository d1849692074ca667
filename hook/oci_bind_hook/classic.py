# SPDX-License-Identifier: Apache-2.0
"""Binds by mount(2), for kernels without detached trees (before Linux 5.12), or a filter that hides them.

A bind gets its attributes only after it was made: for that instant it has those of its source. Everything else holds:
source and mount point are held by fd, no attribute of the source is lost, each mount below is changed for itself, and
what was asked for is compared with what mountinfo says in the end.
"""

from __future__ import annotations

import errno
import os

from . import linux
from .attached import TRIES, describe, identity, open_root, propagate
from .errors import KernelError, UnavailableError
from .proc import MountInfo, below_mount, mount_by_id
from .source import Source, real_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .statefile import AttachedRecord

_FLAGS = {
    "ro": linux.MS_RDONLY,
    "nosuid": linux.MS_NOSUID,
    "nodev": linux.MS_NODEV,
    "noexec": linux.MS_NOEXEC,
    "nodiratime": linux.MS_NODIRATIME,
    "nosymfollow": linux.MS_NOSYMFOLLOW,
}
_ATIMES = {
    "noatime": linux.MS_NOATIME,
    "relatime": linux.MS_RELATIME,
    "strictatime": linux.MS_STRICTATIME,
}


class ClassicSource(Source):
    """A source that is bound by mount(2)."""

    is_detached = False
    call = "mount"

    def clone(self) -> None:
        request = self.request
        if request.idmap is not None:
            raise UnavailableError("this kernel cannot map the owners of a mount", where=request.at("options"))
        if request.deep and len(self.visible) < len(self.submounts):
            raise UnavailableError(
                f"a mount below {self.path} is hidden by another one, and this kernel cannot change it there",
                where=request.at("options"),
            )
        self._path = real_path(self.fd, self.namespace.proc)
        self.attached = [describe(self.root, self.info), *(describe(info.root, info) for _, info in self.submounts)]

    def attach(self, target: int) -> None:
        proc = self.namespace.proc
        recursive = linux.MS_REC if self.request.recursive else 0
        source = self._open_here()
        before = {info.id for info in proc.mounts()}
        try:
            proc.mount(source, target, linux.MS_BIND | recursive)
        except OSError as reason:
            raise self._refused(reason, "source") from reason
        table = proc.mounts()
        top = _new_mount(table, before, linux.statx(target).mnt_id)
        mounts = [top, *below_mount(table, top.id)]
        # In place: the record has the same list. Before anything can fail: by its path nobody finds what was renamed.
        self.attached[:] = map(_numbered, mounts)
        root = self._open_root(top)
        self.attached[0] = identity(root, top.root, top)
        self._set_attributes(root, top, {**self.request.deep, **self.request.top})
        for info in mounts[1:] if self.request.deep else ():
            fd = self._open_root(info)
            self._set_attributes(fd, info, self.request.deep)
            os.close(fd)
        propagate(root, self.request.propagation, proc)
        self._check(mounts)
        self.fd = root

    def _open_here(self) -> int:
        """The same object by a mount of the namespace we are in: mount(2) takes no other. OSError."""
        if not self.namespace.entered:
            return self.fd
        fd = os.open(self._path, os.O_PATH | os.O_CLOEXEC)
        here = linux.statx(fd)
        if (here.dev, here.ino) != (self.stat.dev, self.stat.ino):
            os.close(fd)
            raise OSError(errno.ESTALE, f"the container's namespace has something else at {self._path}")
        return fd

    def _open_root(self, known: MountInfo) -> int:
        for _ in range(TRIES):
            info = mount_by_id(self.namespace.proc.mounts(), known.id)
            fd = open_root(info) if info is not None else None
            if fd is not None:
                return fd
        raise OSError(errno.ESTALE, "the new mount cannot be reached: another one hides it, or it moves all the time")

    def _set_attributes(self, fd: int, info: MountInfo, wanted: dict[str, bool | str]) -> None:
        """Changes what is ``wanted`` of a mount. mount(2) sets all attributes at once, so the others are said again."""
        if not wanted:
            return
        flags = linux.MS_REMOUNT | linux.MS_BIND
        for attribute, value in {**_attributes(info), **wanted}.items():
            if attribute == "atime":
                flags |= _ATIMES[str(value)]
            elif value:
                flags |= _FLAGS[attribute]
        try:
            self.namespace.proc.mount(None, fd, flags)
        except OSError as reason:
            raise self._refused(reason, "options") from reason

    def _refused(self, reason: OSError, member: str) -> KernelError:
        hint = ""
        if reason.errno == errno.EINVAL:
            hint = "it is unbindable, or mounts below it are locked and need rbind"
        elif reason.errno == errno.EPERM:
            hint = "CAP_SYS_ADMIN is needed" if member == "source" else "an attribute of the source is locked"
        return KernelError("mount", self.path, reason, where=self.request.at(member), hint=hint)

    def _check(self, mounts: list[MountInfo]) -> None:
        """Compares what was asked for with what has become of it. OSError."""
        request, table = self.request, self.namespace.proc.mounts()
        for number, each in enumerate(mounts):
            now = mount_by_id(table, each.id)
            wanted = request.deep if number else {**request.deep, **request.top}
            for attribute, value in wanted.items():
                if now is None or _attributes(now)[attribute] != value:
                    raise OSError(errno.EIO, f"{each.mount_point} did not become what {attribute} asks for")


def _numbered(info: MountInfo) -> AttachedRecord:
    return {**describe(info.root, info), "id": info.id}


def _new_mount(table: list[MountInfo], before: set[int], parent: int) -> MountInfo:
    """The mount that was just made on ``parent``, or on what is stacked there. OSError."""
    new = [info for info in table if info.id not in before and info.parent in before]
    # Where the mount point is shared, its peers have got one as well.
    found = [info for info in new if info.parent == parent] or new
    if len(found) != 1:
        raise OSError(errno.ESTALE, f"of {len(new)} new mounts none is known to be the one that was made")
    return found[0]


def _attributes(info: MountInfo) -> dict[str, bool | str]:
    atime = next((word for word in ("noatime", "relatime") if word in info.options), "strictatime")
    return {**{word: word in info.options for word in _FLAGS}, "atime": atime}
