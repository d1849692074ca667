# SPDX-License-Identifier: Apache-2.0
"""list, show and gc: told is what the mount table and the rootfs say; what died is finished, and what lives stays."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.world import Container, call, fail, faults, mount, mounted, state
from oci_bind_hook.documents import oci
from oci_bind_hook.kernel import linux

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from helpers.world import World

Documents = dict[str, dict[str, Any]]
OTHER_BOOT = "00000000-0000-0000-0000-000000000000"


def ask(world: World, *words: str, code: int = 0) -> Documents:
    """What list, show or gc says in JSON, by container."""
    done = call(world, *words, "--format", "json", stdin="")
    assert (done.returncode, done.stderr) == (code, "")
    document = json.loads(done.stdout)
    assert oci.violations(document, "gc" if words[0] == "gc" else "records") == []
    assert document["folders"] == [{"path": str(world.state)}]
    assert all(record["folder"] == str(world.state) for record in document["records"])
    return {record["id"]: record for record in document["records"]}


def tell(world: World, *words: str, code: int = 0) -> str:
    """The same for a person."""
    done = call(world, *words, stdin="")
    assert (done.returncode, done.stderr) == (code, "")
    assert all(line.isprintable() for line in done.stdout.splitlines())
    return done.stdout


def states(entry: dict[str, Any]) -> tuple[list[str], list[str]]:
    return [each["state"] for each in entry["mounts"]], [each["state"] for each in entry["made"]]


class Init:
    """A process that plays the container's first one, in this mount namespace."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid

    def end(self) -> None:
        self.process.communicate()


@pytest.fixture
def init() -> Iterator[Init]:
    init = Init()
    yield init
    if init.process.poll() is None:
        init.end()


def set_up(world: World, init: Init | None, *destinations: str, container: str = "c1") -> None:
    support.bundle(world.path / "bundle", ["true"])
    members: dict[str, Any] = {} if init is None else {"pid": init.pid}
    done = call(world, "prestart", *mount(world, *destinations), stdin=state(world, container, **members))
    assert (done.returncode, done.stderr) == (0, "")


def edit(world: World, container: str = "c1", **members: Any) -> None:
    path = world.state / f"{container}.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))


# -- list and show -----------------------------------------------------------------------------------------------------


def test_nothing_is_recorded(world: World) -> None:
    text = f"nothing is recorded in {world.state}\n"
    assert tell(world, "list") == tell(world, "gc") == text
    world.state.rmdir()
    assert tell(world, "list") == tell(world, "gc") == f"nothing is recorded: {world.state} does not exist\n"
    assert ask(world, "list") == ask(world, "gc") == {}
    assert not world.state.exists()
    done = call(world, "show", "c1", stdin="")
    assert (done.returncode, done.stdout) == (66, "")
    assert done.stderr == f'oci-bind-hook: nothing is recorded for a container "c1" in {world.state}\n'


def test_advice_names_the_state_folder(world: World, init: Init) -> None:
    set_up(world, init, "/a")
    edit(world, phase="made")
    gc = f"oci-bind-hook gc --root {world.state}"
    advice = ask(world, "list")["c1"]["advice"]
    assert advice == f"stop the container: poststop, or {gc}, then undoes the rest"
    edit(world, phase="done", user={"owner": 7, "uids": [{"inside": 0, "outside": 7, "size": 1}], "gids": []})
    advice = ask(world, "list")["c1"]["advice"]
    assert advice == f"as uid 7, run podman unshare oci-bind-hook list --root {world.state}"
    assert ask(world, "show", "c1")["c1"]["advice"].endswith(f" oci-bind-hook show c1 --root {world.state}")


