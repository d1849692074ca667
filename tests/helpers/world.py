# SPDX-License-Identifier: Apache-2.0
"""The installed launcher, registered in bundles, and what must be the same before and after a container's life."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import kernels, support

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from _pytest.mark.structures import ParameterSet


class World:
    """A folder with a bundle, things to bind, and a state folder; and a look at all that must not change."""

    def __init__(self, path: Path, launcher: str) -> None:
        self.path = path
        self.launcher = launcher
        self.rootfs = support.busybox_rootfs(path / "bundle/rootfs")
        self.state = path / "state"
        self.state.mkdir(mode=0o700)
        self.source = path / "source"
        self.source.mkdir()
        (self.source / "word").write_text("hello from the host\n")
        self.file = path / "a file"
        self.file.write_text("one file\n")

    def hook(self, *arguments: str, env: Sequence[str] = ("PATH=/usr/bin:/bin",)) -> dict[str, Any]:
        """The entry of config.json's hooks that calls the launcher."""
        args = ["oci-bind-hook", *arguments, *self.root_option()]
        return {"path": self.launcher, "args": args, "env": list(env)}

    def root_option(self) -> list[str]:
        return ["--root", str(self.state)]

    def bundle(self, script: str, stage: str, *arguments: str, named: bool = True, **members: Any) -> str:
        """The bundle of a container that runs ``script``, with the hook at ``stage`` and at poststop."""
        hooks = {
            stage: [self.hook(*([stage] if named else []), *arguments)],
            "poststop": [self.hook(*(["poststop"] if named else []), *arguments)],
        }
        return support.bundle(self.path / "bundle", ["/bin/sh", "-c", script], hooks=hooks, **members)

    def snapshot(self) -> dict[str, object]:
        return {
            "rootfs": support.tree(self.rootfs),
            "source": support.tree(self.source),
            "state": os.listdir(self.state) if self.state.exists() else [],
            "mounts": support.mounts(),
        }


def state(world: World, container: str = "c1", status: str = "creating", **members: Any) -> str:
    """What a runtime sends."""
    document = {"ociVersion": "1.0.2", "id": container, "status": status, "bundle": str(world.path / "bundle")}
    return json.dumps({**document, **members})


def call(world: World, *arguments: str, stdin: str, before: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """The launcher, called by hand in this test's mount namespace."""
    command = [*before, world.launcher, *arguments, "--root", str(world.state)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=support.TIMEOUT, check=False)


def mounted(world: World) -> list[str]:
    """The mount points in the rootfs, as this namespace has them."""
    points = [line.split(" ")[4] for line in support.mounts()]
    return sorted(point[len(world.rootfs) :] for point in points if point.startswith(world.rootfs + "/"))


def mount(world: World, *destinations: str, options: str = "") -> list[str]:
    return [word for path in destinations for word in ("--mount", f"src={world.source},dst={path}{options}")]


def faults(*points: tuple[str, int]) -> list[ParameterSet]:
    """Parameters for ``fail``: those of the mount API only where the kernel has it."""
    newer = pytest.mark.kernel(5, 12)
    return [pytest.param(*point, marks=newer if point[0] in kernels.MOUNT_API else ()) for point in points]


def fail(call: str, number: int, how: str = "error=EIO") -> tuple[str, ...]:
    """The command that makes the kernel refuse one system call of the command after it, or kill it there.

    The first of each call of the mount API only asks whether it is there, and does not count.
    """
    number += call in kernels.MOUNT_API
    inject = f"inject={call}:{how}:when={number}"
    return ("strace", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)


def hands_over(runtime: str) -> bool:
    """Whether a runtime gives a createContainer hook without an env the image's variables: runc before 1.3."""
    version = subprocess.run([runtime, "--version"], capture_output=True, text=True, check=True).stdout.split()[2]
    return runtime == "runc" and tuple(map(int, version.split(".")[:2])) < (1, 3)


class Container:
    """A process in a mount namespace of its own, as the runtime has made it when it calls createRuntime."""

    def __init__(self, world: World, name: str, rootfs: str | None = None) -> None:
        self.world = world
        self.name = name
        self.rootfs = rootfs or world.rootfs
        self.bundle = world.path / f"bundle-{name}"
        support.bundle(self.bundle, ["true"], rootfs=self.rootfs)
        # The tmpfs that config.json asks for.
        made = f"mount -t tmpfs tmpfs {shlex.quote(self.rootfs)}/dev && echo && exec cat"
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", made]
        self.init = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def launch(
        self, *arguments: str, status: str = "creating", first: bool = True, before: Sequence[str] = ()
    ) -> subprocess.Popen[str]:
        """A call of the hook, not waited for; ``first`` at this container's start."""
        assert self.init.stdout is not None
        if status == "creating" and first:
            assert self.init.stdout.read(1) == b"\n"
        members = {"pid": self.init.pid} if status == "creating" else {}
        text = state(self.world, self.name, status=status, bundle=str(self.bundle), **members)
        stage = "createRuntime" if status == "creating" else "poststop"
        return launch(self.world, stage, *arguments, stdin=text, before=before)

    def set_up(self, *destinations: str) -> None:
        finish(self.launch(*mount(self.world, *destinations)))

    def end(self) -> None:
        self.init.communicate()

    def tear_down(self) -> None:
        finish(self.launch(status="stopped"))

    def mounted(self) -> list[str]:
        points = [line.split(" ")[4] for line in support.mounts(self.init.pid)]
        inside = (point[len(self.rootfs) :] for point in points if point.startswith(self.rootfs + "/"))
        return sorted(point for point in inside if point != "/dev")


def dead(world: World, name: str, *destinations: str, rootfs: str | None = None) -> Container:
    """A container that has ended, and that nobody tore down."""
    container = Container(world, name, rootfs)
    container.set_up(*destinations)
    container.end()
    return container


def launch(world: World, *arguments: str, stdin: str, before: Sequence[str] = ()) -> subprocess.Popen[str]:
    """As ``call``, but not waited for."""
    command = [*before, world.launcher, *arguments, "--root", str(world.state)]
    process = subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True)
    assert process.stdin is not None
    process.stdin.write(stdin)
    process.stdin.close()
    process.stdin = None
    return process


def finish(*processes: subprocess.Popen[str], code: int = 0) -> list[str]:
    """Waits for calls that must end with this code; what they said."""
    said = [process.communicate(timeout=support.TIMEOUT)[1] for process in processes]
    assert [process.returncode for process in processes] == [code] * len(processes), said
    return said
