# SPDX-License-Identifier: Apache-2.0
"""Runs of the hook that are stopped, or refused something, at one of their system calls after the other.

What a run calls is told by strace once; then it is run again for each of these calls. strace kills on entry, and the
kernel then leaves that call out: so what is left is what all calls before have done, and killing at each call shows
every state that a run can be in for others.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from helpers import mounting, support
from helpers import world as worlds
from helpers.running import init, without_admin
from helpers.world import World
from oci_bind_hook.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    # The words, stdin and place of a run.
    Begun = tuple[list[str], str, "Container | None"]

# They change nothing but our own memory, and how many there are is chance.
MEMORY = frozenset(("brk", "madvise", "mmap", "mprotect", "mremap", "munmap"))
# After these, what others can see of a run may be different.
CHANGING = frozenset(
    (
        *("fchmod", "fchown", "flock", "fsync", "ftruncate", "mkdir", "mkdirat", "mknodat", "mount"),
        *("mount_setattr", "move_mount", "renameat", "setns", "umount2", "unlink", "unlinkat", "unshare", "write"),
    )
)
# Besides these: what a run needs in order to change anything, or to be safe while it does.
NEEDED = frozenset(("capset", "chdir", "fchdir", "fcntl", "open_tree", "pidfd_open", "prctl", "prlimit64"))
ERRORS = ("EIO", "ENOSPC", "EPERM", "EINTR", "EAGAIN", "ENOMEM", "EMFILE")
KILLED = -signal.SIGKILL
NEIGHBOURS = ["/made/theirs", "/shared/theirs"]


class Point(NamedTuple):
    """One system call of a run: the ``number``-th of its name, as strace wrote it in ``text``, after ``before``.

    ``counts`` tells how many of each name there were until then, this one included.
    """

    call: str
    number: int
    text: str
    before: str
    counts: dict[str, int]

    def __str__(self) -> str:
        return f"{self.text[:60]}... ({self.number})"

    def inject(self, how: str, *, on: str = "") -> tuple[str, ...]:
        """The words for strace that do ``how`` to this call, or to it and those ``on`` from it ("+")."""
        return ("-e", f"inject={self.call}:{how}:when={self.number}{on}")

    @property
    def is_fallible(self) -> bool:
        """Whether the run would not do its work if this call failed."""
        return is_change(self.text) or self.call in NEEDED


def is_change(text: str) -> bool:
    """Whether somebody else may see what a call has done."""
    name = text.partition("(")[0]
    return name in CHANGING or (name == "openat" and "O_CREAT" in text)


class Done(NamedTuple):
    """How a run ended."""

    returncode: int
    stderr: str


class Container:
    """A process in a mount namespace of its own, with what a runtime has mounted there by the time of its hooks.

    Or it is in the namespace of the process that it is ``beside``; or it runs, and has its own root.
    """

    def __init__(self, rootfs: str, *, beside: int | None = None, runs: bool = False) -> None:
        if runs:
            self.pid = init(rootfs)
            return
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                if beside is not None:
                    mounting.enter(beside)
                else:
                    mounting.unshare()
                    mounting.bind(rootfs, rootfs, recursive=True)
                    mounting.tmpfs(f"{rootfs}/dev")
                os.write(told, b"!")
                while True:
                    signal.pause()
            finally:
                os._exit(1)
        os.close(told)
        assert os.read(ready, 1) == b"!"
        os.close(ready)

    def end(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class Scene(World):
    """A world on a tmpfs, small, and what happens in it: the containers "c1", and "n1" and "n2" on the same rootfs.

    ``where`` tells how c1 is set up: "here", in this mount namespace; "overlay", the same on a rootfs on overlayfs;
    "entered", in a container's namespace that the hook enters; "inside", by a hook that is started there; "running",
    by attach, in a container that runs. The neighbours are here, n1 from the start.
    """

    def __init__(self, path: Path, launcher: str, where: str) -> None:
        self.path = path
        self.launcher = launcher
        self.where = where
        self.stage = {"entered": "createRuntime", "inside": "createContainer"}.get(where, "prestart")
        self.container: Container | None = None
        self.output = os.memfd_create("trace")
        self.said = ""
        self.build()

    def build(self) -> None:
        """Makes all anew, whatever is there."""
        self.end_container()
        points = [info.mount_point for info in mounting.table()]
        if str(self.path) in points:
            mounting.umount(str(self.path), mounting.MNT_DETACH)
        mounting.tmpfs(str(self.path))
        tree: mounting.Tree = {
            "bundle": {"rootfs": {"dev": {}, "etc": {"passwd": b"root\n"}, "empty": {}}},
            "source": {"word": b"hello\n", "in": {}, "sub": {}},
            "volume": {},
            "a file": b"one file\n",
        }
        mounting.plant(self.path, tree)
        self.rootfs = f"{self.path}/bundle/rootfs"
        if self.where == "overlay":
            mounting.plant(self.path, {"upper": {}, "work": {}})
            layers = f"lowerdir={self.rootfs},upperdir={self.path}/upper,workdir={self.path}/work"
            mounting.mount("overlay", self.rootfs, "overlay", data=layers)
        self.source = self.path / "source"
        self.file = self.path / "a file"
        mounting.tmpfs(f"{self.source}/sub")
        self.state = self.path / "state"
        self.state.mkdir(mode=0o700)
        # attach asks who calls poststop. A scene without a launcher calls the hook's functions.
        hooks = {"poststop": [self.hook("poststop")]} if self.launcher else None
        bundle = support.bundle(self.path / "bundle", ["true"], namespaces=["mount"], hooks=hooks)
        if self.where == "running":
            without_admin(bundle)
        self.empty = self.look()
        self.set_up("n1")
        self.base = self.look()

    # -- what is asked for --------------------------------------------------------------------------------------

    def words(self, name: str, *, more: bool = False) -> list[str]:
        """The hook's arguments for the set-up of one container. ``more`` is what a second call adds."""
        folder, volume, file = str(self.source), str(self.path / "volume"), str(self.file)
        specs = {
            "n1": [f"src={volume},dst=/shared/theirs"],
            "n2": [f"src={volume},dst=/made/theirs"],
            "c1": [
                f"src={folder},dst=/made/deep/folder,rro",
                f"src={volume},dst=/made/deep/folder/in",
                f"src={file},dst=/etc/one-file,ro",
                f"src={volume},dst=/shared/mine,bind-recursive=disabled",
                f"src={folder},dst=/empty",
            ],
        }[name]
        if more:
            specs += [f"src={volume},dst=/made/deep/er", f"src={file},dst=/shared/file"]
        mounts = [word for spec in specs for word in ("--mount", spec)]
        if name == "c1" and self.where == "running":
            return self.of_running("attach", *mounts)
        return [self.stage if name == "c1" else "prestart", *mounts]

    def of_running(self, command: str, *words: str) -> list[str]:
        """The words of attach or detach for c1."""
        assert self.container is not None
        named = ["c1", "--bundle", str(self.path / "bundle"), "--pid", str(self.container.pid)]
        return [command, *named, *words]

    def sent(self, name: str, status: str) -> str:
        """The state that a runtime sends on stdin."""
        members = {}
        if self.where == "entered" and name == "c1" and status != "stopped":
            assert self.container is not None
            members["pid"] = self.container.pid
        return worlds.state(self, name, status, **members)

    def begin(self, run: str, *, more: bool = False) -> Begun:
        """What a "set-up" of c1, its "poststop", or a command is run with."""
        if run == "poststop":
            self.end_container()
            return ["poststop"], self.sent("c1", "stopped"), None
        if run == "detach":
            return self.of_running("detach", "--all"), "", None
        if run != "set-up":
            return [*run.split(), "--format", "json"], "", None
        self.start_container()
        return (
            self.words("c1", more=more),
            self.sent("c1", "creating"),
            self.container if self.where == "inside" else None,
        )

    # -- what is done -------------------------------------------------------------------------------------------

    @property
    def is_entered(self) -> bool:
        """Whether c1 is in a mount namespace of its own."""
        return self.where in ("entered", "inside", "running")

    def start_container(self) -> None:
        if self.is_entered and self.container is None:
            self.container = Container(self.rootfs, runs=self.where == "running")

    def end_container(self) -> None:
        if self.container is not None:
            self.container.end()
            self.container = None

    def set_up(self, name: str = "c1", *, more: bool = False) -> None:
        if name == "c1":
            done = self.run(*self.begin("set-up", more=more))
        else:
            done = self.run(self.words(name), self.sent(name, "creating"))
        assert done == (0, ""), f"set-up of {name}: {done}"

    def tear_down(self, name: str = "c1") -> None:
        if name == "c1":
            self.end_container()
        done = self.run(["poststop"], self.sent(name, "stopped"))
        assert done == (0, ""), f"tear-down of {name}: {done}"

    def run(
        self, words: Sequence[str], stdin: str, inside: Container | None = None, strace: Sequence[str] = ()
    ) -> Done:
        """The hook in a fork of this process, which has its modules already; under ``strace`` with these options.

        What it wrote to stdout is in ``said`` afterwards.
        """
        given, said, told = os.memfd_create("stdin"), os.memfd_create("stdout"), os.memfd_create("stderr")
        os.write(given, stdin.encode())
        os.lseek(given, 0, os.SEEK_SET)
        ready, tell = os.pipe()
        wait, go = os.pipe()

        def act() -> None:
            for number, fd in enumerate((given, said, told)):
                os.dup2(fd, number)
            os.write(tell, str(os.getpid()).encode())
            # By a call that the hook never makes: this one may be counted or not. And select(2) takes no fd above 1023.
            waiting = select.epoll()
            waiting.register(wait, select.EPOLLIN)
            waiting.poll()
            os._exit(main([*words, *self.root_option()]))

        def act_inside() -> None:
            # The hook's parent plays the container's first process, and ends after it.
            assert inside is not None
            mounting.enter(inside.pid)
            status = os.waitpid(mounting.forked(act), 0)[1]
            os._exit(255 if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))

        child = mounting.forked(act_inside if inside else act)
        pid = os.read(ready, 20).decode()
        with self.attached(pid, strace):
            os.write(go, b"!")
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        text = os.pread(told, 1 << 16, 0).decode()
        self.said = os.pread(said, 1 << 20, 0).decode()
        for fd in (given, said, told, ready, tell, wait, go):
            os.close(fd)
        return Done(KILLED if code == 255 else code, text)

    @contextlib.contextmanager
    def attached(self, pid: str, options: Sequence[str]) -> Iterator[None]:
        """Has strace attached to a process that waits, and afterwards has waited for its end. Not without options."""
        if not options:
            yield
            return
        command = ["strace", "-p", pid, *options]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, pass_fds=[self.output]) as tracer:
            assert tracer.stderr is not None
            line = tracer.stderr.readline()
            assert line.endswith(" attached\n"), line
            yield
            tracer.communicate(timeout=support.TIMEOUT)

    def trace(self, words: Sequence[str], stdin: str, inside: Container | None, *, whole: bool = False) -> list[Point]:
        """What a run that is not hindered calls: the ``whole``, or from its first touch of the state folder."""
        os.ftruncate(self.output, 0)
        done = self.run(words, stdin, inside, ("-s", "4096", "-o", f"/proc/self/fd/{self.output}"))
        text = os.pread(self.output, 1 << 24, 0).decode(errors="replace")
        assert done == (0, ""), done
        # The first call is the one in which strace met it.
        return points(text.splitlines(), "" if whole else f'"{self.state}"')

    # -- what is seen -------------------------------------------------------------------------------------------

    def look(self) -> dict[str, object]:
        """All that must be the same before and after."""
        here = self.snapshot()
        here["state"] = support.tree(self.state)
        return here

    def table(self) -> list[tuple[object, ...]]:
        """The mounts in the rootfs where c1 is: all that does not change with each mount."""
        infos = mounting.table(self.container.pid if self.container else "self")
        if self.container is not None and self.where == "running":
            infos = [info for info in infos if info.mount_point not in ("/", "/proc")]
            for info in infos:
                info.mount_point = self.rootfs + info.mount_point
        mine = [info for info in infos if info.mount_point.startswith(self.rootfs + "/")]
        return sorted(
            (info.mount_point, info.root, info.type, *info.options, info.shared is None, info.is_propagated)
            for info in mine
        )


