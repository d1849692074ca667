# SPDX-License-Identifier: Apache-2.0
"""uninstall --all takes every trace away: what is left is what was there before, and what is still needed."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.mounting import named, request
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import registration, settings, uninstall
from oci_bind_hook.commands.engines.launcher import import_folders
from oci_bind_hook.options import DEFAULT_ROOT
from oci_bind_hook.record.folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from helpers.mounting import Bench

    Captured = pytest.CaptureFixture[str]

NOBODY = 2**22 + 1  # no pid is so large
UID = 1000
DAEMON_JSON = '{\n  "log-level": "warn"\n}\n'


def run(capfd: Captured, *words: str, code: int = os.EX_OK) -> tuple[list[str], str]:
    """The paths that were removed or written, and what was said of the rest."""
    capfd.readouterr()
    assert cli.main([*words]) == code
    out, err = capfd.readouterr()
    return [line.partition(" ")[2] for line in out.splitlines()], err


def everywhere(machine: Path) -> dict[str, object]:
    """All that install may write to, and what stands there."""
    places = ("/run", "/usr/share", "/usr/libexec", "/usr/local", "/etc/containers", "/etc/cdi", machine)
    return {f"{place}:{name}": entry for place in places for name, entry in support.tree(place).items() if name != "."}


def names(machine: Path) -> set[str]:
    return {*everywhere(machine)}


@pytest.fixture
def engines(machine: Path) -> Path:
    """docker, with settings of its own, and containerd, without."""
    for name in ("dockerd", "containerd"):
        program = machine / "programs" / name
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
    Path(settings.DAEMON_JSON).write_text(DAEMON_JSON)
    return machine


def install_everything(capfd: Captured, machine: Path, root: str) -> None:
    hook = ["--", "--mount", "src=/,dst=/a", "--root", root]
    for words in (
        ["--gc-timer"],
        ["--name", "b", "--hooks-dir", "/etc/containers/oci/hooks.d"],
        ["--cdi", "x,y"],
        ["--prefix", "/usr"],
        ["--runtime", "bound", "--oci-runtime", "/bin/true", "--apply"],
        ["--runtime", "other", "--oci-runtime", "/bin/true", "--apply", "--prefix", f"{machine}/elsewhere"],
    ):
        run(capfd, "install", *words, *hook)


def test_all_kinds_of_all_prefixes_go_with_their_folders(engines: Path, capfd: Captured) -> None:
    before = names(engines)
    root = f"{engines}/state"
    install_everything(capfd, engines, root)
    wants = engines / "units/timers.target.wants"
    wants.mkdir()
    (wants / "oci-bind-hook-gc.timer").symlink_to(engines / "units/oci-bind-hook-gc.timer")
    assert "bound" in Path(settings.DAEMON_JSON).read_text()
    assert "other" in Path(settings.CONFIG_TOML).read_text()
    for path in (root, DEFAULT_ROOT):
        folder = StateFolder.open(path, create=True)
        assert folder is not None
        with folder.lock_id("c1"):
            pass
    _, err = run(capfd, "uninstall", "--all")
    wants.rmdir()  # which systemctl has made
    (engines / "units").rmdir()
    # An object without runtimes is what lets docker forget them.
    assert json.loads(Path(settings.DAEMON_JSON).read_text()) == {**json.loads(DAEMON_JSON), "runtimes": {}}
    assert names(engines) == before
    assert "to deactivate it in docker: systemctl reload docker" in err
    assert "to stop the timer" in err
    again = everywhere(engines)
    assert run(capfd, "uninstall", "--all") == ([], "oci-bind-hook: nothing that install wrote is left\n")
    assert everywhere(engines) == again


@pytest.mark.kernel(6, 11)  # gc: before, the namespace of a dead container may be any
def test_what_is_recorded_stays_and_is_named(machine: Path, bench: Bench, capfd: Captured) -> None:
    root = f"{machine}/state"
    run(capfd, "install", "--", "--mount", "src=/,dst=/a", "--root", root)
    made = bench.mount(request(bench.source, "/new"))
    folder = StateFolder.open(root, create=True)
    assert folder is not None
    init = {"pid": NOBODY, "start": 1, "first": bench.proc.first_start()}
    with folder.lock_rootfs(made["rootfs"]) as held:
        held.save(named(made, "c1", phase="done", init=init))
    _, err = run(capfd, "uninstall", "--all", "--own")
    assert f'once they have ended, install the program again, run "oci-bind-hook gc --root {root}", and remove' in err
    run(capfd, "install", "--", "--mount", "src=/,dst=/a", "--root", root)
    _, err = run(capfd, "uninstall", "--all")
    assert (
        f'{root} has records of c1, for which poststop is no longer called: once they have ended, run "oci-bind-hook gc'
        in err
    )
    assert f'gc --root {root}", and remove the folder' in err
    assert "c1.json" in os.listdir(root)
    run(capfd, "gc", "--root", root)
    assert not os.path.lexists(bench.inside("/new"))


def test_all_of_a_prefix_that_no_engine_reads_go_with_its_launcher(engines: Path, capfd: Captured) -> None:
    before = names(engines)
    for words in (["--cdi", "x"], [], ["--gc-timer", "--name", "b"]):
        run(capfd, "install", "--prefix", f"{engines}/site", *words)
    run(capfd, "install", "--prefix", f"{engines}/other", "--gc-timer", "--always")
    run(capfd, "uninstall", "--all")
    assert names(engines) == before


@pytest.mark.parametrize("is_given", [False, True])
def test_no_folder_is_searched_twice(
    is_given: bool, engines: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [f"{engines}/site/{each}" for each in ("share/containers/oci/hooks.d", "libexec/oci/runtimes.d")]
    for words in ([], ["--hooks-dir", "/etc/containers/oci/hooks.d"]):
        run(capfd, "install", "--prefix", f"{engines}/site", *words)
    searched: list[list[str]] = []

    def find(*folders: Iterable[str]) -> list[registration.Registration]:
        searched.append([path for each in map(dict.fromkeys, folders) for path in each])
        return found(*folders)

    found = registration.find
    monkeypatch.setattr(registration, "find", find)
    removed = uninstall.uninstall_all(None, own[:1] if is_given else ())
    assert removed.paths[:2] == ["/etc/containers/oci/hooks.d/oci-bind-hook.json", f"{own[0]}/oci-bind-hook.json"]
    first, second = searched
    assert second == (own[1:] if is_given else own)
    assert not {*first} & {*second}


def test_where_nothing_is_found_the_commands_for_all_else_are_named(engines: Path, capfd: Captured) -> None:
    before = names(engines)
    _, err = run(capfd, "uninstall", code=os.EX_NOINPUT)
    assert err.endswith(" (nothing is registered on this machine)\n")
    for words in (
        ["--prefix", "/usr", "--name", "a"],
        ["--prefix", f"{engines}/si te", "--hooks-dir", "/etc/containers/oci/hooks.d"],
        ["--cdi", "x"],
        ["--runtime", "bound", "--oci-runtime", "/bin/true", "--prefix", "/usr"],
    ):
        run(capfd, "install", *words, "--", "--mount", "src=/,dst=/a")
    for _ in range(4):
        _, err = run(capfd, "uninstall", "--name", "other", code=os.EX_NOINPUT)
        command = err.partition("to remove what is registered, run `")[2].partition("`")[0]
        name, *words = shlex.split(command)
        assert name == "oci-bind-hook"
        run(capfd, *words)
    assert names(engines) == before


def test_the_list_has_a_users_own_registration(machine: Path, capfd: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", f"{machine}/home")
    run(capfd, "install", "--prefix", f"{machine}/home/.local")
    [first, *_], _ = run(capfd, "install", "--list")
    assert first == f"without a name: {machine}/home/.local/share/containers/oci/hooks.d/oci-bind-hook.json"


def test_only_what_runs_this_installation_goes(engines: Path, capfd: Captured) -> None:
    run(capfd, "install", "--cdi", "x")
    run(capfd, "install", "--runtime", "bound", "--oci-runtime", "/bin/true", "--apply")
    launcher = Path("/usr/local/libexec/oci/hooks.d/oci-bind-hook")
    launcher.write_text(launcher.read_text().replace(import_folders()[0], f"{engines}/venv"))
    others = everywhere(engines)
    run(capfd, "install", "--prefix", f"{engines}/site", "--cdi", "y")
    run(capfd, "install", "--prefix", f"{engines}/site")
    run(capfd, "uninstall", "--own", code=os.EX_USAGE)
    run(capfd, "uninstall", "--all", "--own", "--prefix", "/usr/local")
    assert os.path.exists("/etc/cdi/oci-bind-hook-y.json")
    run(capfd, "uninstall", "--all", "--own")
    assert everywhere(engines) == others
    # The other's wrapper is gone, but its launcher is not.
    os.unlink("/usr/local/libexec/oci/runtimes.d/oci-bind-hook-bound")
    run(capfd, "uninstall", "--all", "--own")
    assert "bound" in Path(settings.DAEMON_JSON).read_text()


def test_what_others_need_or_wrote_stays(engines: Path, capfd: Captured) -> None:
    root = f"{engines}/state"
    os.mkdir(root, 0o700)
    Path(root, "notes").write_text("")
    os.mkdir("/etc/containers/oci")
    install_everything(capfd, engines, root)
    Path("/usr/local/libexec/note").write_text("")
    recorded = Path(root, "c1.json")
    recorded.touch()
    # Of one prefix: the launcher of the other is still called, with the same state folder.
    _, err = run(capfd, "uninstall", "--all", "--prefix", "/usr")
    assert f"warning: {root} is still used by a registration: see install --list\n" in err
    told = "for which poststop is no longer called if a removed registration bound into them: once they have ended, run"
    assert f'warning: {root} has records of c1, {told} "oci-bind-hook gc --root {root}"\n' in err
    recorded.unlink()
    assert not os.path.exists("/usr/share/containers")
    assert not os.path.exists("/usr/libexec/oci")
    assert os.path.exists("/usr/local/libexec/oci/hooks.d/oci-bind-hook")
    assert os.path.exists(root)
    _, err = run(capfd, "uninstall", "--all")
    assert f"rmdir {root}" in err or f"remove {root}" in err
    assert (os.listdir(root), os.listdir("/usr/local/libexec")) == (["notes"], ["note"])
    # It was there before.
    assert os.listdir("/etc/containers/oci") == []


@pytest.mark.usefixtures("engines")
def test_a_runtime_whose_wrapper_is_gone_is_taken_out_of_the_engines_files(capfd: Captured) -> None:
    run(capfd, "install", "--runtime", "bound", "--oci-runtime", "/bin/true", "--apply", "--", "--strict")
    os.unlink("/usr/local/libexec/oci/runtimes.d/oci-bind-hook-bound")
    run(capfd, "uninstall", "--all", "--prefix", "/usr")
    assert "bound" in Path(settings.DAEMON_JSON).read_text()
    run(capfd, "uninstall", "--all")
    assert "bound" not in Path(settings.DAEMON_JSON).read_text()
    assert not os.path.exists(settings.CONFIG_TOML)
    assert not os.path.exists("/usr/local/libexec")


def test_an_ordinary_user_removes_their_own_and_is_told_of_the_rest(machine: Path, capfd: Captured) -> None:
    run(capfd, "install", "--", "--mount", "src=/,dst=/a")
    before = everywhere(machine)
    mounting.show(sys.base_prefix, *import_folders())
    home = machine / "home"
    home.mkdir()
    launcher = "/usr/local/libexec/oci/hooks.d/oci-bind-hook"
    for path in (machine, home):
        os.chown(path, UID, UID)
    mounting.show(str(machine))
    user = [*support.as_user(UID), "env", f"HOME={home}", launcher]
    subprocess.run([*user, "install", "--prefix", f"{home}/.local"], capture_output=True, check=True)
    done = subprocess.run([*user, "uninstall", "--all"], capture_output=True, text=True, check=True)
    assert f"removed {home}/.local/libexec/oci/hooks.d/oci-bind-hook\n" in done.stdout
    assert os.listdir(home) == []
    assert f"warning: this user cannot remove {launcher}: its folder is not writable\n" in done.stderr
    again = subprocess.run([*user, "uninstall", "--all"], capture_output=True, text=True, check=True)
    assert f"this user cannot remove {launcher}: its folder is not writable\n" in again.stderr
    assert "nothing that install wrote is left" not in again.stderr
    home.rmdir()
    assert names(machine) == {*before}
