# SPDX-License-Identifier: Apache-2.0
"""Who never answers holds up nobody else: a FUSE server that goes silent at each kind of request, at each moment."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from helpers.fuse import KINDS, SECONDS, Fuse
from helpers.world import Container, call, fail, finish, launch, mount, mounted, state

if TYPE_CHECKING:
    from helpers.world import World


def is_stuck(process: subprocess.Popen[str], fuse: Fuse) -> bool:
    """Waits until a process has ended or somebody waits for an answer, and tells whether it is the latter."""
    pidfd = os.pidfd_open(process.pid)
    ready = support.readable(SECONDS, pidfd, fuse.stuck)
    os.close(pidfd)
    assert ready
    return pidfd not in ready


def bind(source: str, destination: str) -> list[str]:
    return ["--mount", f"src={source},dst={destination}"]


# Of the source itself a start looks up the name and asks what it is, once each, before anything is locked.
ASKED = {"": ["GETATTR"], "/folder": ["LOOKUP", "GETATTR"], "/word": ["LOOKUP", "GETATTR"]}


@pytest.mark.parametrize("source", ["", "/folder", pytest.param("/word", marks=pytest.mark.long)])
def test_a_source_that_goes_silent_holds_up_its_own_container_only(world: World, source: str) -> None:
    before = world.snapshot()["rootfs"]
    for number, (kind, after) in enumerate((kind, after) for kind in KINDS for after in (0, 1)):
        with Fuse(f"{world.path}/fuse-{number}") as fuse:
            fuse.silence(kind, after)
            one = Container(world, f"one-{number}")
            start = one.launch(*mount(world, "/a"), *bind(fuse.path + source, "/new/b"))
            if after == 0 and kind in ASKED[source]:
                assert is_stuck(start, fuse)
                assert os.listdir(world.state) == []
                others_are_not_held_up(world)
                fuse.end()
                (said,) = finish(start, code=66)
                assert f"--mount 2: the source {fuse.path}{source} cannot be opened" in said
                assert one.mounted() == []
                one.end()
            else:
                assert not is_stuck(start, fuse)
                finish(start)
                assert one.mounted() == ["/a", "/new/b"]
                assert fuse.asked().keys() <= {*ASKED[source]}
                one.end()
                one.tear_down()
        assert (world.snapshot()["rootfs"], os.listdir(world.state)) == (before, [])


def others_are_not_held_up(world: World) -> None:
    """One on the same rootfs, one on another, list and gc."""
    same = Container(world, "same")
    other = Container(world, "other", support.busybox_rootfs(tempfile.mkdtemp(dir=world.path)))
    for each in (same, other):
        each.set_up("/a")
        assert each.mounted() == ["/a"]
        each.end()
        each.tear_down()
    listed = call(world, "list", "--format=json", stdin="")
    records = json.loads(listed.stdout)["records"]
    assert (listed.returncode, records, call(world, "gc", stdin="").returncode) == (0, [], 0)


@pytest.mark.parametrize("kind", ["GETATTR", "STATFS"])
def test_a_destination_that_is_a_silent_mount_is_not_asked(world: World, kind: str) -> None:
    with Fuse(f"{world.rootfs}/mute") as fuse:
        one = Container(world, "one")
        fuse.silence(kind)
        start = one.launch(*mount(world, "/mute"))
        assert not is_stuck(start, fuse)
        finish(start)
        assert one.mounted() == ["/mute", "/mute"]
        one.end()
        one.tear_down()
        assert fuse.asked() == {}


def test_what_is_silent_below_a_source_is_taken_along_unasked(world: World) -> None:
    """As mount(8) does it: neither the FUSE nor what is mounted in it is asked anything."""
    with Fuse(f"{world.source}/fuse") as fuse:
        mounting.tmpfs(f"{world.source}/fuse/folder")
        asked = fuse.asked()
        fuse.silence("LOOKUP")
        for options in ("", ",ro,bind-recursive=readonly"):
            one = Container(world, "one")
            start = one.launch(*mount(world, "/new", options=options))
            assert not is_stuck(start, fuse)
            finish(start)
            assert one.mounted() == ["/new", "/new/fuse", "/new/fuse/folder"]
            assert fuse.asked() == asked
            one.end()
            one.tear_down()


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_that_fails_is_undone_though_a_source_is_silent(world: World, kind: str) -> None:
    before = world.snapshot()
    with Fuse(f"{world.path}/fuse") as fuse:
        fuse.silence(kind, 1)
        support.bundle(world.path / "bundle", ["true"])
        binds = [*bind(f"{fuse.path}/folder", "/new/a"), *mount(world, "/new/b", "/new/c")]
        process = launch(world, "prestart", *binds, stdin=state(world), before=fail("move_mount", 3))
        assert not is_stuck(process, fuse)
        (said,) = finish(process, code=71)
        assert "move_mount /new/c: Input/output error" in said
        assert mounted(world) == []
    mounting.umount(fuse.path)
    os.rmdir(fuse.path)
    assert world.snapshot() == before


@pytest.mark.parametrize(
    ("kind", "kernel_is"), [*((kind, "this") for kind in KINDS), ("LOOKUP", "before 5.12"), ("GETATTR", "before 5.12")]
)
def test_binds_of_a_silent_source_are_undone(world: World, kind: str, kernel_is: str) -> None:
    """The other binds in it as well: the way to them leads through it, and they go with it."""
    kernels.play(kernel_is)
    support.bundle(world.path / "bundle", ["true"])
    with Fuse(f"{world.path}/fuse") as fuse:
        before = world.snapshot()
        binds = [*bind(fuse.path, "/new/a"), *mount(world, "/new/a/folder"), *bind(f"{fuse.path}/word", "/new/b")]
        start = call(world, "prestart", *binds, stdin=state(world))
        assert (start.returncode, mounted(world)) == (0, ["/new/a", "/new/a/folder", "/new/b"]), start.stderr
        fuse.silence(kind)
        listed = json.loads(call(world, "list", "--format=json", stdin="").stdout)["records"][0]
        assert [mount["state"] for mount in listed["mounts"]] == ["mounted"] * 3
        assert [made["state"] for made in listed["made"]] == ["there", "covered", "covered"]
        process = launch(world, "poststop", stdin=state(world, status="stopped"))
        assert not is_stuck(process, fuse)
        finish(process)
        assert world.snapshot() == before


def test_a_silent_rootfs_holds_up_nobody_else(world: World) -> None:
    """Its own poststop ends with 71, in time, and loses nothing."""
    support.bundle(world.path / "bundle", ["true"])
    with Fuse(f"{world.path}/fuse") as fuse:
        os.mkdir(f"{fuse.path}/dev")
        silent, well = Container(world, "silent", fuse.path), Container(world, "well")
        before = (support.tree(fuse.path), support.tree(world.rootfs))
        for each in (silent, well):
            each.set_up("/new/a")
            each.end()
        fuse.silence("LOOKUP")
        silence = f"{fuse.path} (fuse) does not answer"
        # All at once, since each waits some seconds.
        down = silent.launch(status="stopped")
        dry = silent.launch("--dry-run", status="stopped")
        both = [launch(world, command, "--format=json", stdin="") for command in ("list", "gc")]
        listed, collected = (json.loads(process.communicate(timeout=SECONDS)[0])["records"] for process in both)
        entry = listed[0]
        assert (entry["id"], entry["status"], entry["busy"]) == ("silent", "dead", True)
        assert silence in entry["reason"]
        assert [made["state"] for made in entry["made"]] == ["unseen", "unseen"]
        assert "umount -f" in entry["advice"]
        assert [(each["id"], each["action"]) for each in collected] == [("silent", "kept"), ("well", "finished")]
        assert silence in collected[0]["reason"]
        (said,) = finish(down, code=71)
        assert f"the rootfs {fuse.path} cannot be inspected: {silence}" in said
        told = dry.communicate(timeout=SECONDS)[0]
        assert (dry.returncode, f"{fuse.path} cannot be inspected: {silence}" in told) == (71, True), told
        assert sorted(os.listdir(world.state)) == ["rootfs", "silent.json"]
        fuse.speak()
        silent.tear_down()
        assert (support.tree(fuse.path), support.tree(world.rootfs)) == before
        assert os.listdir(world.state) == []


@pytest.mark.long
@pytest.mark.parametrize("lock", ["rootfs", "id"])
def test_a_lock_that_is_held_for_long_is_told_of(world: World, lock: str) -> None:
    """As by a run that was stopped. Others wait for some seconds, not until the runtime kills them."""
    one = Container(world, "one")
    stat = os.stat(world.rootfs)
    name = f"rootfs/{stat.st_dev}:{stat.st_ino}" if lock == "rootfs" else "one.lock"
    os.makedirs((world.state / name).parent, exist_ok=True)
    with open(world.state / name, "w", encoding="ascii") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        (said,) = finish(one.launch(*mount(world, "/a")), code=74)
    assert (
        f"{name} cannot be locked: process {os.getpid()} has kept it locked for over 5 seconds (find out what" in said
    )
    one.end()