def points(lines: Iterable[str], first: str) -> list[Point]:
    """The calls in the output of strace, from the first with the text ``first`` to the last."""
    counts: dict[str, int] = {}
    found: list[Point] = []
    before = ""
    for line in lines:
        call = re.match(r"\w+", line)
        if call is None or call[0] in MEMORY:
            continue
        counts[call[0]] = counts.get(call[0], 0) + 1
        # What strace has no name for, it cannot stop at: of what we call only statmount(2), which changes nothing.
        is_known = not call[0].startswith("syscall_")
        if is_known and (found or first in line):
            found.append(Point(call[0], counts[call[0]], line, before, dict(counts)))
        before = line if is_known else before
    assert found, f"no call has {first}"
    return found


# -- what is stopped, and what puts it right ---------------------------------------------------------------------


class Act(NamedTuple):
    """A run to be stopped, and what was ``before`` it.

    ``run``: a "set-up", perhaps of ``more`` than before, "poststop", or a command.
    """

    before: Callable[[Scene], None]
    run: str
    more: bool = False


def _nothing(scene: Scene) -> None:
    pass


def _set_up(scene: Scene) -> None:
    scene.set_up()


def _died(scene: Scene) -> None:
    scene.set_up()
    old, scene.container = scene.container, None
    # Before the end of the old one: else the number of its namespace would be used again, or not, by chance.
    scene.start_container()
    if old is not None:
        old.end()


