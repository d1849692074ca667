# SPDX-License-Identifier: Apache-2.0
"""runsc (gVisor), whose sandbox no hook can bind in: what it says at each stage, and what its user does instead."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from engines.base import STATE, Done, call, good, names
from helpers import support

if TYPE_CHECKING:
    from pathlib import Path

    from engines.base import Hook


class Runsc:
    """runsc with its state below ``folder``, and bundles there."""

    def __init__(self, folder: Path, hook: Hook) -> None:
        self.folder, self.hook = folder, hook
        folder.mkdir()
        self.version = good("runsc", "--version").split()[2]

    @property
    def command(self) -> list[str]:
        return ["runsc", "--root", f"{self.folder}/state", "--network=none", "--ignore-cgroups"]

    def call(self, *words: str) -> Done:
        return call(*self.command, *words)

    def run(self, stage: str, script: str, **members: object) -> Done:
        """A container with the hook at ``stage`` and poststop, and what is left of it in its rootfs and the state."""
        env = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        hooks = {
            each: [{"path": self.hook.launcher, "args": ["hook", each, *self.hook.mounts("models")], "env": env}]
            for each in (stage, "poststop")
            if stage
        }
        bundle = self.folder / (stage or "plain")
        support.bundle(bundle, ["/bin/sh", "-c", script], hooks=hooks, **members)  # type: ignore[arg-type]
        before = support.tree(bundle / "rootfs")
        done = self.call("run", "--bundle", str(bundle), "box")
        assert support.tree(bundle / "rootfs") == before
        assert [name for name in names(STATE) if name.endswith(".json")] == []
        return done


@pytest.fixture(scope="module")
def made(folder: Path, hook: Hook) -> Runsc:
    return Runsc(folder / "runsc", hook)


@pytest.fixture
def runsc(request: pytest.FixtureRequest, made: Runsc) -> Runsc:
    request.node.user_properties.append(("way", (f"runsc {made.version}", "runsc", "config.json")))
    return made


@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
def test_refuses_with_a_hint(runsc: Runsc, stage: str) -> None:
    done = runsc.run(stage, "echo started")
    assert (done.returncode != 0, done.stdout) == (True, "")
    told = "as under runsc, where no hook can bind: use the engine's binds"
    assert told in done.stderr, done.stderr


def test_not_called_at_create_container(runsc: Runsc) -> None:
    """runsc passes over this stage without a word. A version that calls the hook there makes this fail: try it then."""
    done = runsc.run("createContainer", "cat /real/models/word || echo started without")
    assert (done.returncode, done.stdout) == (0, "started without\n"), done.stderr


def test_nothing_is_attached(runsc: Runsc) -> None:
    bundle = runsc.folder / "running"
    support.bundle(bundle, ["/bin/sleep", "1000"])
    before = support.tree(bundle / "rootfs")
    # Not by a pipe: the sandbox keeps it open.
    command = [*runsc.command, "run", "--detach", "--bundle", str(bundle), "box"]
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    pid = json.loads(runsc.call("state", "box").stdout)["pid"]
    try:
        words = ["box", "--bundle", str(bundle), "--pid", str(pid), "--root", STATE]
        words += ["--mount", f"src={runsc.hook.folder}/sources/models,dst=/data"]
        done = call(runsc.hook.launcher, "attach", *words)
        told = f"the root of the container is not the rootfs {bundle}/rootfs (it runs in a sandbox such as runsc"
        assert (done.returncode, told in done.stderr) == (os.EX_UNAVAILABLE, True), done
        done = call(runsc.hook.launcher, "attach", *words, "--dry-run")
        assert (done.returncode, told.partition(" (")[0] in done.stdout) == (os.EX_UNAVAILABLE, True), done
    finally:
        runsc.call("kill", "box", "KILL")
        # runsc waits until the sandbox is gone. Its parent is now this process, the first one of the pid namespace.
        os.waitpid(pid, 0)
        runsc.call("delete", "--force", "box")
    assert support.tree(bundle / "rootfs") == before
    assert [name for name in names(STATE) if name.endswith(".json")] == []


def test_mounts_of_the_engine_work(runsc: Runsc) -> None:
    """What `docker run -v` and a pod's volumes become."""
    mounts = [support.bind(runsc.hook.folder / "sources/models", "/data", "ro")]
    # On one stream: of what a container writes to stderr at its end, runsc may lose some.
    done = runsc.run("", "cat /data/word; touch /data/new 2>&1", mounts=mounts)
    assert done.stdout == "models of the host\ntouch: /data/new: Read-only file system\n", done
