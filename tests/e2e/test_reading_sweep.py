# SPDX-License-Identifier: Apache-2.0
"""The kernel refuses one of the calls by which a run looks at something: what cannot be seen is not taken for gone."""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

import pytest

from helpers.reading import ERRORS, Reading, alone, tells
from helpers.sweep import Scene, kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from helpers.sweep import Point

    # Which calls of an act are tried, each with which error.
    Choice = Callable[[list[Point]], Iterable[tuple[Point, str]]]

SWEEPS = [
    ("entered", "first call"),
    ("entered", "second call"),
    ("entered", "poststop"),
    ("entered", "list"),
    ("entered", "gc"),
    ("entered", "gc beside one that is outlived"),
    ("overlay", "first call"),
    ("overlay", "poststop"),
    ("running", "first call"),
    ("running", "detach"),
]
MORE = [
    ("entered", "show"),
    ("entered", "list of a dead one"),
    ("entered", "gc beside a live one"),
    ("here", "first call"),
    ("here", "poststop"),
    ("here", "gc"),
    ("inside", "first call"),
    ("running", "second call"),
    ("running", "poststop"),
    ("overlay", "list"),
    ("overlay", "gc"),
]
SHARE = 14  # tries in each act, in the normal run
# What is tried there in any case: each process, each lock file, and what could be taken for an answer.
ALWAYS = {
    "detach": r'statx\(AT_FDCWD, "/"',
    "gc beside one that is outlived": r'newfstatat\(\d+, "\.\./',
    "gc": r'newfstatat\(\d+, "", {st_mode=S_IFREG\|0600, st_size=[09],',
}


def sweep(path: Path, launcher: str, where: str, act: str, choose: Choice) -> None:
    def run() -> tuple[int, list[str]]:
        reading = Reading(Scene(path, launcher, where), act)
        for point, error in choose(reading.found):
            if not tells(point, error):
                continue
            reading.attempt(f"{error} at {point}", Reading.fail, point, error)
        reading.end()
        return reading.tried, reading.leaks

    tried, leaks = alone(run)
    print(f"{act}, {where}: {tried} points tried, leaks {len(leaks)}")
    assert not leaks, "\n".join(leaks)


@pytest.mark.long
@pytest.mark.parametrize(("where", "act"), [*SWEEPS, *MORE])
def test_every_look_fails_with_every_error(tmp_path: Path, launcher: str, where: str, act: str) -> None:
    sweep(tmp_path, launcher, where, act, lambda found: itertools.product(found, ERRORS))


@pytest.mark.parametrize(("where", "act"), SWEEPS)
def test_looks_fail(tmp_path: Path, launcher: str, where: str, act: str) -> None:
    """A share of all kinds, with one error each, in turn."""

    def choose(found: list[Point]) -> Iterable[tuple[Point, str]]:
        ours = kinds(found)
        share = ours[SWEEPS.index((where, act)) :: -(-len(ours) // SHARE)]
        share += [point for point in found if act in ALWAYS and re.match(ALWAYS[act], point.text)]
        return zip(share, itertools.cycle(ERRORS), strict=False)

    sweep(tmp_path, launcher, where, act, choose)


def test_who_may_not_read_of_itself_takes_nobody_for_hidden(tmp_path: Path, launcher: str) -> None:
    """Whether procfs hides a process is asked of this one's own status: an error there tells nothing of the other."""

    def choose(found: list[Point]) -> Iterable[tuple[Point, str]]:
        return [(point, "EACCES") for point in found if re.match(r'read\(\d+, "Name:', point.text)]

    sweep(tmp_path, launcher, "entered", "gc", choose)
