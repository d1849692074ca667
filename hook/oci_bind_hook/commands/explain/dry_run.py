# SPDX-License-Identifier: Apache-2.0
"""The dry-run: what a real run would do for a bundle, and every problem it would meet. Changes nothing.

The same code makes the plan for both. A dry-run lacks only what a real run learns by doing: whether the kernel lets it
clone and attach, and what the runtime has mounted in a namespace that only root may enter. There config.json's own
mounts are taken as made.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from ...documents.bundle import Bundle, read_state
from ...errors import At, DataError, EscapeError, HookError, RecordError, UnavailableError
from ...kernel import files
from ...kernel.namespace import Namespace
from ...kernel.proc import Proc, boot_id
from ...lifecycle import lost
from ...lifecycle.set_up import other_annotation
from ...lifecycle.stage import RUNTIMES, Place
from ...lifecycle.start_record import is_continued
from ...mounting.apply import announce
from ...mounting.config_mounts import is_runtimes
from ...mounting.mounted import is_in
from ...mounting.plan import Plan, Planner
from ...mounting.propagation import Runtimes, remark
from ...mounting.sources import open_sources
from ...options import Options, is_teardown, remarks, state_folder
from ...record.folder import StateFolder
from ...record.held import peek
from ...record.state_file import is_live, is_lost, places_of
from ...requests import collect
from ...rootfs.identity import identify_path
from ...rootfs.mount_points import Rootfs
from . import programs, recognise, registered
from .facts import describe, replaced_by_rename
from .foresee import Run, problems_of_sources, problems_of_stage
from .parts import requests_of_each, warn_of_registration, with_registered
from .patience import DESTINATIONS, HINT, PROGRAMS, Mute, gathered, silent
from .report import Report
from .running import Running
from .undoing import fill_from_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...documents.oci import Config, State
    from ...mounting.sources import Source
    from ...record.folder import Records
    from ...record.state_file import MountRecord, Record
    from ...requests.request import Request
    from .parts import Part
    from .patience import Patience
    from .registered import Entry


def dry_run(options: Options, read: Callable[[], bytes], tell: Callable[[str], None] = lambda _: None) -> Report:
    """The report on the bundle of ``options``, or on the bundle of the state that ``read`` returns.

    If ``options`` ask for no bind, the arguments count that config.json registers the hook with. ``tell`` is told whom
    it waits for, if it does for a second; who does not answer is a problem of the report.
    """
    report = Report()
    report.stage = options.stage
    given: tuple[State, object | None] | None = None
    try:
        if options.bundle is not None:
            report.bundle = options.bundle
            report.stage = options.stage or "createRuntime"
        else:
            state, document = read_state(read())
            report.id, report.bundle = state.id, state.bundle
            if _is_teardown(report, options, state):
                report.stage = "poststop"
                fill_from_record(report, options, state, Proc())
                return report
            given = state, document
    except HookError as problem:
        report.add(problem)
        return report

    def gather(patience: Patience) -> Report:
        try:
            # procfs is another one for a child.
            _fill(report, options, Proc(), given, patience)
        except HookError as problem:
            report.add(problem)
        return report

    return gathered(report, Proc().mounts(), gather, tell)


def _found(report: Report, state: State, document: object | None, proc: Proc, patience: Patience) -> object | None:
    """The ``document`` of a state, or where the runtime has lost the bundle the one that a real run finds."""
    if document is not None or not is_lost(state.bundle):
        return document
    why = patience.why_not("lost", "the bundle that the runtime has lost", "/")
    report.bundle, document = (None if why else lost.find(state, proc)) or (state.bundle, None)
    return document


def _fill(
    report: Report,
    options: Options,
    proc: Proc,
    given: tuple[State, object | None] | None,
    patience: Patience,
) -> None:
    assert report.bundle is not None
    state, document = given or (None, None)
    if state is not None:
        document = _found(report, state, document, proc, patience)
    place = None
    if state is not None and state.status in ("creating", "created"):
        place = Place(options.stage, state, proc)
    if why := patience.why_not("bundle", f"the bundle {report.bundle}", report.bundle):
        report.add(silent(f"the bundle {report.bundle}", why, step="read"))
        return
    bundle = Bundle(report.bundle, document, whole=True, real_path=lambda path: _rootfs(path, patience))
    report.rootfs = bundle.rootfs
    entries = registered.find(bundle.document)
    parts = with_registered(report, entries, options)
    strict = [part.options.strict for part in parts]
    if bundle.violations and any(strict):
        report.turn = strict.index(True)
        report.add(DataError("config.json", bundle.violations), "read")
        report.turn = 0
    else:
        report.warnings += [f"config.json: {at}: {text} (not used by the hook)" for at, text in bundle.violations]
    if state is not None and (other := other_annotation(state, bundle.config)):
        report.warnings.append(other)
    warn_of_registration(report, entries, bundle, patience)
    for part in parts:
        report.warnings += [*remarks(part.options), *_of_log(part.options.log, patience)]
    if place is None:
        is_elsewhere = _assume(report, entries, bundle, is_named=options.stage is not None)
    else:
        is_elsewhere = _place(report, place, bundle)
    _fill_with_plan(report, parts, bundle, proc, place, patience, is_elsewhere=is_elsewhere, state=state)


def _rootfs(path: str, patience: Patience) -> str:
    """The rootfs without links, or as it is named if it is silent."""
    return path if patience.why_not("rootfs", f"the rootfs {path}", path) else files.real_path(path)


def _is_teardown(report: Report, options: Options, state: State) -> bool:
    """Whether the report is about poststop. A running container is explained like one that is being created."""
    try:
        return is_teardown(options.stage, state)
    except UnavailableError as problem:
        if state.status != "running":
            raise
        report.add(problem, "read")
        return False


def _fill_with_plan(
    report: Report,
    parts: list[Part],
    bundle: Bundle,
    proc: Proc,
    place: Place | None,
    patience: Patience,
    *,
    is_elsewhere: bool,
    state: State | None,
) -> None:
    config, options = bundle.config, parts[0].options
    namespace = Namespace(proc, report.namespace or "runtime", assumed=is_elsewhere)
    run = Run(config, report.stage)
    report.own_rights = run.own_rights
    calls = list(requests_of_each(report, bundle, parts, patience))
    if config.root_readonly and report.namespace == "runtime":
        calls[0].insert(0, collect.read_only_root(bundle.rootfs))
    is_asked = [_asks(requests, namespace, bundle.rootfs) for requests in calls]
    folders, recorded, no_folder = _folders(report, parts, run, proc, is_asked, place, patience)
    opened = _opened(report, calls, bundle, namespace, run, patience)
    for foreseen in problems_of_stage(run, report.namespace) if any(is_asked) else ():
        report.add(foreseen)
    if why := patience.why_not("rootfs", f"the rootfs {bundle.rootfs}", bundle.rootfs):
        _without_plan(report, silent(f"the rootfs {bundle.rootfs}", why, step="read"), opened)
        return
    try:
        with At("enter"):
            rootfs = Rootfs(
                bundle.rootfs,
                own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs),
                type_of=namespace.type_of,
            )
    except EscapeError:
        if not any(is_asked):
            return  # a real run ends before it enters anything
        raise
    rootfs.check_writable = run.check_writable
    runtimes = _runtimes(report, config, rootfs)
    for sources in opened:
        remark([one for one in sources if not is_runtimes(one.request, namespace.kind, bundle.rootfs)], runtimes)
    whose = f"the rootfs {bundle.rootfs}, or a source that a destination leads into,"
    if why := patience.why_not(DESTINATIONS, whose, bundle.rootfs):
        _without_plan(report, silent(whose, why, step="resolve"), opened)
        return
    planner = Planner(rootfs, namespace, recorded, is_admin=config.is_admin)
    planned = _planned(report, parts, calls, opened, planner, folders)
    # No real run looks at the programs: who is silent there is no problem.
    if why := patience.why_not(PROGRAMS, f"a program in the rootfs {bundle.rootfs}", bundle.rootfs):
        covering = {}
        report.notes.append(f"whether a bind covers programs of the container is not known: {why}")
    else:
        covering = programs.warnings(planned, bundle.document)
    report.mounts = describe(
        planned, writable_root=not config.root_readonly, covering=covering, before=patience.source_of
    )
    if not no_folder and (running := _running(options, bundle, state, proc)):
        report.running = running.facts()
        for bind, mount in zip(planned.binds, report.mounts, strict=True):
            mount["now"] = running.has(bind, bundle.rootfs)
            mount["source_now"] = running.source_now(bind) if mount["now"] else None
        report.warnings += running.others()
    if not planned.problems:
        try:
            announce(planned, cast("Record", {"mounts": [], "uses": [], "made": []}))
        except HookError as problem:
            report.add(problem, "make")
    report.notes += [*replaced_by_rename(planned), *recognise.notes(config.annotations)]
    if missing := recognise.missing_defaults(mount.destination for mount in config.mounts):
        report.notes.append(f"config.json mounts nothing on {', '.join(missing)}, which programs expect to be there")


def _asks(requests: list[Request], namespace: Namespace, rootfs: str) -> bool:
    """Whether a call asks for a bind that is the hook's to make."""
    return any(each.is_bind and not is_runtimes(each, namespace.kind, rootfs) for each in requests)


