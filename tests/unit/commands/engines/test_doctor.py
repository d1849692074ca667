# SPDX-License-Identifier: Apache-2.0
"""What this machine has, asked of the machine itself: its kernel, its programs, and folders made for the test."""

from __future__ import annotations

import json
import os
import platform
import socket
from typing import TYPE_CHECKING

import pytest

from helpers import hooks_d_tables as tables
from oci_bind_hook import cli, log
from oci_bind_hook.commands.engines import doctor, hooks_d, install
from oci_bind_hook.commands.engines.finding import Finding, as_text, conclusion
from oci_bind_hook.commands.explain.drawing import Pen
from oci_bind_hook.documents import oci
from oci_bind_hook.kernel import rights
from oci_bind_hook.record import missing

if TYPE_CHECKING:
    from pathlib import Path


def found(name: str) -> Finding:
    [one] = [each for each in doctor.examine() if each.name == name]
    return one


def line(finding: Finding) -> str:
    return as_text([finding], Pen()).splitlines()[0]


def program(folder: Path, name: str, script: str) -> str:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of our own."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"relative::{folder}")
    return folder


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """One hooks.d folder instead of the machine's."""
    monkeypatch.setattr(hooks_d, "FOLDERS", (str(tmp_path / "hooks.d"),))
    return tmp_path / "hooks.d"


def test_each_thing_is_one_line_and_has_its_place_in_the_schema(capfd: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor"])
    *lines, last = capfd.readouterr().out.splitlines()
    assert last == conclusion(doctor.examine())[1]
    assert cli.main(["doctor", "--format=json"]) == code
    document = json.loads(capfd.readouterr().out)
    assert oci.violations(document, "doctor") == []
    names = [each["name"] for each in document["findings"]]
    assert len(lines) == len(names) == len(set(names))
    assert all(one[8:].startswith(name) for one, name in zip(lines, names, strict=True))
    assert {*doctor.FEATURES, *rights.CAPABILITIES, "Python", "state folder", "syslog"} <= {*names}
    missing = [each for each in document["findings"] if each["needed"] and not each["there"]]
    assert code == (os.EX_UNAVAILABLE if missing else os.EX_OK)
    assert [one for one in lines if one.startswith("MISSING ")] == [
        line(each) for each in doctor.examine() if each.is_problem
    ]


def test_software_is_told_with_its_version() -> None:
    assert found("Python").detail == platform.python_version()
    assert found("kernel").detail == platform.release()
    assert found("jsonschema").detail[0].isdigit()


def test_a_runtime_tells_its_version_in_one_line(programs: Path) -> None:
    path = program(programs, "crun", "printf 'crun version 9\\033\\nmore\\n'; [ \"$*\" = --version ]")
    assert found("crun").detail == f"{path}, crun version 9\x1b"
    assert line(found("crun")) == f"ok      crun: {path}, crun version 9\\x1b"
    assert "runtime" not in [each.name for each in doctor.examine()]


@pytest.mark.usefixtures("programs")
def test_a_program_in_the_folder_we_are_in_is_never_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "relative").mkdir()
    for folder in (tmp_path, tmp_path / "relative"):
        program(folder, "runc", f"touch {tmp_path}/started")
    assert found("runtime").is_problem
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("script", ["echo broken; exit 1", "kill -9 $$", ":"])
def test_a_runtime_that_tells_nothing_is_named(script: str, programs: Path) -> None:
    path = program(programs, "runc", script)
    assert line(found("runc")) == f"without runc: {path} does not report its version: it may not work"


