# SPDX-License-Identifier: Apache-2.0
"""The dry-run: what a real run would do for a bundle, and every problem it would meet. Changes nothing.

The same code makes the plan for both. A dry-run lacks only what a real run learns by doing: whether the kernel lets it
clone and attach, and what the runtime has mounted in a namespace that only root may enter. There config.json's own
mounts are taken as made.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, cast

from ...documents.bundle import Bundle, read_state
from ...errors import At, DataError, HookError, LeftoverError, RecordError, UnavailableError
from ...kernel.proc import Namespace, Proc, boot_id
from ...lifecycle.claims import Claims
from ...lifecycle.set_up import is_continued
from ...lifecycle.stage import Place
from ...lifecycle.tear_down import Removal, check_answers, foreign, is_here, why_untouched
from ...mounting.apply import announce
from ...mounting.mounted import is_in
from ...mounting.plan import Plan, Planner
from ...mounting.sources import allowed, expand, open_sources
from ...mounting.undo import kept_points, tree_of
from ...options import Options, is_teardown, parse, remarks, state_folder
from ...record.folder import StateFolder
from ...record.held import peek
from ...record.state_file import is_live, is_of_another_user, places_of
from ...requests import collect
from ...rootfs.identity import identify_path
from ...rootfs.mount_points import Rootfs
from . import recognise, registered
from .facts import describe, undone
from .foresee import problems_of_plan, problems_of_sources, problems_of_stage
from .report import Report
from .running import Running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ...documents.oci import State
    from ...record.state_file import MountRecord, Record
    from ...requests.request import Request
    from .registered import Entry

    # What one call of the hook is given, and where that stands in config.json.
    Part = tuple[Options, str]


def dry_run(options: Options, read: Callable[[], bytes]) -> Report:
    """The report on the bundle of ``options``, or on the bundle of the state that ``read`` returns.

    If ``options`` ask for no bind, the arguments count that config.json registers the hook with.
    """
    report = Report()
    try:
        _fill(report, options, read)
    except HookError as problem:
        report.add(problem)
    return report


def _fill(report: Report, options: Options, read: Callable[[], bytes]) -> None:
    proc = Proc()
    report.stage = options.stage
    document = place = state = None
    if options.bundle is not None:
        report.bundle = options.bundle
        report.stage = options.stage or "createRuntime"
    else:
        state, document = read_state(read())
        report.id, report.bundle = state.id, state.bundle
        if _is_teardown(report, options, state):
            report.stage = "poststop"
            _fill_from_record(report, options, state, proc)
            return
        place = Place(options.stage, state, proc) if state.status in ("creating", "created") else None
    bundle = Bundle(report.bundle, document, whole=True)
    report.rootfs = bundle.rootfs
    entries = registered.find(bundle.document)
    parts = _with_registered(report, entries, options)
    strict = [part.strict for part, _ in parts]
    if bundle.violations and any(strict):
        report.turn = strict.index(True)
        report.add(DataError("config.json", bundle.violations), "read")
        report.turn = 0
    else:
        report.warnings += [f"config.json: {at}: {text} (not used by the hook)" for at, text in bundle.violations]
    _warn_of_registration(report, entries, bundle)
    for part, _ in parts:
        report.warnings += [*remarks(part), *_of_log(part.log)]
    if place is None:
        is_elsewhere = _assume(report, entries, bundle, is_named=options.stage is not None)
    else:
        is_elsewhere = _place(report, place, bundle)
    _fill_with_plan(report, parts, bundle, proc, place, is_elsewhere=is_elsewhere, state=state)


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
    *,
    is_elsewhere: bool,
    state: State | None,
) -> None:
    config, options = bundle.config, parts[0][0]
    namespace = Namespace(proc, report.namespace or "runtime", assumed=is_elsewhere)
    calls = list(_requests_of_each(report, bundle, parts))
    if config.root_readonly and report.namespace == "runtime":
        calls[0].insert(0, collect.read_only_root(bundle.rootfs))
    with At("state folder"):
        recorded = _recorded(options, report, place, proc)
    opened = []
    for report.turn, requests in enumerate(calls):
        with At("open"):
            opened.append(open_sources(requests, bundle.path, namespace))
        for foreseen in problems_of_sources(opened[-1], config, report.stage, proc):
            report.add(foreseen)
    report.turn = 0
    for foreseen in problems_of_stage(config, report.stage, report.namespace):
        report.add(foreseen)
    with At("enter"):
        rootfs = Rootfs(
            bundle.rootfs,
            own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs),
            type_of=namespace.type_of,
        )
    planner = Planner(rootfs, namespace, recorded, is_admin=config.is_admin)
    planned = planner.plan
    for report.turn, ((part, _), requests, sources) in enumerate(zip(parts, calls, opened, strict=True)):
        before, planner.allow_shared = len(planned.binds), part.allow_shared
        planner.resolve(requests, sources)
        own = Plan(rootfs, namespace)
        own.binds = planned.binds[before:]
        for problem in [*own.problems, *problems_of_plan(own, config, report.stage, proc)]:
            report.add(problem, "resolve")
    report.mounts = describe(planned, writable_root=not config.root_readonly)
    if running := _running(options, bundle, state, proc):
        report.running = running.facts()
        for bind, mount in zip(planned.binds, report.mounts, strict=True):
            mount["now"] = running.has(bind, bundle.rootfs)
        report.warnings += running.others()
    if not planned.problems:
        try:
            announce(planned, cast("Record", {"mounts": [], "uses": [], "made": []}))
        except HookError as problem:
            report.add(problem, "make")
    report.notes += recognise.notes(config.annotations)
    if missing := recognise.missing_defaults(mount.destination for mount in config.mounts):
        report.notes.append(f"config.json mounts nothing on {', '.join(missing)}, which programs expect to be there")


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


def _warn_of_registration(report: Report, entries: list[Entry], bundle: Bundle) -> None:
    report.unsafe += registered.problems(entries)
    report.warnings += registered.warnings(entries, bundle.document)
    report.warnings += [
        f"{entry.place}/path: {entry.path} cannot be executed here"
        for entry in entries
        if entry.path and not os.access(entry.path, os.X_OK)
    ]


def _with_registered(report: Report, entries: list[Entry], options: Options) -> list[Part]:
    """The options, or if they ask for no bind those of each entry that is called at the stage, in their order.

    Reports how the hook is registered.
    """
    report.registered = [entry.place for entry in entries]
    called = registered.chosen(entries, options.stage)
    if not called or options.mounts or options.annotation_sources:
        return [(options, "")]
    parts: list[Part] = []
    for report.turn, entry in enumerate(called):
        try:
            parts.append((_merged(entry, options), entry.place))
        except HookError as problem:
            problem.where = f"{entry.place}/args: {problem.where}"
            report.add(problem, "read")
            parts.append((options, ""))
    report.turn = 0
    understood = [place for _, place in parts if place]
    report.options = ", ".join(understood) or None
    if options.bundle is not None and understood:
        report.stage = called[0].stage
    if len({part.root for part, _ in parts}) > 1:
        report.warnings.append(
            f"{called[0].place}: those of this stage have different --root: a failure of one does not undo the others"
        )
    return parts


def _merged(entry: Entry, options: Options) -> Options:
    """The options of an entry of config.json, for a dry-run with these. Raises UsageError."""
    merged, _ = parse(list(entry.words))
    merged.bundle = options.bundle
    merged.dry_run = True
    merged.strict = merged.strict or options.strict
    merged.root = options.root or merged.root
    merged.stage = options.stage or merged.stage
    return merged


def _requests_of_each(report: Report, bundle: Bundle, parts: list[Part]) -> Iterator[list[Request]]:
    """What each call asks for, but for what an earlier one has asked for: that is mounted by then, and left alone."""
    asked: set[tuple[bool, str]] = set()
    for report.turn, (part, place) in enumerate(parts):
        requests = _requests(report, bundle, part)
        keys = [(each.is_from_mounts, json.dumps(each.as_mount(), sort_keys=True)) for each in requests]
        own = [request for request, key in zip(requests, keys, strict=True) if key not in asked]
        asked.update(keys)
        for request in own if len(parts) > 1 else ():
            if request.origin_kind == "argument":
                request.origin, request.place = f"{place}: {request.origin}", f"{place}: {request.place}"
        yield own
    report.turn = 0
    asking = sum(key.startswith(collect.ANNOTATION) for key in bundle.config.annotations)
    if asking and not any(part.annotation_sources for part, _ in parts):
        allowing = "--allow-annotations and --allow-source"
        report.notes.append(f"binds that annotations ask for, {asking} here, count with {allowing} only")


def _of_log(path: str | None) -> list[str]:
    """A warning for a log that cannot be written: a real run does not fail for it, so it is easily overlooked."""
    if path is None or os.access(path if os.path.lexists(path) else os.path.dirname(path), os.W_OK):
        return []
    return [f"--log {path} cannot be written"]


def _requests(report: Report, bundle: Bundle, options: Options) -> list[Request]:
    """All requests that make sense. The others become problems of the report."""

    def refused(problem: HookError) -> None:
        report.add(problem, "ask")

    requests = collect.requests(bundle.config, options.mounts, allowed(options.annotation_sources), refused)
    expanded = []
    for request in requests:
        try:
            expanded += expand([request])
        except HookError as problem:
            refused(problem)
    return expanded


def _recorded(options: Options, report: Report, place: Place | None, proc: Proc) -> list[MountRecord]:
    """The binds that an earlier call mounted for the same container, as far as this user may look."""
    if place is None or report.id is None or report.bundle is None:
        return []
    record = _load(options, proc, report.id)
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
    """The record of a container. None if there is none, or if this user may not look. RecordError for root."""
    try:
        folder = StateFolder.open(state_folder(options, proc), create=False)
        return folder.load(container) if folder else None
    except RecordError:
        if os.geteuid() == 0:
            raise
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


def _fill_from_record(report: Report, options: Options, state: State, proc: Proc) -> None:
    report.remove = []
    folder = StateFolder.open(state_folder(options, proc), create=False)
    record = folder.load(state.id) if folder else None
    if folder is None or record is None:
        report.warnings.append(f"nothing is recorded in {state_folder(options, proc)}")
        return
    report.rootfs = record["rootfs"]["path"]
    report.namespace = record["namespace"]["kind"]
    if is_of_another_user(record, proc.user_namespace()):
        report.add(foreign(record, proc))
        return
    if reason := why_untouched(record, state, proc, 0):
        report.warnings.append(reason)
        return
    boot = boot_id()
    silent = check_answers(record, proc, boot, may_give_up=options.keep_mountpoints)
    claimed = Claims(folder.everyone, proc).against(record)
    here = is_here(record, proc, boot, claimed)
    table = proc.mounts()
    for mount in reversed(record["mounts"]):
        try:
            is_there = here and tree_of(mount, record, claimed).find(table) is not None
        except LeftoverError as problem:
            report.add(problem)
            is_there = True
        report.mounts.append(undone(mount, here=is_there))
    with Removal(record, proc, silent=silent) as removal:
        users = peek(folder, removal.now, boot)
        kept = removal.why_kept(users)
    report.warnings += users.unread
    if kept and record["made"] and not options.keep_mountpoints:
        report.add(kept_points(record, kept))
        return
    for path in [] if options.keep_mountpoints else [made["path"] for made in reversed(record["made"])]:
        if other := users.heir(path, record["id"], lambda other: is_live(other, proc, boot)):
            report.warnings.append(f"{path} is handed over to the container {other['id']}, which uses it")
        else:
            report.remove.append(path)
