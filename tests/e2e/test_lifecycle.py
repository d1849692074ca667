# SPDX-License-Identifier: Apache-2.0
"""Several calls, several containers: what is undone when, and what is left alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.world import Container, call, fail, finish, mount, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

SLEEP = "echo ready > /data/ready; exec sleep 1000"


def test_by_hand_in_the_host_namespace(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"], mounts=[support.bind(world.source, "/absolute/config", "ro")])
    before = world.snapshot()
    done = call(world, "prestart", *mount(world, "/climb/a", "/climb/b"), stdin=state(world))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert mounted(world) == ["/real/a", "/real/b", "/real/config"]
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert world.snapshot() == before


def test_a_second_prestart_appends_and_repeats_nothing(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    assert call(world, "prestart", *mount(world, "/a/b", "/dangling"), stdin=state(world)).returncode == 0
    assert call(world, "prestart", *mount(world, "/a/b", "/a/c"), stdin=state(world)).returncode == 0
    assert mounted(world) == ["/a/b", "/a/c", "/absent/place"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.kernel(5, 12)
def test_a_failing_second_prestart_undoes_only_itself(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    assert call(world, "prestart", *mount(world, "/a/b"), stdin=state(world)).returncode == 0
    done = call(world, "prestart", *mount(world, "/a/c", "/a/d"), stdin=state(world), before=fail("move_mount", 2))
    assert done.returncode == 71
    assert mounted(world) == ["/a/b"]
    assert sorted(os.listdir(f"{world.rootfs}/a")) == ["b"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_a_second_call_covers_no_bind_of_the_first(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    words = ["--mount", f"src={world.source},dst=/a"]
    assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
    done = call(world, "prestart", "--mount", f"src={world.source},dst=/climb/../a,ro", stdin=state(world))
    told = "/a is already the destination of --mount 1 in an earlier call of the hook"
    assert (done.returncode, told in done.stderr) == (os.EX_CONFIG, True), done.stderr
    assert mounted(world) == ["/a"]
    # Where somebody has unmounted the first, it covers nothing.
    subprocess.run(["umount", f"{world.rootfs}/a"], check=True)
    assert call(world, "prestart", "--mount", f"src={world.source},dst=/a,ro", stdin=state(world)).returncode == 0
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


FAILING = {
    "before it is entered": (["--mount", "src=/absent,dst=/x"], os.EX_NOINPUT),
    "a request": (["--mount", "src=/,dst=/x,what"], os.EX_CONFIG),
    "in its namespace": (["--mount", "src=/usr,dst=/proc"], os.EX_NOPERM),
}


@pytest.mark.parametrize("case", FAILING)
def test_a_failing_second_call_of_a_container_undoes_the_first_as_well(world: World, case: str) -> None:
    """The runtime gives the container up, and crun calls no poststop then. What a neighbour uses stays for it."""
    words, code = FAILING[case]
    before = world.snapshot()
    neighbour, container = Container(world, "n"), Container(world, "c")
    container.set_up("/new/both", "/new/one")
    neighbour.set_up("/new/both")
    [said] = finish(container.launch(*words, first=False), code=code)
    assert (said.count("\n"), os.listdir(f"{world.rootfs}/new")) == (1, ["both"]), said
    assert [name for name in os.listdir(world.state) if name.endswith(".json")] == ["n.json"]
    # What stays of its binds in its own namespace ends with that.
    assert (neighbour.mounted(), {*container.mounted()} <= {"/new/both"}) == (["/new/both"], True)
    # A runtime that calls poststop all the same finds nothing to do.
    container.end()
    container.tear_down()
    neighbour.end()
    neighbour.tear_down()
    assert world.snapshot() == before


@pytest.mark.kernel(5, 12)  # before, the first umount2(2) is of the staging folder
def test_what_cannot_be_undone_of_the_first_call_stays_recorded(world: World) -> None:
    container = Container(world, "c")
    container.set_up("/new/one")
    with open(f"{world.rootfs}/new/other", "w"):
        pass
    words = ["--mount", "src=/usr,dst=/proc"]
    [said] = finish(container.launch(*words, first=False, before=fail("umount2", 1)), code=os.EX_OSERR)
    assert "; in addition, could not undo the bind on /new/one: " in said
    assert "c.json" in os.listdir(world.state)
    container.end()
    container.tear_down()
    assert (os.listdir(world.state), os.listdir(f"{world.rootfs}/new")) == ([], ["other"])


# Of a mount that was carried away with its rootfs only a unique id tells whose it is.
CARRIED = [pytest.param(name, marks=pytest.mark.kernel(6, 8)) for name in ("bundle-gone", "rootfs-gone")]


@pytest.mark.parametrize("situation", ["second", "without-set-up", *CARRIED, "no-state-folder"])
def test_poststop_with_nothing_to_do_is_done(world: World, situation: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    stopped = state(world, status="stopped")
    if situation != "without-set-up":
        assert call(world, "prestart", *mount(world, "/a/b"), stdin=state(world)).returncode == 0
    if situation == "second":
        assert call(world, "poststop", stdin=stopped).returncode == 0
    if situation == "bundle-gone":
        shutil.move(world.rootfs, world.path / "elsewhere")
        shutil.rmtree(world.path / "bundle")
    if situation == "rootfs-gone":
        shutil.move(world.rootfs, world.path / "elsewhere")
    if situation == "no-state-folder":
        assert call(world, "poststop", stdin=stopped).returncode == 0
        world.state.rmdir()
    done = call(world, "poststop", stdin=stopped)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [line for line in support.mounts() if str(world.path) in line] == []
    assert not world.state.exists() or support.records(world.state) == []


def test_a_live_record_of_another_bundle_is_refused_and_kept(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    support.bundle(world.path / "other", ["true"])
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    other = state(world, bundle=str(world.path / "other"))
    done = call(world, "prestart", *mount(world, "/a"), stdin=other)
    assert done.returncode == 74
    assert "belongs to another running container" in done.stderr
    # runc calls poststop for the refused one all the same.
    done = call(world, "poststop", stdin=state(world, bundle=str(world.path / "other"), status="stopped"))
    assert done.returncode == 0
    assert mounted(world) == ["/a"]


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("ends_first", ["one", "two"])
def test_two_containers_on_one_rootfs(world: World, runtime: str, ends_first: str) -> None:
    """Removing a mount point would cut the other one's bind: the last one removes it, whoever made it."""
    arguments = mount(world, "/data/inside/folder")
    bundles = {
        name: support.bundle(
            world.path / name,
            ["/bin/sh", "-c", SLEEP],
            rootfs=world.rootfs,
            hooks={
                "createRuntime": [world.hook("createRuntime", *arguments)],
                "poststop": [world.hook("poststop")],
            },
        )
        for name in ("one", "two")
    }
    before = support.tree(world.rootfs)
    with support.RuntimeNamespace(runtime) as namespace:
        for name, bundle in bundles.items():
            assert namespace.create(bundle, name).returncode == 0
            assert namespace.start(name).returncode == 0
        assert support.records(world.state) == ["one.json", "two.json"]
        stays = {"one": "two", "two": "one"}[ends_first]
        assert namespace.stop(ends_first).returncode == 0
        seen = namespace.execute(stays, "cat", "/data/inside/folder/word")
        assert seen.stdout == "hello from the host\n", seen.stderr
        assert support.records(world.state) == [f"{stays}.json"]
        assert namespace.stop(stays).returncode == 0
        assert support.records(world.state) == []
    os.unlink(f"{world.rootfs}/data/ready")
    assert support.tree(world.rootfs) == before


