# SPDX-License-Identifier: Apache-2.0
"""The kernel refuses one of the calls of a run, whichever: nothing is left half done, and one line says why."""

from __future__ import annotations

import itertools
import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from helpers import kernels
from helpers.sweep import ERRORS, Scene, Sweep, assert_same, finish, kinds

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from helpers.sweep import Done, Point

SWEEPS = [
    ("here", "first call", "this"),
    ("here", "second call", "this"),
    ("here", "poststop", "this"),
    ("entered", "first call", "this"),
    ("entered", "call after a dead one", "this"),
    ("entered", "poststop", "this"),
    ("inside", "first call", "this"),
    ("running", "first call", "this"),
    ("running", "detach", "this"),
    ("here", "first call", "before 5.12"),
    ("here", "poststop", "before 5.12"),
    ("entered", "first call", "before 5.12"),
]
sweeps = pytest.mark.parametrize(("where", "act", "kernel_name"), SWEEPS)

CODES = {os.EX_NOINPUT, os.EX_UNAVAILABLE, os.EX_OSERR, os.EX_IOERR, os.EX_NOPERM}

# Where a run may go on as if nothing were: the call, the error, and why.
HARMLESS = [
    # open(2), write(2), fsync(2), flock(2) and fchdir(2) are called again by Python, PEP 475.
    (r"(openat|write|fsync|flock|fchdir|mknodat)\(", "EINTR"),
    # Another process would hold it: it is waited for.
    (r"flock\(.*LOCK_NB", "EAGAIN"),
    # The state folder is there already.
    (r"mkdir\(.*/state", ".*"),
    # Asks only whether the kernel has that call. Anything but ENOSYS, or EPERM, says yes.
    (r"(open_tree|mount_setattr|move_mount)\(-1,", ".*"),
    # An empty file or folder that nobody holds is left, for the next run.
    (r"unlinkat\(\d+, \"([^\"]*\.lock|rootfs|[0-9a-f:]+)\"", ".*"),
    # An id without a record is left in a list. In a set-up its list is written, or it fails.
    (r"(pwrite64|ftruncate)\(", ".*"),
    # attach and detach say what they have done to nobody.
    (r"write\(1, ", ".*"),
]
# The same on older kernels: the staging folder is taken away by a second try, before or after the container is there.
HARMLESS_STAGED = [
    *HARMLESS,
    (r"umount2\(", ".*"),
    (r"(mount|chdir|fchdir)\(", ".*"),
]
# A mount point of the dead container of this id that cannot be removed is taken over by the next one's record.
HARMLESS_AFTER_A_DEAD_ONE = [*HARMLESS, (r"unlinkat\(\d+, \"(?!c1\.)", ".*")]
# attach holds each mount that it steps into. For one on the way to a mount of the runtime's own, it can do without; for
# the first, which is the container's root, it cannot.
HARMLESS_AT_ATTACH = [*HARMLESS, (r"fcntl\(.*F_DUPFD_CLOEXEC", ".*")]


def is_harmless(point: Point, error: str, table: Sequence[tuple[str, str]]) -> bool:
    return any(re.match(call, point.text) and re.fullmatch(errors, error) for call, errors in table)


def check(sweep: Sweep, point: Point, error: str, before: dict[str, object], done: Done, kernel_name: str) -> None:
    """Judges a run that was refused one call. AssertionError."""
    scene = sweep.scene
    if done.returncode == 0:
        table = HARMLESS if kernel_name == "this" else HARMLESS_STAGED
        table = HARMLESS_AFTER_A_DEAD_ONE if "dead" in sweep.name else table
        table = HARMLESS_AT_ATTACH if is_attach(sweep) and point.number > 1 else table
        assert is_harmless(point, error, table), "not refused"
        assert done.stderr == ""
    else:
        assert done.returncode in CODES, done
        check_line(sweep, done)
        if sweep.act.run == "set-up" and "dead" not in sweep.name:
            now = scene.look()
            if point.call == "flock":
                # A lock that could not be had is not ours to remove.
                now["state"] = {name: entry for name, entry in now["state"].items() if not is_lock(name)}  # type: ignore[attr-defined]
            assert_same(now, before)
    finish(scene)


def is_attach(sweep: Sweep) -> bool:
    return sweep.scene.where == "running" and sweep.act.run == "set-up"


def is_lock(name: str) -> bool:
    return name.endswith(".lock")


