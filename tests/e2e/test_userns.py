# SPDX-License-Identifier: Apache-2.0
"""User namespaces under a root runtime: createRuntime does all, createContainer what needs no record."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.world import World, mount, state
from oci_bind_hook.commands.engines.launcher import import_folders

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = 100000
RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)
USER = (*support.NAMESPACES, "user")


def mapped(base: int) -> dict[str, Any]:
    ids = [{"containerID": 0, "hostID": base, "size": 65536}]
    return {"uidMappings": ids, "gidMappings": ids}


@pytest.fixture
def world(tmp_path: Path, launcher: str) -> World:
    """A world that another user can look into, whose source and folder ``/data`` belong to the container's root."""
    mounting.show(str(tmp_path), sys.base_prefix, *import_folders(), str(Path(launcher).parents[3]))
    world = World(tmp_path, launcher)
    tmp_path.chmod(0o755)
    for path in (world.source, f"{world.rootfs}/data"):
        os.chown(path, BASE, BASE)
    return world


def told(world: World) -> list[str]:
    """The errors and warnings in the log, which is gone then."""
    log = world.path / "log"
    lines = log.read_text().splitlines()
    log.unlink()
    return [line.partition('msg="')[2].partition('" time="')[0] for line in lines if _is_told(line)]


def _is_told(line: str) -> bool:
    return line.startswith(('level="warning"', 'level="error"'))


def logging(world: World) -> Sequence[str]:
    """The option for a log that the container's root can write, too."""
    log = world.path / "log"
    log.touch()
    log.chmod(0o666)
    return "--log", str(log)


@RUNTIMES
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
@pytest.mark.parametrize("readonly", [False, True], ids=["writable-root", "readonly-root"])
def test_outside_it_all_is_possible(world: World, runtime: str, stage: str, *, readonly: bool) -> None:
    words = mount(world, "/data", "/absolute/through/climb", "/dangling", "/dev/inside")
    bundle = world.bundle(
        "cat /data/word /real/through/climb/word /absent/place/word /dev/inside/word; touch /data/new; id -u",
        stage,
        *words,
        *logging(world),
        namespaces=USER,
        linux=mapped(BASE),
        readonly=readonly,
    )
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [*["hello from the host"] * 4, "0"]
    assert (world.source / "new").stat().st_uid == BASE
    (world.source / "new").unlink()
    assert told(world) == []
    assert world.snapshot() == before


@RUNTIMES
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("named", [True, False], ids=["named", "told-from-state"])
def test_inside_it_mount_points_that_are_there_need_no_record(world: World, runtime: str, *, named: bool) -> None:
    words = (*mount(world, "/data", "/climb"), *logging(world))
    script = "cat /data/word /real/word; touch /data/new"
    bundle = world.bundle(script, "createContainer", *words, named=named, namespaces=USER, linux=mapped(BASE))
    before = world.snapshot()
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").stderr == ""
        assert support.records(world.state) == []
        assert namespace.delete("c1", "--force").returncode == 0
        done = namespace.run_container(bundle, "c2")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n" * 2)
    (world.source / "new").unlink()
    assert told(world) == []
    assert world.snapshot() == before


@RUNTIMES
@pytest.mark.parametrize("base", [BASE, 1000])
def test_inside_it_one_that_must_be_made_names_create_runtime(world: World, runtime: str, base: int) -> None:
    """Even where the container's root is a user who has a folder for states: poststop would not find it there."""
    mounting.tmpfs("/run/user")
    os.mkdir(f"/run/user/{base}")
    os.chown(f"/run/user/{base}", base, base)
    os.chown(f"{world.rootfs}", base, base)
    words = (*mount(world, "/data", "/new"), *logging(world))
    bundle = world.bundle("echo started", "createContainer", *words, namespaces=USER, linux=mapped(base))
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode != 0, done.stdout) == (True, "")
    problem = "mount points are missing, and nothing can be recorded in the user namespace of another user"
    assert told(world) == [f"{problem} (create them in the image, or register the hook for createRuntime)"]
    if runtime == "runc":
        assert "exit status 69" in done.stderr
    assert os.listdir(f"/run/user/{base}") == []
    assert world.snapshot() == before


