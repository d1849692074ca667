# SPDX-License-Identifier: Apache-2.0
"""What the tests share: a busybox rootfs, a bundle, real runtimes in a namespace of their own, and snapshots.

Nothing here knows the hook. Runtimes always run in a private mount namespace, so that the host's mounts stay as they
are whatever a test does.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import select
import shutil
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

RUNTIMES = ("runc", "crun")
NAMESPACES = ("pid", "ipc", "uts", "mount", "network")
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
# How many times longer than on a usual machine anything may take: an emulated processor is slow.
PATIENCE = int(os.environ.get("PATIENCE", "1"))
TIMEOUT = 60 * PATIENCE
# What runc has to say for itself where a filter refuses openat2(2).
READS = "while read -r line; do :; done\n"  # in a shell's hook: crun may fail where one ends before it has the state
RUNC_REMARK = "falling back to securejoin: openat2 /sys/fs/cgroup"

APPLETS = (
    *("cat", "cp", "echo", "false", "grep", "id", "ln", "ls", "mkdir", "mount", "mv", "readlink", "rm", "rmdir"),
    *("sh", "sleep", "stat", "test", "touch", "true", "umount"),
)
FOLDERS = ("bin", "data", "dev", "etc", "proc", "real", "root", "sys", "tmp")
LINKS = {
    "absolute": "/real",
    "climb": "../../../../real",
    "dangling": "/absent/place",
    "data/link": "../real",
}


def busybox_rootfs(path: str | os.PathLike[str]) -> str:
    """Make a small rootfs at ``path``, which need not exist, and return its path.

    ``/bin`` holds busybox and links to it, ``FOLDERS`` are there, and ``LINKS`` point about: absolutely, above the
    root, to nothing, and relatively; all but ``dangling`` mean ``/real``.
    """
    rootfs = os.fspath(path)
    for name in FOLDERS:
        os.makedirs(os.path.join(rootfs, name), exist_ok=True)
    busybox = shutil.which("busybox", path=PATH)
    assert busybox is not None, "busybox is not installed"
    shutil.copy(busybox, os.path.join(rootfs, "bin/busybox"))
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(rootfs, "bin", applet))
    for name, target in LINKS.items():
        os.symlink(target, os.path.join(rootfs, name))
    with open(os.path.join(rootfs, "etc/passwd"), "w", encoding="utf-8") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\n")
    return rootfs


def bundle(
    path: str | os.PathLike[str],
    args: Sequence[str],
    *,
    hooks: Mapping[str, Sequence[Mapping[str, Any]]] | None = None,
    mounts: Sequence[Mapping[str, Any]] = (),
    rootfs: str | None = None,
    readonly: bool = False,
    namespaces: Sequence[str] = NAMESPACES,
    annotations: Mapping[str, str] | None = None,
    env: Sequence[str] = (f"PATH={PATH}",),
    linux: Mapping[str, Any] | None = None,
) -> str:
    """Make a bundle at ``path`` that runs ``args`` without a terminal, and return its path.

    ``rootfs`` is one that exists already; without it a busybox rootfs is made in the bundle, unless one is there.
    ``mounts`` come after /proc and a tmpfs on /dev. A ``user`` namespace maps every id to itself, unless ``linux``,
    which is laid over that member of config.json, says otherwise; what is None there is left out.
    """
    folder = os.fspath(path)
    os.makedirs(folder, exist_ok=True)
    if rootfs is None and not os.path.lexists(os.path.join(folder, "rootfs")):
        busybox_rootfs(os.path.join(folder, "rootfs"))
    # SYS_ADMIN: a test looks at mounts from the inside, and may try to make some.
    names = ("CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "SETGID", "SETUID", "SYS_ADMIN")
    capabilities = [f"CAP_{name}" for name in names]
    identity = [{"containerID": 0, "hostID": 0, "size": 65536}]
    config: dict[str, Any] = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": list(env),
            "cwd": "/",
            "capabilities": {kind: capabilities for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs or "rootfs", "readonly": readonly},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *mounts,
        ],
    }
    members = {
        # Of its own: a runtime kills all that is in the cgroup of a container which it deletes.
        "cgroupsPath": f"/oci-bind-hook-{uuid.uuid4().hex}",
        "namespaces": [{"type": kind} for kind in namespaces],
        **({"uidMappings": identity, "gidMappings": identity} if "user" in namespaces else {}),
        **(linux or {}),
    }
    config["linux"] = {name: value for name, value in members.items() if value is not None}
    if "uts" in namespaces:
        config["hostname"] = "bind"
    if hooks is not None:
        config["hooks"] = hooks
    if annotations is not None:
        config["annotations"] = annotations
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump(config, file, indent=1)
    return folder


def bind(source: str | os.PathLike[str], destination: str, *options: str) -> dict[str, Any]:
    """The entry of config.json's ``mounts`` that binds ``source`` on ``destination``."""
    return {"destination": destination, "type": "bind", "source": os.fspath(source), "options": ["bind", *options]}


