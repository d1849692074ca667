# SPDX-License-Identifier: Apache-2.0
"""Mounts of config.json of which a plan does not say where they are, since runtimes do not agree."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from helpers.mounting import asked, request
from oci_bind_hook.mounting.config_mounts import below_rootfs, is_runtimes

if TYPE_CHECKING:
    from helpers.mounting import Bench

ROOTFS = "/srv/bundle/rootfs"


@pytest.mark.parametrize(
    ("destination", "inside"),
    [
        (ROOTFS, "/"),
        (f"{ROOTFS}/", "/"),
        (f"{ROOTFS}/a/b", "/a/b"),
        (f"{ROOTFS}//a/./b/../c/", "/a/c"),
        ("/srv/x/../bundle/rootfs/a", "/a"),
        (f"/..{ROOTFS}/a", "/a"),
        (f"{ROOTFS[1:]}/a", "/a"),  # relative to /, as runtime-spec once allowed it
        (f"{ROOTFS}/../a", ""),
        (f"{ROOTFS}x/a", ""),
        ("/srv/bundle", ""),
        ("/a", ""),
        ("/", ""),
    ],
)
def test_what_is_left_of_a_destination_without_the_path_of_the_rootfs(destination: str, inside: str) -> None:
    """As LexicallyStripRoot of runc has it."""
    assert below_rootfs(ROOTFS, destination) == inside
    theirs, ours = request("/a", destination, config=True), request("/a", destination)
    assert is_runtimes(theirs, "runtime", ROOTFS) == (inside != "")
    assert is_runtimes(theirs, "container", ROOTFS)
    assert not is_runtimes(ours, "container", ROOTFS)


@pytest.mark.parametrize("place", ["/mnt", "literal", None])
@pytest.mark.parametrize("is_bind", [True, False], ids=["bind", "tmpfs"])
def test_it_is_found_where_either_runtime_puts_it(bench: Bench, place: str | None, is_bind: bool) -> None:
    literal = f"{bench.rootfs}/mnt"
    os.makedirs(bench.rootfs + literal)
    if place is not None:
        where = literal if place == "literal" else place
        mounting.bind(bench.source, bench.inside(where)) if is_bind else bench.own_tmpfs(where)
    theirs = request(bench.source, literal, config=True) if is_bind else asked(literal)
    plan = bench.plan(theirs, request(bench.source, "/mnt/new"))
    *left, ours = plan.binds
    if place == "/mnt" and is_bind:
        assert ours.problem is not None  # no mount point is made in a volume
    else:
        assert (ours.problem, ours.action) == (None, "mount")
    assert [each.action for each in left] == ["left" if place is None else "present"] * is_bind


def test_a_dry_run_does_not_take_it_for_made(bench: Bench) -> None:
    """Wherever it is, what stands there now is what is known."""
    os.mkdir(bench.inside("/mnt/there"))
    plan = bench.plan(asked(f"{bench.rootfs}/mnt"), request(bench.source, "/mnt/there"), assumed=True)
    [ours] = plan.binds
    assert (ours.problem, ours.create) == (None, [])
