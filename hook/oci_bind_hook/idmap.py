# SPDX-License-Identifier: Apache-2.0
"""A user namespace that nobody lives in: it only carries the id map of a mount, mount_setattr(2).

The kernel takes an id map from a user namespace alone, and a user namespace is made by a process alone. So a child
makes one, waits until its map is written and it is held by fd, and ends.
"""

from __future__ import annotations

import os

from . import linux
from .errors import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .proc import Proc
    from .request import IdMap
    from .spec import IdMappings


def user_namespace(idmap: IdMap, proc: Proc, where: str) -> int:
    """An fd of a user namespace that maps ids as ``idmap`` says, user_namespaces(7). KernelError with ``where``."""
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
        return _map(child, ready, idmap, proc)
    except OSError as reason:
        subject = "a user namespace for an id map"
        raise KernelError("unshare", subject, reason, where=where, hint=_hint(reason)) from reason
    finally:
        # The child sees that nobody can write any more, and ends; so it does when this process is killed.
        os.close(tell_go_on)
        os.close(ready)
        os.waitpid(child, 0)


def _live(tell_ready: int, go_on: int) -> None:
    try:
        linux.unshare_user()
        os.write(tell_ready, b"\0")
    except OSError as reason:
        os.write(tell_ready, bytes([reason.errno or 255]))
    finally:
        os.read(go_on, 1)
        os._exit(0)


def _map(child: int, ready: int, idmap: IdMap, proc: Proc) -> int:
    answer = os.read(ready, 1)
    if answer != b"\0":
        number = answer[0] if answer else 5
        raise OSError(number, os.strerror(number))
    pidfd = os.pidfd_open(child)
    try:
        number = proc.pid_of(pidfd)
        held = [
            proc.open(f"../{number}/gid_map", os.O_WRONLY),
            proc.open(f"../{number}/uid_map", os.O_WRONLY),
            proc.open(f"../{number}/ns/user", os.O_RDONLY),
        ]
        # Only if it lives still were these files its own, and not those of another process of the same number.
        if proc.pid_of(pidfd) != number:
            raise ProcessLookupError(3, os.strerror(3))
    finally:
        os.close(pidfd)
    gid_map, uid_map, namespace = held
    os.write(gid_map, _lines(idmap.gids or ()))
    os.write(uid_map, _lines(idmap.uids or ()))
    os.close(gid_map)
    os.close(uid_map)
    return namespace


def _lines(mappings: IdMappings) -> bytes:
    return "".join(f"{inside} {host} {size}\n" for inside, host, size in mappings).encode()


def _hint(reason: OSError) -> str:
    hints = {1: "CAP_SETUID, CAP_SETGID and CAP_SYS_ADMIN are needed", 28: "the limit user.max_user_namespaces"}
    return hints.get(reason.errno or 0, "")
