# SPDX-License-Identifier: Apache-2.0
"""The calls of this hook that a bundle makes: the options and the requests of each.

Several entries of this hook, at one stage (as of several CDI devices) or at several, are separate calls in sequence.
Each is a turn of the report.
"""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, NamedTuple

from ...errors import HookError
from ...kernel import linux
from ...lifecycle.stage import no_process, not_inside
from ...mounting.sources import allowed
from ...options import Options, not_stopped, parse, state_folder
from ...requests import collect
from ..engines import launcher, machine, registration
from . import registered, stopping
from .patience import expanded

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from ...documents.bundle import Bundle
    from ...kernel.proc import Proc
    from ...requests.request import Request
    from .patience import Patience
    from .registered import Entry
    from .report import Report


class Part(NamedTuple):
    """The options of one call of the hook, and their place in config.json, "" for the command line.

    ``stage`` is where the hook is called, None for the stage of the report.
    """

    options: Options
    place: str
    stage: str | None = None

    @property
    def is_late(self) -> bool:
        """Whether the container has its own root by then, so that the call cannot bind anything in it."""
        return self.stage == registered.LATE

    @property
    def enters_late(self) -> bool:
        """Whether a late call enters the container. With the STAGE createContainer or poststop it is refused before."""
        return self.is_late and self.options.stage not in ("createContainer", "poststop")


def origins(entries: list[Entry], patience: Patience) -> list[str | None]:
    """Returns for each entry of config.json the file of the registration on this machine that it comes from, None if
    none or several have its path and arguments.
    """
    if not entries or patience.why_not("registrations", "the registrations of this machine", "/"):
        return [None] * len(entries)
    files: dict[tuple[str, str, str], set[str]] = {}
    for one in machine.everywhere():
        for stage in one.stages:
            files.setdefault((stage, one.launcher, shlex.join(one.arguments)), set()).add(one.path)
    found = [files.get((entry.stage, entry.path, shlex.join(entry.words)), ()) for entry in entries]
    return [next(iter(paths)) if len(paths) == 1 else None for paths in found]


def warn_of_registration(report: Report, entries: list[Entry], bundle: Bundle, patience: Patience) -> None:
    """Adds what is wrong with the way config.json registers the hook."""
    report.unsafe += registered.problems(entries)
    has_poststop = any(entry.stage == "poststop" for entry in entries)
    others_stop = bool(entries) and not has_poststop and stopping.is_by_engine(entries, bundle)
    report.warnings += registered.warnings(entries, bundle.document, others_stop=others_stop)
    for entry in entries:
        if not _may_inspect(entry, patience):
            continue
        fault = launcher.fault(entry.path)
        if not fault and not os.access(entry.path, os.X_OK):
            fault = f"{entry.path} cannot be executed here"
        if fault:
            report.warnings.append(f"{entry.place}/path: {fault}")


def _may_inspect(entry: Entry, patience: Patience) -> bool:
    """Whether an entry names a program, which is not known to be on a file system that does not answer."""
    return bool(entry.path) and not patience.why_not(entry.place, f"the hook {entry.path}", entry.path)


def _binds(entry: Entry, patience: Patience) -> bool:
    """Whether a call of an entry of config.json would bind something, at any stage."""
    is_for_binds = entry.stage in (*registered.SETTING_UP, registered.LATE)
    return is_for_binds and registration.requests_binds(entry.words) and not _is_turned_off(entry, patience)


def _is_turned_off(entry: Entry, patience: Patience) -> bool:
    return _may_inspect(entry, patience) and launcher.is_turned_off(entry.path)


