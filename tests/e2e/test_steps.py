# SPDX-License-Identifier: Apache-2.0
"""The log of a run: each step with id, stage and time, in lines that a reader of runc's log can read."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.world import call, fail, mount, state

if TYPE_CHECKING:
    from helpers.world import World

SET_UP = [
    *("state read", "opening the bundle {0}/bundle and its rootfs", "config.json validated"),
    *("--mount 1: opening {0}/source", "sources opened", "id locked"),
    *("opening the rootfs {0}/bundle/rootfs", "rootfs locked"),
    "in the container's mount namespace, entered",
    *("destinations resolved", "plan recorded", "mount points created", "binds attached"),
]
TEAR_DOWN = ["state read", "id locked", "rootfs locked"]


def lines(world: World) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (world.path / "log").read_text().splitlines()]
    for each in found:
        assert list(each) == ["level", "msg", "time", "id", "stage", "ms"]
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", each["time"])
        assert each["level"] in ("debug", "info", "warning", "error")
        assert (each["id"], type(each["ms"])) == ("c1", float)
    return found


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_every_step_is_logged(world: World, runtime: str, stage: str) -> None:
    log = ["--log", str(world.path / "log"), "--log-format", "json"]
    bundle = world.bundle("true", stage, *mount(world, "/a/b"), *log)
    assert support.run_container(runtime, bundle, "c1").returncode == 0
    found = lines(world)
    by_stage = {name: [each for each in found if each["stage"] == name] for name in (stage, "poststop")}
    assert [each for name in by_stage for each in by_stage[name]] == found
    steps = {name: [each["msg"] for each in by_stage[name] if each["level"] == "debug"] for name in by_stage}
    is_entered = ", entered" if stage == "createRuntime" else ""
    expected = [step.format(world.path).replace(", entered", is_entered) for step in SET_UP]
    assert steps == {stage: [*expected, "done"], "poststop": [*TEAR_DOWN, "done"]}
    told = [each["msg"] for each in found if each["level"] == "info"]
    assert told[0].startswith(f"--mount 1: bound {world.source} on /a/b ")
    assert told[1:] == ["undone, unless already gone (binds: 1, created mount points: 2)"]
    for each in by_stage.values():
        times = [step["ms"] for step in each]
        assert times == sorted(times)
        # A container waits for us: what is told cannot be longer than the test may take.
        assert 1 < times[0] < 1000 * support.TIMEOUT


@pytest.mark.kernel(5, 12)
def test_a_failure_is_logged_with_the_way_back(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    log = ["--log", str(world.path / "log"), "--log-format", "json"]
    before = fail("move_mount", 2)
    done = call(world, "prestart", *mount(world, "/a", "/b"), *log, stdin=state(world), before=before)
    assert done.returncode == 71
    assert [(each["level"], each["msg"]) for each in lines(world)][-2:] == [
        ("debug", "rolled back"),
        ("error", done.stderr.removeprefix("oci-bind-hook: c1 prestart: ").rstrip("\n")),
    ]


def test_debug_tells_the_same_on_stderr(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    log = ["--log", str(world.path / "log"), "--log-format", "json"]
    done = call(world, "prestart", *mount(world, "/a"), *log, "--debug", stdin=state(world))
    assert done.returncode == 0
    told = [re.fullmatch(r"oci-bind-hook: c1 prestart \d+\.\d ms: (.*)", line) for line in done.stderr.splitlines()]
    assert [match and match[1] for match in told] == [each["msg"] for each in lines(world)]


@pytest.mark.parametrize("log", ["absent/log", "state", "full", "fifo"])
def test_a_log_that_cannot_be_written_stops_nobody(world: World, log: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    if log == "full":
        (world.path / log).symlink_to("/dev/full")
    elif log == "fifo":
        os.mkfifo(world.path / log)
    words = ["--log", str(world.path / log)]
    done = call(world, "prestart", *mount(world, "/a"), *words, stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")
    done = call(world, "poststop", *words, "--debug", stdin=state(world, status="stopped"))
    assert done.returncode == 0
    assert done.stderr.count(f"warning: the log {world.path / log} cannot be written: ") == 1
    assert world.snapshot() == before
