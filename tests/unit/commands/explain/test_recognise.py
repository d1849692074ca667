# SPDX-License-Identifier: Apache-2.0
"""What paths and annotations are recognised as, by their names alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as some

from oci_bind_hook.commands.explain import recognise

POD = "/var/lib/kubelet/pods/7a-1"
SOURCES = {
    "/var/lib/docker/volumes/models/_data": 'Docker volume "models"',
    "/var/lib/docker/volumes/models/_data/sub": 'Docker volume "models"',
    "/home/a/.local/share/containers/storage/volumes/v/_data": 'podman volume "v"',
    "/srv/volumes/v/_data": None,
    "/var/lib/docker/volumes/v/other": None,
    f"{POD}/volumes/kubernetes.io~empty-dir/scratch": 'Kubernetes emptyDir "scratch" of the pod 7a-1',
    f"{POD}/volumes/kubernetes.io~empty-dir/scratch/deep": 'Kubernetes emptyDir "scratch" of the pod 7a-1',
    f"{POD}/volumes/kubernetes.io~configmap/c": 'Kubernetes configMap "c" of the pod 7a-1',
    f"{POD}/volumes/kubernetes.io~secret/s": 'Kubernetes secret "s" of the pod 7a-1',
    f"{POD}/volumes/kubernetes.io~projected/p": 'Kubernetes projected volume "p" of the pod 7a-1',
    f"{POD}/volumes/example.com~new/n": 'Kubernetes example.com~new "n" of the pod 7a-1',
    f"{POD}/volume-subpaths/v/main/0": 'Kubernetes subPath of "v", of the pod 7a-1',
    f"{POD}/etc-hosts": "Kubernetes hosts file of the pod 7a-1",
    f"{POD}/other": None,
    "/srv/pods/1/volumes/kubernetes.io~secret/s": None,
    "/dev/fuse": "host device",
    "/dev/dri/card0": "host device",
    "/dev": "the host's devices",
    "/": "the host's root",
    "/etc/passwd": "system path, /etc",
    "/usr/lib/x": "system path, /usr",
    "/var/run/x": "system path, /run",
    "/run/docker.sock": "socket of an engine: who may write there is root on the host",
    "/srv/models": None,
    "/var/lib/x": None,
}


@pytest.mark.parametrize("path", SOURCES)
def test_source(path: str) -> None:
    assert recognise.source(path) == SOURCES[path]


@given(some.lists(some.sampled_from(["", "pods", "kubelet", "volumes", "_data", "docker", "a", "dev"])).map("/".join))
def test_any_path_is_known_or_not(path: str) -> None:
    assert recognise.source(f"/{path}") != ""


def test_defaults_that_are_missing() -> None:
    assert recognise.missing_defaults([]) == ["/proc", "/sys", "/dev", "/dev/pts"]
    assert recognise.missing_defaults(["/proc", "/sys/", "dev", "/dev/pts"]) == []


def test_notes_on_annotations() -> None:
    annotations = {
        "dev.gvisor.spec.mount.data.type": "bind",
        "dev.gvisor.spec.mount.data.share": "pod",
        "dev.gvisor.spec.mount.a.b.source": "/x",
        "dev.gvisor.spec.mount.": "odd",
        "cdi.k8s.io/gpus": "vendor.com/gpu=0,vendor.com/gpu=1",
        "cdi.k8s.io": "no",
        "other": "x",
    }
    assert list(recognise.notes(annotations)) == [
        "CDI devices, cdi.k8s.io/gpus: vendor.com/gpu=0,vendor.com/gpu=1: the engine adds their mounts to config.json",
        'gVisor mount hint "": odd: runsc may keep that mount to its sandbox',
        'gVisor mount hint "a.b": source /x: runsc may keep that mount to its sandbox',
        'gVisor mount hint "data": share pod, type bind: runsc may keep that mount to its sandbox',
    ]
