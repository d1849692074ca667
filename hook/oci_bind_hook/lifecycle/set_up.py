# SPDX-License-Identifier: Apache-2.0
"""The steps of a set-up in their order, errors.STEPS. The work of each step is done elsewhere.

The order is what makes a run safe: everything is read and cloned before the container's namespace is entered, every
destination is resolved before anything is changed, and every change is recorded before it is made. It also is what
keeps one container from holding up others: sources are asked for before anything is locked, since a server that is
silent keeps whoever asks it.
"""

from __future__ import annotations

import posix

from ..documents.bundle import Bundle
from ..errors import At, DataError, HookError, LeftoverError, RecordError, UnavailableError
from ..kernel import files, linux, rights
from ..kernel.errnos import unopened
from ..kernel.proc import Namespace, Proc, boot_id
from ..log import NAME
from ..mounting.apply import carry_out, reconcile
from ..mounting.mounted import clear_staging
from ..mounting.plan import Planner, is_runtimes
from ..mounting.sources import Staged, allowed, clone_sources, close_sources, expand, open_sources
from ..mounting.undo import undo
from ..options import remarks, state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_object, is_same_bundle, now
from ..requests import collect
from ..rootfs.identity import identify_path, is_same
from ..rootfs.mount_points import Rootfs
from .stage import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents.oci import State
    from ..log import Log
    from ..mounting.plan import Plan
    from ..mounting.sources import Source
    from ..options import Options
    from ..record.folder import HeldRecords, Records
    from ..record.held import Users
    from ..record.state_file import MadeRecord, NamespaceKind, Record, RootfsRecord
    from ..requests.request import Request
    from ..rootfs.mount_points import OwnerOf


class Call:
    """One call of the hook: what it was given, and what it has found out so far."""

    __slots__ = ("_place", "bundle", "has_earlier", "is_sealed", "log", "options", "resisting", "state")

    def __init__(self, options: Options, state: State, log: Log) -> None:
        self.options = options
        self.state = state
        self.log = log
        self._place: Place | None = None
        self.bundle: Bundle | None = None
        # Whether an earlier call for this container has a record; and whether it is too late to load a module.
        self.has_earlier = False
        self.is_sealed = False
        # What could not be undone of an earlier container of this id.
        self.resisting: list[LeftoverError] = []

    @property
    def place(self) -> Place:
        """Where the hook was started. Raises OSError, and HookError without procfs."""
        if self._place is None:
            self._place = Place(self.options.stage, self.state, Proc())
        return self._place

    @property
    def owner_of(self) -> OwnerOf | None:
        return self.place.owner_of(self.bundle) if self.bundle is not None else None

    def is_of_this(self, record: Record) -> bool:
        """Whether a record belongs to this container, as ``is_continued``. Raises RecordError."""
        return is_continued(record, self.state.bundle, self.place.proc)


def set_up(options: Options, state: State, document: object | None, log: Log) -> None:
    """Takes a container from its checked state to attached mounts and a finished state file.

    ``document`` is the config if the runtime sent it on stdin, else None. HookError, which knows its step.
    """
    rights.hide()
    call = Call(options, state, log)
    try:
        _set_up(call, document)
    except BaseException as failure:
        if not call.is_sealed:
            from .earlier import give_up

            give_up(call, failure)
        raise


def _set_up(call: Call, document: object | None) -> None:
    options = call.options
    with At("read"):
        place = call.place
        bundle = call.bundle = _read(call, document)
    with At("ask"):
        requests = expand(collect.requests(bundle.config, options.mounts, allowed(options.annotation_sources)))
        kind = place.kind(bundle, is_another=place.is_elsewhere())
        if bundle.config.root_readonly and kind == "runtime":
            requests.insert(0, collect.read_only_root(bundle.rootfs))
    while not _try(call, bundle, requests, kind):
        # An earlier container of this id was undone. Its binds may have been in front of the sources, or be the sources
        # themselves: they are opened again, once more without a lock.
        pass


