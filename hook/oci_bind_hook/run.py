# SPDX-License-Identifier: Apache-2.0
"""The order of steps: what is read, locked, entered and written, and when.

Each step's own work is done elsewhere. The order is what makes a run safe: everything is read and cloned before the
container's namespace is entered, resolved before anything is changed, and recorded before it is done.
"""

from __future__ import annotations

import os

from . import linux, mounts, plan, spec
from .attached import clear, is_in
from .bundle import Bundle
from .errors import (
    DataError,
    EscapeError,
    HookError,
    LeftoverError,
    MissingError,
    RecordError,
    UnavailableError,
)
from .log import NAME
from .planner import Planner
from .proc import Namespace, Proc, boot_id
from .reasons import refused
from .rootfs import Rootfs
from .stage import Place
from .statefile import StateFolder, Unrecorded, is_live, now
from .strictjson import documents
from .trees import Staged, clone_sources, expand, open_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import cast

    from .log import Log
    from .planner import Plan
    from .request import Request
    from .rootfs import OwnerOf
    from .source import Source
    from .statefile import Record
else:

    def cast(_: object, value: object) -> object:
        return value


DEFAULT_ROOT = "/run/oci-bind-hook"
INIT_GRACE_SECONDS = 2.0


class Options:
    """The command line, understood."""

    def __init__(self) -> None:
        self.stage: str | None = None
        self.mounts: list[str] = []
        self.root: str | None = None
        self.dry_run = False
        self.bundle: str | None = None
        self.as_json = False
        self.strict = False
        self.allow_annotations = False
        self.allowed_sources: list[str] = []
        self.allow_shared = False
        self.keep_mountpoints = False
        self.log: str | None = None
        self.log_as_json = False

    @property
    def annotation_sources(self) -> list[str]:
        """Below which folders annotations may name sources; without one they do not count."""
        return self.allowed_sources if self.allow_annotations else []


def remarks(options: Options) -> list[str]:
    """What is asked for by halves, and so has no effect."""
    found = []
    if options.allow_annotations and not options.allowed_sources:
        found.append("--allow-annotations without --allow-source allows no annotation")
    if options.allowed_sources and not options.allow_annotations:
        found.append("--allow-source without --allow-annotations allows no annotation")
    return found


def parse_record(data: bytes, name: str) -> Record:
    """The record in a state file. DataError with ``name``."""
    document = documents(data, name)[0]
    if violations := spec.violations(document, "state-file"):
        raise DataError(name, violations)
    return cast("Record", document)


def is_teardown(stage: str | None, state: spec.State) -> bool:
    """Whether this is poststop. UnavailableError for a container that is past, or not yet at, the stage."""
    if state.status == "stopped" and stage in (None, "poststop"):
        return True
    if stage == "poststop":
        raise UnavailableError(
            f'poststop is for a container that is "stopped", and this one is "{state.status}"',
            hint="name the stage that the hook is registered for, or leave STAGE out",
        )
    if state.status not in ("creating", "created"):
        raise UnavailableError(
            f'nothing can be mounted into a container that is "{state.status}"',
            hint="register the hook for createRuntime, createContainer or prestart",
        )
    return False


def state_folder(options: Options, proc: Proc) -> str:
    """Where the state files are: as asked, else below /run, or for an ordinary user below their runtime folder.

    An ordinary user is root in the user namespace of their container. Told by who that is outside of it, so that
    poststop, which is called there, looks into the same folder.
    """
    if options.root is not None:
        return options.root
    uid = proc.uid_outside(os.geteuid())
    if uid == 0:
        return DEFAULT_ROOT
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{runtime if runtime.startswith('/') else f'/run/user/{uid}'}/oci-bind-hook"


# -- set-up ----------------------------------------------------------------------------------------------------------


