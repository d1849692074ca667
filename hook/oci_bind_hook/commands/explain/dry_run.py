# SPDX-License-Identifier: Apache-2.0
"""The dry-run: what a real run would do for a bundle, and all problems that it would have. Changes nothing.

The same code plans both. A dry-run only lacks what a real run learns by acting: whether the kernel allows it to clone
and attach, and what the runtime has mounted in a namespace that only root may enter. For such a namespace it assumes
that config.json's own mounts are mounted.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from ...documents.bundle import Bundle, read_regular, read_state
from ...documents.strictjson import documents
from ...errors import DataError, HookError, UnavailableError
from ...kernel import files
from ...kernel.namespace import Namespace
from ...kernel.proc import Proc
from ...lifecycle import lost
from ...lifecycle.running import rootfs_here
from ...lifecycle.set_up import other_annotation
from ...lifecycle.stage import Place
from ...mounting.apply import announce, check_makeable
from ...mounting.plan import Plan
from ...options import Options, is_teardown, remarks
from ...record.state_file import is_lost
from . import meant, programs, recognise, registered, runtime
from .calls import Calls
from .facts import describe, own_mounts, replaced_by_rename
from .foresee import Run
from .hiding import hidden
from .parts import warn_of_registration, with_registered
from .patience import PROGRAMS, gathered, silent
from .recorded import MadePoints, of_earlier_start
from .report import Report
from .running import find_running
from .selinux import Labels
from .undoing import fill_from_record

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...documents.oci import State
    from ...mounting.sources import Source
    from ...record.state_file import Record
    from .containers import Container
    from .patience import Patience
    from .registered import Entry
    from .running import Running


def dry_run(
    options: Options,
    read: Callable[[], bytes],
    tell: Callable[[str], None] = lambda _: None,
    container: Container | None = None,
) -> Report:
    """Returns the report on the bundle of ``options``, which is that of ``container`` if given, or on the bundle of the
    state that ``read`` returns.

    If ``options`` request no bind, the arguments in config.json's hook entries count, at the stage of ``options`` or at
    all stages. ``tell`` gets a message once the dry-run has waited for a second. A file system that does not answer is
    a problem of the report.
    """
    report = Report()
    report.stage, report.is_for_people = options.stage, options.format != "json"
    report.command = options.command or report.command
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
                fill_from_record(report, options, state, Proc(options.root))
                return report
            given = state, document
    except HookError as problem:
        report.add(problem)
        return report

    def gather(patience: Patience) -> Report:
        try:
            # A child needs its own Proc: /proc/self differs.
            _fill(report, options, Proc(options.root), given, patience, container)
        except HookError as problem:
            report.add(problem)
        return report

    return gathered(report, Proc().mounts(), gather, tell)


def _document(report: Report, state: State, document: object | None, proc: Proc, patience: Patience) -> object | None:
    """Returns the ``document`` of a state. If the runtime has lost the bundle, finds it as a real run does."""
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
        document = _document(report, state, document, proc, patience)
    place = None
    if state is not None and state.status in ("creating", "created"):
        place = Place(options.stage, state, proc)
    if why := patience.why_not("bundle", f"the bundle {report.bundle}", report.bundle):
        report.add(silent(f"the bundle {report.bundle}", why, step="read"))
        return
    if state is None:
        document = _set_bundle(report, report.bundle)
    bundle = Bundle(report.bundle, document, whole=True, real_path=lambda path: _rootfs(path, patience))
    if container is not None and container.pid is not None:
        _find_rootfs(report, bundle, container.pid, proc)
    report.rootfs = bundle.rootfs
    is_podmans = recognise.engine(bundle.config.annotations, bundle.path, bundle.rootfs) == "podman"
    if state is None and is_podmans and (container is None or container.pid is None):
        report.notes.append("config.json is the one of the last start: podman writes a new one at the next start")
    entries = registered.find(bundle.document)
    parts = with_registered(report, entries, options, bundle.config.namespaces, proc, patience)
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
    # Entries of one registration have the same options, so each warning is given once.
    report.warnings += dict.fromkeys(
        text for part in parts for text in (*remarks(part.options), *_of_log(part.options.log, patience))
    )
    if place is None:
        is_elsewhere = _assume(report, entries, bundle, is_named=options.stage is not None)
    else:
        is_elsewhere = _place(report, place, bundle)
    namespace = Namespace(proc, report.namespace or "runtime", assumed=is_elsewhere)
    calls = Calls(report, parts, bundle, namespace, patience)
    _fill_with_plan(report, calls, bundle, proc, place, patience, given=state, container=container)


def _set_bundle(report: Report, path: str) -> object | None:
    """Sets the bundle that ``path`` refers to. Returns the document that replaces its config.json, None without one.

    Raises HookError.
    """
    report.bundle, file = meant.bundle_of(path)
    if not file:
        return None
    report.notes.append(f"{file} is read instead of {files.below(report.bundle, meant.CONFIG)}")
    return documents(read_regular(file), "config.json")[0]


def _rootfs(path: str, patience: Patience) -> str:
    """Returns the rootfs without links. Returns ``path`` if it does not answer or its engine has not mounted it yet."""
    if patience.why_not("rootfs", f"the rootfs {path}", path):
        return path
    is_gone = recognise.is_mounted_by_engine(path) and not os.path.lexists(path)
    return path if is_gone else files.real_path(path)


def _find_rootfs(report: Report, bundle: Bundle, pid: int, proc: Proc) -> None:
    """Sets the rootfs of a running container to where this mount namespace has it."""
    found = rootfs_here(bundle.rootfs, pid, proc)
    if found != bundle.rootfs:
        report.notes.append(f"the rootfs is at {bundle.rootfs} in the runtime's mount namespace")
        bundle.rootfs = found


def _is_teardown(report: Report, options: Options, state: State) -> bool:
    """Whether the report is about poststop. For a running container, the dry-run explains its creation."""
    try:
        return is_teardown(options.stage, state)
    except UnavailableError as problem:
        if state.status != "running":
            raise
        report.add(problem, "read")
        return False


def _fill_with_plan(
    report: Report,
    calls: Calls,
    bundle: Bundle,
    proc: Proc,
    place: Place | None,
    patience: Patience,
    *,
    given: State | None,
    container: Container | None,
) -> None:
    """Adds what the calls bind, with the facts about each bind. Raises HookError."""
    config = bundle.config
    labels = Labels(bundle.document)
    report.selinux = labels.facts()
    calls.open(proc, place)
    options = calls.first.part.options
    if not calls.no_folder and options.command != "attach":
        report.warnings += of_earlier_start(report, bundle, options, proc)
    rootfs = calls.enter(proc, container)
    if rootfs is None:
        return
    planner = calls.resolve(rootfs)
    planned = planner.plan
    records = calls.records(proc)
    # A real run does not look at the programs, so it is no problem if they cannot be inspected.
    if why := patience.why_not(PROGRAMS, f"a program in the rootfs {bundle.rootfs}", bundle.rootfs):
        covering, hides = {}, hidden(planner.order, None)
        report.notes.append(f"the hook does not know whether a bind covers programs of the container: {why}")
    else:
        covering = programs.warnings(planned, bundle.document)
        hides = hidden(planner.order, MadePoints(rootfs, records).has)
    report.own = own_mounts(calls.first.requests, planner.order)
    report.mounts = describe(
        planned,
        writable_root=not config.root_readonly,
        covering=covering,
        hidden=hides,
        before=patience.source_of,
        labels=labels,
    )
    if not calls.no_folder and (running := find_running(options, bundle, records, given, proc, container)):
        _compare(report, planned, running, is_attach=options.command == "attach")
    if not planned.problems:
        _foresee_making(report, planned, calls.first.run)
    is_by_hand = report.namespace == "runtime" and bundle.has_namespace
    if given is None and report.running is None and not is_by_hand:  # otherwise a runtime accepted it, or none runs it
        _foresee_refusals(report, bundle, planned, calls.first.sources, patience)
    report.notes += [*replaced_by_rename(planned), *recognise.notes(config.annotations)]
    if missing := recognise.missing_defaults(mount.destination for mount in config.mounts):
        report.notes.append(f"config.json mounts nothing on {', '.join(missing)}, which programs usually need")


def _compare(report: Report, planned: Plan, running: Running, *, is_attach: bool) -> None:
    """Adds which binds of the plan the running container has.

    Other binds of the container are warnings, unless the plan only adds to them (``is_attach``).
    """
    report.running = running.facts()
    for bind, mount in zip(planned.binds, report.mounts, strict=True):
        if is_attach and mount["action"] == "mount":
            continue
        mount["now"] = running.has(bind, planned.rootfs.path)
        mount["source_now"] = running.source_now(bind) if mount["now"] else None
        if mount["action"] == "left" and mount["now"]:
            mount["action"] = "present"
    if not is_attach:
        report.warnings += running.others(is_for_people=report.is_for_people)


def _foresee_making(report: Report, planned: Plan, run: Run) -> None:
    """Adds the problems of a run when it creates mount points and writes its record."""
    try:
        announce(planned, cast("Record", {"mounts": [], "uses": [], "made": []}))
        check_makeable(planned, run.check_writable)
    except HookError as problem:
        report.add(problem, "make")


def _foresee_refusals(report: Report, bundle: Bundle, plan: Plan, sources: list[Source], patience: Patience) -> None:
    """Adds what the runtime will refuse. The rootfs or a source may not answer."""
    if why := patience.why_not("runtime", f"the rootfs {bundle.rootfs}, or what is mounted on it,", bundle.rootfs):
        report.notes.append(f"the hook does not know whether the runtime would refuse anything: {why}")
        return
    found = runtime.find(bundle, plan, sources, patience)
    report.warnings += found.warnings
    report.refuse(found.refused)


def _assume(report: Report, entries: list[Entry], bundle: Bundle, *, is_named: bool) -> bool:
    """Sets the namespace for a bundle without a state. Returns whether that namespace cannot be inspected."""
    is_prestart = report.stage == "prestart"
    is_elsewhere = bundle.has_namespace
    if is_prestart and is_elsewhere and registered.choose(entries, "prestart") is None:
        is_elsewhere = False
        if is_named:
            report.notes.append(
                "config.json does not register prestart, so this explains a call by hand, without a pid: the hook then "
                "mounts in this namespace"
            )
    report.namespace = "container" if is_elsewhere else "runtime"
    return is_elsewhere


def _place(report: Report, place: Place, bundle: Bundle) -> bool:
    """Sets stage and namespace. Returns whether a real run would enter it, so that it cannot be inspected here."""
    # The runtime calls createContainer inside the container, so it is no fault of the bundle to be outside now.
    is_elsewhere = bundle.has_namespace
    try:
        if place.stage != "createContainer":
            place.choose(bundle)
            is_elsewhere = place.is_elsewhere()
    except UnavailableError as problem:
        # The plan is useful even so.
        report.add(problem, "read")
    report.stage = place.stage
    report.namespace = place.kind(bundle, is_another=is_elsewhere)
    return is_elsewhere


def _of_log(path: str | None, patience: Patience) -> list[str]:
    """A warning for a log that cannot be written. A real run does not fail then, so users easily overlook it."""
    if path is None or patience.why_not(f"log {path}", f"the log {path}", path):
        return []
    if os.access(path if os.path.lexists(path) else os.path.dirname(path), os.W_OK):
        return []
    return [f"--log {path} cannot be written"]
