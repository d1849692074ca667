# SPDX-License-Identifier: Apache-2.0
"""What somebody tried who read the code to break it: nothing live is cut, nothing forgotten, nobody held up."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import kernels, mounting, support
from helpers.fuse import Fuse
from helpers.world import Container, call, dead, finish, launch, mount, state

if TYPE_CHECKING:
    from helpers.world import World

BOOT = "00000000-0000-4000-8000-000000000000"


class Straggler:
    """A process in the mount namespace of a container, which outlives the first one. It ends with the block."""

    def __init__(self, container: Container, *by: str) -> None:
        command = ["nsenter", f"--mount=/proc/{container.init.pid}/ns/mnt", *by, "sh", "-c", "echo; exec cat"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.process.stdout.readline()
        self.rootfs = container.rootfs

    def __enter__(self) -> Straggler:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def mounted(self) -> list[str]:
        points = [line.split(" ")[4] for line in support.mounts(self.process.pid)]
        inside = (point[len(self.rootfs) :] for point in points if point.startswith(self.rootfs + "/"))
        return sorted(point for point in inside if point != "/dev")


def record(world: World, name: str) -> dict[str, Any]:
    document = json.loads((world.state / f"{name}.json").read_text())
    assert isinstance(document, dict)
    return document


def age(world: World, name: str) -> None:
    """As if the machine had been started anew since, and had given the disk of the rootfs another number."""
    old = record(world, name)
    old["boot"] = BOOT
    for known in (old["rootfs"], *old["rootfs"]["above"], *(made["identity"] for made in old["made"])):
        known["dev"] += 1
    (world.state / f"{name}.json").write_text(json.dumps(old, separators=(",", ":")))


# -- nothing live is cut -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("namespaces", [support.NAMESPACES, ("mount",), (*support.NAMESPACES, "user")], ids="+".join)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_shell_around_the_hook_is_not_the_container(world: World, runtime: str, namespaces: tuple[str, ...]) -> None:
    """It ends with the hook; the next hook of the same container took it for a dead one, and undid its binds."""
    bundle = world.bundle("sleep 1000", "createContainer", namespaces=namespaces)
    path = f"{bundle}/config.json"
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    hooks = [world.hook("createContainer", *mount(world, name)) for name in ("/data", "/etc")]
    wrapped = [["sh", "-c", '"$@"; exit $?', "sh", hook["path"], *hook["args"][1:]] for hook in hooks]
    config["hooks"]["createContainer"] = [{**hooks[0], "path": "/bin/sh", "args": words} for words in wrapped]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)
    with support.RuntimeNamespace(runtime) as namespace:
        created = namespace.create(bundle, "c1")
        assert (created.returncode, created.stderr) == (0, "")
        pid = namespace.state("c1")["pid"]
        points = [line.split(" ")[4].removeprefix(world.rootfs) for line in support.mounts(pid)]
        assert {"/data", "/etc"} <= set(points)
        assert record(world, "c1")["init"]["pid"] == pid
        assert namespace.delete("c1", "--force").returncode == 0
    assert support.records(world.state) == []


@pytest.mark.parametrize("command", ["poststop", "gc"])
def test_who_outlives_the_first_process_of_a_neighbour_keeps_its_binds(world: World, command: str) -> None:
    before = support.tree(world.rootfs)
    one, two = dead(world, "one", "/a"), Container(world, "two")
    two.set_up("/a")
    with Straggler(two) as straggler:
        two.end()
        if command == "poststop":
            one.tear_down()
        else:
            assert call(world, "gc", stdin="").returncode == 0
        assert (support.records(world.state), straggler.mounted()) == (["two.json"], ["/a"])
    two.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


@pytest.mark.parametrize("command", ["poststop", "gc"])
def test_who_outlives_the_first_process_keeps_what_config_json_mounts(world: World, command: str) -> None:
    """Its record has no bind of ours, only the mount point of a neighbour that it depends on."""
    before = support.tree(world.rootfs)
    one, two = dead(world, "one", "/a"), Container(world, "two")
    support.bundle(two.bundle, ["true"], rootfs=world.rootfs, mounts=[support.bind(world.source, "/a")])
    while os.stat(f"/proc/{two.init.pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino:
        os.sched_yield()
    with Straggler(two) as straggler:
        enter = ["nsenter", f"--mount=/proc/{two.init.pid}/ns/mnt"]
        subprocess.run([*enter, "mount", "--bind", world.source, f"{world.rootfs}/a"], check=True)
        finish(two.launch())
        assert record(world, "two")["mounts"] == []
        two.end()
        if command == "poststop":
            one.tear_down()
        assert call(world, "gc", stdin="").returncode == 0
        assert (support.records(world.state), straggler.mounted()) == (["two.json"], ["/a"])
    assert call(world, "gc", stdin="").returncode == 0
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


@pytest.mark.parametrize("kernel_is", ["this", "before 4.11"])
def test_who_has_left_by_chroot_does_not_speak_for_all(world: World, kernel_is: str) -> None:
    """The mount table of such a process, as of many servers, lacks what its neighbours in the namespace see."""
    kernels.play(kernel_is)
    one = Container(world, "one")
    one.set_up("/a")
    jail = support.busybox_rootfs(f"{world.path}/jail")
    with Straggler(one, "chroot", jail) as jailed, Straggler(one) as straggler:
        assert jailed.process.pid < straggler.process.pid
        one.end()
        assert f"but process {straggler.process.pid} still sees its binds" in call(world, "gc", stdin="").stdout
        assert (jailed.mounted(), straggler.mounted()) == ([], ["/a"])
    assert call(world, "gc", stdin="").returncode == 0
    assert (os.path.exists(f"{world.rootfs}/a"), os.listdir(world.state)) == (False, [])


@pytest.mark.parametrize("command", ["poststop", "gc"])
@pytest.mark.parametrize("what", ["all lists", "each list", "the content"])
def test_who_is_in_no_list_any_more_keeps_its_binds(world: World, what: str, command: str) -> None:
    """Somebody tidied up, or the power failed: the first poststop called the new list whole, which it was not."""
    before = support.tree(world.rootfs)
    two, others = Container(world, "two"), [Container(world, name) for name in ("one", "three")]
    for each in (others[0], two, others[1]):
        each.set_up("/a")
    for path in [*(world.state / "rootfs").iterdir()]:
        if what == "the content":
            path.write_bytes(b"")
        else:
            path.unlink()
    if what == "all lists":
        (world.state / "rootfs").rmdir()
    for each in others:
        each.end()
        if command == "poststop":
            each.tear_down()
    assert call(world, "gc", stdin="").returncode == 0
    assert (two.mounted(), support.records(world.state)) == (["/a"], ["two.json"])
    two.end()
    two.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


# -- nothing is forgotten ----------------------------------------------------------------------------------------------


def test_what_a_container_of_another_boot_hands_over_is_known_by_todays_device(world: World) -> None:
    before = support.tree(world.rootfs)
    dead(world, "one", "/a/b")
    age(world, "one")
    two = Container(world, "two")
    two.set_up("/a/b")
    assert "/a/b is handed over to the container two" in call(world, "gc", stdin="").stdout
    assert two.mounted() == ["/a/b"]
    two.end()
    two.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


def test_a_container_with_a_clock_of_its_own_is_known_outside(world: World) -> None:
    """Start times are counted by the reader's clock. gc took its process for one of another pid namespace, for ever."""
    before = world.snapshot()
    support.bundle(world.path / "bundle", ["true"], namespaces=["mount"])
    hook = [world.launcher, "createContainer", *mount(world, "/a"), *world.root_option()]
    given = world.path / "state.json"
    given.write_text(state(world))
    script = f'mount -t tmpfs none {world.rootfs}/dev && "$@" < {given} && echo && exec cat'
    clock = ["-T", "--boottime", "100000", "--fork"]
    command = ["unshare", "-m", "--propagation", "private", *clock, "sh", "-c", script, "sh", *hook]
    with subprocess.Popen(command, stdin=-1, stdout=-1) as init:
        assert init.stdout is not None
        assert init.stdout.readline() == b"\n"
        assert "runs" in call(world, "gc", stdin="").stdout
        inside = call(world, "gc", stdin="", before=("unshare", "-T", "--boottime", "5", "--fork"))
        assert "runs" in inside.stdout
    assert "undone" in call(world, "gc", stdin="").stdout
    assert world.snapshot() == before


