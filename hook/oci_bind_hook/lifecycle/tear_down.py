# SPDX-License-Identifier: Apache-2.0
"""Finds a container's record, judges it and undoes it, for poststop, gc and the next start of that id.

It reads nothing that the container could have changed, and undoes nothing of a live container.

Loaded by every poststop, and by a start only if something must be undone.
"""

from __future__ import annotations

import posix
import time

from ..errors import HookError, LeftoverError, RecordError
from ..kernel import linux, rights
from ..kernel.proc import Proc, boot_id
from ..log import NAME
from ..mounting.mounted import DoubtError, clear_staging
from ..mounting.undo import undo
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_lost, is_of_another_user, is_same_bundle
from .claims import Claims
from .reach import Removal, check_answers, is_here, listen, why_silent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..documents.oci import State
    from ..log import Log
    from ..mounting.undo import Remark
    from ..options import Options
    from ..record.folder import HeldRecords, Records
    from ..record.state_file import Record, RootfsRecord
    from ..rootfs.mount_points import OwnerOf
    from .witness import Witness

INIT_GRACE_SECONDS = 2.0
COLLECT_SECONDS = 1.0  # the time limit for dead containers on the same rootfs, while others wait for its lock


def tear_down(options: Options, state: State, log: Log) -> None:
    """Undoes the record of a container, if it has one that is not undone yet. Raises HookError.

    It reads neither config.json nor anything else that the container could have changed.
    """
    rights.hide()
    log.stage = "poststop"
    proc = Proc(options.root)
    folder = StateFolder.open(state_folder(options, proc), create=False)
    if folder is None:
        return
    with folder.lock_id(state.id):
        log.step("id locked")
        record = folder.load(state.id)
        if record is not None:
            _tear_down_if_ended(options, state, folder, record, proc, log)
        else:
            log.info(f"{state_folder(options, proc)} has no record of this container")
            forget(folder, state.id, proc)
    folder.sweep(indexes=record is None)


def _tear_down_if_ended(options: Options, state: State, folder: Records, record: Record, proc: Proc, log: Log) -> None:
    if is_of_another_user(record, proc.user_namespace()):
        raise foreign(record, proc)
    if reason := why_untouched(record, state, proc, INIT_GRACE_SECONDS):
        log.warning(reason)
        return
    rights.harden(NAME)
    take_down(folder, record, proc, log, keep_mountpoints=options.keep_mountpoints, and_the_dead=True)


def foreign(record: Record, proc: Proc, command: str = "gc") -> LeftoverError:
    """The error for a record of another user namespace. Its hint says where a ``command`` of the hook works."""
    # From outside, an overlay that podman mounted inside is not visible, and owners have other numbers: all mount
    # points would seem to be gone or to belong to another process, and be dropped from the record.
    owner, uids = record["user"]["owner"], record["user"]["uids"]
    problem = (
        f'the container "{record["id"]}" was recorded in another user namespace, and its mounts are '
        "not visible from here"
    )
    if [(run["inside"], run["size"]) for run in uids] == [(0, 2**32 - 1)]:
        # The record is of the machine's own user namespace, where users call runc or crun. This process is in podman's.
        return LeftoverError(problem, hint=f"run {proc.program(command)} outside of podman unshare")
    who = "" if owner in (None, proc.uid_outside(posix.geteuid())) else f"as uid {owner}, "
    return LeftoverError(problem, hint=f"{who}run podman unshare {proc.program(command)}")


def why_untouched(record: Record, state: State, proc: Proc, grace: float) -> str:
    """Why a record must not be undone now, "" if it may be. Waits up to ``grace`` seconds for its init to end."""
    init = record["init"]
    # If the runtime has lost the bundle, the same id and a first process that has ended are enough.
    if not is_same_bundle(record, state.bundle) and (init is None or not is_lost(state.bundle)):
        other = record["bundle"]["path"]
        return (
            f"the record belongs to another bundle, {other}: nothing is undone; run {proc.command('gc')} after "
            "that container ends"
        )
    if init is not None and not proc.has_ended(init["pid"], init["start"], grace):
        gc = proc.command("gc")
        return f"the container's first process still runs: nothing is undone; run {gc} after it ends"
    return ""


def take_down(
    folder: Records,
    known: Record,
    proc: Proc,
    log: Log,
    *,
    keep_mountpoints: bool,
    owner_of: OwnerOf | None = None,
    is_start: bool = False,
    and_the_dead: bool = False,
) -> list[Remark]:
    """Undoes the record ``known`` and removes its state file. The caller has locked the id.

    Returns what was left. Raises HookError; the state file then contains what is left to undo. ``is_start``: the next
    container of this id must start, so what is not visible or not certain now is given up, with a warning.
    ``and_the_dead``: also undoes what other dead containers left in the same rootfs, for up to COLLECT_SECONDS.
    """
    living = Living(folder, proc)
    while True:
        boot = boot_id()
        silent = check_answers(known, proc, boot, may_give_up=is_start or keep_mountpoints)
        with Removal(known, proc, owner_of, silent) as removal, folder.lock_rootfs(*removal.all) as held:
            log.step("rootfs locked")
            remarks = undo_held(
                folder,
                held,
                known["id"],
                removal,
                proc,
                log,
                living.has,
                keep_mountpoints=keep_mountpoints,
                is_start=is_start,
                claims=living.claims,
            )
            if remarks is not None:
                if and_the_dead:
                    try:
                        _collect(folder, held, removal.now, proc, log, living, keep_mountpoints=keep_mountpoints)
                    except (HookError, OSError) as problem:
                        log.warning(f"other dead containers on this rootfs are left to {proc.program('gc')}: {problem}")
                return remarks
        known = folder.load(known["id"]) or known


