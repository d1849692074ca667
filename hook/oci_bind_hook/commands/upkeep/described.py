# SPDX-License-Identifier: Apache-2.0
"""list, show and gc as text: tables that fit the terminal, shortened ids, and times for people."""

from __future__ import annotations

import os
import time
from functools import partial

from ...kernel.proc import boot_id
from ...log import one_line
from ...record.state_file import source_of
from ..explain.drawing import Span
from ..moments import asked_by, lasted, moment
from . import folders
from .replaced import WORDS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...record.state_file import Record
    from ..explain.drawing import Pen
    from .folders import Folder
    from .listing import Entry

_SHORTEST = 12  # characters of an id on a terminal, as docker and podman show it
_NARROWEST = 16  # columns: the minimum for a path
_GAP = "  "


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the rows of a table as lines with aligned columns."""
    safe = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*safe, strict=True)]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in safe)
    return [line.rstrip() for line in lines]


def short(ids: Iterable[str], pen: Pen) -> dict[str, str]:
    """Returns the text shown for each id: on a terminal, the shortest beginning that no other id has."""
    if not pen.width:
        return {one: one for one in ids}
    found = {}
    # Of all ids, the neighbours in sort order share the longest beginning with this one.
    ordered = ["", *sorted(ids), ""]
    for before, one, after in zip(ordered, ordered[1:], ordered[2:], strict=False):
        found[one] = one[: max(_SHORTEST, _common_length(one, before) + 1, _common_length(one, after) + 1)]
    return found


def _common_length(one: str, other: str) -> int:
    """Returns the length of the common beginning of two texts."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))


def as_list(found: Sequence[Folder], entries: Sequence[Entry], pen: Pen) -> str:
    """Returns one line for each container. Below are reason and advice for containers that need attention."""
    return folders.as_text(found, entries, partial(_as_table, pen=pen, now=time.time()))


def _as_table(entries: Sequence[Entry], *, pen: Pen, now: float) -> list[str]:
    names = short([entry.id for entry in entries], pen)
    rows = [("ID", "STATUS", "AGE", "BINDS", "MOUNT POINTS")]
    roots = ["ROOTFS"]
    for entry in entries:
        details: tuple[str, str, str] = ("-", "-", "-")
        if record := entry.record:
            mounted, standing = _count(entry.mounts, "mounted"), _count(entry.made, "there", "covered")
            details = (lasted(now - _begun(record, now)), mounted, standing)
        rows.append((names[entry.id], entry.status, *details))
        roots.append(one_line(record["rootfs"]["path"]) if record else "-")
    lines = columns(rows)
    column = max(map(len, lines)) + len(_GAP)
    room = max(pen.width - column, _NARROWEST)
    whole = [f"{line.ljust(column)}{pen.shortened(path, room)}" for line, path in zip(lines, roots, strict=True)]
    lines = [pen.line([Span(line)]) for line in whole]
    for entry in entries:
        if entry.advice or entry.status != "alive":
            lines += ["", *pen.folded(one_line(f"{names[entry.id]}: {entry.reason}"), pen.width)]
            lines += [f"  {line}" for line in _advice(entry.advice, pen, pen.width - 2)]
    return lines


def _advice(text: str, pen: Pen, room: int) -> list[str]:
    """Returns the advice, folded unless it contains a command, which people copy."""
    text = one_line(text)
    return [] if not text else [text] if "oci-bind-hook " in text else pen.folded(text, room)


def _count(what: Sequence[dict[str, object]], *states: str) -> str:
    """Returns how many of the binds or mount points are in one of these states, such as "2 of 3".

    "? of 3" if none may be inspected.
    """
    is_seen = not what or any(each["state"] != "unseen" for each in what)
    return f"{sum(each['state'] in states for each in what) if is_seen else '?'} of {len(what)}"


def as_text(entry: Entry, pen: Pen) -> str:
    """Returns everything that is known of one container."""
    facts = [("container", entry.id), ("status", f"{entry.status}: {entry.reason}"), ("to do", entry.advice)]
    facts += [("recorded in", entry.folder), ("files", " ".join(entry.files))]
    if record := entry.record:
        now = time.time()
        namespace = record["namespace"]
        facts += [
            *([("bound", moment(_bound(record, now), now))] if record["mounts"] else []),
            ("phase", record["phase"]),
            ("stage", record["stage"]),
            ("bundle", record["bundle"]["path"]),
            ("rootfs", record["rootfs"]["path"]),
            ("namespace", f"{namespace['kind']}, mnt:[{namespace['inode']}]"),
            ("first process", _process(record, now)),
        ]
    column = max(len(name) for name, _ in facts) + len(_GAP)
    lines = []
    for name, text in facts:
        room = pen.width - column
        shown = _advice(text, pen, room) if name == "to do" else pen.folded(one_line(text), room)
        lines += [f"{head.ljust(column)}{line}" for head, line in zip([name, *[""] * len(shown)], shown, strict=False)]
    for mount in entry.mounts:
        state = ", ".join(filter(None, (str(mount["state"]), WORDS.get(str(mount["source_now"])))))
        lines += _hanging(f"{state}: {source_of(mount)} on {mount['resolved']}", pen)
        who = asked_by(str(mount["origin"]), mount["time"], is_for_people=True)
        registration = f" of {mount['registration']}" if mount["registration"] else ""
        asked = f"requested by {who}{registration}, destination {mount['destination']}"
        lines += [f"  {line}" for line in pen.folded(one_line(asked), pen.width - 2)]
    for made in entry.made:
        reason = f" ({made['reason']})" if made["reason"] else ""
        lines += _hanging(
            f"{made['state']}: {made['kind']} {made['path']}, created in the {made['filesystem']}{reason}", pen
        )
    return "\n".join(lines) + "\n"


def _hanging(text: str, pen: Pen) -> list[str]:
    """Folds a text into lines. All lines after the first are indented."""
    first, *others = pen.folded(one_line(text), pen.width - 4)
    return [first, *(f"    {line}" for line in others)]


def _process(record: Record, now: float) -> str:
    """Returns the first process of a container, and when it was started."""
    init = record["init"]
    if init is None:
        return "not known"
    if (started := _started(record, now)) is None:
        return f"{init['pid']}, started before the last reboot"
    return f"{init['pid']}, started {moment(started, now)}"


def _bound(record: Record, now: float) -> float:
    """Returns when the first of the recorded binds was made: at the start of the container, or by attach."""
    times = [mount.get("time") for mount in record["mounts"]]
    attached = [each for each in times if each is not None]
    return min(attached) if len(attached) == len(times) else _begun(record, now)


def _begun(record: Record, now: float) -> float:
    """Returns when a container was started; if that is not known, when its record was written: each attach does it."""
    started = _started(record, now)
    return record["created"] / 10**9 if started is None else started


def _started(record: Record, now: float) -> float | None:
    """Returns when the first process of a container was started, as ``now`` in seconds since the epoch.

    None if it is not known, or was started before the last reboot.
    """
    init = record["init"]
    if init is None or record["boot"] != boot_id():
        return None
    return now - time.clock_gettime(time.CLOCK_BOOTTIME) + init["start"] / os.sysconf("SC_CLK_TCK")
