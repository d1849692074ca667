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
    "/run/docker.sock": "socket of an engine: anyone who can write to it has the engine's rights on the host",
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
        'gVisor mount hint "": odd: runsc may keep that mount inside its sandbox',
        'gVisor mount hint "a.b": source /x: runsc may keep that mount inside its sandbox',
        'gVisor mount hint "data": share pod, type bind: runsc may keep that mount inside its sandbox',
    ]


STORE = "/var/lib/containers/storage"
TASK = "/run/containerd/io.containerd.runtime.v2.task"
ENGINES: dict[str, tuple[dict[str, str], str, str, str]] = {
    "podman": ({"io.container.manager": "libpod"}, "/x", "/y", "podman"),
    "podman's by its place": ({}, f"{STORE}/vfs-containers/1/userdata", "/y", "podman"),
    "CRI-O": (
        {"io.container.manager": "cri-o"},
        "/run/containers/storage/overlay-containers/1/userdata",
        "/y",
        "CRI-O",
    ),
    "CRI-O's by another mark": ({"io.kubernetes.cri-o.Name": "x"}, f"{STORE}/x-containers/1/userdata", "/y", "CRI-O"),
    "another manager": ({"io.container.manager": "x"}, "/x", "/y", ""),
    "docker": ({}, f"{TASK}/moby/1", "/var/lib/docker/overlay2/1/merged", "docker"),
    "docker's own containerd": ({}, f"/run/docker/containerd/daemon/{TASK[16:]}/moby/1", "/y", "docker"),
    "docker in another namespace": ({}, f"{TASK}/mine/1", "/data/docker/rootfs/overlayfs/1", "docker"),
    "containerd": ({}, f"{TASK}/k8s.io/1", f"{TASK}/k8s.io/1/rootfs", "containerd"),
    "by hand": ({"userdata": "x"}, "/srv/userdata", "/srv/rootfs", ""),
    "the root": ({}, "/", "/rootfs", ""),
}


@pytest.mark.parametrize("case", ENGINES)
def test_bundles_of_engines(case: str) -> None:
    annotations, bundle, rootfs, engine = ENGINES[case]
    assert recognise.engine(annotations, bundle, rootfs) == engine


MOUNTED = {
    f"{STORE}/overlay/1a/merged": True,
    "/home/a/.local/share/containers/storage/overlay/1a/merged": True,
    "/var/lib/docker/overlay2/1a/merged": True,
    "/var/lib/docker/rootfs/overlayfs/1a": True,
    f"{TASK}/k8s.io/1a/rootfs": True,
    "/var/tmp/intermediate-mountpoint-100000.100000": True,
    f"{STORE}/vfs/dir/1a": False,
    "/srv/bundle/rootfs": False,
    "/merged": False,
    "/": False,
}


@pytest.mark.parametrize("path", MOUNTED)
def test_a_rootfs_that_is_mounted_only_for_its_container(path: str) -> None:
    assert recognise.is_mounted_by_engine(path) == MOUNTED[path]


@given(some.lists(some.sampled_from(["", "overlay", "merged", "userdata", "rootfs", "x-containers", "moby"])))
def test_no_path_is_too_odd(names: list[str]) -> None:
    path = "/".join(["", *names])
    assert recognise.is_mounted_by_engine(path) in (False, True)
    assert recognise.engine({}, path, path) in ("", "podman", "docker", "containerd", "CRI-O")
