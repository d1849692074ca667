# SPDX-License-Identifier: Apache-2.0
"""State files in trouble: a full disk, a folder that cannot be written, what is no record of ours. 74, with what to do.

Nothing is overwritten and nothing half read, and what could not be finished is by the next call.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.corpus import fails, look
from helpers.world import call, mount, mounted, state

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.world import World

MAKE_ROOM = "(free space there or make it writable, or choose another folder with --root)\n"
BY_HAND = "unmount the container's binds and remove its mount points by hand, then delete the file)\n"
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"
PAGE = 4096


def prestart(world: World, *arguments: str, **members: Any) -> subprocess.CompletedProcess[str]:
    return call(world, "prestart", *arguments, stdin=state(world, **members))


def poststop(world: World, *arguments: str, container: str = "c1") -> subprocess.CompletedProcess[str]:
    return call(world, "poststop", *arguments, stdin=state(world, container, status="stopped"))


@pytest.fixture
def small(world: World) -> World:
    """A state folder with room for four pages: two for lists of containers, two for a record."""
    support.bundle(world.path / "bundle", ["true"])
    mounting.tmpfs(str(world.state), f"size={4 * PAGE},mode=700")
    return world


def fill(world: World, pages: int) -> Path:
    """Leaves no more than so many pages; what holds the others."""
    filler = world.state / "filler"
    filler.write_bytes(b"x" * (os.statvfs(world.state).f_bavail - pages) * PAGE)
    return filler


def readonly(world: World, *, on: bool) -> None:
    if on:
        mounting.bind(str(world.state), str(world.state))
        mounting.remount(str(world.state), mounting.MS_RDONLY)
    else:
        mounting.umount(str(world.state))


# -- no room -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pages", [0, 1, 2, 3])
def test_a_full_disk_at_set_up_leaves_nothing(small: World, pages: int) -> None:
    """With three pages left the first record can be written, and none beside it: what was made by then is undone."""
    filler = fill(small, pages)
    before = look(small)
    done = prestart(small, *mount(small, "/a/b", "/c"))
    what = f"the state file {small.state}/c1.json" if pages > 1 else f"the list of containers {small.state}/rootfs"
    fails(done, 74, f"{what} cannot be written: No space left on device {MAKE_ROOM}")
    assert look(small) == before
    filler.unlink()
    assert prestart(small, *mount(small, "/a/b", "/c")).returncode == 0
    assert mounted(small) == ["/a/b", "/c"]
    assert poststop(small).returncode == 0
    assert fill(small, pages) == filler
    assert look(small) == before


def test_a_full_disk_at_a_second_set_up_leaves_the_first(small: World) -> None:
    assert prestart(small, *mount(small, "/a/b")).returncode == 0
    fill(small, 0)
    before = look(small)
    fails(prestart(small, *mount(small, "/c")), 74, MAKE_ROOM)
    assert look(small) == before
    assert poststop(small).returncode == 0
    assert (mounted(small), os.listdir(small.state)) == ([], ["filler"])


def test_a_full_disk_is_no_obstacle_to_poststop(small: World) -> None:
    before = look(small)
    assert prestart(small, *mount(small, "/a/b")).returncode == 0
    filler = fill(small, 1)
    assert poststop(small).returncode == 0
    filler.unlink()
    assert look(small) == before


def test_a_full_disk_at_a_handing_over_is_made_up_for_by_the_next_call(small: World) -> None:
    before = look(small)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as init:
        for container, path in (("c1", "/a/b"), ("c2", "/a/c")):
            text = state(small, container, pid=init.pid)
            if container == "c2":
                subprocess.run(["mount", "-o", f"remount,size={6 * PAGE}", str(small.state)], check=True)
            assert call(small, "prestart", *mount(small, path), stdin=text).returncode == 0
        (small.state / "filler").write_bytes(b"x" * 2 * PAGE)
        record = json.loads((small.state / "c1.json").read_text())
        (small.state / "c1.json").write_text(json.dumps({**record, "init": None}))
        fails(poststop(small), 74, MAKE_ROOM)
        assert mounted(small) == ["/a/c"]
        (small.state / "filler").unlink()
        assert poststop(small).returncode == 0
        assert mounted(small) == ["/a/c"]
    assert poststop(small, container="c2").returncode == 0
    assert look(small)["rootfs"] == before["rootfs"]
    assert support.records(small.state) == []


def test_a_folder_that_cannot_be_written(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = look(world)
    readonly(world, on=True)
    there = look(world)
    fails(prestart(world, *mount(world, "/a")), 74, f"c1.lock cannot be locked: Read-only file system {MAKE_ROOM}")
    assert look(world) == there
    readonly(world, on=False)
    assert prestart(world, *mount(world, "/a")).returncode == 0
    path = world.state / "c1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "init": {"pid": 1, "start": 1, "first": None}}))
    readonly(world, on=True)
    there = look(world)
    fails(poststop(world), 74, "c1.lock cannot be locked: Read-only file system")
    # To look needs no lock.
    assert call(world, "list", stdin="").returncode == 0
    done = call(world, "gc", stdin="")
    assert (done.returncode, done.stdout.split()[:2]) == (74, ["c1", "failed"])
    assert "Read-only file system" in done.stdout
    assert look(world) == there
    readonly(world, on=False)
    assert poststop(world).returncode == 0
    assert look(world) == before


# -- no record of ours -------------------------------------------------------------------------------------------------

TROUBLE: dict[str, tuple[Callable[[str], str], str]] = {
    "truncated": (lambda text: text[: len(text) // 2], "(the file is damaged: "),
    "empty": (lambda _: "", "c1.json: is empty (the file is damaged: "),
    "unknown version": (
        lambda text: text.replace('"version":2', '"version":3'),
        "/version: is 3, written by a newer oci-bind-hook (use that version, or ",
    ),
    "another id": (
        lambda text: text.replace('"id":"c1"', '"id":"c2"'),
        'c1.json contains the record of another container, "c2" (',
    ),
    "several violations": (
        lambda text: text.replace('"boot":', '"boots":').replace('"phase":', '"phases":'),
        "c1.json: /boot: is missing (the file is damaged: ",
    ),
    "zeros": (lambda text: "\0" * len(text), "(the file is damaged: "),
}


@pytest.mark.parametrize("how", TROUBLE)
def test_what_cannot_be_understood_is_neither_used_nor_overwritten(world: World, how: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    change, says = TROUBLE[how]
    assert prestart(world, *mount(world, "/a/b")).returncode == 0
    path = world.state / "c1.json"
    good = path.read_text()
    bad = change(good)
    assert bad != good
    path.write_text(bad)
    before = look(world)
    for done in (prestart(world, *mount(world, "/c")), poststop(world)):
        fails(done, 74, says)
        assert done.stderr.endswith(BY_HAND)
        assert str(path) in done.stderr
        assert look(world) == before
    # Another container starts beside it, and its binds are undone. Its mount points may be used by this one: they stay.
    text = state(world, "c3")
    assert call(world, "prestart", *mount(world, "/data"), stdin=text).returncode == 0
    assert poststop(world, container="c3").returncode == 0
    assert look(world) == before
    assert call(world, "prestart", *mount(world, "/d"), stdin=text).returncode == 0
    fails(poststop(world, container="c3"), 71, str(path))
    assert mounted(world) == ["/a/b"]
    assert os.path.isdir(f"{world.rootfs}/d")
    path.write_text(good)
    assert poststop(world).returncode == poststop(world, container="c3").returncode == 0
    assert (mounted(world), os.listdir(world.state)) == ([], [])
    assert not os.path.exists(f"{world.rootfs}/d")


def test_the_id_of_a_live_container_is_refused_with_what_to_do(world: World) -> None:
    for name in ("bundle", "other"):
        support.bundle(world.path / name, ["true"], rootfs=world.rootfs)
    assert prestart(world, *mount(world, "/a")).returncode == 0
    before = look(world)
    done = prestart(world, *mount(world, "/b"), bundle=str(world.path / "other"))
    fails(
        done, 74, f"with the bundle {world.path}/bundle (choose another id, or stop that container first; list and show"
    )
    assert look(world) == before


@pytest.mark.parametrize("bundle", ["bundle", "other"])
def test_what_is_of_another_boot_is_undone_before_it_is_set_up_anew(world: World, bundle: str) -> None:
    for name in ("bundle", "other"):
        support.bundle(world.path / name, ["true"], rootfs=world.rootfs)
    before = look(world)
    assert prestart(world, *mount(world, "/old/a")).returncode == 0
    subprocess.run(["umount", f"{world.rootfs}/old/a"], check=True)
    path = world.state / "c1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot": OTHER_BOOT}))
    done = prestart(world, *mount(world, "/new/a"), bundle=str(world.path / bundle))
    assert (done.returncode, done.stderr) == (0, "")
    assert (mounted(world), os.path.exists(f"{world.rootfs}/old")) == (["/new/a"], False)
    text = state(world, status="stopped", bundle=str(world.path / bundle))
    assert call(world, "poststop", stdin=text).returncode == 0
    assert look(world) == before


# -- half done ---------------------------------------------------------------------------------------------------------


def test_a_tear_down_in_parts_keeps_only_what_is_left(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = look(world)
    assert prestart(world, *mount(world, "/p/a", "/p/b", "/p/c")).returncode == 0
    path = world.state / "c1.json"
    left = ["/p/a", "/p/b"]
    for place in left:
        subprocess.run(["mount", "-t", "tmpfs", "theirs", world.rootfs + place], check=True)
    while left:
        done = poststop(world)
        fails(done, 71, f"could not undo {left[-1]}")
        more, stays = ("; 1 more could not be undone", "they stay") if len(left) > 1 else ("", "it stays")
        gc = f"run oci-bind-hook gc --root {world.state}"
        assert f"{more} ({stays} in the state file; {gc} to try again)" in done.stderr
        assert [each["resolved"] for each in json.loads(path.read_text())["mounts"]] == left
        shown = json.loads(call(world, "show", "c1", "--format=json", stdin="").stdout)["records"][0]
        assert [each["state"] for each in shown["mounts"]] == ["mounted"] * len(left)
        subprocess.run(["umount", world.rootfs + left.pop()], check=True)
    assert poststop(world).returncode == 0
    assert look(world) == before
