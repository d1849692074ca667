# SPDX-License-Identifier: Apache-2.0
"""What each call of the hook requests, opens and binds, checked in the steps of a real run.

Each call is a turn of the report, which collects its problems. Nothing is created, and no namespace is entered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import At, EscapeError
from ...lifecycle.stage import RUNTIMES, not_seen
from ...mounting.config_mounts import is_runtimes
from ...mounting.plan import Plan, Planner
from ...mounting.propagation import Runtimes, remark
from ...mounting.sources import open_sources
from ...requests import collect
from ...rootfs.identity import identify_path
from ...rootfs.mount_points import Rootfs
from . import unmounted
from .facts import own_mounts
from .foresee import Leaks, Run, problems_of_sources, problems_of_stage
from .parts import requests_of_each
from .patience import DESTINATIONS, Mute, silent
from .recorded import find_folders, records_on

if TYPE_CHECKING:
    from ...documents.bundle import Bundle
    from ...kernel.namespace import Namespace
    from ...kernel.proc import Proc
    from ...lifecycle.stage import Place
    from ...mounting.sources import Source
    from ...record.folder import Records
    from ...record.state_file import MountRecord, Record, RootfsRecord
    from ...requests.request import Request
    from .containers import Container
    from .parts import Part
    from .patience import Patience
    from .report import Report


class Call:
    """One call: its ``part``, the foreseen ``run``, and its ``requests``. ``asks``: the hook has to bind at least
    one of them. ``folder`` (None if there is none to inspect) and ``sources`` are set by ``Calls.open``.
    """

    def __init__(self, part: Part, run: Run, requests: list[Request], *, asks: bool) -> None:
        self.part = part
        self.run = run
        self.requests = requests
        self.asks = asks
        self.folder: Records | None = None
        self.sources: list[Source] = []


class Calls:
    """All calls that a bundle makes, in order. ``no_folder`` is why no state folder may be inspected, "" if it may."""

    def __init__(
        self, report: Report, parts: list[Part], bundle: Bundle, namespace: Namespace, patience: Patience
    ) -> None:
        self._report = report
        self._bundle = bundle
        self._namespace = namespace
        self._patience = patience
        runs = [Run(bundle, part.stage or report.stage) for part in parts]
        report.own_rights = runs[0].own_rights
        requests = list(requests_of_each(report, bundle, parts, patience))
        report.own = own_mounts(requests[0])
        if report.is_turned_off:
            requests = [[request for request in asked if not self._is_asked(request)] for asked in requests]
        elif bundle.config.root_readonly and report.namespace == "runtime":
            requests[0].insert(0, collect.read_only_root(bundle.rootfs))
        self._calls = [
            Call(part, run, asked, asks=any(map(self._is_asked, asked)))
            for part, run, asked in zip(parts, runs, requests, strict=True)
        ]
        self.no_folder = ""
        self._identity: RootfsRecord | None = None
        self._recorded: list[MountRecord] = []

    @property
    def first(self) -> Call:
        return self._calls[0]

    @property
    def _sources(self) -> list[list[Source]]:
        return [call.sources for call in self._calls]

    def _is_runtimes(self, request: Request) -> bool:
        return is_runtimes(request, self._namespace.kind, self._bundle.rootfs)

    def _is_asked(self, request: Request) -> bool:
        """Whether the hook has to bind this."""
        return request.is_bind and not self._is_runtimes(request)

    def open(self, proc: Proc, place: Place | None) -> None:
        """Opens the state folder and the sources of each call."""
        report, bundle = self._report, self._bundle
        self._recorded, self.no_folder = find_folders(report, self._calls, proc, place, self._patience)
        enters = report.namespace == "container" if place is None else place.pidfd is not None
        for report.turn, call in enumerate(self._calls):
            with At("open"):
                call.sources = open_sources(call.requests, bundle.path, self._namespace, self._patience.source_of)
            foreseen = [*problems_of_sources(call.sources, call.run, self._namespace, bundle.rootfs)]
            # A run that cannot clone a source never reaches the namespace.
            for problem in foreseen or (problems_of_stage(call.run, bundle.rootfs) if enters and call.asks else ()):
                report.add(problem)
            if call.part.enters_late and call.asks:
                report.add(not_seen(bundle.rootfs), "enter")
        report.turn = 0

    def enter(self, proc: Proc, container: Container | None) -> Rootfs | None:
        """Returns the rootfs, or None if no destination can be resolved or no call gets this far; the report has the
        reason. Raises HookError.
        """
        report, bundle, patience = self._report, self._bundle, self._patience
        if why := patience.why_not("rootfs", f"the rootfs {bundle.rootfs}", bundle.rootfs):
            report.add(silent(f"the rootfs {bundle.rootfs}", why, step="read"))
            unmounted.judge_sources(report, self._sources, self._namespace, bundle.rootfs)
            return None
        if unmounted.is_unmounted(bundle.rootfs, proc):
            unmounted.without_destinations(
                report, bundle, self._sources, self._namespace, container, patience.source_of
            )
            return None
        try:
            with At("rootfs"):  # a real run checks this before it enters the namespace, which may be refused
                self._identity = identify_path(bundle.rootfs, self._namespace.started_in)
            with At("enter"):
                rootfs = Rootfs(
                    bundle.rootfs,
                    own_tmpfs=lambda stat: self._namespace.is_own_tmpfs(stat, bundle.rootfs),
                    type_of=self._namespace.type_of,
                )
        except EscapeError:
            if not any(call.asks for call in self._calls):
                return None  # a real run ends before it enters a namespace
            raise
        for call in self._calls:
            remark([one for one in call.sources if not self._is_runtimes(one.request)], self._runtimes(call, rootfs))
        whose = f"the rootfs {bundle.rootfs}, or a source that a destination leads into,"
        if why := patience.why_not(DESTINATIONS, whose, bundle.rootfs):
            report.add(silent(whose, why, step="resolve"))
            unmounted.judge_sources(report, self._sources, self._namespace, bundle.rootfs)
            return None
        return rootfs

    def records(self, proc: Proc) -> list[Record]:
        """Returns the records of all containers on the rootfs that was entered. Raises RecordError."""
        if self.no_folder or self._identity is None:
            return []
        return records_on(self._identity, self.first.part.options, proc)

    def resolve(self, rootfs: Rootfs) -> Planner:
        """Resolves the requests of all calls, one call after the other. Returns the planner."""
        config, report = self._bundle.config, self._report
        planner = Planner(rootfs, self._namespace, self._recorded, is_admin=config.is_admin)
        for report.turn, call in enumerate(self._calls):
            if call.part.is_late:
                continue
            own = Plan(rootfs, self._namespace)
            before, planner.allow_shared = len(planner.plan.binds), call.part.options.allow_shared
            planner.foresees_leak = Leaks(config, call.run.stage, self._namespace, rootfs)
            planner.resolve(call.requests, call.sources)
            own.binds = planner.plan.binds[before:]
            _mute(own)
            for problem in own.problems:
                report.add(problem, "resolve")
            unrecorded = call.folder.why_unrecorded() if call.folder is not None else None
            if unrecorded is not None and any(bind.create for bind in own.to_mount):
                report.add(unrecorded, "make")
        report.turn = 0
        return planner

    def _runtimes(self, call: Call, rootfs: Rootfs) -> Runtimes:
        """Returns what the runtimes do with the propagation of the binds of a call."""
        config = self._bundle.config
        names = RUNTIMES if self._report.namespace == "container" else ()
        if call.run.stage != "createContainer":
            return Runtimes(names, config.rootfs_propagation)
        has_users = "user" in config.namespaces
        return Runtimes(names, config.rootfs_propagation, is_inside=True, ahead=rootfs.stat.mnt_id, has_users=has_users)


def _mute(plan: Plan) -> None:
    """Sets a warning or a problem of each bind whose source does not answer."""
    for bind in plan.binds:
        if isinstance(mute := bind.request.opener, Mute):
            if bind.by == "runtime":
                bind.warnings.append(f"{mute.problem.problem}: the runtime waits for that as well")
            else:  # even if a condition excludes it: a real run opens the source first
                bind.problem = mute.problem