@pytest.mark.parametrize(
    "junk",
    [
        pytest.param(b"\0" * 5000, id="zeros"),
        pytest.param(b"x" * 5000 + b"\n", id="a long line"),
        pytest.param(b"\xff\xfe\n\xe2\x80\xa8\n\n \t\n", id="no text"),
        pytest.param(b"../one\n/etc/passwd\n..\n.\none/../one\n", id="paths"),
        pytest.param(b"one\none\non", id="too much"),
    ],
)
def test_junk_in_the_list_of_a_rootfs_is_passed_over(world: World, junk: bytes) -> None:
    """As a power loss leaves it, or a disk that fails."""
    before = support.tree(world.rootfs)
    one = Container(world, "one")
    one.set_up("/a")
    for path in (world.state / "rootfs").iterdir():
        path.write_bytes(junk + b"\n" + path.read_bytes())
    (world.state / "rootfs/1:2").write_bytes(junk)
    two = Container(world, "two")
    two.set_up("/a")
    one.end()
    one.tear_down()
    assert two.mounted() == ["/a"]
    two.end()
    two.tear_down()
    assert support.tree(world.rootfs) == before
    assert call(world, "gc", stdin="").returncode == 0
    assert os.listdir(world.state) == []


# -- nobody waits for a stranger ---------------------------------------------------------------------------------------


