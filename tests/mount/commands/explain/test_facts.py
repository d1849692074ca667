# SPDX-License-Identifier: Apache-2.0
"""What is said of a bind whose source has mounts below it, and of the mount it will be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.mounting import Bench, bind, line, request, tmpfs
from oci_bind_hook.commands.explain.facts import describe

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    for name in ("a", "b", "c"):
        os.mkdir(f"{bench.source}/{name}")
        tmpfs(f"{bench.source}/{name}")
    os.system(f"mount -o remount,bind,ro {bench.source}/c")
    return bench


OPTIONS = [
    (("ro", "rbind"), ["ro does not apply to the mounts below, which stay writable: a, b; rro includes them"]),
    (("rro", "rbind"), []),
    (("rbind",), []),
    (("ro",), []),
]


@pytest.mark.parametrize(("options", "warnings"), OPTIONS, ids=[" ".join(row[0]) for row in OPTIONS])
def test_ro_says_what_stays_writable(bench: Bench, options: tuple[str, ...], warnings: list[str]) -> None:
    plan = bench.plan(request(bench.source, "/mnt", *options), assumed=True)
    (described,) = describe(plan)
    assert described["warnings"] == warnings
    bench.mount(request(bench.source, "/mnt", *options))
    if "rbind" in options:
        assert ("rw" in line(bench.inside("/mnt/a")).options) == ("rro" not in options)


def test_what_is_known_of_the_source_is_what_mountinfo_says(bench: Bench) -> None:
    plan = bench.plan(request(f"{bench.source}/a", "/mnt"), request(bench.source, "/new", "rbind"), assumed=True)
    first, second = (described["found"] for described in describe(plan))
    assert isinstance(first, dict)
    assert isinstance(second, dict)
    info = line(f"{bench.source}/a")
    assert (first["filesystem"], first["from"], first["mount"]) == (info.type, info.source, info.mount_point)
    assert first["device"] == f"{os.major(info.dev)}:{os.minor(info.dev)}"
    assert second["submounts"] == ["a", "b", "c"]


def test_attributes_that_are_kept_are_those_nobody_asked_for(bench: Bench) -> None:
    bind(bench.source, bench.source)
    os.system(f"mount -o remount,bind,nosuid,nodev,noexec,noatime {bench.source}")
    plan = bench.plan(request(bench.source, "/mnt", "nodev", "exec", "ro"), assumed=True)
    (described,) = describe(plan)
    assert described["attributes"] == ["ro", "nosuid", "nodev", "noatime"]
    assert described["kept"] == ["nosuid", "noatime"]
