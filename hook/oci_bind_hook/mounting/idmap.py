# SPDX-License-Identifier: Apache-2.0
"""User namespaces without processes, each of which only carries the id map of a mount, mount_setattr(2).

The kernel accepts an id map only as a user namespace, and only a process can create one. So a child process creates
it, waits until this process has written the map and opened the namespace, and exits. The child inherits all fds, also
those of locks, but is killed as soon as its parent ends.

Loaded only for a bind with an id map, before setns(2): it imports only posix.
"""

from __future__ import annotations

import posix

from ..errors import KernelError, RequestError, UnavailableError
from ..kernel import linux, rights
from ..kernel.errnos import hint, refused, unopened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents.oci import IdMappings
    from ..kernel.proc import Proc
    from ..requests.request import IdMap


def user_namespace(idmap: IdMap, proc: Proc, where: str) -> int:
    """An fd of a user namespace with the id map ``idmap``, user_namespaces(7). Errors name the place ``where``.

    Raises KernelError; UnavailableError if only another stage can do it; MissingError if the user namespace that the
    container joins does not exist, and RequestError if that path is not a user namespace.
    """
    if proc.in_user_namespace():
        raise UnavailableError(
            "ids cannot be mapped inside a user namespace",
            where=where,
            hint="register the hook for createRuntime, with a runtime that root starts",
        )
    if idmap.namespace is not None:
        return _joined(idmap.namespace, where)
    assert idmap.uids is not None
    assert idmap.gids is not None
    ready_read, ready_write = posix.pipe()
    exit_read, exit_write = posix.pipe()
    child = posix.fork()
    if child == 0:
        posix.close(ready_read)
        posix.close(exit_write)
        _run_child(ready_write, exit_read)
    posix.close(ready_write)
    posix.close(exit_read)
    try:
        held = _hold(child, ready_read, proc)
        try:
            for name, mappings in (("gid_map", idmap.gids), ("uid_map", idmap.uids)):
                _write(held[name], name, mappings, where)
            return held.pop("ns/user")
        finally:
            for fd in held.values():
                posix.close(fd)
    except OSError as reason:
        subject = "a user namespace for an id map"
        raise refused("unshare", subject, reason, where=where) from reason
    finally:
        # The child reads the end of the pipe and exits. The same happens if this process is killed.
        posix.close(exit_write)
        posix.close(ready_read)
        posix.waitpid(child, 0)


def _joined(path: str, where: str) -> int:
    """An fd of the user namespace at ``path``, which the container joins. Raises MissingError, RequestError."""
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError as reason:
        raise unopened(f"the user namespace {path} of the container", reason, where=where) from reason
    try:
        linux.owner_of_user_namespace(fd)
    except OSError as reason:
        posix.close(fd)
        raise RequestError(f"{path} is not a user namespace", where=where) from reason
    return fd


def _run_child(ready_write: int, exit_read: int) -> None:
    """The child: creates the namespace, writes 0 or an errno to ``ready_write``, exits at the end of ``exit_read``."""
    try:
        rights.die_with_parent()
        # A process of the same uid, such as another container's root, has all capabilities in this namespace. But it
        # cannot open the namespace in procfs, because this process, like its parent, is not dumpable, prctl(2).
        linux.unshare_user()
        posix.write(ready_write, b"\0")
    except OSError as reason:
        posix.write(ready_write, bytes([reason.errno or 255]))
    finally:
        posix.read(exit_read, 1)
        posix._exit(0)


def _write(fd: int, name: str, mappings: IdMappings, where: str) -> None:
    try:
        posix.write(fd, "".join(f"{inside} {host} {size}\n" for inside, host, size in mappings).encode())
    except OSError as reason:
        advice = hint("write(id map)", reason)
        subject = f"{name} of a user namespace for an id map"
        raise KernelError("write", subject, reason, where=where, hint=advice) from reason


def _hold(child: int, ready_read: int, proc: Proc) -> dict[str, int]:
    """Waits for the child's user namespace. Returns fds of its gid_map, uid_map and ns/user by name. Raises OSError."""
    answer = posix.read(ready_read, 1)
    if answer != b"\0":
        number = answer[0] if answer else 5
        raise OSError(number, posix.strerror(number))
    pidfd = posix.pidfd_open(child)
    try:
        number = proc.pid_of(pidfd)
        held = {
            "gid_map": proc.open(f"../{number}/gid_map", posix.O_WRONLY),
            "uid_map": proc.open(f"../{number}/uid_map", posix.O_WRONLY),
            "ns/user": proc.open(f"../{number}/ns/user"),
        }
        # If the child has ended, its pid may have been reused, and the files may be those of another process.
        if proc.pid_of(pidfd) != number:
            raise ProcessLookupError(3, posix.strerror(3))
    finally:
        posix.close(pidfd)
    return held
