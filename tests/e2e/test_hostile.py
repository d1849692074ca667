# SPDX-License-Identifier: Apache-2.0
"""Images, neighbours and administrators that make it hard: nothing leaks, nothing is lost, one line tells why."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

import oci_bind_hook
from helpers import support
from helpers.world import call, fail, mount, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

SLEEP = ["/bin/sh", "-c", "exec sleep 1000"]


def put(world: World, path: str, text: str = "") -> str:
    """A file of the image."""
    os.makedirs(os.path.dirname(f"{world.rootfs}{path}"), exist_ok=True)
    with open(f"{world.rootfs}{path}", "w", encoding="utf-8") as file:
        file.write(text)
    return f"{world.rootfs}{path}"


# Leaks


@pytest.mark.parametrize("word", ["rshared", "private", "slave", "unbindable"])
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_no_bind_leaks_through_a_shared_mount_below_one_planned_before(world: World, runtime: str, word: str) -> None:
    (world.source / "sub/x").mkdir(parents=True)
    outer = f"src={world.source},dst=/vol,bind-propagation={word}"
    bundle = world.bundle("true", "createRuntime", "--mount", outer, "--mount", f"src={world.file},dst=/vol/sub/y")
    with support.RuntimeNamespace(runtime) as namespace:
        sub = str(world.source / "sub")
        assert namespace.run("mount", "-t", "tmpfs", "shared", sub).returncode == 0
        assert namespace.run("mount", "--make-shared", sub).returncode == 0
        assert namespace.run("touch", f"{sub}/y").returncode == 0
        assert namespace.run_container(bundle, "c1").returncode != 0
        left = [line for line in support.mounts(namespace.holder.pid) if sub in line]
        assert len(left) == 1
    assert support.records(world.state) == []


@pytest.mark.parametrize("allowed", [False, True], ids=["refused", "allowed"])
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_volume_shared_with_the_host(world: World, runtime: str, *, allowed: bool) -> None:
    volume = world.path / "volume"
    (volume / "inside").mkdir(parents=True)
    bundle = world.bundle(
        "cat /volume/inside/word",
        "createRuntime",
        *mount(world, "/volume/inside"),
        *(["--allow-shared"] if allowed else []),
        mounts=[support.bind(volume, "/volume", "rshared")],
        linux={"rootfsPropagation": "shared"},
    )
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.run("mount", "--bind", str(volume), str(volume)).returncode == 0
        assert namespace.run("mount", "--make-shared", str(volume)).returncode == 0
        done = namespace.run_container(bundle, "c1")
        left = [line for line in support.mounts(namespace.holder.pid) if str(volume) in line]
        assert (done.returncode, len(left)) == ((0, 2) if allowed else (done.returncode, 1)), done.stderr
        assert allowed or done.returncode != 0


def test_a_runtime_in_a_pid_namespace_of_its_own_does_not_make_us_a_container(world: World) -> None:
    """Where /proc is another's, as in createContainer, a pid that can be entered decides."""
    bundle = world.bundle("cat /inside/word", "createRuntime", *mount(world, "/inside"), named=False)
    before = world.snapshot()
    with support.RuntimeNamespace("crun") as namespace:
        inside = support.mounts(namespace.holder.pid)
        done = namespace.run(
            *("unshare", "--pid", "--fork", "crun", "--root", namespace.root, "run", "--bundle", bundle, "c1")
        )
        assert done.stdout == "hello from the host\n", done.stderr
        assert support.mounts(namespace.holder.pid) == inside
    assert world.snapshot() == before


# Images


def test_a_bad_state_file_stops_no_other_container(world: World) -> None:
    """It starts and ends. Only what was made for it stays, as it may be used by the one that cannot be read."""
    support.bundle(world.path / "bundle", ["true"])
    bad = world.state / "zz.json"
    bad.touch(0o600)
    before = world.snapshot()
    log = f"--log={world.path}/log"
    assert call(world, "prestart", *mount(world, "/data"), log, stdin=state(world)).returncode == 0
    assert call(world, "poststop", log, stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before
    assert (world.path / "log").read_text().count(
        "a container whose record cannot be read may use the same mount points: "
    ) == 2
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, str(bad) in done.stderr) == (os.EX_OSERR, True)
    assert world.snapshot()["mounts"] == before["mounts"]
    bad.rename(world.path / "moved away")
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot()["rootfs"] == before["rootfs"]
    assert support.records(world.state) == []


