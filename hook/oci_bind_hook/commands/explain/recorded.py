# SPDX-License-Identifier: Apache-2.0
"""The state folder of each call, checked as the call would check it, and the records in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import At, RecordError
from ...kernel.proc import Proc, boot_id
from ...lifecycle.start_record import is_continued
from ...lifecycle.tear_down import foreign
from ...mounting.mounted import is_in
from ...mounting.undo import difference
from ...options import Options, state_folder
from ...record.folder import StateFolder
from ...record.held import peek
from ...record.state_file import is_live, is_of_another_user, is_same_bundle, places_of
from .patience import HINT
from .verdict import count

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Literal

    from ...documents.bundle import Bundle
    from ...lifecycle.stage import Place
    from ...record.folder import Records
    from ...record.state_file import MadeRecord, MountRecord, Record, RootfsRecord
    from ...rootfs.mount_points import Rootfs
    from ...rootfs.walk import Target
    from .calls import Call
    from .patience import Patience
    from .report import Report

# What a record may have left, with the name of one.
_LEFT: tuple[tuple[Literal["mounts", "made"], str], ...] = (("mounts", "bind"), ("made", "mount point"))


def find_folders(
    report: Report, calls: Sequence[Call], proc: Proc, place: Place | None, patience: Patience
) -> tuple[list[MountRecord], str]:
    """Sets the state folder of each call. Returns the binds that the first one has recorded for this container, and why
    a folder cannot be inspected, "" if all can.
    """
    recorded: list[MountRecord] = []
    silence = ""
    for report.turn, call in enumerate(calls):
        options = call.part.options
        path = state_folder(options, proc)
        try:
            with At("state folder"):
                if why := patience.why_not(f"state folder {path}", f"the state folder {path}", path):
                    silence = why
                    raise RecordError(f"{path} cannot be inspected: {why}", hint=HINT)
                call.folder = call.run.folder(options, proc, is_asked=call.asks, container=report.id)
                if not report.turn and (place is not None or options.command == "attach"):
                    recorded = _recorded(call.folder, report, place, proc)
        except RecordError as problem:
            report.add(problem)
    report.turn = 0
    return recorded, silence


def _recorded(folder: Records | None, report: Report, place: Place | None, proc: Proc) -> list[MountRecord]:
    """Returns the binds of an earlier call for the same container, as far as this user can see. Raises RecordError.

    ``place`` is None for a container that runs.
    """
    if folder is None or report.id is None or report.bundle is None:
        return []
    record = folder.load(report.id)
    if record is None or not is_continued(record, report.bundle, proc):
        return []
    init = record["init"]
    pid = init["pid"] if init is not None and (place is None or place.is_elsewhere()) else None
    table = proc.mounts() if pid is None else proc.mounts_of(pid)
    namespace = proc.mount_namespace_id() if pid is None else proc.mount_namespace_id_of(pid)
    return [
        mount for mount in record["mounts"] if is_in(mount["attached"][0], table, namespace, places_of(mount, record))
    ]


def of_earlier_start(report: Report, bundle: Bundle, options: Options, proc: Proc) -> Iterator[str]:
    """Yields a warning for each record that a dead container of the same id has left, or of the same bundle if the id
    is not known. The state folder is that of ``options``. Yields nothing if this user may not read it.
    """
    path = state_folder(options, proc)
    proc = Proc(None if path == state_folder(Options(), proc) else path)  # each entry may have a --root of its own
    try:
        folder = StateFolder.open(path, create=False)
    except RecordError:
        return
    for record in folder.everyone()[0] if folder else ():
        is_same = record["id"] == report.id if report.id is not None else is_same_bundle(record, bundle.path)
        if not is_same or is_live(record, proc, boot_id()):
            continue
        is_foreign = is_of_another_user(record, proc.user_namespace())
        gc = foreign(record, proc).hint if is_foreign else f"run {proc.command('gc')}"
        left = ", ".join(count(len(record[name]), noun) for name, noun in _LEFT if record[name])
        said = f"the record of an earlier start of {record['id']} is left" + (f" ({left})" if left else "")
        said += f": {gc}" if report.is_turned_off else f": the next start undoes it first; to undo it now, {gc}"
        yield said + (
            "; until then, its mount points exist, and are not listed among those to create" if record["made"] else ""
        )


def records_on(rootfs: RootfsRecord, options: Options, proc: Proc) -> list[Record]:
    """Returns the records of all containers on a rootfs. Raises RecordError, but not if this user may not read any."""
    try:
        folder = StateFolder.open(state_folder(options, proc), create=False)
    except RecordError:
        return []
    return [*peek(folder, rootfs, boot_id()).records.values()] if folder else []


class MadePoints:
    """The mount points that the hook created in a rootfs, by the records on it."""

    def __init__(self, rootfs: Rootfs, records: Iterable[Record]) -> None:
        self._rootfs = rootfs
        self._made: dict[str, list[tuple[Record, MadeRecord]]] = {}
        for record in records:
            for made in record["made"]:
                self._made.setdefault(made["path"], []).append((record, made))

    def has(self, target: Target) -> bool:
        """Whether the hook created what exists at a destination. Raises OSError."""
        stat = target.last.stat
        known = self._made.get(target.path, ())
        return stat is not None and any(not difference(record, made, stat, self._rootfs) for record, made in known)
