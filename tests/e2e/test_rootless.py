# SPDX-License-Identifier: Apache-2.0
"""Runtimes that an ordinary user starts: createContainer does all, and other stages name it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.world import World, call, fail, hands_over, mount, state
from oci_bind_hook.commands.engines.launcher import import_folders

if TYPE_CHECKING:
    from collections.abc import Sequence

UID = 1000
FOLDER = Path(f"/run/user/{UID}")
RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)
SLEEP = "echo ready > /data/ready; exec sleep 1000"


class Rootless(World):
    """A world in which all belongs to an ordinary user, and the state folder is found by the hook itself."""

    def __init__(self, path: Path, launcher: str) -> None:
        mounting.tmpfs("/run", "mode=755")
        mounting.show(str(path), sys.base_prefix, *import_folders(), str(Path(launcher).parents[3]))
        super().__init__(path, launcher)
        self.state.rmdir()
        FOLDER.mkdir(parents=True)
        self.state = FOLDER / "oci-bind-hook"
        self.env = ["PATH=/usr/bin:/bin"]
        path.chmod(0o755)
        give(path)
        give(FOLDER)
        FOLDER.chmod(0o700)

    def root_option(self) -> list[str]:
        return []

    def hook(self, *arguments: str, env: Sequence[str] = ()) -> dict[str, Any]:
        return super().hook(*arguments, env=[*self.env, *env])

    def bundle(self, script: str, stage: str, *arguments: str, named: bool = True, **members: Any) -> str:
        ids = [{"containerID": 0, "hostID": UID, "size": 1}]
        members.setdefault("linux", {"cgroupsPath": None, "uidMappings": ids, "gidMappings": ids})
        members.setdefault("namespaces", (*support.NAMESPACES, "user"))
        return super().bundle(script, stage, *arguments, named=named, **members)

    def record(self, container: str = "c1") -> dict[str, Any]:
        document = json.loads((self.state / f"{container}.json").read_text())
        assert isinstance(document, dict)
        return document


def give(path: Path) -> None:
    """All of it belongs to the user."""
    for name in (path, *path.rglob("*")):
        os.chown(name, UID, UID, follow_symlinks=False)


@pytest.fixture
def world(tmp_path: Path, launcher: str) -> Rootless:
    return Rootless(tmp_path, launcher)


def run(runtime: str, bundle: str) -> tuple[int, str, str]:
    with support.RuntimeNamespace(runtime, UID) as namespace:
        done = namespace.run_container(bundle, "c1")
    return done.returncode, done.stdout, done.stderr


# -- createContainer ---------------------------------------------------------------------------------------------------

SCRIPT = """
cat /real/through/absolute/word /absent/place/word /dev/inside/word /etc/one-file
stat -c %u:%g /real/through /absent /dev/inside/word
touch /real/through/absolute/new 2>/dev/null && echo writable
touch /absent/place/new 2>/dev/null && echo written
cat /config/word
exit 0
"""


@RUNTIMES
@pytest.mark.parametrize("named", [True, False], ids=["named", "told-from-state"])
@pytest.mark.parametrize("readonly", [False, True], ids=["writable-root", "readonly-root"])
def test_container_gets_its_binds_and_leaves_nothing(
    world: Rootless, runtime: str, *, readonly: bool, named: bool
) -> None:
    bundle = world.bundle(
        SCRIPT,
        "createContainer",
        *("--mount", f"src={world.source},dst=/absolute/through/absolute,ro"),
        *("--mount", f"src={world.source},dst=/dangling"),
        *("--mount", f"src={world.source},dst=/dev/inside"),
        *("--mount", f"src={world.file},dst=/etc/one-file"),
        named=named,
        readonly=readonly,
        mounts=[support.bind(world.source, "/config")],
    )
    os.makedirs(f"{world.rootfs}/config")
    os.chown(f"{world.rootfs}/config", UID, UID)
    before = world.snapshot()
    code, out, err = run(runtime, bundle)
    assert (code, err) == (0, "")
    greeting = "hello from the host"
    assert out.splitlines() == [*[greeting] * 3, "one file", *["0:0"] * 3, "written", greeting]
    made = (world.source / "new").stat()
    assert (made.st_uid, made.st_gid) == (UID, UID)
    (world.source / "new").unlink()
    assert world.snapshot() == before


@RUNTIMES
def test_poststop_leaves_a_container_alone_that_still_runs(world: Rootless, runtime: str) -> None:
    bundle = world.bundle(SLEEP, "createContainer", *mount(world, "/data", "/new/place", "/dangling"))
    with support.RuntimeNamespace(runtime, UID) as namespace:
        assert namespace.create(bundle, "c1").stderr == ""
        record = world.record()
        user = support.as_user(UID)
        answer = call(world, "poststop", stdin=state(world, status="stopped"), before=(*user, "env", "-i", *world.env))
        assert (answer.returncode, world.record()) == (0, record)
        assert namespace.start("c1").returncode == 0
        assert namespace.execute("c1", "cat", "/new/place/word").stdout == "hello from the host\n"
        assert namespace.stop("c1").returncode == 0


@RUNTIMES
@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("xdg", ["", "XDG_RUNTIME_DIR=/run/elsewhere", "XDG_RUNTIME_DIR=not/absolute"])
def test_delete_undoes_what_is_recorded_for_the_user(world: Rootless, runtime: str, xdg: str) -> None:
    if xdg:
        world.env.append(xdg)
    if xdg.endswith("elsewhere"):
        elsewhere = Path("/run/elsewhere")
        elsewhere.mkdir(0o700)
        give(elsewhere)
        world.state = elsewhere / "oci-bind-hook"
    bundle = world.bundle(SLEEP, "createContainer", *mount(world, "/data", "/new/place", "/dangling"))
    before = world.snapshot()
    with support.RuntimeNamespace(runtime, UID) as namespace:
        assert namespace.create(bundle, "c1").stderr == ""
        assert namespace.start("c1").returncode == 0
        assert namespace.execute("c1", "cat", "/new/place/word").stdout == "hello from the host\n"
        status = world.state.stat()
        assert (status.st_uid, status.st_mode & 0o7777) == (UID, 0o700)
        record = world.record()
        assert support.made_paths(record) == ["/new", "/new/place", "/absent", "/absent/place"]
        assert {(each["identity"]["uid"], each["identity"]["gid"]) for each in record["made"]} == {(UID, UID)}
        done = namespace.stop("c1")
        assert (done.returncode, done.stderr) == (0, "")
    (world.source / "ready").unlink()
    assert world.snapshot() == before


@RUNTIMES
@pytest.mark.parametrize("own", [True, False], ids=["env", "no env"])
def test_with_an_env_of_its_own_the_image_does_not_choose_the_state_folder(
    world: Rootless, runtime: str, own: bool
) -> None:
    elsewhere = Path("/run/elsewhere")
    elsewhere.mkdir(0o700)
    give(elsewhere)
    env = [f"PATH={support.PATH}", f"XDG_RUNTIME_DIR={elsewhere}"]
    bundle = world.bundle("true", "createContainer", *mount(world, "/new/place"), env=env)
    config = json.loads(Path(bundle, "config.json").read_text())
    if not own:
        del config["hooks"]["createContainer"][0]["env"]
    Path(bundle, "config.json").write_text(json.dumps(config))
    before = world.snapshot()
    code, _, err = run(runtime, bundle)
    assert (code, err) == (0, "")
    if own or not hands_over(runtime):
        assert (os.listdir(elsewhere), world.snapshot()) == ([], before)
    else:
        assert (elsewhere / "oci-bind-hook" / "c1.json").exists()


@RUNTIMES
def test_a_failed_set_up_undoes_itself(world: Rootless, runtime: str) -> None:
    bundle = world.bundle("echo started", "createContainer", *mount(world, "/new/a", "/new/b"))
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    [hook] = config["hooks"]["createContainer"]
    hook["args"] = [*fail("move_mount", 2), hook["path"], *hook["args"][1:]]
    hook["path"] = "/usr/bin/strace"
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    before = world.snapshot()
    code, out, err = run(runtime, bundle)
    assert (code != 0, out) == (True, "")
    assert "Input/output error" in err or runtime == "crun"
    assert world.snapshot() == before


@RUNTIMES
def test_what_was_not_torn_down_is_undone_by_the_next(world: Rootless, runtime: str) -> None:
    bundle = world.bundle("true", "createContainer", *mount(world, "/first/place"))
    before = world.snapshot()
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    del config["hooks"]["poststop"]
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    assert run(runtime, bundle) == (0, "", "")
    assert os.path.isdir(f"{world.rootfs}/first/place")
    bundle = world.bundle("ls -d /first", "createContainer", *mount(world, "/second"))
    code, out, _ = run(runtime, bundle)
    assert (code, out) == (1, "")
    assert world.snapshot() == before


def test_from_inside_of_podmans_user_namespace_the_command_outside_is_named(world: Rootless) -> None:
    """It named podman unshare, in which it ran, and would never have ended."""
    before = world.snapshot()
    bundle = world.bundle("true", "createContainer", *mount(world, "/first/place"))
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    del config["hooks"]["poststop"]
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    assert run("crun", bundle) == (0, "", "")
    user = (*support.as_user(UID), "env", "-i", *world.env)
    for command in (["gc"], ["list"]):
        done = call(world, *command, stdin="", before=(*user, "unshare", "--map-root-user"))
        assert done.returncode == (71 if command == ["gc"] else 0), done
        assert f"run oci-bind-hook gc --root {world.state} outside of podman unshare" in done.stdout
    done = call(world, "gc", stdin="", before=user)
    assert (done.returncode, "undone" in done.stdout) == (0, True), done
    assert world.snapshot() == before


@RUNTIMES
def test_neighbours_on_one_rootfs_hand_over(world: Rootless, runtime: str) -> None:
    before = world.snapshot()
    bundle = world.bundle(SLEEP, "createContainer", *mount(world, "/data", "/new/place"))
    with support.RuntimeNamespace(runtime, UID) as namespace:
        for container in ("c1", "c2"):
            assert namespace.create(bundle, container).stderr == ""
            assert namespace.start(container).returncode == 0
        namespace.stop("c1")
        assert namespace.execute("c2", "cat", "/new/place/word").stdout == "hello from the host\n"
        namespace.stop("c2")
    (world.source / "ready").unlink()
    assert world.snapshot() == before


@RUNTIMES
def test_without_a_state_folder_mount_points_must_be_there(world: Rootless, runtime: str) -> None:
    FOLDER.rmdir()
    log = world.path / "log"
    before = world.snapshot()
    words = (*mount(world, "/data"), "--log", str(log))
    code, out, err = run(runtime, world.bundle("cat /data/word", "createContainer", *words))
    assert (code, out, err) == (0, "hello from the host\n", "")
    code, out, err = run(runtime, world.bundle("cat /data/word", "createContainer", *words, *mount(world, "/new")))
    assert (code != 0, out) == (True, "")
    assert (
        f"mount points are missing, and the state folder {world.state} cannot be created: {FOLDER} does not exist"
        " (create them in the image, pass --root a writable folder, or register the hook for createRuntime if root"
        " starts the runtime)"
    ) in log.read_text()
    log.unlink()
    # And that folder may be anywhere.
    own = world.path / "own"
    own.mkdir(0o700)
    give(own)
    words = (*mount(world, "/new"), "--root", str(own))
    assert run(runtime, world.bundle("cat /new/word", "createContainer", *words)) == (0, "hello from the host\n", "")
    own.rmdir()
    assert world.snapshot() == before


# -- what only another stage could do ----------------------------------------------------------------------------------


def refused(world: Rootless, runtime: str, stage: str, *arguments: str, **members: Any) -> str:
    """What the hook says that keeps a container from starting, by its log: crun throws its stderr away."""
    log = world.path / "log"
    bundle = world.bundle("echo started", stage, *arguments, "--log", str(log), **members)
    before = world.snapshot()
    code, out, err = run(runtime, bundle)
    assert (code != 0, out) == (True, "")
    lines = log.read_text().splitlines()
    log.unlink()
    assert world.snapshot() == before
    [line] = [line for line in lines if line.startswith('level="error"')]
    message = line.partition(' msg="')[2].partition('" time="')[0]
    if runtime == "runc":
        assert message in err
        assert "exit status 69" in err or "rbind" in message
    return message


@RUNTIMES
@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
@pytest.mark.parametrize("named", [True, False])
def test_a_stage_outside_names_the_one_inside(world: Rootless, runtime: str, stage: str, *, named: bool) -> None:
    line = refused(world, runtime, stage, *mount(world, "/data"), named=named)
    assert line == (
        f"--mount 1: {world.source} cannot be bound without CAP_SYS_ADMIN (rootless, register the hook "
        "for createContainer)"
    )


@RUNTIMES
def test_binds_of_the_runtime_alone_start_at_any_stage(world: Rootless, runtime: str) -> None:
    """There is nothing to do, so nothing is entered."""
    bundle = world.bundle("cat /data/word", "createRuntime", mounts=[support.bind(world.source, "/data")])
    assert run(runtime, bundle) == (0, "hello from the host\n", "")


def test_by_hand_nothing_can_be_mounted(world: Rootless) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    done = call(world, "prestart", *mount(world, "/data"), stdin=state(world), before=support.as_user(UID))
    assert done.returncode == 69
    assert done.stderr == (
        f"oci-bind-hook: c1 prestart: --mount 1: {world.source} cannot be bound without CAP_SYS_ADMIN"
        " (rootless, register the hook for createContainer)\n"
    )
    assert world.snapshot() == before


def test_without_a_runtime_folder_run_and_dry_run_say_what_creates_it(world: Rootless) -> None:
    """As under su(1) and cron(8), in a user namespace as rootless podman's."""
    members: dict[str, Any] = {"namespaces": support.NAMESPACES, "linux": {}}
    members["annotations"] = {"io.container.manager": "libpod"}
    bundle = world.bundle("true", "createRuntime", *mount(world, "/data"), **members)
    give(world.path)
    FOLDER.rmdir()
    user = support.as_user(UID)
    before = (*user, "unshare", "--user", "--mount", "--map-root-user")
    done = call(world, "prestart", *mount(world, "/data"), stdin=state(world), before=before)
    problem = f"the state folder {world.state} cannot be created: {FOLDER} does not exist"
    hint = (
        f"create the folder {FOLDER}, owned by this user, as `loginctl enable-linger {UID}` does, or choose another"
        " state folder by --root or by XDG_RUNTIME_DIR in the hook's env"
    )
    assert (done.returncode, done.stderr) == (74, f"oci-bind-hook: c1 prestart: {problem} ({hint})\n")
    done = call(world, "explain", bundle, "--format", "json", stdin="", before=user)
    document = json.loads(done.stdout)
    found = [{"where": "", "message": problem, "hint": hint, "exit": 74}]
    assert (done.returncode, document["problems"]) == (74, found)
    FOLDER.mkdir(0o700)
    give(FOLDER)
    assert call(world, "explain", bundle, stdin="", before=user).returncode == 0


