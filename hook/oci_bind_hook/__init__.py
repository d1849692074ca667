# SPDX-License-Identifier: Apache-2.0
"""An OCI runtime hook that bind-mounts into a container's rootfs, and takes the mounts down again."""

import os

__version__ = "0.1.0"


def open_stdio() -> None:
    """Makes sure that 0, 1 and 2 are open: nothing of ours may get a number that others write to. OSError."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)
