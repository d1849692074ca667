# SPDX-License-Identifier: Apache-2.0
"""Runtimes like runsc, which serve the rootfs to a sandbox that has a root of its own: what cannot work says why.

runsc itself is not run: its states, and namespaces like those it makes, are.
"""

from __future__ import annotations

import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.world import call, mount, state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.world import World

# Each ends when its stdin does.
SANDBOXES = {
    "a root of its own": """
        mount -t tmpfs sandbox "$0" && cp "$(command -v busybox)" "$0/busybox" && cd "$0" && mkdir old &&
        ./busybox pivot_root . old && exec /busybox sh -c '/busybox umount -l /old && echo && exec /busybox cat'""",
    "another rootfs": 'mount -t tmpfs sandbox "$0" && echo && exec cat',
    "no rootfs": 'mount -t tmpfs sandbox "${0%/*}" && echo && exec cat',
}


@contextmanager
def sandbox(world: World, kind: str) -> Iterator[int]:
    """The pid of a process in a mount namespace that does not show the rootfs."""
    place = world.source if kind == "a root of its own" else world.rootfs
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", SANDBOXES[kind], str(place)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.communicate(timeout=support.TIMEOUT)


@pytest.mark.parametrize("kind", SANDBOXES)
@pytest.mark.parametrize("stage", [["prestart"], ["createRuntime"], []], ids=["prestart", "createRuntime", "untold"])
def test_a_sandbox_is_not_mounted_in(world: World, stage: list[str], kind: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    with sandbox(world, kind) as pid:
        inside = support.mounts(pid)
        done = call(world, *stage, *mount(world, "/a/b"), stdin=state(world, status="created", pid=pid))
        assert support.mounts(pid) == inside
    assert done.returncode == 69
    assert done.stderr.startswith(f"oci-bind-hook: c1 {''.join(stage) or 'createRuntime'}: the rootfs ")
    assert f"the rootfs {world.rootfs} is not visible" in done.stderr
    assert "as under runsc, where no hook can bind: use the engine's binds" in done.stderr
    assert done.stderr.count("\n") == 1
    assert call(world, "poststop", stdin=state(world, status="stopped", pid=-1)).returncode == 0
    assert world.snapshot() == before


# Where the rootfs is served from: in a mount and a pid namespace, with config.json's binds and nothing else in place.
SERVER = 'mount --bind "$0" "$1/config" && shift && "$@" && cat "$ROOTFS/a/b/word" && touch "$ROOTFS/a/b/new"'


@pytest.mark.parametrize("stage", [["createContainer"], []], ids=["createContainer", "untold"])
def test_binds_are_made_where_the_rootfs_is_served_from(world: World, stage: list[str]) -> None:
    support.bundle(world.path / "bundle", ["true"], mounts=[support.bind(world.source, "/config")])
    (world.path / "bundle/rootfs/config").mkdir()
    before = world.snapshot()
    server = (
        *("env", f"ROOTFS={world.rootfs}", "unshare", "--mount", "--propagation", "private", "--pid", "--fork"),
        *("sh", "-c", SERVER, str(world.source), world.rootfs),
    )
    done = call(world, *stage, *mount(world, "/a/b", options=",ro"), stdin=state(world, pid=-1), before=server)
    assert done.stdout == "hello from the host\n", done.stderr
    assert "Read-only file system" in done.stderr
    assert call(world, "poststop", stdin=state(world, status="stopped", pid=-1)).returncode == 0
    assert world.snapshot() == before
