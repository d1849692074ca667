# SPDX-License-Identifier: Apache-2.0
"""The seeds of the fuzzer, once through what it fuzzes."""

from __future__ import annotations

import pytest

import fuzz

TARGETS = fuzz.targets()
SEEDS = [(target, name, data) for target in TARGETS for name, data in fuzz.seeds(target)]
ACCEPTED = {
    "state": {"creating", "stopped", "with-config"},
    "config": {"small", "binds", "mapped", "annotations", "hooks"},
    "mount": {"plain", "quoted", "idmap", "ridmap", "glob"},
    "record": {"empty", "full", "escapes", "version-1"},
}


@pytest.mark.parametrize(("target", "name", "data"), SEEDS, ids=[f"{target}-{name}" for target, name, _ in SEEDS])
def test_every_seed_gets_an_answer(target: str, name: str, data: bytes) -> None:
    assert TARGETS[target](data) is (name in ACCEPTED[target])


def test_a_target_has_seeds_and_the_fuzzer_words() -> None:
    assert ACCEPTED.keys() == TARGETS.keys()
    assert {"bind-propagation", "rprivate", "mounts", "createContainer", "intent"} <= fuzz.words()
