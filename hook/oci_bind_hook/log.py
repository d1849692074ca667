# SPDX-License-Identifier: Apache-2.0
"""Output for people: one line on stderr and in the journal or syslog for a failure, and a log if one is asked for.

A log has one record per line, as text or JSON, with the fields of runc's and crun's logs (level, msg, time), and then
id, stage and ``ms``, the milliseconds since the hook was started. Failures go to systemd's journal too, or to syslog
where that is not: crun discards what hooks print.

Loaded by every start of a container: only posix and time. logging takes longer to import than Python to start.
"""

from __future__ import annotations

import errno
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NAME = "oci-bind-hook"
BY_ALL = 0o002  # not 0o020: some systems give /var/log to a group
JOURNAL_SOCKET = "/run/systemd/journal/socket"
SYSLOG_SOCKET = "/dev/log"
# Somewhat less than rsyslog takes by default, to which the journal may forward. A socket takes some 200 kB, and refuses
# more.
SYSLOG_BYTES = 8000
_CUT = " (truncated; --log has the full message)"
# syslog(3): the facility daemon, with a severity.
ERROR = 3 << 3 | 3
WARNING = 3 << 3 | 4


def one_line(text: str) -> str:
    """``text`` with escapes for all characters that are not printable, such as those that move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(ord(c)) for c in text)


def readable(text: str) -> str:
    """``text`` in a form that JSON and UTF-8 can hold: what was decoded from other bytes is written as ``\\xff``."""
    if text.isascii():
        return text
    return "".join(_escape(ord(c)) if "\ud800" <= c <= "\udfff" else c for c in text)


def few(names: Sequence[str], most: int = 3) -> str:
    """The first of ``names``, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8, PEP 383
        code -= 0xDC00
    # Not by the codec unicode_escape, which Python would import: after setns(2) that is impossible.
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class Log:
    """Writes records to a file, with ``debug_wanted`` to stderr too, and failures always to stderr and to syslog.

    syslog is the journal, where that is. A log file that cannot be written is reported there, and raises nothing: the
    container starts all the same.
    """

    def __init__(self) -> None:
        self.debug_wanted = False
        self.container = ""
        self.stage = ""
        # The start of the process, but for the time it waited for the disk: until here it mostly used the processor.
        self._start = time.monotonic() - time.process_time()
        self._path = ""
        self._fd: int | None = None
        self._json = False
        self._syslog: int | None = None
        self._is_journal = False
        self._prepared = False

    def open(self, path: str, *, as_json: bool, changeable: Callable[[str, int], str] = lambda *_: "") -> None:
        """Appends all later records to the file ``path``. A new file gets the mode 0600.

        Not where others could have put a link, by which root would write to any file: ``changeable``, of kernel.files,
        returns the folder in which they could.
        """
        self._json = as_json
        self._path = path
        try:
            flags = posix.O_WRONLY | posix.O_APPEND | posix.O_NONBLOCK | posix.O_CLOEXEC
            _check(changeable(path, BY_ALL))
            try:
                self._fd = posix.open(path, flags | posix.O_CREAT | posix.O_EXCL, 0o600)
            except FileExistsError:
                # What is there by now may have been put there since: O_EXCL follows no link, and this does.
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
        """Imports and opens all that ``failure`` needs. To be called before setns(2), while ``/dev`` is the host's."""
        if self._prepared:
            return
        self._prepared = True
        if self._json:
            import json  # noqa: F401
        self._is_journal = self._connect(JOURNAL_SOCKET)
        if not self._is_journal:
            self._connect(SYSLOG_SOCKET)

    def _connect(self, path: str) -> bool:
        """Holds the socket at ``path``, if anybody reads from it."""
        if not posix.access(path, posix.F_OK):
            return False
        # Not socket, which imports a dozen modules, and not syslog(3), which opens files when it is called.
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
        """What the journal is told beside the message: a line for each field, systemd, "Native Journal Protocol"."""
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
            self._tell("debug", message, message)

    def info(self, message: str) -> None:
        """Records what was done."""
        self._tell("info", message, message)

    def warning(self, message: str) -> None:
        """Records what a user may want to change."""
        self._tell("warning", message, f"warning: {message}")

    def _tell(self, level: str, message: str, line: str) -> None:
        self._record(level, message)
        if self.debug_wanted:
            about = " ".join(word for word in (self.container, self.stage, f"{self._elapsed():.1f} ms") if word)
            _print(one_line(f"{NAME}: {about}: {line}"))

    def failure(self, message: str) -> None:
        """Writes the one line for a failed run: the name of the hook, container id, stage and ``message``."""
        about = " ".join(word for word in (self.container, self.stage) if word)
        text = f"{about}: {message}" if about else message
        self._record("error", message)
        _print(one_line(f"{NAME}: {text}"))
        self.prepare()
        self._to_syslog(ERROR, text)

    def traceback(self, error: BaseException) -> None:
        """Writes the traceback of ``error`` to stderr, if ``debug_wanted``.

        Without source lines: after setns(2) their paths may lead to files of the image.
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
    """``value`` in double quotes, with quotes and backslashes escaped."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{one_line(escaped)}"'


def _print(line: str) -> None:
    try:
        posix.write(2, line.encode(errors="backslashreplace") + b"\n")
    except OSError:
        pass  # stderr is closed, or a pipe without a reader
