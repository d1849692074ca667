# SPDX-License-Identifier: Apache-2.0
"""The binds of config.json are the runtime's: a container that starts without the hook starts with it.

Their sources may be silent, dead, or closed to root. Nobody asks them anything.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.fuse import Fuse
from helpers.world import call, mount, state

if TYPE_CHECKING:
    from helpers.world import World

RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)
STAGES = pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])


def traced(bundle: str, stage: str, output: str) -> None:
    """Lets strace write all that the hook of a bundle calls at one stage, but for execve(2) itself."""
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    [hook] = config["hooks"][stage]
    words = ["strace", "-f", "-qq", "-s", "4096", "-o", output, "-e", "trace=!execve", hook["path"]]
    hook["args"] = [*words, *hook["args"][1:]]
    hook["path"] = "/usr/bin/strace"
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)


@RUNTIMES
@STAGES
def test_no_call_names_their_sources(world: World, runtime: str, stage: str) -> None:
    own = mounting.plant(world.path / "own", {"word": b"the runtime's\n"})
    binds = [support.bind(own, "/data"), support.bind(f"{own}/word", "/etc/one-file")]
    bundle = world.bundle("cat /data/word /etc/one-file /new/word", stage, *mount(world, "/new"), mounts=binds)
    trace = f"{world.path}/trace"
    traced(bundle, stage, trace)
    with open(f"{world.rootfs}/etc/one-file", "w", encoding="ascii"):
        pass
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "the runtime's\n" * 2 + "hello from the host\n"), done.stderr
    with open(trace, encoding="utf-8", errors="replace") as file:
        lines = file.readlines()
    assert any(str(world.source) in line for line in lines)
    # config.json names them, and mountinfo shows what they have become.
    assert [line for line in lines if own in line and " read(" not in line] == []


@RUNTIMES
@pytest.mark.parametrize("how", ["silent", "dead"])
@pytest.mark.parametrize("binds", [[], ["/new"]], ids=["no bind of ours", "one"])
def test_what_is_below_them_may_be_silent_or_dead(world: World, runtime: str, how: str, binds: list[str]) -> None:
    own = mounting.plant(world.path / "own", {"word": b"the runtime's\n", "fuse": {}})
    before = support.tree(world.rootfs)
    with Fuse(f"{own}/fuse") as fuse:
        if how == "silent":
            fuse.silence("LOOKUP")
        else:
            fuse.end()
        asked = fuse.asked()
        bundle = world.bundle(
            "cat /data/word", "createRuntime", *mount(world, *binds), mounts=[support.bind(own, "/data")]
        )
        done = support.run_container(runtime, bundle, "c1")
        assert (done.returncode, done.stdout, done.stderr) == (0, "the runtime's\n", "")
        assert fuse.asked() == asked
    assert support.tree(world.rootfs) == before


@RUNTIMES
def test_one_that_was_removed_since_is_of_no_importance(world: World, runtime: str) -> None:
    """By a hook before ours, say."""
    own = mounting.plant(world.path / "own", {"word": b"the runtime's\n"})
    bundle = world.bundle("cat /new/word", "createRuntime", *mount(world, "/new"), mounts=[support.bind(own, "/data")])
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    words = ["sh", "-c", f'{support.READS}mv "$0" "$0.gone"', own]
    config["hooks"]["createRuntime"].insert(0, {"path": "/bin/sh", "args": words})
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from the host\n", "")


def test_where_no_runtime_has_made_the_namespace_they_are_ours(world: World) -> None:
    """A runtime that only calls chroot(2), or a bundle tried by hand."""
    bundle = support.bundle(world.path / "bundle", ["true"], mounts=[support.bind(world.source, "/data")])
    assert bundle
    with open(world.path / "bundle/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["linux"]["namespaces"] = []
    with open(world.path / "bundle/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    before = world.snapshot()
    done = call(world, "prestart", stdin=state(world))
    assert (done.returncode, os.listdir(f"{world.rootfs}/data")) == (0, ["word"]), done.stderr
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
def test_a_namespace_in_which_nothing_is_mounted_is_refused(world: World, stage: str) -> None:
    """As where a runtime restores a checkpoint, which is to bring its mounts along."""
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    with subprocess.Popen(
        ["unshare", "-m", "--propagation", "private", "sh", "-c", "echo; exec cat"], stdin=-1, stdout=-1
    ) as init:
        assert init.stdout is not None
        assert init.stdout.read(1) == b"\n"
        done = call(world, stage, *mount(world, "/new"), stdin=state(world, pid=init.pid))
    assert (done.returncode, done.stderr) == (
        os.EX_UNAVAILABLE,
        f"oci-bind-hook: c1 {stage}: no mount of config.json is visible in the container's mount namespace (the"
        " runtime called the hook before mounting, restores a checkpoint, or uses another config.json, as with crun"
        " --config; in this state the hook cannot bind anything)\n",
    )
    assert world.snapshot() == before
