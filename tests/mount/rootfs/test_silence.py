# SPDX-License-Identifier: Apache-2.0
"""Whether a rootfs answers is known in time, for each kind of request, and without a question where none can wait."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from helpers.fuse import KINDS, Fuse
from helpers.mounting import Bench, request
from oci_bind_hook.rootfs.silence import Silence

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from oci_bind_hook.record.state_file import Record

LONG = 10.0  # for what certainly does
WAITS = ("LOOKUP", "GETATTR", "STATFS")


@pytest.fixture
def fuse(tmp_path: Path) -> Iterator[Fuse]:
    with Fuse(f"{tmp_path}/fuse") as fuse:
        yield fuse


def silence(bench: Bench, record: Record, seconds: float, known: dict[frozenset[int], str] | None = None) -> str:
    return Silence(bench.proc.mounts(), known).why(record, seconds, here=True)


def on(bench: Bench, rootfs: str) -> Bench:
    bench.rootfs = rootfs
    return bench


# The last two are never asked.
@pytest.mark.parametrize(
    ("kind", "after"),
    [("LOOKUP", 0), ("LOOKUP", 1), ("GETATTR", 0), ("GETATTR", 1), ("STATFS", 0), ("OPEN", 0), ("OPENDIR", 0)],
)
def test_a_rootfs_on_fuse(bench: Bench, fuse: Fuse, monkeypatch: pytest.MonkeyPatch, kind: str, after: int) -> None:
    record = on(bench, fuse.path).mount(request(bench.source, "/new/a"))
    assert silence(bench, record, LONG) == ""
    fuse.silence(kind, after)
    known: dict[frozenset[int], str] = {}
    if kind in WAITS:
        fuse.hurry(monkeypatch)
    told = silence(bench, record, LONG, known)
    if kind not in WAITS:
        assert (told, known) == ("", {})
        return
    assert told.startswith(f"{fuse.path} (fuse) does not answer; process ")
    assert [*known.values()] == [told]
    # Once is enough.
    asked = fuse.asked()
    assert silence(bench, record, LONG, known) == told
    assert fuse.asked() == asked
    fuse.end()
    os.waitpid(int(told.split()[-5]), 0)


def test_a_mount_on_the_way_to_a_bind(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A volume that is not the rootfs's, and not a bind of this record."""
    with Fuse(bench.inside("/volume")) as fuse:
        record = bench.mount(request(bench.source, "/volume/folder"))
        assert silence(bench, record, LONG) == ""
        fuse.silence("LOOKUP")
        assert Silence(bench.proc.mounts()).why(record, LONG, here=False) == ""
        fuse.hurry(monkeypatch)
        assert silence(bench, record, LONG).startswith(f"{fuse.path} (fuse) does not answer")


@pytest.mark.parametrize("kind", KINDS)
def test_a_silent_source_is_no_reason(bench: Bench, fuse: Fuse, kind: str) -> None:
    """Nor what is mounted in it."""
    record = bench.mount(request(fuse.path, "/new/a"), request(bench.source, "/new/a/folder"))
    asked = fuse.asked()
    fuse.silence(kind)
    assert silence(bench, record, LONG) == ""
    assert fuse.asked() == asked


def test_a_rootfs_that_is_gone_or_refuses_has_answered(bench: Bench, fuse: Fuse) -> None:
    record = on(bench, fuse.path).mount(request(bench.source, "/folder"))
    mounting.umount(f"{fuse.path}/folder", mounting.MNT_DETACH)
    fuse.end()
    assert silence(bench, record, LONG) == ""
    record["rootfs"]["path"] = f"{fuse.path}/absent"
    assert silence(bench, record, LONG) == ""


def test_without_a_child_nobody_asks(bench: Bench, fuse: Fuse) -> None:
    record = on(bench, fuse.path).mount(request(bench.source, "/folder"))
    asked = fuse.asked()
    heard = Silence(bench.proc.mounts())
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
    told = heard.why(record, LONG, here=True)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert told == (
        f"{fuse.path} (fuse) may not answer, and no child process can be started to test it: [Errno 24] "
        "Too many open files"
    )
    assert fuse.asked() == asked


def overlay_on(base: str, upper: str) -> str:
    """An overlay whose upper folder is on a disk that is mounted in a folder of a FUSE; its place."""
    mounting.tmpfs(upper)
    mounting.plant(upper, {"upper": {}, "work": {}})
    mounting.plant(base, {"lower": {}, "merged": {}})
    data = f"lowerdir={base}/lower,upperdir={upper}/upper,workdir={upper}/work"
    mounting.mount("overlay", f"{base}/merged", "overlay", data=data)
    return f"{base}/merged"


@pytest.mark.parametrize("boot", ["this", "another"])
def test_the_way_to_an_upper_folder_is_asked_after_a_restart_too(
    bench: Bench, fuse: Fuse, monkeypatch: pytest.MonkeyPatch, boot: str
) -> None:
    """Which numbers the devices had tells nothing then: who stopped at the first that differs had asked nobody."""
    rootfs = overlay_on(f"{bench.path}/layers", f"{fuse.path}/folder")
    record = on(bench, rootfs).mount(request(bench.source, "/new/a"))
    assert silence(bench, record, LONG) == ""
    if boot == "another":
        for folder in record["rootfs"]["above"]:
            folder["dev"] += 1
    fuse.silence("LOOKUP")
    fuse.hurry(monkeypatch)
    assert f"{fuse.path} (fuse) does not answer" in silence(bench, record, LONG)


def test_who_is_well_is_not_blamed_for_another_on_the_same_way(
    bench: Bench, fuse: Fuse, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Fuse(f"{bench.path}/well", {"lower": {}, "merged": {}, "rootfs": {"a": {}}}) as well:
        rootfs = overlay_on(well.path, f"{fuse.path}/folder")
        beside = on(bench, f"{well.path}/rootfs").mount(request(bench.source, "/a"))
        record = on(bench, rootfs).mount(request(bench.source, "/new/a"))
        known: dict[frozenset[int], str] = {}
        fuse.silence("LOOKUP")
        fuse.hurry(monkeypatch)
        told = silence(bench, record, LONG, known)
        assert told.startswith(f"{well.path} (fuse) or {fuse.path} (fuse) does not answer")
        monkeypatch.undo()
        assert silence(bench, beside, LONG, known) == ""
        assert silence(bench, record, LONG, known) == told
