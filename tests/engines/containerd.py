# SPDX-License-Identifier: Apache-2.0
"""containerd: by ctr, and as kubelet asks it, by the container runtime interface."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from engines.base import CDI_KIND, CGROUP, IMAGE, WAITING, Done, Served, Way, await_that, call, good
from engines.cri import EXITED, NODE, Client, decode
from engines.docker import WRAPPED
from helpers import support

if TYPE_CHECKING:
    from engines.base import Hook
    from engines.cri import Message, Value

PROJECT = Path(__file__).resolve().parents[2]
WITH_HOOK = PROJECT / "examples/containerd/with-hook.py"
HEAD = """\
version = 2
root = "{folder}/root"
state = "{folder}/state"
[grpc]
address = "{folder}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{folder}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{folder}/none"
conf_dir = "{folder}/none"
"""
RUNTIME = """\
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}]
runtime_type = "io.containerd.runc.v2"
{more}
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{name}.options]
BinaryName = "{binary}"
"""


class Containerd(Served):
    """containerd, with its CRI plugin, and ctr.

    Of each set of binds there is a runtime class with a base spec, for each runtime, and one with a wrapper.
    """

    def __init__(self, folder: Path, hook: Hook, image: str, config: str = "") -> None:
        self.folder, self.hook, self.image = folder, hook, image
        folder.mkdir()
        self.socket = f"{folder}/containerd.sock"
        self.words = ["ctr", "--address", self.socket]
        (folder / "config.toml").write_text(config or self._config())
        super().__init__()

    def _config(self) -> str:
        text = [HEAD.format(folder=self.folder, image=IMAGE), RUNTIME.format(name="runc", more="", binary="runc")]
        for binds in WRAPPED:
            name = "-".join(binds)
            base = f'base_runtime_spec = "{self.spec(binds)}"'
            text += [RUNTIME.format(name=f"spec-{run}-{name}", more=base, binary=run) for run in support.RUNTIMES]
            text.append(RUNTIME.format(name=f"wrapped-{name}", more="", binary=self.hook.wrapper(name)))
        return "".join(text)

    def spec(self, binds: tuple[str, ...]) -> Path:
        """A config.json with the hook, made as the example says."""
        path = self.folder / f"{'-'.join(binds)}.json"
        if not path.exists():
            words = [sys.executable, str(WITH_HOOK), *self.hook.mounts(*binds)]
            plain = good("ctr", "oci", "spec")
            text = subprocess.run(words, input=plain, capture_output=True, text=True, check=True).stdout
            path.write_text(text.replace("/usr/local/libexec/oci/hooks.d/oci-bind-hook", self.hook.launcher))
        return path

    def start(self) -> None:
        """As above."""
        self.serve("containerd", "--config", f"{self.folder}/config.toml")
        self.version = good(*self.words, "version").split("Server:")[1].split("Version:")[1].split()[0]
        self.version = re.split("[~+-]", self.version.lstrip("v"))[0]
        good(*self.words, "--namespace", "k8s.io", "images", "import", self.image)


class ByCtr(Way):
    """ctr with a config.json of one's own, which has the hook."""

    runtime = "runc"
    registration = "config.json"

    def __init__(self, daemon: Containerd) -> None:
        self.daemon = daemon
        self.engine = f"containerd {daemon.version}, ctr"
        self.words = daemon.words
        self.folder = daemon.folder / "ctr"
        self.running: dict[str, subprocess.Popen[str]] = {}

    def start(self, name: str, *binds: str) -> Done:
        document = json.loads(self.daemon.spec(binds).read_text())
        rootfs = self.folder / name
        support.busybox_rootfs(rootfs)
        document["root"] = {"path": str(rootfs)}
        document["process"]["args"] = ["/bin/sh", "-c", WAITING]
        document["process"]["env"] = ["PATH=/bin"]
        document["linux"]["cgroupsPath"] = f"{CGROUP}/{name}"
        (self.folder / f"{name}.json").write_text(json.dumps(document))
        return self._run(name)

    def _run(self, name: str) -> Done:
        words = [*self.words, "run", "--rm", "--config", f"{self.folder}/{name}.json", name]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=-1, stderr=-1, text=True)
        assert process.stdout is not None
        if process.stdout.readline() == "ready\n":
            self.running[name] = process
            return subprocess.CompletedProcess(words, 0, "", "")
        _, told = process.communicate()
        return subprocess.CompletedProcess(words, process.returncode, "", told)

    def execute(self, name: str, *words: str) -> Done:
        return call(*self.words, "task", "exec", "--exec-id", "exec", name, *words)

    def _end(self, name: str, signal: str) -> None:
        good(*self.words, "task", "kill", "--signal", signal, name)
        self.running.pop(name).communicate()

    def stop(self, name: str) -> None:
        self._end(name, "SIGTERM")

    def kill(self, name: str) -> None:
        self._end(name, "SIGKILL")

    def again(self, name: str) -> None:
        done = self._run(name)
        assert done.returncode == 0, done.stderr

    def remove(self, name: str) -> None:
        if name in self.running:
            self.kill(name)
        if (self.folder / name).exists():
            shutil.rmtree(self.folder / name)

    @property
    def data(self) -> Path:
        return self.folder