def test_it_is_told_by_the_mount_table_and_the_rootfs(world: World, init: Init) -> None:
    set_up(world, init, "/a/b", "/a/c", "/d", "/e")
    entry = ask(world, "show", "c1")["c1"]
    assert (entry["status"], entry["phase"], entry["advice"]) == ("alive", "done", "")
    assert entry["reason"] == f"its first process {init.pid} runs"
    assert states(entry) == (["mounted"] * 4, ["there", "covered", "covered", "covered", "covered"])
    # Another mount at the same place is not ours, and a folder of the same name is not what was made.
    for path in ("/a/b", "/a/c", "/e"):
        subprocess.run(["umount", world.rootfs + path], check=True)
    # Without unique ids one of the same source could not be told from ours.
    source = world.source if linux.version() >= (6, 8) else world.path
    subprocess.run(["mount", "--bind", str(source), f"{world.rootfs}/a/b"], check=True)
    os.rename(f"{world.rootfs}/a/c", f"{world.rootfs}/a/old")
    os.mkdir(f"{world.rootfs}/a/c")
    os.rmdir(f"{world.rootfs}/e")
    before = world.snapshot()
    entry = ask(world, "show", "c1")["c1"]
    assert [mount["resolved"] for mount in entry["mounts"]] == ["/a/b", "/a/c", "/d", "/e"]
    assert states(entry)[0] == ["gone", "gone", "mounted", "gone"]
    made = {each["path"]: each["state"] for each in entry["made"]}
    assert made == {"/a": "there", "/a/b": "covered", "/a/c": "changed", "/d": "covered", "/e": "gone"}
    assert "no longer mounted: 3 of 4 binds" in entry["reason"]
    assert "restart the container" in entry["advice"]
    text = tell(world, "show", "c1")
    assert "changed: directory /a/c, created in the rootfs (another process created it)\n" in text
    assert f"mounted: {world.source} on /d\n" in text
    head, line, *_ = tell(world, "list").splitlines()
    assert head.split() == "ID STATUS AGE BINDS MOUNT POINTS ROOTFS".split()
    assert re.fullmatch(rf"c1  alive   \d+ s  +1 of 4  3 of 5 +{world.rootfs}", line)
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_a_containers_own_namespace_is_looked_into(world: World, runtime: str, stage: str) -> None:
    script = "umount /tmp/b; echo > /tmp/ready; exec sleep 1000"
    bundle = world.bundle(script, stage, *mount(world, "/a", "/tmp/b"))
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        entry = ask(world, "show", "c1")["c1"]
        assert (entry["status"], entry["namespace"]["kind"]) == ("alive", "container")
        assert states(entry) == (["mounted", "mounted"], ["there", "there"])
        assert tell(world, "list").splitlines()[2:] == []
        assert namespace.start("c1").returncode == 0
        while not os.path.exists(f"{world.rootfs}/tmp/ready"):
            os.sched_yield()
        assert states(ask(world, "show", "c1")["c1"])[0] == ["mounted", "gone"]
        assert ask(world, "gc")["c1"]["action"] == "kept"
        assert namespace.execute("c1", "cat", "/a/word").stdout == "hello from the host\n"
        namespace.kill("c1")
        assert namespace.delete("c1", "--force").returncode == 0
    assert support.records(world.state) == []


@pytest.mark.kernel(6, 11)
def test_a_bind_of_another_namespace_is_known_by_its_unique_id(world: World) -> None:
    """A mount with all else alike, id included, is another one."""
    bundle = world.bundle("exec sleep 1000", "createRuntime", *mount(world, "/a"))
    with support.RuntimeNamespace("runc") as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        record = json.loads((world.state / "c1.json").read_text())
        assert states(ask(world, "show", "c1")["c1"])[0] == ["mounted"]
        record["mounts"][0]["attached"][0]["unique"] += 1 << 20
        edit(world, mounts=record["mounts"])
        assert states(ask(world, "show", "c1")["c1"])[0] == ["gone"]
        assert namespace.delete("c1", "--force").returncode == 0


