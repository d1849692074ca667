# SPDX-License-Identifier: Apache-2.0
"""Only a part of a source is bound, and nothing in the source decides that it is a part of something else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import kernels, mounting, support
from helpers.autofs import Automount
from helpers.world import call, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

KEY = "io.github.oci-bind-hook.mount.a"
WHY = "(below the source, only relative links that stay inside are followed)"


@pytest.fixture
def volume(world: World) -> str:
    """A source in which a container has made links."""
    support.bundle(world.path / "bundle", ["true"])
    tree: mounting.Tree = {
        "a": {"b": {"word": b"b\n"}, "word": b"a\n"},
        **{"file": b"file\n", "to-a": "a", "to-b": "to-a/b", "there and back": "a/b/../../a"},
        **{"out": "..", "far": "a/b/../../../source", "root": "/", "absolute": f"{world.path}/volume/a"},
        **{"chain": "to-a/../out", "magic": "/proc/self/root", "self": "."},
    }
    return mounting.plant(world.path / "volume", tree)


def run(world: World, *specs: str) -> tuple[int, str]:
    words = [word for spec in specs for word in ("--mount", spec)]
    done = call(world, "prestart", *words, stdin=state(world))
    return done.returncode, done.stderr.removeprefix("oci-bind-hook: c1 prestart: ").rstrip("\n")


def poststop(world: World) -> None:
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0


def planned(world: World, *specs: str) -> tuple[int, Any]:
    words = [word for spec in specs for word in ("--mount", spec)]
    done = call(world, "prestart", "--dry-run", "--format", "json", *words, stdin=state(world))
    return done.returncode, json.loads(done.stdout)


PARTS = {"a": "a", "a/b": "b", "to-a": "a", "to-b": "b", "there and back": "a", "self/self/a/./": "a", "a//b/": "b"}


@pytest.mark.parametrize("field", ["subpath", "volume-subpath"])
@pytest.mark.parametrize(("subpath", "word"), PARTS.items())
def test_only_that_part_is_bound(world: World, volume: str, field: str, subpath: str, word: str) -> None:
    before = world.snapshot()
    assert run(world, f"src={volume},dst=/data,{field}={subpath}") == (0, "")
    with open(f"{world.rootfs}/data/word", encoding="ascii") as file:
        assert file.read() == f"{word}\n"
    poststop(world)
    assert world.snapshot() == before


def test_it_may_be_a_file_or_all_of_it(world: World, volume: str) -> None:
    before = world.snapshot()
    specs = [f"src={volume},dst=/new/file,subpath=file", f"src={volume},dst=/all,subpath=."]
    assert run(world, *specs) == (0, "")
    assert os.listdir(f"{world.rootfs}/all") == os.listdir(volume)
    with open(f"{world.rootfs}/new/file", encoding="ascii") as file:
        assert file.read() == "file\n"
    poststop(world)
    assert world.snapshot() == before


LEADING_OUT = {
    "out": ("out", ".."),
    "out/source": ("out", ".."),
    "far": ("far", "a/b/../../../source"),
    "root": ("root", "/"),
    "absolute": ("absolute", "{path}/volume/a"),
    "absolute/word": ("absolute", "{path}/volume/a"),
    "chain": ("out", ".."),
    "magic": ("magic", "/proc/self/root"),
    "self/out": ("out", ".."),
}


@pytest.mark.parametrize("optional", ["", ",optional"])
@pytest.mark.parametrize(("subpath", "link"), LEADING_OUT.items())
def test_a_link_out_of_it_is_refused_and_named(
    world: World, volume: str, subpath: str, link: tuple[str, str], optional: str
) -> None:
    """Also one that leads back, or that is absolute and leads inside: as with RESOLVE_BENEATH."""
    spec = f"src={volume},dst=/data,subpath={subpath}{optional}"
    at, to = f"{volume}/{link[0]}", link[1].format(path=world.path)
    before = world.snapshot()
    assert run(world, spec) == (77, f"--mount 1: the link {at} to {to} leads out of the source {volume} {WHY}")
    code, plan = planned(world, spec)
    assert code == 77
    [mount] = plan["mounts"]
    assert mount["source_links"][-1] == {"at": at, "to": to}
    assert world.snapshot() == before


@pytest.mark.parametrize(("source", "subpath"), [("/proc", "self"), ("/proc", "mounts"), ("/proc/self", "cwd")])
def test_no_link_of_procfs_is_followed(world: World, volume: str, source: str, subpath: str) -> None:
    assert os.path.isdir(volume)
    code, line = run(world, f"src={source},dst=/data,subpath={subpath}")
    assert code == 77
    assert line.startswith(f"--mount 1: the link {source}/{subpath} to ")
    assert line.endswith(" is a link of procfs, which a subpath does not follow (use the path that it leads to)")


def test_another_part_is_another_bind(world: World, volume: str) -> None:
    before = world.snapshot()
    specs = [f"src={volume},dst=/data,subpath={subpath}" for subpath in ("a", "a/b")]
    for _ in range(2):
        assert run(world, specs[0]) == (0, "")
    code, line = run(world, specs[1])
    assert (code, "/data is already the destination of --mount 1" in line) == (78, True), line
    assert mounted(world) == ["/data"]
    poststop(world)
    assert world.snapshot() == before


def test_it_is_shown_and_listed(world: World, volume: str) -> None:
    spec = f"src={volume},dst=/data,subpath=to-a/b"
    code, plan = planned(world, spec)
    [mount] = plan["mounts"]
    assert (code, mount["source"], mount["subpath"]) == (0, volume, "to-a/b")
    assert mount["source_links"] == [{"at": f"{volume}/to-a", "to": "a"}]
    assert mount["found"]["path"] == f"{volume}/a/b"
    text = call(world, "prestart", "--dry-run", "--mount", spec, stdin=state(world)).stdout
    assert f"bind       {volume}/to-a/b on /data\n" in text
    assert f"  subpath  to-a/b, beneath {volume}\n" in text
    assert run(world, spec) == (0, "")
    assert f"mounted: {volume}/to-a/b on /data\n" in call(world, "show", "c1", stdin="").stdout
    [record] = json.loads(call(world, "list", "--format", "json", stdin="").stdout)["records"]
    assert (record["mounts"][0]["source"], record["mounts"][0]["subpath"]) == (volume, "to-a/b")
    plan = json.loads(
        call(world, "poststop", "--dry-run", "--format", "json", stdin=state(world, status="stopped")).stdout
    )
    assert plan["mounts"][0]["subpath"] == "to-a/b"
    poststop(world)


@pytest.mark.parametrize("subpath", ["a", "word", "../x"])
def test_a_file_has_no_parts(world: World, volume: str, subpath: str) -> None:
    code, line = run(world, f"src={volume}/file,dst=/data,subpath={subpath}")
    if subpath == "../x":
        assert (code, line) == (78, '--mount 1: the subpath "../x" contains ".." (use the path without "..")')
    else:
        problem = f"the source {volume}/file is not a folder, so it has no subpath {subpath} (omit subpath)"
        assert (code, line) == (66, f"--mount 1: {problem}")
        assert run(world, f"src={volume}/file,dst=/data,subpath={subpath},optional") == (0, "")


@pytest.mark.parametrize(
    ("source", "subpath"), [("", "auto"), ("", "auto/word"), ("/auto", "word"), ("/to-auto", "word")]
)
def test_what_automount_mounts_is_there(world: World, volume: str, source: str, subpath: str) -> None:
    """On the source itself, by a link or not, and on the way below it."""
    before = support.tree(world.rootfs)
    os.symlink("auto", f"{volume}/to-auto")
    with Automount(f"{volume}/auto"):
        assert run(world, f"src={volume}{source},subpath={subpath},dst=/new") == (0, "")
        place = f"{world.rootfs}/new"
        with open(place if subpath.endswith("word") else f"{place}/word", encoding="ascii") as file:
            assert file.read() == "mounted\n"
        poststop(world)
    assert support.tree(world.rootfs) == before


def test_in_an_annotation(world: World, volume: str) -> None:
    before = world.snapshot()
    words = ["--allow-annotations", f"--allow-source={world.path}"]
    for subpath, code in (("a/b", 0), ("out", 77), ("absent", 66), ("/a", 78)):
        text = f"src={volume},dst=/data,subpath={subpath}"
        support.bundle(world.path / "bundle", ["true"], annotations={KEY: text})
        done = call(world, "prestart", *words, stdin=state(world))
        assert done.returncode == code, done.stderr
        assert mounted(world) == ([] if code else ["/data"])
        if not code:
            with open(f"{world.rootfs}/data/word", encoding="ascii") as file:
                assert file.read() == "b\n"
            poststop(world)
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])
def test_a_container_sees_that_part(world: World, volume: str, runtime: str, stage: str) -> None:
    mounting.bind(volume, mounting.plant(world.path / "place", {}))
    words = ("--mount", f"src={world.path}/place,dst=/new/data,subpath=to-b,ro")
    bundle = world.bundle("cat /new/data/word; ls -A /new/data", stage, *words)
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "b\nword\n"), done.stderr
    assert world.snapshot() == before


def test_without_the_mount_api(world: World, volume: str) -> None:
    before = world.snapshot()
    done: list[tuple[int, str]] = []

    def older() -> None:
        kernels.play("before 5.12")
        done.append(run(world, f"src={volume},dst=/data,subpath=to-b"))
        assert done == [(0, "")]

    assert mounting.ended_well(mounting.forked(older))
    assert os.listdir(f"{world.rootfs}/data") == ["word"]
    poststop(world)
    assert world.snapshot() == before
