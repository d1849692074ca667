# SPDX-License-Identifier: Apache-2.0
"""Several calls for one container that runs, at the same moment: each is done whole, and the record is true of all."""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.running import Running
from helpers.world import state

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from helpers.world import World

pytestmark = pytest.mark.kernel(5, 12)

ROUNDS = 3


def waiting(inode: int) -> int:
    """How many processes wait for the lock of a file, proc_locks(5)."""
    with open("/proc/locks", encoding="ascii") as file:
        return sum(" -> " in line and f":{inode} " in line for line in file)


def at_once(
    world: World, *calls: Sequence[str], stdin: str = "", meanwhile: Callable[[], object] = lambda: None
) -> list[tuple[int, str]]:
    """The exit codes and outputs of calls that all wait for the lock of the id, while ``meanwhile`` is done."""
    with open(world.state / "c1.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        running = []
        for words in calls:
            command = [world.launcher, *words, *world.root_option()]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            process = subprocess.Popen(command, text=True, **pipes)  # type: ignore[call-overload]
            assert process.stdin is not None
            process.stdin.write(stdin)
            process.stdin.close()
            process.stdin = None
            running.append(process)
        while waiting(os.fstat(lock.fileno()).st_ino) < len(running):
            assert [process.poll() for process in running] == [None] * len(running)
            os.sched_yield()
        meanwhile()
    return [(process.wait(support.TIMEOUT), process.communicate()[0]) for process in running]


def recorded(world: World) -> list[str]:
    """Where the record has binds, sorted."""
    path = world.state / "c1.json"
    mounts = json.loads(path.read_text())["mounts"] if path.exists() else []
    return sorted(mount["resolved"] for mount in mounts)


def spec(world: World, destination: str) -> list[str]:
    return ["--mount", f"src={world.source},dst={destination}"]


def test_attached_to_one_destination_and_detached_from_it(world: World) -> None:
    with Running(world) as container:
        base = world.snapshot()
        for _ in range(ROUNDS):
            done = at_once(world, *[["attach", *container.named, *spec(world, "/new/one")]] * 3)
            assert [code for code, _ in done] == [0] * 3, done
            said = sorted(text.partition(": ")[2].split(" ")[0] for _, text in done)
            assert said == ["already", "already", "bound"], done
            assert container.points() == recorded(world) == ["/new/one"]
            done = at_once(world, *[["detach", *container.named, "/new/one"]] * 3)
            assert sorted(code for code, _ in done) == [0, os.EX_NOINPUT, os.EX_NOINPUT], done
            assert (container.points(), os.listdir(world.state)) == ([], [])
            assert world.snapshot() == base


def test_attached_to_several_destinations_and_detached_from_them(world: World) -> None:
    places = ["/new/a", "/new/b", "/real/c"]
    with Running(world) as container:
        base = world.snapshot()
        for order in itertools.islice(itertools.permutations(places), ROUNDS):
            done = at_once(world, *(["attach", *container.named, *spec(world, place)] for place in order))
            assert [code for code, _ in done] == [0] * len(order), done
            assert sorted(text.partition(": ")[0] for _, text in done) == ["attach 1", "attach 2", "attach 3"], done
            assert container.points() == recorded(world) == sorted(order)
            done = at_once(world, *(["detach", *container.named, place] for place in order))
            assert [code for code, _ in done] == [0] * len(order), done
            assert (container.points(), world.snapshot()) == ([], base)


def test_attached_while_all_is_detached(world: World) -> None:
    ends = []
    with Running(world) as container:
        base = world.snapshot()
        for number in range(ROUNDS):
            assert container.attach(*spec(world, "/new/old")).returncode == 0
            calls = [["attach", *container.named, *spec(world, "/new/new")], ["detach", *container.named, "--all"]]
            done = at_once(world, *calls[:: -1 if number % 2 else 1])
            assert [code for code, _ in done] == [0, 0], done
            ends.append(container.points())
            assert ends[-1] in ([], ["/new/new"])
            assert recorded(world) == ends[-1]
            if ends[-1]:
                assert container.detach("--all").returncode == 0
            assert world.snapshot() == base


def test_attached_while_poststop_undoes_it(world: World) -> None:
    """The container ends while both wait: nothing is attached to it any more, and nothing is left of it."""
    Running(world).end()  # makes the bundle
    before = world.snapshot()
    for number in range(ROUNDS):
        with Running(world) as container:
            assert container.attach(*spec(world, "/new/old")).returncode == 0
            calls = [["attach", *container.named, *spec(world, "/new/new")], ["poststop"]]
            sent = state(world, status="stopped", bundle=container.bundle)
            done = at_once(world, *calls[:: -1 if number % 2 else 1], stdin=sent, meanwhile=container.end)
            assert sorted(code for code, _ in done) == [0, os.EX_UNAVAILABLE], done
            assert "has ended (if the" in "".join(text for _, text in done), done
        assert world.snapshot() == before
