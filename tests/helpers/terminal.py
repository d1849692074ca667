# SPDX-License-Identifier: Apache-2.0
"""The program on a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios


def on_terminal(columns: int, words: list[str], **environment: str) -> str:
    """What the program prints on a terminal of so many columns."""
    child, terminal = pty.fork()
    if child == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
        code = "from oci_bind_hook.cli import console; console()"
        os.execve(sys.executable, [sys.executable, "-c", code, *words], {"TERM": "xterm", **environment})
    printed = b""
    try:
        while piece := os.read(terminal, 65536):
            printed += piece
    except OSError:
        pass  # EIO: the child has ended
    os.waitpid(child, 0)
    os.close(terminal)
    return printed.decode().replace("\r\n", "\n")
