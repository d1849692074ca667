# SPDX-License-Identifier: Apache-2.0
"""Undoes what an earlier container, or an earlier call, recorded for the id of a container that is being set up.

Loaded only if the id has a record or a call fails, and never after setns(2), when nothing can be imported.
"""

from __future__ import annotations

import posix

from ..errors import HookError, LeftoverError
from ..kernel import linux, rights
from ..log import NAME
from ..mounting.undo import undo
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_object, is_of_another_user
from ..rootfs.mount_points import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..record.folder import HeldRecords, Records
    from ..record.held import Users
    from ..record.state_file import Record, RootfsRecord
    from .set_up import Call

    # The type of ``undo_entered``.
    UndoEarlier = Callable[[Call, Record, Rootfs | None, RootfsRecord, HeldRecords, Users, BaseException], None]


_UNDOING = "earlier calls for this container are undone as well, because its creation fails here"


def clear_stale(call: Call, folder: Records, record: Record) -> None:
    """Undoes the record of a dead container of the same id. Raises HookError; LeftoverError for other user namespaces.

    If only mount points could not be removed, it adds the error to ``call.resisting``.
    """
    from .tear_down import foreign, take_down

    log, place = call.log, call.place
    assert call.bundle is not None
    if is_of_another_user(record, place.user(call.bundle)):
        raise foreign(record, place.proc)
    log.warning("an earlier container with this id left binds or mount points behind: undoing them now")
    keep, owner_of = call.options.keep_mountpoints, call.owner_of
    try:
        take_down(folder, record, place.proc, log, keep_mountpoints=keep, owner_of=owner_of, is_start=True)
    except LeftoverError as problem:
        left = folder.load(record["id"])
        if left is None or left["mounts"]:
            raise
        log.warning(f"{problem.problem}; the next poststop tries again")
        call.resisting.append(problem)


def give_up(call: Call, failure: BaseException) -> None:
    """Undoes what earlier calls did for a container whose creation ends, because this call failed before entering it.

    After entering it, ``undo_entered`` does the same; its docstring has the reason. Mounts in the container's own
    namespace end with it, or with their mount points. LeftoverError for what cannot be undone; it stays recorded.
    """
    try:
        if call.place.is_by_hand:
            return
        folder = StateFolder.open(state_folder(call.options, call.place.proc), create=False)
        id_lock = folder.lock_id(call.state.id) if folder is not None else None
    except (HookError, OSError) as problem:
        call.log.info(f"the records of earlier calls cannot be read: {problem}")
        return
    if folder is None or id_lock is None:
        return
    with id_lock:
        record = _of_this(call, folder)
        if record is None:
            return
        call.log.warning(_UNDOING)
        keep, owner_of = call.options.keep_mountpoints, call.owner_of
        from .tear_down import take_down

        try:
            rights.harden(NAME)
            take_down(folder, record, call.place.proc, call.log, keep_mountpoints=keep, owner_of=owner_of)
        except (HookError, OSError) as problem:
            _raise_left(problem, failure)


def _raise_left(problem: Exception, failure: BaseException) -> None:
    """Raises LeftoverError for a ``problem`` after the ``failure``, unless that is a LeftoverError already."""
    if not isinstance(failure, LeftoverError):
        raise LeftoverError(f"{failure}; in addition, {problem}") from failure


def _of_this(call: Call, folder: Records) -> Record | None:
    """The record of this container, None if there is none that can be undone from here."""
    proc = call.place.proc
    try:
        record = folder.load(call.state.id)
        if record is None or not call.is_of_this(record):
            return None
    except HookError as problem:
        call.log.info(f"the records of earlier calls cannot be read: {problem}")
        return None
    # In a container's user namespace owners have other numbers, which owner_of translates.
    is_seen = call.owner_of is not None or not is_of_another_user(record, proc.user_namespace())
    return record if is_seen else None


def undo_entered(
    call: Call,
    record: Record,
    rootfs: Rootfs | None,
    known: RootfsRecord,
    held: HeldRecords,
    users: Users,
    failure: BaseException,
) -> None:
    """Undoes what earlier calls did for this container, because this call failed. Raises LeftoverError.

    Several entries of this hook at one stage, as of several CDI devices, are several calls. Each undoes itself when it
    fails, mounting.apply. But when any hook before the container's program fails, runc and crun give up the container,
    and crun then does not call poststop: nothing would undo the other calls. Not used for a call by hand.
    """
    container, keeps = record["id"], call.options.keep_mountpoints
    here = record["namespace"]["inode"] == call.place.proc.mount_namespace()
    if not here and record["namespace"]["kind"] == "runtime":
        return  # its binds are visible only in that namespace
    call.log.warning(_UNDOING)
    linux.raise_open_files()  # one fd for each folder on the way to a mount point, which may be very deep
    try:
        rootfs = rootfs or Rootfs(known["path"], owner_of=call.owner_of)
        if not is_object(record["rootfs"], posix.fstat(rootfs.fd)):
            raise LeftoverError(f"could not undo earlier calls: {known['path']} is no longer their rootfs")
        undo(
            record,
            call.place.proc,
            rootfs,
            # It is not known here whether a neighbour lives. If it is dead, undoing its record removes this as well.
            keep=lambda made: keeps or held.hand_over(made, users, container),
            inherit=lambda made: held.hand_over(made, users, container),
            here=here,
            kept="" if keeps else next(iter(users.unread), ""),
        )
    except (HookError, OSError) as problem:
        held.save(record)
        _raise_left(problem, failure)
    else:
        held.remove(container)
