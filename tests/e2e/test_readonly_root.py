# SPDX-License-Identifier: Apache-2.0
"""``root.readonly`` where no runtime sees to it: in the namespace that the hook was started in, as for a chroot."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from helpers.world import call, fail, faults, mount, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

WRITE = "touch /new || echo root; touch /data/new || echo data; touch /kept/new || echo kept; cat /etc/one-file"


def bundle(world: World) -> list[str]:
    """A bundle with a read-only root, and what is bound into it."""
    support.bundle(world.path / "bundle", ["true"], readonly=True)
    return [*mount(world, "/data", "/climb/deep/er"), "--mount", f"src={world.file},dst=/etc/one-file,ro"]


def in_chroot(world: World, script: str) -> list[str]:
    """What a process below the rootfs prints."""
    command = ["chroot", world.rootfs, "/bin/sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def undo(world: World) -> None:
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("kernel")
def test_the_root_is_read_only_and_what_is_bound_is_not(world: World) -> None:
    wanted = bundle(world)
    mounting.tmpfs(f"{world.rootfs}/kept")
    before = world.snapshot()
    done = call(world, "prestart", *wanted, stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")
    assert in_chroot(world, WRITE) == ["root", "one file"]
    for name in (world.source / "new", f"{world.rootfs}/kept/new"):
        os.unlink(name)
    record = json.loads((world.state / "c1.json").read_text())
    assert [(one["by"], one["resolved"]) for one in record["mounts"]] == [
        ("config.json#/root", "/"),
        ("--mount 1", "/data"),
        ("--mount 2", "/real/deep/er"),
        ("--mount 3", "/etc/one-file"),
    ]
    undo(world)
    assert world.snapshot() == before


@pytest.mark.usefixtures("kernel")
def test_it_is_so_without_any_bind(world: World) -> None:
    bundle(world)
    before = world.snapshot()
    assert call(world, "prestart", stdin=state(world)).returncode == 0
    assert in_chroot(world, "touch /new || echo root") == ["root"]
    undo(world)
    assert world.snapshot() == before


@pytest.mark.kernel(5, 12)  # before, nothing is made below a root that is read-only already
def test_a_later_call_adds_to_it(world: World) -> None:
    wanted = bundle(world)
    before = world.snapshot()
    for more in ([], mount(world, "/later/one")):
        assert call(world, "prestart", *wanted, *more, stdin=state(world)).returncode == 0
    assert mounted(world) == ["/data", "/etc/one-file", "/later/one", "/real/deep/er"]
    assert in_chroot(world, "touch /new || touch /later/new || echo root") == ["root"]
    undo(world)
    assert world.snapshot() == before


def test_a_root_that_somebody_else_made_read_only_is_not_written(world: World) -> None:
    wanted = bundle(world)
    mounting.bind(world.rootfs, world.rootfs)
    mounting.remount(world.rootfs, mounting.MS_RDONLY)
    before = world.snapshot()
    for _ in range(2):
        done = call(world, "prestart", *wanted, stdin=state(world))
        assert done.returncode == 71
        assert "--mount 2: mkdirat /real/deep: Read-only file system" in done.stderr
        assert world.snapshot() == before
    assert call(world, "prestart", *mount(world, "/data"), stdin=state(world)).returncode == 0
    assert call(world, "prestart", *wanted, stdin=state(world)).returncode == 71
    assert mounted(world) == ["/data"]
    undo(world)
    assert world.snapshot() == before


FAULTS = [("open_tree", 1), ("mount_setattr", 1), ("mkdirat", 2), *(("move_mount", number) for number in range(1, 5))]


@pytest.mark.parametrize("how", ["error=EIO", "signal=KILL"])
@pytest.mark.parametrize(("call_name", "number"), faults(*FAULTS, ("fsync", 1), ("fsync", 2), ("fsync", 3)))
def test_a_run_that_is_stopped_anywhere_leaves_nothing(world: World, call_name: str, number: int, how: str) -> None:
    wanted = bundle(world)
    before = world.snapshot()
    done = call(world, "prestart", *wanted, stdin=state(world), before=fail(call_name, number, how))
    assert done.returncode in ((-9,) if "KILL" in how else (71, 74)), done.stderr
    if "KILL" in how:
        undo(world)
    assert world.snapshot() == before


@pytest.mark.parametrize("number", range(1, 25))
@pytest.mark.parametrize("how", ["error=EIO", "signal=KILL"])
def test_nor_does_one_on_an_older_kernel(world: World, number: int, how: str) -> None:
    kernels.play("before 5.12")
    wanted = bundle(world)
    mounting.bind(world.rootfs, world.rootfs)
    before = world.snapshot()
    injected = fail("mount" if "EIO" in how else "chdir", number, how)
    done = call(world, "prestart", *wanted, stdin=state(world), before=injected)
    assert done.returncode in ((-9, 0) if "KILL" in how else (71, 0)), done.stderr
    if done.returncode == -9:
        assert call(world, "prestart", *wanted, stdin=state(world)).returncode == 0
    if done.returncode in (0, -9):
        assert in_chroot(world, "touch /new || echo root") == ["root"]
        undo(world)
    assert world.snapshot() == before


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("call_name", ["mkdirat", "fsync"])
def test_what_was_mounted_on_the_rootfs_before_stays(world: World, call_name: str) -> None:
    wanted = bundle(world)
    mounting.bind(world.rootfs, world.rootfs)
    before = world.snapshot()
    done = call(world, "prestart", *wanted, stdin=state(world), before=fail(call_name, 1))
    assert done.returncode in (71, 74)
    assert world.snapshot() == before


@pytest.mark.parametrize("first", ["read-only", "writable"])
def test_neighbours_in_one_namespace_are_not_laid_over(world: World, first: str) -> None:
    bundle(world)
    other = support.bundle(world.path / "other", ["true"], rootfs=world.rootfs)
    before = world.snapshot()
    bundles = {"read-only": str(world.path / "bundle"), "writable": other}
    codes = []
    for name in (first, *(name for name in bundles if name != first)):
        sent = state(world, name, bundle=bundles[name])
        codes.append(call(world, "prestart", *mount(world, "/data"), stdin=sent))
    assert [done.returncode for done in codes] == [0, 69]
    assert f'apply to the container "{first}", which has binds in the same rootfs' in codes[1].stderr
    for name, path in bundles.items():
        assert call(world, "poststop", stdin=state(world, name, "stopped", bundle=path)).returncode == 0
    assert world.snapshot() == before


def test_a_dry_run_tells_it(world: World) -> None:
    wanted = bundle(world)
    before = world.snapshot()
    done = call(world, "prestart", "--dry-run", "--format", "json", *wanted, stdin=state(world))
    assert done.returncode == 0, done.stderr
    first = json.loads(done.stdout)["mounts"][0]
    assert (first["origin"], first["resolved"], first["action"]) == ("config.json#/root", "/", "mount")
    assert first["attributes"][0] == "ro"
    # For a container with a namespace of its own it is not the hook's work.
    done = call(world, "--dry-run", "--format=json", f"--bundle={world.path}/bundle", *wanted, stdin="")
    assert [one["origin"] for one in json.loads(done.stdout)["mounts"]] == ["--mount 1", "--mount 2", "--mount 3"]
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_with_a_namespace_it_is_the_runtimes_work(world: World, runtime: str) -> None:
    log = world.path / "log"
    made = world.bundle("true", "createRuntime", *mount(world, "/data"), "--log", str(log), readonly=True)
    assert support.run_container(runtime, made, "c1").returncode == 0
    assert "bound" in log.read_text()
    assert "#/root" not in log.read_text()