def test_the_upper_folder_of_an_overlay_is_asked_by_a_child_as_well(world: World) -> None:
    """The overlay is not mounted any more, so no mount on the way to the rootfs tells of who may be silent.

    Nor does the child, which is left waiting, keep the file system mounted in which the hook was started: the engine
    unmounts the bundle's next.
    """
    bundles = mounting.tmpfs(f"{world.path}/bundles")
    with Fuse(f"{world.path}/fuse") as fuse:
        disk = mounting.tmpfs(f"{fuse.path}/folder")
        merged = f"{world.path}/merged"
        mounting.plant(disk, {"upper": {}, "work": {}})
        os.mkdir(merged)
        data = f"lowerdir={world.rootfs},upperdir={disk}/upper,workdir={disk}/work"
        mounting.mount("overlay", merged, "overlay", data=data)
        one = dead(world, "one", "/a", rootfs=merged)
        mounting.umount(merged)
        fuse.silence("LOOKUP")
        silence = f"{fuse.path} (fuse) does not answer"
        # All at once, since each waits some seconds.
        os.chdir(bundles)
        down = one.launch(status="stopped")
        both = [launch(world, command, stdin="") for command in ("list", "gc")]
        os.chdir("/")
        told = [process.communicate(timeout=support.TIMEOUT)[0] for process in both]
        (said,) = finish(down, code=71)
        assert [silence in text for text in (*told, said)] == [True] * 3
        assert "still waits for it" in said
        mounting.umount(bundles)
        fuse.speak()
        mounting.mount("overlay", merged, "overlay", data=data)
        one.tear_down()
        assert (os.listdir(f"{disk}/upper"), os.listdir(world.state)) == ([], [])
        mounting.umount(merged)


@pytest.mark.parametrize("how", ["read-only", "immutable", "read-only since another boot"])
def test_the_next_container_of_the_id_starts_where_mount_points_resist(world: World, how: str) -> None:
    """Who made the folder immutable stopped it for good. They are its own now, and removed after it."""
    disk = mounting.tmpfs(f"{world.path}/disk") if "read-only" in how else world.path
    rootfs = support.busybox_rootfs(f"{disk}/again")
    before = support.tree(rootfs)
    dead(world, "one", "/a/b", "/c", rootfs=rootfs)
    if "another boot" in how:
        age(world, "one")

    def resist(*, is_on: bool) -> None:
        if "read-only" in how:
            command = ["mount", "-o", f"remount,{'ro' if is_on else 'rw'}", str(disk)]
        else:
            command = ["chattr", f"{'+' if is_on else '-'}i", f"{rootfs}/a"]
        subprocess.run(command, check=True)

    resist(is_on=True)
    one = Container(world, "one", rootfs)
    one.set_up("/a/b", "/data")
    assert one.mounted() == ["/a/b", "/data"]
    assert record(world, "one")["init"]["pid"] == one.init.pid
    one.end()
    assert "could not undo" in finish(one.launch(status="stopped"), code=71)[0]
    resist(is_on=False)
    one.tear_down()
    assert call(world, "gc", stdin="").returncode == 0
    assert (support.tree(rootfs), os.listdir(world.state)) == (before, [])


