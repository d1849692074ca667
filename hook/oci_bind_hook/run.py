# SPDX-License-Identifier: Apache-2.0
"""The order of steps: what is read, locked, entered and written, and when.

Each step's own work is done elsewhere. The order is what makes a run safe: everything is read and cloned before the
container's namespace is entered, resolved before anything is changed, and recorded before it is done.
"""

from __future__ import annotations

import os

from . import linux, mounts, plan, spec
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
from .rootfs import Rootfs
from .stage import Place
from .statefile import StateFolder, Unrecorded, is_live, now
from .trees import clone_sources, open_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import cast

    from .log import Log
    from .planner import Plan
    from .statefile import InitRecord, Record
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
        self.allow_shared = False
        self.keep_mountpoints = False
        self.log: str | None = None
        self.log_as_json = False


def parse_record(data: bytes, name: str) -> Record:
    """The record in a state file. DataError with ``name``."""
    document = spec.documents(data, name)[0]
    if violations := spec.violations(document, "state-file"):
        raise DataError(name, violations)
    return cast("Record", document)


def is_teardown(stage: str | None, state: spec.State) -> bool:
    """Whether this is poststop. UnavailableError for a container that is past, or not yet at, any stage of ours."""
    if stage == "poststop" or (stage is None and state.status == "stopped"):
        return True
    if state.status not in ("creating", "created"):
        raise UnavailableError(
            f'nothing can be mounted into a container that is "{state.status}"',
            hint="register the hook for createRuntime, createContainer or prestart",
        )
    return False


def state_folder(options: Options) -> str:
    """Where the state files are: as asked, else below /run, or for an ordinary user below their runtime folder."""
    if options.root is not None:
        return options.root
    if os.geteuid() == 0:
        return DEFAULT_ROOT
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return f"{runtime}/oci-bind-hook"


# -- set-up ----------------------------------------------------------------------------------------------------------


def set_up(options: Options, state: spec.State, document: object | None, log: Log) -> None:
    """Everything from a checked state to attached mounts and a finished state file. HookError."""
    proc = Proc()
    place = Place(options.stage, state, proc)
    bundle = Bundle(state.bundle, document)
    log.stage = place.choose(bundle)
    requests = plan.requests(bundle.config, options.mounts)
    if not any(request.is_bind for request in requests):
        log.debug("no bind is asked for")
        return
    folder = _open_folder(options, place)
    with folder.lock_id(state.id):
        _clear_stale(folder, state, bundle, proc, log)
        namespace = Namespace(proc, "container" if bundle.has_namespace else "runtime")
        # Before the rootfs is locked: a source that does not answer must not keep its other containers waiting.
        sources = open_sources(requests, bundle.path, namespace)
        clone_sources(sources)
        with folder.lock_rootfs(bundle.stat_rootfs()):
            record = folder.load(state.id) or _new_record(state, bundle, place)
            neighbours = folder.neighbours(record, proc, record["boot"])
            rootfs = _enter(bundle, place, namespace, log)
            _continue(record, rootfs, namespace)
            recorded = [mount["requested"] for mount in record["mounts"]]
            planner = Planner(rootfs, namespace, recorded, allow_shared=options.allow_shared)
            found = planner.resolve(requests, sources)
            _judge(found, log)
            _carry_out(found, record, folder, neighbours)


def _enter(bundle: Bundle, place: Place, namespace: Namespace, log: Log) -> Rootfs:
    """Enters the container's namespace, if it is another one, and returns the rootfs as it is there.

    From here on nothing is imported and nothing read but what is held by fd already. UnavailableError where ``/`` or
    the rootfs is another one there: that is no container which is just being made.
    """
    before = [os.stat("/"), bundle.stat_rootfs()]
    log.prepare()
    linux.harden(NAME, hide=not place.proc.in_user_namespace())
    place.enter(namespace)
    try:
        after = [os.stat("/"), os.stat(bundle.rootfs)]
    except OSError:
        after = []
    if not after or not all(map(os.path.samestat, before, after)):
        raise UnavailableError(
            f"the mount namespace of the container does not show the rootfs {bundle.rootfs}",
            hint="it has its own root already: register for createRuntime or createContainer; runsc needs the latter",
        )
    return Rootfs(
        bundle.rootfs,
        unlock=namespace.kind == "container",
        own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs),
    )


def _continue(record: Record, rootfs: Rootfs, namespace: Namespace) -> None:
    """Completes a new record by what is known only now; one of an earlier call must be of the same namespace."""
    if not record["mounts"]:
        record["rootfs"]["overlay"] = rootfs.is_overlay
        record["namespace"] = {"kind": namespace.kind, "inode": namespace.inode}
    elif record["namespace"]["inode"] != namespace.inode:
        raise RecordError(
            f'the container "{record["id"]}" has binds in another mount namespace already',
            hint="call poststop for it first",
        )


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


