# SPDX-License-Identifier: Apache-2.0
"""Without unique ids, as before Linux 6.8: what has got the id of a bind since is never taken for it.

There the kernel gives the id of a mount and the inode number of a mount namespace to the next one. Which one that is
depends on what else this machine does, so that the tests write into the record what the next one has got.
"""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import kernels, mounting, support
from helpers.world import World, call, mount, mounted, state

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def nameless() -> None:
    """A kernel that knows no unique ids."""
    kernels.play("before 6.8")


@pytest.fixture
def other(world: World, tmp_path: Path) -> World:
    """A second bundle with a rootfs of its own; sources and state folder are the same."""
    found = World(tmp_path / "second", world.launcher)
    found.source, found.state = world.source, world.state
    return found


@pytest.fixture
def elsewhere() -> Iterator[subprocess.Popen[bytes]]:
    """A process in a mount namespace of its own that is no container's."""
    process = subprocess.Popen(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", "echo; read x"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    process.stdout.read(1)
    yield process
    process.communicate()


def record_of(world: World, container: str = "c1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((world.state / f"{container}.json").read_text())
    return found


def give(world: World, number: int, *, inode: int | None = None, container: str = "c1") -> None:
    """Writes into a record the number that another mount has got, and that of its namespace."""
    record = record_of(world, container)
    top = record["mounts"][0]["attached"][0]
    assert top["unique"] is None
    top["id"] = number
    if inode is not None:
        record["namespace"]["inode"] = inode
    (world.state / f"{container}.json").write_text(json.dumps(record, separators=(",", ":")))


def number_of(place: str | Path, process: int | str = "self") -> int:
    """The id of the topmost mount at ``place``."""
    return [info.id for info in mounting.table(process) if info.mount_point == str(place)][-1]


def ask(world: World, *words: str, code: int = 0) -> dict[str, Any]:
    done = call(world, *words, "--format=json", stdin="")
    assert done.returncode == code, done.stderr
    return {entry["id"]: entry for entry in json.loads(done.stdout)["records"]}


def forgotten(world: World, namespace: support.RuntimeNamespace) -> None:
    """The container c1, which has lived and died without a poststop."""
    hooks = {"createRuntime": [world.hook("createRuntime", *mount(world, "/a"))]}
    bundle = support.bundle(world.path / "bundle", ["sleep", "1000"], hooks=hooks)
    assert namespace.create(bundle, "c1").returncode == 0
    assert namespace.delete("c1", "--force").returncode == 0


def statuses(entries: dict[str, Any], member: str) -> dict[str, str]:
    return {container: entry[member] for container, entry in entries.items()}


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_the_next_container_gets_namespace_and_id_of_a_dead_one(world: World, other: World, runtime: str) -> None:
    """The dead one was called alive, and its mount points stayed until the other one ended."""
    before = world.snapshot()
    with support.RuntimeNamespace(runtime) as namespace:
        forgotten(world, namespace)
        bundle = other.bundle("exec sleep 1000", "createRuntime", *mount(other, "/a"))
        assert namespace.create(bundle, "c2").returncode == 0
        pid = namespace.state("c2")["pid"]
        give(world, number_of("/a", pid), inode=os.stat(f"/proc/{pid}/ns/mnt").st_ino)

        assert statuses(ask(world, "list"), "status") == {"c1": "dead", "c2": "alive"}
        assert [each["state"] for each in ask(world, "show", "c1")["c1"]["mounts"]] == ["gone"]
        assert [each["state"] for each in ask(world, "show", "c2")["c2"]["mounts"]] == ["mounted"]
        assert ask(world, "gc", "c1")["c1"]["action"] == "finished"
        assert statuses(ask(world, "gc"), "action") == {"c2": "kept"}
        assert "/a" in [info.mount_point for info in mounting.table(pid)]
        assert namespace.delete("c2", "--force").returncode == 0
    assert world.snapshot() == before


def test_somebody_unrecorded_gets_namespace_and_id_of_a_dead_one(
    world: World, elsewhere: subprocess.Popen[bytes]
) -> None:
    """Then nobody can tell whether the dead one's namespace has ended: it is kept, and it says what to look at."""
    before = world.snapshot()
    with support.RuntimeNamespace("runc") as namespace:
        forgotten(world, namespace)
    there = ("nsenter", f"--mount=/proc/{elsewhere.pid}/ns/mnt", "mount", "--bind", world.source, f"{world.rootfs}/a")
    subprocess.run(there, check=True)
    inode = os.stat(f"/proc/{elsewhere.pid}/ns/mnt").st_ino
    give(world, number_of(f"{world.rootfs}/a", elsewhere.pid), inode=inode)
    entry = ask(world, "show", "c1")["c1"]
    assert entry["status"] == "unknown"
    what = f"process {elsewhere.pid} sees its binds, or newer mounts with the same ids: check the mount on /a"
    assert f"{what} in /proc/{elsewhere.pid}/mountinfo" in entry["reason"]
    assert entry["advice"].startswith("if it has ended: ")
    assert ask(world, "gc")["c1"]["action"] == "kept"
    elsewhere.communicate()
    assert ask(world, "gc")["c1"]["action"] == "finished"
    assert world.snapshot() == before


@pytest.mark.parametrize("how", ["poststop", "gc"])
def test_gc_in_a_namespace_that_has_the_number_of_a_dead_one(world: World, how: str) -> None:
    """What a container had in a namespace of its own is undone in no other, whatever the numbers say."""
    with support.RuntimeNamespace("runc") as namespace:
        forgotten(world, namespace)
    mounting.bind(str(world.source), f"{world.rootfs}/a")
    mine = support.mounts()
    give(world, number_of(f"{world.rootfs}/a"), inode=os.stat("/proc/self/ns/mnt").st_ino)
    if how == "gc":
        assert ask(world, "gc", code=71)["c1"]["action"] == "failed"
    else:
        assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 71
    assert support.mounts() == mine
    # The mount point was made for it, and is free now.
    mounting.umount(f"{world.rootfs}/a")
    assert ask(world, "gc")["c1"]["action"] == "finished"
    assert not os.path.exists(f"{world.rootfs}/a")


@pytest.fixture
def bundled(world: World, other: World) -> None:
    """Bundles for those whom no runtime starts here."""
    for each in (world, other):
        support.bundle(each.path / "bundle", ["true"])


def prestart(world: World, *destinations: str, container: str = "c1") -> None:
    done = call(world, "prestart", *mount(world, *destinations), stdin=state(world, container))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("destination", ["/a", "/b"])
def test_the_next_container_gets_the_id_of_a_bind_that_is_unmounted_but_not_forgotten(
    world: World, other: World, destination: str
) -> None:
    """A poststop was killed in between; the next one cut off the bind of a container that lived."""
    before = world.snapshot()
    prestart(world, "/a")
    mounting.umount(f"{world.rootfs}/a")
    prestart(other, destination, container="c2")
    give(world, number_of(f"{other.rootfs}{destination}"))
    dry = call(world, "poststop", "--dry-run", stdin=state(world, status="stopped"))
    assert (dry.returncode, "unmount" in dry.stdout) == (0, False)
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounted(other) == [destination]
    assert call(other, "poststop", stdin=state(other, "c2", "stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.usefixtures("bundled")
def test_the_same_on_one_rootfs_and_one_mount_point(world: World) -> None:
    before = world.snapshot()
    prestart(world, "/a")
    mounting.umount(f"{world.rootfs}/a")
    prestart(world, "/a", container="c2")
    give(world, number_of(f"{world.rootfs}/a"))
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert mounted(world) == ["/a"]
    assert call(world, "poststop", stdin=state(world, "c2", "stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.usefixtures("bundled")
def test_the_same_where_one_rootfs_lies_in_the_other(world: World) -> None:
    """Two rootfs, and no neighbours, but one place."""
    inner = f"{world.rootfs}/inner"
    os.mkdir(inner)
    bundle = support.bundle(world.path / "second", ["true"], rootfs=inner)
    prestart(world, "/inner/a")
    mounting.umount(f"{inner}/a")
    done = call(world, "prestart", *mount(world, "/a"), stdin=state(world, "c2", bundle=bundle))
    assert (done.returncode, done.stderr) == (0, "")
    give(world, number_of(f"{inner}/a"))
    call(world, "poststop", stdin=state(world, status="stopped"))
    assert mounted(world) == ["/inner/a"]
    assert call(world, "poststop", stdin=state(world, "c2", "stopped", bundle=bundle)).returncode == 0
    assert mounted(world) == []


def test_a_read_only_root_of_a_dead_one_keeps_nobody_from_starting(world: World) -> None:
    """Its namespace has ended, and this one has its number."""
    before = world.snapshot()
    with support.RuntimeNamespace("runc") as namespace:
        forgotten(world, namespace)
    record = record_of(world)
    record["namespace"]["inode"] = os.stat("/proc/self/ns/mnt").st_ino
    record["mounts"][0]["resolved"] = "/"
    (world.state / "c1.json").write_text(json.dumps(record, separators=(",", ":")))
    prestart(world, "/b", container="c2")
    assert mounted(world) == ["/b"]
    assert call(world, "poststop", stdin=state(world, "c2", "stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.usefixtures("bundled")
@pytest.mark.parametrize("how", ["poststop", "gc"])
def test_the_administrator_gets_the_id_of_a_bind(world: World, how: str) -> None:
    """The mount was unmounted, outside the rootfs."""
    init = subprocess.Popen(["sleep", "1000"])
    before = world.snapshot()
    done = call(world, "createRuntime", *mount(world, "/a"), stdin=state(world, pid=init.pid))
    assert (done.returncode, done.stderr) == (0, "")
    init.kill()
    init.wait()
    mounting.umount(f"{world.rootfs}/a")
    place = world.path / "administrator"
    place.mkdir()
    mounting.bind(str(world.source), str(place))
    mine = support.mounts()
    give(world, number_of(place))

    def end() -> subprocess.CompletedProcess[str]:
        if how == "gc":
            return call(world, "gc", stdin="")
        return call(world, "poststop", stdin=state(world, status="stopped"))

    done = end()
    assert done.returncode == 71
    said = f"the mount on {place} may be this bind or another one: it has the same id and source"
    assert (
        f"/a: {said} (it stays in the state file; if the mount belongs to this container, unmount it; otherwise remove "
        "the container's other binds and its mount points by hand, then delete the state file; "
        f"run oci-bind-hook gc --root {world.state} to try again)" in done.stdout + done.stderr
    )
    dry = call(world, "poststop", "--dry-run", stdin=state(world, status="stopped"))
    assert (dry.returncode, said in dry.stdout) == (71, True)
    assert support.mounts() == mine
    assert record_of(world)["mounts"] != []
    mounting.umount(str(place))
    assert end().returncode == 0
    assert world.snapshot() == before


@pytest.mark.usefixtures("bundled")
def test_the_next_of_the_id_starts_although_the_administrator_has_the_number(world: World) -> None:
    prestart(world, "/a")
    mounting.umount(f"{world.rootfs}/a")
    place = world.path / "administrator"
    place.mkdir()
    mounting.bind(str(world.source), str(place))
    give(world, number_of(place))
    # Its first process is known, and has ended.
    record = {**record_of(world), "init": {"pid": 2**22 + 1, "start": 1, "first": None}}
    (world.state / "c1.json").write_text(json.dumps(record, separators=(",", ":")))
    log = str(world.path / "log")
    done = call(world, "prestart", *mount(world, "/a"), "--log", log, stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")
    with open(log, encoding="utf-8") as file:
        assert f"the mount on {place} may be this bind or another one" in file.read()
    assert mounted(world) == ["/a"]
    assert number_of(place)


@pytest.mark.usefixtures("bundled")
def test_a_bind_is_found_as_long_as_it_is_where_it_was(world: World) -> None:
    """Nothing of this is in the way of the ordinary case."""
    before = world.snapshot()
    prestart(world, "/a", "/b/c")
    assert [each["state"] for each in ask(world, "show", "c1")["c1"]["mounts"]] == ["mounted"] * 2
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.usefixtures("bundled")
def test_the_bundle_is_known_by_any_name(world: World) -> None:
    """What the mount table shows has no links in it."""
    before = world.snapshot()
    alias = world.path / "alias"
    alias.symlink_to("bundle")
    stdin = [state(world, status=status, bundle=str(alias)) for status in ("creating", "stopped")]
    assert call(world, "prestart", *mount(world, "/a"), stdin=stdin[0]).returncode == 0
    done = call(world, "poststop", stdin=stdin[1])
    assert (done.returncode, done.stderr) == (0, "")
    alias.unlink()
    assert world.snapshot() == before


@pytest.mark.usefixtures("bundled")
def test_while_a_later_record_cannot_be_read_nobody_knows(world: World) -> None:
    before = world.snapshot()
    prestart(world, "/a")
    path = world.state / "c2.json"
    path.write_text("{")
    path.chmod(0o600)
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, mounted(world)) == (71, ["/a"])
    assert f"may now belong to another container: {path}" in done.stderr
    path.unlink()
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before