def test_a_bad_state_file_that_no_list_names_keeps_nothing(world: World) -> None:
    """Nor does gc, which misses it in the lists, have it read from then on for each other container."""
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()["rootfs"]
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    (world.state / "zz.json").touch(0o600)
    assert call(world, "gc", stdin="").returncode == os.EX_IOERR
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, done.stderr) == (0, "")
    assert (world.snapshot()["rootfs"], support.records(world.state)) == (before, ["zz.json"])


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_message_is_one_line_whatever_the_image_calls_its_files(world: World, runtime: str) -> None:
    put(world, "/etc/p\nw")
    os.symlink("/etc/p\nw/y", f"{world.rootfs}/evil")
    log = f"--log={world.path}/log"
    bundle = world.bundle("true", "createRuntime", *mount(world, "/evil"), log)
    assert support.run_container(runtime, bundle, "c1").returncode != 0
    logged = (world.path / "log").read_text().splitlines()
    assert [r"/etc/p\x0aw is not a folder" in line for line in logged if 'level="error"' in line] == [True]


def test_a_log_of_the_image_is_not_taken_for_the_hosts(world: World) -> None:
    """poststart under runc enters a container that has its own root, and fails there."""
    put(world, "/dev/log")
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    hooks = {"poststart": [world.hook(*mount(world, "/a"), "--debug", f"--log={world.path}/log")]}
    bundle = support.bundle(world.path / "bundle", SLEEP, hooks=hooks)
    config = json.loads((world.path / "bundle/config.json").read_text())
    (world.path / "bundle/config.json").write_text(json.dumps({**config, "mounts": mounts}))
    done = support.run_container("runc", bundle, "c1")
    assert "exit status 69" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_bind_that_a_later_volume_hides_is_not_made_where_that_volume_leads(world: World, runtime: str) -> None:
    volume = world.path / "volume"
    volume.mkdir()
    (volume / "b").symlink_to("/etc")
    mounts = [support.bind(world.source, "/a/b"), support.bind(volume, "/a")]
    os.makedirs(f"{world.rootfs}/a/b")
    bundle = world.bundle("cat /etc/passwd; cat /etc/word", "createRuntime", *mount(world, "/other"), mounts=mounts)
    done = support.run_container(runtime, bundle, "c1")
    assert done.stdout.startswith("root:x:0:0"), done.stderr
    assert "hello" not in done.stdout


@pytest.mark.parametrize(("length", "code"), [(4095, 0), (4096, 78)])
def test_a_destination_that_could_never_be_unmounted_is_refused(world: World, length: int, code: int) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    destination = (("/" + "x" * 200) * 21)[: length - len(world.rootfs) - 1] + "x"
    done = call(world, "prestart", *mount(world, destination), stdin=state(world))
    assert done.returncode == code, done.stderr
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


# Neighbours


@pytest.mark.parametrize("is_alive", [True, False], ids=["alive", "dead"])
@pytest.mark.parametrize("other", ["bind", "tmpfs"])
def test_a_neighbour_without_binds_of_ours_is_spared(world: World, other: str, *, is_alive: bool) -> None:
    """Its own mounts may stand on what another container's hook made, and would be cut off with it."""
    theirs = {"bind": support.bind(world.source, "/vol/x"), "tmpfs": {"destination": "/vol/x", "type": "tmpfs"}}[other]
    makers = {
        "createRuntime": [world.hook("createRuntime", *mount(world, "/vol/x"))],
        "poststop": [world.hook("poststop")],
    }
    users = {"createRuntime": [world.hook("createRuntime")], "poststop": [world.hook("poststop")]}
    maker = support.bundle(world.path / "one", SLEEP, rootfs=world.rootfs, hooks=makers)
    user = support.bundle(world.path / "two", SLEEP, rootfs=world.rootfs, hooks=users, mounts=[theirs])
    before = support.tree(world.rootfs)
    with support.RuntimeNamespace("runc") as namespace:
        for bundle, name in ((maker, "maker"), (user, "user")):
            assert namespace.create(bundle, name).returncode == 0
            assert namespace.start(name).returncode == 0
            if name == "maker" and not is_alive:
                namespace.kill("maker")
                namespace.run(
                    "sh", "-c", f"while runc --root {namespace.root} state maker | grep -q running; do :; done"
                )
        if is_alive:
            namespace.stop("maker")
        else:
            namespace.delete("maker")
        seen = namespace.execute("user", "grep", " /vol/x ", "/proc/self/mountinfo")
        assert seen.stdout.count("\n") == 1, seen.stderr
        namespace.stop("user")
    assert support.tree(world.rootfs) == before
    assert support.records(world.state) == []