def set_up(options: Options, state: spec.State, document: object | None, log: Log) -> None:
    """Everything from a checked state to attached mounts and a finished state file. HookError."""
    linux.hide()
    proc = Proc()
    place = Place(options.stage, state, proc)
    bundle = Bundle(state.bundle, document, whole=options.strict)
    if bundle.violations:
        raise DataError("config.json", bundle.violations)
    log.stage = place.choose(bundle)
    for remark in remarks(options):
        log.warning(remark)
    log.step("config.json validated")
    if bundle.config.namespaces.get("mount"):
        log.warning("the mount namespace outlives the container, and so will the binds in it")
    requests = expand(plan.requests(bundle.config, options.mounts, options.annotation_sources), bundle.path)
    if bundle.config.root_readonly and place.kind(bundle, is_another=place.is_elsewhere()) == "runtime":
        requests.insert(0, plan.read_only_root(bundle.rootfs))
    folder = _open_folder(options, place, create=any(request.is_bind for request in requests))
    if folder is None:
        log.info("no bind is asked for")
        return
    with folder.lock_id(state.id):
        log.step("id locked")
        _clear_stale(options, folder, state, bundle, place, log)
        namespace = Namespace(proc, "runtime")
        # Before the rootfs is locked: a source that does not answer must not keep its other containers waiting.
        sources = open_sources(requests, bundle.path, namespace)
        clone_sources(sources)
        log.step("sources opened")
        known = bundle.stat_rootfs()
        with folder.lock_rootfs(known):
            log.step("rootfs locked")
            record = folder.load(state.id) or _new_record(state, bundle, place, known)
            others = _others(folder, record, log)
            if not sources and not others:
                log.info("no bind is asked for")
                return
            rootfs = _enter(bundle, known, place, namespace, log)
            log.step(f"in the {namespace.kind}'s mount namespace{', entered' if namespace.entered else ''}")
            _check_neighbours(requests, others, namespace)
            _continue(record, rootfs, namespace)
            with _staged(sources, folder, record, proc) as staged:
                planner = Planner(rootfs, namespace, record["mounts"], allow_shared=options.allow_shared)
                found = planner.resolve(requests, sources)
                log.step("destinations resolved")
                _judge(found, log)
                _carry_out(found, record, folder, others, staged, log)
            for bind in found.binds:
                log.info(bind.summary())


def _check_neighbours(requests: list[Request], others: list[Record], namespace: Namespace) -> None:
    """Refuses to lay a read-only root over another container's binds, or to bind above one that will be gone some day.

    UnavailableError. In namespaces of their own containers do not meet.
    """
    has_root = any(request.is_root for request in requests)
    for other in others:
        is_here = other["boot"] == boot_id() and other["namespace"]["inode"] == namespace.inode
        if is_here and any(has_root or mount["resolved"] == "/" for mount in other["mounts"]):
            raise UnavailableError(
                f'the container "{other["id"]}" has binds in the same rootfs and mount namespace, and root.readonly '
                "would be for both",
                hint="give each a rootfs or a mount namespace of its own",
            )


def _staged(sources: list[Source], folder: StateFolder, record: Record, proc: Proc) -> Staged:
    """On older kernels: the sources made ready in the state folder or, where there is none, on top of the rootfs."""
    container = record["id"]

    def make() -> str:
        _clear_staging(folder, container, proc)
        folder.make_staging(container)
        return folder.staging(container) or record["rootfs"]["path"]

    return Staged(sources, make, lambda: _clear_staging(folder, container, proc), proc)


def _clear_staging(folder: StateFolder, container: str, proc: Proc) -> None:
    """Removes the folder in which mounts were made ready, and what a run that was stopped has left on it."""
    if path := folder.staging(container):
        try:
            clear(path, proc)
        except OSError as reason:
            raise refused("umount2", path, reason) from reason
        folder.remove_staging(container)


def _others(folder: StateFolder, record: Record, log: Log) -> list[Record]:
    """The records of all other containers on the same rootfs, dead ones too: what they made may still be removed."""
    others, remarks = folder.on_rootfs(record["rootfs"], record["id"])
    for remark in remarks:
        log.warning(remark)
    return others


def _enter(bundle: Bundle, known: os.stat_result, place: Place, namespace: Namespace, log: Log) -> Rootfs:
    """Enters the container's namespace, if it is another one, and returns the rootfs, which is ``known``, from there.

    From here on nothing is imported and nothing read but what is held by fd already. UnavailableError where ``/`` or
    the rootfs is another one there: that is no container which is just being made.
    """
    before = [os.stat("/"), known]
    log.prepare()
    linux.harden(NAME)
    place.enter(namespace)
    linux.give_up(linux.TO_ENTER)
    namespace.kind = place.kind(bundle, is_another=namespace.entered)
    try:
        after = [os.stat("/"), os.stat(bundle.rootfs)]
    except OSError:
        after = []
    if not after or not all(map(os.path.samestat, before, after)):
        raise UnavailableError(
            f"the mount namespace of the container does not show the rootfs {bundle.rootfs}",
            hint="it has its own root already: register for createRuntime or createContainer; runsc needs the latter",
        )
    is_container = namespace.kind == "container"
    rootfs = Rootfs(
        bundle.rootfs,
        own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs),
        owner_of=place.owner_of(bundle),
    )
    if not os.path.samestat(known, os.fstat(rootfs.fd)):
        raise UnavailableError(f"the rootfs {bundle.rootfs} was replaced at this moment")
    # crun before 1.26 makes the root read-only before it calls createContainer hooks.
    is_early = place.stage == "createContainer" and bundle.config.root_readonly
    rootfs.unlock = is_container and is_early and not namespace.is_locked_by_host(rootfs.stat)
    return rootfs


