# SPDX-License-Identifier: Apache-2.0
"""Programs, mostly ours, each on a terminal of its own; also for docs/picture.py: it imports only what Python has."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios

HOOK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../hook")


def begun(columns: int, command: list[str], environment: dict[str, str], folder: str = ".") -> tuple[int, int]:
    """Starts a command on a terminal of so many columns. Returns its pid, and the terminal."""
    child, terminal = pty.fork()
    if child == 0:
        try:
            fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("4H", 40, columns, 0, 0))
            os.chdir(folder)
            os.execvpe(command[0], command, environment)
        finally:
            os._exit(127)
    return child, terminal


def on_terminal(columns: int, words: list[str], **environment: str) -> str:
    """What the program prints on a terminal of so many columns."""
    return ended_on_terminal(columns, words, **environment)[1]


def ended_on_terminal(columns: int, words: list[str], **environment: str) -> tuple[int, str]:
    """The same, behind the exit code."""
    code = f"import sys; sys.path.insert(0, {HOOK!r}); from oci_bind_hook.cli import console; console()"
    command = [sys.executable, "-I", "-c", code, *words]
    child, terminal = begun(columns, command, {"TERM": "xterm", **environment})
    printed = b""
    try:
        while piece := os.read(terminal, 65536):
            printed += piece
    except OSError:
        pass  # EIO: the child has ended
    status = os.waitpid(child, 0)[1]
    os.close(terminal)
    return os.waitstatus_to_exitcode(status), printed.decode().replace("\r\n", "\n")
