# SPDX-License-Identifier: Apache-2.0
"""Kernels without the new mount API, or with a filter that hides it: real containers, faults and kills."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from helpers.world import call, fail, mount, state
from oci_bind_hook.kernel import linux

if TYPE_CHECKING:
    from helpers.world import World

STAGES = ("prestart", "createRuntime", "createContainer")

SCRIPT = """
cat /real/through/absolute/word /absent/place/word /dev/inside/word /plain/word /plain/sub/word /etc/one-file
for each in /real/through/absolute /absent/place /plain /plain/sub /deep /deep/sub /touched; do
    touch $each/new 2>/dev/null && echo $each
done
touch /touched && echo root
"""


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_container_gets_its_binds_and_leaves_nothing(
    world: World, older_kernel: str, runtime: str, stage: str
) -> None:
    volume = mounting.tmpfs(f"{world.path}/volume")
    for folder in (volume, mounting.tmpfs(f"{volume}/sub")):
        with open(f"{folder}/word", "w", encoding="utf-8") as file:
            file.write("hello from the host\n")
    bundle = world.bundle(
        SCRIPT,
        stage,
        *mount(world, "/absolute/through/absolute", "/dangling", "/dev/inside", options=",ro"),
        *("--mount", f"src={volume},dst=/plain,ro"),
        *("--mount", f"src={volume},dst=/deep,rro"),
        *("--mount", f"src={world.file},dst=/etc/one-file,ro"),
    )
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*["hello from the host"] * 5, "one file", "/plain/sub", "root"], older_kernel
    os.unlink(f"{world.rootfs}/touched")
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_source_that_is_another_in_the_container_is_refused(world: World, older_kernel: str, runtime: str) -> None:
    """mount(2) wants the source in the namespace that it mounts in: there it is looked up again, and compared."""
    busybox = shutil.which("busybox")  # its programs do with the old system calls
    hide = f"{busybox} mount -t tmpfs tmpfs {world.source}"
    script = world.path / "hide"
    script.write_text(
        f'#!/bin/sh\npid=$(sed -n "s/.*\\"pid\\": *\\([0-9]*\\).*/\\1/p")\nexec {busybox} nsenter -m -t "$pid" {hide}\n'
    )
    script.chmod(0o755)
    hooks = {
        "createRuntime": [
            {"path": str(script), "args": ["hide"], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]},
            world.hook("createRuntime", *mount(world, "/a"), "--log", f"{world.path}/log"),
        ],
        "poststop": [world.hook("poststop")],
    }
    bundle = support.bundle(world.path / "bundle", ["true"], hooks=hooks)
    before = world.snapshot()
    assert support.run_container(runtime, bundle, "c1").returncode != 0
    assert (
        f"in the container's mount namespace {world.source} is another file or folder"
        in (world.path / "log").read_text()
    )
    assert world.snapshot() == before, older_kernel


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_what_the_runtime_mounted_is_not_bound_again(world: World, older_kernel: str, runtime: str) -> None:
    """Below the bundle is the rootfs, and there a /proc that nobody has masked yet."""
    log = world.path / "log"
    words = ["--mount", f"src={world.path}/bundle,dst=/a", "--log", str(log)]
    bundle = world.bundle("true", "createRuntime", *words)
    before = {**world.snapshot()}
    assert support.run_container(runtime, bundle, "c1").returncode != 0
    assert "the container has mounts of its own below" in log.read_text(), older_kernel
    assert world.snapshot() == before


# Mount the staging folder and set its propagation; for each bind: make it there, change it, set its propagation, and
# later move it and set that again.
CALLS_OF_FIVE = 2 + 5 * 3 + 5 * 2


@pytest.mark.parametrize("number", [*range(1, 8), *range(15, CALLS_OF_FIVE + 1, 2)])
def test_a_failing_mount_leaves_none(world: World, older_kernel: str, number: int) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    paths = [f"/five/{number}" for number in range(5)]
    killer = fail("mount", number)
    done = call(world, "prestart", *mount(world, *paths, options=",ro"), stdin=state(world), before=killer)
    assert (done.returncode, done.stderr.count("\n")) == (71, 1), older_kernel
    assert ": mount" in done.stderr
    assert "Input/output error" in done.stderr
    assert world.snapshot() == before


def test_many_binds_in_one_another_need_no_more_files_than_elsewhere(world: World, older_kernel: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    os.makedirs(f"{world.source}/in")
    before = world.snapshot()
    paths = ["/n", *("/n" + "/in" * depth for depth in range(1, 50))]
    limited = ("prlimit", "--nofile=256:256")
    done = call(world, "prestart", *mount(world, *paths), stdin=state(world), before=limited)
    assert (done.returncode, done.stderr) == (0, ""), older_kernel
    done = call(world, "poststop", stdin=state(world, status="stopped"), before=limited)
    assert (done.returncode, done.stderr) == (0, "")
    assert world.snapshot() == before


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("call_name", ["open_tree", "mount_setattr"])
def test_one_call_that_fails_is_no_reason_for_the_old_way(world: World, call_name: str, number: int) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    killer = fail(call_name, number, "error=ENOSYS")
    done = call(world, "prestart", *mount(world, "/a", "/b", options=",ro"), stdin=state(world), before=killer)
    assert done.returncode == 71
    assert f": {call_name} {world.source}: " in done.stderr
    assert world.snapshot() == before


def test_what_an_older_kernel_cannot_do_is_said(world: World, older_kernel: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    mapped = f"src={world.source},dst=/a,idmap=uids=0-1000-1;gids=0-1000-1"
    done = call(world, "prestart", "--mount", mapped, stdin=state(world))
    assert (done.returncode, done.stderr) == (
        69,
        "oci-bind-hook: c1 prestart: --mount 1: this kernel cannot map the owners of a mount\n",
    ), older_kernel
    assert world.snapshot() == before


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_dry_run_foresees_what_this_kernel_maps(world: World, kind: str) -> None:
    volume = (mounting.tmpfs if kind == "tmpfs" else mounting.ext4)(f"{world.path}/volume")
    words = ("prestart", "--mount", f"src={volume},dst=/data,idmap=uids=0-1000-1;gids=0-1000-1")
    support.bundle(world.path / "bundle", ["true"])
    dry = call(world, *words, "--dry-run", stdin=state(world))
    assert "not found here" not in dry.stdout
    real = call(world, *words, stdin=state(world))
    assert dry.returncode == real.returncode
    assert real.returncode == (0 if linux.version() >= ((6, 3) if kind == "tmpfs" else (5, 12)) else 69)
    assert real.stderr.removeprefix("oci-bind-hook: c1 prestart: ") in dry.stdout


@pytest.mark.parametrize("number", range(1, 9))
@pytest.mark.parametrize("then", ["poststop", "prestart", "gc"])
def test_what_a_killed_run_made_ready_takes_nothing_of_the_host_along(world: World, number: int, then: str) -> None:
    """A bind of a shared source is its peer until it is told otherwise: unmounting in the one unmounts in the other."""
    kernels.play("before 5.12")
    volume = mounting.tmpfs(f"{world.path}/volume")
    mounting.propagate(volume, mounting.MS_SHARED)
    mounting.propagate(mounting.tmpfs(f"{volume}/sub"), mounting.MS_SHARED)
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    wanted = ["--mount", f"src={volume},dst=/a", "--mount", f"src={volume},dst=/b,bind-propagation=rshared"]
    killer = fail("chdir", number, "signal=KILL")
    init = subprocess.Popen(["sleep", "1000"])
    killed = call(world, "prestart", *wanted, stdin=state(world, pid=init.pid), before=killer)
    init.kill()
    init.wait()
    assert killed.returncode == -9
    if then == "prestart":
        assert call(world, "prestart", *wanted, stdin=state(world)).returncode == 0
    if then == "gc":
        assert "undone" in call(world, "gc", stdin="").stdout
    else:
        assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_a_failing_run_takes_nothing_of_the_host_along(world: World, older_kernel: str) -> None:
    volume = mounting.tmpfs(f"{world.path}/volume")
    mounting.propagate(volume, mounting.MS_SHARED)
    mounting.propagate(mounting.tmpfs(f"{volume}/sub"), mounting.MS_SHARED)
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    wanted = ["--mount", f"src={volume},dst=/a,bind-propagation=rshared", "--mount", f"src={volume},dst=/proc/x"]
    done = call(world, "prestart", *wanted, stdin=state(world))
    assert done.returncode == 77, older_kernel
    assert world.snapshot() == before
