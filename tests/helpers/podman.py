# SPDX-License-Identifier: Apache-2.0
"""podman as the tests run it: with a storage of its own, and in namespaces that take all it leaves with them."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from helpers import hooks_d_tables as tables
from helpers import support

if TYPE_CHECKING:
    from pathlib import Path

# No process is left, of podman's either: all of them end with the first one of their namespace.
ISOLATED = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc")
# What it writes below /run goes with it, too; its own folder there must have a short name.
UNIFIED = "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified"
PREPARE = f"{UNIFIED}; mount -t tmpfs tmpfs /run; "
# What every podman of the tests is given, and every container: the machine's limits may be more than a user may have.
OPTIONS = ("--cgroup-manager=cgroupfs", "--events-backend=none", "--runtime=crun")
LIMITS = ("--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--network=none")
ROOTLESS_LIMITS = (*LIMITS, "--cgroups=disabled")


class Podman:
    """podman with its storage below ``folder``, and a rootfs to run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rootfs = support.busybox_rootfs(folder / "rootfs")
        self.probe = tables.write_probe(folder)

    @property
    def words(self) -> list[str]:
        """The program, with the options that every call of it has."""
        storage = [f"--root={self.folder}/storage", "--runroot=/run/podman", "--tmpdir=/run/libpod"]
        return ["podman", *storage, "--storage-driver=vfs", *OPTIONS]

    def run(
        self,
        folders: list[str],
        *command: str,
        options: tuple[str, ...] = (),
        prepare: str = "",
        runtime: str = "crun",
    ) -> subprocess.CompletedProcess[str]:
        """Run a container with the hooks of these folders, after a script that prepares their mount namespace."""
        hooks = [f"--runtime={runtime}", *(f"--hooks-dir={folder}" for folder in folders)]
        # Of a container that ends at once podman may lose the output, about once in some thousand runs. Its log has it.
        log = self.folder / "log-of-the-container"
        logging = ("--log-driver=k8s-file", f"--log-opt=path={log}")
        words = [*self.words, *hooks, "run", "--rm", *LIMITS, *logging, *options, "--rootfs", self.rootfs, *command]
        done = self.script(f'{prepare} "$@"', *words)
        if log.exists():
            lines = [line.split(" ", 3) for line in log.read_text().splitlines()]
            log.unlink()
            out, err = (
                "".join(text + "\n" * (tag == "F") for _, stream, tag, text in lines if stream == name)
                for name in ("stdout", "stderr")
            )
            done.stdout, done.stderr = out, done.stderr if err in done.stderr else done.stderr + err
        return done

    def script(self, text: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a shell script with these arguments."""
        # Not with exec: the first process is there to the end.
        return subprocess.run(
            [*ISOLATED, "sh", "-c", f"{PREPARE} {text}; exit $?", "sh", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=support.TIMEOUT,
            check=False,
        )

    def ran(self) -> list[str]:
        """The hooks that were called since this was last asked."""
        log = self.folder / "ran"
        names = log.read_text().split() if log.exists() else []
        log.unlink(missing_ok=True)
        return names


def configured(folder: Path) -> dict[str, str]:
    """The environment in which podman itself finds a storage below ``folder``, and what it needs in a test."""
    conf, storage = folder / "containers.conf", folder / "storage.conf"
    conf.write_text(
        '[engine]\ncgroup_manager = "cgroupfs"\nevents_logger = "none"\nruntime = "crun"\n'
        '[containers]\nnetns = "none"\ndefault_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]\n'
    )
    storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/storage"\nrunroot = "/run/containers"\n')
    return {"CONTAINERS_CONF": str(conf), "CONTAINERS_STORAGE_CONF": str(storage)}


def isolated(script: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A shell script, run in ``folder`` and in namespaces that take all it leaves with them."""
    return subprocess.run(
        [*ISOLATED, "sh", "-c", f"set -e; {PREPARE}\n{script}\nexit $?"],
        cwd=folder,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )


def covered(folder: Path, *tops: str) -> str:
    """The script after which what is written below ``tops`` goes to a tmpfs on ``folder``, and is gone at the end."""
    script = f"mkdir -p {folder}; mount -t tmpfs tmpfs {folder}; "
    for number, top in enumerate(tops):
        over = f"{folder}/{number}"
        script += f"mkdir {over} {over}.work; "
        script += f"mount -t overlay -o lowerdir={top},upperdir={over},workdir={over}.work overlay {top}; "
    return script
