# SPDX-License-Identifier: Apache-2.0
"""What every container start waits for, in counts that do not depend on the machine: modules, system calls, memory."""

from __future__ import annotations

import collections
import os
import re
import subprocess
from typing import TYPE_CHECKING

import pytest

import support
from world import World, mount, state

if TYPE_CHECKING:
    from collections.abc import Sequence

# What is loaded besides what a bare `python3 -I -S` loads.
BOTH = {
    *("errno", "fcntl", "resource", "_ctypes", "_json", "_prctl", "__future__"),
    *("os", "posixpath", "genericpath", "stat", "_stat", "abc", "_abc", "_collections_abc"),
}
OURS = {
    "prestart": "",
    "poststop": "",
}
LOADED = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)


def interpreter(world: World) -> str:
    """The Python in the launcher's first line."""
    with open(world.launcher, encoding="utf-8") as file:
        return file.readline().removeprefix("#!").split()[0]


def loaded(world: World, *arguments: str, stdin: str) -> set[str]:
    """All modules that a run loads, and that a bare Python does not."""
    python = [interpreter(world), "-I", "-S", "-X", "importtime"]
    bare = subprocess.run([*python, "-c", "pass"], capture_output=True, text=True, check=True)
    command = [*python, world.launcher, *arguments, *world.root_option()]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
    return set(LOADED.findall(done.stderr)) - set(LOADED.findall(bare.stderr))


def test_the_modules_of_a_good_run(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    for stage, status in (("prestart", "creating"), ("poststop", "stopped")):
        wanted = mount(world, "/data", "/new/place") if stage == "prestart" else []
        found = loaded(world, stage, *wanted, stdin=state(world, status=status))
        ours = {f"oci_bind_hook.{name}" for name in OURS[stage].split()} | {"oci_bind_hook"}
        assert found - BOTH == ours, stage


def calls(world: World, *arguments: str, stdin: str) -> collections.Counter[str]:
    """How often a run makes each system call."""
    trace = world.path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), world.launcher, *arguments, *world.root_option()]
    subprocess.run(command, input=stdin, text=True, check=True)
    lines = trace.read_text().splitlines()
    return collections.Counter(match[1] for line in lines if (match := re.match(r"\d+ +(\w+)\(", line)))


def prepare(world: World, count: int) -> list[str]:
    """Arguments for so many binds in folders that are there."""
    for number in range(count):
        os.makedirs(f"{world.rootfs}/real/{number}", exist_ok=True)
    return mount(world, *(f"/real/{number}" for number in range(count)), options=",ro")


# Per bind: opened, cloned and closed; told apart; attributes, propagation, and both again once it is attached.
SET_UP = {
    "openat": 3,
    "close": 5,
    "readlinkat": 1,
    "open_tree": 1,
    "mount_setattr": 3,
    "move_mount": 1,
    "statx": 5,
    "fstatfs": 1,
}
TEAR_DOWN: dict[str, int] = {}


@pytest.mark.parametrize("less", [10])
def test_system_calls_for_each_bind(world: World, less: int) -> None:
    support.bundle(world.path / "bundle", ["true"])
    counts = []
    for count in (less, less + 50):
        wanted = prepare(world, count)
        up = calls(world, "prestart", *wanted, stdin=state(world))
        down = calls(world, "poststop", stdin=state(world, status="stopped"))
        counts.append((up, down))
    (up, down), (more_up, more_down) = counts
    rest = {"brk", "mmap", "munmap", "mremap", "read", "write", "madvise"}
    for fewer, more, table in ((up, more_up, SET_UP), (down, more_down, TEAR_DOWN)):
        each = {name: (more[name] - fewer[name]) / 50 for name in more if more[name] - fewer[name] >= 25}
        assert {name: number for name, number in each.items() if name not in rest} == table


def run(command: Sequence[str], stdin: str) -> int:
    """Runs a command to its end, and returns the most memory it had, in KiB."""
    into, out_of = os.pipe()
    os.write(out_of, stdin.encode())
    os.close(out_of)
    child = os.posix_spawn(command[0], list(command), {}, file_actions=[(os.POSIX_SPAWN_DUP2, into, 0)])
    os.close(into)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    return usage.ru_maxrss


def test_memory(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    bare = run([interpreter(world), "-I", "-S", "-c", "pass"], "")
    wanted = prepare(world, 10)
    assert run([world.launcher, "prestart", *wanted, *world.root_option()], state(world)) <= 1.5 * bare
    stopped = state(world, status="stopped")
    assert run([world.launcher, "poststop", *world.root_option()], stopped) <= 1.5 * bare
