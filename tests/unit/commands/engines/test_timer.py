# SPDX-License-Identifier: Apache-2.0
"""The timer of ``install --gc-timer``: what is written where, what is said of it later, and that it goes again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers import support
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import check, doctor, hooks_d, registration, timer
from oci_bind_hook.commands.engines import machine as module_of_machine
from oci_bind_hook.commands.engines.launcher import LAUNCHER_PATH, MARK
from oci_bind_hook.documents import oci

Captured = pytest.CaptureFixture[str]


class Machine:
    """Folders of a test in the place of the machine's: hooks.d, and systemd's for units of the system."""

    def __init__(self, path: Path, capfd: Captured) -> None:
        self.path = path
        self.units = path / "units"
        self.hooks = path / "hooks.d"
        self.service, self.timer = self.units / timer.SERVICE, self.units / timer.TIMER
        self.launcher = str(path / LAUNCHER_PATH)
        self.wanted = self.units / "timers.target.wants" / timer.TIMER
        self.capfd = capfd

    def run(self, *words: str, code: int = os.EX_OK) -> tuple[list[str], list[str]]:
        """What a command prints on stdout and on stderr, without warnings that are about the folders of the test."""
        self.capfd.readouterr()
        assert cli.main([*words]) == code
        out, err = self.capfd.readouterr()
        files = [line for line in out.splitlines() if not line.endswith("/")]
        return files, [line for line in err.splitlines() if ": warning: " not in line]

    def install(self, *words: str, code: int = os.EX_OK) -> tuple[list[str], list[str]]:
        return self.change("install", "--prefix", str(self.path), "--hooks-dir", str(self.hooks), *words, code=code)

    def uninstall(self, code: int = os.EX_OK) -> tuple[list[str], list[str]]:
        return self.change("uninstall", "--prefix", str(self.path), "--hooks-dir", str(self.hooks), code=code)

    def change(self, *words: str, code: int = os.EX_OK) -> tuple[list[str], list[str]]:
        """The same of a command that says what it does to files: their paths. What it does is in ``done``."""
        out, err = self.run(*words, code=code)
        self.done = [line.partition(" ")[0] for line in out]
        return [line.partition(" ")[2].partition(", which registered ")[0] for line in out], err

    def enable(self) -> None:
        """As ``systemctl enable`` does it."""
        self.wanted.parent.mkdir()
        self.wanted.symlink_to(self.timer)

    def checked(self) -> tuple[list[str], object]:
        """The problems that `install --check` has with the units, and what it says of the timer."""
        lines, _ = self.run("install", "--check", "--hooks-dir", str(self.hooks))
        text, _ = self.run("install", "--check", "--hooks-dir", str(self.hooks), "--format=json")
        document = json.loads("".join(text))
        assert oci.violations(document, "hooks-check") == []
        assert [line for line in lines if line.startswith("timer ")] == (
            [f"timer {self.timer} calls {' '.join(document['timer']['command'])}"] if document["timer"] else []
        )
        messages = [each["message"] for each in document["problems"] if each["path"] == str(self.service)]
        return messages, document["timer"]

    def doctor(self) -> str:
        (finding,) = [each for each in doctor.examine() if each.name == "gc timer"]
        assert not finding.is_problem
        return f"{finding.verdict:8}{finding.text()}\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> Machine:
    monkeypatch.setattr(timer, "is_system", lambda: True)
    found = Machine(tmp_path, capfd)
    monkeypatch.setattr(timer, "SYSTEM_FOLDER", str(found.units))
    monkeypatch.setattr(hooks_d, "FOLDERS", (str(found.hooks),))
    return found


ENABLE = f"systemctl daemon-reload && systemctl enable --now {timer.TIMER}"


def test_install_writes_both_units_and_says_how_to_enable_the_timer(machine: Machine) -> None:
    out, err = machine.install("--gc-timer", "--", "--root", "/var/lib/hook")
    assert out[2:] == [str(machine.service), str(machine.timer)]
    assert err == [f"oci-bind-hook: to enable the timer: {ENABLE}"]
    assert f"\nExecStart={machine.launcher} gc --root /var/lib/hook\n" in machine.service.read_text()
    assert support.tree(machine.units)[timer.SERVICE][0] == "-rw-r--r--"
    assert machine.done == ["wrote"] * 4
    before = support.tree(machine.path)
    machine.install("--gc-timer", "--", "--root", "/var/lib/hook")
    assert machine.done == ["unchanged"] * 4
    assert support.tree(machine.path) == before
    machine.install("--gc-timer")
    assert machine.done == ["unchanged", "replaced", "replaced", "unchanged"]
    assert f"\nExecStart={machine.launcher} gc\n" in machine.service.read_text()


def test_alone_it_adds_the_timer_to_a_hook_that_is_registered(machine: Machine) -> None:
    """Another registration, for all containers and without a bind, would replace it."""
    prefix = ("--prefix", str(machine.path))
    machine.run("install", *prefix, "--annotation", "a=b", "--", "--mount", "src=/,dst=/a")
    [before] = [(path, path.read_bytes()) for path in machine.path.rglob("oci-bind-hook.json")]
    out, err = machine.run("install", *prefix, "--gc-timer")
    assert [line.partition(" ")[0] for line in out] == ["wrote", "wrote"]
    assert err == [f"oci-bind-hook: to enable the timer: {ENABLE}"]
    assert [(path, path.read_bytes()) for path in machine.path.rglob("oci-bind-hook.json")] == [before]


def test_alone_it_finds_the_prefix(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registration without a bind below another prefix would be of no use."""
    prefixes = [str(machine.path / name) for name in ("a", "b")]
    for module in (module_of_machine, registration):
        monkeypatch.setattr(module, "PREFIXES", prefixes)
    monkeypatch.setattr(module_of_machine, "everywhere", list)
    _, err = machine.run("install", "--gc-timer", code=os.EX_NOINPUT)
    assert err == ["oci-bind-hook: --gc-timer: the hook is not installed (run install with --mount first)"]
    assert machine.doctor().endswith("; `install` adds a timer if it has --gc-timer\n")
    _, err = machine.run("install", "--gc-timer", "--prefix", prefixes[0], code=os.EX_NOINPUT)
    place = f"the hook is not installed below {prefixes[0]}"
    assert err == [f"oci-bind-hook: --gc-timer: {place} (run install with --mount first)"]
    assert not any(machine.path.iterdir())
    machine.run("install", "--prefix", prefixes[1], "--", "--mount", "src=/,dst=/a")
    command = f"`oci-bind-hook install --gc-timer --prefix {prefixes[1]}`"
    assert machine.doctor().endswith(f"; {command} adds a timer\n")
    before = support.tree(Path(prefixes[1]))
    out, _ = machine.run("install", "--gc-timer")
    assert out == [f"wrote {machine.service}", f"wrote {machine.timer}"]
    assert f"\nExecStart={prefixes[1]}/{LAUNCHER_PATH} gc\n" in machine.service.read_text()
    assert support.tree(Path(prefixes[1])) == before
    assert not os.path.lexists(prefixes[0])
    machine.run("install", "--prefix", prefixes[0], "--", "--mount", "src=/,dst=/a")
    _, err = machine.run("install", "--gc-timer", code=os.EX_USAGE)
    several = f"the hook is installed below {', '.join(prefixes)} (select one by --prefix)"
    assert err == [f"oci-bind-hook: --gc-timer: {several}"]