@pytest.mark.kernel(6, 11)
def test_a_process_that_still_sees_the_binds_keeps_them(world: World) -> None:
    """Without a pid namespace others can outlive the first process: a mount point must not be taken from under them."""
    bundle = world.bundle("exec sleep 1000", "createRuntime", *mount(world, "/a"), namespaces=["mount"])
    with support.RuntimeNamespace("runc") as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        pid = namespace.state("c1")["pid"]
        held = subprocess.Popen(["nsenter", f"--mount=/proc/{pid}/ns/mnt", "cat"], stdin=subprocess.PIPE)
        while os.stat(f"/proc/{held.pid}/ns/mnt").st_ino != os.stat(f"/proc/{pid}/ns/mnt").st_ino:
            os.sched_yield()
        os.kill(pid, signal.SIGKILL)
        while namespace.state("c1")["status"] != "stopped":
            os.sched_yield()
        entry = ask(world, "gc")["c1"]
        assert entry["action"] == "kept"
        assert f"but process {held.pid} still sees its binds" in entry["reason"]
        held.communicate()
        assert ask(world, "gc")["c1"]["action"] == "finished"
        assert not os.path.exists(f"{world.rootfs}/a")
        assert namespace.delete("c1", "--force").returncode == 0


@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_from_another_pid_namespace_nobody_is_dead(world: World, stage: str) -> None:
    """There the first process has another number, or none: a gc that runs in a container would end all others."""
    bundle = world.bundle("exec sleep 1000", stage, *mount(world, "/a"))
    with support.RuntimeNamespace("runc") as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        pid = namespace.state("c1")["pid"]
        elsewhere = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", world.launcher]
        said = [
            subprocess.run([*elsewhere, word, *world.root_option()], capture_output=True, text=True, check=True).stdout
            for word in ("list", "gc")
        ]
        for text in said:
            assert f"its first process {pid} is in a pid namespace that /proc does not show here" in text
        assert "/a" in [line.split(" ")[4] for line in support.mounts(pid)]
        assert ask(world, "show", "c1")["c1"]["status"] == "alive"
        assert namespace.delete("c1", "--force").returncode == 0
    assert support.records(world.state) == []


def test_without_a_first_process_it_says_how_to_end_it(world: World) -> None:
    before = world.snapshot()
    set_up(world, None, "/a")
    entry = ask(world, "show", "c1")["c1"]
    assert (entry["status"], states(entry)) == ("unknown", (["mounted"], ["covered"]))
    assert ask(world, "gc")["c1"]["action"] == "kept"
    assert mounted(world) == ["/a"]
    command = entry["advice"].removeprefix("if it has ended: ").replace("oci-bind-hook", world.launcher, 1)
    assert f"poststop --root {world.state}" in command
    subprocess.run(["sh", "-c", command], check=True)
    assert world.snapshot() == before


def test_what_could_move_a_cursor_is_escaped(world: World, init: Init) -> None:
    set_up(world, init, "/a\x1b[2J\nb", "/ä")
    assert "/a\\x1b[2J\\x0ab" in tell(world, "show", "c1")
    (world.state / "x\x1b[2J.json").write_text("{")
    (world.state / os.fsdecode(b"\xff.new")).touch()
    assert tell(world, "list", code=74).splitlines()[1].startswith("c1 ")
    assert set(ask(world, "list", code=74)) == {"c1", "x\x1b[2J", "\\xff"}


def test_columns_are_aligned(world: World, init: Init) -> None:
    set_up(world, init, "/a", container="a-long-name.of-it")
    set_up(world, init, "/a", "/b", container="c")
    lines = tell(world, "list").splitlines()
    assert len({line.index(word) for line, word in zip(lines, ["ROOTFS", *[world.rootfs] * 2], strict=True)}) == 1


