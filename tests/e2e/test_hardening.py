# SPDX-License-Identifier: Apache-2.0
"""What the hook gives up before it touches a container, seen from outside while it is held in the middle."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.world import call, mount, state
from oci_bind_hook.kernel import rights

if TYPE_CHECKING:
    from helpers.world import World

# capability.h
NUMBERS = {
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
}


def status(pid: int) -> dict[str, str]:
    with open(f"/proc/{pid}/status", encoding="ascii") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


def held_at_mkdirat(world: World, *, inherited: int) -> tuple[dict[str, str], list[str]]:
    """Status and fds of a hook that is about to make a mount point: before, it makes the folder of lists."""
    inject = "inject=mkdirat:delay_enter=60000000:when=2"
    command = ["strace", "-f", "-qq", "-o", f"{world.path}/trace", "-e", "trace=mkdirat", "-e", inject, world.launcher]
    words = ["prestart", *mount(world, "/made/here"), "--root", str(world.state)]
    with subprocess.Popen([*command, *words], stdin=subprocess.PIPE, pass_fds=[inherited], text=True) as tracer:
        assert tracer.stdin is not None
        tracer.stdin.write(state(world))
        tracer.stdin.close()
        # The delay is far longer than the test may take: it ends with the tracer, and with it the hook.
        while (world.path / "trace").read_text().count("mkdirat(") < 2 if (world.path / "trace").exists() else True:
            assert tracer.poll() is None
        (hook,) = support.children(tracer.pid)
        found = status(hook), [os.readlink(f"/proc/{hook}/fd/{fd}") for fd in os.listdir(f"/proc/{hook}/fd")]
        os.kill(hook, 9)
        tracer.kill()
    return found


def test_what_is_not_needed_is_given_up(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    folder = os.open("/etc", os.O_RDONLY)
    known, fds = held_at_mkdirat(world, inherited=folder)
    os.close(folder)
    expected = sum(1 << number for name, number in NUMBERS.items() if name not in rights.TO_ENTER)
    assert set(NUMBERS) == set(rights.CAPABILITIES)
    assert known["Name"] == "oci-bind-hook"
    assert known["NoNewPrivs"] == "1"
    assert {int(known[name], 16) for name in ("CapEff", "CapPrm")} == {expected}
    assert int(known["CapInh"], 16) == 0
    assert known["Umask"] == "0022"
    assert "/etc" not in fds


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("missing", ["sys_chroot", "sys_ptrace"])
def test_a_capability_that_is_missing_is_named(world: World, runtime: str, missing: str) -> None:
    log = world.path / "log"
    bundle = world.bundle("true", "createRuntime", *mount(world, "/a"), "--log", str(log))
    file = world.path / "bundle/config.json"
    config = json.loads(file.read_text())
    (hook,) = config["hooks"]["createRuntime"]
    limit = [f"--bounding-set=-{missing}", f"--inh-caps=-{missing}"]
    hook.update(path="/usr/bin/setpriv", args=["setpriv", *limit, world.launcher, *hook["args"][1:]])
    file.write_text(json.dumps(config))
    before = world.snapshot()
    assert support.run_container(runtime, bundle, "c1").returncode != 0
    assert f"mount namespace cannot be entered without CAP_{missing.upper()}" in log.read_text()
    assert world.snapshot() == before


def test_without_power_over_files_that_is_named(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    os.chown(world.rootfs, 1000, 1000)
    os.chmod(world.rootfs, 0o755)
    before = world.snapshot()
    limited = ("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    done = call(world, "prestart", *mount(world, "/new"), stdin=state(world), before=limited)
    assert done.returncode == 71
    assert "mkdirat /new: Permission denied (the process lacks CAP_DAC_OVERRIDE)" in done.stderr
    assert world.snapshot() == before