@RUNTIMES
def test_inside_it_the_machines_root_can_do_all(world: World, runtime: str) -> None:
    """Where the container's root is the machine's, its folder can be written, and poststop finds it."""
    os.chown(world.source, 0, 0)
    bundle = world.bundle(
        "cat /new/place/word", "createContainer", *mount(world, "/new/place"), namespaces=USER, linux=mapped(0)
    )
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from the host\n", "")
    assert world.snapshot() == before


@pytest.mark.kernel(5, 12)
@RUNTIMES
@pytest.mark.parametrize("option", ["idmap", "ridmap", "idmap=uids=5-0-1;gids=5-0-1"])
def test_inside_it_an_id_map_names_create_runtime(world: World, runtime: str, option: str) -> None:
    words = ("--mount", f"src={world.source},dst=/data,{option}", *logging(world))
    bundle = world.bundle("stat -c %u /data", "createContainer", *words, namespaces=USER, linux=mapped(BASE))
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode != 0, done.stdout) == (True, "")
    problem = "--mount 1: ids cannot be mapped inside a user namespace"
    assert told(world) == [f"{problem} (register the hook for createRuntime, with a runtime that root starts)"]
    if runtime == "runc":
        assert "exit status 69" in done.stderr
    # And there it can be done.
    os.chown(world.source, 5 if "=" in option else 0, 5 if "=" in option else 0)
    bundle = world.bundle("stat -c %u /data", "createRuntime", *words, namespaces=USER, linux=mapped(BASE))
    seen = "65534\n" if "=" in option else "0\n"
    assert support.run_container(runtime, bundle, "c1").stdout == seen


@RUNTIMES
def test_inside_it_what_is_locked_needs_rbind(world: World, runtime: str) -> None:
    mounting.tmpfs(f"{world.source}/sub")
    words = ("--mount", f"src={world.source},dst=/data,bind-recursive=disabled", *logging(world))
    bundle = world.bundle("echo started", "createContainer", *words, namespaces=USER, linux=mapped(BASE))
    assert support.run_container(runtime, bundle, "c1").returncode != 0
    [line] = told(world)
    assert line.endswith("Invalid argument (it is unbindable, or it has locked mounts below it, which require rbind)")


def test_a_source_that_may_not_be_entered_is_unmounted_all_the_same(world: World) -> None:
    """Root of a user namespace may enter no folder of one whom that does not know."""
    support.bundle(world.path / "bundle", ["true"])
    os.chown(world.source, BASE, BASE)
    world.source.chmod(0o700)
    before = world.snapshot()
    words = " ".join([world.launcher, "prestart", *mount(world, "/data", "/new"), *world.root_option()])
    back = " ".join([world.launcher, "poststop", *world.root_option()])
    script = f"echo '{state(world)}' | {words} && grep -c {world.source} /proc/self/mountinfo && "
    script += f"echo '{state(world, status='stopped')}' | {back}; grep -c {world.source} /proc/self/mountinfo"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("2\n0\n", "")
    assert world.snapshot() == before


@pytest.mark.parametrize("closed", ["bundle", "rootfs", "config.json"])
def test_a_way_that_is_closed_to_it_names_create_runtime(world: World, closed: str) -> None:
    """An engine's own folder or file above the bundle or the rootfs, whose owner the user namespace does not know."""
    engine = world.path / "engine"
    engine.mkdir()
    support.bundle(
        world.path / "bundle", ["true"], rootfs=str(engine / "rootfs" if closed == "rootfs" else world.rootfs)
    )
    support.busybox_rootfs(engine / "rootfs")
    if closed == "bundle":
        os.rename(world.path / "bundle", engine / "bundle")
    owned = engine if closed != "config.json" else world.path / "bundle/config.json"
    os.chown(owned, BASE, BASE)
    owned.chmod(0o700)
    bundle = str(engine if closed == "bundle" else world.path) + "/bundle"
    words = (*("unshare", "--user", "--map-root-user", "--mount"), world.launcher, "createContainer")
    command = [*words, *mount(world, "/data"), *world.root_option()]
    text = state(world, bundle=bundle)
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    why = (
        f"the owner of {owned} is unknown in this user namespace: register the hook for "
        "createRuntime, which runs outside"
    )
    assert (done.returncode, done.stderr.endswith(f": Permission denied ({why})\n")) == (66, True), done.stderr
