# SPDX-License-Identifier: Apache-2.0
"""list and show in words: how ids, times and lines look on a terminal and elsewhere."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, cast

import pytest

from oci_bind_hook.commands.explain import answers, by_name
from oci_bind_hook.commands.explain.answers import Answer
from oci_bind_hook.commands.explain.drawing import Pen
from oci_bind_hook.commands.upkeep import described
from oci_bind_hook.commands.upkeep.folders import Folder
from oci_bind_hook.commands.upkeep.listing import Entry
from oci_bind_hook.errors import UsageError
from oci_bind_hook.kernel.proc import boot_id

if TYPE_CHECKING:
    from oci_bind_hook.record.state_file import Record


def test_ids_are_short_on_a_terminal_and_still_differ() -> None:
    ids = ["a" * 64, "a" * 20 + "b" * 44, "c" * 64, "web"]
    terminal = described.short(ids, Pen(width=80))
    assert list(terminal.values()) != ids
    assert terminal == {ids[0]: "a" * 21, ids[1]: "a" * 20 + "b", ids[2]: "c" * 12, "web": "web"}
    assert described.short(ids, Pen()) == {each: each for each in ids}


def entry(container: str, reason: str, advice: str) -> Entry:
    found = Entry(container, "/run/state", None, busy=False)
    found.reason, found.advice = reason, advice
    return found


ENTRIES = [
    entry("4f1c" * 16, "its first process has ended, and nobody has called poststop for it since", "oci-bind-hook gc"),
    entry("web", "unreadable", "unmount the container's binds by hand, then delete the file"),
]


@pytest.mark.parametrize("width", [40, 60, 100])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    pen = Pen(width=width)
    text = described.as_list([Folder("/run/state")], ENTRIES, pen)
    text += "".join(described.as_text(each, pen) for each in ENTRIES)
    assert max(map(len, text.splitlines())) <= width
    # All is still there, and what is to be copied is in one piece.
    assert "4f1c" * 16 in text.replace("\n", "").replace(" ", "")
    assert "  oci-bind-hook gc\n" in text


def test_elsewhere_nothing_is_cut() -> None:
    lines = described.as_list([Folder("/run/state")], ENTRIES, Pen()).splitlines()
    assert lines[0].split() == "ID STATUS AGE BINDS MOUNT POINTS ROOTFS".split()
    assert lines[1].split() == ["4f1c" * 16, "leftover", *"----"]
    assert f"{'4f1c' * 16}: {ENTRIES[0].reason}" in lines
    assert f"  {ENTRIES[1].advice}" in lines


def test_the_age_is_that_of_the_container() -> None:
    """Each attach writes the record anew, and a container of an earlier boot has no age but that of its record."""
    start = int((time.clock_gettime(time.CLOCK_BOOTTIME) - 3 * 3600 - 60) * os.sysconf("SC_CLK_TCK"))
    init = {"pid": 1, "start": start, "first": None}
    created = time.time_ns() - 5 * 60 * 10**9
    ages = {}
    for name, boot, first in (("now", boot_id(), init), ("unknown", boot_id(), None), ("before", "another", init)):
        record = cast("Record", {"init": first, "boot": boot, "created": created, "rootfs": {"path": "/rootfs"}})
        row = described.as_list(
            [Folder("/run/state")], [Entry(name, "/run/state", record, busy=False)], Pen()
        ).splitlines()[1]
        ages[name] = " ".join(row.split()[2:4])
    assert ages == {"now": "3 h", "unknown": "5 min", "before": "5 min"}


def test_bound_is_when_the_first_bind_was_made() -> None:
    """Each attach and detach writes the record anew."""
    now = time.time()
    start = int((time.clock_gettime(time.CLOCK_BOOTTIME) - 3 * 3600 - 60) * os.sysconf("SC_CLK_TCK"))
    record = {
        "init": {"pid": 1, "start": start, "first": None},
        "boot": boot_id(),
        "created": time.time_ns(),
        **dict.fromkeys(("phase", "stage"), "done"),
        **{name: {"path": "/rootfs"} for name in ("rootfs", "bundle")},
        "namespace": {"kind": "container", "inode": 1},
    }
    attached, at_start = {"time": int(now) - 5 * 60 - 1}, {"time": None}
    shown = {}
    for name, mounts in (("start", [attached, at_start]), ("attach", [attached]), ("none", [])):
        known = cast("Record", {**record, "mounts": mounts})
        lines = described.as_text(Entry(name, "/run/state", known, busy=False), Pen()).splitlines()
        shown[name] = [line.rpartition(", ")[2] for line in lines if line.startswith("bound ")]
    assert shown == {"start": ["3 h ago"], "attach": ["5 min ago"], "none": []}


# -- what a word means -------------------------------------------------------------------------------------------------

IDS = ("4f1c" + "0" * 60, "4f1d" + "0" * 60, "web", "web-2", "name1")
NAMED = {"shop": [IDS[0]], "4f1": [IDS[1]], "other": ["9" * 64], "twice": [IDS[0], "8" * 64]}


def ask(word: str) -> tuple[list[Answer], list[str]]:
    assert word not in IDS, "nobody is asked about an id"
    return [Answer("podman", each, word, "", "running", None) for each in NAMED.get(word, ())], []


MEANT = {
    IDS[0]: IDS[0],
    "web": "web",
    "4f1c": IDS[0],
    "n": "name1",
    "shop": IDS[0],
    # A name counts for more than the beginning of an id, also where it is of a container without a record.
    "4f1": IDS[1],
    "other": "9" * 64,
    "twice": IDS[0],
    "absent": "absent",
    "": "",
}


@pytest.mark.parametrize("word", MEANT)
def test_a_word_means_an_id_a_name_or_the_beginning_of_an_id(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ask", ask)
    assert by_name.recorded(word, IDS) == MEANT[word]


def test_the_beginning_of_several_is_refused_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ask", ask)
    with pytest.raises(UsageError) as refused:
        by_name.recorded("we", IDS)
    assert str(refused.value) == "we: the name matches 2 containers (pass more characters of an id: web, web-2)"
