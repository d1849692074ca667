# SPDX-License-Identifier: Apache-2.0
"""An upgrade while a container runs: what an earlier version wrote down is undone by this one's poststop."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.world import Container, call, mount, state
from oci_bind_hook.documents import oci
from oci_bind_hook.record import document

if TYPE_CHECKING:
    from helpers.world import World

WRITTEN = Path(__file__).resolve().parents[1] / "data/state-files"
OLDEST = min(WRITTEN.iterdir(), key=lambda path: int(path.stem))
INIT = {"pid": 1, "start": 1, "first": 1}  # as that version had it, which the file beside does not show
DESTINATIONS = ("/a/b", "/tmp/c")


def in_version_1(record: dict[str, Any]) -> dict[str, Any]:
    """The record of a container that runs now as version 1 has it.

    Each member is one that the file of version 1 beside has, with the same members in it.
    """
    old = json.loads(OLDEST.read_bytes())

    def like(example: Any, now: Any) -> Any:
        if isinstance(now, dict):
            return {name: like(example[name], now[name]) for name in example}
        if isinstance(now, list):
            return [like(example[0], each) for each in now]
        return now

    for mount_now in record["mounts"]:
        mount_now["origin"] = mount_now["by"]
        for attached in mount_now["attached"]:
            attached |= {name: ascii(attached[name]) for name in ("root", "source", "type")}
    found: dict[str, Any] = like({**old, "init": INIT}, {**record, "version": 1})
    assert oci.violations(found, "state-file-1") == []
    return found


def downgrade(world: World, container: str) -> None:
    """Replaces the state file, and all that version 1 did not have beside it."""
    path = world.state / f"{container}.json"
    record: Any = document.read(path.read_bytes(), str(path))
    path.write_text(json.dumps(in_version_1(record)))
    for name in os.listdir(world.state / "rootfs"):
        os.unlink(world.state / "rootfs" / name)
    (world.state / "rootfs").rmdir()


def test_the_oldest_version_that_is_read_is_tried() -> None:
    assert OLDEST.stem == "1"


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_poststop_of_this_version_undoes_a_container_that_an_earlier_one_has_set_up(runtime: str, world: World) -> None:
    before = world.snapshot()
    bundle = world.bundle("sleep 1000", "createRuntime", *mount(world, *DESTINATIONS))
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        assert namespace.start("c1").returncode == 0
        downgrade(world, "c1")
        shown = json.loads(call(world, "show", "c1", "--format", "json", stdin="").stdout)
        [entry] = shown["records"]
        assert (entry["status"], [each["state"] for each in entry["mounts"]]) == ("alive", ["mounted", "mounted"])
        # Another one on the same rootfs, set up by this version, and gone before.
        other = Container(world, "c2")
        other.set_up("/a/b", "/d")
        other.end()
        other.tear_down()
        assert namespace.execute("c1", "cat", "/a/b/word").stdout == "hello from the host\n"
        assert namespace.stop("c1").returncode == 0
    assert {**world.snapshot(), "rootfs": 0} == {**before, "rootfs": 0}
    assert {"a", "d", "tmp/c"}.isdisjoint(support.tree(world.rootfs))
    assert support.records(world.state) == []


def test_it_is_undone_on_the_host_and_taken_over_by_a_second_call_too(world: World) -> None:
    """Without a mount namespace of its own: what is left would stay mounted."""
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    for second in (False, True):
        done = call(world, "prestart", *mount(world, *DESTINATIONS), stdin=state(world))
        assert (done.returncode, done.stderr) == (0, "")
        downgrade(world, "c1")
        if second:
            done = call(world, "prestart", *mount(world, *DESTINATIONS, "/new"), stdin=state(world))
            assert (done.returncode, done.stderr) == (0, "")
            assert json.loads((world.state / "c1.json").read_bytes())["version"] == 2
        done = call(world, "poststop", stdin=state(world, status="stopped"))
        assert (done.returncode, done.stderr) == (0, "")
        assert world.snapshot() == before
