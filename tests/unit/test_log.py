# SPDX-License-Identifier: Apache-2.0
"""One record a line, whatever is in it; and a log that cannot be written stops nobody."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import stat
import time
import traceback
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook import log as log_module
from oci_bind_hook.log import Log, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"

ESCAPED = {
    "plain": ("a b", "a b"),
    "newline": ("a\nb\r", "a\\x0ab\\x0d"),
    "tab": ("a\tb", "a\\x09b"),
    "escape sequence": ("\x1b[2J", "\\x1b[2J"),
    "C1 control": ("\x9b31m", "\\x9b31m"),
    "delete": ("\x7f", "\\x7f"),
    "NUL": ("a\0b", "a\\x00b"),
    "right to left override": ("a\u202eb", "a\\u202eb"),
    "isolate": ("a\u2066b", "a\\u2066b"),
    "line separator": ("a\u2028b\u2029", "a\\u2028b\\u2029"),
    "zero width": ("a\u200bb\ufeff", "a\\u200bb\\ufeff"),
    "not UTF-8": ("a\udcffb", "a\\xffb"),
    "beyond 16 bits": ("a\U000e0041b", "a\\U000e0041b"),
    "letters and signs": ("ä → 漢 שלום 🙂", "ä → 漢 שלום 🙂"),
}


@pytest.mark.parametrize(("text", "shown"), ESCAPED.values(), ids=ESCAPED)
def test_one_line(text: str, shown: str) -> None:
    assert one_line(text) == shown


@given(some.text(some.characters(exclude_categories=[])))
def test_one_line_is_one_and_can_be_encoded(text: str) -> None:
    shown = one_line(text)
    assert shown.isprintable()
    assert len(f"{shown}\n".encode().decode().splitlines()) == 1


def opened(path: Path, *, as_json: bool = False) -> Log:
    log = Log()
    log.container, log.stage = "c1", "prestart"
    log.open(str(path), as_json=as_json)
    return log


def test_text_records(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = opened(tmp_path / "log")
    log.info("is done")
    log.warning('the "x" is\nodd \\')
    log.failure("it is wrong")
    told, first, second = (tmp_path / "log").read_text().splitlines()
    fields = r'id="c1" stage="prestart" ms="\d+\.\d"'
    assert re.fullmatch(rf'level="info" msg="is done" time="{TIME}" {fields}', told)
    assert re.fullmatch(rf'level="warning" msg="the \\"x\\" is\\x0aodd \\\\" time="{TIME}" {fields}', first)
    assert re.fullmatch(rf'level="error" msg="it is wrong" time="{TIME}" {fields}', second)
    assert capfd.readouterr() == ("", "oci-bind-hook: c1 prestart: it is wrong\n")


def test_text_record_cannot_be_forged(tmp_path: Path) -> None:
    opened(tmp_path / "log").warning('x" level="error')
    assert (tmp_path / "log").read_text().count(' level="') == 0


@pytest.mark.parametrize("message", ["plain", 'the "x" is\nodd \\', "\u202e\udcff\x1b[2J"], ids=ascii)
def test_json_records(tmp_path: Path, message: str) -> None:
    started = time.monotonic() - time.process_time()
    opened(tmp_path / "log", as_json=True).warning(message)
    (line,) = (tmp_path / "log").read_bytes().splitlines()
    record = json.loads(line)
    assert re.fullmatch(TIME, record.pop("time"))
    assert 0 < record.pop("ms") <= 1000 * (time.monotonic() - started) + 1000  # threads count too
    assert record == {"level": "warning", "msg": message, "id": "c1", "stage": "prestart"}


def test_log_is_appended_to_and_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    opened(tmp_path / "log").warning("one")
    opened(tmp_path / "log").warning("two")
    assert re.findall('msg="(.*?)"', (tmp_path / "log").read_text()) == ["one", "two"]
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o600


def unwritable(kind: str, folder: Path) -> Path:
    path = folder / "log"
    if kind == "folder":
        path.mkdir()
    elif kind == "file as folder":
        path.write_text("")
        path /= "log"
    else:
        path = folder / "absent/log"
    return path


REASONS = {
    "folder": "Is a directory",
    "file as folder": "Not a directory",
    "no folder": "No such file or directory",
}


@pytest.mark.parametrize(("kind", "reason"), REASONS.items())
def test_unwritable_log_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str], kind: str, reason: str) -> None:
    path = unwritable(kind, tmp_path)
    log = Log()
    log.debug_wanted = True
    log.open(str(path), as_json=False)
    log.warning("goes on")
    warning = r"oci-bind-hook: \d+\.\d ms: warning:"
    expected = f"{warning} the log {path} cannot be written: {reason}\n{warning} goes on\n"
    assert re.fullmatch(expected, capfd.readouterr().err)


def test_full_disk_is_borne(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.open("/dev/full", as_json=False)
    log.failure("one")
    log.failure("two")
    assert capfd.readouterr().err == "oci-bind-hook: one\noci-bind-hook: two\n"


def test_full_disk_is_told_once(capfd: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.debug_wanted = True
    log.open("/dev/full", as_json=False)
    log.step("one")
    log.step("two")
    told = [line.split(" ms: ")[1] for line in capfd.readouterr().err.splitlines()]
    assert told == ["warning: the log /dev/full cannot be written: No space left on device", "one", "two"]


def test_debug_tells_each_step_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    log = opened(tmp_path / "log")
    log.debug_wanted = True
    log.step("a\nstep")
    assert re.fullmatch(r"oci-bind-hook: c1 prestart \d+\.\d ms: a\\x0astep\n", capfd.readouterr().err)
    assert (tmp_path / "log").read_text().startswith('level="debug" msg="a\\x0astep" ')


@pytest.mark.parametrize(
    ("container", "stage", "line"),
    [
        ("", "", "oci-bind-hook: it is wrong"),
        ("c1", "", "oci-bind-hook: c1: it is wrong"),
        ("", "poststop", "oci-bind-hook: poststop: it is wrong"),
        ("c1", "poststop", "oci-bind-hook: c1 poststop: it is wrong"),
    ],
)
def test_failure_begins_with_who_and_where(
    capfd: pytest.CaptureFixture[str], container: str, stage: str, line: str
) -> None:
    log = Log()
    log.container, log.stage = container, stage
    log.failure("it is wrong")
    assert capfd.readouterr() == ("", f"{line}\n")


def raise_below() -> None:
    raise ValueError("odd")


@pytest.mark.parametrize("wanted", [False, True], ids=["quiet", "debug"])
def test_traceback_only_when_debugging(capfd: pytest.CaptureFixture[str], *, wanted: bool) -> None:
    log = Log()
    log.debug_wanted = wanted
    with pytest.raises(ValueError, match="odd") as raised:
        raise_below()
    log.traceback(raised.value)
    frames = traceback.extract_tb(raised.value.__traceback__)
    places = [(frame.filename, frame.lineno, frame.name) for frame in frames]
    assert len(places) == 2
    expected = [f"oci-bind-hook:   {name}:{number} in {function}\n" for name, number, function in places]
    assert capfd.readouterr() == ("", "".join(expected) if wanted else "")


def test_closed_stderr_is_borne() -> None:
    saved = os.dup(2)
    try:
        os.close(2)
        Log().failure("nobody hears it")
    finally:
        os.dup2(saved, 2)
        os.close(saved)


@pytest.fixture
def sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, socket.socket]]:
    """The journal's socket and that of syslog, by the names of their files. They are there once they are bound."""
    with contextlib.ExitStack() as stack:
        found = {}
        for name, place in (("journal", "JOURNAL_SOCKET"), ("syslog", "SYSLOG_SOCKET")):
            monkeypatch.setattr(log_module, place, str(tmp_path / name))
            found[name] = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            found[name].settimeout(10)
        yield found


