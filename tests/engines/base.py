# SPDX-License-Identifier: Apache-2.0
"""What all engines have in common: programs that are started and ended, images, the installed hook, and its ways.

A way is an engine, a runtime and a registration. Its tests are the same for all: see ``Way``.
"""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from helpers import support

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Self

SECONDS = 60
IMAGE = "docker.io/library/bind:latest"
STATE = "/run/oci-bind-hook"
CDI = "/run/cdi"
CDI_KIND = "oci-bind-hook.github.io/bind"
CGROUP = "/oci-bind-hook-engines"
# Ends at once when it is asked to.
WAITING = "trap 'exit 0' TERM; echo ready; while :; do sleep 1000 & wait; done"
# What is registered, by name: each a registration of its own where the engine takes several.
BINDS = {"models": "/absolute/models", "more": "/new/more", "gone": "/new/gone"}
# The mount points that are made for them: /absolute is a link to /real.
MADE = ("/real/models", "/new")

Done = subprocess.CompletedProcess[str]


def call(*words: str, env: dict[str, str] | None = None) -> Done:
    """Runs a command; what it says is text."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
        env={**os.environ, **(env or {})},
    )


def good(*words: str, env: dict[str, str] | None = None) -> str:
    """Runs a command that must succeed; its output."""
    done = call(*words, env=env)
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return done.stdout.strip()


class Daemon:
    """A program that says by sd_notify(3) when it is ready, with what it says in a file; a context manager."""

    def __init__(self, folder: Path, *words: str) -> None:
        self.folder = folder
        self.words = words

    def __enter__(self) -> Daemon:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready, open(self.folder / "log", "wb") as log:
            ready.bind(f"{self.folder}/ready")
            environment = {**os.environ, "NOTIFY_SOCKET": f"{self.folder}/ready"}
            self.process = subprocess.Popen(
                self.words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
            pidfd = os.pidfd_open(self.process.pid)
            try:
                # Either it is ready, or it has ended.
                found = support.readable(SECONDS, ready.fileno(), pidfd)
                is_ready = ready.fileno() in found and b"READY=1" in ready.recv(4096)
            finally:
                os.close(pidfd)
        if not is_ready:
            self.__exit__()
            raise AssertionError((self.folder / "log").read_text())
        return self

    def reload(self) -> None:
        """As systemctl reload does it."""
        self.process.send_signal(signal.SIGHUP)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(SECONDS)
        finally:
            self.process.kill()
            self.process.wait()


class Served:
    """An engine's daemon with all that it has below ``folder``; a context manager. ``words`` ask it."""

    folder: Path
    words: list[str]

    def __init__(self) -> None:
        self._stack = ExitStack()

    def serve(self, *program: str) -> Daemon:
        """Starts the daemon, which ends with the block."""
        return self._stack.enter_context(Daemon(self.folder, *program))

    def start(self) -> None:
        """Starts all of it."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class Hook:
    """The hook, installed by its command below ``folder``: what is bound, and what registers it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.prefix = folder / "prefix"
        for name in BINDS:
            (folder / "sources" / name).mkdir(parents=True)
            (folder / "sources" / name / "word").write_text(f"{name} of the host\n")
        (folder / "sources/gone/word").unlink()
        (folder / "sources/gone").rmdir()

    def mounts(self, *names: str) -> list[str]:
        """The options of the hook for these binds."""
        each = (f"src={self.folder}/sources/{name},dst={BINDS[name]},ro" for name in names)
        return [word for text in each for word in ("--mount", text)]

    def install(self, *options: str, binds: Sequence[str]) -> None:
        self._call("install", *options, "--", *self.mounts(*binds))

    def uninstall(self, *options: str) -> None:
        self._call("uninstall", *options)

    def _call(self, command: str, *words: str) -> None:
        program = "from oci_bind_hook.cli import console; console()"
        good(sys.executable, "-c", program, command, "--prefix", str(self.prefix), *words)

    @property
    def launcher(self) -> str:
        return f"{self.prefix}/libexec/oci/hooks.d/oci-bind-hook"

    def wrapper(self, name: str) -> str:
        """Where ``install --runtime`` writes."""
        return f"{self.prefix}/libexec/oci/runtimes.d/oci-bind-hook-{name}"

    def gone(self) -> str:
        """What the person is told who asks for ``gone``."""
        return f"the source {self.folder}/sources/gone cannot be opened: No such file or directory"


