# SPDX-License-Identifier: Apache-2.0
"""docker: by a wrapper runtime, and by CDI where it knows that."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from engines.base import CDI, CDI_KIND, CGROUP, IMAGE, ByCommands, Done, Served, call, good

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from engines.base import Hook

WRAPPED = (("models",), ("gone",), ("models", "more"))


class Docker(Served):
    """dockerd, and its client."""

    def __init__(self, folder: Path, hook: Hook, image: str, containerd: str, **settings: object) -> None:
        self.folder, self.image, self.hook = folder, image, hook
        folder.mkdir()
        runtimes = {f"bind-{'-'.join(binds)}": {"path": hook.wrapper("-".join(binds))} for binds in WRAPPED}
        late = {"bind-late": {"path": hook.wrapper("late")}}
        document = {
            "data-root": f"{folder}/data",
            "exec-root": f"{folder}/run",
            "pidfile": f"{folder}/pid",
            "hosts": [f"unix://{folder}/docker.sock"],
            "containerd": containerd,
            "storage-driver": "overlay2",
            "cgroup-parent": CGROUP,
            "exec-opts": ["native.cgroupdriver=cgroupfs"],
            "iptables": False,
            "bridge": "none",
            "runtimes": {**runtimes, **late},
            **settings,
        }
        (folder / "daemon.json").write_text(json.dumps(document))
        self.words = ["docker", "--host", f"unix://{folder}/docker.sock"]
        super().__init__()

    def start(self) -> None:
        """As above."""
        # Two of them use one containerd. In the file the second name is not known, although it is documented.
        names = [f"--containerd-{what}={self.folder.name}-{what}" for what in ("namespace", "plugins-namespace")]
        self.reload = self.serve("dockerd", "--config-file", f"{self.folder}/daemon.json", *names).reload
        good(*self.words, "load", "--input", self.image)
        self.version = good(*self.words, "version", "--format", "{{.Server.Version}}").partition("+")[0]


class ByDocker(ByCommands):
    """A dockerd, and how it is asked."""

    runtime = "runc"

    def __init__(self, docker: Docker, registration: str, kind: str = "") -> None:
        self.docker, self.registration = docker, registration
        self.words = docker.words
        self.engine = f"docker {docker.version}{kind}"

    def _ask(self, binds: tuple[str, ...]) -> list[str]:
        if self.registration == "CDI":
            return [f"--device={CDI_KIND}={bind}" for bind in binds]
        return [f"--runtime=bind-{'-'.join(binds)}"]

    def start(self, name: str, *binds: str) -> Done:
        return call(*self.words, "run", "--detach", "--network=none", "--name", name, *self._ask(binds), IMAGE)

    @property
    def data(self) -> Path:
        return self.docker.folder / "data"


def install_wrappers(hook: Hook) -> None:
    """One runtime for each set of binds, and one that calls the hook at createContainer."""
    for binds in WRAPPED:
        hook.install("--runtime", "-".join(binds), "--oci-runtime", "/usr/sbin/runc", binds=binds)
    late = ("--runtime", "late", "--oci-runtime", "/usr/sbin/runc", "--stages", "createContainer,poststop")
    hook.install(*late, binds=["models"])


def settings(suite: str) -> Mapping[str, object]:
    """What the suite's dockerd is told of CDI: only a folder, where it is on by itself."""
    return {} if suite == "bookworm" else {"cdi-spec-dirs": [CDI]}


def registrations(suite: str) -> Iterator[str]:
    yield "runtime"
    if suite != "bookworm":
        yield "CDI"
