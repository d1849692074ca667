# SPDX-License-Identifier: Apache-2.0
"""Binds by mount(2), for kernels before Linux 5.12 and seccomp filters that hide the new mount API.

Each bind is first mounted in a private staging folder, which replaces the detached tree of the newer API. It gets its
attributes there, where the container cannot reach it, and is moved to its mount point when it is complete. mount(2)
binds only sources of its own mount namespace, so all of this happens after setns(2).

Loaded only on such kernels, before setns(2). It imports only posix and errno, and imports nothing after setns(2).
"""

from __future__ import annotations

import errno
import posix

from ..errors import MissingError, UnavailableError
from ..kernel import files, linux
from ..kernel.errnos import hint, refused
from ..kernel.mountinfo import MountInfo, MountTable
from ..kernel.proc import Proc
from .mounted import TRIES, describe, identity, open_root, propagate, unmount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..record.state_file import AttachedRecord
    from .sources import Source

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


class Staging:
    """A tmpfs on the folder ``path`` for unfinished mounts. Mounts that are left in it are unmounted with it.

    The tmpfs is unbindable: mounts in it do not propagate, and a recursive bind of a folder above ``path`` does not
    copy it. Raises KernelError.
    """

    def __init__(self, path: str, proc: Proc) -> None:
        self._proc = proc
        self._count = 0
        try:
            below = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
            try:
                before = proc.mounts().ids()
                proc.mount(None, below, linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC, kind="tmpfs")
                top = _new_mount(proc.mounts(), before, files.mount_id(below))
            finally:
                posix.close(below)
            self._fd = _open_root(top, proc)
            propagate(self._fd, "unbindable", proc)
        except OSError as reason:
            raise refused("mount(tmpfs)", path, reason) from reason

    def place(self, *, directory: bool) -> int:
        """An fd of a new folder or file to mount on. Raises OSError."""
        self._count += 1
        name = str(self._count)
        if directory:
            posix.mkdir(name, 0o700, dir_fd=self._fd)
        else:
            posix.close(posix.open(name, posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o600, dir_fd=self._fd))
        return posix.open(name, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=self._fd)

    def close(self) -> None:
        """Unmounts the tmpfs, and all mounts that were not moved out of it. Raises OSError."""
        try:
            unmount(self._fd, self._proc)
        except OSError:
            # All binds may be attached by now, and one refusal must not roll them back. So try once more.
            unmount(self._fd, self._proc)
        finally:
            posix.close(self._fd)


CALL = "mount(MS_MOVE)"  # attaches a bind
IS_DETACHED = False  # sources are cloned in the container's namespace: mount(2) binds only sources of its own


def check(source: Source) -> None:
    """Checks that mount(2) can make the requested bind. Raises UnavailableError."""
    request = source.request
    if request.nofollow:
        # mount(2) looks up the path of the link, and it is not known which kernels do not follow it.
        problem = "this kernel cannot bind on a link"
        raise UnavailableError(
            problem, where=request.at("options"), hint="nofollow requires the mount API of Linux 5.12"
        )
    if request.idmap is not None:
        raise UnavailableError("this kernel cannot map the owners of a mount", where=request.at("options"))
    has_hidden = len(source.visible) < len(source.submounts)
    if has_hidden and request.may_stay_writable:
        request.settle_for_top()
    if has_hidden and request.deep:
        raise UnavailableError(
            f"another mount hides a mount below {source.path}, so this kernel cannot change its attributes",
            where=request.at("options"),
        )


def clone(source: Source) -> None:
    """Binds the source in the staging folder, with all attributes set. Raises KernelError, UnavailableError."""
    try:
        _clone(source)
    except OSError as reason:
        raise refused("mount", source.path, reason, where=source.request.at("source")) from reason


def _clone(source: Source) -> None:
    proc, request = source.namespace.proc, source.request
    target = source.staging.place(directory=source.is_folder)
    try:
        found = _open_here(source)
        # mount(2) returns no id. The new mount is the one on the staging file that was not in the table before.
        before = proc.mounts().ids()
        _bind(source, found, target)
        table = proc.mounts()
        top = _new_mount(table, before, files.mount_id(target))
    finally:
        posix.close(target)
    posix.close(found)
    below = list(table.below(top.id))
    _check_below(source, below, top)
    source.fd = _open_root(top, proc)
    source.attached = [identity(source.fd, top.root, top), *map(_numbered, below)]
    source.infos.update((info.id, info) for info in (top, *below))
    _set_attributes(source, source.fd, top, {**request.deep, **request.top})
    for info in below if request.deep else ():
        fd = _open_root(info, proc)
        try:
            _set_attributes(source, fd, info, request.deep)
        finally:
            posix.close(fd)
    propagate(source.fd, request.propagation, proc)
    _check_attributes(source, [top, *below])


