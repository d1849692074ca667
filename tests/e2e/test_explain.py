# SPDX-License-Identifier: Apache-2.0
"""explain finds containers of real runtimes by id, and plans all calls that a real runtime makes."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.fuse import Fuse
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.world import World


def explain(world: World, *words: str) -> tuple[int, Any, str]:
    """The exit code, the report if there is one, and what is said besides."""
    command = [world.launcher, "explain", *words, "--format=json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=support.TIMEOUT)
    report = json.loads(done.stdout) if done.stdout else None
    assert report is None or oci.violations(report, "plan") == []
    return done.returncode, report, done.stderr


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_containers_of_a_runtime(world: World, runtime: str) -> None:
    words = ["--mount", f"src={world.source},dst=/etc/new", "--mount", f"src={world.file},dst=/etc/file"]
    bundle = world.bundle("exec sleep 1000", "createRuntime", *words)
    link = str(world.path / "link")
    os.symlink("bundle", link)
    other = support.bundle(world.path / "other", ["/bin/sh", "-c", "exec sleep 1000"], rootfs=world.rootfs)
    mounting.tmpfs("/run")
    with support.RuntimeNamespace(runtime) as namespace:
        os.symlink(namespace.root, f"/run/{runtime}")
        assert namespace.create(link, "web-1").returncode == 0
        pid = namespace.state("web-1")["pid"]
        for word in ("web-1", "w", bundle, f"{link}/config.json"):
            code, report, said = explain(world, word)
            assert (code, said) == (0, ""), word
            running = {"id": "web-1", "pid": pid, "recorded": True, "visible": True}
            shown = [(mount["now"], mount["hides"]) for mount in report["mounts"]]
            # The file at /etc/file is not the image's: the hook created it.
            assert (report["running"], shown) == (running, [(True, []), (True, [])]), word
            assert (report["id"], report["options"]) == (
                None if "/" in word else "web-1",
                "config.json: /hooks/createRuntime/0",
            )
        # One that has no record: what its runtime knows is enough.
        assert namespace.create(other, "web-2").returncode == 0
        code, report, _ = explain(world, "web-2", *words, "--mount=src=/,dst=/dev", *world.root_option())
        told = [(mount["resolved"], mount["now"], mount["hides"]) for mount in report["mounts"]]
        assert (code, report["running"]["recorded"]) == (0, False)
        own = {"path": "/dev", "what": "mount", "origin": "config.json#/mounts/1"}
        assert told == [("/etc/new", False, []), ("/etc/file", False, []), ("/dev", True, [own])]
        code, report, said = explain(world, "web-")
        assert (code, report) == (64, None)
        assert "the name matches 2 containers" in said
        assert bundle in said.replace(link, bundle)
        assert other in said
        # What poststop would undo is known by the record, wherever that is.
        code, report, _ = explain(world, "web-1", "poststop", *world.root_option())
        assert (code, report["stage"], report["mounts"], report["remove"]) == (0, "poststop", [], [])
        gc = f"oci-bind-hook gc --root {world.state}"
        assert report["warnings"] == [
            f"the container's first process still runs: nothing is undone; run {gc} after it ends"
        ]
        namespace.stop("web-1")
        namespace.stop("web-2")
        code, report, said = explain(world, "web-1")
        assert (code, report) == (66, None)
        assert 'the container "web-1" is not known' in said


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_record_of_an_earlier_start_is_named(world: World, runtime: str) -> None:
    bundle = world.bundle("exec sleep 1000", "createRuntime", "--mount", f"src={world.source},dst=/new/a")
    mounting.tmpfs("/run")
    with support.RuntimeNamespace(runtime) as namespace:
        os.symlink(namespace.root, f"/run/{runtime}")
        assert namespace.create(bundle, "web").returncode == 0
        assert explain(world, "web")[1]["warnings"] == []
        namespace.kill("web")
        while namespace.state("web")["status"] != "stopped":
            os.sched_yield()
        gc = f"run oci-bind-hook gc --root {world.state}"
        said = "the record of an earlier start of web is left (1 bind, 2 mount points): the next start undoes it first"
        then = "until then, its mount points exist, and are not listed among those to create"
        for word in ("web", bundle):
            code, report, _ = explain(world, word)
            assert (code, report["running"]) == (0, None)
            assert report["warnings"] == [f"{said}; to undo it now, {gc}; {then}"]
        # Another bundle, or another id, has nothing to do with that record.
        other = support.bundle(world.path / "other", ["true"], rootfs=world.rootfs)
        assert explain(world, other, "--root", str(world.state))[1]["warnings"] == []
        subprocess.run([world.launcher, "gc", *world.root_option()], check=True, capture_output=True)
        assert explain(world, "web")[1]["warnings"] == []
        namespace.delete("web", "--force")


def test_a_record_is_enough(world: World) -> None:
    """By the state folder that a registration names, or the one that is given."""
    support.bundle(world.path / "bundle", ["true"], namespaces=["pid"])
    state = {"ociVersion": "1.0.2", "id": "by-hand", "status": "creating", "bundle": str(world.path / "bundle")}
    bind = f"--mount=src={world.source},dst=/a"
    command = [world.launcher, "prestart", bind, *world.root_option()]
    subprocess.run(command, input=json.dumps(state), text=True, check=True, timeout=support.TIMEOUT)
    assert explain(world, "by-hand")[0] == 66
    code, report, _ = explain(world, "by-ha", bind, "--mount=src=/,dst=/dev/shm", *world.root_option())
    assert (code, report["id"], report["bundle"]) == (0, "by-hand", state["bundle"])
    # The host's own /dev/shm is not the container's.
    told = [(mount["resolved"], mount["now"]) for mount in report["mounts"]]
    assert told == [("/a", True), ("/dev/shm", False)]
    code, report, _ = explain(world, "by-hand", "poststop", *world.root_option())
    assert (code, [mount["resolved"] for mount in report["mounts"]], report["remove"]) == (0, ["/a"], ["/a"])


def test_the_command_line_replaces_what_is_registered(world: World) -> None:
    world.bundle("true", "createRuntime", "--mount", f"src={world.source},dst=/a")
    told = "the command line requests binds, so those that config.json registers are left out"
    bundle = str(world.path / "bundle")
    for words, planned in (([], ["/a"]), ([f"--mount=src={world.source},dst=/b"], ["/b"])):
        code, report, _ = explain(world, bundle, *words)
        assert (code, [mount["resolved"] for mount in report["mounts"]]) == (0, planned)
        assert (told in report["notes"]) == bool(words)
    bind = f"--mount=src={world.source},dst=/b"
    assert told in explain(world, bundle, "createContainer", bind)[1]["notes"]
    world.bundle("true", "poststart", "--mount", f"src={world.source},dst=/a", named=False)
    assert told in explain(world, bundle, bind)[1]["notes"]
    world.bundle("true", "createRuntime")
    assert told not in explain(world, bundle, bind)[1]["notes"]


def test_what_is_allowed_in_addition_to_what_is_registered(world: World) -> None:
    mounting.mount("volume", str(world.source), "tmpfs")
    mounting.mount("none", str(world.source), None, 0x100000)  # MS_SHARED
    os.mkdir(world.source / "a")
    volume = {"destination": "/data", "type": "bind", "source": str(world.source), "options": ["rbind", "rshared"]}
    world.bundle("true", "createContainer", "--mount", f"src={world.path},dst=/data/a", mounts=[volume])
    assert explain(world, str(world.path / "bundle"))[0] == 77
    assert explain(world, str(world.path / "bundle"), "--allow-shared")[0] == 0


# Where the hook is registered at several stages, each call adds what is new.
CALLS = {
    "each its own": ({"createRuntime": ["/new/a"], "createContainer": ["/new/b"]}, 0, ["/new/a", "/new/b"]),
    "all three": (
        {"createContainer": ["/c"], "prestart": ["/a"], "createRuntime": ["/a", "/a/b"]},
        0,
        ["/a", "/a/b", "/c"],
    ),
    "the same at each": ({"prestart": ["/a"], "createRuntime": ["/a"], "createContainer": ["/a"]}, 0, ["/a"]),
    "the last fails": ({"createRuntime": ["/a"], "createContainer": ["/proc"]}, 77, ["/a"]),
    "the first fails": ({"prestart": ["/proc"], "createRuntime": ["/a"]}, 77, ["/a"]),
}


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_all_stages_are_planned_as_they_are_called(world: World, tmp_path: Path, runtime: str, case: str) -> None:
    stages, code, planned = CALLS[case]
    (world.source / "b").mkdir()
    log = str(tmp_path / "log")
    hooks = {
        stage: [
            world.hook(
                "--log", log, *(word for path in paths for word in ("--mount", f"src={world.source},dst={path}"))
            )
        ]
        for stage, paths in stages.items()
    }
    hooks["poststop"] = [world.hook()]
    show = "while read -r line; do set -- $line; echo $5; done < /proc/self/mountinfo"
    bundle = support.bundle(world.path / "bundle", ["/bin/sh", "-c", show], hooks=hooks)
    before = world.snapshot()
    exit_code, report, _ = explain(world, bundle)
    assert [mount["resolved"] for mount in report["mounts"] if mount["resolved"] != "/proc"] == planned
    done = support.run_container(runtime, bundle, "c1")
    assert (exit_code, done.returncode == 0) == (code, code == 0), done.stderr
    if code == 0:
        seen = [line for line in done.stdout.split() if line.startswith(("/a", "/new", "/c"))]
        assert seen == planned
    assert world.snapshot() == before
    # A stage that is named is looked at alone.
    for stage, paths in stages.items():
        found = explain(world, bundle, stage)[1]
        assert [mount["destination"] for mount in found["mounts"]] == paths


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("said", ["prestart", "createRuntime", "createContainer", "poststop"])
@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])
def test_a_stage_that_is_named_for_another(world: World, tmp_path: Path, runtime: str, stage: str, said: str) -> None:
    """Wherever among the arguments it stands: the first sentence is the real run's."""
    log = tmp_path / "log"
    words = ["--log", str(log), "--log-format=json", "--mount", f"src={world.source},dst=/a", said]
    hooks = {stage: [world.hook(*words)], "poststop": [world.hook()]}
    bundle = support.bundle(world.path / "bundle", ["true"], hooks=hooks)
    exit_code, report, _ = explain(world, bundle)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode == 0) == (exit_code == 0), done.stderr
    assert (f"args: the stage is {said}," in "".join(report["warnings"])) == (said != stage)
    if exit_code:
        assert exit_code == os.EX_UNAVAILABLE
        lines = [json.loads(line)["msg"] for line in log.read_text().splitlines()]
        # crun calls the state so.
        lines = [line.replace('"created"', '"creating"') for line in lines]
        assert [line for line in lines if line.startswith(report["problems"][0]["message"])]


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("said", ["", "createRuntime", "createContainer", "poststop"])
def test_a_hook_at_poststart(world: World, tmp_path: Path, runtime: str, said: str) -> None:
    """The container runs then: no call can bind in it. runc gives it up for that, and crun goes on."""
    log = tmp_path / "log"
    words = ["--mount", f"src={world.source},dst=/a", *filter(None, [said])]
    hooks = {
        "createRuntime": [world.hook(*words[:2])],
        "poststart": [world.hook(*words, "--log", str(log), "--log-format=json")],
        "poststop": [world.hook()],
    }
    bundle = support.bundle(world.path / "bundle", ["sleep", "0.1"], hooks=hooks)
    exit_code, report, _ = explain(world, bundle)
    done = support.run_container(runtime, bundle, "c1")
    assert (exit_code, done.returncode == 0) == (os.EX_UNAVAILABLE, runtime == "crun"), done.stderr
    [problem] = report["problems"]
    assert [mount["resolved"] for mount in report["mounts"]] == ["/a"]
    if runtime == "runc":
        lines = [json.loads(line)["msg"] for line in log.read_text().splitlines()]
        assert [line for line in lines if line.startswith(problem["message"])]