def _try(call: Call, bundle: Bundle, requests: list[Request], kind: NamespaceKind) -> bool:
    """The rest of a set-up. HookError. False if something else had to be undone first, and nothing else was changed."""
    options, state, place, log = call.options, call.state, call.place, call.log
    namespace = Namespace(place.proc, "runtime")
    # A source of the runtime's own binds may be silent, or refuse root: the container starts all the same.
    ours = [request for request in requests if not is_runtimes(request, kind)]
    with At("open"):
        sources = open_sources(ours, bundle.path, namespace)
    with At("clone"):
        clone_sources(sources)
    log.step("sources opened")
    with At("state folder"):
        folder = _open_folder(options, place, create=bool(sources))
        if folder is None:
            log.info("no bind is asked for")
            return True
        id_lock = folder.lock_id(state.id)
    with id_lock:
        log.step("id locked")
        with At("state folder"):
            if not call.resisting and _clear_stale(call, folder):
                close_sources(sources)
                return False
        with At("enter"):
            known = identify_path(bundle.rootfs, namespace.started_in)
            rootfs_lock = folder.lock_rootfs(known)
        with rootfs_lock as held:
            log.step("rootfs locked")
            record = folder.load(state.id)
            if record is None or call.resisting:
                record = _new_record(state, bundle, place, known, _inherited(record, known, call.resisting))
            users = held.users(known, record["boot"])
            for remark in users.unread:
                log.warning(remark)
            others = users.besides(state.id)
            if not sources and not others and not users.unread:
                log.info("no bind is asked for")
                return True
            call.is_sealed = True
            rootfs = None
            try:
                with At("enter"):
                    rootfs = _enter(bundle, known, place, kind, namespace, log)
                    log.step(f"in the {namespace.kind}'s mount namespace{', entered' if namespace.entered else ''}")
                    _check_neighbours(requests, others, namespace)
                    _complete_or_check(record, rootfs, namespace)
                    staged = _staged(sources, folder, record, place.proc)
                with staged:
                    with At("resolve"):
                        planner = Planner(
                            rootfs,
                            namespace,
                            record["mounts"],
                            allow_shared=options.allow_shared,
                            is_admin=bundle.config.is_admin,
                        )
                        plan = planner.resolve(requests, sources)
                        log.step("destinations resolved")
                        _raise_problem(plan, log)
                    with At("make"):  # and "attach", by its own step
                        _carry_out(plan, record, folder, held, users, staged, log)
            except BaseException as failure:
                if call.has_earlier and not place.is_by_hand:
                    _undo_earlier(call, record, rootfs, known, held, users, failure)
                raise
            for bind in plan.binds if log.is_kept else ():
                log.info(bind.summary())
    return True


def _read(call: Call, document: object | None) -> Bundle:
    """Reads the bundle and settles the stage, which the log names from now on. HookError."""
    log = call.log
    bundle = Bundle(call.state.bundle, document, whole=call.options.strict)
    if bundle.violations:
        raise DataError("config.json", bundle.violations)
    log.stage = call.place.choose(bundle)
    for remark in remarks(call.options):
        log.warning(remark)
    log.step("config.json validated")
    if bundle.config.namespaces.get("mount"):
        log.warning("the mount namespace outlives the container, and so will the binds in it")
    return bundle


def _check_neighbours(requests: list[Request], others: list[Record], namespace: Namespace) -> None:
    """Refuses a read-only root where another container has binds in the same rootfs and namespace, and the reverse.

    UnavailableError. Undoing one would take down the other. In namespaces of their own containers do not meet.
    """
    has_root = any(request.is_root for request in requests)
    boot = boot_id() if others else ""
    for other in others:
        is_here = other["boot"] == boot and other["namespace"]["inode"] == namespace.inode
        # The number of a dead container's own namespace is another's by now: its binds ended with it.
        is_here = is_here and (other["namespace"]["kind"] == "runtime" or is_live(other, namespace.proc, boot))
        if is_here and any(has_root or mount["resolved"] == "/" for mount in other["mounts"]):
            raise UnavailableError(
                f'the container "{other["id"]}" has binds in the same rootfs and mount namespace, and root.readonly '
                "would be for both",
                hint="give each a rootfs or a mount namespace of its own",
            )


def _staged(sources: list[Source], folder: Records, record: Record, proc: Proc) -> Staged:
    """For kernels before Linux 5.12: sources are cloned in the state folder or, without one, on top of the rootfs."""
    container = record["id"]

    def make() -> str:
        clear_staging(folder, container, proc)
        folder.make_staging(container)
        return folder.staging(container) or record["rootfs"]["path"]

    return Staged(sources, make, lambda: clear_staging(folder, container, proc), proc)


