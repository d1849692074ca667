# SPDX-License-Identifier: Apache-2.0
"""Two containers of root's podman at once, each with a user namespace that cannot access podman's storage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from engines.base import IMAGE, good

if TYPE_CHECKING:
    from collections.abc import Iterator

    from engines.base import Hook, Way
    from engines.podman import Podman

WAYS = ["podman crun hooks.d", "podman runc CDI"]
CONTAINERS = {"box": 100_000, "other": 300_000}


@pytest.fixture
def podman(way: Podman) -> Iterator[Podman]:
    for name, first in CONTAINERS.items():
        options = way.options(name, "models")
        good(*way.words, "run", "--detach", *options, f"--uidmap=0:{first}:65536", f"--gidmap=0:{first}:65536", IMAGE)
        assert way.execute(name, "cat", "/real/models/word").stdout == "models of the host\n"
    yield way
    way.remove("other")


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_own_user_namespaces(podman: Podman, hook: Hook) -> None:
    """The engine calls poststop where neither rootfs is at the path in config.json."""
    way: Way = podman
    for name in CONTAINERS:
        container = good(*podman.words, "inspect", "--format={{.ID}}", name)
        plan = json.loads(good(hook.launcher, "explain", container, "--format=json"))
        [bind] = [mount for mount in plan["mounts"] if mount["by"] == "hook" or mount["resolved"] == "/real/models"]
        assert (bind["create"], bind["now"], plan["problems"]) == ([], True, [])
        spec = ("--mount", f"src={hook.folder}/sources/more,dst=/new/more")
        good(hook.launcher, "attach", container, *spec, "--dry-run")
        good(hook.launcher, "attach", container, *spec)
        assert way.execute(name, "cat", "/new/more/word").stdout == "more of the host\n"
        good(hook.launcher, "detach", container, "/new/more")
    both = way.left()
    way.stop("box")
    left = way.left()
    assert 0 < len(left) < len(both)
    assert way.execute("other", "cat", "/real/models/word").stdout == "models of the host\n"
    way.again("box")
    assert way.execute("box", "cat", "/real/models/word").stdout == "models of the host\n"
    way.stop("other")
    way.stop("box")
    assert way.left() == []