def with_registered(
    report: Report, entries: list[Entry], options: Options, namespaces: Container[str], proc: Proc, patience: Patience
) -> list[Part]:
    """Returns the options or, if they request no bind, those of each entry that sets up, in the order of the calls.

    If ``options`` name a stage, only entries at it count. ``namespaces`` are those that the container has or joins.
    Entries whose launcher is turned off count only if all are turned off, because the state folder depends on them.

    Adds to the report how the hook is registered, and the error of each call whose STAGE is not where it is registered.
    """
    report.registered = [entry.place for entry in entries]
    report.registrations = origins(entries, patience)
    called = registered.chosen(entries, options.stage)
    is_late = options.stage is None and "mount" in namespaces
    late = [entry for entry in entries if entry.stage == registered.LATE and is_late]
    if options.mounts or options.annotation_sources:
        if options.command is None and any(_binds(entry, patience) for entry in entries):
            report.notes.append("the command line requests binds, so those that config.json registers are left out")
        return [Part(options, "")]
    if not entries and options.bundle is not None:
        command = shlex.join(["oci-bind-hook", "install", "--check", options.bundle])
        report.notes.append(f"to see why no registration of the hook applies to this container, run {command}")
    calling = [entry for entry in (*called, *late) if not _is_turned_off(entry, patience)]
    report.is_turned_off = bool(called or late) and not calling
    if not report.is_turned_off:
        called, late = ([entry for entry in each if entry in calling] for each in (called, late))
    parts = [] if called else [Part(options, "")]
    for entry in [*called, *late]:
        report.turn = len(parts)
        try:
            parts.append(Part(_merged(entry, options, proc), entry.place, entry.stage))
            if options.stage is None and (refusal := _at_another(entry, namespaces)) is not None:
                report.add(refusal, "read")
        except HookError as problem:
            problem.where = f"{entry.place}/args: {problem.where}"
            report.add(problem, "read")
            parts.append(Part(options, "", entry.stage))
    report.turn = 0
    understood = [part.place for part in parts if part.place]
    report.options = ", ".join(understood) or None
    if options.bundle is not None and called and understood:
        report.stage = called[0].stage
    if len({part.options.root for part in parts if not part.is_late}) > 1:
        report.warnings.append(
            f"{called[0].place}: the entries have different --root values, so a failure of one does not undo the others"
        )
    return parts


def _at_another(entry: Entry, namespaces: Container[str]) -> HookError | None:
    """Returns the error of a call whose STAGE is not its own, None if the call continues all the same."""
    if entry.stage_argument == "poststop":
        return not_stopped("created" if entry.stage == registered.LATE else "creating")
    if entry.stage_argument == "createContainer" and entry.stage != "createContainer" and "mount" in namespaces:
        return not_inside()
    # If the container shares the runtime's pid namespace, the state may name a process.
    if entry.stage_argument == "createRuntime" and entry.stage == "createContainer" and "pid" in namespaces:
        return no_process(is_inside=True)
    return None


def _merged(entry: Entry, options: Options, proc: Proc) -> Options:
    """Returns the options of an entry of config.json, merged with those of this dry-run. Raises UsageError."""
    merged, _ = parse(list(entry.words))
    merged.bundle = options.bundle
    merged.dry_run = True
    for switch in ("strict", "allow_shared", "keep_mountpoints"):
        setattr(merged, switch, getattr(merged, switch) or getattr(options, switch))
    merged.root = options.root or merged.root
    if entry.env:  # the hook has only this environment, the user of the dry-run another
        environment = {linux.encode_path(name): linux.encode_path(text) for name, text in entry.environment.items()}
        merged.root = state_folder(merged, proc, environment)
    merged.stage = options.stage or merged.stage
    return merged


def requests_of_each(report: Report, bundle: Bundle, parts: list[Part], patience: Patience) -> Iterator[list[Request]]:
    """Yields the requests of each call, without those of earlier calls: they are mounted by then and left alone."""
    asked: set[tuple[bool, str]] = set()
    for report.turn, part in enumerate(parts):
        requests = _requests(report, bundle, part._replace(place=part.place if len(parts) > 1 else ""), patience)
        if part.is_late:  # earlier calls do not count, since they mount in another root
            yield [request for request in requests if not request.is_from_mounts]
            continue
        keys = [(each.is_from_mounts, json.dumps(each.as_mount(), sort_keys=True)) for each in requests]
        yield [request for request, key in zip(requests, keys, strict=True) if key not in asked]
        asked.update(keys)
    report.turn = 0
    asking = sum(key.startswith(collect.ANNOTATION) for key in bundle.config.annotations)
    if asking and not any(part.options.annotation_sources for part in parts):
        allowing = "--allow-annotations and --allow-source"
        report.notes.append(f"annotations request binds ({asking} here), which require {allowing}")


def _requests(report: Report, bundle: Bundle, part: Part, patience: Patience) -> list[Request]:
    """Returns the valid requests of a call. The others become problems of the report.

    The place of the call, if it has one, distinguishes its ``--mount`` from those of other calls.
    """

    def refused(problem: HookError) -> None:
        report.add(problem, "ask")

    options, place = Options() if report.is_turned_off else part.options, part.place
    requests = collect.requests(bundle.config, options.mounts, allowed(options.annotation_sources), refused)
    for request in requests:
        if place and request.origin_kind == "argument":
            request.origin, request.place = f"{place}: {request.origin}", f"{place}: {request.place}"
    return [one for request in requests for one in expanded(request, patience, refused)]