def test_without_the_option_none_is_written(machine: Machine) -> None:
    assert machine.install() == ([machine.launcher, str(machine.hooks / "oci-bind-hook.json")], [])
    assert not machine.units.exists()


def test_another_folder(machine: Machine) -> None:
    out, _ = machine.install("--gc-timer", "--units-dir", str(machine.path / "other"))
    assert out[2:] == [str(machine.path / "other" / name) for name in (timer.SERVICE, timer.TIMER)]
    out, _ = machine.run(
        *("uninstall", "--prefix", str(machine.path), "--hooks-dir", str(machine.hooks)),
        *("--units-dir", str(machine.path / "other")),
    )
    assert len(out) == 4
    assert not os.path.lexists(machine.path / "other")


def test_uninstall_removes_them_and_the_link_that_enables_the_timer(machine: Machine) -> None:
    machine.install("--gc-timer")
    machine.enable()
    (machine.units / "other.timer").write_text(MARK)
    out, err = machine.uninstall()
    assert out[2:] == [str(machine.wanted), str(machine.timer), str(machine.service)]
    assert err == [f"oci-bind-hook: to stop the timer: systemctl stop {timer.TIMER}; systemctl daemon-reload"]
    assert sorted(os.listdir(machine.units)) == ["other.timer", "timers.target.wants"]