@RUNTIMES
@pytest.mark.parametrize("option", ["idmap", f"ridmap=uids=0-{UID}-1;gids=0-{UID}-1", "idmap=uids=5-0-1;gids=5-0-1"])
def test_an_id_map_names_another_stage(world: Rootless, runtime: str, option: str) -> None:
    line = refused(world, runtime, "createContainer", "--mount", f"src={world.source},dst=/data,{option}")
    assert line == (
        "--mount 1: ids cannot be mapped inside a user namespace"
        " (register the hook for createRuntime, with a runtime that root starts)"
    )


@RUNTIMES
def test_a_source_with_locked_mounts_below_needs_rbind(world: Rootless, runtime: str) -> None:
    mounting.tmpfs(f"{world.source}/sub")
    line = refused(
        world, runtime, "createContainer", "--mount", f"src={world.source},dst=/data,bind-recursive=disabled"
    )
    assert line == (
        f"--mount 1: open_tree {world.source}: Invalid argument"
        " (it is unbindable, or it has locked mounts below it, which require rbind)"
    )
    bundle = world.bundle("cat /data/word", "createContainer", "--mount", f"src={world.source},dst=/data")
    assert run(runtime, bundle) == (0, "hello from the host\n", "")


# -- an engine that makes a user namespace for itself ------------------------------------------------------------------