def _folders(
    report: Report,
    parts: list[Part],
    run: Run,
    proc: Proc,
    is_asked: list[bool],
    place: Place | None,
    patience: Patience,
) -> tuple[list[Records | None], list[MountRecord], str]:
    """The state folder of each call, what the first has recorded for this container, and why none is looked at."""
    folders: list[Records | None] = []
    recorded: list[MountRecord] = []
    silence = ""
    for report.turn, (part, asks) in enumerate(zip(parts, is_asked, strict=True)):
        path = state_folder(part.options, proc)
        folders.append(None)
        try:
            with At("state folder"):
                if why := patience.why_not(f"state folder {path}", f"the state folder {path}", path):
                    silence = why
                    raise RecordError(f"{path} cannot be looked at: {why}", hint=HINT)
                folders[-1] = run.folder(part.options, proc, is_asked=asks, container=report.id)
                if not report.turn:
                    recorded = _recorded(folders[-1], report, place, proc)
        except RecordError as problem:
            report.add(problem)
    report.turn = 0
    return folders, recorded, silence


def _opened(
    report: Report, calls: list[list[Request]], bundle: Bundle, namespace: Namespace, run: Run, patience: Patience
) -> list[list[Source]]:
    """The sources of each call. What the kernel will refuse of them becomes problems of the report."""
    opened = []
    for report.turn, requests in enumerate(calls):
        with At("open"):
            opened.append(open_sources(requests, bundle.path, namespace, patience.source_of))
        for foreseen in problems_of_sources(opened[-1], run, namespace, bundle.rootfs):
            report.add(foreseen)
    report.turn = 0
    return opened


