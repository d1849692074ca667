# SPDX-License-Identifier: Apache-2.0
"""What is recorded for the id of a container that is being set up, by an earlier container or an earlier call, undone.

Loaded only where there is something to undo, and never after setns(2), when nothing can be loaded.
"""

from __future__ import annotations

from ..errors import HookError, LeftoverError
from ..kernel import rights
from ..log import NAME
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_of_another_user
from .tear_down import take_down

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..record.folder import Records
    from ..record.state_file import Record
    from .set_up import Call


def clear_stale(call: Call, folder: Records, record: Record) -> None:
    """Undoes the record of a dead container of the same id. HookError.

    If nothing but mount points could not be removed, ``call.resisting`` gets the error.
    """
    log = call.log
    log.warning("an earlier container of this id was not torn down: doing it now")
    keep, owner_of = call.options.keep_mountpoints, call.owner_of
    try:
        take_down(folder, record, call.place.proc, log, keep_mountpoints=keep, owner_of=owner_of, is_start=True)
    except LeftoverError as problem:
        left = folder.load(record["id"])
        if left is None or left["mounts"]:
            raise
        log.warning(f"{problem.problem}: the next poststop tries again")
        call.resisting.append(problem)


def give_up(call: Call, failure: BaseException) -> None:
    """Undoes what earlier calls did for a container whose creation ends, since this one failed before it was entered.

    As lifecycle.set_up does it after that, where the reason stands. What is mounted in the container's own namespace
    ends with it, or with its mount point. Raises LeftoverError for what cannot be undone, which stays recorded.
    """
    try:
        if call.place.is_by_hand:
            return
        folder = StateFolder.open(state_folder(call.options, call.place.proc), create=False)
        id_lock = folder.lock_id(call.state.id) if folder is not None else None
    except (HookError, OSError) as problem:
        call.log.info(f"whether an earlier call did anything is not known: {problem}")
        return
    if folder is None or id_lock is None:
        return
    with id_lock:
        record = _of_this(call, folder)
        if record is None:
            return
        call.log.warning("what earlier calls did for this container is undone as well: its creation ends here")
        keep, owner_of = call.options.keep_mountpoints, call.owner_of
        try:
            rights.harden(NAME)
            take_down(folder, record, call.place.proc, call.log, keep_mountpoints=keep, owner_of=owner_of)
        except (HookError, OSError) as problem:
            if not isinstance(failure, LeftoverError):  # else it tells already that something is left
                raise LeftoverError(f"{failure}; then {problem}") from failure


def _of_this(call: Call, folder: Records) -> Record | None:
    """The record of this very container, None if there is none that can be undone from here."""
    proc = call.place.proc
    try:
        record = folder.load(call.state.id)
        if record is None or not call.is_of_this(record):
            return None
    except HookError as problem:
        call.log.info(f"whether an earlier call did anything is not known: {problem}")
        return None
    # In a container's user namespace owners have other numbers, which only owner_of knows.
    is_seen = call.owner_of is not None or not is_of_another_user(record, proc.user_namespace())
    return record if is_seen else None
