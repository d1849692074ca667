# SPDX-License-Identifier: Apache-2.0
"""The example's DaemonSet: its pod as kubelet asks containerd for it, and what others on the node get then."""

from __future__ import annotations

import zipfile
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import prctl
import yaml

from engines import docker
from engines.base import CDI_KIND, CGROUP, IMAGE, WAITING, await_that, call, good, make_image
from engines.conftest import SUITE
from engines.containerd import HEAD, PROJECT, Containerd
from engines.cri import EXITED, NODE, Client, decode
from helpers import support
from oci_bind_hook import FOLDER, __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from engines.base import Hook
    from engines.conftest import Engines
    from engines.cri import Message, Value

WHEELS = f"docker.io/library/oci-bind-hook-wheels:{__version__}"
HOOKS_D = Path("/usr/share/containers/oci/hooks.d")
PROGRAM = "/opt/oci-bind-hook/bin/oci-bind-hook"
# What the hook needs, as it is installed here.
NEEDED = ("attrs", "jsonschema", "jsonschema-specifications", "referencing", "rpds-py", "typing_extensions")


def pod() -> dict[str, Any]:
    """The pod of the DaemonSet."""
    document: dict[str, Any] = yaml.safe_load((PROJECT / "examples/kubernetes/daemonset.yaml").read_text())
    found: dict[str, Any] = document["spec"]["template"]["spec"]
    return found