def test_a_container_is_named_by_the_beginning_of_its_id(world: World, init: Init) -> None:
    for container in ("web-1", "web-2"):
        set_up(world, init, "/a", container=container)
    for command in ("show", "gc"):
        done = call(world, command, "web", stdin="")
        assert (done.returncode, done.stdout) == (64, "")
        assert "web: the name matches 2 containers (pass more characters of an id: web-1, web-2)" in done.stderr
    assert [*ask(world, "show", "web-1")] == ["web-1"]
    shown = tell(world, "show", "web-2")
    started = re.search(rf"^first process +{init.pid}, started (\S.*), \d+ (s|min) ago$", shown, re.MULTILINE)
    assert started is not None
    assert time.strptime(started[1][-5:], "%H:%M")
    init.end()
    call(world, "gc", "web-2", stdin="")
    assert [*ask(world, "list")] == ["web-1"]
    assert [*ask(world, "gc", "w")] == ["web-1"]


# -- gc ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["init", "boot"])
def test_what_died_is_finished(world: World, init: Init, how: str) -> None:
    before = world.snapshot()
    set_up(world, init, "/a/b", "/climb/c")
    refused = ask(world, "gc", "c1", code=69)["c1"]
    assert refused["action"] == "failed"
    assert refused["problem"]["message"].startswith("nothing is undone: its first process")
    if how == "init":
        init.end()
    else:
        subprocess.run(["umount", f"{world.rootfs}/a/b", f"{world.rootfs}/real/c"], check=True)
        edit(world, boot=OTHER_BOOT)
    entry = ask(world, "list")["c1"]
    assert (entry["status"], entry["advice"]) == ("dead", f"oci-bind-hook gc --root {world.state}")
    there = world.snapshot()
    planned = ask(world, "gc", "--dry-run")["c1"]
    assert world.snapshot() == there
    assert planned["action"] == "finish"
    assert planned["unmount"] == (["/real/c", "/a/b"] if how == "init" else [])
    assert planned["remove"] == ["/real/c", "/a/b", "/a"]
    told = tell(world, "gc", "--dry-run").splitlines()
    unmount = [f"  would unmount {path}" for path in planned["unmount"]]
    assert told[-len(unmount) - 3 :] == [*unmount, "  would remove /real/c", "  would remove /a/b", "  would remove /a"]
    if how == "init":
        told = tell(world, "gc").splitlines()
        assert told[1:] == [
            "  unmounted /real/c",
            "  unmounted /a/b",
            *(f"  removed {each}" for each in planned["remove"]),
        ]
    else:
        assert ask(world, "gc")["c1"] == {**planned, "action": "finished"}
    assert world.snapshot() == before
    assert ask(world, "gc") == {}


def test_what_is_left_standing_is_not_told_to_be_removed(world: World, init: Init) -> None:
    set_up(world, init, "/a/b")
    init.end()
    (world.path / "bundle/rootfs/a/theirs").touch()
    done = ask(world, "gc")["c1"]
    assert (done["unmount"], done["remove"]) == (["/a/b"], ["/a/b"])
    assert done["remarks"] == [f"{world.rootfs}/a is kept: it is not empty"]


RESISTS: dict[str, tuple[tuple[str, ...], str, list[str]]] = {
    "a mount on it": (
        ("mount", "-t", "tmpfs", "tmpfs", "{}/c"),
        "something else is mounted on it: if nothing uses that, run umount {}/c",
        ["/a/b", "/a"],
    ),
    "a mount above it": (
        ("mount", "-t", "tmpfs", "tmpfs", "{}/a"),
        "something is mounted on {}/a, above it: unmount that first",
        ["/c"],
    ),
    "read-only": (
        ("mount", "-o", "remount,ro", "{}"),
        "Read-only file system, remount its file system writable",
        [],
    ),
}


def test_what_is_kept_beside_what_resists_is_reported(world: World, init: Init) -> None:
    set_up(world, init, "/a/b", "/c")
    init.end()
    subprocess.run(["umount", f"{world.rootfs}/a/b", f"{world.rootfs}/c"], check=True)
    (world.path / "bundle/rootfs/a/theirs").touch()
    mounting.tmpfs(f"{world.rootfs}/c")
    done = ask(world, "gc", code=71)["c1"]
    assert (done["action"], done["remove"]) == ("failed", ["/a/b"])
    assert done["remarks"] == [f"{world.rootfs}/a is kept: it is not empty"]


