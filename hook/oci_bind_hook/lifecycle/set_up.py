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
from ..errors import At, DataError, LeftoverError, RecordError, UnavailableError
from ..kernel import files, rights
from ..kernel.errnos import unopened
from ..kernel.namespace import Namespace
from ..kernel.proc import Proc, boot_id
from ..log import NAME
from ..mounting.apply import carry_out, reconcile
from ..mounting.config_mounts import is_runtimes
from ..mounting.mounted import clear_staging
from ..mounting.plan import Planner
from ..mounting.sources import (
    Staged,
    allowed,
    clone_sources,
    close_sources,
    expand,
    open_sources,
    warn_of_propagation,
)
from ..options import remarks, state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_lost, is_object, is_of_another_user, is_same_bundle, now
from ..requests import collect
from ..rootfs.identity import identify_path, is_same
from ..rootfs.mount_points import Rootfs
from .stage import Place

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..documents.oci import Config, State
    from ..log import Log
    from ..mounting.plan import Plan
    from ..mounting.sources import Source
    from ..options import Options
    from ..record.folder import HeldRecords, Records
    from ..record.held import Users
    from ..record.state_file import MadeRecord, NamespaceKind, Record, RootfsRecord
    from ..requests.request import Request


def set_up(options: Options, state: State, document: object | None, log: Log) -> None:
    """Takes a container from its checked state to attached mounts and a finished state file.

    ``document`` is the config if the runtime sent it on stdin, else None. HookError, which knows its step.
    """
    rights.hide()
    proc = Proc()
    with At("read"):
        place = Place(options.stage, state, proc)
        bundle = _read(options, state, document, place, log)
    with At("ask"):
        asked = collect.requests(bundle.config, options.mounts, allowed(options.annotation_sources))
        requests = expand(asked, _before(log))
        kind = place.kind(bundle, is_another=place.is_elsewhere())
        if bundle.config.root_readonly and kind == "runtime":
            requests.insert(0, collect.read_only_root(bundle.rootfs))
    resisting: list[LeftoverError] = []
    while not _try(options, state, bundle, requests, place, kind, resisting, log):
        # An earlier container of this id was undone. Its binds may have been in front of the sources, or be the sources
        # themselves: they are opened again, once more without a lock.
        pass


def _try(
    options: Options,
    state: State,
    bundle: Bundle,
    requests: list[Request],
    place: Place,
    kind: NamespaceKind,
    resisting: list[LeftoverError],
    log: Log,
) -> bool:
    """The rest of a set-up. HookError. False if something else had to be undone first, and nothing else was changed.

    ``resisting`` then has what could not be undone, to be called again with.
    """
    namespace = Namespace(place.proc, "runtime")
    # A source of the runtime's own binds may be silent, or refuse root: the container starts all the same.
    ours = [request for request in requests if not is_runtimes(request, kind, bundle.rootfs)]
    with At("open"):
        sources = open_sources(ours, bundle.path, namespace, _before(log))
        warn_of_propagation(
            sources,
            lambda: place.runtimes() if kind == "container" else (),
            bundle.config.rootfs_propagation,
            is_inside=place.stage == "createContainer",
        )
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
            if not resisting and _clear_stale(options, folder, state, bundle, place, resisting, log):
                close_sources(sources)
                return False
        with At("enter"):
            log.step(f"opening the rootfs {bundle.rootfs}")
            known = identify_path(bundle.rootfs, namespace.started_in)
            rootfs_lock = folder.lock_rootfs(known)
        with rootfs_lock as held:
            log.step("rootfs locked")
            record = folder.load(state.id)
            if record is None or resisting:
                record = _new_record(state, bundle, place, known, _inherited(record, known, resisting))
            users = held.users(known, record["boot"])
            for remark in users.unread:
                log.warning(remark)
            others = users.besides(state.id)
            if not sources and not others and not users.unread:
                log.info("no bind is asked for")
                return True
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
            for bind in plan.binds if log.is_kept else ():
                log.info(bind.summary())
    return True


def _before(log: Log) -> Callable[[Request, str], None] | None:
    """What writes down whose source is asked for next: if its server is silent, that is the last line of the log."""
    return (lambda request, path: log.step(f"{request.origin}: opening {path}")) if log.is_kept else None


def _read(options: Options, state: State, document: object | None, place: Place, log: Log) -> Bundle:
    """Reads the bundle and settles the stage, which the log names from now on. HookError."""
    path = state.bundle
    if document is None and is_lost(path):
        from .lost import find

        path, document = find(state, place.proc) or (path, None)
        log.step(f"the runtime has lost the bundle: it is {path}")
    log.step(f"opening the bundle {path} and its rootfs")
    bundle = Bundle(path, document, whole=options.strict)
    if bundle.violations:
        raise DataError("config.json", bundle.violations)
    log.stage = place.choose(bundle)
    for remark in remarks(options):
        log.warning(remark)
    log.step("config.json validated")
    if other := other_annotation(state, bundle.config):
        log.warning(other)
    if bundle.config.namespaces.get("mount"):
        log.warning("the mount namespace outlives the container, and so will the binds in it")
    return bundle


def other_annotation(state: State, config: Config) -> str:
    """The warning for a state with an annotation that config.json has not, "" if there is none.

    What runtimes tell a hook is what they have read. Some read another file, as crun does by ``--config``.
    """
    # Joined, since runc splits what it has joined itself, at the first "=" of a name.
    read = {f"{name}={value}" for name, value in config.annotations.items()}
    for name, value in state.annotations.items():
        if f"{name}={value}" not in read:
            return f"the runtime may have another config.json: the state has another annotation {name}"
    return ""


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


def _clear_stale(
    options: Options,
    folder: Records,
    state: State,
    bundle: Bundle,
    place: Place,
    resisting: list[LeftoverError],
    log: Log,
) -> bool:
    """Undoes what a dead container of the same id left, and returns whether there was one.

    If nothing but mount points could not be removed, ``resisting`` gets the error. RecordError if one of another bundle
    is alive; LeftoverError if it is of another user namespace.
    """
    record = folder.load(state.id)
    if record is not None:
        clear_staging(folder, state.id, place.proc)
    if record is not None and not is_continued(record, bundle.path, place.proc):
        from .tear_down import foreign, take_down

        if is_of_another_user(record, place.user(bundle)):
            raise foreign(record, place.proc)
        log.warning("an earlier container of this id was not torn down: doing it now")
        keep = options.keep_mountpoints
        owner_of = place.owner_of(bundle)
        try:
            take_down(folder, record, place.proc, log, keep_mountpoints=keep, owner_of=owner_of, is_start=True)
        except LeftoverError as problem:
            left = folder.load(state.id)
            if left is None or left["mounts"]:
                raise
            log.warning(f"{problem.problem}: the next poststop tries again")
            resisting.append(problem)
        return True
    return False


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
