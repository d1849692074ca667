# SPDX-License-Identifier: Apache-2.0
"""podman: by hooks.d and by CDI, of root and of an ordinary user."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from engines.base import CDI, CDI_KIND, CGROUP, IMAGE, ByCommands, Done, await_that, call, good, processes
from helpers import support

if TYPE_CHECKING:
    from engines.base import Hook

LIMITS = ("--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Podman(ByCommands):
    """podman with its storage below ``folder``; ``registration`` is hooks.d or CDI."""

    user: tuple[str, ...] = ()
    storage: tuple[str, ...] = ("--storage-driver=overlay",)
    cgroup: tuple[str, ...] = (f"--cgroup-parent={CGROUP}",)

    def __init__(self, folder: Path, hook: Hook, image: str, runtime: str, registration: str) -> None:
        good(*self.user, "mkdir", "-p", f"{folder}/hooks.d")
        self.folder = folder
        self.runtime, self.registration = runtime, registration
        storage = [f"--root={folder}/storage", f"--runroot={folder}/run", f"--tmpdir={folder}/tmp"]
        self.words = [
            *(*self.user, "podman", *storage, *self.storage, "--cgroup-manager=cgroupfs", "--events-backend=file"),
            *(f"--runtime={runtime}", f"--hooks-dir={folder}/hooks.d"),
        ]
        if registration == "hooks.d":
            for name in ("models", "more", "gone"):
                when = ("--name", name, "--annotation", f"io.example.{name}=yes")
                hook.install("--hooks-dir", f"{folder}/hooks.d", *when, binds=[name])
        self.engine = f"podman {good('podman', '--version').split()[-1]}"
        good(*self.words, "load", "--input", image)

    def _ask(self, bind: str) -> str:
        if self.registration == "CDI":
            return f"--device={CDI_KIND}={bind}"
        return f"--annotation=io.example.{bind}=yes"

    def options(self, name: str, *binds: str) -> tuple[str, ...]:
        """The options of podman run for a container with these binds."""
        return (*LIMITS, *self.cgroup, "--name", name, *map(self._ask, binds))

    def start(self, name: str, *binds: str) -> Done:
        return call(*self.words, "run", "--detach", *self.options(name, *binds), IMAGE)

    def end(self) -> None:
        """Waits for what podman does in the background, and takes away the mount in which it keeps its storage."""
        await_that("podman still runs", lambda: not processes(self.folder))
        if any(f" {self.data}/overlay " in line for line in support.mounts()):
            good("umount", f"{self.data}/overlay")

    @property
    def data(self) -> Path:
        return self.folder / "storage"


class Rootless(Podman):
    """podman of an ordinary user, with devices of the machine."""

    UID = 1000
    # One id is enough for it: no package must be installed, and no file changed, for more.
    storage = ("--storage-driver=overlay", "--storage-opt=overlay.ignore_chown_errors=true")
    cgroup = ("--cgroups=disabled",)

    def __init__(self, folder: Path, hook: Hook, image: str) -> None:
        own, runtime = folder / "own", f"/run/user/{self.UID}"
        for each in (folder, own, Path(runtime)):
            each.mkdir(parents=True)
            os.chown(each, self.UID, self.UID)
        # As logind has it. root's podman makes its own folder there, and then closes what is above.
        Path("/run/user").chmod(0o755)
        self.state = f"{runtime}/oci-bind-hook"
        settings = {"HOME": own, "XDG_RUNTIME_DIR": runtime, "PATH": support.PATH}
        self.user = (*support.as_user(self.UID), "env", "-i", *(f"{key}={value}" for key, value in settings.items()))
        super().__init__(own / "podman", hook, image, "crun", "CDI")
        self.engine += ", rootless"


def install_devices(hook: Hook) -> None:
    """The devices of the machine, one for each bind."""
    for name in ("models", "more", "gone"):
        hook.install("--cdi", name, "--cdi-dir", CDI, binds=[name])