@pytest.mark.parametrize("how", RESISTS)
def test_what_resists_is_named_with_its_rootfs_and_what_helps(world: World, init: Init, how: str) -> None:
    resist, told, rest = RESISTS[how]
    mounting.tmpfs(world.rootfs)
    support.busybox_rootfs(world.rootfs)
    set_up(world, init, "/a/b", "/c")
    init.end()
    subprocess.run(["umount", f"{world.rootfs}/a/b", f"{world.rootfs}/c"], check=True)
    subprocess.run([word.format(world.rootfs) for word in resist], check=True)
    place = f"{world.rootfs}/a/b" if how == "a mount above it" else f"{world.rootfs}/c"
    done = ask(world, "gc", code=71)["c1"]
    assert (done["action"], done["remove"]) == ("failed", rest)
    assert done["problem"]["message"].startswith(f"could not undo {place}: {told.format(world.rootfs)}")
    if how != "read-only":
        mounting.umount(resist[-1].format(world.rootfs))
    assert [path for path in ("/c", "/a/b", "/a") if not os.path.lexists(f"{world.rootfs}{path}")] == rest


def test_what_gc_has_done_is_told_as_done(world: World, init: Init) -> None:
    set_up(world, init, "/a/b")
    init.end()
    planned, done = (tell(world, "gc", *words).splitlines()[-4:] for words in (["--dry-run"], []))
    assert (planned[0].split()[:4], done[0].split()[:2]) == (["c1", "would", "be", "undone"], ["c1", "undone"])
    assert planned[1:] == ["  would unmount /a/b", "  would remove /a/b", "  would remove /a"]
    assert done[1:] == ["  unmounted /a/b", "  removed /a/b", "  removed /a"]


def test_mount_points_may_be_kept(world: World, init: Init) -> None:
    set_up(world, init, "/a/b")
    init.end()
    assert ask(world, "gc", "--dry-run", "--keep-mountpoints")["c1"]["remove"] == []
    assert ask(world, "gc", "--keep-mountpoints")["c1"]["action"] == "finished"
    assert mounted(world) == []
    assert os.path.isdir(f"{world.rootfs}/a/b")
    assert support.records(world.state) == []


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_container_without_poststop_is_finished(world: World, runtime: str) -> None:
    before = world.snapshot()
    bundle = world.bundle("exec sleep 1000", "createRuntime", *mount(world, "/a/b", "/climb/c"))
    path = world.path / "bundle/config.json"
    config = json.loads(path.read_text())
    del config["hooks"]["poststop"]
    path.write_text(json.dumps(config))
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        assert ask(world, "gc")["c1"]["action"] == "kept"
        assert namespace.delete("c1", "--force").returncode == 0
    assert world.snapshot() != before
    assert states(ask(world, "list")["c1"])[0] == ["gone", "gone"]
    assert ask(world, "gc")["c1"]["action"] == "finished"
    assert world.snapshot() == before


# Without the mount API the first folders that are made are for binds that are made ready.
MAKING = ("mkdirat", 2 if linux.version() >= (5, 12) else 5)


@pytest.mark.parametrize(
    ("name", "number"),
    faults(("fsync", 1), ("renameat", 1), MAKING, ("renameat", 2), ("move_mount", 2), ("renameat", 3)),
)
def test_what_a_killed_run_left_is_finished(world: World, init: Init, name: str, number: int) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    killer = fail(name, number, "signal=KILL")
    text = state(world, pid=init.pid)
    assert call(world, "prestart", *mount(world, "/k/a", "/k/b"), stdin=text, before=killer).returncode == -9
    status = ask(world, "list")["c1"]["status"]
    if name == "fsync":
        # It had not recorded anything, and so can have done nothing.
        assert status == "leftover"
    else:
        assert status == ("leftover" if (name, number) == ("renameat", 1) else "alive")
        init.end()
    assert ask(world, "gc")["c1"]["action"] == "finished"
    assert world.snapshot() == before


