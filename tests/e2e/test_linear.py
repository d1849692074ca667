# SPDX-License-Identifier: Apache-2.0
"""What is done under the lock of a rootfs, while others wait for it, takes twice as long for twice as much."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, support
from helpers.world import Container, call, mount, state

if TYPE_CHECKING:
    from helpers.world import World


def count(world: World, what: str, *words: str, stdin: str, on: str = "") -> int:
    """How often a call of the hook makes one of the system calls ``what``, with ``on`` in its arguments."""
    told = world.path / "strace"
    strace = ("strace", "-f", "-qq", "-o", str(told), "-e", f"trace={what}")
    stage, *options = words
    done = call(world, stage, *options, stdin=stdin, before=strace)
    assert (done.returncode, done.stderr) == (0, "")
    return sum(on in line for line in told.read_text().splitlines())


def test_a_neighbour_that_takes_over_is_written_once(world: World) -> None:
    """A link in the image can lead two thousand folders deep: it was written, and synced, for each of them."""
    before = support.tree(world.rootfs)
    renames = []
    for depth in (3, 30):
        one, two = Container(world, "one"), Container(world, "two")
        for each in (one, two):
            each.set_up("/x" * depth)
        one.end()
        text = state(world, "one", status="stopped", bundle=str(one.bundle))
        renames.append(count(world, "rename,renameat,renameat2", "poststop", stdin=text))
        record = json.loads((world.state / "two.json").read_text())
        assert support.made_paths(record) == ["/x" * number for number in range(1, depth + 1)]
        assert two.mounted() == ["/x" * depth]
        two.end()
        two.tear_down()
    assert renames == [1, 1]
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])


@pytest.mark.parametrize("kernel_is", ["this", "before 6.8"])
def test_the_mount_table_is_read_as_often_however_much_a_killed_run_attached(world: World, kernel_is: str) -> None:
    """It has a line for each bind, and was read again for each of them."""
    kernels.play(kernel_is)
    before = support.tree(world.rootfs)
    opened = []
    for number in (2, 42):
        one = Container(world, "one")
        one.set_up(*(f"/{each}" for each in range(number)))
        path = world.state / "one.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "phase": "made"}, separators=(",", ":")))
        text = state(world, "one", bundle=str(one.bundle), pid=one.init.pid)
        opened.append(count(world, "openat", "createRuntime", *mount(world, "/again"), stdin=text, on='"mountinfo"'))
        assert len(one.mounted()) == number + 1
        one.end()
        one.tear_down()
    assert opened[0] == opened[1]
    assert (support.tree(world.rootfs), os.listdir(world.state)) == (before, [])
