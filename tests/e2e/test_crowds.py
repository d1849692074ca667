# SPDX-License-Identifier: Apache-2.0
"""Many at once: nobody loses anything, waits for a stranger, or leaves anything behind."""

from __future__ import annotations

import fcntl
import os
import random
import resource
import statistics
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.world import Container, finish, launch, mount, mounted, state

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helpers.world import World

SHARED = ["/shared", "/shared/deep/a", "/shared/deep/b", "/other/a", "/data/x", "/climb/y"]


def resolved(paths: Sequence[str]) -> list[str]:
    return sorted(path.replace("/climb", "/real") for path in paths)


@pytest.mark.parametrize("half", [30, pytest.param(100, marks=pytest.mark.long)])
def test_many_are_set_up_and_torn_down_at_once(world: World, half: int) -> None:
    """Half of them have a rootfs of their own, the others share one, and wait for each other up to ten seconds."""
    folders = [world.path / f"rootfs-{number}" for number in range(half)]
    for folder in folders:
        (folder / "dev").mkdir(parents=True)
    containers = [Container(world, f"own-{n}", str(folder)) for n, folder in enumerate(folders)]
    containers += [Container(world, f"shared-{number}") for number in range(half)]
    before = (support.tree(world.rootfs), support.mounts())
    finish(*[each.launch(*mount(world, "/new/a", f"/new/{each.name}/b")) for each in containers])
    for each in containers:
        assert each.mounted() == ["/new/a", f"/new/{each.name}/b"]
    assert len(support.records(world.state)) == 2 * half
    for each in containers:
        each.end()
    finish(*[each.launch(status="stopped") for each in containers])
    assert support.records(world.state) == []
    assert [os.listdir(folder) for folder in folders] == [["dev"]] * half
    assert (support.tree(world.rootfs), support.mounts()) == before


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long), pytest.param(3, marks=pytest.mark.long)])
def test_50_on_one_rootfs_come_and_go_in_any_order(world: World, seed: int) -> None:
    """Whoever lives has all its binds, whoever else comes or goes; the last one leaves the rootfs as it was."""
    chance = random.Random(seed)
    before = (support.tree(world.rootfs), support.mounts())
    waiting = [Container(world, f"c{number}") for number in range(50)]
    live: dict[str, tuple[Container, list[str]]] = {}
    ended: list[Container] = []
    while waiting or live or ended:
        # Most are torn down long after their end, when others have ended too.
        likely = {"come": 3 * bool(waiting), "end": 3 * bool(live), "go": bool(ended)}
        (what,) = chance.choices(list(likely), list(likely.values()))
        if what == "come":
            container = waiting.pop()
            paths = chance.sample(SHARED, chance.randint(1, 4))
            if "/shared" in paths:
                # What is below it would be in the source.
                paths = [path for path in paths if not path.startswith("/shared/")]
            container.set_up(*paths)
            live[container.name] = (container, resolved(paths))
        elif what == "end":
            container, _ = live.pop(chance.choice(sorted(live)))
            container.end()
            ended.append(container)
        else:
            ended.pop(chance.randrange(len(ended))).tear_down()
        assert [each.mounted() for each, _ in live.values()] == [paths for _, paths in live.values()]
    assert (support.tree(world.rootfs), support.mounts()) == before
    assert support.records(world.state) == []


# -- one id ------------------------------------------------------------------------------------------------------------


def test_the_same_container_twice_at_once_is_set_up_once(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    finish(*[launch(world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world)) for _ in range(8)])
    assert mounted(world) == ["/a/b", "/c"]
    assert support.records(world.state) == ["c1.json"]
    finish(*[launch(world, "poststop", stdin=state(world, status="stopped")) for _ in range(8)])
    assert world.snapshot() == before