@pytest.mark.parametrize(("first", "second"), [("/a/b", "/a/c"), ("/a/b", "/a/b/c"), ("/a", "/a")])
def test_two_that_have_ended_are_torn_down_one_after_the_other(world: World, first: str, second: str) -> None:
    """What is not empty yet, because of the other dead one, is removed with that."""
    support.bundle(world.path / "bundle", ["true"])
    (world.source / "c").mkdir()
    before = world.snapshot()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as init:
        for container, path in (("c1", first), ("c2", second)):
            text = state(world, container, pid=init.pid)
            assert call(world, "prestart", *mount(world, path), stdin=text).returncode == 0
    for container in ("c2", "c1") if second.startswith(first) else ("c1", "c2"):
        done = call(world, "poststop", stdin=state(world, container, status="stopped"))
        assert (done.returncode, done.stderr) == (0, "")
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_dead_container_is_cleared_away_by_the_next_of_its_id(world: World, runtime: str) -> None:
    bundle = world.bundle("cat /a/b/word", "createRuntime", *mount(world, "/a/b"))
    before = world.snapshot()
    config = json.loads((world.path / "bundle/config.json").read_text())
    without_poststop = {**config, "hooks": {"createRuntime": config["hooks"]["createRuntime"]}}
    (world.path / "bundle/config.json").write_text(json.dumps(without_poststop))
    assert support.run_container(runtime, bundle, "c1").stdout == "hello from the host\n"
    assert support.records(world.state) == ["c1.json"]
    (world.path / "bundle/config.json").write_text(json.dumps(config))
    assert support.run_container(runtime, bundle, "c1").stdout == "hello from the host\n"
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_refused_container_leaves_nothing(world: World, runtime: str) -> None:
    bundle = world.bundle("true", "createRuntime", *mount(world, "/a", "/b"), "--mount", "src=/absent,dst=/c")
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert done.returncode != 0
    if runtime == "runc":  # crun throws away what hooks say
        assert "--mount 3: the source /absent cannot be opened: No such file or directory" in done.stderr
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_two_stages_registered_mount_once(world: World, runtime: str) -> None:
    arguments = mount(world, "/a/b", "/dangling", options=",ro")
    hooks = {stage: [world.hook(*arguments)] for stage in ("prestart", "createRuntime", "createContainer", "poststop")}
    bundle = support.bundle(world.path / "bundle", ["grep", "-E", " /(a|absent)/", "/proc/self/mountinfo"], hooks=hooks)
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert [line.split(" ")[4] for line in done.stdout.splitlines()] == ["/a/b", "/absent/place"], done.stderr
    assert world.snapshot() == before


