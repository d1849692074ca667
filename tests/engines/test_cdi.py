# SPDX-License-Identifier: Apache-2.0
"""CDI under the engines that have it on by themselves: docker from 28.2, containerd from 2. Nothing is configured."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import grpc
import pytest

from engines.conftest import hook
from engines.cri import Pod
from engines.daemons import IMAGE, Containerd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from engines.daemons import Docker

KIND = "oci-bind-hook.github.io/bind"
READ = ("sh", "-c", "cat /models/word /srv/more/word; touch /models/x")


@pytest.fixture(autouse=True)
def devices(source: Path) -> list[str]:
    """Two devices, each by one command."""
    for name, place in (("models", "/link"), ("more", "/srv/more")):
        done = hook("install", "--cdi", name, "--", "--mount", f"src={source},dst={place},ro")
        assert done.returncode == 0, done
    return [f"{KIND}={name}" for name in ("models", "more")]


@pytest.fixture(scope="module")
def containerd() -> Iterator[Containerd]:
    with Containerd() as daemon:
        yield daemon


def test_docker(docker: Docker, devices: list[str]) -> None:
    done = docker.start(*(f"--device={device}" for device in devices), IMAGE, *READ)
    assert done.stdout == "hello from the host\n" * 2, done
    assert "Read-only file system" in done.stderr
    assert docker.start(IMAGE, "ls", "/models").stdout == ""


def test_docker_restart_and_kill(docker: Docker, devices: list[str]) -> None:
    words = ("run", "-d", "--network=none", "--name=c1", f"--device={devices[0]}", IMAGE, "sleep", "1000")
    assert docker.call(*words).returncode == 0
    try:
        for act in (("restart", "-t", "0"), ("kill",), ("start",)):
            assert docker.call(*act, "c1").returncode == 0
            if act[0] != "kill":
                assert docker.call("exec", "c1", "cat", "/models/word").stdout == "hello from the host\n"
    finally:
        assert docker.call("rm", "-f", "c1").returncode == 0


def test_docker_shows_the_sentence(docker: Docker, devices: list[str], source: Path) -> None:
    shutil.move(source, "/srv/away")
    try:
        done = docker.start(f"--device={devices[0]}", IMAGE, "true")
    finally:
        shutil.move("/srv/away", source)
    assert done.returncode != 0
    assert f"{source} cannot be opened: No such file or directory" in done.stderr


def test_a_container_of_kubelet(containerd: Containerd, devices: list[str]) -> None:
    with Pod(containerd.cri, "cdi") as pod:
        container = pod.start("first", IMAGE, "sleep", "1000", devices=devices)
        assert pod.execute(container, "cat", "/models/word", "/srv/more/word")[0] == "hello from the host\n" * 2
        assert "Read-only file system" in pod.execute(container, "touch", "/models/x")[1]
        annotated = {"cdi.k8s.io/models": devices[0]}
        container = pod.start("second", IMAGE, "sleep", "1000", annotations=annotated)
        assert pod.execute(container, "cat", "/models/word")[0] == "hello from the host\n"


def test_an_annotation_of_a_pod_does_nothing(containerd: Containerd, devices: list[str]) -> None:
    with Pod(containerd.cri, "annotated", annotations={"cdi.k8s.io/models": devices[0]}) as pod:
        assert pod.execute(pod.start("first", IMAGE, "sleep", "1000"), "ls", "/models")[0] == ""


def test_a_second_device_that_fails_leaves_nothing(containerd: Containerd, devices: list[str], tmp_path: Path) -> None:
    done = hook("install", "--cdi", "broken", "--", "--mount", f"src={tmp_path}/absent,dst=/srv/broken")
    assert done.returncode == 0
    with Pod(containerd.cri, "broken") as pod:
        with pytest.raises(grpc.RpcError) as refused:
            pod.start("first", IMAGE, "sleep", "1000", devices=[devices[0], f"{KIND}=broken"])
        assert "oci-bind-hook: " in refused.value.details()


def test_ctr(containerd: Containerd, devices: list[str]) -> None:
    words = ("-n", "k8s.io", "run", "--rm", "--device", devices[0], IMAGE, "c1", "cat", "/models/word")
    done = containerd.call(*words)
    assert done.stdout == "hello from the host\n", done
