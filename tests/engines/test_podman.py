# SPDX-License-Identifier: Apache-2.0
"""podman's user: one command, by hooks.d for containers that match, or by CDI for those that ask."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from engines.conftest import hook
from engines.daemons import IMAGE, Podman

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

READ = ("sh", "-c", "cat /models/word; touch /models/x")


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with Podman() as engine:
        yield engine


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_hooks_d(podman: Podman, source: Path, runtime: str) -> None:
    bind = ("--", "--mount", f"src={source},dst=/link,ro")
    assert hook("install", "--prefix", "/usr", "--annotation", "org.example/models=yes", *bind).returncode == 0
    try:
        done = podman.start("--annotation=org.example/models=yes", IMAGE, *READ, runtime=runtime)
        assert done.stdout == "hello from the host\n", done
        assert "Read-only file system" in done.stderr
        assert podman.start(IMAGE, "ls", "/models", runtime=runtime).stdout == ""
    finally:
        assert hook("uninstall", "--prefix", "/usr").returncode == 0


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_two_cdi_devices(podman: Podman, source: Path, runtime: str) -> None:
    for name, place in (("models", "/link"), ("more", "/srv/more")):
        done = hook("install", "--cdi", name, "--", "--mount", f"src={source},dst={place},ro")
        assert done.returncode == 0, done
    devices = [f"--device=oci-bind-hook.github.io/bind={name}" for name in ("models", "more")]
    done = podman.start(*devices, IMAGE, "cat", "/models/word", "/srv/more/word", runtime=runtime)
    assert done.stdout == "hello from the host\n" * 2, done
    assert podman.start(IMAGE, "ls", "/models", runtime=runtime).stdout == ""


def test_restart_exec_and_kill(podman: Podman, source: Path) -> None:
    assert hook("install", "--cdi", "models", "--", "--mount", f"src={source},dst=/link,ro").returncode == 0
    device = "--device=oci-bind-hook.github.io/bind=models"
    assert podman.call("run", "-d", *podman.OPTIONS, "--name=c1", device, IMAGE, "sleep", "1000").returncode == 0
    try:
        for act in (("restart", "-t", "0"), ("kill",), ("start",), ("stop", "-t", "0"), ("start",)):
            assert podman.call(*act, "c1").returncode == 0
            if act[0] in ("restart", "start"):
                assert podman.call("exec", "c1", "cat", "/models/word").stdout == "hello from the host\n"
    finally:
        assert podman.call("rm", "-f", "-t", "0", "c1").returncode == 0


def test_the_sentence_reaches_the_person(podman: Podman, source: Path) -> None:
    assert hook("install", "--cdi", "models", "--", "--mount", f"src={source},dst=/link,ro").returncode == 0
    shutil.move(source, "/srv/away")
    try:
        done = podman.start("--device=oci-bind-hook.github.io/bind=models", IMAGE, "true", runtime="runc")
    finally:
        shutil.move("/srv/away", source)
    assert done.returncode != 0
    assert f"{source} cannot be opened: No such file or directory" in done.stderr
