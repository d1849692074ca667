# SPDX-License-Identifier: Apache-2.0
"""What a person gets to see: one line on stderr when we fail, and whatever log was asked for.

A log is one record a line, as text or JSON, spelled as runc and crun spell theirs: level, msg and time, and after them
id, stage and the milliseconds since the hook was started. The one line also goes to syslog
where there is a ``/dev/log``, since crun throws away what hooks print.
"""

from __future__ import annotations

import os
import time

NAME = "oci-bind-hook"
SYSLOG_SOCKET = "/dev/log"
# syslog(3): the facility daemon, with a severity.
ERROR = 3 << 3 | 3
WARNING = 3 << 3 | 4


def one_line(text: str) -> str:
    """``text`` without anything that moves a cursor or ends a line: such characters are written as escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def _escape(code: int) -> str:
    # Not by a codec: Python would import it, and that may be impossible by now.
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Log:
    """Writes records to a file, to stderr with ``debug``, and failures always to stderr and syslog.

    A log file that cannot be written is told to syslog and is no failure: the container matters more.
    """

    def __init__(self) -> None:
        self.debug_wanted = False
        self.container = ""
        self.stage = ""
        # What the interpreter took to come here was processor time, but for what was read from disk.
        self._start = time.monotonic() - time.process_time()
        self._path = ""
        self._fd: int | None = None
        self._json = False
        self._syslog: int | None = None
        self._prepared = False

    def open(self, path: str, *, as_json: bool) -> None:
        """Appends from now on to the file ``path``, made with mode 0600."""
        self._json = as_json
        self._path = path
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
            self._fd = os.open(path, flags, 0o600)
        except OSError as reason:
            self._give_up(reason)

    def _give_up(self, reason: OSError) -> None:
        self._fd = None
        message = f"the log {self._path} cannot be written: {reason.strerror}"
        self.warning(message)
        self.prepare()
        self._to_syslog(WARNING, message)

    def prepare(self) -> None:
        """Gets ready all that a failure needs, while it can still be imported and ``/dev`` is the host's."""
        if self._prepared:
            return
        self._prepared = True
        if self._json:
            import json  # noqa: F401
        if os.path.exists(SYSLOG_SOCKET):
            # The module socket would import a dozen others, and syslog(3) reads files of its own when it is called.
            import _socket

            try:
                syslog = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
                syslog.settimeout(0)
                syslog.connect(SYSLOG_SOCKET)
                self._syslog = syslog.detach()
            except OSError:
                pass  # nobody listens

    def _to_syslog(self, priority: int, message: str) -> None:
        if self._syslog is not None:
            try:
                os.write(self._syslog, f"<{priority}>{NAME}[{os.getpid()}]: {one_line(message)}".encode())
            except OSError:
                pass  # nobody listens any more

    @property
    def is_kept(self) -> bool:
        """Whether anybody is told what goes well."""
        return self.debug_wanted or self._fd is not None

    def step(self, message: str) -> None:
        """Tells how far we have come."""
        if self.is_kept:
            self._tell("debug", message, message)

    def info(self, message: str) -> None:
        """Tells what was done."""
        self._tell("info", message, message)

    def warning(self, message: str) -> None:
        """Tells what a person might want to change."""
        self._tell("warning", message, f"warning: {message}")

    def _tell(self, level: str, message: str, line: str) -> None:
        self._record(level, message)
        if self.debug_wanted:
            about = " ".join(word for word in (self.container, self.stage, f"{self._elapsed():.1f} ms") if word)
            _print(one_line(f"{NAME}: {about}: {line}"))

    def failure(self, message: str) -> None:
        """The one line: who we are, for which container and stage, and what went wrong."""
        about = " ".join(word for word in (self.container, self.stage) if word)
        text = f"{about}: {message}" if about else message
        self._record("error", message)
        _print(one_line(f"{NAME}: {text}"))
        self.prepare()
        self._to_syslog(ERROR, text)

    def traceback(self, error: BaseException) -> None:
        """Where ``error`` comes from, on stderr, if debugging. Without the lines: their files may be the image's."""
        trace = error.__traceback__
        while self.debug_wanted and trace is not None:
            code = trace.tb_frame.f_code
            _print(one_line(f"{NAME}:   {code.co_filename}:{trace.tb_lineno} in {code.co_name}"))
            trace = trace.tb_next

    def _elapsed(self) -> float:
        return 1000 * (time.monotonic() - self._start)

    def _record(self, level: str, message: str) -> None:
        if self._fd is None:
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields: dict[str, str | float] = {"level": level, "msg": message, "time": now}
        fields |= {"id": self.container, "stage": self.stage, "ms": round(self._elapsed(), 1)}
        if self._json:
            import json

            line = json.dumps(fields)
        else:
            line = " ".join(f"{key}={_quoted(str(value))}" for key, value in fields.items())
        try:
            os.write(self._fd, line.encode(errors="backslashreplace") + b"\n")
        except OSError as reason:
            os.close(self._fd)
            self._give_up(reason)


def _quoted(value: str) -> str:
    """A value that ends where it ends, whatever is in it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{one_line(escaped)}"'


def _print(line: str) -> None:
    try:
        os.write(2, line.encode(errors="backslashreplace") + b"\n")
    except OSError:
        pass  # nobody listens