def test_the_config_may_come_on_stdin(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"], mounts=[support.bind(world.source, "/config", "ro")])
    file = world.path / "bundle/config.json"
    before = world.snapshot()
    text = file.read_text()
    file.unlink()
    assert call(world, "prestart", stdin=state(world) + text).returncode == 0
    assert mounted(world) == ["/config"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_strict_judges_what_the_hook_does_not_use(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    file = world.path / "bundle/config.json"
    config = json.loads(file.read_text())
    config["linux"]["seccomp"] = {"defaultAction": "SCMP_ACT_KIL"}
    file.write_text(json.dumps(config))
    before = world.snapshot()
    done = call(world, "prestart", "--strict", *mount(world, "/a"), stdin=state(world))
    assert done.returncode == 65
    assert done.stderr.startswith("oci-bind-hook: c1 prestart: config.json: /linux/seccomp/defaultAction: must be ")
    assert world.snapshot() == before
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    assert call(world, "poststop", "--strict", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_an_overlay_as_rootfs_is_left_as_it_was(world: World) -> None:
    """Device and inode numbers of an overlay tell nothing, and yet what was made is known again."""
    support.bundle(world.path / "bundle", ["true"])
    upper, work = world.path / "upper", world.path / "work"
    upper.mkdir()
    work.mkdir()
    overlay = f"lowerdir={world.rootfs},upperdir={upper},workdir={work}"
    subprocess.run(["mount", "-t", "overlay", "-o", overlay, "overlay", world.rootfs], check=True)
    before = world.snapshot()
    assert call(world, "prestart", *mount(world, "/a/b", "/climb/c"), stdin=state(world)).returncode == 0
    assert mounted(world) == ["/a/b", "/real/c"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_sources_are_those_that_are_there_when_an_earlier_container_is_undone(world: World) -> None:
    """They are opened before the id is locked, and its dead container may still have a bind in front of them."""
    support.bundle(world.path / "bundle", ["true"], namespaces=())
    before = world.snapshot()

    def set_up(*words: str) -> None:
        with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as init:
            done = call(world, "prestart", *words, stdin=state(world, pid=init.pid))
            assert done.returncode == 0, done.stderr

    set_up(*mount(world, "/data"))
    assert os.listdir(f"{world.rootfs}/data") == ["word"]
    set_up("--mount", f"src={world.rootfs}/data,dst=/tmp")
    assert mounted(world) == ["/tmp"]
    assert os.listdir(f"{world.rootfs}/tmp") == ["link"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before