def _enter(
    bundle: Bundle, known: RootfsRecord, place: Place, kind: NamespaceKind, namespace: Namespace, log: Log
) -> Rootfs:
    """Enters the container's mount namespace, if it is another one, and returns the rootfs as seen from there.

    From here on nothing is imported, and nothing is read but through fds that are open already: ``/`` may be the
    image's now. UnavailableError if ``/`` or the rootfs is not the object that it was before (``known``): then the
    container has its own root already, or the pid is another process's; or if it is no namespace of that ``kind``.
    """
    root = posix.stat("/")
    log.prepare()
    rights.harden(NAME)
    place.enter(namespace)
    rights.give_up(rights.TO_ENTER)
    namespace.kind = place.kind(bundle, is_another=namespace.entered)
    if namespace.kind != kind:
        raise UnavailableError("the container's process has changed its mount namespace at this moment")
    try:
        is_seen = files.is_same_file(root, posix.stat("/")) and is_object(known, posix.stat(bundle.rootfs))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        is_seen = False
    except OSError as reason:
        raise unopened(f"the rootfs {bundle.rootfs}", reason) from reason
    if not is_seen:
        raise UnavailableError(
            f"the mount namespace of the container does not show the rootfs {bundle.rootfs}",
            hint="it has its own root already, as in runsc: run prestart before the runtime, by a state without a pid",
        )
    is_container = namespace.kind == "container"
    rootfs = Rootfs(
        bundle.rootfs,
        own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs),
        type_of=namespace.type_of,
        owner_of=place.owner_of(bundle),
    )
    with files.Named(bundle.rootfs):
        there = posix.fstat(rootfs.fd)
    if not is_object(known, there):
        raise UnavailableError(f"the rootfs {bundle.rootfs} was replaced at this moment")
    # crun before 1.26 makes the root read-only before it calls createContainer hooks.
    is_early = place.stage == "createContainer" and bundle.config.root_readonly
    rootfs.unlock = is_container and is_early and not namespace.is_locked_by_host(rootfs.stat)
    return rootfs


def _complete_or_check(record: Record, rootfs: Rootfs, namespace: Namespace) -> None:
    """Completes a new record, or checks that the record of an earlier call is for the same namespace and rootfs.

    What an earlier call announced but was killed over is removed from the record. RecordError.
    """
    is_new = not record["namespace"]["inode"]
    if is_new or (not record["mounts"] and not record["made"]):
        unique = namespace.proc.mount_namespace_id()
        record["namespace"] = {"kind": namespace.kind, "inode": namespace.inode, "unique": unique}
        return
    if record["namespace"]["inode"] != namespace.inode:
        raise RecordError(
            f'the container "{record["id"]}" has binds in another mount namespace already',
            hint="call poststop for it first",
        )
    if (record["rootfs"]["dev"], record["rootfs"]["ino"]) != (rootfs.stat.dev, rootfs.stat.ino):
        raise RecordError(
            f'the container "{record["id"]}" has binds in another rootfs already, {record["rootfs"]["path"]}',
            hint="call poststop for it first",
        )
    reconcile(record, namespace.proc, rootfs)


def _raise_problem(plan: Plan, log: Log) -> None:
    """Raises the first problem of a plan. Without problems, logs its warnings."""
    if problems := plan.problems:
        first = problems[0]
        if len(problems) > 1:
            more = f"and {len(problems) - 1} more: --dry-run tells all"
            first.hint = f"{first.hint}; {more}" if first.hint else more
        raise first
    for bind in plan.binds:
        for warning in bind.warnings:
            log.warning(f"{bind.request.origin}: {warning}")


_SAVED = {"intent": "recorded what is to be done", "made": "mount points made", "done": "binds attached"}


def _carry_out(
    plan: Plan,
    record: Record,
    folder: Records,
    held: HeldRecords,
    users: Users,
    staged: Staged,
    log: Log,
) -> None:
    def save() -> None:
        held.save(record)
        log.step(_SAVED[record["phase"]])

    before: Record = {**record}
    if not plan.to_mount:
        uses = plan.uses.union(record["uses"])
        record["uses"] = sorted(uses)
        # A record is needed only if this container depends on a mount point that another one would remove, or may.
        record["phase"] = "done"
        others = users.besides(record["id"])
        is_shared = any(made["path"] in uses for other in others for made in other["made"])
        if record["mounts"] or record["made"] or is_shared or (users.unread and uses):
            held.save(record)
        return
    if any(bind.create for bind in plan.to_mount) and (problem := folder.why_unrecorded()):
        raise problem
    record["created"] = now()
    try:
        carry_out(plan, record, save, staged.end)
    except BaseException:
        log.step("rolled back")
        if (record["mounts"], record["made"]) == (before["mounts"], before["made"]):
            record["created"] = before["created"]
        if record["mounts"] or record["made"]:
            held.save(record)
        else:
            held.remove(record["id"])
        raise