def _planned(
    report: Report,
    parts: list[Part],
    calls: list[list[Request]],
    opened: list[list[Source]],
    planner: Planner,
    folders: list[Records | None],
) -> Plan:
    """What all calls bind, one after the other. What is wrong with each becomes problems of the report."""
    planned = planner.plan
    for report.turn, (part, requests, sources, folder) in enumerate(zip(parts, calls, opened, folders, strict=True)):
        own = Plan(planner.rootfs, planner.namespace)
        before, planner.allow_shared = len(planned.binds), part.options.allow_shared
        planner.resolve(requests, sources)
        own.binds = planned.binds[before:]
        _mute(own)
        for problem in own.problems:
            report.add(problem, "resolve")
        unrecorded = folder.why_unrecorded() if folder is not None else None
        if unrecorded is not None and any(bind.create for bind in own.to_mount):
            report.add(unrecorded, "make")
    return planned


def _mute(plan: Plan) -> None:
    """Says of each bind whose source is silent what that means for it."""
    for bind in plan.binds:
        if isinstance(mute := bind.request.opener, Mute):
            if bind.by == "runtime":
                bind.warnings.append(f"{mute.problem.problem}: the runtime waits for that as well")
            else:  # whatever condition leaves it out: a real run opens it before it looks at that
                bind.problem = mute.problem


