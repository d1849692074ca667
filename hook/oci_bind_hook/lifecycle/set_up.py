# SPDX-License-Identifier: Apache-2.0
"""The steps of a set-up in their order, errors.STEPS. Other modules do the work of each step.

The order makes a run safe: everything is read and cloned before the container's namespace is entered, every destination
is resolved before anything is changed, and every change is recorded before it is made. It also prevents one container
from blocking others: sources are opened before any lock is taken, because a server that does not answer blocks its
callers.
"""

from __future__ import annotations

from ..documents.bundle import Bundle
from ..errors import At, DataError, LeftoverError, UnavailableError
from ..kernel import rights
from ..kernel.namespace import Namespace
from ..kernel.proc import Proc
from ..mounting.apply import carry_out
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
from ..options import remarks
from ..record.state_file import is_lost, now
from ..requests import collect
from ..rootfs.identity import identify_path
from .stage import Place
from .start_record import (
    check_neighbours,
    complete_or_check,
    inherited,
    is_continued,
    is_needed,
    new_record,
    open_folder,
)

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
    from ..record.state_file import NamespaceKind, Record, RootfsRecord
    from ..requests.request import Request
    from ..rootfs.mount_points import OwnerOf, Rootfs
    from .earlier import UndoEarlier


class Call:
    """One call of the hook: its arguments, and the results so far.

    ``is_start``: a container starts, and its creation ends if the call fails. lifecycle.attach has the other case.
    """

    is_start = True

    __slots__ = ("_place", "bundle", "is_sealed", "log", "options", "path", "resisting", "state", "undo_earlier")

    def __init__(self, options: Options, state: State, log: Log) -> None:
        self.options = options
        self.state = state
        self.log = log
        self._place: Place | None = None
        # The path of the bundle, and the bundle once it is read.
        self.path = state.bundle
        self.bundle: Bundle | None = None
        # lifecycle.earlier.undo_entered if an earlier call for this container has a record. It is imported before
        # setns(2), after which nothing can be imported.
        self.undo_earlier: UndoEarlier | None = None
        self.is_sealed = False
        # The errors for what could not be undone of an earlier container of this id.
        self.resisting: list[LeftoverError] = []

    @property
    def place(self) -> Place:
        """Where the hook was started. Raises OSError; HookError if procfs is not available."""
        if self._place is None:
            self._place = Place(self.options.stage, self.state, Proc(self.options.root))
        return self._place

    @property
    def owner_of(self) -> OwnerOf | None:
        return self.place.owner_of(self.bundle) if self.bundle is not None else None

    def is_of_this(self, record: Record) -> bool:
        """Whether a record belongs to this container, as ``is_continued``. Raises RecordError."""
        return is_continued(record, self.path, self.place.proc)

    def begin(self, record: Record, requests: list[Request]) -> None:
        """Called with the record before anything is changed. Raises HookError."""

    def planner(self, rootfs: Rootfs, namespace: Namespace, record: Record) -> Planner:
        """The planner that resolves the requests."""
        shared, is_admin = self.options.allow_shared, self.bundle is not None and self.bundle.config.is_admin
        return Planner(rootfs, namespace, record["mounts"], allow_shared=shared, is_admin=is_admin)

    def check_attached(self, plan: Plan) -> None:
        """Called after all binds are attached and before that is recorded. A HookError undoes them."""

    def tell(self, plan: Plan) -> None:
        """Logs what was done."""
        for bind in plan.binds if self.log.is_kept else ():
            self.log.info(bind.summary())


def set_up(options: Options, state: State, document: object | None, log: Log) -> None:
    """Takes a container from its checked state to attached mounts and a finished state file.

    ``document`` is config.json if the runtime sent it on stdin, otherwise None. Raises HookError, which has its step.
    """
    rights.hide()
    call = Call(options, state, log)
    try:
        _set_up(call, document)
    except BaseException as failure:
        if not call.is_sealed:
            if isinstance(failure.__cause__, PermissionError):
                from ..mounting.unopened import add_why_denied

                add_why_denied(failure, failure.__cause__, call.place.proc)
            from .earlier import give_up

            give_up(call, failure)
        raise