def _continue(record: Record, rootfs: Rootfs, namespace: Namespace) -> None:
    """Completes a new record by what is known only now, or checks that an earlier call's was for the same place.

    What that call was killed over is not taken as done.
    """
    if not record["mounts"] and not record["made"]:
        record["rootfs"]["overlay"] = rootfs.is_overlay
        record["namespace"] = {"kind": namespace.kind, "inode": namespace.inode}
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
    mounts.reconcile(record, namespace.proc, rootfs)


def _judge(found: Plan, log: Log) -> None:
    """Raises the first problem of a plan, if it has any; warnings are logged."""
    if problems := found.problems:
        first = problems[0]
        if len(problems) > 1:
            more = f"and {len(problems) - 1} more: --dry-run tells all"
            first.hint = f"{first.hint}; {more}" if first.hint else more
        raise first
    for bind in found.binds:
        for warning in bind.warnings:
            log.warning(f"{bind.request.origin}: {warning}")


_SAVED = {"intent": "recorded what is to be done", "made": "mount points made", "done": "binds attached"}


def _carry_out(
    found: Plan, record: Record, folder: StateFolder, others: list[Record], staged: Staged, log: Log
) -> None:
    def save() -> None:
        folder.save(record)
        log.step(_SAVED[record["phase"]])

    before: Record = {**record}
    record["uses"] = sorted(found.uses.union(record["uses"]))
    if not found.to_mount:
        # Not even a record is needed, unless we stand on something that another container would remove one day.
        record["phase"] = "done"
        if record["mounts"] or any(made["path"] in record["uses"] for other in others for made in other["made"]):
            folder.save(record)
        return
    if isinstance(folder, Unrecorded) and any(bind.create for bind in found.to_mount):
        raise UnavailableError(f"mount points must be made, and {folder.reason}", hint=folder.hint)
    record["created"] = now()
    try:
        mounts.attach(found, record, save, staged.end)
    except BaseException:
        log.step("rolled back")
        if (record["mounts"], record["made"]) == (before["mounts"], before["made"]):
            record["uses"], record["created"] = before["uses"], before["created"]
        if record["mounts"] or record["made"]:
            folder.save(record)
        else:
            folder.remove(record["id"])
        raise


def _new_record(state: spec.State, bundle: Bundle, place: Place, rootfs: os.stat_result) -> Record:
    return {
        "version": 1,
        "id": state.id,
        "phase": "done",
        "created": 0,
        "boot": boot_id(),
        "stage": place.stage,
        "bundle": {"path": bundle.path, "dev": bundle.stat.st_dev, "ino": bundle.stat.st_ino},
        "rootfs": {"path": bundle.rootfs, "dev": rootfs.st_dev, "ino": rootfs.st_ino, "overlay": False},
        "namespace": {"kind": "container", "inode": 0},
        "init": place.init,
        "mounts": [],
        "uses": [],
        "made": [],
    }


def _open_folder(options: Options, place: Place, *, create: bool) -> StateFolder | None:
    """The state folder, or what stands in for it in a container's user namespace: the mounts need no record there.

    They die with the container.
    """
    path = state_folder(options, place.proc)
    is_nested = place.stage == "createContainer" and place.proc.in_user_namespace()
    if is_nested and not place.proc.is_ours():
        # The runtime's user, who calls poststop, is nobody in here, and would refuse a folder of anybody else.
        reason = "nothing can be recorded in a user namespace that another user made"
        return Unrecorded(path, reason, "make them in the image, or register for createRuntime")
    try:
        return StateFolder.open(path, parse_record, create=create)
    except RecordError as problem:
        if is_nested and isinstance(problem.__cause__, OSError):
            hint = "make them in the image, give --root a folder that can be written, or register for createRuntime"
            return Unrecorded(path, problem.problem, f"{hint} if the runtime is root's")
        raise


def _clear_stale(
    options: Options, folder: StateFolder, state: spec.State, bundle: Bundle, place: Place, log: Log
) -> None:
    """Undoes what a dead container of the same id left behind. RecordError where one of another bundle lives."""
    record = folder.load(state.id)
    if record is not None:
        _clear_staging(folder, state.id, place.proc)
    if record is not None and not is_continued(record, bundle.path, place.proc):
        log.warning("an earlier container of this id was not torn down: doing it now")
        keep = options.keep_mountpoints
        take_down(folder, record, place.proc, log, keep_mountpoints=keep, owner_of=place.owner_of(bundle))


def is_continued(record: Record, bundle: str, proc: Proc) -> bool:
    """Whether a record is of the very container that is set up now; False for one of a container that is dead.

    RecordError where it is of another one that lives.
    """
    if not is_live(record, proc, boot_id()):
        return False
    if not _is_same_bundle(record, bundle):
        other = record["bundle"]["path"]
        problem = f'the id "{record["id"]}" belongs to another container that lives, of the bundle {other}'
        raise RecordError(problem, hint="choose another id, or end that one first: list and show tell of it")
    return True


