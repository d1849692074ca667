# SPDX-License-Identifier: Apache-2.0
"""A rootfs that is at its path only in its runtime's mount namespace, as with podman 5 and a container's mapped root.

Two containers have the same path at the same time. Outside of both namespaces it is an empty folder.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.running import run, without_admin
from helpers.world import World, call, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import CompletedProcess


NOT_NOW = "mounts it before it calls the hook: explain the container while it runs"


class Twins:
    """The containers a and b, each created by a runtime in a mount namespace of its own, with the same bind."""

    NAMES = ("a", "b")

    def __init__(self, world: World, runtime: str, kind: str, stack: ExitStack) -> None:
        self.world = world
        self.kind = kind
        self.path = mounting.plant(world.path / "intermediate-mountpoint-0.0", {})
        for name in self.NAMES:
            mounting.plant(world.path / name, {"upper": {}, "work": {}, "merged": {}})
            if kind == "overlay":
                self.mount(name)
            else:
                support.busybox_rootfs(self.merged(name))
        hook = world.hook("createRuntime", "--mount", f"src={world.source},dst=/absolute/models,ro")
        self.runtimes: dict[str, support.RuntimeNamespace] = {}
        self.calls: dict[str, subprocess.Popen[bytes]] = {}
        for name in self.NAMES:
            runs = self.runtimes[name] = stack.enter_context(support.RuntimeNamespace(runtime))
            wait = ["/bin/sh", "-c", "echo ready; exec sleep 1000"]
            support.bundle(self.bundle(name), wait, rootfs=self.path, hooks={"createRuntime": [hook]})
            without_admin(self.bundle(name))
            done = runs.run("mount", "--bind", self.merged(name), self.path)
            assert done.returncode == 0, done.stderr
            # The runtime stays the parent of the container, in that namespace, as conmon does.
            words = ["nsenter", f"--mount=/proc/{runs.holder.pid}/ns/mnt", runtime, "--root", runs.root, "run"]
            words += ["--bundle", self.bundle(name), name]
            self.calls[name] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
            out = self.calls[name].stdout
            assert out is not None
            assert out.readline() == b"ready\n"
            assert self.made(name) == ["models"]

    def bundle(self, name: str) -> str:
        return f"{self.world.path}/bundle-{name}"

    def merged(self, name: str) -> str:
        return f"{self.world.path}/{name}/merged"

    def mount(self, name: str) -> None:
        """Mounts the rootfs of a container as the engine does, in this namespace."""
        top = self.world.path / name
        data = f"lowerdir={self.world.rootfs},upperdir={top}/upper,workdir={top}/work"
        mounting.mount("overlay", self.merged(name), "overlay", data=data)

    def made(self, name: str) -> list[str]:
        """What is in the folder of the mount point, in the upper folder of a container."""
        folder = self.world.path / name / ("upper" if self.kind == "overlay" else "merged") / "real"
        return os.listdir(folder) if folder.exists() else []

    def end(self, name: str) -> None:
        """Ends a container, of which config.json has no poststop hook."""
        # Not by the runtime: crun may write down the container's state only after its start.
        record = json.loads((self.world.state / f"{name}.json").read_text())
        os.kill(record["init"]["pid"], signal.SIGKILL)
        self.calls[name].communicate(timeout=support.TIMEOUT)

    def poststop(self, name: str, *words: str) -> CompletedProcess[str]:
        """As podman calls it: in its own mount namespace."""
        text = state(self.world, name, "stopped", bundle=self.bundle(name))
        return call(self.world, *words or ("poststop",), stdin=text)

    @property
    def records(self) -> list[str]:
        return [name.removesuffix(".json") for name in support.records(self.world.state)]


@pytest.fixture(params=[*((runtime, "overlay") for runtime in support.RUNTIMES), ("crun", "folder")], ids="-".join)
def twins(world: World, request: pytest.FixtureRequest) -> Iterator[Twins]:
    runtime, kind = request.param
    with ExitStack() as stack:
        twins = Twins(world, runtime, kind, stack)
        yield twins
    for process in twins.calls.values():
        process.communicate(timeout=support.TIMEOUT)


def test_poststop_undoes_each_where_it_is_mounted(twins: Twins) -> None:
    for name, other in (("b", ["models"]), ("a", [])):
        twins.end(name)
        explained = run(twins.world, "explain", twins.bundle(name))
        assert (explained.returncode, NOT_NOW in " ".join(explained.stdout.split())) == (os.EX_UNAVAILABLE, True)
        planned = json.loads(twins.poststop(name, "--dry-run", "--format=json").stdout)
        assert (planned["problems"], planned["remove"]) == ([], ["/real/models"])
        done = twins.poststop(name)
        assert (done.returncode, done.stderr) == (0, "")
        assert (twins.made(name), twins.made("a")) == ([], other)
    assert os.listdir(twins.world.state) == []


@pytest.mark.parametrize("twins", [("crun", "overlay")], indirect=True)
def test_what_is_mounted_nowhere_is_kept_until_it_is_mounted_again_or_removed(twins: Twins) -> None:
    world = twins.world
    for name in twins.NAMES:
        twins.end(name)
        mounting.umount(twins.merged(name))
    kept = f"the rootfs {twins.path} is not mounted in this mount namespace"
    kept += " (it stays in the state file; remove the container, or mount its rootfs as podman mount does; then run"
    for is_gc in (False, True):
        done = run(world, "gc", "a") if is_gc else twins.poststop("a")
        assert (done.returncode, kept in done.stdout + done.stderr) == (os.EX_OSERR, True), done
    assert (twins.records, twins.made("a"), twins.made("b")) == (["a", "b"], ["models"], ["models"])
    # Mounted again, it is another mount with another device number.
    mounting.tmpfs(twins.merged("b"))
    twins.mount("a")
    done = run(world, "gc")
    assert (done.returncode, twins.records, twins.made("a")) == (os.EX_OSERR, ["b"], []), done
    mounting.umount(twins.merged("b"))
    os.rename(f"{world.path}/b/upper", f"{world.path}/removed")
    assert run(world, "gc").returncode == 0
    assert os.listdir(world.state) == []


def explained(world: World, *words: str) -> dict[str, Any]:
    done = run(world, *words, "--format=json")
    assert (done.returncode, done.stderr) == (0, "")
    plan = json.loads(done.stdout)
    assert isinstance(plan, dict)
    return plan


def test_a_container_that_runs_is_explained_where_its_rootfs_is(twins: Twins) -> None:
    for name in twins.NAMES:
        plan = explained(twins.world, "explain", name)
        assert (plan["rootfs"], plan["problems"]) == (twins.merged(name), [])
        assert f"the rootfs is at {twins.path} in the runtime's mount namespace" in plan["notes"]
        [mount] = plan["mounts"]
        assert (mount["resolved"], mount["create"], mount["now"]) == ("/real/models", [], True)


def test_a_container_that_runs_gets_a_bind_where_its_rootfs_is(twins: Twins) -> None:
    world = twins.world
    spec = ["--mount", f"src={world.source},dst=/absolute/more,ro"]
    for name, others in (("b", ["models"]), ("a", ["models", "more"])):
        [mount] = [each for each in explained(world, "attach", name, "--dry-run", *spec)["mounts"] if not each["now"]]
        assert [each["path"] for each in mount["create"]] == ["/real/more"]
        done = run(world, "attach", name, *spec)
        assert (done.returncode, done.stderr) == (0, "")
        assert sorted(twins.made(name)) == ["models", "more"]
        assert sorted(twins.made("a" if name == "b" else "b")) == others
    done = run(world, "detach", "a", "/real/more")
    assert (done.returncode, twins.made("a"), sorted(twins.made("b"))) == (0, ["models"], ["models", "more"]), done
    for name in twins.NAMES:
        twins.end(name)
        assert (twins.poststop(name).returncode, twins.made(name)) == (0, [])
    assert os.listdir(world.state) == []


def test_a_rootfs_that_only_the_runtime_has_read_only_is_not_changed(world: World) -> None:
    path = mounting.plant(world.path / "there", {})
    rootfs = support.busybox_rootfs(str(world.path / "rootfs"))
    before = support.tree(rootfs)
    wait = ["/bin/sh", "-c", "echo ready; exec sleep 1000"]
    bundle = without_admin(support.bundle(world.path / "own", wait, rootfs=path))
    with support.RuntimeNamespace("crun") as runs:
        for words in (["--bind", rootfs, path], ["-o", "remount,bind,ro", path]):
            assert runs.run("mount", *words).returncode == 0
        enter = ["nsenter", f"--mount=/proc/{runs.holder.pid}/ns/mnt"]
        command = [*enter, "crun", "--root", runs.root, "run", "--bundle", bundle, "c1"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as container:
            assert container.stdout is not None
            assert container.stdout.readline() == b"ready\n"
            [pid] = support.children(container.pid)
            attach = ["attach", "c1", "--bundle", bundle, "--pid", str(pid), "--mount", f"src={world.source},dst=/more"]
            try:
                for more in ([], ["--dry-run"]):
                    done = run(world, *attach, *more)
                    said = f"the rootfs {path} is mounted read-only in the runtime's mount namespace, that of process "
                    assert (done.returncode, said in done.stdout + done.stderr) == (os.EX_UNAVAILABLE, True), done
            finally:
                os.kill(pid, signal.SIGKILL)
    assert support.tree(rootfs) == before
