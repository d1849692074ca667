# SPDX-License-Identifier: Apache-2.0
"""The way back: finds a container's record, judges it and undoes it, for poststop, gc and the next start of that id.

Nothing is read that the container could have changed, and nothing of a live container is undone.

Loaded by every poststop, by a start only where something is to be undone.
"""

from __future__ import annotations

import posix

from ..errors import EscapeError, HookError, LeftoverError, MissingError
from ..kernel import linux, rights
from ..kernel.proc import Proc, boot_id, may_wait
from ..log import NAME
from ..mounting.mounted import clear_staging, is_in
from ..mounting.undo import undo
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_same_bundle
from ..rootfs.mount_points import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..documents.oci import State
    from ..kernel import files
    from ..kernel.proc import MountTable
    from ..log import Log
    from ..mounting.undo import Remark
    from ..options import Options
    from ..record.folder import Records
    from ..record.state_file import Record
    from ..rootfs.mount_points import OwnerOf
    from ..rootfs.silence import Silence

INIT_GRACE_SECONDS = 2.0
ANSWER_SECONDS = 3.0  # for a rootfs on FUSE or on the network to be looked at
SILENT_HINT = "restart or end its server, or umount -f it; then poststop or gc undoes what is recorded"


def tear_down(options: Options, state: State, log: Log) -> None:
    """Undoes the record of a container. No record, or one that is undone already, is no error. HookError.

    Reads neither config.json nor anything else that the container could have changed.
    """
    rights.hide()
    log.stage = "poststop"
    proc = Proc()
    folder = StateFolder.open(state_folder(options, proc), create=False)
    if folder is None:
        return
    with folder.lock_id(state.id):
        log.step("id locked")
        record = folder.load(state.id)
        if record is not None:
            _tear_down_if_ended(options, state, folder, record, proc, log)
        else:
            log.info(f"nothing is recorded of it in {state_folder(options, proc)}")
            forget(folder, state.id, proc)
    folder.sweep()


def _tear_down_if_ended(options: Options, state: State, folder: Records, record: Record, proc: Proc, log: Log) -> None:
    if reason := why_untouched(record, state, proc, INIT_GRACE_SECONDS):
        log.warning(reason)
        return
    rights.harden(NAME)
    take_down(folder, record, proc, log, keep_mountpoints=options.keep_mountpoints)


def why_untouched(record: Record, state: State, proc: Proc, grace: float) -> str:
    """Why a record must not be undone now, "" if it may be. Waits up to ``grace`` seconds for its init to end."""
    if not is_same_bundle(record, state.bundle):
        return f"what is recorded belongs to the bundle {record['bundle']['path']}: nothing is touched"
    init = record["init"]
    if init is not None and not proc.has_ended(init["pid"], init["start"], grace):
        return "the container's first process still runs: nothing is touched"
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
) -> list[Remark]:
    """Undoes the record ``known`` and removes its state file. The caller holds the lock of the id.

    Returns what was left standing. Raises HookError; the state file then holds what is left to undo. ``is_start``: the
    next container of this id must start, so mount points that cannot be seen now are given up, with a warning.

    The rootfs stays locked meanwhile, because mount points are shared: what another record on the same rootfs uses is
    handed over to it, mounting.undo, and that record must be neither written nor undone at the same moment.
    """
    boot = boot_id()
    if silent := why_silent(known, proc, boot, lambda: listen(proc.mounts()), ANSWER_SECONDS):
        # Where the binds are in a namespace of their own, and the mount points are given up, nobody is asked.
        if is_in_this_namespace(known, proc, boot) or not (is_start or keep_mountpoints):
            raise LeftoverError(f"the rootfs {known['rootfs']['path']} cannot be looked at: {silent}", hint=SILENT_HINT)
    with folder.lock_rootfs(known["rootfs"]):
        log.step("rootfs locked")
        # Read again under the lock: a neighbour that ended meanwhile may have handed a mount point over.
        record = folder.load(known["id"])
        if record is None:
            return []
        clear_staging(folder, record["id"], proc)
        here = is_here(record, proc, boot)
        others, unread = folder.on_rootfs(record["rootfs"], record["id"])
        for unreadable in unread:
            log.warning(unreadable)

        def lives(other: Record) -> bool:
            return is_live(other, proc, boot)

        rootfs, kept = None, silent
        if record["made"] and not silent:
            rootfs, kept = find_for_removal(record, unread, owner_of)
        if kept and is_start:
            log.warning(f"what an earlier container of this id left cannot be undone: {kept}")
        linux.raise_open_files()  # a fd for each folder on the way to what is removed, however deep it is
        try:
            remarks = undo(
                record,
                proc,
                rootfs,
                keep=lambda made: keep_mountpoints or bool(kept) or folder.hand_over(made, others, lives),
                # Of two that end at once, the dead neighbour's record removes what it still has inside.
                inherit=lambda made: folder.hand_over(made, others),
                here=here,
                kept="" if is_start or keep_mountpoints else kept,
            )
        except HookError:
            folder.save(record)
            raise
        finally:
            if rootfs is not None:
                rootfs.close()
        folder.remove(record["id"])
    binds, points = len(known["mounts"]), len(known["made"])
    log.info(f"undone, as far as it was still there: {binds} binds, {points} mount points made for them")
    for remark in remarks:
        log.warning(str(remark))
    return remarks