def _with_neighbour(scene: Scene) -> None:
    scene.set_up()
    scene.set_up("n2")


ACTS = {
    "first call": Act(_nothing, "set-up"),
    "second call": Act(_set_up, "set-up", more=True),
    "call after a dead one": Act(_died, "set-up"),
    "poststop": Act(_with_neighbour, "poststop"),
    "detach": Act(_with_neighbour, "detach"),
}


def _once_more(scene: Scene) -> None:
    scene.set_up(more=True)
    names = [str(row[0])[len(scene.rootfs) :] for row in scene.table()]
    names = [name for name in names if name not in ("/dev", *NEIGHBOURS)]
    wanted = ["/empty", "/etc/one-file", "/made/deep/er", "/made/deep/folder", "/made/deep/folder/in", "/shared/file"]
    wanted += ["/empty/sub", "/made/deep/folder/sub", "/shared/mine"]
    assert sorted(names) == sorted(wanted), names
    options = {str(row[0])[len(scene.rootfs) :]: row for row in scene.table()}
    for name in wanted:
        is_read_only = name in ("/etc/one-file", "/made/deep/folder", "/made/deep/folder/sub")
        assert ("ro" in options[name]) == is_read_only, options[name]
        assert options[name][-2:] == (True, False), options[name]


def _next(scene: Scene) -> None:
    scene.end_container()
    _once_more(scene)


