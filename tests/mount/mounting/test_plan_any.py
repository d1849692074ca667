# SPDX-License-Identifier: Apache-2.0
"""Any binds over any trees: planned all at once they lead where they would if each were mounted before the next."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import event, example, given
from hypothesis import strategies as some

from helpers import mounting
from helpers.mounting import Bench, plant, request
from helpers.properties import examples

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.mounting import Tree
    from oci_bind_hook.record.state_file import Record

NAMES = ("a", "b", "c")
WORDS = some.sampled_from((*NAMES, *NAMES, *NAMES, "..", "."))
PATHS = some.builds(
    lambda absolute, words: ("/" if absolute else "") + "/".join(words),
    some.booleans(),
    some.lists(WORDS, min_size=1, max_size=4),
)
LEAVES = some.one_of(some.just(b""), PATHS)
TREES = some.recursive(
    some.dictionaries(some.sampled_from(NAMES), LEAVES, max_size=3),
    lambda trees: some.dictionaries(some.sampled_from(NAMES), some.one_of(LEAVES, trees), min_size=1, max_size=3),
    max_leaves=8,
)
# Which tree is bound, and where to. The third source is a file.
BINDS = some.lists(some.tuples(some.integers(0, 2), PATHS), min_size=2, max_size=5)


@contextlib.contextmanager
def bench_on_tmpfs() -> Iterator[Bench]:
    """A bench that goes with all mounts on it, however the test has ended."""
    with tempfile.TemporaryDirectory() as folder:
        mounting.tmpfs(folder)
        try:
            yield Bench(Path(folder))
        finally:
            mounting.umount(folder, mounting.MNT_DETACH)


@examples(100)
@given(rootfs=TREES, sources=some.tuples(TREES, TREES), binds=BINDS)
@example(rootfs={}, sources=({}, {}), binds=[(0, "a/a"), (2, "a")])
@example(rootfs={}, sources=({"b": {}}, {}), binds=[(0, "a/a"), (1, "a/a/b"), (0, "a/a/b"), (2, "a/b")])
@example(rootfs={"b": {}}, sources=({"b": "/b", "a": "../b"}, {}), binds=[(0, "c"), (1, "c/b/a"), (1, "c/a/c")])
def test_planned_at_once_as_one_after_the_other(
    rootfs: Tree, sources: tuple[Tree, Tree], binds: list[tuple[int, str]]
) -> None:
    with bench_on_tmpfs() as bench:
        shutil.rmtree(bench.rootfs)
        plant(bench.rootfs, rootfs)
        places = [plant(f"{bench.path}/{number}", tree) for number, tree in enumerate(sources)] + [bench.file]
        requests = [request(places[number], destination) for number, destination in binds]

        at_once = bench.plan(*requests)
        paths: list[str] = []
        records: list[Record] = []
        for bind in at_once.binds:
            if bind.problem is not None and "is already the destination of" in str(bind.problem):
                # Only one call can tell that it is asked for twice.
                assert bind.target
                assert bind.target.path in paths
                continue
            alone = bench.plan(bind.request)
            # Which mount a mount point would be in is told by its request, which one alone does not know.
            told = [problem.problem.partition(", ")[0] for problem in (bind.problem, *alone.problems) if problem]
            assert (len(alone.problems), len({*told})) == ((1, 1) if bind.problem else (0, 0))
            if bind.problem is None:
                assert bind.target
                assert alone.binds[0].target
                assert alone.binds[0].target.path == bind.target.path
                assert [point.path for point in alone.binds[0].create] == [point.path for point in bind.create]
                records.append(bench.attach(alone))
                paths.append(bind.target.path)
        stepwise = mounting.mount_points(bench.rootfs)
        event(f"{len(paths)} mounts")
        assert stepwise == sorted(paths)
        for record in reversed(records):
            assert bench.undo(record) == []

        record = bench.mount(*(bind.request for bind in at_once.binds if bind.problem is None))
        assert mounting.mount_points(bench.rootfs) == stepwise
        assert bench.undo(record) == []
        assert mounting.mount_points(bench.rootfs) == []