class ByCri(Way):
    """Pods as kubelet makes them, each with one container; ``registration`` is "base spec", "runtime" or "CDI"."""

    def __init__(self, daemon: Containerd, client: Client, runtime: str, registration: str) -> None:
        self.daemon, self.client = daemon, client
        self.runtime, self.registration = runtime, registration
        self.engine = f"containerd {daemon.version}, CRI"
        self.pods: dict[str, tuple[str, Message]] = {}
        self.containers: dict[str, str] = {}
        self.binds: dict[str, tuple[str, ...]] = {}
        self.of_pods: set[str] = set()
        # For a class of another name, by an annotation of the pod.
        self.handler = ""
        self.annotation: Message = {}

    def _handler(self, binds: tuple[str, ...]) -> str:
        if self.registration == "CDI":
            return ""
        way = f"spec-{self.runtime}" if self.registration == "base spec" else "wrapped"
        return f"{way}-{'-'.join(binds)}"

    def start(self, name: str, *binds: str) -> Done:
        # In the node's network, which needs no plugin for networks.
        options: Message = {1: NODE}
        pod: Message = {
            1: {1: name, 2: name, 3: "default"},
            7: [self.annotation] if self.annotation else [],
            8: {1: CGROUP, 2: {1: options}},
        }
        handler = self.handler or self._handler(binds)
        self.binds[name] = binds
        try:
            # The class is the pod's, and its sandbox gets the binds of a base spec and of a wrapper as well.
            found = self.client.text("RunPodSandbox", {1: pod, 2: handler}, 1)
            self.pods[name] = (found, pod)
            self.of_pods.update(super().left())
            self._create(name)
        except grpc.RpcError as error:
            return subprocess.CompletedProcess(["CRI"], 1, "", str(error.details()))
        return subprocess.CompletedProcess(["CRI"], 0, "", "")

    def _create(self, name: str) -> None:
        pod, config = self.pods[name]
        devices: list[Value] = [{1: f"{CDI_KIND}={bind}"} for bind in self.binds[name] if self.registration == "CDI"]
        container: Message = {1: {1: "main"}, 2: {1: IMAGE}, 3: ["/bin/sh", "-c", WAITING], 17: devices}
        self.containers[name] = self.client.text("CreateContainer", {1: pod, 2: container, 3: config}, 1)
        self.client.call("StartContainer", {1: self.containers[name]})

    def execute(self, name: str, *words: str) -> Done:
        answer = self.client.call("ExecSync", {1: self.containers[name], 2: list(words), 3: 10})
        out, err, code = (answer.get(number, default) for number, default in ((1, b""), (2, b""), (3, 0)))
        assert isinstance(out, bytes)
        assert isinstance(err, bytes)
        assert isinstance(code, int)
        return subprocess.CompletedProcess(words, code, out.decode(), err.decode())

    def stop(self, name: str) -> None:
        self.client.call("StopContainer", {1: self.containers[name], 2: 30})

    def kill(self, name: str) -> None:
        """As the kernel does when memory is short: kubelet's way to the engine is not used."""
        good(*self.daemon.words, "--namespace", "k8s.io", "task", "kill", "--signal", "SIGKILL", self.containers[name])
        await_that("it does not end", lambda: self._state(name) == EXITED)

    def _state(self, name: str) -> object:
        status = self.client.call("ContainerStatus", {1: self.containers[name]})[1]
        assert isinstance(status, bytes)
        return decode(status).get(3, 0)

    def again(self, name: str) -> None:
        """As kubelet does: another container, in the same pod."""
        self.client.call("RemoveContainer", {1: self.containers.pop(name)})
        self._create(name)

    def remove(self, name: str) -> None:
        if name in self.containers:
            self.client.call("StopContainer", {1: self.containers[name], 2: 0})
            self.client.call("RemoveContainer", {1: self.containers.pop(name)})
        if name in self.pods:
            pod = self.pods.pop(name)[0]
            self.client.call("StopPodSandbox", {1: pod})
            self.client.call("RemovePodSandbox", {1: pod})
            self.of_pods.clear()

    def left(self) -> list[str]:
        """Without what the sandbox of a pod that is there has: to the hook it is a container, too."""
        return [each for each in super().left() if each not in self.of_pods]

    @property
    def data(self) -> Path:
        return self.daemon.folder / "root"
