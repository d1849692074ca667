# SPDX-License-Identifier: Apache-2.0
"""An OCI runtime hook that bind-mounts into a container's rootfs, and takes the mounts down again."""

import os

__version__ = "0.1.0"

FOLDER = os.path.dirname(os.path.abspath(__file__))


def prepare_process() -> None:
    """Makes the process that a runtime started a clean one, before anything else is imported. OSError."""
    # Python 3.14 asks for the home folder when it imports ctypes; without HOME that would ask all sources of users.
    os.environ.setdefault("HOME", "/")
    close_inherited()
    open_stdio()


def open_stdio() -> None:
    """Makes sure that 0, 1 and 2 are open: nothing of ours may get a number that others write to. OSError."""
    while (fd := os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)) <= 2:
        pass
    os.close(fd)


def close_inherited() -> None:
    """Closes every fd above 2: one that was left to us by mistake would lead out of the container that we enter.

    To be called before anything opens a file of its own. OSError where there is no procfs.
    """
    for fd in map(int, os.listdir("/proc/self/fd")):
        if fd > 2:
            try:
                os.close(fd)
            except OSError:
                pass  # the list's own fd, closed by now
