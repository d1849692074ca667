# SPDX-License-Identifier: Apache-2.0
"""Older kernels, played by this one: a seccomp filter, seccomp(2), refuses system calls that they do not have.

It holds for the process that asks for it and for all its children, and nobody can take it back.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
import sys

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
    "ioctl": {"x86_64": 16, "aarch64": 29}[platform.machine()],
    "setns": {"x86_64": 308, "aarch64": 268}[platform.machine()],
}

# A call of which a kernel lacks a part: its name, which argument says so, and what that is.
PARTS = {
    "unique ids": ("statx", 3, linux.STATX_MNT_ID_UNIQUE),
    "ids of namespaces": ("ioctl", 1, linux.NS_GET_MNTNS_ID),
}

# What a kernel lacks, and how it says so.
OLDER = {
    "before 5.12": (("mount_setattr",), errno.ENOSYS),
    "before 4.11": (tuple(call for call in NUMBERS if call not in ("ioctl", "setns")), errno.ENOSYS),
    "filtered": ((*MOUNT_API, "openat2"), errno.EPERM),
}
BEFORE_6_8 = (("statmount", *PARTS), errno.ENOSYS)

_BPF_LOAD_NUMBER = struct.pack("=HBBI", 0x20, 0, 0, 0)  # the first member of struct seccomp_data
_BPF_ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)
_LOWER_HALF = 0 if sys.byteorder == "little" else 4
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2


def _refusal(what: str, error: int) -> bytes:
    """The instructions that refuse a call, or a part of it; they begin and end with its number loaded."""
    call, argument, value = PARTS.get(what, (what, None, 0))
    is_call = (0x15, NUMBERS[call])
    answer = struct.pack("=HBBI", 0x06, 0, 0, 0x00050000 | error)
    if argument is None:
        return struct.pack("=HBBI", is_call[0], 0, 1, is_call[1]) + answer
    load = struct.pack("=HBBI", 0x20, 0, 0, 16 + 8 * argument + _LOWER_HALF)
    is_value = struct.pack("=HBBI", 0x15, 0, 1, value)
    return struct.pack("=HBBI", is_call[0], 0, 4, is_call[1]) + load + is_value + answer + _BPF_LOAD_NUMBER


def refuse(*calls: str, error: int = errno.ENOSYS) -> None:
    """From now on the kernel answers ``error`` to these system calls, or parts of them."""
    code = b"".join([_BPF_LOAD_NUMBER, *(_refusal(call, error) for call in calls), _BPF_ALLOW])
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
        calls, error = BEFORE_6_8 if name == "before 6.8" else OLDER[name]
        refuse(*calls, error=error)