def test_the_option_alone_removes_only_the_timer(machine: Machine) -> None:
    machine.install("--gc-timer", "--", "--mount", "src=/,dst=/a")
    machine.enable()
    prefix = ("--prefix", str(machine.path))
    out, err = machine.run("uninstall", *prefix, "--gc-timer")
    assert out == [f"removed {path}" for path in (machine.wanted, machine.timer, machine.service)]
    assert err == [f"oci-bind-hook: to stop the timer: systemctl stop {timer.TIMER}; systemctl daemon-reload"]
    assert os.path.exists(machine.launcher)
    assert (machine.hooks / "oci-bind-hook.json").exists()
    out, err = machine.run("uninstall", "--gc-timer", code=os.EX_NOINPUT)
    assert (out, err) == (
        [],
        [f"oci-bind-hook: install wrote no such timer in {machine.units} (name its folder by --units-dir)"],
    )


def test_the_timer_of_another_prefix_stays(machine: Machine) -> None:
    machine.install("--gc-timer")
    before = support.tree(machine.path)
    _, err = machine.run("uninstall", "--prefix", "/other", "--gc-timer", code=os.EX_NOINPUT)
    said = f"install wrote no such timer in {machine.units} (the one there calls {machine.launcher})"
    assert err == [f"oci-bind-hook: {said}"]
    assert support.tree(machine.path) == before


def test_with_a_registration_the_timer_goes_although_others_use_the_launcher(machine: Machine) -> None:
    machine.install("--gc-timer", "--name", "a")
    machine.install("--name", "b")
    words = ("--prefix", str(machine.path), "--hooks-dir", str(machine.hooks), "--name", "a", "--gc-timer")
    out, _ = machine.run("uninstall", *words)
    gone = (machine.hooks / "oci-bind-hook-a.json", machine.timer, machine.service)
    assert out == [f"removed {path}" for path in gone]
    assert os.path.exists(machine.launcher)


def test_the_timer_stays_if_the_registration_is_not_found(machine: Machine) -> None:
    machine.install("--gc-timer", "--name", "a")
    before = support.tree(machine.path)
    words = ("--prefix", str(machine.path), "--hooks-dir", str(machine.hooks), "--name", "mistyped", "--gc-timer")
    out, err = machine.run("uninstall", *words, code=os.EX_NOINPUT)
    assert (out, len(err)) == ([], 1)
    assert support.tree(machine.path) == before


def test_the_timer_of_another_launcher_stays_and_is_named(machine: Machine) -> None:
    machine.install("--gc-timer", "--name", "a")
    other = machine.path / "other"
    machine.run("install", "--prefix", str(other), "--name", "b")
    machine.capfd.readouterr()
    assert cli.main(["uninstall", "--prefix", str(other), "--name", "b", "--gc-timer"]) == os.EX_OK
    said = f"install wrote no timer for this in {machine.units}: the one there calls {machine.launcher}"
    assert f"oci-bind-hook: warning: {said}\n" in machine.capfd.readouterr().err
    assert machine.timer.exists()


def test_they_stay_with_a_launcher_that_stays_and_go_if_it_went_before(machine: Machine) -> None:
    machine.install("--gc-timer")
    machine.run("install", "--prefix", str(machine.path))
    assert machine.uninstall()[0] == [str(machine.hooks / "oci-bind-hook.json")]
    assert machine.service.exists()
    os.unlink(machine.launcher)
    (machine.path / "share/containers/oci/hooks.d/oci-bind-hook.json").unlink()
    assert machine.uninstall()[0] == [str(machine.timer), str(machine.service)]
    assert machine.uninstall(os.EX_NOINPUT)[0] == []


@pytest.mark.parametrize("name", [timer.SERVICE, timer.TIMER])
def test_what_others_wrote_is_neither_replaced_nor_removed(name: str, machine: Machine) -> None:
    machine.units.mkdir()
    (machine.units / name).write_text("[Unit]\nExecStart=/x gc\n")
    before = support.tree(machine.path)
    _, err = machine.install("--gc-timer", code=os.EX_UNAVAILABLE)
    assert err == [f"oci-bind-hook: {machine.units / name}: was not written by install (move the file)"]
    assert support.tree(machine.path) == before
    machine.install()
    machine.uninstall()
    assert os.listdir(machine.units) == [name]


