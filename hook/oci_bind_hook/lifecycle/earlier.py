# SPDX-License-Identifier: Apache-2.0
"""What is recorded for the id of a container that is being set up, by an earlier container or an earlier call, undone.

Loaded only where the id has a record, or a call fails; never after setns(2), when nothing can be loaded.
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

    # As ``undo_entered``.
    UndoEarlier = Callable[[Call, Record, Rootfs | None, RootfsRecord, HeldRecords, Users, BaseException], None]


_UNDOING = "earlier calls for this container are undone as well, because its creation fails here"


def clear_stale(call: Call, folder: Records, record: Record) -> None:
    """Undoes the record of a dead container of the same id. HookError, as LeftoverError for another user namespace.

    If nothing but mount points could not be removed, ``call.resisting`` gets the error.
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
    """Undoes what earlier calls did for a container whose creation ends, since this one failed before it was entered.

    As ``undo_entered`` does it after that, where the reason stands. What is mounted in the container's own namespace
    ends with it, or with its mount point. Raises LeftoverError for what cannot be undone, which stays recorded.
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
    """Raises LeftoverError for a ``problem`` after the ``failure``, unless that tells of something left already."""
    if not isinstance(failure, LeftoverError):
        raise LeftoverError(f"{failure}; in addition, {problem}") from failure


def _of_this(call: Call, folder: Records) -> Record | None:
    """The record of this very container, None if there is none that can be undone from here."""
    proc = call.place.proc
    try:
        record = folder.load(call.state.id)
        if record is None or not call.is_of_this(record):
            return None
    except HookError as problem:
        call.log.info(f"the records of earlier calls cannot be read: {problem}")
        return None
    # In a container's user namespace owners have other numbers, which only owner_of knows.
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
    """Undoes what earlier calls did for this container, since this one has failed. LeftoverError.

    Several entries of this hook at one stage, as of several CDI devices, are several calls. Each undoes itself when it
    fails, mounting.apply. But when any hook before the container's program fails, runc and crun give the container up,
    and crun calls no poststop then: nobody else would undo the others. Only by hand nobody gives up anything.
    """
    container, keeps = record["id"], call.options.keep_mountpoints
    here = record["namespace"]["inode"] == call.place.proc.mount_namespace()
    if not here and record["namespace"]["kind"] == "runtime":
        return  # its binds are seen nowhere else
    call.log.warning(_UNDOING)
    linux.raise_open_files()  # a fd for each folder on the way to what is removed, however deep it is
    try:
        rootfs = rootfs or Rootfs(known["path"], owner_of=call.owner_of)
        if not is_object(record["rootfs"], posix.fstat(rootfs.fd)):
            raise LeftoverError(f"could not undo earlier calls: {known['path']} is no longer their rootfs")
        undo(
            record,
            call.place.proc,
            rootfs,
            # Whether a neighbour lives cannot be asked here. A dead one removes what is handed over to it, too.
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