class Living:
    """Which recorded containers live, as judged by lifecycle.witness, but usually without it.

    lifecycle.witness reads every process of the machine. So it is used only if a first process has ended, and once.
    """

    def __init__(self, folder: Records, proc: Proc) -> None:
        self.claims = Claims(folder.everyone, proc)
        self._proc = proc
        self._witness: Witness | None = None

    @property
    def witness(self) -> Witness:
        if self._witness is None:
            from .witness import Witness

            self._witness = Witness(self._proc, self.claims)
        return self._witness

    def has(self, record: Record) -> bool:
        """Whether the container of a record may still be alive."""
        # Without its own pid namespace, other processes can outlive the first one and still see the binds.
        boot = boot_id()
        return record["boot"] == boot and (is_live(record, self._proc, boot) or self.witness.judge(record)[0] != "dead")


def undo_held(
    folder: Records,
    held: HeldRecords,
    container: str,
    removal: Removal,
    proc: Proc,
    log: Log,
    lives: Callable[[Record], bool],
    *,
    keep_mountpoints: bool,
    is_start: bool = False,
    claims: Claims | None = None,
) -> list[Remark] | None:
    """As ``take_down``, for a caller that has also locked the rootfs. ``lives`` returns whether a container may live.

    ``claims`` are those of all records, if the caller has read them.

    Returns None, with nothing done, if ``removal`` has not opened the rootfs because there was no mount point, but a
    neighbour has handed one over since.

    The rootfs stays locked because mount points are shared: one that another record on the same rootfs uses is handed
    over to it, mounting.undo, and that record must be neither written nor undone at the same moment.
    """
    # Read again under the lock: a neighbour that ended meanwhile may have handed a mount point over.
    record = folder.load(container)
    if record is None:
        return []
    if record["made"] and not removal.is_asked:
        return None
    boot = boot_id()
    binds, points = len(record["mounts"]), len(record["made"])
    clear_staging(folder, container, proc)
    users = held.users(removal.now, boot, container)
    claimed = (claims or Claims(folder.everyone, proc)).against(record, users.besides(container))
    try:
        here = is_here(record, proc, boot, claimed)
    except DoubtError as problem:
        if not is_start:
            raise
        log.warning(f"an earlier container with this id cannot be undone: {problem}")
        here = False
    for unreadable in users.unread:
        log.warning(unreadable)
    kept = removal.why_kept(users)
    if kept and is_start:
        log.warning(f"an earlier container with this id cannot be undone: {kept}")
    linux.raise_open_files()  # one fd for each folder on the way to a mount point, which may be very deep
    try:
        remarks = undo(
            record,
            proc,
            removal.rootfs,
            keep=lambda made: keep_mountpoints or bool(kept) or held.hand_over(made, users, container, lives),
            # If two containers end at the same time, the record of the dead neighbour removes it after its content.
            inherit=lambda made: held.hand_over(made, users, container),
            claimed=claimed,
            here=here,
            kept="" if is_start or keep_mountpoints else kept,
            give_up=is_start,
        )
    except HookError as problem:
        _report(problem.remarks, log)
        held.save(record)
        raise
    _report(remarks, log)
    held.remove(container)
    log.info(f"undone, unless already gone (binds: {binds}, created mount points: {points})")
    return remarks


def _report(remarks: Iterable[Remark], log: Log) -> None:
    for remark in remarks:
        log.warning(str(remark))


def _collect(
    folder: Records,
    held: HeldRecords,
    rootfs: RootfsRecord,
    proc: Proc,
    log: Log,
    living: Living,
    *,
    keep_mountpoints: bool,
) -> None:
    """Undoes what other dead containers left in ``rootfs``, as gc does. Logs what cannot be undone. OSError, HookError.

    Some of them never get a poststop: a runtime that fails after createRuntime does not call it.
    """
    end = time.monotonic() + COLLECT_SECONDS
    others = held.users(rootfs, boot_id()).besides("")
    if not others:
        return
    witness = living.witness
    silence = listen(witness.table)
    here = proc.user_namespace()
    for other in others:
        if time.monotonic() > end:
            log.info(f"more dead containers are on this rootfs: run {proc.command('gc')}")
            return
        if witness.judge(other)[0] != "dead" or is_of_another_user(other, here):
            continue
        if why_silent(other, proc, witness.boot, lambda: silence, end - time.monotonic()):
            continue
        try:
            with folder.lock_id(other["id"], wait=False), Removal(other, proc) as removal:
                log.info(f"the container {other['id']} is dead, but its binds were never undone")
                if held.holds(removal.now):
                    undo_held(
                        *(folder, held, other["id"], removal, proc, log, living.has),
                        keep_mountpoints=keep_mountpoints,
                        claims=living.claims,
                    )
        except RecordError as problem:
            if not isinstance(problem.__cause__, BlockingIOError):  # that is, another run works on it now
                log.warning(str(problem))
        except (HookError, OSError) as problem:
            log.warning(f"the container {other['id']} is left to {proc.program('gc')}: {problem}")


def forget(folder: Records, container: str, proc: Proc) -> None:
    """Removes the files of a run that was killed before its first record was complete. Raises HookError."""
    clear_staging(folder, container, proc)
    folder.remove(container)