def check_line(sweep: Sweep, done: Done) -> None:
    stage = sweep.scene.stage if sweep.act.run == "set-up" else sweep.act.run
    if is_attach(sweep):
        stage = "attach"
    assert done.stderr.count("\n") == 1, done
    assert done.stderr.startswith(f"oci-bind-hook: c1 {stage}: "), done


def fail_once(sweep: Sweep, point: Point, error: str, kernel_name: str) -> None:
    begun = sweep.begin()
    before = sweep.scene.look()
    done = sweep.refuse(begun, point.inject(f"error={error}"))
    check(sweep, point, error, before, done, kernel_name)


# What the way back needs, and how it can be kept from it for good.
UNDOING = {
    "no mount is undone": ("umount2",),
    "no mount is made private first": ("mount_setattr",),
    "nothing is removed": ("unlinkat",),
    "nothing is undone": ("umount2", "unlinkat"),
    "nothing is written": ("fsync", "renameat"),
}


def fail_for_good(sweep: Sweep, point: Point, undoing: str, error: str) -> None:
    """The run fails, and so does its way back: what is left is in the state file, and the next poststop's work."""
    scene = sweep.scene
    begun = sweep.begin()
    before = scene.look()
    counts = {name: number for name, number in point.counts.items() if name in UNDOING[undoing]}
    more = [
        ("-e", f"inject={name}:error={error}:when={counts.get(name, 0) + (name != point.call)}+")
        for name in UNDOING[undoing]
    ]
    done = sweep.refuse(begun, *([] if point.call in UNDOING[undoing] else [point.inject(f"error={error}")]), *more)
    if done.returncode:
        assert done.returncode in CODES, done
        check_line(sweep, done)
    now = scene.look()
    if any(now[what] != before[what] for what in ("rootfs", "mounts")):
        record = json.loads((scene.state / "c1.json").read_text())
        assert record["mounts"] or record["made"]
        if done.returncode == os.EX_OSERR:
            told = r"could not undo (the bind on )?/\S+: .* \((it stays|they stay) in the state file\b.*\)\n"
            assert re.search(told, done.stderr), done
        elif done.returncode:
            # The state file is as it was written before.
            assert done.returncode == os.EX_IOERR, done
            assert point.call == "renameat" or undoing == "nothing is written"
        if done.returncode == os.EX_OSERR:
            left = [str(row[0])[len(scene.rootfs) :] for row in scene.table()]
            for mount in record["mounts"]:
                assert mount["resolved"] in left, (mount["resolved"], left)
    finish(scene)


@sweeps
@pytest.mark.long
def test_every_call_fails_with_every_error(
    tmp_path: Path, launcher: str, where: str, act: str, kernel_name: str
) -> None:
    kernels.play(kernel_name)
    sweep = Sweep(Scene(tmp_path, launcher, where), act)
    for point in filter(lambda point: point.is_fallible, sweep.points()):
        for error in ERRORS:
            sweep.attempt(f"{error} at {point}", fail_once, point, error, kernel_name)
    sweep.report(f"{act}, {where}, {kernel_name} kernel")


# What a second call adds to undoing is what the first call has: it is tried in the long form.
ACTS = ["first call", "poststop", pytest.param("second call", marks=pytest.mark.long)]


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("undoing", UNDOING)
def test_the_way_back_fails_too(tmp_path: Path, launcher: str, act: str, undoing: str) -> None:
    sweep = Sweep(Scene(tmp_path, launcher, "here"), act)
    for point in [point for point in sweep.points() if point.call in ("mkdirat", "move_mount", "renameat")]:
        sweep.attempt(f"{undoing} after {point}", fail_for_good, point, undoing, "EIO")
    sweep.report(f"{act}, and {undoing}")


@sweeps
def test_calls_fail(tmp_path: Path, launcher: str, where: str, act: str, kernel_name: str) -> None:
    """One of each second kind, with one error each, in turn; the next sweep takes the others."""
    kernels.play(kernel_name)
    sweep = Sweep(Scene(tmp_path, launcher, where), act)
    found = [point for point in sweep.points() if point.is_fallible]
    first = SWEEPS.index((where, act, kernel_name)) % 2
    for point, error in itertools.islice(zip(kinds(found), itertools.cycle(ERRORS), strict=False), first, None, 2):
        sweep.attempt(f"{error} at {point}", fail_once, point, error, kernel_name)
    sweep.report(f"{act}, {where}, {kernel_name} kernel")