def test_what_resists_in_another_rootfs_is_no_concern_of_the_next_record(world: World) -> None:
    """The record can name one rootfs only, so it is not given up, and the start says why."""
    one = dead(world, "one", "/a/b")
    subprocess.run(["chattr", "+i", f"{world.rootfs}/a"], check=True)
    again = Container(world, "one", support.busybox_rootfs(world.path / "elsewhere"))
    (said,) = finish(again.launch(*mount(world, "/data")), code=71)
    assert f"could not undo {world.rootfs}/a/b: Operation not permitted" in said
    again.end()
    subprocess.run(["chattr", "-i", f"{world.rootfs}/a"], check=True)
    one.tear_down()
    assert os.listdir(world.state) == []


def test_a_namespace_that_a_file_keeps_may_be_entered_again(world: World) -> None:
    """No process is in it, and what it has mounted is there all the same."""
    # The kernel keeps a namespace by a file only in one with a lower id, and each processor has ids of its own.
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    mounting.unshare()
    one, two = Container(world, "one"), Container(world, "two")
    one.set_up("/one")
    two.set_up("/two")
    kept = world.path / "kept"
    kept.touch()
    mounting.bind(f"/proc/{one.init.pid}/ns/mnt", str(kept))
    one.end()
    listed = json.loads(call(world, "list", "--format=json", stdin="").stdout)["records"]
    (entry,) = [each for each in listed if each["id"] == "one"]
    assert entry["status"] == "unknown"
    assert entry["reason"].endswith(f"has ended, but {kept} keeps its mount namespace alive")
    two.end()
    two.tear_down()
    assert "one.json" in os.listdir(world.state)
    assert os.path.isdir(f"{world.rootfs}/one")
    mounting.umount(str(kept))
    assert call(world, "gc", stdin="").returncode == 0
    assert os.listdir(world.state) == []


def test_the_next_of_its_id_forgets_no_container_of_another_user_namespace(world: World) -> None:
    dead(world, "one", "/a")
    path = world.state / "one.json"
    known = json.loads(path.read_text())
    known["user"] = {"owner": 1234, "uids": [{"inside": 0, "outside": 1234, "size": 1}], "gids": []}
    path.write_text(json.dumps(known, separators=(",", ":")))
    again = Container(world, "one")
    (said,) = finish(again.launch(*mount(world, "/b")), code=71)
    assert "was recorded in another user namespace, and its mounts are not visible from here" in said
    assert "run podman unshare oci-bind-hook gc" in said
    assert json.loads(path.read_text()) == known
    again.end()


def test_what_cannot_be_found_out_of_the_dead_fails_nobody_else(world: World) -> None:
    """A poststop that has undone its own container has done its work, whichever call is refused afterwards."""
    dead(world, "dead", "/dead")
    log = world.path / "log"
    one = dead(world, "one", "/a")
    text = state(world, "one", status="stopped", bundle=str(one.bundle))
    strace = ("strace", "-f", "-qq", "-o", "/dev/null", "-P", "/proc", "-e", "inject=getdents64:error=EIO")
    done = call(world, "poststop", "--log", str(log), stdin=text, before=strace)
    assert (done.returncode, done.stderr) == (0, "")
    assert {"one.json", "dead.json"} & {*os.listdir(world.state)} == {"dead.json"}
    left = f"are left to oci-bind-hook gc --root {world.state}: [Errno 5] Input/output error"
    assert left in log.read_text()


# -- what is told ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", ["i", "a"])
def test_an_immutable_mount_point_is_told_as_what_it_is(world: World, flag: str) -> None:
    before = support.tree(world.rootfs)
    one = dead(world, "one", "/a/b")
    subprocess.run(["chattr", f"+{flag}", f"{world.rootfs}/a"], check=True)
    (said,) = finish(one.launch(status="stopped"), code=71)
    told = f"could not undo {world.rootfs}/a/b: Operation not permitted, it or its folder is immutable or append-only"
    assert told in said
    subprocess.run(["chattr", f"-{flag}", f"{world.rootfs}/a"], check=True)
    one.tear_down()
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])