def _neighbour(scene: Scene) -> None:
    if not (scene.state / "n2.json").exists():
        scene.set_up("n2")


def _gc(scene: Scene) -> None:
    """Leaves poststop nothing to do. Of what is here nobody can tell that it has ended, and it is kept."""
    scene.end_container()
    done = scene.run(["gc"], "")
    assert done.returncode == 0, done
    left = [name for name in os.listdir(scene.state) if name.startswith("c1.")]
    assert scene.where == "here" or left == [], (left, done)


# What happens between a run that was stopped and poststop.
RECOVERIES: dict[str, Callable[[Scene], None]] = {
    "poststop": lambda _: None,
    "the same again": _once_more,
    "the next of this id": _next,
    "a neighbour comes": _neighbour,
    "gc": _gc,
}


def recover(scene: Scene, how: str) -> None:
    """Puts right what a stopped run has left, and looks whether all is as before. AssertionError."""
    RECOVERIES[how](scene)
    finish(scene)


def finish(scene: Scene) -> None:
    """One poststop, and the neighbours' ends: all must be as before. AssertionError."""
    scene.tear_down()
    if (scene.state / "n2.json").exists():
        assert [str(row[0])[len(scene.rootfs) :] for row in scene.table()] == NEIGHBOURS
        scene.tear_down("n2")
    assert_same(scene.look(), scene.base)


