# SPDX-License-Identifier: Apache-2.0
"""The units of ``install --gc-timer``: systemd finds nothing wrong with them, and what their service calls collects."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.podman import ISOLATED, OPTIONS, ROOTLESS_LIMITS, UNIFIED
from helpers.world import call, mount, mounted, state
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import timer

from .test_rootless import UID, Rootless, give

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helpers.world import World

FOLDER = Path(timer.SYSTEM_FOLDER)
# What systemd gives a service of root, and one of a user, systemd.exec(5).
SYSTEM_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "LANG": "C.UTF-8"}
# With any of these, and many more that begin like them, a service gets a mount namespace of its own.
SANDBOXES = ("Private", "Protect", "ReadOnly", "ReadWrite", "Inaccessible", "Root", "Bind", "Temporary", "Dynamic")


def installed(
    prefix: Path, root: Path, capfd: pytest.CaptureFixture[str], *words: str, arguments: Sequence[str] = ()
) -> list[str]:
    """The timer installed, and the command of its service as the unit has it; no word of it needs systemd's escapes."""
    assert (
        cli.main(["install", "--prefix", str(prefix), "--gc-timer", *words, "--", "--root", str(root), *arguments]) == 0
    )
    *_, service, _ = (line.partition(" ")[2] for line in capfd.readouterr().out.splitlines())
    [line] = [line for line in Path(service).read_text().splitlines() if line.startswith("ExecStart=")]
    return shlex.split(line.removeprefix("ExecStart="))


def test_systemd_takes_the_units_of_the_system(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mounting.tmpfs(str(FOLDER))
    installed(tmp_path / "pre fix $x%i;", Path("""/run/a "b" 'c' \\d $e ${f} %g ;"""), capfd)
    assert sorted(os.listdir(FOLDER)) == [timer.SERVICE, timer.TIMER]
    done = subprocess.run(["systemd-analyze", "verify", timer.TIMER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    names = [line.partition("=")[0] for line in (FOLDER / timer.SERVICE).read_text().splitlines() if line[:1] != "#"]
    assert [name for name in names if name.startswith(SANDBOXES)] == []


def test_what_the_service_calls_undoes_what_a_dead_container_left(
    world: World, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    command = installed(tmp_path / "prefix", world.state, capfd, "--units-dir", str(tmp_path / "units"))
    assert command == [str(tmp_path / "prefix/libexec/oci/hooks.d/oci-bind-hook"), "gc", "--root", str(world.state)]
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as init:
        done = call(world, "prestart", *mount(world, "/data", "/new"), stdin=state(world, pid=init.pid))
        assert (done.returncode, done.stderr) == (0, "")
        init.communicate()
    assert mounted(world) == ["/data", "/new"]
    done = subprocess.run(
        command, cwd="/", env=SYSTEM_ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert world.snapshot() == before


@pytest.fixture
def user(tmp_path: Path, launcher: str, monkeypatch: pytest.MonkeyPatch) -> Rootless:
    monkeypatch.setattr(timer, "is_system", lambda: False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return Rootless(tmp_path, launcher)


def as_service(user: Rootless) -> list[str]:
    environment = {**SYSTEM_ENVIRONMENT, "HOME": str(user.path), "XDG_RUNTIME_DIR": str(user.state.parent)}
    return [*support.as_user(UID), "env", "-i", *(f"{name}={value}" for name, value in environment.items())]


def test_systemd_takes_the_units_of_a_user(user: Rootless, capfd: pytest.CaptureFixture[str]) -> None:
    installed(user.path / "prefix", user.state, capfd)
    give(user.path)
    folder = user.path / ".config/systemd/user"
    assert sorted(os.listdir(folder)) == [timer.SERVICE, timer.TIMER]
    command = [*as_service(user), "systemd-analyze", "--user", "verify", str(folder / timer.TIMER)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_users_service_calls_undoes_what_a_dead_container_left(
    user: Rootless, capfd: pytest.CaptureFixture[str]
) -> None:
    """One of rootless podman, after whose end nobody called poststop."""
    words = ["--stages", "createRuntime", "--hooks-dir", str(user.path / "hooks.d")]
    arguments = mount(user, "/new/place")
    *before_it, launcher, _, _, root = installed(user.path / "prefix", user.state, capfd, *words, arguments=arguments)
    assert [os.path.basename(word) for word in before_it] == ["podman", "unshare"]
    give(user.path)
    before = user.snapshot()
    podman = ["podman", "--storage-driver=vfs", *OPTIONS, f"--hooks-dir={user.path}/hooks.d"]
    podman += ["run", *ROOTLESS_LIMITS, "--rootfs", user.rootfs]
    script = f"{UNIFIED}\n"
    for command in ([*podman, "cat", "/new/place/word"], [*before_it, launcher, "gc", "--root", root]):
        script += f"{shlex.join([*as_service(user), *command])} && ls -1 {user.state} {user.rootfs}\n"
    # In a pid namespace of their own: podman leaves a process that holds its user namespace.
    done = subprocess.run([*ISOLATED, "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    word, *shown = done.stdout.splitlines()
    assert word == "hello from the host"
    assert (shown.count("new"), sum(line.endswith(".json") for line in shown)) == (1, 1)
    after = user.snapshot()
    # What podman makes for its own mounts stays in the rootfs.
    assert {**after, "rootfs": 0, "state": 0} == {**before, "rootfs": 0, "state": 0}
    assert (after["state"], os.path.lexists(f"{user.rootfs}/new")) == ([], False)