def _open_here(source: Source) -> int:
    """An fd of the same source, opened through the current mount namespace. Raises MissingError, OSError."""
    if not source.namespace.entered:
        return source.fd
    path = source.namespace.proc.path_of(source.fd)
    posix.close(source.fd)
    try:
        fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    except OSError as reason:
        problem = f"{path} cannot be opened in the container's mount namespace: {reason.strerror}"
        raise MissingError(problem, where=source.request.at("source"), hint=hint("openat", reason)) from reason
    # The path is only a hint: in this namespace another mount may hide the source.
    here = files.statx(fd, ask=False)  # the lookup has just refreshed its attributes
    if (here.dev, here.ino) != (source.stat.dev, source.stat.ino):
        posix.close(fd)
        problem = f"in the container's mount namespace {path} is another file or folder"
        raise MissingError(problem, where=source.request.at("source"))
    return fd


def _bind(source: Source, found: int, target: int) -> None:
    recursive = linux.MS_REC if source.request.recursive else 0
    try:
        source.namespace.proc.mount(found, target, linux.MS_BIND | recursive)
    except OSError as reason:
        raise refused("mount(MS_BIND)", source.path, reason, where=source.request.at("source")) from reason


def _check_below(source: Source, below: list[MountInfo], top: MountInfo) -> None:
    """Checks that the container has no mounts of its own below the source, such as a /proc that is not masked yet.

    Raises UnavailableError.
    """
    if not source.namespace.entered:
        return
    expected = {path for path, _ in source.submounts}
    for info in below:
        if info.mount_point[len(top.mount_point) + 1 :] not in expected:
            raise UnavailableError(
                f"the container has mounts of its own below {source.path}, and this kernel would bind them too",
                where=source.request.at("source"),
                hint="set bind-recursive=disabled",
            )


def _set_attributes(source: Source, fd: int, info: MountInfo, wanted: dict[str, bool | str]) -> None:
    """Sets the attributes ``wanted`` on a mount. Raises KernelError."""
    if not wanted:
        return
    # mount(2) replaces all attributes at once, so the call repeats those that stay.
    flags = linux.MS_REMOUNT | linux.MS_BIND
    for attribute, value in {**_attributes(info), **wanted}.items():
        if attribute == "atime":
            flags |= _ATIMES[str(value)]
        elif value:
            flags |= _FLAGS[attribute]
    try:
        source.namespace.proc.mount(None, fd, flags)
    except OSError as reason:
        raise source.refused_attributes("mount(MS_REMOUNT)", reason) from reason


def _check_attributes(source: Source, mounts: list[MountInfo]) -> None:
    """Checks that the mounts have the requested attributes. Raises OSError."""
    request, table = source.request, source.namespace.proc.mounts()
    for number, each in enumerate(mounts):
        now = table.get(each.id)
        wanted = request.deep if number else {**request.deep, **request.top}
        for attribute, value in wanted.items():
            if now is None or _attributes(now)[attribute] != value:
                raise OSError(errno.EIO, f"the kernel did not set {attribute}")


def attach(source: Source, target: int) -> None:
    """Moves the bind from the staging folder to the file or folder ``target``. Raises OSError."""
    proc = source.namespace.proc
    proc.mount(source.fd, target, linux.MS_MOVE)
    # The kernel makes a tree shared when it is moved below a shared mount, regardless of its propagation before.
    propagate(source.fd, source.request.propagation, proc)


def _open_root(known: MountInfo, proc: Proc) -> int:
    """An fd of the root of a mount that was just made. Raises OSError."""
    for _ in range(TRIES):
        info = proc.mounts().get(known.id)
        fd = open_root(info) if info is not None else None
        if fd is not None:
            return fd
    raise OSError(errno.ESTALE, "another mount hides the new mount")


def _new_mount(table: MountTable, before: set[int], parent: int) -> MountInfo:
    """The only mount on the mount ``parent`` whose id is not among ``before``. Raises OSError."""
    found = [info for info in table.on(parent) if info.id not in before]
    if len(found) != 1:
        raise OSError(errno.ESTALE, f"expected one new mount, found {len(found)}")
    return found[0]


def _numbered(info: MountInfo) -> AttachedRecord:
    return {**describe(info.root, info), "id": info.id}


def _attributes(info: MountInfo) -> dict[str, bool | str]:
    atime = next((word for word in ("noatime", "relatime") if word in info.options), "strictatime")
    return {**{word: word in info.options for word in _FLAGS}, "atime": atime}
