# SPDX-License-Identifier: Apache-2.0
"""Real runs and dry-runs of one bundle, and what each says first. Of the bundle anything may be wrong.

A scene is made once: file systems, state folders, and a process in a mount namespace of its own, as a runtime has made
it. Each run is a fork that has the hook loaded and calls ``main``: all else is as it is for a hook.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import os
import signal
import stat
import traceback
from typing import TYPE_CHECKING, Any, NamedTuple

from helpers import mounting
from helpers.mounting import plant
from oci_bind_hook.cli import main
from oci_bind_hook.commands import dispatch  # noqa: F401 - loaded before each fork
from oci_bind_hook.commands.explain import dry_run, report  # noqa: F401
from oci_bind_hook.documents import judge, oci  # noqa: F401
from oci_bind_hook.kernel import linux
from oci_bind_hook.kernel.proc import Proc, boot_id
from oci_bind_hook.lifecycle import earlier, set_up, tear_down  # noqa: F401
from oci_bind_hook.mounting import confined, idmap, patterns, unopened  # noqa: F401
from oci_bind_hook.options import STAGES
from oci_bind_hook.record.document import write
from oci_bind_hook.record.state_file import now
from oci_bind_hook.rootfs.identity import identify_path

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from helpers.mounting import Tree
    from oci_bind_hook.record.state_file import Record

CLONE_NEWNS = 0x20000
CLONE_NEWUSER = 0x10000000
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
FORMS = ("state", "bundle")  # what a dry-run is given
WAYS = ("root", "rootless", "user namespace")
USER = 1000
BASE = 100000  # the first id of a user namespace that has many
ROOTFS: dict[str, Any] = {
    "etc": {"passwd": b"root:x:0:0:root:/root:/bin/sh\n"},
    **{name: {} for name in ("data", "dev", "proc", "real", "sys", "tmp", "volume")},
    "plain": b"",
    "loop": "loop",
    "climb": "../../../../real",
    "dangling": "/absent/place",
    "deep": "/x" * 300,
}
_libc = ctypes.CDLL(None, use_errno=True)


class Done(NamedTuple):
    """How a run ended, and what it wrote."""

    code: int
    out: str
    err: str


class Verdict(NamedTuple):
    """An exit code, and the first sentence: what is wrong, and where."""

    code: int
    first: str


class Case:
    """One call of the hook, before it is made: a good one at first, of which faults change what they like."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.stage = scene.stage
        self.config = copy.deepcopy(scene.config)
        self.state: dict[str, Any] = {
            "ociVersion": "1.0.2",
            "id": "c1",
            "status": "creating",
            "bundle": f"{scene.path}/bundle",
            "pid": scene.init,
        }
        self.state["pid"] = scene.init
        self.root = f"{scene.path}/state"
        self.words: list[str] = []
        self.state_text: Callable[[str], str] = str
        self.config_text: Callable[[str], str] = str
        self.needs_state = False  # without which nobody can tell

    @property
    def is_possible(self) -> bool:
        """Whether the hook can be called so: no runtime gets to createContainer without a folder for a rootfs."""
        rootfs = self.config["root"]["path"]
        return self.stage != "createContainer" or (os.path.isdir(rootfs) and rootfs != "/")

    def mount(self, text: str) -> None:
        self.words.append(f"--mount={text}")

    def runs(self) -> tuple[list[str], str]:
        """The words and stdin of a run."""
        with open(f"{self.scene.path}/bundle/config.json", "w", encoding="utf-8") as file:
            file.write(self.config_text(json.dumps(self.config)))
        words = [self.stage, *self.words, "--root", self.root]
        return [word for word in words if word], self.state_text(json.dumps(self.state))


