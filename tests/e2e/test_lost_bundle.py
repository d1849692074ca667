# SPDX-License-Identifier: Apache-2.0
"""crun loses its bundle where it makes devices for a user namespace, and tells hooks that it is `/`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.podman import Podman
from helpers.world import Container, World, call, dead, mount, state
from oci_bind_hook.commands.engines import install
from oci_bind_hook.commands.engines.launcher import import_folders

if TYPE_CHECKING:
    from collections.abc import Callable

OUTSIDE = 100_000
IDS = [{"containerID": 0, "hostID": OUTSIDE, "size": 65536}]
DEVICE = {"path": "/dev/foo", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666, "uid": 0, "gid": 0}


@pytest.fixture
def world(tmp_path: Path, launcher: str) -> World:
    """A world that another user can look into, with a log that they can write."""
    mounting.show(str(tmp_path), sys.base_prefix, *import_folders(), str(Path(launcher).parents[3]))
    world = World(tmp_path, launcher)
    tmp_path.chmod(0o755)
    (tmp_path / "log").touch()
    (tmp_path / "log").chmod(0o666)
    return world


SENTENCE = (
    "the runtime has lost the bundle: the state has / as the bundle, which has no config.json (crun "
    "does this when it creates"
)


def bundle_with_device(world: World, stage: str = "createRuntime", *arguments: str) -> str:
    """A bundle that makes crun lose it. All of the rootfs is the container's."""
    subprocess.run(["chown", "-hR", f"{OUTSIDE}:{OUTSIDE}", world.rootfs], check=True)
    words = [*mount(world, "/new"), "--log", f"{world.path}/log", *arguments]
    return world.bundle(
        "cat /new/word",
        stage,
        *words,
        namespaces=(*support.NAMESPACES, "user"),
        linux={"uidMappings": IDS, "gidMappings": IDS, "devices": [DEVICE]},
    )