@pytest.mark.parametrize("prefix", ["a\nb", 'a"b', "a'b", "a\\b", "a\udcff"])
def test_a_launcher_that_no_unit_can_name_is_refused_before_anything_is_written(prefix: str, machine: Machine) -> None:
    machine.path /= prefix
    _, err = machine.install("--gc-timer", code=os.EX_UNAVAILABLE)
    assert err[0].endswith(": a unit cannot contain this path")
    assert os.listdir(machine.path.parent) == []


def test_check_and_doctor_know_of_it(machine: Machine) -> None:
    assert machine.checked() == ([], None)
    assert machine.doctor().startswith("without gc timer: nothing runs gc regularly; ")
    machine.install("--gc-timer", "--", "--root", "/x")
    command = [machine.launcher, "gc", "--root", "/x"]
    written = {"path": str(machine.timer), "command": command}
    assert machine.checked() == ([f"the timer is not enabled: {ENABLE}"], {**written, "enabled": False})
    assert machine.doctor() == f"to do   gc timer: {machine.timer}: the timer is not enabled: {ENABLE}\n"
    machine.enable()
    assert machine.checked() == ([], {**written, "enabled": True})
    assert machine.doctor() == f"ok      gc timer: {machine.timer}\n"
    assert {"left behind --root /x", "left behind"}.isdisjoint(each.name for each in doctor.examine())
    assert [each.name for each in doctor.examine() if each.name.startswith("state f")] == ["state folder --root /x"]
    machine.install("--", "--root", "/y z")
    other = (
        "calls gc with --root /x, but the hook is registered with --root /y z: for a gc of all registered folders, run "
        "install --gc-timer without --root"
    )
    assert machine.checked()[0] == [other]
    assert machine.doctor() == f"to do   gc timer: {machine.timer}: {other}\n"
    machine.install()
    assert machine.checked()[0] == [other.replace("with --root /y z", "without --root")]
    machine.timer.unlink()
    assert machine.checked()[0][0] == f"{machine.timer} does not exist: run install with --gc-timer again"
    os.unlink(machine.launcher)
    gone = f"{machine.launcher}, which it calls, does not exist: run install with --gc-timer again"
    assert [each.message for each in check.Check([]).problems] == [gone]


def test_a_service_that_somebody_has_edited_is_judged_by_what_it_calls(machine: Machine) -> None:
    machine.install("--gc-timer")
    machine.enable()
    text = machine.service.read_text()
    machine.service.write_text(text.replace(f"{machine.launcher} gc", f"{machine.launcher} gc --odd"))
    assert machine.checked()[0] == []
    machine.service.write_text(text.replace("ExecStart", "Other"))
    assert machine.checked() == ([], None)


@pytest.mark.parametrize("has_podman", [True, False])
def test_an_ordinary_users_goes_by_way_of_podman_where_it_is(
    has_podman: bool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer, "is_system", lambda: False)
    monkeypatch.setenv("HOME", str(machine.path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    podman = machine.path / "bin/podman"
    podman.parent.mkdir()
    podman.touch(0o755)
    monkeypatch.setenv("PATH", str(podman.parent) if has_podman else "/absent")
    out, err = machine.install("--gc-timer")
    service = machine.path / "home/.config/systemd/user" / timer.SERVICE
    assert out[2:] == [str(service), str(service.with_suffix(".timer"))]
    assert err == [f"oci-bind-hook: to enable the timer: {ENABLE.replace('systemctl', 'systemctl --user')}"]
    before_it = f"{podman} unshare " if has_podman else ""
    assert f"\nExecStart={before_it}{machine.launcher} gc\n" in service.read_text()
    assert timer.Timer().launcher == machine.launcher
    monkeypatch.setenv("XDG_CONFIG_HOME", str(machine.path / "config"))
    assert timer.Timer().folder == str(machine.path / "config/systemd/user")


TEXT = some.text(some.characters(exclude_categories=("C", "Zl", "Zp", "Zs"), include_characters=" "), min_size=1)


@given(some.lists(TEXT.map("/".__add__), min_size=1))
def test_the_words_of_a_command_are_read_as_they_were_written(words: list[str]) -> None:
    words[0] = "".join(letter for letter in words[0] if letter not in "\"'\\")
    assert timer._words(timer._command(words)) == words
