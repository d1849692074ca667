# SPDX-License-Identifier: Apache-2.0
"""`crun run --config other.json`: the hook is told of the bundle only, and says so where it can see the difference."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.world import call, mount, state

if TYPE_CHECKING:
    import subprocess

    from helpers.world import World


@pytest.fixture
def bundle(world: World) -> str:
    """A bundle with other.json for the runtime, which registers the hook, and no config.json yet."""
    words = [*mount(world, "/new"), "--log", f"{world.path}/log"]
    script = "cat /new/word; grep -c /data /proc/self/mountinfo; true"
    path = world.bundle(script, "createRuntime", *words, annotations={"io.example.a": "1"})
    os.rename(f"{path}/config.json", f"{path}/other.json")
    return path


def rest(bundle: str, **members: Any) -> None:
    """Makes config.json of other.json with these members."""
    with open(f"{bundle}/other.json", encoding="utf-8") as file:
        config = json.load(file)
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump({**config, **members}, file)


def own_mounts(bundle: str) -> list[dict[str, Any]]:
    with open(f"{bundle}/other.json", encoding="utf-8") as file:
        found: list[dict[str, Any]] = json.load(file)["mounts"]
    return found


def run(bundle: str) -> subprocess.CompletedProcess[str]:
    with support.RuntimeNamespace("crun") as crun:
        return crun.call("run", "--bundle", bundle, "--config", f"{bundle}/other.json", "c1")


def log(world: World) -> str:
    with open(f"{world.path}/log", encoding="utf-8") as file:
        return file.read()


def test_where_there_is_no_config_json(world: World, bundle: str) -> None:
    assert run(bundle).returncode != 0
    assert "/config.json cannot be opened: No such file or directory (crun --config uses another file" in log(world)


def test_where_another_one_has_other_mounts(world: World, bundle: str) -> None:
    """Nothing of it is there, and nothing is bound."""
    rest(bundle, mounts=[support.bind(world.source, "/data", "rw")])
    assert run(bundle).returncode != 0
    assert "no mount of config.json is visible" in log(world)
    assert "another config.json, as with crun --config" in log(world)


def test_where_another_one_has_some_of_the_same_mounts(world: World, bundle: str) -> None:
    """None of its binds is made, and each is told of."""
    rest(bundle, mounts=[*own_mounts(bundle), support.bind(world.source, "/data", "rw")])
    done = run(bundle)
    assert (done.returncode, done.stdout) == (0, "hello from the host\n0\n"), done.stderr
    assert "left to the runtime: nothing is mounted on /data" in log(world)
    assert "may use another config.json" not in log(world)


@pytest.mark.parametrize("annotations", [{}, {"io.example.a": "2"}, {"io.example.b": "1"}])
def test_where_another_one_has_other_annotations(world: World, bundle: str, annotations: dict[str, str]) -> None:
    rest(bundle, annotations=annotations)
    done = run(bundle)
    assert (done.returncode, done.stdout) == (0, "hello from the host\n0\n"), done.stderr
    said = "the runtime may use another config.json: the annotation io.example.a differs in the state"
    assert said in log(world)
    text = state(world, annotations={"io.example.a": "1"})
    report = json.loads(call(world, "prestart", "--dry-run", "--format=json", stdin=text).stdout)
    assert said in report["warnings"]


def test_where_another_one_asks_for_no_namespace(world: World, bundle: str) -> None:
    """Its binds would be the hook's to make, in the container's own namespace."""
    rest(bundle, linux={"namespaces": []}, mounts=[support.bind(world.source, "/data", "rw")])
    before = support.tree(world.rootfs)
    assert run(bundle).returncode != 0
    assert "the container has a mount namespace of its own, but config.json requests none" in log(world)
    assert support.tree(world.rootfs) == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_the_same_annotations_are_no_difference(world: World, runtime: str) -> None:
    words = [*mount(world, "/new"), "--log", f"{world.path}/log"]
    annotations = {"io.example/a=b": "1=2", "b": "", "c": "x=y", "\u00e4": "\n"}
    path = world.bundle("cat /new/word", "createRuntime", *words, annotations=annotations)
    done = support.run_container(runtime, path, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
    assert "another config.json" not in log(world)
