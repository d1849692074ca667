# SPDX-License-Identifier: Apache-2.0
"""docker's user: one command with --apply and the reload that it names, and each container that asks gets its bind."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from engines.conftest import hook
from engines.daemons import IMAGE, Docker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ = "cat /models/word; touch /models/x"


@pytest.fixture
def wrapped(docker: Docker, source: Path) -> Iterator[Docker]:
    """docker after the one command that its user types, and the reload."""
    done = hook("install", "--runtime", "bind", "--apply", "--", "--mount", f"src={source},dst=/link,ro")
    assert done.returncode == 0, done
    assert "for docker to know it: systemctl reload docker" in done.stderr
    docker.reload()
    docker.await_runtime("bind")
    yield docker
    done = hook("uninstall", "--runtime", "bind", "--apply")
    assert done.returncode == 0, done
    docker.reload()


def test_a_container_gets_its_bind(wrapped: Docker) -> None:
    """Through the image's link, and read-only."""
    done = wrapped.start("--runtime=bind", IMAGE, "sh", "-c", READ)
    assert done.stdout == "hello from the host\n", done
    assert "touch: /models/x: Read-only file system" in done.stderr


def test_others_do_not(wrapped: Docker) -> None:
    done = wrapped.start(IMAGE, "ls", "/models")
    assert (done.returncode, done.stdout) == (0, ""), done


def test_restart_exec_stop_and_kill(wrapped: Docker) -> None:
    done = wrapped.call("run", "-d", "--network=none", "--name=c1", "--runtime=bind", IMAGE, "sleep", "1000")
    assert done.returncode == 0, done
    try:
        for act in (("restart", "-t", "0"), ("kill",), ("start",), ("stop", "-t", "0"), ("start",)):
            assert wrapped.call(*act, "c1").returncode == 0
            if act[0] in ("restart", "start"):
                done = wrapped.call("exec", "c1", "cat", "/models/word")
                assert done.stdout == "hello from the host\n", (act, done)
    finally:
        done = wrapped.call("rm", "-f", "c1")
    assert done.returncode == 0


def test_the_sentence_reaches_the_person(docker: Docker) -> None:
    done = hook("install", "--runtime", "bind", "--apply", "--", "--mount", "src=/absent/models,dst=/link,ro")
    assert "/absent/models is not there" in done.stderr
    docker.reload()
    docker.await_runtime("bind")
    done = docker.start("--runtime=bind", IMAGE, "true")
    assert done.returncode != 0
    assert re.search("oci-bind-hook: .*/absent/models.* No such file or directory", done.stderr), done
    assert hook("uninstall", "--runtime", "bind", "--apply").returncode == 0
    docker.reload()


class TestUserNamespace:
    """userns-remap: containers whose root is an ordinary user of the host."""

    @pytest.fixture(scope="class")
    def remapped(self) -> Iterator[Docker]:
        with Docker("--userns-remap=default") as daemon:
            yield daemon

    @pytest.fixture(autouse=True)
    def others_may_read(self, source: Path) -> None:
        source.chmod(0o755)

    def install(self, docker: Docker, source: Path, *words: str) -> None:
        bind = ("--", "--mount", f"src={source},dst=/link,ro")
        done = hook("install", "--runtime", "bind", "--apply", *words, *bind)
        assert done.returncode == 0, done
        docker.reload()
        docker.await_runtime("bind")

    def test_a_container_gets_its_bind(self, remapped: Docker, source: Path) -> None:
        self.install(remapped, source)
        done = remapped.start("--runtime=bind", IMAGE, "sh", "-c", READ)
        assert done.stdout == "hello from the host\n", done
        assert "Read-only file system" in done.stderr

    def test_at_createContainer_it_is_said_where_it_works(self, remapped: Docker, source: Path) -> None:
        """A folder of docker's above the rootfs is closed to the user namespace."""
        self.install(remapped, source, "--stages", "createContainer,poststop")
        done = remapped.start("--runtime=bind", IMAGE, "true")
        assert done.returncode != 0
        assert "is unknown in this user namespace: register for createRuntime, outside of it" in done.stderr, done