def test_staging_folders_and_temporary_files_go(world: World) -> None:
    (world.state / "c1.staging").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "staging", str(world.state / "c1.staging")], check=True)
    (world.state / "c2.new").write_text("{")
    (world.state / "c3.lock").touch()
    assert set(ask(world, "list")) == {"c1", "c2"}
    assert {entry["action"] for entry in ask(world, "gc").values()} == {"finished"}
    assert support.records(world.state) == []
    assert not any(str(world.state) in line for line in support.mounts())


def test_a_killed_gc_is_finished_by_the_next(world: World, init: Init) -> None:
    before = world.snapshot()
    set_up(world, init, "/k/a", "/k/b", "/k/c")
    init.end()
    for name, number in (("umount2", 1), ("umount2", 2), ("unlinkat", 1), ("unlinkat", 3)):
        assert call(world, "gc", stdin="", before=fail(name, number, "signal=KILL")).returncode == -9
    assert call(world, "gc", stdin="").returncode == 0
    assert world.snapshot() == before


def test_what_fails_stays_recorded_and_stops_no_other(world: World, init: Init) -> None:
    before = world.snapshot()
    for container in ("c1", "c2", "c3"):
        set_up(world, init, f"/{container}", f"/{container}-too", container=container)
    subprocess.run(["mount", "-t", "tmpfs", "theirs", f"{world.rootfs}/c2"], check=True)
    init.end()
    entries = ask(world, "gc", code=71)
    # What could be undone of it was, in the first round.
    assert (entries["c2"]["unmount"], entries["c2"]["remove"]) == (["/c2-too"], [])
    assert [entries[name]["action"] for name in ("c1", "c2", "c3")] == ["finished", "failed", "finished"]
    assert entries["c2"]["problem"]["exit"] == 71
    told = f"another process mounted something on {world.rootfs}/c2: unmount it first"
    assert told in entries["c2"]["problem"]["message"]
    assert support.records(world.state) == ["c2.json"]
    subprocess.run(["umount", f"{world.rootfs}/c2"], check=True)
    assert ask(world, "gc")["c2"]["action"] == "finished"
    assert world.snapshot() == before


def test_the_dead_are_no_obstacle_to_each_other(world: World, init: Init) -> None:
    """The second is mounted on what the first has made: neither lives, and one call finishes both."""
    before = world.snapshot()
    set_up(world, init, "/a/b", container="c1")
    set_up(world, init, "/a/c", container="c2")
    init.end()
    assert {entry["action"] for entry in ask(world, "gc").values()} == {"finished"}
    assert world.snapshot() == before


def test_what_a_live_one_uses_is_handed_over(world: World, init: Init) -> None:
    before = world.snapshot()
    other = Init()
    set_up(world, other, "/a/b", container="c1")
    set_up(world, init, "/a/c", container="c2")
    other.end()
    planned = ask(world, "gc", "--dry-run")
    assert planned["c1"]["remarks"] == ["/a would be handed over to the container c2, which uses it"]
    assert planned["c1"]["remove"] == ["/a/b"]
    assert ask(world, "gc")["c1"]["action"] == "finished"
    assert mounted(world) == ["/a/c"]
    assert [each["path"] for each in ask(world, "show", "c2")["c2"]["made"]] == ["/a", "/a/c"]
    init.end()
    assert ask(world, "gc")["c2"]["action"] == "finished"
    assert world.snapshot() == before


