# SPDX-License-Identifier: Apache-2.0
"""Whether this process runs in a chroot. setns(2) leads out of it, so the hook cannot reach the rootfs below it.

Loaded by commands only.
"""

from __future__ import annotations

import posix

from . import files, linux
from .asking import ask


def is_in_chroot() -> bool | None:
    """Whether ``/`` is not the root of this mount namespace; None if this process may not find out.

    A child process enters its own mount namespace, which leads it to that root.
    """
    answer: bool | None = ask(_is_moved).answer
    return answer


def _is_moved() -> bool:
    """Whether entering its own mount namespace moves this process to another root. Raises OSError."""
    before, pidfd = posix.stat("/"), posix.pidfd_open(posix.getpid())
    linux.enter_mount_namespace(pidfd)
    return not files.is_same_file(before, posix.stat("/"))