def assert_same(now: dict[str, object], before: dict[str, object]) -> None:
    for key, value in before.items():
        if now[key] != value:
            gone = [one for one in _items(value) if one not in _items(now[key])]
            new = [one for one in _items(now[key]) if one not in _items(value)]
            raise AssertionError(f"{key}: new {new}, gone {gone}")


def _items(value: object) -> list[object]:
    return list(value.items()) if isinstance(value, dict) else list(value)  # type: ignore[call-overload]


def states(found: Sequence[Point]) -> list[Point]:
    """Of all points those that differ for others from the one before: the first after each change."""
    return [point for number, point in enumerate(found) if not number or is_change(point.before)]


def kinds(found: Sequence[Point]) -> list[Point]:
    """Of all points one of each kind: the last of those that differ in numbers and flags only."""
    return list({re.sub(r"[\dA-Z_|]+", "0", point.text.partition(" = ")[0]): point for point in found}.values())


class Sweep:
    """One act, stopped at its points; how many were tried, and where something was left."""

    def __init__(self, scene: Scene, name: str, act: Act | None = None) -> None:
        self.scene = scene
        self.name = name
        self.act = act or ACTS[name]
        self.tried = 0
        self.leaks: list[str] = []

    def begin(self) -> Begun:
        """Makes what is there before the act, and returns the words, stdin and place to run it with."""
        self.act.before(self.scene)
        return self.scene.begin(self.act.run, more=self.act.more)

    def points(self, *, whole: bool = False) -> list[Point]:
        """The calls of the act, seen once: the ``whole``, or from its first touch of the state folder."""
        found = self.scene.trace(*self.begin(), whole=whole)
        finish(self.scene)
        return found

    def kill(self, begun: Begun, point: Point) -> None:
        """Runs what was ``begun``, and kills it at ``point``."""
        done = self.refuse(begun, point.inject("signal=KILL"))
        assert done == (KILLED, ""), f"not killed: {done}"

    def attempt(self, what: str, action: Callable[..., None], *arguments: object) -> None:
        """Counts one try. Where something is left, or goes wrong, the scene is built anew."""
        self.tried += 1
        try:
            action(self, *arguments)
        except AssertionError as leak:
            self.leaks.append(f"{what}: {str(leak)[:400]}")
            self.scene.build()

    def refuse(self, begun: Begun, *faults: tuple[str, ...]) -> Done:
        """Runs what was ``begun``, with these faults, as ``Point.inject`` gives them."""
        words = [word for fault in faults for word in fault]
        # Only these calls are written: to format all of them takes longer than the run.
        calls = ",".join(word.split(":")[0].removeprefix("inject=") for word in words if word.startswith("inject="))
        return self.scene.run(*begun, ("-o", "/dev/null", "-e", f"trace={calls}", *words))

    def report(self, name: str) -> None:
        print(f"{name}: {self.tried} points tried, leaks {len(self.leaks)}")
        assert not self.leaks, "\n".join(self.leaks)