def _runtimes(report: Report, config: Config, rootfs: Rootfs) -> Runtimes:
    """What any runtime would do with the propagation of binds."""
    names = RUNTIMES if report.namespace == "container" else ()
    if report.stage != "createContainer":
        return Runtimes(names, config.rootfs_propagation)
    has_users = "user" in config.namespaces
    return Runtimes(names, config.rootfs_propagation, is_inside=True, ahead=rootfs.stat.mnt_id, has_users=has_users)


def _without_plan(report: Report, problem: HookError, opened: list[list[Source]]) -> None:
    """Says why there is no plan, and what is known without one."""
    report.add(problem)
    for report.turn, sources in enumerate(opened):
        for source in sources:
            if source.error is not None and not source.request.is_from_mounts:
                report.add(source.error, "resolve")


def _assume(report: Report, entries: list[Entry], bundle: Bundle, *, is_named: bool) -> bool:
    """Fills in the namespace for a bundle without a state. Returns whether it is one that cannot be looked into."""
    is_prestart = report.stage == "prestart"
    is_elsewhere = bundle.has_namespace
    if is_prestart and is_elsewhere and registered.choose(entries, "prestart") is None:
        is_elsewhere = False
        if is_named:
            report.notes.append("prestart is taken as called by hand, without a pid: it mounts right here")
    report.namespace = "container" if is_elsewhere else "runtime"
    return is_elsewhere


def _place(report: Report, place: Place, bundle: Bundle) -> bool:
    """Fills in stage and namespace. Returns whether a real run would enter it, so that it cannot be looked into."""
    # createContainer is called inside the container: being elsewhere now is no fault of the bundle.
    is_elsewhere = bundle.has_namespace
    try:
        if place.stage != "createContainer":
            place.choose(bundle)
            is_elsewhere = place.is_elsewhere()
    except UnavailableError as problem:
        # The plan is worth knowing all the same.
        report.add(problem, "read")
    report.stage = place.stage
    report.namespace = place.kind(bundle, is_another=is_elsewhere)
    return is_elsewhere


def _of_log(path: str | None, patience: Patience) -> list[str]:
    """A warning for a log that cannot be written: a real run does not fail for it, so it is easily overlooked."""
    if path is None or patience.why_not(f"log {path}", f"the log {path}", path):
        return []
    if os.access(path if os.path.lexists(path) else os.path.dirname(path), os.W_OK):
        return []
    return [f"--log {path} cannot be written"]


def _recorded(folder: Records | None, report: Report, place: Place | None, proc: Proc) -> list[MountRecord]:
    """The binds that an earlier call mounted for the same container, as far as this user may look. RecordError."""
    if folder is None or place is None or report.id is None or report.bundle is None:
        return []
    record = folder.load(report.id)
    if record is None or not is_continued(record, report.bundle, proc):
        return []
    init = record["init"]
    pid = init["pid"] if init is not None and place.is_elsewhere() else None
    table = proc.mounts() if pid is None else proc.mounts_of(pid)
    namespace = proc.mount_namespace_id() if pid is None else proc.mount_namespace_id_of(pid)
    return [
        mount for mount in record["mounts"] if is_in(mount["attached"][0], table, namespace, places_of(mount, record))
    ]


def _load(options: Options, proc: Proc, container: str) -> Record | None:
    """The record of a container. None if there is none, or if it cannot be read: that is told elsewhere."""
    try:
        folder = StateFolder.open(state_folder(options, proc), create=False)
        return folder.load(container) if folder else None
    except RecordError:
        return None


def _running(options: Options, bundle: Bundle, state: State | None, proc: Proc) -> Running | None:
    """The container of this bundle if it is running, as far as this user may look."""
    if state is not None:
        if state.status != "running":
            return None
        return Running(state.id, _load(options, proc, state.id), state.pid, proc)
    try:
        folder = StateFolder.open(state_folder(options, proc), create=False)
    except RecordError:
        return None
    if folder is None:
        return None
    others = peek(folder, identify_path(bundle.rootfs, proc.mounts), boot_id()).records.values()
    mine = [record for record in others if record["bundle"]["path"] == bundle.path]
    record = next((record for record in mine if is_live(record, proc, boot_id())), None)
    return None if record is None else Running(record["id"], record, None, proc)
