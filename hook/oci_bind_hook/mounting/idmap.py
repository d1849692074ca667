# SPDX-License-Identifier: Apache-2.0
"""A user namespace that nobody lives in: it only carries the id map of a mount, mount_setattr(2).

The kernel takes an id map from a user namespace alone, and a user namespace is made by a process alone. So a child
makes one, waits until its map is written and it is held by fd, and ends. It has all our fds, locks among them, but
outlives us by no more than an instant.
"""

from __future__ import annotations

import os

from ..errors import KernelError, RequestError, UnavailableError
from ..kernel import linux, rights
from ..kernel.errnos import hint, refused, unopened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents.oci import IdMappings
    from ..kernel.proc import Proc
    from ..requests.request import IdMap


def user_namespace(idmap: IdMap, proc: Proc, where: str) -> int:
    """An fd of a user namespace that maps ids as ``idmap`` says, user_namespaces(7).

    KernelError with ``where``; UnavailableError where only another stage could do it; MissingError and RequestError
    for a namespace to be joined that is none.
    """
    if proc.in_user_namespace():
        raise UnavailableError(
            "ids cannot be mapped from inside a user namespace",
            where=where,
            hint="register for createRuntime, with a runtime that root starts",
        )
    if idmap.namespace is not None:
        return _joined(idmap.namespace, where)
    assert idmap.uids is not None
    assert idmap.gids is not None
    ready, tell_ready = os.pipe()
    go_on, tell_go_on = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ready)
        os.close(tell_go_on)
        _live(tell_ready, go_on)
    os.close(tell_ready)
    os.close(go_on)
    try:
        held = _hold(child, ready, proc)
        try:
            for name, mappings in (("gid_map", idmap.gids), ("uid_map", idmap.uids)):
                _write(held[name], name, mappings, where)
            return held.pop("ns/user")
        finally:
            for fd in held.values():
                os.close(fd)
    except OSError as reason:
        subject = "a user namespace for an id map"
        raise refused("unshare", subject, reason, where=where) from reason
    finally:
        # The child sees that nobody can write any more, and ends; so it does when this process is killed.
        os.close(tell_go_on)
        os.close(ready)
        os.waitpid(child, 0)


def _joined(path: str, where: str) -> int:
    """The user namespace that the container joins, as runtimes take it for an id map that says no ids."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as reason:
        raise unopened(f"the user namespace {path} of the container", reason, where=where) from reason
    try:
        linux.owner_of_user_namespace(fd)
    except OSError as reason:
        os.close(fd)
        raise RequestError(f"{path} is no user namespace to take ids from", where=where) from reason
    return fd


def _live(tell_ready: int, go_on: int) -> None:
    try:
        rights.die_with_parent()
        # Whoever has our uid has all power in it, as another container's root has. But we are hidden, and so is this.
        linux.unshare_user()
        os.write(tell_ready, b"\0")
    except OSError as reason:
        os.write(tell_ready, bytes([reason.errno or 255]))
    finally:
        os.read(go_on, 1)
        os._exit(0)


def _write(fd: int, name: str, mappings: IdMappings, where: str) -> None:
    try:
        os.write(fd, "".join(f"{inside} {host} {size}\n" for inside, host, size in mappings).encode())
    except OSError as reason:
        advice = hint("write(id map)", reason)
        subject = f"{name} of a user namespace for an id map"
        raise KernelError("write", subject, reason, where=where, hint=advice) from reason


def _hold(child: int, ready: int, proc: Proc) -> dict[str, int]:
    """The files of the child's user namespace by name, once it has made that. OSError."""
    answer = os.read(ready, 1)
    if answer != b"\0":
        number = answer[0] if answer else 5
        raise OSError(number, os.strerror(number))
    pidfd = os.pidfd_open(child)
    try:
        number = proc.pid_of(pidfd)
        held = {
            "gid_map": proc.open(f"../{number}/gid_map", os.O_WRONLY),
            "uid_map": proc.open(f"../{number}/uid_map", os.O_WRONLY),
            "ns/user": proc.open(f"../{number}/ns/user"),
        }
        # Only if it lives still were these files its own, and not those of another process of the same number.
        if proc.pid_of(pidfd) != number:
            raise ProcessLookupError(3, os.strerror(3))
    finally:
        os.close(pidfd)
    return held
