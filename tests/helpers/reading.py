# SPDX-License-Identifier: Apache-2.0
"""Runs of the hook that are refused one of the calls by which they look at something, helpers.sweep."""

from __future__ import annotations

import importlib
import json
import os
import re
import traceback
from typing import TYPE_CHECKING, Any

from helpers import mounting, support
from helpers.sweep import NEIGHBOURS, Act, Container, Scene, Sweep, assert_same, finish

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from helpers.sweep import Begun, Done, Point

ERRORS = ("EIO", "ENOMEM", "EMFILE", "ENFILE", "ESTALE", "EACCES", "ENOTCONN")
READING = frozenset(
    (
        *("access", "fstat", "fstatfs", "getdents64", "ioctl", "lstat", "newfstatat", "open", "openat", "openat2"),
        *("pidfd_open", "pread64", "read", "readlink", "readlinkat", "stat", "statfs", "statx"),
    )
)


# A run has its modules before it is refused anything: the way Python looks for them is Python's.
for _name in ("dispatch", "running", "upkeep.gc"):
    importlib.import_module(f"oci_bind_hook.commands.{_name}")
for _name in ("attach", "detach", "earlier", "set_up", "tear_down", "witness"):
    importlib.import_module(f"oci_bind_hook.lifecycle.{_name}")


def is_reading(point: Point) -> bool:
    """Whether a call only looks. Where it asks for a terminal, any error says that there is none."""
    return point.call in READING and "O_CREAT" not in point.text and "TCGETS" not in point.text


def tells(point: Point, error: str) -> bool:
    """Whether an error says only that something is not to be seen now.

    EACCES at a process or at its namespace says more, proc(5): they are hidden from this user, now and later. So it
    does at the end of what was read, of which this one sees no path.
    """
    return error != "EACCES" or re.search(r'"\.\./\d+/(ns/|stat)|"\d+ \(|^read\(\d+, "",', point.text) is None


def alone(action: Callable[[], object]) -> Any:
    """Calls ``action`` as process 1 of a pid namespace of its own, and returns what it returns, as JSON has it.

    The hook looks at every process: here they are the same each time, and so is the number of its calls.
    """
    told = os.memfd_create("told")

    def act() -> None:
        mounting.unshare()
        mounting.mount("proc", "/proc", "proc")
        try:
            answer = [action(), ""]
        except Exception:  # noqa: BLE001 - the test is another process, and is to tell
            answer = [None, traceback.format_exc()]
        os.write(told, json.dumps(answer).encode())

    mounting.unshare_pids()
    assert mounting.ended_well(mounting.forked(act))
    found, failure = json.loads(os.pread(told, 1 << 24, 0))
    assert not failure, failure
    return found


# -- what is there before ----------------------------------------------------------------------------------------------


def _nothing(scene: Scene) -> None:
    pass


def _set_up(scene: Scene) -> None:
    scene.set_up()


def _alive(scene: Scene) -> None:
    scene.set_up()
    scene.set_up("n2")


def _dead(scene: Scene) -> None:
    """In this namespace nobody tells that c1 is dead but its record."""
    _alive(scene)
    scene.end_container()
    if not scene.is_entered:
        path = scene.state / "c1.json"
        record = {**json.loads(path.read_text()), "init": {"pid": 1, "start": 1, "first": None}}
        path.write_text(json.dumps(record, separators=(",", ":")))


def _outlived(scene: Scene) -> None:
    """The first process has ended, and another one still sees the binds."""
    _alive(scene)
    first = scene.container
    assert first is not None
    scene.container = Container(scene.rootfs, beside=first.pid)
    first.end()


ACTS = {
    "first call": Act(_nothing, "set-up"),
    "second call": Act(_set_up, "set-up", more=True),
    "poststop": Act(_alive, "poststop"),
    "detach": Act(_alive, "detach"),
    "list": Act(_alive, "list"),
    "show": Act(_alive, "show c1"),
    "list of a dead one": Act(_dead, "list"),
    "gc": Act(_dead, "gc"),
    "gc beside a live one": Act(_alive, "gc"),
    "gc beside one that is outlived": Act(_outlived, "gc"),
}


