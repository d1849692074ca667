# SPDX-License-Identifier: Apache-2.0
"""A hook that takes longer than its ``timeout``: the runtime kills it, refuses the container, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.world import faults, mount

if TYPE_CHECKING:
    from helpers.world import World

# Where it is stopped until it is killed: with an intent written, with mount points made and known, with
# some binds attached, with all of them.
STOPPED_AT = faults(("renameat", 1), ("mkdirat", 2), ("renameat", 2), ("move_mount", 3), ("renameat", 3))
SECONDS = support.PATIENCE


def stopped(world: World, call: str, number: int, signal: str) -> str:
    """The launcher, stopped by a signal at one of its system calls. It is the runtime's own child: strace is not."""
    path = world.path / "stopped"
    inject = f"inject={call}:signal={signal}:when={number}"
    strace = f"{shutil.which('strace')} -D -f -qq -o /dev/null -e trace={call} -e {inject}"
    path.write_text(f'#!/bin/sh\nexec {strace} {world.launcher} "$@"\n')
    path.chmod(0o755)
    return str(path)


def bundle(world: World, stage: str, path: str, *arguments: str) -> str:
    """A bundle whose hook is killed by the runtime after SECONDS."""
    hook: dict[str, Any] = {**world.hook(stage, *arguments), "path": path, "timeout": SECONDS}
    hooks = {stage: [hook], "poststop": [world.hook("poststop")]}
    return support.bundle(world.path / "bundle", ["cat", "/k/a/word"], hooks=hooks)


def hooks_of(world: World) -> list[int]:
    """The processes that run the launcher with this world's state folder."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
        except OSError:
            continue
        if os.fsencode(world.state) in words:
            found.append(int(pid))
    return found


def refused(world: World, runtime: str, made: str) -> None:
    """The runtime refuses the container, and leaves no process of the hook behind."""
    done = support.run_container(runtime, made, "c1")
    assert done.returncode != 0
    assert "hello" not in done.stdout
    end = time.monotonic() + support.TIMEOUT
    while pids := hooks_of(world):
        assert time.monotonic() < end, f"still there: {pids}"
    if runtime == "runc":
        assert f"ran past specified timeout of {SECONDS}.0s" in done.stderr


def next_of_this_id(world: World, runtime: str, stage: str, before: dict[str, object], *arguments: str) -> None:
    """Whatever was left, the next container of the same id has all its binds, and leaves nothing."""
    made = bundle(world, stage, world.launcher, *arguments)
    done = support.run_container(runtime, made, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize(("call", "number"), STOPPED_AT)
def test_a_hook_that_is_stopped(world: World, runtime: str, call: str, number: int) -> None:
    """crun 1.8 forgets its timeout once a hook has been stopped: there the signal is the one that kills."""
    wanted = mount(world, "/k/a", "/k/b", "/absent/c", options=",ro")
    signal = "SIGSTOP" if runtime == "runc" else "SIGKILL"
    made = bundle(world, "createRuntime", stopped(world, call, number, signal), *wanted)
    before = world.snapshot()
    refused(world, runtime, made)
    if runtime == "runc":  # which calls poststop, and crun does not
        assert world.snapshot() == before
    else:
        assert "c1.lock" in os.listdir(world.state)
    next_of_this_id(world, runtime, "createRuntime", before, *wanted)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_a_source_that_never_answers(world: World, runtime: str, stage: str) -> None:
    """It hangs in the kernel, in a lookup, and can be killed there. Nothing is locked yet."""
    fuse = mounting.dead_fuse(f"{world.path}/fuse")
    made = bundle(world, stage, world.launcher, *mount(world, "/k/a"), "--mount", f"src={world.path}/fuse/x,dst=/k/b")
    before = world.snapshot()
    refused(world, runtime, made)
    assert os.listdir(world.state) == []
    next_of_this_id(world, runtime, stage, before, *mount(world, "/k/a"))
    os.close(fuse)
