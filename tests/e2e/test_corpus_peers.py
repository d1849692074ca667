# SPDX-License-Identifier: Apache-2.0
"""E07 of the attack corpus: another container's root sees the hook's pid, and looks what it could get from there.

It does where a pid namespace is shared, or is the host's. The hook has the host's root and fds of the host.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import tempfile
import threading
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, peer, support
from helpers.corpus import prepare
from helpers.world import mount, state

if TYPE_CHECKING:
    from collections.abc import Set

    from helpers.world import World

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
            assert support.is_readable(mute, support.TIMEOUT)
            seen = ways(hook.pid, kept)
            hook.kill()
    assert seen == []


def test_E07_no_core_file_tells_of_the_hook(world: World) -> None:
    """Another container's root may send signals. When a lock is waited for config.json is read, with its secrets."""
    prepare(world)
    command = ["prlimit", "--core=unlimited", world.launcher, "prestart", *mount(world, "/a"), *world.root_option()]
    with open(world.state / "c1.lock", "w", encoding="ascii") as lock, tempfile.TemporaryFile("w+") as stdin:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stdin.write(state(world))
        stdin.seek(0)
        actions = [(os.POSIX_SPAWN_DUP2, stdin.fileno(), 0)]
        # A shell's background processes ignore SIGQUIT, and so would this one.
        hook = os.posix_spawn("/usr/bin/prlimit", command, os.environ, file_actions=actions, setsigdef=[signal.SIGQUIT])
        support.await_flock(hook)
        os.kill(hook, signal.SIGQUIT)
        status = os.waitpid(hook, 0)[1]
    assert os.WTERMSIG(status) == signal.SIGQUIT
    assert not os.WCOREDUMP(status)


@pytest.mark.kernel(5, 12)
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


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_E07_nobody_in_a_pod_looks_into_the_hook(world: World, mute: int, runtime: str) -> None:
    """Containers of a pod may share a pid namespace. At createContainer the hook is in it too, with the host's root."""
    first = support.bundle(world.path / "first", ["sleep", "1000"])
    bundle = world.bundle("true", "createContainer", *mount(world, "/mute/x"))
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(first, "first").returncode == 0
        assert namespace.start("first").returncode == 0
        init = namespace.state("first")["pid"]
        share(bundle, f"/proc/{init}/ns/pid")
        done = []
        running = threading.Thread(target=lambda: done.append(namespace.run_container(bundle, "second")))
        running.start()
        assert support.is_readable(mute, support.TIMEOUT)
        inside = peer.Inside(init)
        (hook,) = inside.named("oci-bind-hook")
        seen = [inside.open_ways(hook, kept) for kept in MIGHT.values()]
        assert "root" in inside.open_ways(hook, peer.NEARLY_ALL | {peer.PTRACE})
        inside.kill(hook)
        running.join()
        assert namespace.stop("first").returncode == 0
    assert seen == [[], []]
    assert done[0].returncode != 0


def share(bundle: str, pids: str) -> None:
    """Lets the container of a bundle join a pid namespace."""
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    for namespace in config["linux"]["namespaces"]:
        if namespace["type"] == "pid":
            namespace["path"] = pids
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
