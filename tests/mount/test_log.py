# SPDX-License-Identifier: Apache-2.0
"""The one line in syslog, where crun lets it be found: on a ``/dev`` of the test's own."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from oci_bind_hook import cli
from oci_bind_hook.log import Log

if TYPE_CHECKING:
    from pathlib import Path

# syslog(3): the facility daemon, with a severity.
LOG_DAEMON_ERR = b"<27>"
LOG_DAEMON_WARNING = b"<28>"


@pytest.fixture
def syslog(tmp_path: Path) -> socket.socket:
    """What listens on ``/dev/log``; nothing else but ``/dev/null`` is there."""
    dev = tmp_path / "dev"
    dev.mkdir()
    (dev / "null").touch()
    mounting.bind("/dev/null", str(dev / "null"))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    os.chdir(dev)  # the name of a socket must be short
    listener.bind("log")
    listener.settimeout(0)
    mounting.bind(str(dev), "/dev", recursive=True)
    return listener


def received(listener: socket.socket) -> list[bytes]:
    """All datagrams that have come, without our name and pid."""
    found: list[bytes] = []
    while True:
        try:
            data = listener.recv(65536)
        except BlockingIOError:
            return found
        _, _, tail = data.partition(b"oci-bind-hook[%d]: " % os.getpid())
        found.append(data[:4] + tail.rstrip(b"\0"))


def test_failure_is_in_syslog_too(syslog: socket.socket, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.container, log.stage = "c1", "prestart"
    log.info("a step")
    log.warning("a warning")
    log.failure("100% wrong: %s\n\x1b[2J")
    line = "c1 prestart: 100% wrong: %s\\x0a\\x1b[2J"
    assert received(syslog) == [LOG_DAEMON_ERR + line.encode()]
    assert capfd.readouterr() == ("", f"oci-bind-hook: {line}\n")


def test_command_line_that_is_wrong_is_in_syslog(syslog: socket.socket, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--root", "relative"]) == os.EX_USAGE
    line = '--root: "relative" is not an absolute path'
    assert received(syslog) == [LOG_DAEMON_ERR + line.encode()]
    assert capfd.readouterr().err == f"oci-bind-hook: {line}\n"


def test_log_that_cannot_be_written_is_told_to_syslog(syslog: socket.socket, tmp_path: Path) -> None:
    Log().open(f"{tmp_path}/absent/log", as_json=False)
    line = f"the log {tmp_path}/absent/log cannot be written: No such file or directory"
    assert received(syslog) == [LOG_DAEMON_WARNING + line.encode()]


def test_what_was_prepared_is_found_again_when_dev_has_changed(syslog: socket.socket) -> None:
    log = Log()
    log.prepare()
    mounting.tmpfs("/dev")
    log.failure("it is wrong")
    assert received(syslog) == [LOG_DAEMON_ERR + b"it is wrong"]


def test_syslog_that_nobody_reads_is_borne(syslog: socket.socket, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.prepare()
    syslog.close()
    log.failure("it is wrong")
    assert capfd.readouterr().err == "oci-bind-hook: it is wrong\n"


def test_no_syslog_no_line(syslog: socket.socket, capfd: pytest.CaptureFixture[str]) -> None:
    os.unlink("/dev/log")
    Log().failure("it is wrong")
    assert received(syslog) == []
    assert capfd.readouterr().err == "oci-bind-hook: it is wrong\n"
