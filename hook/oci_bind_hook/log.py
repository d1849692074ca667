# SPDX-License-Identifier: Apache-2.0
"""Output for people: a failure is one line on stderr and in the journal or syslog. A log file is optional.

A log has one record per line, as text or JSON, with the fields of runc's and crun's logs (level, msg, time), then id,
stage and ``ms``, the milliseconds since the start of the hook. Failures also go to systemd's journal or, without it, to
syslog, because crun discards the output of hooks.

Every start of a container loads this module, so it imports only posix and time. Importing logging takes longer than
starting Python.
"""

from __future__ import annotations

import errno
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "oci-bind-hook"
BY_ALL = 0o002  # not 0o020: some systems give a group write access to /var/log
JOURNAL_SOCKET = "/run/systemd/journal/socket"
SYSLOG_SOCKET = "/dev/log"
# Somewhat less than rsyslog accepts by default, since the journal may forward to it. A socket accepts about 200 kB.
SYSLOG_BYTES = 8000
_CUT = " (truncated; --log has the full message)"
# syslog(3): the facility daemon and a severity.
ERROR = 3 << 3 | 3
WARNING = 3 << 3 | 4


def one_line(text: str) -> str:
    """Returns ``text`` with all unprintable characters escaped, such as those that move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def readable(text: str) -> str:
    """Returns ``text`` in a form that JSON and UTF-8 can represent: other bytes of a name become ``\\xff``."""
    if text.isascii():
        return text
    return "".join(_escape(ord(c)) if "\ud800" <= c <= "\udfff" else c for c in text)


def few(names: Sequence[str], most: int = 3) -> str:
    """Returns the first of ``names``, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8, PEP 383
        code -= 0xDC00
    # Not by the codec unicode_escape: Python would have to import it, which is impossible after setns(2).
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Log:
    """Writes records to a file and, with ``debug_wanted``, to stderr. Failures always go to stderr and syslog.

    Here, syslog is the journal if there is one. If the file cannot be written, this is reported there, and the
    container still starts.
    """

    def __init__(self) -> None:
        self.debug_wanted = False
        self.container = ""
        self.stage = ""
        # The start of the process: now minus its CPU time. Only the time spent waiting for the disk is missing.
        self._start = time.monotonic() - time.process_time()
        self._path = ""
        self._fd: int | None = None
        self._json = False
        self._syslog: int | None = None
        self._is_journal = False
        self._prepared = False

    def open(self, path: str, *, as_json: bool, changeable: Callable[[str, int], str] = lambda *_: "") -> None:
        """Appends all later records to the file ``path``. A new file gets the mode 0600.

        Refuses a place where others could create a link, through which root would write to any file: ``changeable``
        (kernel.files) returns the folder in which they could, "" for none.
        """
        self._json = as_json
        self._path = path
        try:
            flags = posix.O_WRONLY | posix.O_APPEND | posix.O_NONBLOCK | posix.O_CLOEXEC
            _check(changeable(path, BY_ALL))
            try:
                self._fd = posix.open(path, flags | posix.O_CREAT | posix.O_EXCL, 0o600)
            except FileExistsError:
                # Another user may have created a link since the check: O_EXCL follows no link, but this open does.
                _check(changeable(path, BY_ALL))
                self._fd = posix.open(path, flags)
        except OSError as reason:
            self._give_up(reason)

    def _give_up(self, reason: OSError) -> None:
        self._fd = None
        message = f"the log {self._path} cannot be written: {reason.strerror}"
        self.warning(message)
        self.prepare()
        self._to_syslog(WARNING, message)

    def prepare(self) -> None:
        """Imports and opens all that ``failure`` needs. Call this before setns(2), while ``/dev`` is the host's."""
        if self._prepared:
            return
        self._prepared = True
        if self._json:
            import json  # noqa: F401
        self._is_journal = self._connect(JOURNAL_SOCKET)
        if not self._is_journal:
            self._connect(SYSLOG_SOCKET)

    def _connect(self, path: str) -> bool:
        """Connects to the socket at ``path``. Returns whether a daemon listens on it."""
        if not posix.access(path, posix.F_OK):
            return False
        # Not socket, which imports a dozen modules, and not syslog(3), which opens files when called.
        import _socket

        try:
            syslog = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
        except OSError:
            return False
        try:
            syslog.settimeout(0)
            syslog.connect(path)
        except OSError:
            syslog.close()
            return False  # no daemon is running
        self._syslog = syslog.detach()
        return True

    def _to_syslog(self, priority: int, message: str) -> None:
        if self._syslog is None:
            return
        data = one_line(message).encode()
        if len(data) > SYSLOG_BYTES:
            data = (data[:SYSLOG_BYTES].decode(errors="ignore") + _CUT).encode()
        if self._is_journal:
            data = self._fields(priority) + b"MESSAGE=%b\n" % data
        else:
            data = f"<{priority}>{NAME}[{posix.getpid()}]: ".encode() + data
        try:
            posix.write(self._syslog, data)
        except OSError:
            pass  # the daemon has ended, or its queue is full

    def _fields(self, priority: int) -> bytes:
        """Returns the journal's fields except the message, one per line: systemd, "Native Journal Protocol"."""
        fields = {"PRIORITY": str(priority & 7), "SYSLOG_FACILITY": str(priority >> 3), "SYSLOG_IDENTIFIER": NAME}
        fields |= {"CONTAINER_ID": self.container, "STAGE": self.stage}
        return "".join(f"{name}={one_line(value)}\n" for name, value in fields.items() if value).encode()

    @property
    def is_kept(self) -> bool:
        """Whether records other than failures are written anywhere."""
        return self.debug_wanted or self._fd is not None

    def step(self, message: str) -> None:
        """Records that a step is done."""
        if self.is_kept:
            self._report("debug", message, message)

    def info(self, message: str) -> None:
        """Records what was done."""
        self._report("info", message, message)

    def warning(self, message: str) -> None:
        """Records what a user may want to change."""
        self._report("warning", message, f"warning: {message}")

    def _report(self, level: str, message: str, line: str) -> None:
        self._record(level, message)
        if self.debug_wanted:
            about = " ".join(word for word in (self.container, self.stage, f"{self._elapsed():.1f} ms") if word)
            _print(one_line(f"{NAME}: {about}: {line}"))

    def failure(self, message: str) -> None:
        """Writes one line for a failed run: the name of the hook, container id, stage and ``message``."""
        about = " ".join(word for word in (self.container, self.stage) if word)
        text = f"{about}: {message}" if about else message
        self._record("error", message)
        _print(one_line(f"{NAME}: {text}"))
        self.prepare()
        self._to_syslog(ERROR, text)

    def traceback(self, error: BaseException) -> None:
        """Writes the traceback of ``error`` to stderr, if ``debug_wanted``.

        Leaves out source lines: after setns(2), their paths may lead to files of the image.
        """
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
            posix.write(self._fd, line.encode(errors="backslashreplace") + b"\n")
        except OSError as reason:
            posix.close(self._fd)
            self._give_up(reason)


def _check(place: str) -> None:
    if place:
        raise OSError(errno.EPERM, f"other users can place a link in {place}")


def _quoted(value: str) -> str:
    """Returns ``value`` in double quotes, with quotes and backslashes escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{one_line(escaped)}"'


def _print(line: str) -> None:
    try:
        posix.write(2, line.encode(errors="backslashreplace") + b"\n")
    except OSError:
        pass  # stderr is closed or has no reader
