# SPDX-License-Identifier: Apache-2.0
"""The dry-run of poststop: what it would undo, according to the record. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...kernel.proc import boot_id
from ...lifecycle.claims import Claims
from ...lifecycle.reach import Removal, check_answers
from ...lifecycle.tear_down import foreign, why_untouched
from ...options import state_folder
from ...record.folder import StateFolder
from ...record.held import peek
from ...record.state_file import is_live, is_of_another_user
from ..upkeep.to_undo import foresee
from .facts import undone

if TYPE_CHECKING:
    from ...documents.oci import State
    from ...kernel.proc import Proc
    from ...options import Options
    from .report import Report


def fill_from_record(report: Report, options: Options, state: State, proc: Proc) -> None:
    """Adds what poststop would do for the container of ``state``. Raises HookError."""
    report.remove = []
    folder = StateFolder.open(state_folder(options, proc), create=False)
    record = folder.load(state.id) if folder else None
    if folder is None or record is None:
        report.warnings.append(f"{state_folder(options, proc)} has no record")
        return
    report.rootfs = record["rootfs"]["path"]
    report.namespace = record["namespace"]["kind"]
    if is_of_another_user(record, proc.user_namespace()):
        report.add(foreign(record, proc))
        return
    if reason := why_untouched(record, state, proc, 0):
        report.warnings.append(reason)
        return
    boot = boot_id()
    silent = check_answers(record, proc, boot, may_give_up=options.keep_mountpoints)
    claimed = Claims(folder.everyone, proc).against(record)
    keep = options.keep_mountpoints
    with Removal(record, proc, silent=silent) as removal:
        users = peek(folder, removal.now, boot)
        table = proc.mounts()
        foreseen = foresee(
            record,
            removal,
            users,
            proc,
            table,
            claimed,
            lambda other: is_live(other, proc, boot),
            keep_mountpoints=keep,
        )
    report.mounts += [undone(mount, here=is_there) for mount, is_there in foreseen.binds]
    report.remove += foreseen.remove
    report.warnings += [*users.unread, *foreseen.remarks]
    if foreseen.problem is not None:
        report.add(foreseen.problem)
