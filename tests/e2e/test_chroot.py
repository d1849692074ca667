# SPDX-License-Identifier: Apache-2.0
"""A runtime in a chroot: entering a mount namespace leads out of it, so only createContainer binds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.world import call, mount

if TYPE_CHECKING:
    import subprocess

    from helpers.world import World

RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)
HINT = "make the folder of the chroot the root of a mount namespace, as pivot_root(8) and systemd-nspawn do"

# A chroot in which all paths are the same, but "/" is another folder.
BUILD = """
mkdir "$0" && mount -t tmpfs chroot "$0"
for each in /*; do
    if [ -L "$each" ]; then cp -P "$each" "$0"
    elif [ -d "$each" ]; then mkdir "$0$each"; mount --rbind "$each" "$0$each"
    fi
done"""


class Chroot(support.RuntimeNamespace):
    """A runtime in a chroot. It starts containers only if the root of the chroot is a mount point."""

    def __init__(self, runtime: str, world: World) -> None:
        super().__init__(runtime)
        self.path = str(world.path / "chroot")
        self.world = world

    def __enter__(self) -> Chroot:
        super().__enter__()
        assert super().run("sh", "-ec", BUILD, self.path).stderr == ""
        return self

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        return super().run("chroot", self.path, *command)

    def hook(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.run(self.world.launcher, *words, "--root", str(self.world.state))


@RUNTIMES
@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
def test_before_create_container_run_and_dry_run_name_the_chroot(world: World, runtime: str, stage: str) -> None:
    log = world.path / "log"
    bundle = world.bundle("true", stage, *mount(world, "/data"), "--log", str(log))
    with Chroot(runtime, world) as chroot:
        assert chroot.run_container(bundle, "c1").returncode != 0
        explained = chroot.hook("explain", bundle, "--format", "json")
    why = "because the runtime runs in a chroot"
    problem = f"the rootfs {world.rootfs} is not visible in the container's mount namespace, {why}"
    hint = f"register the hook for createContainer, or {HINT}"
    assert f"{problem} ({hint})" in log.read_text()
    found = [{"where": "", "message": problem, "hint": hint, "exit": 69}]
    assert (explained.returncode, json.loads(explained.stdout)["problems"]) == (69, found)
    assert call(world, "explain", bundle, stdin="").returncode == 0
    assert support.records(world.state) == []


@RUNTIMES
def test_create_container_binds_and_attach_names_the_chroot(world: World, runtime: str) -> None:
    script = "cat /data/word; if test -e /data/wait; then exec sleep 1000; fi"
    bundle = world.bundle(script, "createContainer", *mount(world, "/data"))
    before = world.snapshot()
    with Chroot(runtime, world) as chroot:
        assert chroot.hook("explain", bundle).returncode == 0
        assert chroot.run_container(bundle, "c1").stdout == "hello from the host\n"
        (world.source / "wait").touch()
        assert chroot.create(bundle, "c1").stderr == ""
        assert chroot.start("c1").returncode == 0
        attached = chroot.hook("attach", "c1", *mount(world, "/late"))
        assert chroot.stop("c1").returncode == 0
    problem = f"the rootfs {world.rootfs} is not the root of the container's mount namespace, but that of a chroot"
    line = f"oci-bind-hook: c1 attach: {problem} (if the runtime runs in a chroot, {HINT})\n"
    assert (attached.returncode, attached.stderr) == (69, line)
    (world.source / "wait").unlink()
    assert world.snapshot() == before


def test_doctor_names_the_chroot(world: World) -> None:
    with Chroot("crun", world) as chroot:
        inside = chroot.run(world.launcher, "doctor")
        outside = super(Chroot, chroot).run(world.launcher, "doctor")
    assert inside.returncode == 69
    line = "MISSING mount namespace: / is not its root, but that of a chroot: the hook cannot enter containers"
    assert line in " ".join(inside.stdout.split())
    assert f"register the hook for createContainer, or {HINT}" in " ".join(inside.stdout.split())
    assert "chroot" not in outside.stdout