def test_a_hook_at_poststart_that_asks_for_nothing(world: World) -> None:
    hooks = {"poststart": [world.hook()], "poststop": [world.hook()]}
    bundle = support.bundle(world.path / "bundle", ["sleep", "0.1"], hooks=hooks)
    exit_code, report, _ = explain(world, bundle)
    done = support.run_container("runc", bundle, "c1")
    assert (exit_code, done.returncode) == (0, 0), done.stderr
    assert "at poststart the hook can neither mount nor unmount" in "".join(report["warnings"])


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_hook_at_start_container_is_looked_for_in_the_image(world: World, runtime: str) -> None:
    hooks = {"startContainer": [world.hook("--mount", f"src={world.source},dst=/a")]}
    bundle = support.bundle(world.path / "bundle", ["true"], hooks=hooks)
    exit_code, report, _ = explain(world, bundle)
    done = support.run_container(runtime, bundle, "c1")
    assert (exit_code, done.returncode == 0) == (os.EX_CANTCREAT, False), done.stderr
    assert [each["where"] for each in report["runtime"]] == ["config.json: /hooks/startContainer/0/path"]


def test_a_name_is_not_waited_for(world: World) -> None:
    """A bundle on a file system that does not answer, of which a runtime's folder tells."""
    with Fuse(f"{world.path}/mute") as fuse:
        folder = world.path / "run/crun/mute-1"
        folder.mkdir(parents=True)
        (folder / "status").write_text(json.dumps({"bundle": f"{fuse.path}/folder", "pid": 1, "process-start-time": 1}))
        script = f"mount --bind {world.path}/run /run && exec {world.launcher} explain mute-1"
        fuse.silence("LOOKUP")
        done = subprocess.run(
            ["unshare", "-m", "--propagation", "private", "sh", "-c", script],
            capture_output=True,
            text=True,
            timeout=support.TIMEOUT,
            check=False,
        )
    assert done.returncode == os.EX_UNAVAILABLE
    assert "a file system on the path of a bundle does not answer" in done.stderr
