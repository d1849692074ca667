# SPDX-License-Identifier: Apache-2.0
"""Older kernels, played by this one: a seccomp filter, seccomp(2), refuses system calls that they do not have.

It holds for the process that asks for it and for all its children, and nobody can take it back.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

from oci_bind_hook.kernel import linux

MOUNT_API = ("open_tree", "move_mount", "mount_setattr")
STATX = {"x86_64": 332, "aarch64": 291}
NUMBERS = {
    "open_tree": 428,
    "move_mount": 429,
    "openat2": 437,
    "mount_setattr": 442,
    "statmount": 457,
    "statx": STATX[platform.machine()],
}

# What a kernel lacks, and how it says so.
OLDER = {
    "before 5.12": (("mount_setattr",), errno.ENOSYS),
    "before 4.11": (tuple(NUMBERS), errno.ENOSYS),
    "filtered": ((*MOUNT_API, "openat2"), errno.EPERM),
}

_BPF_LOAD_NUMBER = struct.pack("=HBBI", 0x20, 0, 0, 0)  # the first member of struct seccomp_data
_BPF_ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2


def refuse(*calls: str, error: int = errno.ENOSYS) -> None:
    """From now on the kernel answers ``error`` to these system calls."""
    program = [_BPF_LOAD_NUMBER]
    for call in calls:
        program.append(struct.pack("=HBBI", 0x15, 0, 1, NUMBERS[call]))
        program.append(struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | error))
    code = b"".join([*program, _BPF_ALLOW])
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    # Without PR_SET_NO_NEW_PRIVS, which only root may leave out: it would change what set-user-ID means.
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header, 0, 0):
        raise OSError(ctypes.get_errno(), "the filter was refused")
    linux._mount_api.clear()  # what this process has found out about the kernel as it was


def play(name: str) -> None:
    """From now on the kernel is the one of that name, "this" for itself."""
    if name != "this":
        calls, error = OLDER[name]
        refuse(*calls, error=error)
