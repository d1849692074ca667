# SPDX-License-Identifier: Apache-2.0
"""Odd rootfs, odd names, odd processes and odd state folders: what somebody tried to break the hook by, and it held."""

from __future__ import annotations

import fcntl
import os
import stat
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.world import Container, call, dead, fail, finish, mount, state

if TYPE_CHECKING:
    from helpers.world import World


def test_odd_files_as_destinations_stay_what_they_are(world: World) -> None:
    """A FIFO would block who opens it, and a whiteout is what an overlay takes for nothing."""
    rootfs = world.rootfs
    os.mkfifo(f"{rootfs}/fifo")
    for name, device in (("whiteout", (0, 0)), ("null", (1, 3)), ("absent", (250, 77))):
        os.mknod(f"{rootfs}/{name}", stat.S_IFCHR | 0o600, os.makedev(*device))
    os.link(f"{rootfs}/etc/passwd", f"{rootfs}/link")
    os.mkdir(f"{rootfs}/sticky")
    os.chown(f"{rootfs}/sticky", 1000, 1000)
    os.chmod(f"{rootfs}/sticky", 0o3777)
    before = support.tree(rootfs)
    places = ["/absent", "/fifo", "/link", "/null", "/sticky/new/file", "/whiteout"]
    one = Container(world, "one")
    finish(one.launch(*(word for place in places for word in ("--mount", f"src={world.file},dst={place}"))))
    assert one.mounted() == places
    one.end()
    one.tear_down()
    assert (support.tree(rootfs), os.listdir(world.state)) == (before, [])


def test_names_that_look_like_something_else(world: World) -> None:
    """Like what procfs adds to a name, like files of the state folder, like words of a shell or of mountinfo."""
    before = support.tree(world.rootfs)
    words = [
        "a (deleted)",
        "deleted",
        "x\\040y",
        "tab\there",
        "line\nend",
        "e\u0301",
        "..a",
        ".json",
        "\\",
        "-",
        "$(id)",
    ]
    names = [*words, "a" * 255]
    one = Container(world, "one")
    one.set_up(*(f"/n/{name}" for name in names))
    assert len(one.mounted()) == len(names)
    assert f"{len(names)} of {len(names)}" in call(world, "list", stdin="").stdout
    one.end()
    one.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


def test_ids_that_look_like_other_files_of_the_state_folder(world: World) -> None:
    """All at once on one rootfs: none is taken for a lock, a list, or what another one left."""
    before = support.tree(world.rootfs)
    ids = ["-x", "a", "a.json", "a.lock", "a.new", "a.staging", "rootfs", "..a", "x" * 200]
    containers = [Container(world, name) for name in ids]
    for each in containers:
        each.set_up("/a")
    assert call(world, "gc", stdin="").stdout.count("kept") == len(ids)
    for each in containers[::2]:
        each.end()
    assert call(world, "gc", stdin="").stdout.count("undone") == len(containers[::2])
    assert [each.mounted() for each in containers[1::2]] == [["/a"]] * len(containers[1::2])
    for each in containers[1::2]:
        each.end()
        each.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


