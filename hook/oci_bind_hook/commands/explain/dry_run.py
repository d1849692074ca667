# SPDX-License-Identifier: Apache-2.0
"""The dry-run: what a real run would do for a bundle, and every problem it would meet. Changes nothing.

The same code makes the plan for both. A dry-run lacks only what a real run learns by doing: whether the kernel lets it
clone and attach, and what the runtime has mounted in a namespace that only root may enter. There config.json's own
mounts are taken as made.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from ...documents.bundle import Bundle, read_regular, read_state
from ...documents.strictjson import documents
from ...errors import At, DataError, EscapeError, HookError, UnavailableError
from ...kernel import files
from ...kernel.namespace import Namespace
from ...kernel.proc import Proc
from ...lifecycle import lost
from ...lifecycle.set_up import other_annotation
from ...lifecycle.stage import RUNTIMES, Place
from ...mounting.apply import announce, check_makeable
from ...mounting.config_mounts import is_runtimes
from ...mounting.plan import Plan, Planner
from ...mounting.propagation import Runtimes, remark
from ...mounting.sources import open_sources
from ...options import Options, is_teardown, remarks
from ...record.state_file import is_lost
from ...requests import collect
from ...rootfs.mount_points import Rootfs
from . import meant, programs, recognise, registered, runtime, unmounted
from .facts import describe, own_mounts, replaced_by_rename
from .foresee import Leaks, Run, problems_of_sources, problems_of_stage
from .hiding import hidden
from .parts import requests_of_each, warn_of_registration, with_registered
from .patience import DESTINATIONS, PROGRAMS, Mute, gathered, silent
from .recorded import find_folders
from .report import Report
from .running import find_running
from .selinux import Labels
from .undoing import fill_from_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...documents.oci import Config, State
    from ...mounting.sources import Source
    from ...record.folder import Records
    from ...record.state_file import Record
    from ...requests.request import Request
    from .containers import Container
    from .parts import Part
    from .patience import Patience
    from .registered import Entry
    from .running import Running


def dry_run(
    options: Options,
    read: Callable[[], bytes],
    tell: Callable[[str], None] = lambda _: None,
    container: Container | None = None,
) -> Report:
    """The report on the bundle of ``options``, which is that of ``container`` if there is one, or on the bundle of the
    state that ``read`` returns.

    If ``options`` ask for no bind, the arguments count that config.json registers the hook with, at all stages or at
    that of ``options``. ``tell`` is told whom it waits for, if it does for a second; who does not answer is a
    problem of the report.
    """
    report = Report()
    report.stage = options.stage
    given: tuple[State, object | None] | None = None
    try:
        if options.bundle is not None:
            report.bundle = options.bundle
            if container is not None:
                report.id = container.id
                report.notes += container.notes()
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
            _fill(report, options, Proc(), given, patience, container)
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
    container: Container | None,
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
    if state is None:
        document = _meant(report, report.bundle)
    bundle = Bundle(report.bundle, document, whole=True, real_path=lambda path: _rootfs(path, patience))
    report.rootfs = bundle.rootfs
    is_podmans = recognise.engine(bundle.config.annotations, bundle.path, bundle.rootfs) == "podman"
    if state is None and is_podmans and (container is None or container.pid is None):
        report.notes.append("config.json is that of the last start: podman writes another one for the next")
    entries = registered.find(bundle.document)
    parts = with_registered(report, entries, options, bundle.config.namespaces, proc)
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
    _fill_with_plan(
        report, parts, bundle, proc, place, patience, is_elsewhere=is_elsewhere, state=state, container=container
    )


def _meant(report: Report, path: str) -> object | None:
    """Fills in the bundle that ``path`` means. Returns the document of a file that is read in place of its config.json.

    HookError.
    """
    report.bundle, file = meant.bundle_of(path)
    if not file:
        return None
    report.notes.append(f"{file} is read in place of {files.below(report.bundle, meant.CONFIG)}")
    return documents(read_regular(file), "config.json")[0]


def _rootfs(path: str, patience: Patience) -> str:
    """The rootfs without links, or as it is named if it is silent, or if its engine has yet to mount it."""
    if patience.why_not("rootfs", f"the rootfs {path}", path):
        return path
    is_gone = recognise.is_mounted_by_engine(path) and not os.path.lexists(path)
    return path if is_gone else files.real_path(path)


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
    container: Container | None,
) -> None:
    config, options = bundle.config, parts[0].options
    namespace = Namespace(proc, report.namespace or "runtime", assumed=is_elsewhere)
    runs = [Run(bundle, part.stage or report.stage) for part in parts]
    report.own_rights = runs[0].own_rights
    calls = list(requests_of_each(report, bundle, parts, patience))
    report.own = own_mounts(calls[0])
    labels = Labels(bundle.document)
    report.selinux = labels.facts()
    if config.root_readonly and report.namespace == "runtime":
        calls[0].insert(0, collect.read_only_root(bundle.rootfs))
    is_asked = [_asks(requests, namespace, bundle.rootfs) for requests in calls]
    folders, recorded, no_folder = find_folders(report, parts, runs, proc, is_asked, place, patience)
    enters = report.namespace == "container" if place is None else place.pidfd is not None
    opened = _opened(report, runs, calls, is_asked, bundle, namespace, patience, enters=enters)
    if why := patience.why_not("rootfs", f"the rootfs {bundle.rootfs}", bundle.rootfs):
        report.add(silent(f"the rootfs {bundle.rootfs}", why, step="read"))
        unmounted.judge_sources(report, opened, namespace, bundle.rootfs)
        return
    if unmounted.is_unmounted(bundle.rootfs, proc):
        unmounted.without_destinations(report, bundle, opened, namespace, container, patience.source_of)
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
    for part, sources in zip(parts, opened, strict=True):
        runtimes = _runtimes(report, part, config, rootfs)
        remark([one for one in sources if not is_runtimes(one.request, namespace.kind, bundle.rootfs)], runtimes)
    whose = f"the rootfs {bundle.rootfs}, or a source that a destination leads into,"
    if why := patience.why_not(DESTINATIONS, whose, bundle.rootfs):
        report.add(silent(whose, why, step="resolve"))
        unmounted.judge_sources(report, opened, namespace, bundle.rootfs)
        return
    planner = Planner(rootfs, namespace, recorded, is_admin=config.is_admin)
    planned = _planned(report, parts, config, calls, opened, planner, folders)
    # No real run looks at the programs: who is silent there is no problem.
    if why := patience.why_not(PROGRAMS, f"a program in the rootfs {bundle.rootfs}", bundle.rootfs):
        covering, hides = {}, hidden(planner.order, is_silent=True)
        report.notes.append(f"whether a bind covers programs of the container is not known: {why}")
    else:
        covering, hides = programs.warnings(planned, bundle.document), hidden(planner.order)
    report.own = own_mounts(calls[0], planner.order)
    report.mounts = describe(
        planned,
        writable_root=not config.root_readonly,
        covering=covering,
        hidden=hides,
        before=patience.source_of,
        labels=labels,
    )
    if not no_folder and (running := find_running(options, bundle, state, proc, container)):
        _compare(report, planned, running)
    if not planned.problems:
        _foresee_making(report, planned, runs[0])
    is_by_hand = report.namespace == "runtime" and bundle.has_namespace
    if state is None and report.running is None and not is_by_hand:  # else a runtime has taken it, or none will
        _foresee_refusals(report, bundle, planned, opened, patience)
    report.notes += [*replaced_by_rename(planned), *recognise.notes(config.annotations)]
    if missing := recognise.missing_defaults(mount.destination for mount in config.mounts):
        report.notes.append(f"config.json mounts nothing on {', '.join(missing)}, which programs expect to be there")


def _compare(report: Report, planned: Plan, running: Running) -> None:
    """Fills in what of the plan the container has that runs, and what else."""
    report.running = running.facts()
    for bind, mount in zip(planned.binds, report.mounts, strict=True):
        mount["now"] = running.has(bind, planned.rootfs.path)
        mount["source_now"] = running.source_now(bind) if mount["now"] else None
        if mount["action"] == "left" and mount["now"]:
            mount["action"] = "present"
    report.warnings += running.others()


def _foresee_making(report: Report, planned: Plan, run: Run) -> None:
    """What a run meets once it begins to make and record."""
    try:
        announce(planned, cast("Record", {"mounts": [], "uses": [], "made": []}))
        check_makeable(planned, run.check_writable)
    except HookError as problem:
        report.add(problem, "make")


def _foresee_refusals(
    report: Report, bundle: Bundle, plan: Plan, opened: list[list[Source]], patience: Patience
) -> None:
    """What the runtime will refuse, at whose rootfs and sources somebody may be silent."""
    if why := patience.why_not("runtime", f"the rootfs {bundle.rootfs}, or what is mounted on it,", bundle.rootfs):
        report.notes.append(f"whether the runtime refuses anything is not known: {why}")
        return
    found = runtime.find(bundle, plan, opened[0], patience)
    report.warnings += found.warnings
    report.refuse(found.refused)


def _asks(requests: list[Request], namespace: Namespace, rootfs: str) -> bool:
    """Whether a call asks for a bind that is the hook's to make."""
    return any(each.is_bind and not is_runtimes(each, namespace.kind, rootfs) for each in requests)