def make_image(folder: Path, tag: str = IMAGE, add: Callable[[Path], object] | None = None) -> str:
    """An image of busybox, with links, as ``docker save`` writes it: each engine loads that. Its path.

    ``add`` puts more into its rootfs.
    """
    rootfs = support.busybox_rootfs(folder / "image")
    if add is not None:
        add(Path(rootfs))
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(rootfs, ".")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["/bin/sh", "-c", WAITING]},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{support.tree(layer)['.'][4]}"]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [tag], "Layers": ["layer.tar"]}]
    path = folder / "image.tar"
    with tarfile.open(path, "w") as tar:
        tar.add(layer, "layer.tar")
        for name, document in (("config.json", config), ("manifest.json", manifest)):
            text = json.dumps(document).encode()
            member = tarfile.TarInfo(name)
            member.size = len(text)
            tar.addfile(member, io.BytesIO(text))
    return str(path)


class Way:
    """An engine with a runtime and a registration. Containers are known by a name of the test's own.

    ``engine`` and ``registration`` are words of the table, ``state`` is the hook's folder.
    """

    engine: str
    runtime: str
    registration: str
    state = STATE

    def start(self, name: str, *binds: str) -> Done:
        """Starts a container with these binds, which then waits; what the person is told who starts it."""
        raise NotImplementedError

    def execute(self, name: str, *words: str) -> Done:
        raise NotImplementedError

    def stop(self, name: str) -> None:
        """Ends it as a person does who waits for its end."""
        raise NotImplementedError

    def kill(self, name: str) -> None:
        """Kills its first process, and waits until the engine has noticed."""
        raise NotImplementedError

    def again(self, name: str) -> None:
        """Starts a container that has ended."""
        raise NotImplementedError

    def remove(self, name: str) -> None:
        raise NotImplementedError

    @property
    def data(self) -> Path:
        """The folder below which it keeps what containers have written."""
        raise NotImplementedError

    def left(self) -> list[str]:
        """What is left of a container that has ended: records, mounts of the sources, mount points that were made."""
        found = [name for name in names(self.state) if name.endswith((".json", ".new"))]
        found += [line for line in support.mounts() if "/sources/" in line]
        for folder, folders, _ in os.walk(self.data):
            found += [path for path in (f"{folder}/{each}" for each in folders) if path.endswith(MADE)]
        return found


class ByCommands(Way):
    """An engine whose program has docker's commands; ``words`` are it, with what each call of it is given."""

    words: list[str]

    def execute(self, name: str, *words: str) -> Done:
        return call(*self.words, "exec", name, *words)

    def stop(self, name: str) -> None:
        good(*self.words, "stop", name)

    def kill(self, name: str) -> None:
        good(*self.words, "kill", name)
        good(*self.words, "wait", name)

    def again(self, name: str) -> None:
        good(*self.words, "start", name)

    def remove(self, name: str) -> None:
        # podman cleans up after a kill in a process of its own; here it waits for that.
        good(*self.words, "rm", "--force", name)


def names(folder: str) -> list[str]:
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def processes(folder: Path) -> list[str]:
    """The command lines that name something below ``folder``."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue  # it has ended
        found += [line] if f"{folder}/" in line else []
    return found


def cgroups() -> set[str]:
    """The groups at the top of each hierarchy."""
    return {str(path) for top in hierarchies() for path in top.iterdir() if path.is_dir()}


def hierarchies() -> Iterator[Path]:
    top = Path("/sys/fs/cgroup")
    places = [top, *(path for path in top.iterdir() if not path.is_symlink())]
    yield from (path for path in places if (path / "cgroup.procs").exists())


def remove_cgroups(known: set[str]) -> list[str]:
    """Removes the groups that are not ``known``; those in which processes are left."""
    left = []
    for top in sorted(cgroups() - known):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                left.append(folder)
    return left


def await_that(what: str, is_so: Callable[[], bool]) -> None:
    """Waits until a question to an engine that tells of no event is answered by yes."""
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end, what
        time.sleep(0.02)
