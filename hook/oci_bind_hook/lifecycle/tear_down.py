# SPDX-License-Identifier: Apache-2.0
"""The way back: finds a container's record, judges it and undoes it, for poststop, gc and the next start of that id.

Nothing is read that the container could have changed, and nothing of a live container is undone.

Loaded by every poststop, by a start only where something is to be undone.
"""

from __future__ import annotations

import posix
import time

from ..errors import EscapeError, HookError, LeftoverError, MissingError, RecordError
from ..kernel import linux, rights
from ..kernel.errnos import hint as advice
from ..kernel.mountinfo import may_wait
from ..kernel.proc import Proc, boot_id
from ..log import NAME
from ..mounting.mounted import DoubtError, clear_staging, is_in
from ..mounting.undo import undo
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_lost, is_of_another_user, is_same_bundle
from ..rootfs.identity import identify, is_gone, is_same
from ..rootfs.mount_points import Rootfs
from .claims import Claims, is_same_namespace, stands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..documents.oci import State
    from ..kernel.mountinfo import MountTable
    from ..log import Log
    from ..mounting.undo import Remark
    from ..options import Options
    from ..record.folder import HeldRecords, Records
    from ..record.held import Users
    from ..record.state_file import Record, RootfsRecord
    from ..rootfs.mount_points import OwnerOf
    from ..rootfs.silence import Silence
    from .claims import Claimed
    from .witness import Witness

INIT_GRACE_SECONDS = 2.0
COLLECT_SECONDS = 1.0  # for the dead on the same rootfs, before others may have its lock
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
    folder.sweep(indexes=record is None)


def _tear_down_if_ended(options: Options, state: State, folder: Records, record: Record, proc: Proc, log: Log) -> None:
    if is_of_another_user(record, proc.user_namespace()):
        raise foreign(record, proc)
    if reason := why_untouched(record, state, proc, INIT_GRACE_SECONDS):
        log.warning(reason)
        return
    rights.harden(NAME)
    take_down(folder, record, proc, log, keep_mountpoints=options.keep_mountpoints, and_the_dead=True)


def foreign(record: Record, proc: Proc) -> LeftoverError:
    """The error for a record of another user namespace, with the command that works."""
    # From outside, an overlay that podman mounted inside is not there, and owners have other numbers: all would be
    # taken for gone or for a stranger's, and forgotten.
    owner, uids = record["user"]["owner"], record["user"]["uids"]
    problem = f'the container "{record["id"]}" was recorded in another user namespace: what it left is not seen here'
    if [(run["inside"], run["size"]) for run in uids] == [(0, 2**32 - 1)]:
        # The machine's own, where an ordinary user calls runc or crun. This one is podman's, or one like it.
        return LeftoverError(problem, hint="oci-bind-hook gc, outside of podman unshare")
    who = "" if owner in (None, proc.uid_outside(posix.geteuid())) else f"as uid {owner}: "
    return LeftoverError(problem, hint=f"{who}podman unshare oci-bind-hook gc")


def why_untouched(record: Record, state: State, proc: Proc, grace: float) -> str:
    """Why a record must not be undone now, "" if it may be. Waits up to ``grace`` seconds for its init to end."""
    init = record["init"]
    # Where the runtime has lost the bundle, the id and a first process that has ended must tell.
    if not is_same_bundle(record, state.bundle) and (init is None or not is_lost(state.bundle)):
        other = record["bundle"]["path"]
        return f"what is recorded belongs to the bundle {other}: nothing is touched; gc does it after its end"
    if init is not None and not proc.has_ended(init["pid"], init["start"], grace):
        return "the container's first process still runs: nothing is touched; gc does it after its end"
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
    """Undoes the record ``known`` and removes its state file. The caller holds the lock of the id.

    Returns what was left standing. Raises HookError; the state file then holds what is left to undo. ``is_start``: the
    next container of this id must start, so what cannot be seen or known now is given up, with a warning.
    ``and_the_dead``: then what other dead containers left in the same rootfs is undone, too, if it takes no long time.
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
                        log.warning(f"whoever else is dead on this rootfs is left to oci-bind-hook gc: {problem}")
                return remarks
        known = folder.load(known["id"]) or known


def check_answers(record: Record, proc: Proc, boot: str, *, may_give_up: bool) -> str:
    """Why the rootfs of a record must not be looked at, "" if it can be. Raises LeftoverError if it has to be.

    ``may_give_up``: then its mount points need not be removed, only its binds need to be unmounted.
    """
    silent = why_silent(record, proc, boot, lambda: listen(proc.mounts()), ANSWER_SECONDS)
    # Where the binds are in a namespace of their own, and the mount points are given up, nobody is asked.
    if silent and (is_in_this_namespace(record, proc, boot) or not may_give_up):
        raise _unlooked(record["rootfs"], silent, SILENT_HINT)
    return silent


class Living:
    """Tells which recorded containers live, as lifecycle.witness judges, and mostly without it.

    It looks at every process of the machine: only if a first process has ended, and then once.
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
        # Without a pid namespace of its own others can outlive its first process, and still see its binds.
        boot = boot_id()
        return record["boot"] == boot and (is_live(record, self._proc, boot) or self.witness.judge(record)[0] != "dead")