def add_wheels(rootfs: Path) -> None:
    """What the example's Containerfile has built: here by hand, since this machine has no compiler and asks nobody."""
    (rootfs / "bin/chroot").symlink_to("busybox")
    folder = rootfs / "wheels"
    folder.mkdir()
    for name in NEEDED:
        found = metadata.distribution(name)
        files = {str(path): Path(str(path.locate())) for path in found.files or ()}
        kept = {path: file for path, file in files.items() if not path.startswith("..") and ".pyc" not in path}
        write_wheel(folder, name, found.version, {path: file.read_bytes() for path, file in kept.items()})
    top = Path(prctl.__file__).parent
    compiled = {path.name: path.read_bytes() for path in (top / "prctl.py", *top.glob("_prctl.*"))}
    version = metadata.version("python-prctl")
    write_wheel(folder, "python-prctl", version, {**compiled, **described("python-prctl", version)})
    ours = [path for path in Path(FOLDER).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    ours += Path(FOLDER, "schemas").glob("*.json")
    needs = "".join(f"Requires-Dist: {name}\n" for name in ("jsonschema", "python-prctl"))
    more = described("oci-bind-hook", __version__, needs)
    more[f"oci_bind_hook-{__version__}.dist-info/entry_points.txt"] = (
        b"[console_scripts]\noci-bind-hook = oci_bind_hook.cli:console\n"
    )
    files = {f"oci_bind_hook/{path.relative_to(FOLDER)}": path for path in ours}
    write_wheel(
        folder, "oci-bind-hook", __version__, {**{path: file.read_bytes() for path, file in files.items()}, **more}
    )


def described(name: str, version: str, more: str = "") -> dict[str, bytes]:
    """The files that each wheel has, by the format of wheels 1.0."""
    folder = f"{name.replace('-', '_')}-{version}.dist-info"
    return {
        f"{folder}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}".encode(),
        f"{folder}/WHEEL": b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{folder}/RECORD": b"",
    }


def write_wheel(folder: Path, name: str, version: str, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(folder / f"{name.replace('-', '_')}-{version}-py3-none-any.whl", "w") as wheel:
        for path, data in files.items():
            wheel.writestr(path, data)


def container(spec: dict[str, Any], volumes: Mapping[str, str]) -> Message:
    """A container as kubelet asks for it, with all that the example says: another field would be missed here.

    But for its resources, since not every machine that runs these tests has the controllers of cgroups.
    """
    assert spec.keys() == {
        *("name", "image", "imagePullPolicy", "securityContext", "env", "command", "args", "volumeMounts", "resources")
    }
    security = spec["securityContext"]
    assert security.keys() == {"runAsUser", "allowPrivilegeEscalation", "readOnlyRootFilesystem", "capabilities"}
    context: Message = {
        1: {1: list(security["capabilities"]["add"]), 2: list(security["capabilities"]["drop"])},
        3: {1: NODE},
        5: {1: security["runAsUser"]},
        7: int(security["readOnlyRootFilesystem"]),
        11: int(not security["allowPrivilegeEscalation"]),
    }
    assert f"docker.io/library/{spec['image']}" == WHEELS
    mounts: list[Value] = [{1: each["mountPath"], 2: volumes[each["name"]]} for each in spec["volumeMounts"]]
    return {
        1: {1: spec["name"]},
        2: {1: WHEELS},
        3: list(spec["command"]),
        4: list(spec["args"]),
        6: [{1: each["name"], 2: each["value"]} for each in spec["env"]],
        7: mounts,
        11: "log",
        15: {2: context},
    }


def sandbox(name: str, log: Path) -> Message:
    options: Message = {1: NODE}
    return {1: {1: name, 2: name, 3: "kube-system"}, 3: str(log), 8: {1: CGROUP, 2: {1: options}}}


class Pod:
    """A pod of one container; a context manager."""

    def __init__(self, client: Client, name: str, log: Path, container: Message) -> None:
        self.client = client
        self.config = sandbox(name, log)
        self.spec = container

    def __enter__(self) -> Pod:
        self.id = self.client.text("RunPodSandbox", {1: self.config}, 1)
        self.container = self.client.text("CreateContainer", {1: self.id, 2: self.spec, 3: self.config}, 1)
        self.client.call("StartContainer", {1: self.container})
        return self

    def has_ended(self) -> bool:
        status = self.client.call("ContainerStatus", {1: self.container})[1]
        assert isinstance(status, bytes)
        return decode(status).get(3) == EXITED

    def execute(self, *words: str) -> tuple[object, object]:
        """The exit code, and all that was written."""
        answer = self.client.call("ExecSync", {1: self.container, 2: list(words), 3: 10})
        return answer.get(3, 0), b"".join(answer[number] for number in (1, 2) if number in answer)  # type: ignore[misc]

    def __exit__(self, *_: object) -> None:
        # As terminationGracePeriodSeconds of the example says.
        self.client.call("StopContainer", {1: self.container, 2: 1})
        self.client.call("RemoveContainer", {1: self.container})
        self.client.call("StopPodSandbox", {1: self.id})
        self.client.call("RemovePodSandbox", {1: self.id})


def installed() -> list[str]:
    """What of the hook is on the node, but for its environment in /opt."""
    folders = (HOOKS_D, Path("/etc/cdi"), Path("/usr/libexec/oci"))
    return sorted(str(path) for folder in folders for path in folder.rglob("*") if path.is_file())


def bound(execute: Any) -> Iterator[tuple[object, bool]]:
    """What a container has of the bind: what is read there, and whether it is refused to write."""
    yield execute("cat", "/models/word")
    code, told = execute("touch", "/models/new")
    yield code, b"Read-only file system" in told


def test_its_pod_installs_and_others_get_the_bind(engines: Engines, hook: Hook, tmp_path: Path) -> None:
    folder = engines.folder / "kubernetes"
    (tmp_path / "wheels").mkdir()
    wheels = make_image(tmp_path / "wheels", WHEELS, add_wheels)
    Path("/srv/models").mkdir()
    Path("/srv/models/word").write_text("models of the node\n")
    # The other tests' devices have the same name, in another folder.
    told = 'enable_cdi = true\ncdi_spec_dirs = ["/etc/cdi"]\ndisable_apparmor'
    head = HEAD.format(folder=folder, image=IMAGE)
    if "CDI" in docker.registrations(SUITE):
        head = head.replace("disable_apparmor", told)
    podman: Any = engines.way("podman runc hooks.d")
    words = [word for word in podman.words if not word.startswith("--hooks-dir")]
    before = installed()
    with Containerd(folder, hook, engines.image, head) as daemon, closing(Client(daemon.socket)) as client:
        good(*daemon.words, "--namespace", "k8s.io", "images", "import", wheels)
        [spec], [volume] = pod()["containers"], pod()["volumes"]
        volumes = {volume["name"]: volume["hostPath"]["path"]}
        with Pod(client, "install", tmp_path, container(spec, volumes)) as first:
            log = tmp_path / "log"
            await_that("it neither ends nor fails", lambda: " installed\n" in log.read_text() or first.has_ended())
            assert " installed\n" in log.read_text(), log.read_text()
            assert first.execute("true") == (0, b"")
        assert {Path(path).name for path in installed()} - {Path(path).name for path in before} == {
            *("oci-bind-hook", "oci-bind-hook.json", "oci-bind-hook-models.json")
        }
        # By hooks.d, as CRI-O reads it: here podman, which has the same reader.
        options = ("--rm", "--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")
        asks = ("--annotation=io.example.models=yes", f"--cgroup-parent={CGROUP}", IMAGE)
        script = "cat /models/word; touch /models/new"
        done = call(*words, "run", *options, *asks, "sh", "-c", script)
        assert (done.returncode != 0, done.stdout) == (True, "models of the node\n"), done.stderr
        assert "Read-only file system" in done.stderr
        if "CDI" in docker.registrations(SUITE):
            devices: list[Value] = [{1: f"{CDI_KIND}=models"}]
            asked: Message = {1: {1: "main"}, 2: {1: IMAGE}, 3: ["/bin/sh", "-c", WAITING], 11: "log2", 17: devices}
            with Pod(client, "second", tmp_path, asked) as second:
                assert list(bound(second.execute)) == [(0, b"models of the node\n"), (1, True)]
        good(PROGRAM, "uninstall", "--prefix", "/usr", "--all")
        assert installed() == before
        assert podman.left() == []
        assert [line for line in support.mounts() if "/srv/models" in line or "/models " in line] == []
