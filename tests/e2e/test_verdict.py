# SPDX-License-Identifier: Apache-2.0
"""The dry-run's verdict is the real run's: its exit code, and its first sentence, whatever is wrong and how much is.

Every row of the table is compared, without exception, and for none is the verdict "not known". Three things are no
rows, since no dry-run can foresee them: what others change meanwhile, a quota or disk that is full, and what a
security module forbids. The manual lists them, and what else may not be known to who asks.

The long form, ``tests/run --long``, takes every pair of all rows of the table, in both orders and by all users.
"""

from __future__ import annotations

import itertools
import random
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.verdict_table import FAULTS
from helpers.verdicts import FORMS, WAYS, Case, Scene

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from helpers.verdict_table import Fault

MANUAL = Path(__file__).resolve().parents[2] / "hook/man/oci-bind-hook.8.md"
UNKNOWABLE = 3  # things that no dry-run foresees
NOT_KNOWN = 2  # reasons why one who asks may not know
ways = pytest.mark.parametrize("way", WAYS)
KINDS = [fault for fault in FAULTS if not fault.is_variant]
PAIRS = [*itertools.combinations(KINDS, 2)]
DIFFERED = [  # by the long form, before it was mended
    ("rootless", "rootfs: a file", "stage: prestart, in a shared namespace"),
]
TRIPLES = [random.Random(number).sample(FAULTS, 3) for number in range(300)]


def check(path: Path, way: str, several: Iterable[Sequence[Fault]], *, is_short: bool = False) -> None:
    """Compares runs with these faults, each with a dry-run of the state and of the bundle, or ``is_short`` in turn."""
    found: list[str] = []
    with Scene(path, way) as scene:
        for number, faults in enumerate(several):
            forms = (FORMS[number // 3 % 2],) if is_short else FORMS
            found += scene.differences(
                " + ".join(fault.name for fault in faults), [each.make for each in faults], forms
            )
    assert not found, "\n".join([f"{len(found)} differences", *found])


def turned(pairs: Iterable[Sequence[Fault]]) -> list[Sequence[Fault]]:
    """Every other pair the other way round."""
    return [pair[::-1] if number % 2 else pair for number, pair in enumerate(pairs)]


def test_what_is_not_known_is_counted() -> None:
    text = MANUAL.read_text(encoding="utf-8")
    for title, count in (("Not foreseen", UNKNOWABLE), ("Not known", NOT_KNOWN)):
        [items] = re.findall(rf"^- \*\*{title}\*\*.*\n(?:  .*\n)*", text, re.MULTILINE)
        assert re.findall(r"\((\d)\) ", items) == [str(number + 1) for number in range(count)], title


def test_one_fault(tmp_path: Path) -> None:
    check(tmp_path, "root", ([fault] for fault in FAULTS))


@pytest.mark.parametrize("way", WAYS[1:])
def test_one_fault_as_others(tmp_path: Path, way: str) -> None:
    check(tmp_path, way, ([fault] for fault in FAULTS), is_short=True)


def test_one_fault_has_its_code(tmp_path: Path) -> None:
    with Scene(tmp_path, "root") as scene:
        codes = {}
        for fault in FAULTS:
            case = Case(scene)
            fault.make(case)
            codes[fault.name] = scene.real(case)[0].code
    assert codes == {fault.name: fault.code for fault in FAULTS}


def test_two_faults_as_root(tmp_path: Path) -> None:
    check(tmp_path, "root", turned(PAIRS), is_short=True)


@pytest.mark.parametrize("number", range(1, len(WAYS)))
def test_two_faults_as_others(tmp_path: Path, number: int) -> None:
    check(tmp_path, WAYS[number], turned(PAIRS)[number::3], is_short=True)


@pytest.mark.parametrize(("way", "one", "other"), DIFFERED)
def test_two_faults_that_differed(tmp_path: Path, way: str, one: str, other: str) -> None:
    pair = [fault for fault in FAULTS if fault.name in (one, other)]
    check(tmp_path, way, [pair, pair[::-1]])


@pytest.mark.parametrize("number", range(len(WAYS)))
def test_three_faults(tmp_path: Path, number: int) -> None:
    check(tmp_path, WAYS[number], TRIPLES[number::9], is_short=True)


@ways
@pytest.mark.long
def test_all_pairs_of_all_faults(tmp_path: Path, way: str) -> None:
    check(tmp_path, way, itertools.permutations(FAULTS, 2))


@ways
@pytest.mark.long
def test_all_triples(tmp_path: Path, way: str) -> None:
    check(tmp_path, way, TRIPLES)