def fields(datagram: bytes) -> dict[str, str]:
    """What the journal reads in a datagram: values without a newline only."""
    assert datagram.endswith(b"\n")
    return dict(line.split("=", 1) for line in datagram.decode()[:-1].split("\n"))


def test_the_journal_gets_fields(tmp_path: Path, sockets: dict[str, socket.socket]) -> None:
    for name, daemon in sockets.items():
        daemon.bind(str(tmp_path / name))
    log = Log()
    log.container, log.stage = "c1", "createRuntime"
    log.failure("it is\nwrong")
    assert fields(sockets["journal"].recv(1 << 20)) == {
        "MESSAGE": "c1 createRuntime: it is\\x0awrong",
        "PRIORITY": "3",
        "SYSLOG_FACILITY": "3",
        "SYSLOG_IDENTIFIER": "oci-bind-hook",
        "CONTAINER_ID": "c1",
        "STAGE": "createRuntime",
    }
    log = Log()
    log.open(str(tmp_path), as_json=False)
    told = fields(sockets["journal"].recv(1 << 20))
    assert told.pop("MESSAGE") == f"the log {tmp_path} cannot be written: Is a directory"
    assert told == {"PRIORITY": "4", "SYSLOG_FACILITY": "3", "SYSLOG_IDENTIFIER": "oci-bind-hook"}
    sockets["syslog"].settimeout(0)
    with pytest.raises(BlockingIOError):
        sockets["syslog"].recv(1)


@pytest.mark.parametrize("is_left", [True, False], ids=["nobody reads it", "not there"])
def test_without_a_journal_syslog_gets_the_sentence(
    tmp_path: Path, sockets: dict[str, socket.socket], *, is_left: bool
) -> None:
    sockets["syslog"].bind(str(tmp_path / "syslog"))
    if is_left:
        sockets["journal"].bind(str(tmp_path / "journal"))
        sockets["journal"].close()
    log = Log()
    log.container, log.stage = "c1", "poststop"
    log.failure("it is wrong")
    told = sockets["syslog"].recv(1 << 20).decode()
    assert re.fullmatch(r"<27>oci-bind-hook\[\d+\]: c1 poststop: it is wrong", told)


@pytest.mark.parametrize("name", ["journal", "syslog"])
@pytest.mark.parametrize("letter", ["x", "\u00e4", "\u6f22"], ids=ascii)
def test_a_long_sentence_is_cut_between_letters_and_that_is_said(
    tmp_path: Path, sockets: dict[str, socket.socket], name: str, letter: str
) -> None:
    """A datagram of that size is refused as a whole."""
    sockets[name].bind(str(tmp_path / name))
    for length, is_cut in ((10, False), (2000, False), (300_000, True)):
        Log().failure(letter * length)
        datagram = sockets[name].recv(1 << 20)
        told = fields(datagram)["MESSAGE"] if name == "journal" else datagram.decode().split(": ", 1)[1]
        whole, _, mark = told.partition(" (")
        assert mark == ("truncated; --log has the full message)" if is_cut else "")
        assert whole == letter * (8000 // len(letter.encode()) if is_cut else length)
        assert len(datagram) < 8192
