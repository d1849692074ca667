# SPDX-License-Identifier: Apache-2.0
"""The dry-run of poststop: what it would undo, according to the record. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import LeftoverError
from ...kernel.proc import boot_id
from ...lifecycle.claims import Claims
from ...lifecycle.reach import Removal, check_answers, is_here
from ...lifecycle.tear_down import foreign, why_untouched
from ...mounting.undo import kept_points, tree_of
from ...options import state_folder
from ...record.folder import StateFolder
from ...record.held import peek
from ...record.state_file import is_live, is_of_another_user
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
        report.warnings.append(f"{state_folder(options, proc)} has no record of this container")
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
    here = is_here(record, proc, boot, claimed)
    table = proc.mounts()
    for mount in reversed(record["mounts"]):
        try:
            is_there = here and tree_of(mount, record, claimed).find(table) is not None
        except LeftoverError as problem:
            report.add(problem)
            is_there = True
        report.mounts.append(undone(mount, here=is_there))
    with Removal(record, proc, silent=silent) as removal:
        users = peek(folder, removal.now, boot)
        kept = removal.why_kept(users)
    report.warnings += users.unread
    if kept and record["made"] and not options.keep_mountpoints:
        report.add(kept_points(record, kept, proc))
        return
    for path in [] if options.keep_mountpoints else [made["path"] for made in reversed(record["made"])]:
        if other := users.heir(path, record["id"], lambda other: is_live(other, proc, boot)):
            report.warnings.append(f"{path} is handed over to the container {other['id']}, which uses it")
        else:
            report.remove.append(path)