def test_a_run_that_works_on_it_is_not_waited_for(world: World, init: Init) -> None:
    set_up(world, init, "/a")
    init.end()
    lock = world.state / "c1.lock"
    holder = subprocess.Popen(["flock", str(lock), "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=-1)
    assert holder.stdout is not None
    holder.stdout.readline()
    assert ask(world, "list")["c1"]["busy"] is True
    entry = ask(world, "gc")["c1"]
    assert (entry["action"], "a run of the hook works on it now" in entry["reason"]) == ("kept", True)
    assert mounted(world) == ["/a"]
    holder.communicate()
    assert ask(world, "list")["c1"]["busy"] is False
    assert ask(world, "gc")["c1"]["action"] == "finished"


def test_a_rootfs_that_a_run_works_on_is_not_waited_for(world: World, init: Init) -> None:
    """Nor do those on other rootfs wait for it."""
    set_up(world, init, "/a")
    init.end()
    stat = os.stat(world.rootfs)
    other = Container(world, "c2", support.busybox_rootfs(world.path / "second"))
    other.set_up("/b")
    other.end()
    with open(world.state / "rootfs" / f"{stat.st_dev}:{stat.st_ino}", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = ask(world, "gc")
        assert found["c1"]["action"] == "kept"
        assert found["c1"]["reason"] == "a run of the hook works on its rootfs now"
        assert found["c2"]["action"] == "finished"
    assert mounted(world) == ["/a"]
    assert ask(world, "gc")["c1"]["action"] == "finished"
    assert mounted(world) == []


def test_what_is_in_a_namespace_that_cannot_be_seen_is_not_gone(world: World, init: Init) -> None:
    """Root of a user namespace may look at no process outside."""
    set_up(world, init, "/data")
    before = world.snapshot()
    init.end()
    command = ["unshare", "--user", "--map-root-user", "--mount", world.launcher, "gc", *world.root_option()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 71
    assert "the binds are in a mount namespace that cannot be searched from this user namespace" in done.stdout
    assert world.snapshot() == before


def test_what_was_in_a_namespace_that_has_ended_is_gone(world: World) -> None:
    """In a user namespace, too, where all processes that are there can be looked at."""
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    sent = state(world, pid=0).replace(": 0}", ": '$!'}")
    words = " ".join([world.launcher, "prestart", *mount(world, "/data", "/new"), *world.root_option()])
    inner = f"cat </dev/zero >/dev/null & echo '{sent}' | {words} && {{ kill -9 $!; wait; true; }}"
    outer = f'unshare --mount sh -c "$0" && ls {world.state} && {world.launcher} gc --root {world.state}'
    alone = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--mount-proc"]
    done = subprocess.run([*alone, "sh", "-c", outer, inner], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout.split()[:4]) == (
        0,
        "",
        ["c1.json", "rootfs", "c1", "undone"],
    ), done
    assert world.snapshot() == before


def test_a_rootfs_that_is_gone_needs_no_undoing(world: World, init: Init) -> None:
    set_up(world, init, "/a")
    subprocess.run(["umount", f"{world.rootfs}/a"], check=True)
    shutil.rmtree(world.rootfs)
    init.end()
    assert states(ask(world, "list")["c1"]) == (["gone"], ["gone"])
    assert ask(world, "gc")["c1"]["action"] == "finished"
    assert support.records(world.state) == []


UNREADABLE: dict[str, Callable[[str], str]] = {
    "truncated": lambda text: text[:-20],
    "empty": lambda _: "",
    "of a later version": lambda text: json.dumps({**json.loads(text), "version": 3}),
    "of another container": lambda text: json.dumps({**json.loads(text), "id": "c9"}),
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_a_state_file_that_cannot_be_read_is_told_and_stays(world: World, init: Init, how: str) -> None:
    set_up(world, init, "/a", container="c1")
    set_up(world, init, "/b", container="c2")
    path = world.state / "c1.json"
    good = path.read_text()
    text = UNREADABLE[how](good)
    path.write_text(text)
    init.end()
    for words in (["list"], ["show", "c1"], ["gc", "--dry-run"], ["gc"]):
        entry = ask(world, *words, code=74)["c1"]
        assert entry["problem"]["exit"] == 74
        assert entry["advice"].endswith("then delete the file")
        assert str(path) in entry["problem"]["message"]
    assert str(path) in tell(world, "gc", code=74)
    # Without unique ids it may be of a container that has got the mount of the other one, too.
    is_known = json.loads(good)["mounts"][0]["attached"][0]["unique"] is not None
    assert mounted(world) == (["/a"] if is_known else ["/a", "/b"])
    assert path.read_text() == text
    # It may be of a live container that uses the mount point of the other one.
    assert support.records(world.state) == ["c1.json", "c2.json"]
    assert os.path.isdir(f"{world.rootfs}/b")
    path.write_text(good)
    assert {entry["action"] for entry in ask(world, "gc").values()} == {"finished"}
    assert support.records(world.state) == []


@pytest.mark.parametrize("command", ["list", "gc"])
def test_a_state_folder_of_others_is_refused(world: World, command: str) -> None:
    world.state.chmod(0o777)
    done = call(world, command, stdin="")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (74, "", 1)


@pytest.mark.parametrize("command", [["list"], ["gc", "--dry-run"]])
def test_names_that_are_not_utf8_make_no_json_that_is_not(world: World, command: list[str]) -> None:
    world.state = world.path / "\udcff"
    world.state.mkdir(0o700)
    (world.state / "\udcfe.json").touch(0o600)
    done = subprocess.run(
        [world.launcher, *command, "--format", "json", *world.root_option()], capture_output=True, check=False
    )
    document = json.loads(done.stdout.decode())
    assert done.returncode == 74
    json.dumps(document, ensure_ascii=False).encode()
    assert document["folders"] == [{"path": f"{world.path}/\\xff"}]


def test_an_ordinary_user_asks_for_their_own(tmp_path: Path, world: World) -> None:
    """Whatever is recorded there is of no use to them, and they need no rights to be told that nothing is."""
    tmp_path.chmod(0o755)
    done = subprocess.run(
        [*support.as_user(65534), world.launcher, "list"],
        env={"PATH": support.PATH, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        assert done.stdout == f"nothing is recorded: {tmp_path}/oci-bind-hook does not exist\n"


def test_gc_of_many_opens_no_more_files_than_it_may(world: World, init: Init) -> None:
    support.bundle(world.path / "bundle", ["true"])
    set_up(world, init, "/a")
    record = json.loads((world.state / "c1.json").read_text())
    for number in range(300):
        path = world.state / f"m{number}.json"
        path.write_text(json.dumps({**record, "id": f"m{number}", "mounts": [], "made": [], "boot": OTHER_BOOT}))
        path.chmod(0o600)
    done = call(world, "gc", "--format=json", stdin="", before=("prlimit", "--nofile=64:64"))
    assert done.returncode == 0, done.stderr
    assert len([entry for entry in json.loads(done.stdout)["records"] if entry["action"] == "finished"]) == 300
    assert mounted(world) == ["/a"]


@pytest.mark.parametrize("resists", [False, True])
def test_what_a_dead_one_inherits_is_not_reported_as_removed(world: World, init: Init, resists: bool) -> None:
    """What two dead containers share is removed with the second."""
    before = world.snapshot()
    set_up(world, init, "/a/x", container="c1")
    set_up(world, init, "/a/y", container="c2")
    init.end()
    if resists:
        mounting.tmpfs(f"{world.rootfs}/a/y")
    done = ask(world, "gc", code=71 if resists else 0)
    assert (done["c1"]["action"], done["c1"]["remove"]) == ("finished", ["/a/x"])
    assert done["c1"]["remarks"] == ["/a is handed over to the container c2, which uses it"]
    assert done["c2"]["remove"] == ([] if resists else ["/a/y", "/a"])
    if resists:
        mounting.umount(f"{world.rootfs}/a/y")
        assert ask(world, "gc")["c2"]["remove"] == ["/a/y", "/a"]
    assert world.snapshot() == before
