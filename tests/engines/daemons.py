# SPDX-License-Identifier: Apache-2.0
"""Real daemons of engines, each with folders and a socket of its own, and an image whose links lead about."""

from __future__ import annotations

import hashlib
import io
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from engines.cri import Runtime

if TYPE_CHECKING:
    from types import TracebackType

TIMEOUT = 60
APPLETS = ("cat", "echo", "ls", "sh", "sleep", "touch", "true")
IMAGE = "localhost/box:latest"
CONFIG = "/etc/containerd/config.toml"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def image() -> bytes:
    """The root of an image, as a tar archive: busybox, and /link, which leads to /models and climbs no further."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for folder in ("bin", "dev", "etc", "models", "proc", "root", "sys", "tmp"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(entry)
        for name, target in (("link", "../../models"), *((f"bin/{name}", "busybox") for name in APPLETS)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
        archive.add("/bin/busybox", "bin/busybox")
        passwd = b"root:x:0:0:root:/root:/bin/sh\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size, entry.mode = len(passwd), 0o644
        archive.addfile(entry, io.BytesIO(passwd))
    return out.getvalue()


class Daemon:
    """A daemon, from its start until it is ready, to its end; a context manager.

    What it says is in ``log``. Nothing of it is left: folders, mounts, and the processes that it started.
    """

    program = ""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"{self.program}-"))
        self.run = Path(tempfile.mkdtemp(prefix=f"{self.program}-", dir="/run"))
        for folder in (self.folder, self.run):
            folder.chmod(0o711)  # root of a container may be another user
        self.socket = str(self.run / "socket")
        self.log = self.folder / "log"

    def words(self) -> list[str]:
        """The command that starts it."""
        raise NotImplementedError

    def __enter__(self) -> Daemon:
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(self.words(), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        end = time.monotonic() + TIMEOUT
        while not self.is_ready():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        return self

    def is_ready(self) -> bool:
        """Whether its socket is there and somebody listens."""
        with socket.socket(socket.AF_UNIX) as client:
            try:
                client.connect(self.socket)
            except OSError:
                return False
        return True

    def reload(self) -> None:
        """As systemctl reload does it."""
        self.process.send_signal(signal.SIGHUP)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT)
        for line in reversed(Path("/proc/self/mountinfo").read_text().splitlines()):
            place = line.split()[4]
            if place.startswith((f"{self.folder}/", f"{self.run}/")):
                subprocess.run(["umount", "-l", place], check=False)
        shutil.rmtree(self.run)
        shutil.rmtree(self.folder)


def command(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a client to its end, and returns what it said."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        env={**os.environ, **environment},
        check=False,
    )


class Docker(Daemon):
    """dockerd with a containerd of its own, and its client."""

    program = "dockerd"

    def __init__(self, *options: str) -> None:
        super().__init__()
        self.options = options

    def words(self) -> list[str]:
        where = [f"--data-root={self.folder}/data", f"--exec-root={self.run}/exec", f"--pidfile={self.run}/pid"]
        network = ["--iptables=false", "--ip6tables=false", "--bridge=none"]
        return ["dockerd", *where, f"--host=unix://{self.socket}", *network, *self.options]

    def __enter__(self) -> Docker:
        super().__enter__()
        done = subprocess.run(
            ["docker", "import", "-", IMAGE],
            input=image(),
            env={**os.environ, "DOCKER_HOST": f"unix://{self.socket}"},
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, (done, self.log.read_text())
        return self

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs docker."""
        return command("docker", *words, DOCKER_HOST=f"unix://{self.socket}")

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a container of the image to its end, and removes it: options, and the command after the image."""
        return self.call("run", "--rm", "--network=none", *words)

    def await_runtime(self, name: str) -> None:
        """Waits until dockerd, after a reload, knows a runtime."""
        end = time.monotonic() + TIMEOUT
        while f'"{name}"' not in self.call("info", "--format", "{{json .Runtimes}}").stdout:
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)

    def version(self) -> str:
        return self.call("version", "--format", "{{.Server.Version}}").stdout.strip()


class Podman:
    """podman, which has no daemon: a storage of its own, with the image; a context manager."""

    OPTIONS = ("--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")

    def __enter__(self) -> Podman:
        self.folder = tempfile.mkdtemp(prefix="podman-")
        self.run = tempfile.mkdtemp(prefix="podman-", dir="/run")
        done = subprocess.run(
            [*self.words("crun"), "import", "-", IMAGE],
            input=image(),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert done.returncode == 0, done
        return self

    def __exit__(self, *_: object) -> None:
        self.call("system", "reset", "--force")
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def words(self, runtime: str) -> list[str]:
        """The program, with the options that every call of it has."""
        storage = [f"--root={self.folder}", f"--runroot={self.run}/run", f"--tmpdir={self.run}/tmp"]
        more = ["--storage-driver=vfs", "--cgroup-manager=cgroupfs", "--events-backend=none", f"--runtime={runtime}"]
        return ["podman", *storage, *more]

    def call(self, *words: str, runtime: str = "crun") -> subprocess.CompletedProcess[str]:
        return command(*self.words(runtime), *words)

    def start(self, *words: str, runtime: str) -> subprocess.CompletedProcess[str]:
        """Runs a container of the image to its end, and removes it."""
        return self.call("run", "--rm", *self.OPTIONS, *words, runtime=runtime)


def unpacked(folder: Path) -> None:
    """The image's root as a folder."""
    with tarfile.open(fileobj=io.BytesIO(image())) as archive:
        archive.extractall(folder)


