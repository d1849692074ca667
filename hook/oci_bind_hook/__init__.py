# SPDX-License-Identifier: Apache-2.0
"""An OCI runtime hook that makes bind mounts in a container's rootfs and removes them again.

Loaded by every start of a container: this module imports only posix.
"""

import posix

__version__ = "0.2.0"

# posix is the C module behind os. Importing os takes 0.15 units, a unit being the start of Python, for abstract classes
# and functions that no start of a container needs: its modules do without.
FOLDER = __file__.rpartition("/")[0]

# A variable of the hooks that a wrapper of a runtime adds, with the wrapper's name: it knows those of earlier starts.
RUNTIME_MARK = "OCI_BIND_HOOK_RUNTIME="


def prepare_process() -> None:
    """Makes the process that a runtime started a clean one, before anything else is imported. OSError."""
    # Python 3.14 asks for the home folder when it imports ctypes; without HOME that would ask all sources of users.
    posix.environ.setdefault(b"HOME", b"/")
    close_inherited()
    open_stdio()


def open_stdio() -> None:
    """Opens /dev/null for each of the fds 0, 1 and 2 that is closed. Raises OSError."""
    # Otherwise a state file or a folder could get the number 2, and an error message would be written to it.
    while (fd := posix.open("/dev/null", posix.O_RDWR | posix.O_CLOEXEC)) <= 2:
        pass
    posix.close(fd)


def close_inherited() -> None:
    """Closes every fd above 2 that was inherited: a folder among them would lead out of the container that is entered.

    Must be called before this process opens files of its own. Raises OSError if there is no procfs.
    """
    for fd in map(int, posix.listdir("/proc/self/fd")):
        if fd > 2:
            try:
                posix.close(fd)
            except OSError:
                pass  # the fd of posix.listdir itself, which is closed by now