class RuntimeNamespace:
    """A private mount namespace in which ``runtime`` runs any number of containers; a context manager.

    It is started by the user ``uid``, who need not be known to the machine.

    Commands answer with a CompletedProcess whose output is text; a timeout is an error. On leaving, the containers
    that are still there are deleted, and the namespace and the runtime's own state folder go.
    """

    # crun refuses a machine that has both cgroup versions mounted. `cat` ends with us, however we end.
    HOLD = "! mountpoint -q /sys/fs/cgroup/unified || umount /sys/fs/cgroup/unified; echo; exec cat"

    def __init__(self, runtime: str, uid: int = 0) -> None:
        self.runtime = runtime
        self.uid = uid

    def __enter__(self) -> RuntimeNamespace:
        self.root = tempfile.mkdtemp(prefix=f"{self.runtime}-")
        os.chown(self.root, self.uid, self.uid)
        command = ["unshare", "-m", "--propagation", "private", "sh", "-c", self.HOLD]
        self.holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.holder.stdout is not None
        ready = self.holder.stdout.readline()
        assert ready == b"\n", "the mount namespace cannot be made: is this root?"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            for container in os.listdir(self.root):
                self.delete(container, "--force")
        finally:
            self.holder.communicate(timeout=TIMEOUT)
            shutil.rmtree(self.root)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run any command in the namespace."""
        # Files, not pipes: a container outlives `create`, and would keep a pipe open.
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            code = subprocess.run(
                ["nsenter", f"--mount=/proc/{self.holder.pid}/ns/mnt", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=TIMEOUT,
                check=False,
            ).returncode
            out.seek(0)
            err.seek(0)
            told = "".join(line for line in err if RUNC_REMARK not in line)
            return subprocess.CompletedProcess(command, code, out.read(), told)

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the runtime itself."""
        return self.run(*as_user(self.uid), self.runtime, "--root", self.root, *arguments)

    def run_container(self, bundle: str, container: str) -> subprocess.CompletedProcess[str]:
        """Create, start, await and delete; the output is the container's own, and the runtime's errors."""
        return self.call("run", "--bundle", bundle, container)

    def create(self, bundle: str, container: str) -> subprocess.CompletedProcess[str]:
        return self.call("create", "--bundle", bundle, container)

    def start(self, container: str) -> subprocess.CompletedProcess[str]:
        return self.call("start", container)

    def execute(self, container: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a container that runs, and see its output."""
        return self.call("exec", container, *command)

    def kill(self, container: str, signal: str = "KILL") -> subprocess.CompletedProcess[str]:
        return self.call("kill", container, signal)

    def delete(self, container: str, *options: str) -> subprocess.CompletedProcess[str]:
        return self.call("delete", *options, container)

    def state(self, container: str) -> dict[str, Any]:
        """What the runtime says about a container; AssertionError if it knows none of that name."""
        done = self.call("state", container)
        assert done.returncode == 0, done.stderr
        state = json.loads(done.stdout)
        assert isinstance(state, dict)
        return state

    def stop(self, container: str) -> subprocess.CompletedProcess[str]:
        """Kill, await the end, delete: the ordinary end of a container, with its poststop hooks."""
        self.kill(container)
        end = time.monotonic() + TIMEOUT
        while self.state(container)["status"] != "stopped":
            assert time.monotonic() < end, f"{container} does not stop"
            time.sleep(0.02)
        return self.delete(container)


def is_readable(fd: int, seconds: float) -> bool:
    """Whether there is something to read within some seconds."""
    return bool(readable(seconds, fd))


def readable(seconds: float, *fds: int) -> list[int]:
    """Those of ``fds`` from which something can be read, within some seconds; select(2) takes no fd above 1023."""
    ready = select.poll()
    for fd in fds:
        ready.register(fd, select.POLLIN)
    return [fd for fd, _ in ready.poll(seconds * 1000)]


def as_user(uid: int) -> tuple[str, ...]:
    """The command that runs the command after it as an ordinary user; for root none is needed."""
    return ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups") if uid else ()


def run_container(runtime: str, bundle: str, container: str) -> subprocess.CompletedProcess[str]:
    """Run one container from ``create`` to ``delete`` in a namespace of its own."""
    with RuntimeNamespace(runtime) as namespace:
        return namespace.run_container(bundle, container)


def tree(path: str | os.PathLike[str]) -> dict[str, tuple[object, ...]]:
    """Everything below ``path`` and itself ("."): type, mode, owner, size, then the target, content hash or device.

    Times are left out, and the size of a folder, which says more about the file system than about the folder.
    """
    top = os.fspath(path)
    names = [top]
    for folder, folders, files in os.walk(top):
        names += [os.path.join(folder, name) for name in folders + files]
    return {os.path.relpath(name, top): _entry(name) for name in names}


def records(state: str | os.PathLike[str]) -> list[str]:
    """All names in a state folder, sorted, but for its lists. These name just the containers that have a record."""
    names = sorted(os.listdir(state))
    if "rootfs" in names:
        names.remove("rootfs")
        listed = set()
        for key in os.listdir(os.path.join(state, "rootfs")):
            with open(os.path.join(state, "rootfs", key), encoding="ascii") as file:
                listed.update(file.read().split())
        assert listed == {name.removesuffix(".json") for name in names if name.endswith(".json")}
    return names


def made_paths(record: dict[str, Any]) -> list[str]:
    """The paths of what a state file says was made."""
    paths = [""]
    for each in record["uses"]:
        paths.append(f"{paths[each['in']]}/{each['name']}")
    return [paths[made["at"]] for made in record["made"]]


def lock_files(state: str | os.PathLike[str], rootfs: str) -> list[str]:
    """The lock files of a rootfs that is no overlay, one of which every run waits for first."""
    at = os.stat(rootfs)
    numbers = int.from_bytes(os.fsencode(os.path.realpath(rootfs)), "big") % (2**61 - 1)
    folder = os.path.join(state, "rootfs")
    os.makedirs(folder, 0o700, exist_ok=True)
    return sorted((f"{folder}/{at.st_dev}:{at.st_ino}", f"{folder}/{numbers:x}"))


def _entry(path: str) -> tuple[object, ...]:
    status = os.lstat(path)
    size = 0 if stat.S_ISDIR(status.st_mode) else status.st_size
    detail: object = None
    if stat.S_ISLNK(status.st_mode):
        detail = os.readlink(path)
    elif stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            detail = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
        detail = (os.major(status.st_rdev), os.minor(status.st_rdev))
    return (stat.filemode(status.st_mode), status.st_uid, status.st_gid, size, detail)


def mounts(process: int | str = "self") -> list[str]:
    """The lines of a process's mount table."""
    with open(f"/proc/{process}/mountinfo", encoding="utf-8", errors="surrogateescape", newline="\n") as table:
        return [line for line in table.read().split("\n") if line]


# flock(2) and LOCK_EX, as /proc/PID/syscall writes the call that a process sleeps in.
_FLOCK = {"x86_64": r"73 0x[0-9a-f]+ 0x2 ", "aarch64": r"32 0x[0-9a-f]+ 0x2 "}


def await_flock(pid: int) -> None:
    """Waits until process ``pid`` waits for an exclusive lock that is held. Raises TimeoutError.

    Not by /proc/locks: the kernel keeps all flock(2) of the machine out while it is read, and so the very call.
    """
    end = time.monotonic() + TIMEOUT
    while time.monotonic() < end:
        with open(f"/proc/{pid}/syscall", encoding="ascii") as file:
            if re.match(_FLOCK[platform.machine()], file.read()):
                return
        os.sched_yield()
    raise TimeoutError


def calls(work: Callable[[], object]) -> int:
    """How many functions Python and C call for ``work``, resumed generators among them: a time without a clock."""
    count = 0

    def note(_: object, event: str, __: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def children(pid: int) -> list[int]:
    """The processes that a process has forked, and not reaped yet."""
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return list(map(int, file.read().split()))
