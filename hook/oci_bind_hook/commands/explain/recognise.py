# SPDX-License-Identifier: Apache-2.0
"""Names for what engines and orchestrators put into a config: their volumes, sockets, annotations and mounts.

Pure: paths are recognised by their text alone.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

# runtime-spec config-linux.md, "Default Filesystems", and /dev, in which /dev/pts is.
DEFAULTS = ("/proc", "/sys", "/dev", "/dev/pts")

_GVISOR = "dev.gvisor.spec.mount."
_CDI = "cdi.k8s.io/"
_KUBERNETES = {
    "empty-dir": "emptyDir",
    "configmap": "configMap",
    "secret": "secret",
    "projected": "projected volume",
    "downward-api": "downwardAPI",
    "csi": "CSI volume",
    "host-path": "hostPath",
    "local-volume": "local volume",
    "nfs": "NFS volume",
}
_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock", "crio.sock")
_SYSTEM = frozenset("bin boot dev etc lib lib32 lib64 proc root run sbin sys usr".split())


def source(path: str) -> str | None:
    """Returns the common name of a source at ``path`` (absolute, without links), None if it has none."""
    names = path.split("/")[1:]
    return _volume(names) or _of_kubelet(names) or _of_the_system(names)


def _volume(names: list[str]) -> str | None:
    """Recognises a named volume of an engine: .../volumes/NAME/_data."""
    for at in range(1, len(names) - 2):
        if names[at] == "volumes" and names[at + 2] == "_data":
            engine = {"docker": "Docker", "storage": "podman"}.get(names[at - 1])
            if engine:
                return f'{engine} volume "{names[at + 1]}"'
    return None


def _of_kubelet(names: list[str]) -> str | None:
    """Recognises a volume of a pod, .../pods/UID/volumes/kubernetes.io~KIND/NAME, and other files of kubelet."""
    if "pods" not in names or "kubelet" not in names[: names.index("pods")]:
        return None
    pod, *rest = [*names[names.index("pods") + 1 :], ""]
    if rest[:1] == ["volumes"] and len(rest) > 3:
        kind = rest[1].removeprefix("kubernetes.io~")
        return f'Kubernetes {_KUBERNETES.get(kind, kind)} "{rest[2]}" of the pod {pod}'
    if rest[:1] == ["volume-subpaths"] and len(rest) > 3:
        return f'Kubernetes subPath of "{rest[1]}", of the pod {pod}'
    if rest[:1] == ["etc-hosts"]:
        return f"Kubernetes hosts file of the pod {pod}"
    return None


def _of_the_system(names: list[str]) -> str | None:
    if names[-1] in _SOCKETS:
        return "socket of an engine: anyone who can write to it has the engine's rights on the host"
    if names[:2] == ["var", "run"]:
        names = names[1:]
    if names == [""]:
        return "the host's root"
    if names[0] == "dev":
        return "the host's devices" if len(names) == 1 else "host device"
    return f"system path, /{names[0]}" if names[0] in _SYSTEM else None


def missing_defaults(destinations: Iterable[str]) -> list[str]:
    """Returns the default file systems that config.json does not mount."""
    there = {"/" + destination.strip("/") for destination in destinations}
    return [path for path in DEFAULTS if path not in there]


def is_mounted_by_engine(rootfs: str) -> bool:
    """Whether an engine mounts a rootfs of this path before a container runs, and unmounts it afterwards."""
    names = rootfs.split("/")
    in_overlay = names[-1] == "merged" and names[-3:-2] in (["overlay"], ["overlay2"])  # podman, CRI-O, docker
    of_docker = names[-3:-1] == ["rootfs", "overlayfs"]  # docker with containerd's image store
    of_containerd = names[-1] == "rootfs" and any(name.startswith("io.containerd.runtime.v") for name in names)
    return in_overlay or of_docker or of_containerd or is_intermediate(rootfs)


def is_intermediate(rootfs: str) -> bool:
    """Whether podman mounts a rootfs of this path only for the runtime, in a mount namespace of its own."""
    return rootfs.rpartition("/")[2].startswith("intermediate-mountpoint-")


def engine(annotations: Mapping[str, str], bundle: str, rootfs: str = "") -> str:
    """Returns the engine that made a bundle, by its annotations and its path; "" if neither names one."""
    managers = {"libpod": "podman", "cri-o": "CRI-O"}
    if (manager := annotations.get("io.container.manager")) in managers:
        return managers[manager]
    names = bundle.split("/")
    if names[-1] == "userdata" and "".join(names[-3:-2]).endswith("-containers"):
        return "CRI-O" if any(key.startswith("io.kubernetes.cri-o.") for key in annotations) else "podman"
    if any(name.startswith("io.containerd.runtime.v") for name in names):
        # Docker's namespace in containerd is "moby" unless dockerd has another in its settings.
        return "docker" if names[-2] == "moby" or "/docker/" in rootfs else "containerd"
    return ""


def notes(annotations: Mapping[str, str]) -> Iterator[str]:
    """Yields a line for each annotation that causes other mounts: gVisor's mount hints and CDI devices."""
    hints: dict[str, list[str]] = {}
    for key in sorted(annotations):
        if key.startswith(_GVISOR):
            name, _, member = key[len(_GVISOR) :].rpartition(".")
            hints.setdefault(name or member, []).append(f"{member} {annotations[key]}" if name else annotations[key])
        elif key.startswith(_CDI):
            yield f"CDI devices, {key}: {annotations[key]}: the engine adds their mounts to config.json"
    for name, said in hints.items():
        yield f'gVisor mount hint "{name}": {", ".join(said)}: runsc may keep that mount inside its sandbox'