def test_of_two_containers_with_one_id_one_wins_and_the_others_say_so(world: World) -> None:
    bundles = [support.bundle(world.path / f"b{number}", ["true"], rootfs=world.rootfs) for number in range(8)]
    before = world.snapshot()
    texts = {bundle: state(world, bundle=bundle) for bundle in bundles}
    with open(support.lock_files(world.state, world.rootfs)[0], "w", encoding="ascii") as lock:
        # Whatever each of them looks at before it has the rootfs for itself, it has looked at.
        fcntl.flock(lock, fcntl.LOCK_EX)
        calls = {bundle: launch(world, "prestart", *mount(world, "/a/b"), stdin=text) for bundle, text in texts.items()}
        for process in calls.values():
            support.await_flock(process.pid)
        os.unlink(lock.name)
    said = {bundle: process.communicate(timeout=support.TIMEOUT)[1] for bundle, process in calls.items()}
    assert sorted(process.returncode for process in calls.values()) == [0] + [74] * 7
    (winner,) = [bundle for bundle, process in calls.items() if process.returncode == 0]
    expected = f'oci-bind-hook: c1 prestart: the id "c1" belongs to another running container, with the bundle {winner}'
    for bundle, line in said.items():
        assert line == "" if bundle == winner else line.startswith(expected)
    assert mounted(world) == ["/a/b"]
    # Poststop of those that were refused is no business of the winner's.
    stopped = {bundle: state(world, bundle=bundle, status="stopped") for bundle in bundles}
    finish(*[launch(world, "poststop", stdin=stopped[bundle]) for bundle in bundles if bundle != winner])
    assert mounted(world) == ["/a/b"]
    finish(launch(world, "poststop", stdin=stopped[winner]))
    assert world.snapshot() == before


def test_a_set_up_that_races_tear_downs_of_its_id_is_whole_or_gone(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    outcomes = set()
    for _ in range(12):
        up = [launch(world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world)) for _ in range(2)]
        down = [launch(world, "poststop", stdin=state(world, status="stopped")) for _ in range(2)]
        finish(*up, *down)
        there = mounted(world)
        assert there in ([], ["/a/b", "/c"])
        assert support.records(world.state) == (["c1.json"] if there else [])
        outcomes.add(len(there))
    finish(launch(world, "poststop", stdin=state(world, status="stopped")))
    assert world.snapshot() == before
    assert outcomes


# -- who waits for whom ------------------------------------------------------------------------------------------------


def test_containers_on_different_rootfs_never_wait_for_each_other(world: World) -> None:
    support.busybox_rootfs(world.path / "second")
    one, two = Container(world, "one"), Container(world, "two", str(world.path / "second"))
    three = Container(world, "three")
    three.set_up("/z")
    with open(support.lock_files(world.state, world.rootfs)[0], encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        three.end()
        up, down = one.launch(*mount(world, "/a")), three.launch(status="stopped")
        support.await_flock(up.pid)
        support.await_flock(down.pid)
        two.set_up("/a")
        assert two.mounted() == ["/a"]
        two.end()
        two.tear_down()
        assert (one.mounted(), up.poll(), down.poll()) == ([], None, None)
        os.unlink(lock.name)
    finish(up, down)
    assert one.mounted() == ["/a"]
    one.end()
    one.tear_down()
    assert support.records(world.state) == []


# -- for a long time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cycles", [24, pytest.param(3000, marks=pytest.mark.long)])
def test_nothing_grows(world: World, cycles: int) -> None:
    """Neither mounts, files, open files nor the time that a cycle takes, be it here or in a container's namespace."""
    support.bundle(world.path / "bundle", ["true"])
    before, held = world.snapshot(), mounting.fds()
    seconds = []
    for cycle in range(cycles):
        start = resource.getrusage(resource.RUSAGE_CHILDREN)
        if cycle % 2:
            finish(launch(world, "prestart", *mount(world, "/a/b", "/climb/c"), stdin=state(world)))
            assert mounted(world) == ["/a/b", "/real/c"]
            finish(launch(world, "poststop", stdin=state(world, status="stopped")))
        else:
            container = Container(world, "c2")
            container.set_up("/a/b", "/climb/c")
            assert container.mounted() == ["/a/b", "/real/c"]
            container.end()
            container.tear_down()
            del container
        end = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(end.ru_utime + end.ru_stime - start.ru_utime - start.ru_stime)
        if cycle % 100 == 1 or cycle == cycles - 1:
            assert world.snapshot() == before
            assert mounting.fds() == held
    third = cycles // 3
    # Processor time, not the clock's: others use this machine, too.
    first, last = statistics.median(seconds[:third]), statistics.median(seconds[-third:])
    print(f"{cycles} cycles, {1000 * first:.0f} ms of processor time each at first, {1000 * last:.0f} ms at last")
    assert last < 1.5 * first