def _carry_out(found: Plan, record: Record, folder: StateFolder, neighbours: list[Record]) -> None:
    record["uses"] = sorted(found.uses.union(record["uses"]))
    if not found.to_mount:
        # Not even a record is needed, unless we stand on something that a neighbour would remove one day.
        if any(made["path"] in record["uses"] for other in neighbours for made in other["made"]):
            folder.save(record)
        return
    if isinstance(folder, Unrecorded) and any(bind.create for bind in found.to_mount):
        raise UnavailableError(
            f"mount points must be made, and {folder.path} cannot be written to record it",
            hint="make them in the image, or register for createRuntime",
        )
    record["created"] = now()
    try:
        mounts.attach(found, record, lambda: folder.save(record))
    except BaseException:
        if record["mounts"] or record["made"]:
            folder.save(record)
        else:
            folder.remove(record["id"])
        raise


def _new_record(state: spec.State, bundle: Bundle, place: Place) -> Record:
    rootfs = bundle.stat_rootfs()
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


def _open_folder(options: Options, place: Place) -> StateFolder:
    path = state_folder(options)
    try:
        folder = StateFolder.open(path, parse_record, create=True)
        assert folder is not None
        return folder
    except RecordError:
        # The host's root is nobody to a container's user namespace. The mounts die with it, so they need no record.
        if place.is_inside and place.proc.in_user_namespace():
            return Unrecorded(path)
        raise


def _clear_stale(folder: StateFolder, state: spec.State, bundle: Bundle, proc: Proc, log: Log) -> None:
    """Undoes what a dead container of the same id left behind. RecordError where one of another bundle lives."""
    record = folder.load(state.id)
    if record is None:
        return
    if not is_live(record, proc, boot_id()):
        log.warning("an earlier container of this id was not torn down: doing it now")
        _tear_down(folder, record, proc, log, keep_mountpoints=False)
    elif not _is_same_bundle(record, bundle.path):
        other = record["bundle"]["path"]
        raise RecordError(f'the id "{state.id}" belongs to another container that lives, of the bundle {other}')


def _is_same_bundle(record: Record, path: str) -> bool:
    known = record["bundle"]
    try:
        stat = os.stat(path)
    except OSError:
        return known["path"] == path
    return (known["dev"], known["ino"]) == (stat.st_dev, stat.st_ino)


# -- tear-down -------------------------------------------------------------------------------------------------------


def tear_down(options: Options, state: spec.State, log: Log) -> None:
    """Undoes what is recorded for a container. Nothing recorded, or undone already, is no error. HookError.

    Neither config.json is read nor anything else that the container could have changed.
    """
    log.stage = "poststop"
    folder = StateFolder.open(state_folder(options), parse_record, create=False)
    if folder is None:
        return
    with folder.lock_id(state.id):
        record = folder.load(state.id)
        if record is not None:
            _tear_down_if_ended(options, state, folder, record, log)
        else:
            folder.remove(state.id)  # what a run left that was killed while it first wrote
    folder.sweep()


def _tear_down_if_ended(options: Options, state: spec.State, folder: StateFolder, record: Record, log: Log) -> None:
    if not _is_same_bundle(record, state.bundle):
        log.warning(f"what is recorded belongs to the bundle {record['bundle']['path']}: nothing is touched")
        return
    proc = Proc()
    if record["init"] is not None and not _has_ended(record["init"], proc):
        log.warning("the container's first process still runs: nothing is touched")
        return
    linux.harden(NAME, hide=not proc.in_user_namespace())
    _tear_down(folder, record, proc, log, keep_mountpoints=options.keep_mountpoints)


def _has_ended(init: InitRecord, proc: Proc) -> bool:
    """Whether a process is gone, or goes within the grace that a runtime may need to reap it."""
    if proc.start_time(init["pid"]) != init["start"]:
        return True
    try:
        pidfd = os.pidfd_open(init["pid"])
    except OSError:
        return True
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if proc.start_time(init["pid"]) == init["start"]:
        poll.poll(INIT_GRACE_SECONDS * 1000)
    os.close(pidfd)
    return proc.start_time(init["pid"]) != init["start"]


def _tear_down(folder: StateFolder, known: Record, proc: Proc, log: Log, *, keep_mountpoints: bool) -> None:
    boot = boot_id()
    with folder.lock_rootfs(known["rootfs"]):
        # A neighbour that ended meanwhile may have handed something over.
        record = folder.load(known["id"])
        if record is None:
            return
        here = record["boot"] == boot and record["namespace"]["inode"] == proc.mount_namespace()
        if not here and record["boot"] == boot and record["namespace"]["kind"] == "runtime" and record["mounts"]:
            raise LeftoverError(
                f"the binds are in the mount namespace {record['namespace']['inode']}, which is not this one",
                hint="run poststop in the namespace that prestart ran in",
            )
        neighbours = folder.neighbours(record, proc, boot)
        rootfs = _find_rootfs(record)
        try:
            remarks = mounts.undo(
                record,
                proc,
                rootfs,
                keep=lambda made: keep_mountpoints or folder.hand_over(made, neighbours),
                here=here,
            )
        except HookError:
            folder.save(record)
            raise
        folder.remove(record["id"])
    for remark in remarks:
        log.warning(remark)


def _find_rootfs(record: Record) -> Rootfs | None:
    """The rootfs of a record, None where it is gone or another one has taken its place."""
    known = record["rootfs"]
    try:
        rootfs = Rootfs(known["path"])
    except (MissingError, EscapeError):
        return None
    if known["overlay"]:
        return rootfs if rootfs.is_overlay else None
    return rootfs if (rootfs.stat.dev, rootfs.stat.ino) == (known["dev"], known["ino"]) else None