class Removal:
    """Where the mount points of ``record`` are to be removed. Until the block ends, the rootfs stays open.

    ``rootfs`` is None if it is gone, if ``problem`` says why it cannot be seen now, ``silent`` among others, or if the
    record has no mount points: then it is not looked at (``is_asked``), for it may be silent. ``now`` is what it is
    known by now or, if it is not open, by its record; ``all`` is both, to be locked.
    """

    # Opened before the lock, not under it: only what is held by an fd stays the same, and only then it is known which
    # locks it takes. Another process may mount an overlay anew between both, and so has the keys of another.

    def __init__(self, record: Record, proc: Proc, owner_of: OwnerOf | None = None, silent: str = "") -> None:
        self.rootfs: Rootfs | None = None
        self.problem: LeftoverError | None = None
        self.now = record["rootfs"]
        self.is_asked = bool(record["made"])
        if silent:
            self.problem = _unlooked(self.now, silent, SILENT_HINT)
        elif self.is_asked:
            try:
                if (found := find_rootfs(record, proc, owner_of)) is not None:
                    self.rootfs, self.now = found
            except LeftoverError as problem:
                self.problem = problem
        self.all = [self.now] if self.now is record["rootfs"] else [self.now, record["rootfs"]]

    def __enter__(self) -> Removal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.rootfs is not None:
            self.rootfs.close()

    def why_kept(self, users: Users) -> str:
        """Why no mount point can be removed now, "" if they can.

        A neighbour whose record cannot be read may live, and use the same mount points.
        """
        return str(self.problem) if self.problem is not None else next(iter(users.unread), "")


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
    """As ``take_down``, for a caller that holds the lock of the rootfs, too, and knows which containers may live.

    ``claims`` are those of all records, if the caller has read them.

    None, and nothing was done, if ``removal`` did not ask for the rootfs, and a neighbour has handed a mount point over
    since.

    It is held all the while because mount points are shared: what another record on the same rootfs uses is handed over
    to it, mounting.undo, and that record must be neither written nor undone at the same moment.
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
        log.warning(f"what an earlier container of this id left cannot be undone: {problem}")
        here = False
    for unreadable in users.unread:
        log.warning(unreadable)
    kept = removal.why_kept(users)
    if kept and is_start:
        log.warning(f"what an earlier container of this id left cannot be undone: {kept}")
    linux.raise_open_files()  # a fd for each folder on the way to what is removed, however deep it is
    try:
        remarks = undo(
            record,
            proc,
            removal.rootfs,
            keep=lambda made: keep_mountpoints or bool(kept) or held.hand_over(made, users, container, lives),
            # Of two that end at once, the dead neighbour's record removes what it still has inside.
            inherit=lambda made: held.hand_over(made, users, container),
            claimed=claimed,
            here=here,
            kept="" if is_start or keep_mountpoints else kept,
            give_up=is_start,
        )
    except HookError:
        held.save(record)
        raise
    held.remove(container)
    log.info(f"undone, as far as it was still there: {binds} binds, {points} mount points made for them")
    for remark in remarks:
        log.warning(str(remark))
    return remarks


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
    """Undoes what other dead containers left in ``rootfs``, as gc does. What resists is logged. OSError, HookError.

    For some of them no poststop ever comes: a runtime that fails after createRuntime calls none.
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
            log.info("there are more dead containers on this rootfs: oci-bind-hook gc finishes them")
            return
        if witness.judge(other)[0] != "dead" or is_of_another_user(other, here):
            continue
        if why_silent(other, proc, witness.boot, lambda: silence, end - time.monotonic()):
            continue
        try:
            with folder.lock_id(other["id"], wait=False), Removal(other, proc) as removal:
                log.info(f"the container {other['id']} is dead, and nobody has torn it down")
                if held.holds(removal.now):
                    undo_held(
                        *(folder, held, other["id"], removal, proc, log, living.has),
                        keep_mountpoints=keep_mountpoints,
                        claims=living.claims,
                    )
        except RecordError as problem:
            if not isinstance(problem.__cause__, BlockingIOError):  # a run works on it now
                log.warning(str(problem))
        except (HookError, OSError) as problem:
            log.warning(f"the container {other['id']} is left to oci-bind-hook gc: {problem}")


def forget(folder: Records, container: str, proc: Proc) -> None:
    """Removes the files of a run that was killed before its first record was complete. HookError."""
    clear_staging(folder, container, proc)
    folder.remove(container)