def _set_up(call: Call, document: object | None) -> None:
    options = call.options
    with At("read"):
        place = call.place
        bundle = call.bundle = read(call, document)
    with At("ask"):
        asked = collect.requests(bundle.config, options.mounts, allowed(options.annotation_sources))
        requests = expand(asked, before(call.log))
        kind = place.kind(bundle, is_another=place.is_elsewhere())
        if bundle.config.root_readonly and kind == "runtime":
            requests.insert(0, collect.read_only_root(bundle.rootfs))
    mount(call, bundle, requests, kind)


def mount(call: Call, bundle: Bundle, requests: list[Request], kind: NamespaceKind) -> None:
    """The steps from ``open`` on, for the ``requests`` and a bundle that was read. Raises HookError."""
    while not _try(call, bundle, requests, kind):
        # An earlier container of this id was undone. Its binds may have hidden the sources, or may have been the
        # sources: they are opened again, and again before any lock.
        pass


def _try(call: Call, bundle: Bundle, requests: list[Request], kind: NamespaceKind) -> bool:
    """The rest of a set-up. False if an earlier container was undone, and nothing else changed. Raises HookError."""
    options, state, place, log = call.options, call.state, call.place, call.log
    namespace = Namespace(place.proc, "runtime")
    # A source of the runtime's own binds may not answer, or deny access to root. It must not prevent the start.
    ours = [request for request in requests if not is_runtimes(request, kind, bundle.rootfs)]
    with At("open"):
        sources = open_sources(ours, bundle.path, namespace, before(log))
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
        folder = open_folder(options, place, create=bool(sources))
        if folder is None:
            log.info("no bind is requested")
            return True
        id_lock = folder.lock_id(state.id)
    with id_lock:
        log.step("id locked")
        with At("state folder"):
            if not call.resisting and _clear_stale(call, folder):
                close_sources(sources)
                return False
        with At("rootfs"):
            log.step(f"opening the rootfs {bundle.rootfs}")
            known = identify_path(bundle.rootfs, namespace.started_in)
            rootfs_lock = folder.lock_rootfs(known)
        with rootfs_lock as held:
            log.step("rootfs locked")
            record = folder.load(state.id)
            if record is None or call.resisting:
                record = new_record(state, bundle, place, known, inherited(record, known, call.resisting))
            call.begin(record, requests)
            users = held.users(known, record["boot"])
            for remark in users.unread:
                log.warning(remark)
            others = users.besides(state.id)
            if not sources and not others and not users.unread:
                log.info("no bind is requested")
                return True
            call.is_sealed = True
            rootfs = None
            try:
                with At("enter"):
                    rootfs = _enter(call, bundle, known, kind, namespace)
                    log.step(f"in the {namespace.kind}'s mount namespace{', entered' if namespace.entered else ''}")
                    check_neighbours(requests, others, namespace)
                    complete_or_check(record, rootfs, namespace, place)
                    staged = _staged(sources, folder, record, place.proc)
                with staged:
                    with At("resolve"):
                        plan = call.planner(rootfs, namespace, record).resolve(requests, sources)
                        log.step("destinations resolved")
                        _raise_problem(plan, log)
                    with At("make"):  # and "attach", by its own step
                        _carry_out(call, plan, record, folder, held, users, staged)
            except BaseException as failure:
                if call.undo_earlier is not None and not place.is_by_hand:
                    call.undo_earlier(call, record, rootfs, known, held, users, failure)
                raise
            call.tell(plan)
    return True


def before(log: Log) -> Callable[[Request, str], None] | None:
    """A function that logs which source is opened next. If its server does not answer, this is the last log line."""
    return (lambda request, path: log.step(f"{request.origin}: opening {path}")) if log.is_kept else None


def read(call: Call, document: object | None) -> Bundle:
    """Reads the bundle and determines the stage, which the log then contains. Raises HookError."""
    state, log = call.state, call.log
    if document is None and is_lost(state.bundle):
        from .lost import find

        call.path, document = find(state, call.place.proc) or (state.bundle, None)
        log.step(f"the runtime has lost the bundle; found it at {call.path}")
    log.step(f"opening the bundle {call.path} and its rootfs")
    bundle = Bundle(call.path, document, whole=call.options.strict)
    if bundle.violations:
        raise DataError("config.json", bundle.violations)
    log.stage = call.place.choose(bundle)
    for remark in remarks(call.options):
        log.warning(remark)
    log.step("config.json validated")
    if other := other_annotation(state, bundle.config):
        log.warning(other)
    if bundle.config.namespaces.get("mount"):
        log.warning("the mount namespace outlives the container, and so do binds for which no mount point was created")
    return bundle


