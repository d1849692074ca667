# SPDX-License-Identifier: Apache-2.0
"""poststop undoes what other dead containers left in the same rootfs: for some of them no poststop ever comes."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.world import Container, call, dead, finish

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.world import World

PLACE = "/first/place"


def recorded(world: World) -> list[str]:
    return sorted(path.stem for path in world.state.glob("*.json"))


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_what_a_runtime_left_is_undone_by_the_next_poststop(world: World, runtime: str) -> None:
    """A runtime whose hooks have succeeded, and that then fails, or is killed: its own poststop is missing."""
    before = world.snapshot()
    with support.RuntimeNamespace(runtime) as namespace:
        bundle = world.bundle("true", "createRuntime", "--mount", f"src={world.source},dst=/first/place")
        with open(f"{bundle}/config.json", encoding="utf-8") as file:
            config = json.load(file)
        del config["hooks"]["poststop"]
        with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
            json.dump(config, file)
        assert namespace.run_container(bundle, "first").returncode == 0
        assert (recorded(world), os.path.isdir(f"{world.rootfs}/first/place")) == (["first"], True)
        bundle = world.bundle("true", "createRuntime", "--mount", f"src={world.source},dst=/second")
        done = namespace.run_container(bundle, "second")
    assert (done.returncode, done.stderr) == (0, "")
    assert world.snapshot() == before


# What fails after the first entry of a stage: this hook, before it knows what it is for, and a program that is killed.
FAILING: dict[str, Callable[[World], dict[str, Any]]] = {
    "unknown option": lambda world: world.hook("createRuntime", "--unknown"),
    "timeout": lambda _: {"path": "/bin/sleep", "args": ["sleep", "100"], "timeout": 1},
}
COLLECTING: dict[str, Callable[[World, support.RuntimeNamespace], object]] = {
    "gc": lambda world, _: call(world, "gc", stdin=""),
    "the next of its id": lambda world, namespace: start(world, namespace, "first"),
    "the next poststop": lambda world, namespace: start(world, namespace, "second"),
}


def start(world: World, namespace: support.RuntimeNamespace, name: str, *failing: dict[str, Any]) -> str:
    """Starts a container whose first entry makes a bind; what it says."""
    bundle = world.bundle("echo started", "createRuntime", "--mount", f"src={world.source},dst={PLACE}")
    path = Path(bundle, "config.json")
    config = json.loads(path.read_text())
    config["hooks"]["createRuntime"] += failing
    path.write_text(json.dumps(config))
    return namespace.run_container(bundle, name).stdout


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize(
    ("failing", "collecting"), [*(("unknown option", each) for each in COLLECTING), ("timeout", "gc")]
)
def test_what_a_first_entry_did_before_another_failed(
    world: World, runtime: str, failing: str, collecting: str
) -> None:
    """crun calls no poststop then. The binds go with the container's mount namespace, all else with who comes next."""
    (world.path / "bundle").mkdir(exist_ok=True)
    before, mounts = support.tree(world.rootfs), support.mounts()
    with support.RuntimeNamespace(runtime) as namespace:
        assert start(world, namespace, "first", FAILING[failing](world)) == ""
        left = [] if runtime == "runc" else ["first"]
        assert (recorded(world), os.path.isdir(f"{world.rootfs}{PLACE}")) == (left, bool(left))
        assert support.mounts() == mounts
        COLLECTING[collecting](world, namespace)
    assert (recorded(world), support.tree(world.rootfs), support.mounts()) == ([], before, mounts)


def test_many_are_undone_and_the_living_are_left_alone(world: World) -> None:
    elsewhere = support.busybox_rootfs(world.path / "elsewhere")
    living = Container(world, "living")
    before = support.tree(world.rootfs)
    living.set_up("/living/place")
    for number in range(5):
        dead(world, f"dead{number}", f"/dead/{number}", "/living/place/sub")
    dead(world, "far", "/far", rootfs=elsewhere)
    last = dead(world, "last", "/last")
    last.tear_down()
    assert recorded(world) == ["far", "living"]
    assert living.mounted() == ["/living/place"]
    assert {name for name in support.tree(world.rootfs) if name not in before} == {"living", "living/place"}
    living.end()
    living.tear_down()
    assert (support.tree(world.rootfs), recorded(world)) == (before, ["far"])
    assert os.path.isdir(f"{elsewhere}/far")


def test_what_a_run_works_on_is_left_to_it(world: World) -> None:
    dead(world, "busy", "/busy")
    last = dead(world, "last", "/last")
    with open(world.state / "busy.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert finish(last.launch(status="stopped")) == [""]
    assert (recorded(world), os.path.isdir(f"{world.rootfs}/busy")) == (["busy"], True)


def test_what_resists_fails_nobody_else(world: World) -> None:
    """The next poststop tries again."""
    before = support.tree(world.rootfs)
    dead(world, "first", "/first")
    dead(world, "second", "/second")
    mounting.tmpfs(f"{world.rootfs}/first")
    last = dead(world, "last", "/last")
    log = world.path / "log"
    assert finish(last.launch("--log", str(log), status="stopped")) == [""]
    assert recorded(world) == ["first"]
    assert f"could not undo {world.rootfs}/first" in log.read_text()
    mounting.umount(f"{world.rootfs}/first")
    dead(world, "next", "/next").tear_down()
    assert (support.tree(world.rootfs), recorded(world)) == (before, [])


def test_mount_points_are_kept_for_them_as_well(world: World) -> None:
    dead(world, "first", "/first")
    last = dead(world, "last", "/last")
    assert finish(last.launch("--keep-mountpoints", status="stopped")) == [""]
    assert (recorded(world), {"first", "last"} <= set(os.listdir(world.rootfs))) == ([], True)
