# SPDX-License-Identifier: Apache-2.0
"""The rights of this process: capabilities(7), and the process attributes of prctl(2).

A run drops every capability that it does not need before it accesses anything in the rootfs.

Loaded by every start of a container: import only _prctl. The module prctl around it would add 0.1 units.
"""

from __future__ import annotations

# The C module behind prctl, which creates functions and objects for every option at import.
import _prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGKILL = 9

# The capabilities that a run needs after it has read its input, each with the reason.
CAPABILITIES = {
    "CAP_SYS_ADMIN": "setns(2), and every call that makes, changes or removes a mount",
    "CAP_SYS_CHROOT": "setns(2) into a mount namespace, which changes the root",
    "CAP_SYS_PTRACE": "setns(2) by pidfd, and finding out the namespaces of other processes",
    "CAP_DAC_OVERRIDE": "creating and removing mount points in folders of the image's users",
    "CAP_FOWNER": "removing another user's mount point from a folder with the sticky bit",
    "CAP_SETUID": "setfsuid(2), for a tmpfs of the container's user namespace, in which the hook's uid is not mapped",
    "CAP_SETGID": "setfsgid(2), for a tmpfs of the container's user namespace, in which the hook's gid is not mapped",
}
# The capabilities that are not needed after the container's mount namespace has been entered.
TO_ENTER = ("CAP_SYS_CHROOT", "CAP_SYS_PTRACE")


def lacking(*names: str) -> str:
    """The capabilities among ``names`` that this process lacks, joined for a message; "" if it lacks none."""
    return " and ".join(name for name in names if not has_capability(name))


def has_capability(name: str) -> bool:
    """Whether the capability ``name``, as capabilities(7) writes it, is in this process's effective set."""
    bit = getattr(_prctl, name)
    return bool(_prctl.get_caps([bit], [], [])[_prctl.CAP_EFFECTIVE][bit])


def die_with_parent() -> None:
    """Lets the kernel kill this process when its parent ends, PR_SET_PDEATHSIG of prctl(2)."""
    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, SIGKILL)


def hide() -> None:
    """Makes this process and its children not dumpable, PR_SET_DUMPABLE of prctl(2).

    Without CAP_SYS_PTRACE no process can then read its /proc/PID/fd, root or memory, and it leaves no core file.
    """
    _prctl.prctl(_prctl.PR_SET_DUMPABLE, 0)


def harden(name: str) -> None:
    """Sets the name of this process, disables new privileges, and drops all capabilities except CAPABILITIES for good.

    PR_SET_NAME and PR_SET_NO_NEW_PRIVS of prctl(2), capset(2). Raises OSError.
    """
    _prctl.prctl(_prctl.PR_SET_NAME, name)
    _prctl.prctl(_prctl.PR_SET_NO_NEW_PRIVS, 1)
    every = range(_prctl.CAP_LAST_CAP + 1)
    kept = {getattr(_prctl, each) for each in CAPABILITIES}
    dropped = [each for each in every if each not in kept]
    # Three sets to add, then three to drop: effective, permitted and inheritable.
    _prctl.set_caps([], [], [], dropped, dropped, list(every))


def give_up(names: Iterable[str]) -> None:
    """Drops the capabilities ``names`` for good, capset(2). Raises OSError."""
    dropped = [getattr(_prctl, name) for name in names]
    _prctl.set_caps([], [], [], dropped, dropped, [])
