# SPDX-License-Identifier: Apache-2.0
"""What this process may do, and who may look into it: capabilities, prctl(2).

A run gives up every right that it does not need before it meets anything that a stranger wrote.
"""

from __future__ import annotations

# The C module behind prctl, which makes functions and objects for all there is when it is imported: 0.1 units.
import _prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SIGKILL = 9

# All that a run still needs once it has read what it is told to do, capabilities(7).
CAPABILITIES = {
    "CAP_SYS_ADMIN": "setns(2), and every call that makes, changes or removes a mount",
    "CAP_SYS_CHROOT": "setns(2) into a mount namespace changes the root",
    "CAP_SYS_PTRACE": "setns(2) by pidfd, and to see in which namespace another process is",
    "CAP_DAC_OVERRIDE": "mount points are made and removed in folders of the image's users",
    "CAP_FOWNER": "a mount point made for another user is removed from a folder with the sticky bit",
    "CAP_SETUID": "setfsuid(2), for a tmpfs of the container's user namespace, which does not know our uid",
    "CAP_SETGID": "setfsgid(2), for the same",
}
# Those of them that nothing needs once a mount namespace has been entered.
TO_ENTER = ("CAP_SYS_CHROOT", "CAP_SYS_PTRACE")


def lacking(*names: str) -> str:
    """Those capabilities among ``names`` that this process lacks, for a message; "" where it lacks none."""
    return " and ".join(name for name in names if not has_capability(name))


def has_capability(name: str) -> bool:
    """Whether this process has a capability that counts now, by its name in capabilities(7)."""
    bit = getattr(_prctl, name)
    return bool(_prctl.get_caps([bit], [], [])[_prctl.CAP_EFFECTIVE][bit])


def die_with_parent() -> None:
    """This process is killed when the one that forked it ends, by prctl(2)."""
    _prctl.prctl(_prctl.PR_SET_PDEATHSIG, SIGKILL)


def hide() -> None:
    """Makes this process, and what it forks, not dumpable, prctl(2).

    Who has no CAP_SYS_PTRACE cannot look into it then, whoever they are, and nothing of it is in a core file.
    """
    _prctl.prctl(_prctl.PR_SET_DUMPABLE, 0)


def harden(name: str) -> None:
    """Names this process, forbids it new privileges, and gives up all capabilities that no run needs any more.

    prctl(2), capset(2).
    """
    _prctl.prctl(_prctl.PR_SET_NAME, name)
    _prctl.prctl(_prctl.PR_SET_NO_NEW_PRIVS, 1)
    every = range(_prctl.CAP_LAST_CAP + 1)
    kept = {getattr(_prctl, each) for each in CAPABILITIES}
    dropped = [each for each in every if each not in kept]
    # Effective, permitted and inheritable: first those to gain, then those to lose.
    _prctl.set_caps([], [], [], dropped, dropped, list(every))


def give_up(names: Iterable[str]) -> None:
    """Gives up capabilities for good, capset(2)."""
    dropped = [getattr(_prctl, name) for name in names]
    _prctl.set_caps([], [], [], dropped, dropped, [])