def _opened(
    report: Report,
    runs: list[Run],
    calls: list[list[Request]],
    is_asked: list[bool],
    bundle: Bundle,
    namespace: Namespace,
    patience: Patience,
    *,
    enters: bool,
) -> list[list[Source]]:
    """The sources of each call. What the kernel will refuse of them becomes problems of the report.

    ``enters``: a call then enters a process, if it asks for a bind. Who may clone no source gets no further.
    """
    opened = []
    for report.turn, (run, requests, asks) in enumerate(zip(runs, calls, is_asked, strict=True)):
        with At("open"):
            opened.append(open_sources(requests, bundle.path, namespace, patience.source_of))
        foreseen = [*problems_of_sources(opened[-1], run, namespace, bundle.rootfs)]
        for problem in foreseen or (problems_of_stage(run) if enters and asks else ()):
            report.add(problem)
    report.turn = 0
    return opened


def _planned(
    report: Report,
    parts: list[Part],
    config: Config,
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
        planner.foresees_leak = Leaks(config, part.stage or report.stage, planner.namespace, planner.rootfs)
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


def _runtimes(report: Report, part: Part, config: Config, rootfs: Rootfs) -> Runtimes:
    """What any runtime would do with the propagation of the binds of a call."""
    names = RUNTIMES if report.namespace == "container" else ()
    if (part.stage or report.stage) != "createContainer":
        return Runtimes(names, config.rootfs_propagation)
    has_users = "user" in config.namespaces
    return Runtimes(names, config.rootfs_propagation, is_inside=True, ahead=rootfs.stat.mnt_id, has_users=has_users)


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