class Scene:
    """All that runs need, made once; a context manager. ``way`` is who starts the runtime."""

    def __init__(self, path: Path, way: str) -> None:
        self.way = way
        self.path = f"{path}/{way.partition(' ')[0]}"
        self.stage = "createContainer" if way == "rootless" else "createRuntime"
        self.uid = {"root": 0, "rootless": USER, "user namespace": BASE}[way]
        self.children: list[int] = []
        self.config = self._config()
        os.makedirs(self.path)
        mounting.show(self.path)
        self.tree: Tree = ROOTFS
        self.drawn: Tree = {}
        self._make()
        # What a run compiles and caches, each fork has.
        oci.config_violations(self.config)
        oci.state(Case(self).state)
        gc.freeze()
        self._fds = [os.memfd_create(name) for name in ("stdin", "stdout", "stderr")]

    def _make(self) -> None:
        self._make_files()
        self.begin()

    def _make_files(self) -> None:
        mounting.tmpfs(self.path, "mode=755")
        self._plant()
        if self.way == "user namespace":
            self.holder = self._start(lambda: None, maps=f"0 {BASE} 65536\n")
        self.shared = self.init = self._start(lambda: None, is_shared=True)
        self._write_record()

    def _write_record(self) -> None:
        """The record of another container with the same id, which lives as long as this process, its first one."""
        proc, first = Proc(), os.getpid()
        start = proc.start_time(first)
        assert start is not None
        record: Record = {
            "id": "c1",
            "phase": "done",
            "created": now(),
            "boot": boot_id(),
            "stage": "createRuntime",
            "bundle": {"path": f"{self.path}/states/another", "dev": 1, "ino": 1},  # no fault names it as its bundle
            "rootfs": identify_path(f"{self.path}/rootfs", proc.mounts),
            "user": proc.user_namespace(),
            "namespace": {"kind": "container", "inode": proc.mount_namespace(), "unique": None},
            "init": {"pid": first, "start": start, "first": proc.first_start()},
            "mounts": [],
            "uses": [],
            "made": [],
        }
        path = f"{self.path}/states/live/c1.json"
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(write(record))
        os.chown(path, self.uid, self.uid)
        os.close(proc.fd)

    def draw(self, rootfs: Tree, mounts: list[dict[str, Any]]) -> None:
        """Makes all files anew, with this image and these mounts of config.json. No container begins yet."""
        self._remove()
        self.tree, self.config["mounts"] = rootfs, mounts
        self._make_files()

    def _remove(self) -> None:
        for child in self.children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.children.clear()
        mounting.umount(self.path, mounting.MNT_DETACH)

    def _config(self) -> dict[str, Any]:
        mounts = [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/volume", "type": "bind", "source": f"{self.path}/source", "options": ["bind"]},
        ]
        linux: dict[str, Any] = {"namespaces": [{"type": "mount"}]}
        if self.way == "rootless":
            linux["namespaces"].append({"type": "user"})
            ids = [{"containerID": 0, "hostID": USER, "size": 1}]
            linux.update(uidMappings=ids, gidMappings=ids)
        return {"ociVersion": "1.0.2", "root": {"path": f"{self.path}/rootfs"}, "mounts": mounts, "linux": linux}

    def _plant(self) -> None:
        path = self.path
        plant(f"{path}/rootfs", self.tree)
        mounting.tmpfs(f"{path}/fixed")
        plant(f"{path}/fixed/rootfs", self.tree)
        plant(f"{path}/fixed/state", {})
        plant(f"{path}/bundle", {})
        sources: dict[str, Any] = {
            "source": {"word": b"hello\n", "sub": {}, "out": "/etc", "loop": "loop"},
            "file": b"one\n",
            "dangling": f"{path}/absent",
            "loop": "loop",
            "allowed": {"inside": {}, "out": f"{path}/source"},
            "closed": {"source": {}},
            "empty": {},
            "drawn": self.drawn,
            "states": {name: {} for name in ("open", "broken", "fifo", "foreign", "live")},
            "changeable": {"state": {}},
            "state": {},
            "shut": {},
        }
        plant(path, sources)
        os.symlink(f"{path}/state", f"{path}/linked")
        for name in ("c1.json", "c2.json"):
            with open(f"{path}/states/broken/{name}", "w", encoding="ascii") as file:
                file.write("{}")
        os.mkfifo(f"{path}/states/fifo/c1.json", 0o600)
        for folder, _, names in os.walk(path):
            for name in [folder, *(f"{folder}/{each}" for each in names)]:
                os.chown(name, self.uid, self.uid, follow_symlinks=False)
        modes = {"state": 0o700, "states/open": 0o755, "states/broken": 0o700, "states/fifo": 0o700}
        modes.update(
            {
                "states/foreign": 0o700,
                "states/live": 0o700,
                "changeable": 0o777,
                "shut": 0o500,
                "changeable/state": 0o700,
                "fixed/state": 0o700,
            }
        )
        for name, mode in {**modes, "closed": 0o700, "states/broken/c1.json": 0o600}.items():
            os.chmod(f"{path}/{name}", mode)
        for name in ("states/foreign", "closed", "closed/source"):
            os.chown(f"{path}/{name}", 4, 4)
        mounting.remount(f"{path}/fixed", mounting.MS_RDONLY)
        for name in ("deleted", "unbindable"):
            plant(f"{path}/{name}.source", {"deleted": {}})
            plant(f"{path}/{name}", {})
        mounting.bind(f"{path}/deleted.source/deleted", f"{path}/deleted")
        os.rmdir(f"{path}/deleted.source/deleted")
        mounting.bind(f"{path}/unbindable.source", f"{path}/unbindable")
        mounting.propagate(f"{path}/unbindable", mounting.MS_UNBINDABLE)

    # -- processes -----------------------------------------------------------------------------------------------------

    def _start(self, make: Callable[[], object], maps: str = "", *, is_shared: bool = False) -> int:
        """A process in a mount namespace of its own, and with ``maps`` in a user namespace; it waits for its end.

        ``is_shared``: it stays in the mount namespace of who starts a runtime.
        """
        ready, tell = os.pipe()
        mapped, tell_mapped = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                if self.way == "rootless":
                    self._become_user()
                if not is_shared:
                    _check(_libc.unshare(CLONE_NEWNS | (CLONE_NEWUSER if maps else 0)))
                os.write(tell, b"1")
                os.read(mapped, 1)
                if maps:
                    os.setresgid(0, 0, 0)
                    os.setresuid(0, 0, 0)
                make()
                _check(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))  # as a program is that was started there
                _check(_libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0))
                os.write(tell, b"2")
                signal.pause()
            finally:
                os._exit(1)
        self.children.append(child)
        os.close(tell)
        assert os.read(ready, 1) == b"1"
        if maps:
            for name, text in (("setgroups", "deny"), ("gid_map", maps), ("uid_map", maps)):
                with open(f"/proc/{child}/{name}", "w", encoding="ascii") as file:
                    file.write(text)
        os.write(tell_mapped, b"1")
        is_made = os.read(ready, 1) == b"2"
        for fd in (ready, mapped, tell_mapped):
            os.close(fd)
        if not is_made:
            raise ChildProcessError
        return child

    def begin(self, *rootfs: str) -> None:
        """Starts the container's first process, for which the runtime has mounted all that config.json asks for.

        ChildProcessError if it cannot.
        """

        def make() -> None:
            if self.way == "user namespace":
                _enter(self.holder, "user", "mnt")
                os.setresuid(0, 0, 0)
                _check(_libc.unshare(CLONE_NEWNS))
            for folder in rootfs or (f"{self.path}/rootfs", f"{self.path}/fixed/rootfs"):
                mounting.bind(folder, folder)
                for each in self.config["mounts"]:
                    _mount(folder, each["type"], each["source"], each["destination"])

        self.init = self._start(make, maps=f"0 {USER} 1\n" if self.way == "rootless" else "")

    def __enter__(self) -> Scene:
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def _become_user(self) -> None:
        os.setgroups([])
        os.setresgid(self.uid, self.uid, self.uid)
        os.setresuid(self.uid, self.uid, self.uid)

    def _place(self, stage: str, *, is_dry: bool) -> None:
        """Goes to where a hook of this stage is called, or from where one asks for a dry-run."""
        if self.way == "user namespace":
            _enter(self.holder, "user", "mnt")
            os.setresuid(0, 0, 0)
        if self.way == "rootless" and (is_dry or stage != "createContainer"):
            self._become_user()
        elif stage == "createContainer" and not is_dry:
            _enter(self.init, *(("user",) if self.way == "rootless" else ()), "mnt")
            if self.way == "rootless":
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)

    def run(self, words: list[str], stdin: str, *, is_dry: bool = False) -> Done:
        """Runs the hook and returns how it ended."""
        for fd in self._fds:
            os.ftruncate(fd, 0)
            os.lseek(fd, 0, os.SEEK_SET)
        os.write(self._fds[0], stdin.encode())
        os.lseek(self._fds[0], 0, os.SEEK_SET)
        child = os.fork()
        if child == 0:
            try:
                for number, fd in enumerate(self._fds):
                    os.dup2(fd, number)
                stage = next((word for word in words[:1] if word[:1] != "-"), "")
                self._place(stage, is_dry=is_dry)
                _check(_libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0))
                # The parent of a createContainer hook is the container's first process: here one that ends with it.
                inside = os.fork() if stage == "createContainer" and not is_dry else 0
                if inside:
                    os._exit(os.waitstatus_to_exitcode(os.waitpid(inside, 0)[1]))
                os._exit(main(words))
            except BaseException:  # noqa: BLE001
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(111)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        out, err = (os.pread(fd, os.fstat(fd).st_size, 0).decode() for fd in self._fds[1:])
        return Done(code, out, err)

    # -- verdicts ------------------------------------------------------------------------------------------------------

    def real(self, case: Case) -> tuple[Verdict, str]:
        """The verdict of a real run, and all that it said. After a good one all is made anew."""
        words, stdin = case.runs()
        done = self.run(words, stdin)
        for child in self.children:
            if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                raise ChildProcessError(f"somebody else has ended the process {child}, which this run met")
        if done.code == 0 and self.tree is ROOTFS:
            self._remove()
            self._make()
        line = done.err.removesuffix("\n").partition("oci-bind-hook: ")[2]
        stages = [case.stage] if case.stage in STAGES else [*STAGES]
        for about in (f"{case.state.get('id')} {stage}: " for stage in stages):
            line = line.removeprefix(about)
        line = line.removeprefix(f"{case.state.get('id')}: ")
        if case.stage in STAGES:
            line = line.removeprefix(f"{case.stage}: ")
        return Verdict(done.code, line), done.err

    def dry(self, case: Case, form: str) -> tuple[Verdict, str]:
        """The verdict of a dry-run with the same ``state``, or without one, of the ``bundle``; the hint of it."""
        words, stdin = case.runs()
        if form == "bundle":
            words, stdin = [*words, "--bundle", case.state["bundle"]], ""
        done = self.run([*words, "--dry-run", "--format=json"], stdin, is_dry=True)
        if not done.out:
            return Verdict(done.code, done.err.removesuffix("\n").partition("oci-bind-hook: ")[2]), ""
        document = json.loads(done.out)
        problems = document["problems"]
        if document["verdict"].startswith("not known: "):
            return Verdict(-1, document["verdict"]), ""  # no real run ends so: of these bundles all can be known
        if not problems:
            # Of no matter here is what the runtime refuses: the hook is called as if it did not.
            return Verdict(0 if done.code == os.EX_CANTCREAT else done.code, ""), ""
        place = f"{problems[0]['where']}: " if problems[0]["where"] else ""
        return Verdict(done.code, f"{place}{problems[0]['message']}"), problems[0]["hint"]

    def is_same(self, real: Verdict, dry: Verdict, hint: str, form: str) -> bool:
        """Whether a dry-run of this ``form`` told how the real run ends."""
        # A bundle does not tell the id.
        first = real.first if form == "state" else real.first.replace("/c1.lock", "/ID.lock")
        rest = first.removeprefix(dry.first) if dry.first else first
        # What helps may be another thing outside of a user namespace.
        is_told = rest == "" or (rest != first and (hint in rest or self.way == "rootless"))
        return dry.code == real.code and is_told

    def differences(
        self, what: str, faults: Sequence[Callable[[Case], object]], forms: Sequence[str] = FORMS
    ) -> Iterator[str]:
        """What a dry-run of a bundle with these ``faults`` says otherwise than the real run, in each of ``forms``."""

        def case() -> Case:
            made = Case(self)
            for fault in faults:
                fault(made)
            return made

        if not case().is_possible:
            return
        real, said = self.real(case())
        for form in forms:
            if form == "bundle" and case().needs_state:
                continue
            dry, hint = self.dry(case(), form)
            if not self.is_same(real, dry, hint, form):
                told = f"real {real.code} {said[-500:].strip()}\n  dry  {dry.code} {dry.first} ({hint})"
                yield f"{what}, by {form}:\n  {told}"


def _mount(rootfs: str, type: str, source: str, destination: str) -> None:
    """Mounts as a runtime does: what is missing is made, and links mean what they mean in the container. OSError."""
    outside = os.open("/", os.O_PATH)
    tree = None
    if type in ("bind", "proc"):
        tree = linux.open_tree(os.open("/proc" if type == "proc" else source, os.O_PATH), clone=True, recursive=True)
    os.chroot(rootfs)
    os.chdir("/")
    if os.path.exists(destination) and os.path.samestat(os.stat(destination), os.stat("/")):
        raise PermissionError
    if tree is None or stat.S_ISDIR(os.fstat(tree).st_mode):
        os.makedirs(destination, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(destination), exist_ok=True)
        os.close(os.open(destination, os.O_CREAT, 0o644))
    if tree is None:
        mounting.mount("tmpfs", destination, "tmpfs")
    else:
        linux.move_mount(tree, os.open(destination, os.O_PATH))
    os.fchdir(outside)
    os.chroot(".")


def _enter(pid: int, *kinds: str) -> None:
    # All first: in a user namespace of others they cannot be opened.
    for fd in [os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in kinds]:
        _check(_libc.setns(fd, 0))
        os.close(fd)


def _check(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