def is_here(record: Record, proc: Proc, boot: str, claimed: Claimed = lambda _: False) -> bool:
    """Whether the binds of a record are in this mount namespace. If not, they are gone with their own.

    ``claimed`` says whether another record has a better claim to a mount. LeftoverError if they are in a namespace that
    existed before the container and still exists, or may exist; DoubtError if this one has the number of theirs, and it
    cannot be known whether it is the same.
    """
    if record["boot"] != boot:
        return False
    is_same = is_same_namespace(record, proc)
    if is_same is not False:
        return is_same or _may_be_here(record, proc, claimed)
    if record["namespace"]["kind"] != "runtime" or not record["mounts"]:
        return False
    hint = "run poststop, or gc, in the namespace that prestart ran in"
    inode = record["namespace"]["inode"]
    user = proc.process_in_namespace(inode)
    # The kernel reuses inode numbers of namespaces: only the mounts show that it is the same one.
    if user is not None and is_same_namespace(record, proc, user) is not False:
        table, namespace = proc.mounts_of(user), proc.mount_namespace_id_of(user)
        tops = [mount["attached"][0] for mount in record["mounts"]]
        # The table of a process that has left by chroot(2) lacks what is outside of its root.
        found = [table.get(top["id"]) for top in tops if is_in(top, table, namespace)]
        if any(info is None or not claimed(info) for info in found):
            raise LeftoverError(f"the binds are in another mount namespace, that of process {user}", hint=hint)
    if user is None and proc.in_user_namespace() and not proc.may_see_all():
        problem = "the binds are in a mount namespace that cannot be looked for from this user namespace"
        raise LeftoverError(problem, hint=hint)
    return False


def _may_be_here(record: Record, proc: Proc, claimed: Claimed) -> bool:
    """Whether this mount namespace, which has the number of the record's, may be the same. Raises DoubtError."""
    # The runtime's own: each mount is asked for its place, mounting.mounted.Tree.
    if record["namespace"]["kind"] == "runtime":
        return True
    # The container's ends with its last process. While the first lives, no other can have the number.
    init = record["init"]
    if init is not None and proc.runs(init["pid"], init["start"]):
        return True
    table = proc.mounts()
    for mount in record["mounts"]:
        if stands(mount, record, table, claimed) is False:
            continue
        if mount["attached"][0]["unique"] is not None:
            return True
        raise DoubtError(
            f"whether this is the container's mount namespace cannot be known: it has its number, and a mount like its"
            f" bind on {mount['resolved']}",
            hint="run poststop, or gc, in another mount namespace",
        )
    return False


def why_silent(record: Record, proc: Proc, boot: str, listener: Callable[[], Silence | None], seconds: float) -> str:
    """Why what a record needs to be undone must not be asked now, "" if it can be.

    ``listener`` returns what ``listen`` does, and is called only if something in the rootfs is needed.
    """
    here = is_in_this_namespace(record, proc, boot)
    silence = listener() if record["made"] or (here and record["mounts"]) else None
    return silence.why(record, seconds, here=here) if silence is not None else ""


def listen(table: MountTable, known: dict[frozenset[int], str] | None = None) -> Silence | None:
    """What finds out who does not answer, rootfs.silence; mostly None, since no mount is such that it need not."""
    # A server that is silent keeps whoever asks it, beyond signals, with all the locks that they hold.
    if not any(map(may_wait, table.types())):
        return None
    from ..rootfs.silence import Silence

    return Silence(table, known)


def is_in_this_namespace(record: Record, proc: Proc, boot: str) -> bool:
    """Whether this mount namespace is that of a record, or may be: it has its number, in the same boot."""
    return record["boot"] == boot and is_same_namespace(record, proc) is not False


def _unlooked(rootfs: RootfsRecord, why: str, hint: str) -> LeftoverError:
    return LeftoverError(f"the rootfs {rootfs['path']} cannot be looked at: {why}", hint=hint)


def find_rootfs(record: Record, proc: Proc, owner_of: OwnerOf | None = None) -> tuple[Rootfs, RootfsRecord] | None:
    """The rootfs of a record, and what it is known by now; None if it is gone for good, rootfs.identity.is_gone.

    Raises LeftoverError if that cannot be known now. What does not answer is not gone, nor is a file system that is not
    mounted at this moment.
    """
    known = record["rootfs"]
    same_boot = record["boot"] == boot_id()
    hint = f'mount it, then run oci-bind-hook gc; if it was deleted, delete the state file of "{record["id"]}"'
    try:
        rootfs = Rootfs(known["path"], owner_of=owner_of)
    except MissingError as problem:
        if is_gone(known, same_boot=same_boot):
            return None
        raise LeftoverError(problem.problem, hint=problem.hint or hint) from problem
    except EscapeError as problem:
        raise LeftoverError(problem.problem, hint=hint) from problem
    try:
        now = identify(known["path"], rootfs.fd, proc.mounts)
    except OSError as reason:
        rootfs.close()
        raise _unlooked(known, str(reason.strerror), advice("openat", reason) or hint) from reason
    if is_same(known, now, same_boot=same_boot) and (known["upper"] is None or now["upper"] is not None):
        return rootfs, now
    rootfs.close()
    if is_gone(known, same_boot=same_boot):
        return None
    if known["upper"] is not None and now["overlay"] and now["upper"] is None:
        # Without it nobody would be a neighbour who was on the same rootfs before it was mounted anew.
        raise LeftoverError(f"the upper folder {known['upper']['path']} cannot be looked at", hint=hint)
    raise LeftoverError(f"another file system is at {known['path']} now", hint=hint)