def other_annotation(state: State, config: Config) -> str:
    """The warning for a state with an annotation that config.json does not have, "" if there is none.

    Runtimes pass the annotations that they have read. Some read another file, as crun does with ``--config``.
    """
    # Compared as name=value, because runc joins both and splits them again at the first "=", which may be in the name.
    read = {f"{name}={value}" for name, value in config.annotations.items()}
    for name, value in state.annotations.items():
        if f"{name}={value}" not in read:
            return f"the runtime may use another config.json: the annotation {name} differs in the state"
    return ""


def _staged(sources: list[Source], folder: Records, record: Record, proc: Proc) -> Staged:
    """For kernels before Linux 5.12: clones sources in the state folder or, without one, on top of the rootfs."""
    container = record["id"]

    def make() -> str:
        clear_staging(folder, container, proc)
        folder.make_staging(container)
        return folder.staging(container) or record["rootfs"]["path"]

    return Staged(sources, make, lambda: clear_staging(folder, container, proc), proc)


def _enter(call: Call, bundle: Bundle, known: RootfsRecord, kind: NamespaceKind, namespace: Namespace) -> Rootfs:
    """Enters the container's mount namespace, if it is another one, and returns the rootfs as seen from there.

    After this nothing is imported, and files are read only through fds that are already open: ``/`` may now be the
    image's. Raises UnavailableError if the namespace is not of this ``kind``, and the errors of ``Place.open_rootfs``.
    """
    call.place.enter(namespace, call.log)
    namespace.kind = call.place.kind(bundle, is_another=namespace.entered)
    if namespace.kind != kind:
        raise UnavailableError("the container's process has just changed its mount namespace")
    return call.place.open_rootfs(bundle, known, namespace)


def _raise_problem(plan: Plan, log: Log) -> None:
    """Raises the first problem of a plan. Without problems, logs its warnings."""
    if problems := plan.problems:
        first = problems[0]
        if len(problems) > 1:
            more = f"{len(problems) - 1} more: --dry-run lists all"
            first.hint = f"{first.hint}; {more}" if first.hint else more
        raise first
    for bind in plan.binds:
        for warning in bind.warnings:
            log.warning(f"{bind.request.origin}: {warning}")


_SAVED = {"intent": "plan recorded", "made": "mount points created", "done": "binds attached"}


def _carry_out(
    call: Call,
    plan: Plan,
    record: Record,
    folder: Records,
    held: HeldRecords,
    users: Users,
    staged: Staged,
) -> None:
    log = call.log

    def save() -> None:
        held.save(record)
        log.step(_SAVED[record["phase"]])

    def end() -> None:
        call.check_attached(plan)
        staged.end()

    before: Record = {**record}
    if not plan.to_mount:
        record["uses"] = sorted(plan.uses.union(record["uses"]))
        record["phase"] = "done"
        if is_needed(record, users):
            held.save(record)
        return
    if any(bind.create for bind in plan.to_mount) and (problem := folder.why_unrecorded()):
        raise problem
    record["created"] = now()
    try:
        carry_out(plan, record, save, end)
    except BaseException:
        log.step("rolled back")
        if (record["mounts"], record["made"]) == (before["mounts"], before["made"]):
            record["created"] = before["created"]
        # The record of a running container is kept, because it identifies the container.
        if record["mounts"] or record["made"] or not (call.is_start or record["stage"] == "attach"):
            held.save(record)
        else:
            held.remove(record["id"])
        raise


def _clear_stale(call: Call, folder: Records) -> bool:
    """Undoes what a dead container of the same id left, and returns whether there was one. Raises HookError.

    If an earlier call has a record for this container, it sets ``call.undo_earlier``.
    """
    record = folder.load(call.state.id)
    if record is None:
        return False
    clear_staging(folder, call.state.id, call.place.proc)
    is_of_this = call.is_of_this(record)
    if is_of_this and not call.is_start:
        return False
    from . import earlier  # here, because after setns(2) nothing can be imported

    if is_of_this:
        call.undo_earlier = earlier.undo_entered
        return False
    earlier.clear_stale(call, folder, record)
    return True
