# SPDX-License-Identifier: Apache-2.0
"""The kernel gives the number of a mount to the next one at once. Before Linux 6.8 there is no other.

Which mount is the next one is not for a test to say, so the number is written into the state file.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.world import call, mount, state

if TYPE_CHECKING:
    from helpers.world import World


def stopped(world: World, container: str, bundle: str) -> tuple[int, str]:
    """poststop of a container: its exit code and what it says."""
    done = call(world, "poststop", stdin=state(world, container, "stopped", bundle=f"{world.path}/{bundle}"))
    return done.returncode, done.stderr


def started(world: World, container: str, bundle: str) -> str:
    """Binds the source in a rootfs of this namespace, with a number alone; returns where."""
    support.bundle(world.path / bundle, ["true"])
    stdin = state(world, container, bundle=f"{world.path}/{bundle}")
    done = call(world, "prestart", *mount(world, "/data"), stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    place = f"{world.path}/{bundle}/rootfs/data"
    numbered(world, container, place)
    return place


def numbered(world: World, container: str, place: str) -> None:
    """From now on what a container has recorded is the number of the mount at a place."""
    path = world.state / f"{container}.json"
    record = json.loads(path.read_text())
    for each in record["mounts"][0]["attached"]:
        each["id"], each["unique"] = mounting.line(place).id, None
    path.write_text(json.dumps(record, separators=(",", ":")))


def is_mounted(place: str) -> bool:
    return any(info.mount_point == place for info in mounting.table())


def test_poststop_killed_after_its_umount_leaves_the_bind_of_the_next_container(world: World) -> None:
    first = started(world, "c1", "bundle")
    mounting.umount(first)
    second = started(world, "c2", "second")
    numbered(world, "c1", second)
    dry = call(world, "poststop", "--dry-run", stdin=state(world, "c1", "stopped"))
    assert (dry.returncode, "unmount" in dry.stdout) == (0, False)
    assert stopped(world, "c1", "bundle") == (0, "")
    assert is_mounted(second)
    assert stopped(world, "c2", "second") == (0, "")
    assert not is_mounted(second)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_dead_container_is_finished_while_the_next_one_has_its_numbers(world: World, runtime: str) -> None:
    """Before Linux 6.8 the next one really has them: those of the mount namespace and of the bind."""
    hooks = {"createRuntime": [world.hook("createRuntime", *mount(world, "/new"))]}
    script = ["/bin/sh", "-c", "exec sleep 1000"]
    bundles = [support.bundle(world.path / name, script, hooks=hooks) for name in ("first", "second")]
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundles[0], "c1").returncode == 0
        assert namespace.delete("c1", "--force").returncode == 0
        assert namespace.create(bundles[1], "c2").returncode == 0
        done = call(world, "gc", stdin="")
        assert (done.returncode, done.stderr) == (0, "")
        assert [line.split()[:2] for line in done.stdout.splitlines() if line[0] != " "] == [
            ["c1", "finished"],
            ["c2", "kept"],
        ]
        assert [os.path.exists(f"{bundle}/rootfs/new") for bundle in bundles] == [False, True]
        seen = support.mounts(namespace.state("c2")["pid"])
        assert [line.split()[4] for line in seen if line.split()[4].endswith("/new")] != []
        assert namespace.delete("c2", "--force").returncode == 0


def test_what_an_administrator_mounts_elsewhere_stays_and_is_named(world: World) -> None:
    first = started(world, "c1", "bundle")
    mounting.umount(first)
    place = f"{world.path}/elsewhere"
    os.mkdir(place)
    mounting.bind(str(world.source), place)
    numbered(world, "c1", place)
    dry = call(world, "poststop", "--dry-run", stdin=state(world, "c1", "stopped"))
    assert (dry.returncode, f"whether it is the mount on {place} cannot be known" in dry.stdout) == (71, True)
    code, said = stopped(world, "c1", "bundle")
    assert (code, said.count("\n")) == (71, 1)
    assert f"/data: whether it is the mount on {place} cannot be known: it has its number and its source" in said
    assert is_mounted(place)
    mounting.umount(place)
    assert stopped(world, "c1", "bundle") == (0, "")
    assert os.listdir(world.state) == []
