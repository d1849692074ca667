# SPDX-License-Identifier: Apache-2.0
"""E07 of the attack corpus: another container's root sees the hook's pid, and looks what it could get from there.

It does where a pid namespace is shared, or is the host's. The hook has the host's root and fds of the host.
"""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

import mounting
import peer
import support
from corpus import prepare
from world import mount, state

if TYPE_CHECKING:
    from collections.abc import Set

    from world import World

MIGHT = {"ordinary": peer.ORDINARY, "nearly all": peer.NEARLY_ALL}
EVERY = pytest.mark.parametrize("kept", MIGHT.values(), ids=MIGHT)


def ways(pid: int, kept: Set[int]) -> list[str]:
    """The ways into a process; shown to be there for who has CAP_SYS_PTRACE and nothing else more."""
    assert "root" in peer.open_ways(pid, kept | {peer.PTRACE})
    return peer.open_ways(pid, kept)


@EVERY
def test_E07_nobody_looks_into_the_hook(world: World, mute: int, kept: Set[int]) -> None:
    prepare(world)
    command = [world.launcher, "prestart", *mount(world, "/mute/x"), *world.root_option()]
    with tempfile.TemporaryFile("w+") as stdin:
        stdin.write(state(world))
        stdin.seek(0)
        with subprocess.Popen(command, stdin=stdin) as hook:
            select.select([mute], [], [])
            seen = ways(hook.pid, kept)
            hook.kill()
    assert seen == []


@EVERY
def test_E07_nobody_looks_into_its_helper(world: World, kept: Set[int]) -> None:
    """The user namespace for an id map belongs to our uid, and so everybody of that uid has all power in it."""
    volume = mounting.tmpfs(f"{world.path}/volume")
    prepare(world)
    trace = world.path / "trace"
    hold = ["strace", "-qq", "-o", str(trace), "-e", "trace=pidfd_open"]
    hold += ["-e", "inject=pidfd_open:delay_enter=60000000"]
    words = ["prestart", "--mount", f"src={volume},dst=/data,idmap=uids=0-1-1;gids=0-1-1", *world.root_option()]
    with subprocess.Popen([*hold, world.launcher, *words], stdin=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdin is not None
        tracer.stdin.write(state(world))
        tracer.stdin.close()
        while "pidfd_open(" not in (trace.read_text() if trace.exists() else ""):
            assert tracer.poll() is None
        (hook,) = support.children(tracer.pid)
        (helper,) = support.children(hook)
        while os.stat(f"/proc/{helper}/ns/user").st_ino == os.stat("/proc/self/ns/user").st_ino:
            assert tracer.poll() is None
        seen = ways(helper, kept)
        os.kill(hook, 9)
        tracer.kill()
    assert seen == []
