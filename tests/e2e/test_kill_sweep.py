# SPDX-License-Identifier: Apache-2.0
"""Killed at any of its system calls, a run leaves nothing that the next one does not put right."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from helpers import kernels
from helpers.sweep import RECOVERIES, Scene, Sweep, finish, recover, states

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.sweep import Point

SWEEPS = [
    ("here", "first call", "this"),
    ("here", "second call", "this"),
    ("here", "poststop", "this"),
    ("entered", "first call", "this"),
    ("entered", "second call", "this"),
    ("entered", "call after a dead one", "this"),
    ("entered", "poststop", "this"),
    ("inside", "first call", "this"),
    ("inside", "call after a dead one", "this"),
    *[("running", act, "this") for act in ("first call", "second call", "call after a dead one", "poststop", "detach")],
    ("here", "first call", "before 5.12"),
    ("here", "second call", "before 5.12"),
    ("here", "poststop", "before 5.12"),
    ("entered", "first call", "before 5.12"),
]
sweeps = pytest.mark.parametrize(("where", "act", "kernel_name"), SWEEPS)
# Every how manieth run is stopped once more while it is put right: "here", and in a container's namespace.
TWICE = [("here", "first call", "this"), ("here", "poststop", "this"), ("entered", "call after a dead one", "this")]
TWICE += [("here", "first call", "before 5.12")]
shares = pytest.mark.parametrize("share", [9, pytest.param(2, marks=pytest.mark.long)])


def kill_and_recover(sweep: Sweep, point: Point, how: str) -> None:
    sweep.kill(sweep.begin(), point)
    recover(sweep.scene, how)


@sweeps
@pytest.mark.long
def test_killed_at_every_call(tmp_path: Path, launcher: str, where: str, act: str, kernel_name: str) -> None:
    """After each change, each of the ways back; where nothing has changed since the call before, one, in turn."""
    kernels.play(kernel_name)
    sweep = Sweep(Scene(tmp_path, launcher, where), act)
    found = sweep.points()
    changed, turn = states(found), itertools.cycle(RECOVERIES)
    for point in found:
        for how in RECOVERIES if point in changed else [next(turn)]:
            sweep.attempt(f"killed at {point}, then {how}", kill_and_recover, point, how)
    sweep.report(f"{act}, {where}, {kernel_name} kernel")


@sweeps
def test_killed_after_each_change(tmp_path: Path, launcher: str, where: str, act: str, kernel_name: str) -> None:
    """One of the ways back each, in turn. Elsewhere than here after every second, on older kernels every fifth."""
    kernels.play(kernel_name)
    sweep = Sweep(Scene(tmp_path, launcher, where), act)
    share = 5 if kernel_name != "this" else 1 if where == "here" else 2
    for point, how in zip(states(sweep.points())[::share], itertools.cycle(RECOVERIES), strict=False):
        sweep.attempt(f"killed at {point}, then {how}", kill_and_recover, point, how)
    sweep.report(f"{act}, {where}, {kernel_name} kernel")


@pytest.mark.parametrize(("where", "act", "kernel_name"), TWICE)
@shares
def test_killed_again_while_it_is_put_right(
    tmp_path: Path, launcher: str, where: str, act: str, kernel_name: str, share: int
) -> None:
    """Once by poststop, once by the next set-up, in turn."""
    kernels.play(kernel_name)
    sweep = Sweep(Scene(tmp_path, launcher, where), act)
    for number, first in enumerate(states(sweep.points())[::share]):
        way = ("poststop", "set-up")[number % 2]
        sweep.kill(sweep.begin(), first)
        second_points = sweep.scene.trace(*sweep.scene.begin(way))
        finish(sweep.scene)
        for second in states(second_points)[number % share :: share]:
            what = f"killed at {first}, then in {way} at {second}"
            sweep.attempt(what, kill_twice, first, way, second)
    sweep.report(f"twice, {act}, {where}, {kernel_name} kernel")


def kill_twice(sweep: Sweep, first: Point, way: str, second: Point) -> None:
    sweep.kill(sweep.begin(), first)
    sweep.kill(sweep.scene.begin(way), second)
    finish(sweep.scene)
