# SPDX-License-Identifier: Apache-2.0
"""What a person gets to see: one line on stderr when we fail, and whatever log was asked for.

A log is one record a line, as text or JSON, spelled as runc and crun spell theirs. The one line also goes to syslog
where there is a ``/dev/log``, since crun throws away what hooks print.
"""

from __future__ import annotations

import os
import time

NAME = "oci-bind-hook"
SYSLOG_SOCKET = "/dev/log"


def one_line(text: str) -> str:
    """``text`` without anything that moves a cursor or ends a line: such characters are written as escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class Log:
    """Writes records to a file, to stderr with ``debug``, and failures always to stderr and syslog.

    A log file that cannot be written is told of once and is no failure: the container matters more.
    """

    def __init__(self) -> None:
        self.debug_wanted = False
        self.container = ""
        self.stage = ""
        self._fd: int | None = None
        self._json = False
        self._syslog = False

    def open(self, path: str, *, as_json: bool) -> None:
        """Appends from now on to the file ``path``, made with mode 0600."""
        self._json = as_json
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
        except OSError as reason:
            self.warning(f"the log {path} cannot be written: {reason.strerror}")

    def prepare(self) -> None:
        """Gets ready all that a failure needs, while it can still be imported and ``/dev`` is the host's."""
        if self._json:
            import json  # noqa: F401
        if self.debug_wanted:
            import traceback  # noqa: F401
        if not self._syslog and os.path.exists(SYSLOG_SOCKET):
            import syslog

            syslog.openlog(NAME, syslog.LOG_PID | syslog.LOG_NDELAY, syslog.LOG_DAEMON)
            self._syslog = True

    def debug(self, message: str) -> None:
        if self.debug_wanted:
            self._record("debug", message)
            _print(f"{NAME}: {one_line(message)}")

    def warning(self, message: str) -> None:
        self._record("warning", message)
        if self.debug_wanted:
            _print(f"{NAME}: warning: {one_line(message)}")

    def failure(self, message: str) -> None:
        """The one line: who we are, for which container and stage, and what went wrong."""
        about = " ".join(word for word in (self.container, self.stage) if word)
        line = one_line(f"{NAME}: {about}: {message}" if about else f"{NAME}: {message}")
        self._record("error", message)
        _print(line)
        self.prepare()
        if self._syslog:
            import syslog

            syslog.syslog(syslog.LOG_ERR, line.partition(" ")[2])

    def traceback(self) -> None:
        """The traceback of the exception being handled, on stderr, if debugging."""
        if self.debug_wanted:
            import traceback

            _print(traceback.format_exc().rstrip())

    def _record(self, level: str, message: str) -> None:
        if self._fd is None:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields = {"level": level, "msg": message, "time": now, "id": self.container, "stage": self.stage}
        if self._json:
            import json

            line = json.dumps(fields)
        else:
            line = " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())
        try:
            os.write(self._fd, line.encode(errors="backslashreplace") + b"\n")
        except OSError:
            os.close(self._fd)
            self._fd = None


def _quoted(value: str) -> str:
    """A value that ends where it ends, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{one_line(escaped)}"'


def _print(line: str) -> None:
    try:
        os.write(2, line.encode(errors="backslashreplace") + b"\n")
    except OSError:
        pass  # nobody listens