def log(world: World) -> str:
    with open(f"{world.path}/log", encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize("named", [["--bundle", ""], ["-b", ""], ["--bundle="]], ids=" ".join)
def test_it_is_the_one_that_the_runtime_was_started_with(world: World, named: list[str]) -> None:
    bundle = bundle_with_device(world)
    before = world.snapshot()
    words = [*named[:-1], f"{named[-1]}{bundle}"]
    with support.RuntimeNamespace("crun") as crun:
        done = crun.call("run", *words, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), (done.stderr, log(world))
    assert f"the runtime has lost the bundle; found it at {bundle}" in log(world)
    assert world.snapshot() == before


def test_a_dry_run_finds_it_as_well(world: World) -> None:
    """One that is registered: a code of its own would stop the container."""
    bundle = bundle_with_device(world, "createRuntime", "--dry-run")
    before = world.snapshot()
    with support.RuntimeNamespace("crun") as crun:
        done = crun.call("run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stderr) == (1, "cat: can't open '/new/word': No such file or directory\n")
    assert world.snapshot() == before


SECOND = {
    "well": (["dst=/other"], 0),
    "before it is entered": (["dst=/other,src=/absent"], 1),
    "as its config.json is read": (["dst=/other", "--strict"], 1),
}


@pytest.mark.parametrize("case", SECOND)
def test_a_second_entry_knows_what_the_first_did(world: World, case: str) -> None:
    """However it ends: what the first did is its container's, of whatever bundle crun speaks."""
    bundle = bundle_with_device(world)
    (fields, *more), failures = SECOND[case]
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    text = fields if "src=" in fields else f"src={world.source},{fields}"
    config["hooks"]["createRuntime"].append(world.hook("--mount", text, "--log", f"{world.path}/log", *more))
    config["hostname"] = 1  # not valid, and crun passes over it
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    before = world.snapshot()
    with support.RuntimeNamespace("crun") as crun:
        done = crun.call("run", "--bundle", bundle, "c1")
    shown = "" if failures else "hello from the host\n"
    assert (done.returncode != 0, done.stdout) == (bool(failures), shown), (done.stderr, log(world))
    told = "earlier calls for this container are undone as well"
    assert log(world).count(told) == failures
    assert world.snapshot() == before


def test_with_create_start_and_delete(world: World) -> None:
    """The end is called with / as well; it is undone once the first process has ended, and not before."""
    bundle = bundle_with_device(world)
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["process"]["args"] = ["/bin/cat", "/new/word", "-"]
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    before = world.snapshot()
    with support.RuntimeNamespace("crun") as crun:
        assert crun.create(bundle, "c1").returncode == 0, log(world)
        assert support.records(world.state) == ["c1.json"]
        text = state(world, status="stopped", bundle="/")
        early = call(world, "poststop", "--debug", stdin=text)
        assert (early.returncode, "the container's first process still runs" in early.stderr) == (0, True)
        assert support.records(world.state) == ["c1.json"]
        assert crun.stop("c1").returncode == 0
    assert world.snapshot()["rootfs"] == before["rootfs"]
    assert support.records(world.state) == []


def relative(_: World, bundle: str) -> tuple[str, str]:
    return os.path.dirname(bundle), f"run --bundle {os.path.basename(bundle)} c1"


def unnamed(_: World, bundle: str) -> tuple[str, str]:
    return bundle, "run c1"


def of_another_hook(world: World, bundle: str) -> tuple[str, str]:
    """What is called is no hook of the config.json that is found."""
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    with open(f"{world.path}/other.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    config["hooks"]["createRuntime"][0]["args"].append("--debug")
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    return "/", f"run --bundle {bundle} --config {world.path}/other.json c1"


@pytest.mark.parametrize("how", [relative, unnamed, of_another_hook])
def test_where_it_is_not_certain_it_is_refused(world: World, how: Callable[[World, str], tuple[str, str]]) -> None:
    bundle = bundle_with_device(world)
    folder, words = how(world, bundle)
    before = support.tree(world.rootfs)
    with support.RuntimeNamespace("crun") as crun:
        done = crun.run("sh", "-c", f"cd {folder} && exec crun --root {crun.root} {words}")
    assert done.returncode != 0
    assert SENTENCE in log(world)
    assert "with an absolute path, register the hook for createContainer, or use runc)" in log(world)
    assert support.tree(world.rootfs) == before


def test_at_create_container_it_is_not_lost(world: World) -> None:
    bundle = bundle_with_device(world, "createContainer")
    os.mkdir(f"{world.rootfs}/new")
    os.chown(f"{world.rootfs}/new", OUTSIDE, OUTSIDE)
    done = support.run_container("crun", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), (done.stderr, log(world))


def test_a_record_without_a_first_process_is_not_undone_for_it(world: World) -> None:
    """Only the id agrees then, and another runtime may use it as well."""
    one = dead(world, "one", "/a")
    with open(f"{world.state}/one.json", encoding="utf-8") as file:
        record = json.load(file)
    with open(f"{world.state}/one.json", "w", encoding="utf-8") as file:
        json.dump({**record, "init": None}, file)
    done = call(world, "poststop", "--debug", stdin=state(world, "one", status="stopped", bundle="/"))
    assert (done.returncode, "the record belongs to another bundle" in done.stderr) == (0, True)
    assert os.path.isdir(f"{world.rootfs}/a")
    one.tear_down()


def test_another_bundle_is_another_bundle_all_the_same(world: World) -> None:
    one = dead(world, "one", "/a")
    done = call(world, "poststop", "--debug", stdin=state(world, "one", status="stopped", bundle="/etc"))
    assert (done.returncode, "the record belongs to another bundle" in done.stderr) == (0, True)
    one.tear_down()


def test_a_dry_run_says_it_too(world: World) -> None:
    one = Container(world, "one")
    done = call(world, "createRuntime", "--dry-run", stdin=state(world, "one", bundle="/", pid=one.init.pid))
    assert done.returncode == os.EX_NOINPUT
    assert "the runtime has lost the bundle" in done.stdout
    one.end()


@pytest.mark.parametrize("options", [("--device=/dev/zero:/dev/foo",), ("--privileged",)], ids=["device", "privileged"])
def test_under_podman(tmp_path: Path, options: tuple[str, ...]) -> None:
    podman = Podman(tmp_path)
    source = podman.folder / "source"
    source.mkdir()
    (source / "word").write_text("hello\n")
    mounting.show(str(tmp_path))
    tmp_path.chmod(0o755)
    subprocess.run(["chown", "-hR", f"{OUTSIDE}:{OUTSIDE}", podman.rootfs], check=True)
    state_folder, written = podman.folder / "state", podman.folder / "log"
    words = ["--mount", f"src={source},dst=/new/place,ro", "--root", str(state_folder), "--log", str(written)]
    folder = str(podman.folder / "etc/hooks.d")
    install.install(str(podman.folder / "prefix"), (), words, hooks_dir=folder)
    ids = ("--uidmap", f"0:{OUTSIDE}:65536", "--gidmap", f"0:{OUTSIDE}:65536")
    seen = podman.run([folder], "/bin/cat", "/new/place/word", options=(*ids, *options))
    assert (seen.returncode, seen.stdout) == (0, "hello\n"), (seen.stderr, written.read_text())
    assert "the runtime has lost the bundle; found it at" in written.read_text()
    # podman calls poststop itself, and knows the bundle.
    assert support.records(state_folder) == []
    assert "new" not in support.tree(podman.rootfs)
