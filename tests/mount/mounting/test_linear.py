# SPDX-License-Identifier: Apache-2.0
"""Each bind takes the same work however many others there are: planned, found recorded, opened and detached.

What is counted are the instructions of the hook's own Python.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, work
from helpers.mounting import MS_SHARED, Bench, asked, propagate, request, tmpfs
from oci_bind_hook.errors import LeftoverError
from oci_bind_hook.kernel.namespace import Namespace
from oci_bind_hook.kernel.proc import Proc
from oci_bind_hook.mounting import mounted
from oci_bind_hook.mounting.plan import Planner
from oci_bind_hook.mounting.sources import clone_sources, open_sources
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from oci_bind_hook.requests.request import Request

SIZE = 50


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Bench]:
    """A function that makes one bench after the other, each on a file system of its own."""
    numbers = iter(range(100))
    return lambda: Bench(Path(tmpfs(os.fspath(tmp_path / str(next(numbers))))))


def spread(bench: Bench, count: int, *, config: bool = False) -> list[Request]:
    """Binds beside each other, on folders that are there."""
    for number in range(count):
        os.mkdir(bench.inside(f"/mnt/{number}"))
    return [request(bench.source, f"/mnt/{number}", config=config) for number in range(count)]


def planner(bench: Bench, namespace: Namespace) -> Planner:
    rootfs = Rootfs(bench.rootfs, own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bench.rootfs))
    return Planner(rootfs, namespace, allow_shared=True)


def resolving(bench: Bench, requests: list[Request], *, entered: bool = False) -> int:
    """The work of resolving requests whose sources are open."""
    namespace = Namespace(bench.proc, bench.kind)
    namespace.entered = entered
    sources = open_sources([each for each in requests if not each.is_from_mounts], bench.path, namespace)
    clone_sources(sources)
    return work.opcodes(lambda: planner(bench, namespace).resolve(requests, sources))


def test_binds_of_config_json_that_the_runtime_has_not_mounted(fresh: Callable[[], Bench]) -> None:
    def measure(count: int) -> int:
        bench = fresh()
        tmpfs(bench.inside("/etc"))
        return resolving(bench, [asked("/etc"), *spread(bench, count, config=True)])

    work.check_growth(measure, SIZE)


def test_binds_that_are_recorded(fresh: Callable[[], Bench]) -> None:
    def measure(count: int) -> int:
        bench = fresh()
        requests = spread(bench, count)
        record = bench.mount(*requests)
        namespace = Namespace(bench.proc, bench.kind)
        sources = open_sources(requests, bench.path, namespace)
        again = Planner(Rootfs(bench.rootfs), namespace, record["mounts"])
        found = work.opcodes(lambda: again.resolve(requests, sources))
        assert {bind.action for bind in again.plan.binds} == {"present"}
        return found

    work.check_growth(measure, SIZE)


def test_binds_below_a_shared_mount_of_a_namespace_with_many(fresh: Callable[[], Bench]) -> None:
    def measure(count: int) -> int:
        bench = fresh()
        tmpfs(bench.inside("/mnt"))
        propagate(bench.inside("/mnt"), MS_SHARED)
        requests = spread(bench, count)
        for number in range(count):
            tmpfs(f"{bench.path}/mounts/{number}")
        return resolving(bench, requests, entered=True)

    work.check_growth(measure, SIZE)


def test_mount_points_to_be_made_on_a_tmpfs_in_a_namespace_with_many(fresh: Callable[[], Bench]) -> None:
    def measure(count: int) -> int:
        bench = fresh()
        bench.own_tmpfs("/mnt")
        for number in range(count):
            tmpfs(f"{bench.path}/mounts/{number}")
        return resolving(bench, [asked("/mnt"), *(request(bench.source, f"/mnt/{number}") for number in range(count))])

    work.check_growth(measure, SIZE)


def test_sources_on_a_file_system_with_many_mounts(fresh: Callable[[], Bench]) -> None:
    def measure(count: int) -> int:
        bench = fresh()
        for number in range(count):
            tmpfs(f"{bench.path}/mounts/{number}")
            os.mkdir(f"{bench.source}/{number}")
        requests = [request(f"{bench.source}/{number}", "/mnt", "rbind") for number in range(count)]
        namespace = Namespace(bench.proc, bench.kind)
        return work.opcodes(lambda: open_sources(requests, bench.path, namespace))

    work.check_growth(measure, SIZE)


def test_mount_points_that_cannot_be_removed(fresh: Callable[[], Bench]) -> None:
    def measure(count: int) -> int:
        bench = fresh()
        record = bench.mount(*(request(bench.source, f"/new/{number}") for number in range(count)))
        bench.undo({**record, "made": []})
        record["mounts"] = []
        subprocess.run(["mount", "-o", "remount,ro", bench.path], check=True)

        def undo() -> None:
            with pytest.raises(
                LeftoverError, match=rf"/new/{count - 1}: Read-only file system.*; {count - 1} more could not be undone"
            ):
                bench.undo(record)

        found = work.opcodes(undo)
        assert len(record["made"]) == count + 1
        return found

    work.check_growth(measure, SIZE)


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "a foreign mount on top"])
def test_binds_stacked_on_one_mount_point(fresh: Callable[[], Bench], foreign: bool) -> None:
    def measure(count: int) -> int:
        bench = fresh()
        requests = [request(bench.source if n % 2 else bench.inside("/etc"), "/mnt", config=True) for n in range(count)]
        bench.kind = "runtime"
        record = bench.mount(*requests)
        if foreign:
            tmpfs(bench.inside("/mnt"))
        trees = [mounted.Tree(mount["attached"], mount["resolved"]) for mount in record["mounts"]]
        found = work.opcodes(lambda: mounted.detach(trees, Proc()))
        assert [bool(tree.problem) for tree in trees] == [foreign] * count
        assert len(mounting.mount_points(bench.rootfs)) == (count + 1 if foreign else 0)
        return found

    work.check_growth(measure, SIZE // 2)