# Administrators


def test_a_rootfs_that_the_administrator_keeps_read_only_is_not_written(world: World) -> None:
    bundle = world.bundle("true", "createContainer", *mount(world, "/new"), readonly=True)
    before = support.tree(world.rootfs)
    with support.RuntimeNamespace("runc") as namespace:
        assert namespace.run("mount", "--bind", world.rootfs, world.rootfs).returncode == 0
        assert namespace.run("mount", "-o", "remount,bind,ro", world.rootfs).returncode == 0
        done = namespace.run_container(bundle, "c1")
        assert "Read-only file system" in done.stderr
    assert support.tree(world.rootfs) == before
    assert support.records(world.state) == []


def test_another_rootfs_in_the_same_bundle_is_another_container(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    other = support.busybox_rootfs(world.path / "other")
    support.bundle(world.path / "bundle", ["true"], rootfs=other)
    done = call(world, "prestart", *mount(world, "/b"), stdin=state(world))
    assert done.returncode == 74
    assert "another rootfs" in done.stderr
    assert not os.path.exists(f"{other}/b")


def test_by_hand_with_a_pid_of_this_namespace(world: World) -> None:
    """Without STAGE as with it: what is mounted here is unmounted here."""
    support.bundle(world.path / "bundle", ["true"], mounts=[support.bind(world.source, "/config")])
    before = world.snapshot()
    done = call(world, *mount(world, "/a"), stdin=state(world, pid=os.getpid()))
    assert done.returncode == 0, done.stderr
    assert mounted(world) == ["/a", "/config"]
    record = json.loads((world.state / "c1.json").read_text())
    assert record["namespace"]["kind"] == "runtime"
    assert record["init"]["pid"] == os.getpid()
    record["init"] = None
    (world.state / "c1.json").write_text(json.dumps(record))
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_binds_whose_namespace_is_gone_are_gone(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    done = call(world, "prestart", *mount(world, "/a/b"), stdin=state(world), before=("unshare", "-m"))
    assert done.returncode == 0
    assert support.records(world.state) == ["c1.json"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_too_few_files_are_said_before_any_change(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    deep = "/deep" + "/x" * 60
    done = call(world, "prestart", *mount(world, deep), stdin=state(world), before=("prlimit", "--nofile=100"))
    assert done.returncode == 69
    assert "RLIMIT_NOFILE" in done.stderr
    assert world.snapshot() == before


# Kills


@pytest.mark.parametrize(("call_name", "number"), [("move_mount", 1), ("move_mount", 2), ("mkdirat", 2), ("fsync", 2)])
def test_what_a_killed_call_left_is_not_taken_as_done(world: World, call_name: str, number: int) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    killer = fail(call_name, number, "signal=KILL")
    assert call(world, "prestart", *mount(world, "/k/a", "/k/b"), stdin=state(world), before=killer).returncode == -9
    done = call(world, "prestart", *mount(world, "/k/a", "/k/b", "/c"), stdin=state(world))
    assert done.returncode == 0, done.stderr
    assert mounted(world) == ["/c", "/k/a", "/k/b"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.parametrize("how", ["error=EIO", "signal=KILL"])
def test_mounts_that_others_hide_are_undone_too(world: World, how: str) -> None:
    sub = world.source / "sub"
    sub.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "one", sub], check=True)
    (sub / "deep").mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "two", sub / "deep"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "three", sub], check=True)
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    killer = fail("mount_setattr", 3, how)
    done = call(world, "prestart", *mount(world, "/n1", "/n2"), stdin=state(world), before=killer)
    assert done.returncode == (71 if how == "error=EIO" else -9)
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_letting_go_of_a_lock_fails_no_finished_run(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    done = call(world, "prestart", *mount(world, "/a"), stdin=state(world), before=fail("unlinkat", 1))
    assert done.returncode == 0, done.stderr
    assert mounted(world) == ["/a"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def test_poststop_is_not_for_a_container_that_runs(world: World) -> None:
    done = call(world, "poststop", stdin=state(world, status="created"))
    assert done.returncode == 69
    assert 'poststop needs a container that is "stopped"' in done.stderr


def test_two_binds_on_one_destination(world: World) -> None:
    os.makedirs(f"{world.rootfs}/real/a")
    support.bundle(world.path / "bundle", ["true"])
    done = call(world, "prestart", *mount(world, "/absolute/a", "/climb/a"), stdin=state(world))
    assert done.returncode == 78
    assert "--mount 2: /real/a is already the destination of --mount 1" in done.stderr


def test_a_missing_dependency_is_a_broken_installation(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    copy = world.path / "copy"
    with open(world.launcher, encoding="utf-8") as file:
        text = file.read()
    shutil.copytree(oci_bind_hook.FOLDER, copy / "oci_bind_hook")
    (copy / "jsonschema.py").write_text("import nothing_of_this_name\n")
    launcher = world.path / "launcher"
    launcher.write_text(text.replace("sys.path += [", f"sys.path += ['{copy}', "))
    launcher.chmod(0o755)
    world.launcher = str(launcher)
    # Only what the acceptor is not sure of needs it.
    done = call(world, "prestart", *mount(world, "/a"), stdin=state(world, pid=1.0))
    assert done.returncode == 70
    assert "the installation is broken: No module named 'nothing_of_this_name'" in done.stderr


# What stands in one place is told apart


def test_mounts_of_one_file_system_that_hide_each_other_are_undone(world: World) -> None:
    lower, upper, point = (world.path / name for name in ("lower", "upper", "source/m"))
    for folder in (lower, upper, point):
        folder.mkdir()
    for folder in (lower, upper):
        subprocess.run(["mount", "--bind", folder, point], check=True)
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    assert mounted(world) == ["/a", "/a/m", "/a/m"]
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, done.stderr) == (0, "")
    assert world.snapshot() == before


def test_a_private_mount_hidden_by_a_shared_one_does_not_hide_the_leak(world: World) -> None:
    lower, upper, point = (world.path / name for name in ("lower", "upper", "source/m"))
    for folder in (lower, upper / "x", point):
        folder.mkdir(parents=True)
    outer = f"src={world.source},dst=/a,bind-propagation=private"
    bundle = world.bundle("true", "createRuntime", "--mount", outer, *mount(world, "/a/m/x"))
    with support.RuntimeNamespace("runc") as namespace:
        for folder, word in ((lower, "private"), (upper, "shared")):
            assert namespace.run("mount", "--bind", str(folder), str(point)).returncode == 0
            assert namespace.run("mount", f"--make-{word}", str(point)).returncode == 0
        done = namespace.run_container(bundle, "c1")
        assert "shared with the host" in done.stderr


@pytest.mark.parametrize("unshare", [[], ["unshare", "--pid", "--fork"]], ids=["host", "pid namespace"])
def test_create_container_outside_of_a_container(world: World, unshare: list[str]) -> None:
    if not unshare:
        subprocess.run(["mount", "-t", "tmpfs", "stray", f"{world.rootfs}/dev"], check=True)
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    done = call(world, "createContainer", *mount(world, "/dev/x"), stdin=state(world), before=tuple(unshare))
    assert done.returncode == 69
    assert "createContainer requires the container's mount namespace" in done.stderr
    assert world.snapshot() == before


def test_create_container_without_any_mount_in_the_hosts_pid_namespace(world: World) -> None:
    """crun alone: runc cannot do without a /proc."""
    os.makedirs(f"{world.rootfs}/a")
    bundle = world.bundle("cat /a/word", "createContainer", *mount(world, "/a"), namespaces=("mount",))
    config = json.loads((world.path / "bundle/config.json").read_text())
    (world.path / "bundle/config.json").write_text(json.dumps({**config, "mounts": []}))
    done = support.run_container("crun", bundle, "c1")
    assert done.stdout == "hello from the host\n", done.stderr
    assert support.records(world.state) == []


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_bind_of_ours_over_one_of_the_config_at_two_stages(world: World, runtime: str) -> None:
    hooks = {stage: [world.hook(*mount(world, "/a"))] for stage in ("prestart", "createRuntime", "poststop")}
    os.makedirs(f"{world.rootfs}/a/b")
    mounts = [support.bind(world.path, "/a/b")]
    bundle = support.bundle(world.path / "bundle", ["cat", "/a/word"], hooks=hooks, mounts=mounts)
    done = support.run_container(runtime, bundle, "c1")
    assert done.stdout == "hello from the host\n", done.stderr
    assert support.records(world.state) == []


def test_mount_points_are_kept_for_those_who_ask_when_a_dead_container_is_cleared_away(world: World) -> None:
    words = ["--keep-mountpoints", *mount(world, "/a/b")]
    bundle = world.bundle("true", "createRuntime", *words)
    config = json.loads((world.path / "bundle/config.json").read_text())
    del config["hooks"]["poststop"]
    (world.path / "bundle/config.json").write_text(json.dumps(config))
    for _ in range(2):
        assert support.run_container("runc", bundle, "c1").returncode == 0
    assert call(world, "poststop", "--keep-mountpoints", stdin=state(world, status="stopped")).returncode == 0
    assert os.listdir(f"{world.rootfs}/a") == ["b"]
    assert support.records(world.state) == []


def test_a_killed_calls_bind_gets_its_propagation_by_the_next(world: World) -> None:
    subprocess.run(["mount", "--bind", world.rootfs, world.rootfs], check=True)
    subprocess.run(["mount", "--make-shared", world.rootfs], check=True)
    support.bundle(world.path / "bundle", ["true"])
    killer = fail("mount_setattr", 2, "signal=KILL")
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world), before=killer).returncode == -9
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    (line,) = [line for line in support.mounts() if line.split(" ")[4] == f"{world.rootfs}/a"]
    assert "shared:" not in line
    assert json.loads((world.state / "c1.json").read_text())["phase"] == "done"


def test_what_came_by_propagation_is_not_taken_for_somebody_elses(world: World) -> None:
    subprocess.run(["mount", "--bind", world.source, world.source], check=True)
    subprocess.run(["mount", "--make-shared", world.source], check=True)
    (world.source / "usb").mkdir()
    support.bundle(world.path / "bundle", ["true"])
    words = mount(world, "/a", options=",bind-propagation=rslave")
    assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
    subprocess.run(["mount", "-t", "tmpfs", "usb", world.source / "usb"], check=True)
    assert mounted(world) == ["/a", "/a/usb"]
    done = call(world, "poststop", stdin=state(world, status="stopped"))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounted(world) == []
    assert os.path.ismount(world.source / "usb")


def test_many_mounts_of_the_config_do_not_use_up_files(world: World) -> None:
    mounts = [{"destination": f"/d/{number}", "type": "tmpfs"} for number in range(300)]
    support.bundle(world.path / "bundle", ["true"], mounts=mounts)
    words = mount(world, "/a")
    done = call(world, "prestart", *words, stdin=state(world), before=("prlimit", "--nofile=150:150"))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("how", ["killed", "other-bundle"])
def test_a_dry_run_takes_no_record_for_what_it_is_not(world: World, how: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    support.bundle(world.path / "other", ["true"])
    killer = fail("move_mount", 1, "signal=KILL") if how == "killed" else ()
    call(world, "prestart", *mount(world, "/a"), stdin=state(world), before=killer)
    asked = state(world) if how == "killed" else state(world, bundle=str(world.path / "other"))
    done = call(world, "prestart", "--dry-run", "--format=json", *mount(world, "/a"), stdin=asked)
    real = call(world, "prestart", *mount(world, "/a"), stdin=asked)
    assert done.returncode == real.returncode == (0 if how == "killed" else 74)
    if how == "killed":
        assert [bind["action"] for bind in json.loads(done.stdout)["mounts"]] == ["mount"]


def test_a_bundle_made_anew_is_the_same_bundle(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    rootfs = support.busybox_rootfs(world.path / "rootfs")
    support.bundle(world.path / "bundle", ["true"], rootfs=rootfs)
    assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
    shutil.move(world.path / "bundle", world.path / "away")
    support.bundle(world.path / "bundle", ["true"], rootfs=rootfs)
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert support.records(world.state) == []
    assert not os.path.exists(f"{rootfs}/a")