def _is_same_bundle(record: Record, path: str) -> bool:
    known = record["bundle"]
    if known["path"] == path:
        return True
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return (known["dev"], known["ino"]) == (stat.st_dev, stat.st_ino)


# -- tear-down -------------------------------------------------------------------------------------------------------


def tear_down(options: Options, state: spec.State, log: Log) -> None:
    """Undoes what is recorded for a container. Nothing recorded, or undone already, is no error. HookError.

    Neither config.json is read nor anything else that the container could have changed.
    """
    linux.hide()
    log.stage = "poststop"
    proc = Proc()
    folder = StateFolder.open(state_folder(options, proc), parse_record, create=False)
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


def _tear_down_if_ended(
    options: Options, state: spec.State, folder: StateFolder, record: Record, proc: Proc, log: Log
) -> None:
    if reason := why_untouched(record, state, proc, INIT_GRACE_SECONDS):
        log.warning(reason)
        return
    linux.harden(NAME)
    take_down(folder, record, proc, log, keep_mountpoints=options.keep_mountpoints)


def why_untouched(record: Record, state: spec.State, proc: Proc, grace: float) -> str:
    """Why a record must not be undone now, "" if it may. Its first process has ``grace`` seconds to end."""
    if not _is_same_bundle(record, state.bundle):
        return f"what is recorded belongs to the bundle {record['bundle']['path']}: nothing is touched"
    init = record["init"]
    if init is not None and not proc.has_ended(init["pid"], init["start"], grace):
        return "the container's first process still runs: nothing is touched"
    return ""


def take_down(
    folder: StateFolder,
    known: Record,
    proc: Proc,
    log: Log,
    *,
    keep_mountpoints: bool,
    owner_of: OwnerOf | None = None,
) -> list[str]:
    """Undoes the record ``known``, whose lock the caller holds, and forgets it. The one way back, of poststop and gc.

    Returns remarks on what was left standing. HookError, and the record then has what is left.
    """
    boot = boot_id()
    with folder.lock_rootfs(known["rootfs"]):
        log.step("rootfs locked")
        # A neighbour that ended meanwhile may have handed something over.
        record = folder.load(known["id"])
        if record is None:
            return []
        _clear_staging(folder, record["id"], proc)
        here = is_here(record, proc, boot)
        others = _others(folder, record, log)
        live = [other for other in others if is_live(other, proc, boot)]
        rootfs = find_rootfs(record, owner_of)
        try:
            remarks = mounts.undo(
                record,
                proc,
                rootfs,
                keep=lambda made: keep_mountpoints or folder.hand_over(made, live),
                # Two that end at once: what the other one, dead already, has inside goes with its own record.
                inherit=lambda made: folder.hand_over(made, others),
                here=here,
            )
        except HookError:
            folder.save(record)
            raise
        finally:
            if rootfs is not None:
                rootfs.close()
        folder.remove(record["id"])
    log.info(f"undone: {len(known['mounts'])} binds, {len(known['made'])} mount points made for them")
    for remark in remarks:
        log.warning(remark)
    return remarks


def forget(folder: StateFolder, container: str, proc: Proc) -> None:
    """Removes what a run left that was killed while it first wrote, or was making mounts ready. HookError."""
    _clear_staging(folder, container, proc)
    folder.remove(container)


def is_here(record: Record, proc: Proc, boot: str) -> bool:
    """Whether the binds of a record are in this mount namespace; if not, they have gone with their own.

    LeftoverError where theirs is one that was there before the container, and still is.
    """
    inode = record["namespace"]["inode"]
    if record["boot"] != boot:
        return False
    if inode == proc.mount_namespace():
        return True
    user = proc.user_of_namespace(inode) if record["namespace"]["kind"] == "runtime" and record["mounts"] else None
    # The inode number of a namespace is used again: only the mounts tell that it is the same one.
    table = proc.mounts_of(user) if user is not None else None
    if table is not None and any(is_in(mount["attached"][0], table) for mount in record["mounts"]):
        raise LeftoverError(
            f"the binds are in another mount namespace, that of process {user}",
            hint="run poststop in the namespace that prestart ran in",
        )
    return False


def find_rootfs(record: Record, owner_of: OwnerOf | None) -> Rootfs | None:
    """The rootfs of a record, None where it is gone or another one has taken its place."""
    known = record["rootfs"]
    try:
        rootfs = Rootfs(known["path"], owner_of=owner_of)
    except (MissingError, EscapeError):
        return None
    stat = rootfs.stat
    if rootfs.is_overlay if known["overlay"] else (stat.dev, stat.ino) == (known["dev"], known["ino"]):
        return rootfs
    rootfs.close()
    return None