# -- what is refused, and what must come of it -------------------------------------------------------------------------

# EX_USAGE: of stdin. EX_NOINPUT: of the bundle, the rootfs or a source in a set-up. EX_UNAVAILABLE: of procfs.
SET_UP = {os.EX_USAGE, os.EX_NOINPUT, os.EX_UNAVAILABLE, os.EX_OSERR, os.EX_IOERR, os.EX_NOPERM}
AFTER = {os.EX_USAGE, os.EX_UNAVAILABLE, os.EX_OSERR, os.EX_IOERR}

# Where a set-up may go on as if nothing were: the call, and why.
HARMLESS = [
    # What a mount below the source is known by; without it, it is known by its look.
    r'(openat|statx)\(\d+, "(sub)?"',
    # It is there already, or makedirs says why not.
    r'newfstatat\(AT_FDCWD, ".*/state", .*S_IFDIR',
    # A neighbour's record: a set-up removes nothing that could be the neighbour's.
    r'openat\(\d+, "(n1|c1).json"',
    r'(newfstatat|read)\(\d+, "(\{\\"\$schema\\":.*)?"',
    # There is no journal, and no syslog.
    r'access\("/(dev/log|run/systemd/journal/socket)"',
    # Where the runtime itself mounts. It tells what is wrong with that.
    r'openat\(\d+, "(proc|dev)"',
    # Bound already: nobody needs the source any more.
    r'openat\(AT_FDCWD, ".*/(source|volume|a file)"',
]


# The same for attach.
HARMLESS_RUNNING = [
    # Whether --pid is a thread: what comes next fails, too, if the process cannot be seen.
    r'fstatfs\(|openat\(\d+, "\.\./\d+/status"|read\(\d+, "Name:',
    # Whether the rootfs is read-only for the host: what is not known is taken for that.
    r'openat\(AT_FDCWD, ".*/rootfs"',
    # Of /proc and /dev, where the runtime itself mounts. It tells what is wrong with that.
    r'openat\(\d+, "(fdinfo/\d+|mountinfo)"|read\(\d+, "(pos:|\d+ \d+ 0:)',
]


# The status of whoever called the hook in a container, if this user may not see it, proc(5).
HIDDEN_CALLER = r'read\(\d+, "Name:'

# The upper folder of an overlay, if this user may not look there: then the rootfs is known without.
HIDDEN_UPPER = r"newfstatat\(AT_FDCWD, .*AT_SYMLINK_NOFOLLOW"