def forget(folder: Records, container: str, proc: Proc) -> None:
    """Removes the files of a run that was killed before its first record was complete. HookError."""
    clear_staging(folder, container, proc)
    folder.remove(container)


def is_here(record: Record, proc: Proc, boot: str) -> bool:
    """Whether the binds of a record are in this mount namespace. If not, they are gone with their own.

    LeftoverError if they are in a namespace that existed before the container and still exists, or may exist.
    """
    inode = record["namespace"]["inode"]
    if record["boot"] != boot:
        return False
    if inode == proc.mount_namespace():
        return True
    if record["namespace"]["kind"] != "runtime" or not record["mounts"]:
        return False
    hint = "run poststop, or gc, in the namespace that prestart ran in"
    user = proc.process_in_namespace(inode)
    # The kernel reuses inode numbers of namespaces: only the mounts show that it is the same one.
    table = proc.mounts_of(user) if user is not None else None
    if table is not None and any(is_in(mount["attached"][0], table) for mount in record["mounts"]):
        raise LeftoverError(f"the binds are in another mount namespace, that of process {user}", hint=hint)
    if user is None and proc.in_user_namespace() and not proc.may_see_all():
        problem = "the binds are in a mount namespace that cannot be looked for from this user namespace"
        raise LeftoverError(problem, hint=hint)
    return False


def why_silent(record: Record, proc: Proc, boot: str, listener: Callable[[], Silence | None], seconds: float) -> str:
    """Why what a record needs to be undone must not be asked now, "" if it can be.

    ``listener`` returns what ``listen`` does, and is called only if something in the rootfs is needed.
    """
    here = is_in_this_namespace(record, proc, boot)
    silence = listener() if record["made"] or (here and record["mounts"]) else None
    return silence.why(record, seconds, here=here) if silence is not None else ""


def listen(table: MountTable, known: dict[int, str] | None = None) -> Silence | None:
    """What finds out who does not answer, rootfs.silence; mostly None, since no mount is such that it need not."""
    # A server that is silent keeps whoever asks it, beyond signals, with all the locks that they hold.
    if not any(map(may_wait, table.types())):
        return None
    from ..rootfs.silence import Silence

    return Silence(table, known)


def is_in_this_namespace(record: Record, proc: Proc, boot: str) -> bool:
    """Whether the mount namespace of a record has the number of this one, in the same boot of the machine."""
    return record["boot"] == boot and record["namespace"]["inode"] == proc.mount_namespace()


def find_for_removal(record: Record, unread: list[str], owner_of: OwnerOf | None = None) -> tuple[Rootfs | None, str]:
    """The rootfs of a record, None if it is gone; and why no mount point in it can be removed now, "" if they can.

    ``unread`` are remarks on neighbours whose records cannot be read: they may live, and use the same mount points.
    """
    kept = next(iter(unread), "")
    try:
        return find_rootfs(record, owner_of), kept
    except LeftoverError as problem:
        return None, str(problem)


def find_rootfs(record: Record, owner_of: OwnerOf | None) -> Rootfs | None:
    """The rootfs of a record, None if it is gone for good. Raises LeftoverError if that cannot be known now.

    Gone is what was removed or replaced: in a folder of the same file system the next name of its path is missing, or
    another folder of the same file system is at its path. What does not answer is not gone, nor is a file system that
    is not mounted at this moment.
    """
    known = record["rootfs"]
    try:
        rootfs = Rootfs(known["path"], owner_of=owner_of)
    except MissingError as problem:
        if _is_removed(record, problem.__cause__):
            return None
        raise LeftoverError(problem.problem, hint=problem.hint or _unseen(record)) from problem
    except EscapeError:
        return None
    is_another = _difference(record, rootfs.stat, is_overlay=rootfs.is_overlay)
    if not is_another:
        return rootfs
    rootfs.close()
    if is_another == "folder":
        return None
    raise LeftoverError(f"another file system is at {known['path']} now", hint=_unseen(record))


def _difference(record: Record, stat: files.Stat, *, is_overlay: bool) -> str:
    """What is at the path of the rootfs instead of it: "", another "folder", or another "file system"."""
    known = record["rootfs"]
    if known["overlay"]:
        return "" if is_overlay else "file system"
    if stat.dev == known["dev"]:
        return "" if stat.ino == known["ino"] else "folder"
    # The kernel numbers devices anew at every start.
    return "" if stat.ino == known["ino"] and record["boot"] != boot_id() else "file system"


def _is_removed(record: Record, reason: BaseException | None) -> bool:
    """Whether the rootfs is gone for good, if ``reason`` is why its path cannot be opened."""
    if not isinstance(reason, FileNotFoundError):
        return False
    # Else the path leads nowhere because a file system is not mounted at this moment, or not yet. An overlay has no
    # device in common with the folders above it: until a restart, which ends all mounts, it is taken for gone, and
    # later if the bundle's file system is there.
    known = record["rootfs"]
    if known["overlay"] and record["boot"] == boot_id():
        return True
    device = record["bundle"]["dev"] if known["overlay"] else known["dev"]
    path = known["path"]
    while path := path.rpartition("/")[0]:
        try:
            return posix.stat(path).st_dev == device
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return posix.stat("/").st_dev == device


def _unseen(record: Record) -> str:
    return f'mount it, then poststop or gc; if it was deleted, remove the state file of "{record["id"]}"'