@RUNTIMES
@pytest.mark.parametrize("nested", [False, True], ids=["plain", "nested"])
@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])
def test_where_the_runtime_is_root_in_a_user_namespace(world: Rootless, runtime: str, stage: str, nested: bool) -> None:
    """As under rootless podman: poststop is called there too, and sees the same numbers as the other stages."""
    ids = [{"containerID": 0, "hostID": 0, "size": 1}] if nested else None
    options = []
    if nested and stage == "createContainer":
        # Two user namespaces deep nobody can tell who they are on the machine.
        own = world.path / "own"
        own.mkdir(0o700)
        give(own)
        options = ["--root", str(own)]
    bundle = world.bundle(
        "cat /new/place/word",
        stage,
        *mount(world, "/new/place"),
        *options,
        namespaces=(*support.NAMESPACES, *(["user"] if nested else [])),
        linux={"cgroupsPath": None, "uidMappings": ids, "gidMappings": ids},
    )
    before = world.snapshot()
    with support.RuntimeNamespace(runtime, UID) as namespace:
        engine = (*support.as_user(UID), "unshare", "--map-root-user", "--mount")
        done = namespace.run(*engine, runtime, "--root", namespace.root, "run", "--bundle", bundle, "c1")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello from the host\n", "")
    if options:
        assert os.listdir(world.path / "own") == []
    else:
        assert world.state.stat().st_uid == UID
    assert world.snapshot() == before


@pytest.mark.parametrize(("stage", "code"), [("createRuntime", 69), ("createContainer", 0)])
def test_where_config_maps_no_ids_a_dry_run_is_of_its_caller(world: Rootless, stage: str, code: int) -> None:
    """As `crun spec --rootless` writes it: crun itself maps root to its caller."""
    bundle = world.bundle("true", stage, *mount(world, "/data"))
    config = json.loads(Path(bundle, "config.json").read_text())
    del config["linux"]["uidMappings"], config["linux"]["gidMappings"]
    Path(bundle, "config.json").write_text(json.dumps(config))
    user = (*support.as_user(UID), "env", "-i", *world.env)
    done = call(world, "explain", bundle, stdin="", before=user)
    assert done.returncode == code, done