def test_without_a_runtime_nothing_calls_the_hook(
    programs: Path, no_engines: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (programs / "runc").write_text("not executable")
    program(no_engines, "podman", "echo podman version 5")
    assert cli.main(["doctor"]) == os.EX_UNAVAILABLE
    told = "MISSING runtime: none of runc, crun, runsc, youki is on PATH: nothing calls the hook"
    lines = capfd.readouterr().out.splitlines()
    assert told in lines
    said = f"to do   podman: {no_engines}/podman, podman version 5: it does not call the hook yet: run "
    assert f"{said}oci-bind-hook install --prefix /usr -- --mount ..." in lines


def test_hooks_folders(folders: Path, tmp_path: Path) -> None:
    name = f"hooks.d {folders}"
    assert line(found(name)) == f"without {name}: does not exist"
    assert not found("registration").is_there
    _, registration = install.install(str(tmp_path / "p"), hooks_dir=str(folders))
    assert line(found(name)) == f"ok      {name}: files: 1, problems: 0"
    assert line(found("registration")) == f"ok      registration: {registration}"
    probe = tables.write_probe(tmp_path)
    (folders / "y.json").write_text(json.dumps(tables.current(probe, "y", stages=[])))
    assert line(found(name)) == f"ok      {name}: files: 2, problems: 0, warnings: 1"
    (folders / "y.json").unlink()
    (folders / "z.json").write_text(json.dumps(tables.current(probe, "z", stages=["x"])))
    assert line(found(name)) == f"MISSING {name}: files: 2, problems: 1: `install --check` has the details"


def test_the_state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "deep/state"
    monkeypatch.setattr(doctor, "state_folder", lambda *_: str(folder))
    assert found("state folder").is_there
    assert found("state folder").detail.startswith(f"{folder} is created at first use, on ")
    folder.mkdir(mode=0o700, parents=True)
    (folder / "c1.json").write_text("{}")
    (folder / "c1.lock").write_text("")
    assert found("state folder").detail.startswith(f"{folder}, mode 0700, uid {os.geteuid()}, on ")
    assert found("state folder").detail.endswith("containers recorded: 1")
    folder.chmod(0o755)
    assert found("state folder").is_problem
    assert "has mode 0755" in found("state folder").detail


def test_what_creates_the_state_folder(tmp_path: Path) -> None:
    others = "or choose another one by --root"
    assert missing.hint(f"{tmp_path}/state") == (
        f"create the folder {tmp_path}/state, owned by this user and with mode 0700, {others}"
    )
    above = f"create the folder {tmp_path}/no, owned by this user, or choose another state folder by --root"
    assert missing.hint(f"{tmp_path}/no/state") == above


@pytest.mark.parametrize("name", ["JOURNAL_SOCKET", "SYSLOG_SOCKET"])
def test_the_socket_of_the_journal_or_of_syslog(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for each in ("JOURNAL_SOCKET", "SYSLOG_SOCKET"):
        monkeypatch.setattr(log, each, str(tmp_path / each))
    assert not found("syslog").is_there
    (tmp_path / name).touch()
    assert not found("syslog").is_there
    (tmp_path / name).unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        daemon.bind(str(tmp_path / name))
        assert line(found("syslog")) == f"ok      syslog: {tmp_path / name}"


def test_without_syslog_it_names_the_registrations_whose_failures_are_lost(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in ("JOURNAL_SOCKET", "SYSLOG_SOCKET"):
        monkeypatch.setattr(log, each, str(tmp_path / each))
    assert found("syslog").without == "crun discards what hooks print, so only --log FILE shows failures"
    _, path = install.install(str(tmp_path / "p"), hooks_dir=str(folders), name="a")
    install.install(str(tmp_path / "p"), (), ["--log", "/x"], hooks_dir=str(folders), name="b")
    again = f"install {path} again with --log FILE after --"
    assert found("syslog").without == f"crun discards what hooks print: to see failures, {again}"


# -- for people --------------------------------------------------------------------------------------------------------

GOOD = Finding("Python", "3.11", is_there=True)
OPTIONAL = Finding("openat2", "", is_there=False, without="it is not asked twice")
LEFT = Finding("left behind", "killed runs: 1", is_there=False, advice="oci-bind-hook gc")
UNDONE = Finding("left behind", "nothing", is_there=True, advice="oci-bind-hook gc")
MISSING = Finding("pidfd", "", is_there=False, is_needed=True, without="no way in", advice="run Linux 5.8")
UNKNOWN = Finding("runtime /r", "", is_there=False, is_needed=True, without="it is gone", is_general=False)
CONCLUSIONS = {
    "All is well.": [GOOD, OPTIONAL, UNDONE],
    "The hook works here. First: oci-bind-hook gc": [GOOD, OPTIONAL, LEFT],
    "The hook does not work here. First: pidfd: run Linux 5.8": [LEFT, GOOD, MISSING, UNKNOWN],
    "Not everything works here. First: runtime /r: it is gone": [LEFT, GOOD, UNKNOWN, MISSING],
}


@pytest.mark.parametrize("last", CONCLUSIONS)
def test_the_last_line_says_whether_all_is_well_or_what_to_do_first(last: str) -> None:
    assert as_text(CONCLUSIONS[last], Pen()).splitlines()[-1] == last


def test_the_first_word_says_whether_something_has_to_be_done() -> None:
    each = [GOOD, OPTIONAL, LEFT, UNDONE, MISSING, UNKNOWN]
    assert [one.verdict for one in each] == ["ok", "without", "to do", "ok", "MISSING", "MISSING"]
    assert line(LEFT) == "to do   left behind: killed runs: 1"


def test_on_a_terminal_it_is_coloured_and_folded() -> None:
    text = as_text([GOOD, OPTIONAL, MISSING], Pen(width=30, colour=True))
    assert text.splitlines() == [
        "\x1b[1;32mok      \x1b[0mPython: 3.11",
        "\x1b[33mwithout \x1b[0mopenat2: it is not",
        "        asked twice",
        "\x1b[1;31mMISSING \x1b[0mpidfd: no way in",
        "\x1b[1;31mThe hook does not work here.\x1b[0m",
        "\x1b[1;31mFirst: pidfd: run Linux 5.8\x1b[0m",
    ]
