# SPDX-License-Identifier: Apache-2.0
"""The life of a container under each engine, by each registration: the same tests for all.

The names of the tests are words of the table in docs/ENGINES.md.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from engines.base import call

if TYPE_CHECKING:
    from engines.base import Hook, Way
    from engines.docker import ByDocker


def started(way: Way, *binds: str) -> None:
    done = way.start("box", *binds)
    assert done.returncode == 0, done.stderr


def is_bound(way: Way) -> None:
    """The bind is where the link in the image leads, inside, and read-only."""
    done = way.execute("box", "cat", "/real/models/word")
    assert (done.returncode, done.stdout) == (0, "models of the host\n"), done.stderr
    done = way.execute("box", "touch", "/absolute/models/new")
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr
    assert way.left() != [], "what it looks for would never be found"


def test_bound(way: Way) -> None:
    started(way, "models")
    is_bound(way)
    way.stop("box")
    assert way.left() == []


def test_started_again(way: Way) -> None:
    started(way, "models")
    way.stop("box")
    assert way.left() == []
    way.again("box")
    is_bound(way)
    way.remove("box")
    assert way.left() == []


def test_killed(way: Way) -> None:
    started(way, "models")
    is_bound(way)
    way.kill("box")
    way.remove("box")
    assert way.left() == []


def test_two_binds(way: Way) -> None:
    started(way, "models", "more")
    is_bound(way)
    assert way.execute("box", "cat", "/new/more/word").stdout == "more of the host\n"
    way.stop("box")
    assert way.left() == []


def test_reports_a_missing_source(way: Way, hook: Hook) -> None:
    done = way.start("box", "gone")
    assert done.returncode != 0
    if way.runtime == "crun":
        assert "66" in done.stderr
    else:
        assert hook.gone() in done.stderr
    way.remove("box")
    assert way.left() == []


@pytest.mark.parametrize("way", ["remapped runc runtime"], indirect=True)
def test_asks_to_register_for_createRuntime(way: ByDocker) -> None:
    """At createContainer the hook is in the container's user namespace, and poststop is not."""
    done = way.start("box", "late")
    assert done.returncode != 0
    assert "register the hook for createRuntime" in done.stderr, done.stderr
    way.remove("box")
    assert way.left() == []


@pytest.mark.parametrize("way", ["docker runc runtime"], indirect=True)
def test_explained_by_name(way: ByDocker, hook: Hook) -> None:
    """By the socket that docker has unless it is told another, whatever the environment names."""
    socket = "/var/run/docker.sock"
    os.symlink(f"{way.docker.folder}/docker.sock", socket)
    elsewhere = {"DOCKER_HOST": "tcp://127.0.0.1:1", "DOCKER_CONTEXT": "nowhere"}
    try:
        started(way, "models")
        done = call(hook.launcher, "explain", "box", "--format=json", env=elsewhere)
        assert done.returncode == 0, (done.stdout, done.stderr)
        told = json.loads(done.stdout)
        assert "docker knows the container as box, status: running" in told["notes"]
        [bind] = [each for each in told["mounts"] if each["by"] == "hook" or each["resolved"] == "/real/models"]
        assert (bind["resolved"], bind["now"]) == ("/real/models", True)
        assert not [text for text in told["warnings"] if "poststop" in text]
        way.stop("box")
        done = call(hook.launcher, "explain", "box", env=elsewhere)
        assert done.returncode == 66, (done.stdout, done.stderr)
        assert "the container box (exited with" in done.stderr
    finally:
        os.unlink(socket)