class Containerd(Daemon):
    """containerd with its CRI plugin, and ctr. Its settings are in /etc/containerd/config.toml, as a user has them."""

    program = "containerd"

    def __init__(self, more: str = "") -> None:
        super().__init__()
        self.version = command("containerd", "--version").stdout.split()[2].lstrip("v")
        self.is_2 = not self.version.startswith("1.")
        cri, images = "io.containerd.grpc.v1.cri", ""
        if self.is_2:
            cri, images = (
                "io.containerd.cri.v1.runtime",
                f"""
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{IMAGE}"
""",
            )
        sandbox = "" if self.is_2 else f'sandbox_image = "{IMAGE}"'
        Path("/etc/containerd").mkdir(exist_ok=True)
        Path(CONFIG).write_text(
            f"""version = {3 if self.is_2 else 2}
root = "{self.folder}/root"
state = "{self.run}/state"
[plugins."{cri}"]
{sandbox}
# This machine may lack CAP_SYS_RESOURCE.
restrict_oom_score_adj = true
{images}{more.replace("io.containerd.cri.v1.runtime", cri)}"""
        )

    def words(self) -> list[str]:
        return ["containerd", "--config", CONFIG, "--address", self.socket]

    def __enter__(self) -> Containerd:
        super().__enter__()
        archive = self.folder / "image.tar"
        archive.write_bytes(docker_archive())
        done = self.call("-n", "k8s.io", "images", "import", str(archive))
        assert done.returncode == 0, done
        self.cri = Runtime(self.socket)
        assert "failed to load plugin io.containerd.grpc.v1.cri" not in (said := self.log.read_text()), said
        end = time.monotonic() + TIMEOUT
        while not self.cri.has_image(IMAGE):  # the CRI plugin is told of it by an event
            assert time.monotonic() < end, self.log.read_text()
            time.sleep(0.05)
        return self

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs ctr."""
        return command("ctr", "--address", self.socket, *words)


def docker_archive() -> bytes:
    """The image as `docker save` writes it: its command sleeps, as that of a pod's sandbox has to."""
    layer = image()
    config = json.dumps(
        {
            "architecture": ARCHITECTURES[platform.machine()],
            "os": "linux",
            "config": {"Cmd": ["sleep", "100000"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
        }
    ).encode()
    manifest = json.dumps([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in (("config.json", config), ("layer.tar", layer), ("manifest.json", manifest)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()
