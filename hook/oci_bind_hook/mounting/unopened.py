# SPDX-License-Identifier: Apache-2.0
"""Why a source, the bundle or the rootfs cannot be opened, where the errno alone is not enough.

Loaded only after such an error, before setns(2).
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..errors import MissingError
from ..kernel.errnos import unopened
from .confined import Walk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..kernel.mountinfo import MountInfo, MountTable
    from ..kernel.proc import Proc
    from .sources import Source

_OVERFLOW = 65534  # the uid of an owner that is not mapped in this user namespace, user_namespaces(7)


def explain(source: Source, reason: OSError) -> MissingError:
    """The error for a source that could not be opened because of ``reason``, with the link or folder that causes it."""
    path = source.path
    error = unopened(f"the source {path}", reason, where=source.request.at("source"))
    if reason.errno == errno.ENOTDIR and path != source.above and _is_file(source.above):
        error.problem = f"the source {source.above} is not a folder, so it has no subpath {source.request.subpath}"
        error.hint = "omit subpath"
    elif reason.errno == errno.ENOENT:
        if links := _links(path):
            at, to = links[-1]
            what = "is a link" if at == path else f"leads through the link {at}"
            error.problem = f"the source {path} {what} to {to}, which does not exist"
            error.hint = "sources are looked up on the host"
    elif reason.errno == errno.EACCES:
        error.hint = why_denied(path, source.namespace.proc) or error.hint
    return error


def add_why_denied(failure: BaseException, reason: PermissionError, proc: Proc) -> None:
    """Adds to a MissingError what denies access to the bundle or the rootfs, the file of ``reason``, if that is known.

    At createContainer the hook is in the container's user namespace, and engines store both in their own folders.
    """
    if isinstance(failure, MissingError) and isinstance(reason.filename, str):
        failure.hint = why_denied(reason.filename, proc) or failure.hint


def _is_file(path: str) -> bool:
    try:
        return not modes.S_ISDIR(posix.stat(path).st_mode)
    except OSError:
        return False


def _links(path: str) -> list[tuple[str, str]]:
    with Walk() as walk:
        try:
            walk.go(path)
        except OSError:
            return walk.links
    return []


def why_denied(path: str, proc: Proc) -> str:
    """What denies access to ``path``: a file system with rules of its own, or an unmapped owner; "" for neither."""
    fd, at = _reach(path, proc)
    try:
        info = _mount_above(at, proc.mounts())
        kind = info.type if info is not None else ""
        if kind.startswith("fuse"):
            return (
                f"{at} is on {kind}, which only the user who mounted it may access: mount it with "
                "allow_root or allow_other"
            )
        if kind.startswith("nfs"):
            return (
                f"{at} is on {kind}, whose server may not grant root access: export it with no_root_squash, "
                "or let others read it"
            )
        if proc.in_user_namespace() and posix.fstat(fd).st_uid == _OVERFLOW:
            return (
                f"the owner of {at} is unknown in this user namespace: register the hook for "
                "createRuntime, which runs outside"
            )
    except OSError:
        pass  # the object cannot be inspected: only the errno is known
    finally:
        posix.close(fd)
    return ""


def _reach(path: str, proc: Proc) -> tuple[int, str]:
    """An fd of ``path``, or of the nearest folder above that can be opened, and the path of that fd."""
    while path:
        try:
            fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
        except OSError:
            path = path.rpartition("/")[0]
        else:
            return fd, proc.path_of(fd)
    return posix.open("/", posix.O_PATH | posix.O_CLOEXEC), "/"


def _mount_above(path: str, table: MountTable) -> MountInfo | None:
    """The mount that ``path`` is on, None if it is not in the table. ``path`` contains no links."""
    while True:
        if mounts := table.at(path or "/"):
            return mounts[-1]
        if not path:
            return None
        path = path.rpartition("/")[0]