class Reading(Sweep):
    """An act that is refused what it reads."""

    def __init__(self, scene: Scene, act: str) -> None:
        super().__init__(scene, act, ACTS[act])
        # Where nothing is ever changed, what was before is there for the next try, too.
        self.is_changing = self.act.run in ("set-up", "poststop", "detach") or act == "gc"
        self.is_ready = False
        # Not by scene.look, which starts a container.
        self.nothing = set(support.tree(scene.rootfs))
        self.found = self._find()

    def begin(self) -> Begun:
        if not self.is_ready:
            self.act.before(self.scene)
        self.is_ready = not self.is_changing
        return self.scene.begin(self.act.run, more=self.act.more)

    def end(self) -> None:
        """Puts the scene back to how it was at first. AssertionError."""
        self.is_ready = False
        finish(self.scene)

    def attempt(self, what: str, action: Callable[..., None], *arguments: object) -> None:
        leaks = len(self.leaks)
        super().attempt(what, action, *arguments)
        self.is_ready = self.is_ready and leaks == len(self.leaks)

    def _find(self) -> list[Point]:
        """All calls that only look, each with the same number every time."""
        scene = self.scene
        found = scene.trace(*self.begin(), whole=True)
        assert not any(re.search(r"\.pyc?\"|__pycache__", point.text) for point in found), "a module was looked for"
        self.records = self._records()
        self.end()
        return [point for point in found if is_reading(point)]

    def _records(self) -> dict[str, Any]:
        """What a command that prints JSON told of each container."""
        said = self.scene.said
        return {record["id"]: record for record in json.loads(said)["records"]} if said.startswith("{") else {}

    def fail(self, point: Point, error: str) -> None:
        """Refuses one call: all that is there is still recorded, and what went wrong is told. AssertionError."""
        scene = self.scene
        begun = self.begin()
        before = scene.look()
        mounts = scene.table()
        done = self.refuse(begun, point.inject(f"error={error}"))
        now = scene.look()
        records = self._records()
        if self.act.run == "set-up":
            self._check_line(done, SET_UP)
            if done.returncode:
                # A second call that fails ends the container's creation: what the first one did goes, too, if it is
                # known yet which container that is.
                is_early = done.returncode == os.EX_USAGE or not re.search(r"oci-bind-hook: c1", done.stderr)
                if self.act.more and scene.where in ("entered", "inside") and not is_early:
                    self._check_given_up(now, done)
                else:
                    assert_same(without_locks(now), without_locks(before))
            else:
                hidden = {"overlay": [HIDDEN_UPPER], "inside": [HIDDEN_CALLER]} if error == "EACCES" else {}
                harmless = [
                    *HARMLESS,
                    *hidden.get(scene.where, []),
                    *(HARMLESS_RUNNING if scene.where == "running" else []),
                ]
                assert any(re.match(call, point.text) for call in harmless), "not refused"
        elif self.act.run == "poststop":
            self._check_line(done, AFTER)
            assert done.returncode or not (scene.state / "c1.json").exists(), "nothing is told of what is left"
        elif self.act.run == "detach":
            self._check_line(done, SET_UP)
            left = {str(row[0])[len(scene.rootfs) :] for row in scene.table()}
            assert done.returncode or left <= {"/dev", *NEIGHBOURS}, "it is told to be detached"
        else:
            self._check_line(done, AFTER, [record["problem"] for record in records.values() if "problem" in record])
            for name, record in records.items():
                check_record(record, self.records[name], may_finish=self.is_changing and name == "c1")
            if not self.is_changing:
                assert_same(without_locks(now), without_locks(before))
                assert scene.table() == mounts
            elif not done.returncode:
                assert records["c1"]["action"] == "finished", records["c1"]
                assert not (scene.state / "c1.json").exists()
        assert now["mounts"] == before["mounts"] or not scene.is_entered
        if self.is_changing:
            self.end()

    def _check_given_up(self, now: dict[str, Any], done: Done) -> None:
        """Nothing is left of c1 but what its neighbour uses, which is recorded there. AssertionError."""
        assert "c1.json" not in now["state"], done.stderr
        # Not by our own reader: what it loads, the runs that are forked from here would load no more.
        kept = {path[1:] for path in support.made_paths(json.loads((self.scene.state / "n1.json").read_text()))}
        assert set(now["rootfs"]) - self.nothing <= kept

    def _check_line(self, done: Done, codes: set[int], problems: Sequence[dict[str, Any]] = ()) -> None:
        """One line, which names a place and says what to do. Of a command, a problem of its own may tell instead."""
        if not done.returncode:
            assert done.stderr == ""
            return
        assert done.returncode in codes, done
        for line in [problem["message"] for problem in problems] or [done.stderr.removesuffix("\n")]:
            assert "\n" not in line, line
            assert "a bug" not in line, line
            assert re.search(r" /|stdin|process \d|namespace", line), f"no place: {line}"
            assert re.search(r"\(.+\)", line) or "stdin" in line, f"nothing to do: {line}"


def check_record(now: dict[str, Any], known: dict[str, Any], *, may_finish: bool) -> None:
    """Nothing is told of a container but what is true, or that it is not known. AssertionError."""
    if "action" in now:
        assert may_finish or now["action"] != "finished", now
    else:
        assert now["status"] in (known["status"], "unknown", "unreadable"), now
        for what in ("mounts", "made"):
            for one, other in zip(now[what], known[what], strict=now["status"] != "unreadable"):
                assert one["state"] in (other["state"], "unseen"), (one, other)
                assert one["state"] == other["state"] or what == "mounts" or one["reason"], one


def without_locks(seen: dict[str, object]) -> dict[str, object]:
    """What was seen, but for empty lock files: the next run removes them."""
    state: dict[str, object] = seen["state"]  # type: ignore[assignment]
    return {**seen, "state": {name: entry for name, entry in state.items() if not name.endswith(".lock")}}