def test_no_process_can_be_entered_by_an_odd_pid(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    zombie = mounting.forked(lambda: None)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    wait = threading.Event()
    thread = threading.Thread(target=wait.wait)
    thread.start()
    for pid in (-1, 0, 1, 2**31 - 1, zombie, thread.native_id):
        done = call(world, "createRuntime", *mount(world, "/a"), stdin=state(world, pid=pid))
        assert (done.returncode, done.stderr.count("\n")) == (os.EX_UNAVAILABLE, 1), (pid, done)
        assert world.snapshot() == before
    wait.set()
    thread.join()
    os.waitpid(zombie, 0)


@pytest.mark.parametrize("what", ["stacked", "link"])
def test_what_stands_in_front_of_a_rootfs_is_not_touched(world: World, what: str) -> None:
    """What it holds at the same place is the same by name, owner and kind."""
    one = dead(world, "one", "/a")
    if what == "stacked":
        mounting.tmpfs(world.rootfs)
        os.mkdir(f"{world.rootfs}/a")
    else:
        os.rename(world.rootfs, f"{world.rootfs}.old")
        os.symlink(mounting.plant(world.path / "other", {"a": {}}), world.rootfs)
    assert f"{world.rootfs} is now another file system" in finish(one.launch(status="stopped"), code=71)[0]
    assert call(world, "gc", stdin="").returncode == 71
    assert os.path.isdir(f"{world.rootfs}/a")
    if what == "stacked":
        mounting.umount(world.rootfs)
    else:
        os.unlink(world.rootfs)
        os.rename(f"{world.rootfs}.old", world.rootfs)
    one.tear_down()
    assert (os.path.exists(f"{world.rootfs}/a"), os.listdir(world.state)) == (False, [])


def test_two_paths_to_one_rootfs_are_one_rootfs(world: World) -> None:
    before = support.tree(world.rootfs)
    alias = mounting.plant(world.path / "alias", {})
    mounting.bind(world.rootfs, alias)
    one, two = Container(world, "one"), Container(world, "two", alias)
    for each in (one, two):
        each.set_up("/a")
    one.end()
    one.tear_down()
    assert two.mounted() == ["/a"]
    two.end()
    two.tear_down()
    mounting.umount(alias)
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


def test_what_a_container_heaps_on_its_bind_is_its_own(world: World) -> None:
    before = support.tree(world.rootfs)
    one = Container(world, "one")
    one.set_up("/a")
    inside = f"{world.rootfs}/a"
    heap = f"for i in 1 2 3 4; do mount -t tmpfs x {inside}; mkdir {inside}/z; mount --bind {inside}/z {inside}; done"
    subprocess.run(["nsenter", f"--mount=/proc/{one.init.pid}/ns/mnt", "sh", "-c", heap], check=True)
    text = state(world, "one", bundle=str(one.bundle), pid=one.init.pid)
    again = call(world, "createRuntime", *mount(world, "/a", "/b"), stdin=text)
    assert (again.returncode, again.stderr) == (0, "")
    assert one.mounted() == [*["/a"] * 9, "/b"]
    one.end()
    one.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


@pytest.mark.parametrize("what", ["file", "link", "fifo", "list: folder", "list: fifo", "list: link"])
def test_what_should_be_a_list_and_is_none_is_told(world: World, what: str) -> None:
    before = support.tree(world.rootfs)
    folder = world.state / "rootfs"
    stat_of = os.stat(world.rootfs)
    path = folder
    if what.startswith("list: "):
        folder.mkdir()
        path = folder / f"{stat_of.st_dev}:{stat_of.st_ino}"
    if what.endswith("fifo"):
        os.mkfifo(path)
    elif what.endswith("link"):
        path.symlink_to("/")
    elif what.endswith("folder"):
        path.mkdir()
    else:
        path.touch()
    one = Container(world, "one")
    (said,) = finish(one.launch(*mount(world, "/a")), code=74)
    assert str(folder) in said
    assert "--root" not in said or what == "list: link"
    if path == folder:
        assert "is a file or a link, not a folder (the hook did not create it: delete it)" in said
        assert said.partition(": ")[2].partition(": ")[2] in call(world, "gc", stdin="").stderr
    assert one.mounted() == []
    one.end()
    assert call(world, "list", stdin="").returncode == 0
    assert (support.tree(world.rootfs), list(world.state.glob("*.json"))) == (before, [])


def test_a_collection_that_is_killed_is_gone_on_with(world: World) -> None:
    before = support.tree(world.rootfs)
    for number in range(2):
        dead(world, f"dead{number}", f"/dead/{number}", "/same")
    last = dead(world, "last", "/last")
    text = state(world, "last", status="stopped", bundle=str(last.bundle))
    for number in (2, 5, 7):
        call(world, "poststop", stdin=text, before=fail("unlinkat", number, "signal=KILL"))
    dead(world, "next", "/next").tear_down()
    assert call(world, "gc", stdin="").returncode == 0
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


def test_a_state_folder_that_has_become_read_only_loses_nothing(world: World) -> None:
    before = support.tree(world.rootfs)
    one = dead(world, "one", "/a")
    mounting.bind(str(world.state), str(world.state))
    mounting.remount(str(world.state), mounting.MS_BIND | mounting.MS_RDONLY)
    (said,) = finish(one.launch(status="stopped"), code=74)
    assert "Read-only file system" in said
    assert "dead" in call(world, "list", stdin="").stdout
    assert call(world, "gc", stdin="").returncode == 74
    mounting.umount(str(world.state))
    one.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


@pytest.mark.long
def test_a_lock_is_not_waited_for_longer_where_signals_are_blocked_and_ignored(world: World) -> None:
    """As some runtimes start a hook: the alarm that ends the wait comes through all the same."""
    support.bundle(world.path / "bundle", ["true"])
    with open(world.state / "c1.lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        deaf = ("env", "--ignore-signal", "--block-signal")
        done = call(world, "prestart", *mount(world, "/a"), stdin=state(world), before=deaf)
    assert (done.returncode, "has kept it locked for over 5 seconds" in done.stderr) == (os.EX_IOERR, True)