def _undo_earlier(
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
    call.log.warning("what earlier calls did for this container is undone as well: its creation ends here")
    linux.raise_open_files()  # a fd for each folder on the way to what is removed, however deep it is
    try:
        rootfs = rootfs or Rootfs(known["path"], owner_of=call.owner_of)
        if not is_object(record["rootfs"], posix.fstat(rootfs.fd)):
            raise LeftoverError(f"could not undo what earlier calls did: {known['path']} is another rootfs than theirs")
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
        if not isinstance(failure, LeftoverError):  # else it tells already that something is left
            raise LeftoverError(f"{failure}; then {problem}") from failure
    else:
        held.remove(container)


def _new_record(
    state: State, bundle: Bundle, place: Place, rootfs: RootfsRecord, inherited: list[MadeRecord]
) -> Record:
    return {
        "id": state.id,
        "phase": "done",
        "created": 0,
        "boot": boot_id(),
        "stage": place.stage,
        "bundle": {"path": bundle.path, "dev": bundle.stat.st_dev, "ino": bundle.stat.st_ino},
        "rootfs": rootfs,
        "user": place.user(bundle),
        "namespace": {"kind": "container", "inode": 0, "unique": None},
        "init": place.init,
        "mounts": [],
        "uses": [],
        "made": inherited,
    }


def _inherited(known: Record | None, rootfs: RootfsRecord, resisting: list[LeftoverError]) -> list[MadeRecord]:
    """What resisted when the dead container of the record ``known`` was undone, for the next one of its id.

    That must start all the same, and undoes it in the end. LeftoverError if it has another rootfs.
    """
    if known is None or not known["made"]:
        return []
    if not is_same(known["rootfs"], rootfs, same_boot=known["boot"] == boot_id()):
        raise resisting[0]
    made = [one for one in known["made"] if one["identity"] is not None]
    for one in made:
        # By the device number of today, which the record of the next container has.
        if one["identity"] is not None and one["identity"]["dev"] == known["rootfs"]["dev"]:
            one["identity"]["dev"] = rootfs["dev"]
    return made


def _open_folder(options: Options, place: Place, *, create: bool) -> Records | None:
    """The state folder, or in a container's user namespace its stand-in, where no record can be kept.

    No record is needed: those mounts end with the container's namespace. Only mount points outlive it. RecordError.
    """
    path = state_folder(options, place.proc)
    is_nested = place.stage == "createContainer" and place.proc.in_user_namespace()
    if is_nested and not place.proc.is_ours():
        # poststop runs as the runtime's user, who has no uid in here and refuses a folder that is not their own.
        reason = "nothing can be recorded in a user namespace that another user made"
        return _unrecorded(reason, "make them in the image, or register for createRuntime")
    try:
        return StateFolder.open(path, create=create)
    except RecordError as problem:
        if is_nested and isinstance(problem.__cause__, OSError):
            hint = "make them in the image, give --root a folder that can be written, or register for createRuntime"
            return _unrecorded(problem.problem, f"{hint} if the runtime is root's")
        raise


def _unrecorded(reason: str, hint: str) -> Records:
    from ..record.unrecorded import Unrecorded

    return Unrecorded(UnavailableError(f"mount points must be made, and {reason}", hint=hint))


def _clear_stale(call: Call, folder: Records) -> bool:
    """Undoes what a dead container of the same id left, and returns whether there was one.

    Finds out as well whether an earlier call has a record for this one. RecordError if one of another bundle is alive.
    """
    record = folder.load(call.state.id)
    if record is None:
        return False
    clear_staging(folder, call.state.id, call.place.proc)
    if call.is_of_this(record):
        call.has_earlier = True
        return False
    from .earlier import clear_stale

    clear_stale(call, folder, record)
    return True


def is_continued(record: Record, bundle: str, proc: Proc) -> bool:
    """Whether a record belongs to the container that is being set up. False if its container is dead.

    RecordError if it belongs to another container that is alive.
    """
    if not is_live(record, proc, boot_id()):
        return False
    if not is_same_bundle(record, bundle):
        other = record["bundle"]["path"]
        problem = f'the id "{record["id"]}" belongs to another container that lives, of the bundle {other}'
        raise RecordError(problem, hint="choose another id, or end that one first: list and show tell of it")
    return True
