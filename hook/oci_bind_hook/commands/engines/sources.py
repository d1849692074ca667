# SPDX-License-Identifier: Apache-2.0
"""The sources that registrations request: which of them cannot be bound now, because they do not exist, for example.

The code of the dry-run opens them, with its time limit for file systems that do not answer.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from ...documents.oci import Config
from ...errors import HookError
from ...kernel.namespace import Namespace
from ...kernel.proc import Proc
from ...mounting.confined import check_unchangeable
from ...mounting.sources import close_sources, open_sources
from ...options import parse
from ...requests import collect
from ...requests.request import Request
from ..explain.patience import expanded, gathered
from ..explain.registered import SETTING_UP
from ..explain.report import Report
from .launcher import is_launcher
from .problems import CDI_EFFECTS, FAILS, WARNS, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..explain.patience import Patience
    from .registration import Registration

# A container from which a request can take what it lacks: an id map without ids is that of its user namespace.
CONTAINER = Config(
    {"root": {"path": "/"}, "linux": {"namespaces": [{"type": "user", "path": "/proc/self/ns/user"}]}},
)


_HINT = "create or mount it, or install again with another source"


class SourceProblem(Problem):
    """A problem at ``place`` in the arguments of a registration: ``detail`` is what is wrong and what to do."""

    def __init__(self, one: Registration, problem: HookError, effect: str) -> None:
        self.place = problem.where or "arguments"
        self.detail = f"{problem.problem} ({problem.hint or _HINT})"
        effects = CDI_EFFECTS if one.kind == "CDI" else None
        super().__init__(one.path, "", f"{self.place}: {self.detail}", effect, effects)


def problems(found: Iterable[Registration]) -> Iterator[SourceProblem]:
    """Yields the sources that cannot be bound now, and arguments of registrations that are invalid.

    A source that not every container needs, or that this user may not inspect, is only a warning.
    """
    asked: dict[str, tuple[Registration, list[Request]]] = {}
    for one in found:
        place = f"{one.path}, {one.device}" if one.device else one.path
        try:
            asked[place] = one, _requests(one, place)
        except HookError as problem:
            # Without this, it may be another program that has a similar name.
            if one.is_written or is_launcher(one.launcher):
                problem.hint = problem.hint or "install again"
                yield SourceProblem(one, problem, FAILS)
    if not any(requests for _, requests in asked.values()):
        return
    report = Report()

    def gather(patience: Patience) -> Report:
        namespace = Namespace(Proc(), "runtime")
        for _, requests in asked.values():
            _open(report, requests, namespace, patience)
        return report

    report = gathered(report, Proc().mounts(), gather, lambda _: None)
    for effect, known in ((FAILS, report.certain), (WARNS, report.unknown)):
        for refusal in known:
            place, _, refusal.where = refusal.where.rpartition(": ")
            # Without a place it may be any of them: the time was over before all were inspected.
            all_asked = [one for one, requests in asked.values() if requests]
            for one in [asked[place][0]] if place in asked else all_asked:
                yield SourceProblem(one, refusal, effect)


def _requests(one: Registration, place: str) -> list[Request]:
    """Returns what a registration requests, with ``place`` in each origin. Raises HookError for invalid arguments."""
    options, _ = parse(list(one.arguments))
    if not {*SETTING_UP} & {*one.stages}:
        return []
    requests = collect.requests(CONTAINER, options.mounts)
    requests += [
        Request("--allow-source", "--allow-source", path, "/", (), origin_kind="annotation")
        for path in options.annotation_sources
    ]
    for request in requests:
        request.origin, request.place = f"{place}: {request.origin}", f"{place}: {request.place}"
    return requests


def _open(report: Report, requests: Sequence[Request], namespace: Namespace, patience: Patience) -> None:
    """Adds to the report why sources cannot be bound: certain problems, and those that depend on the container."""

    def add(request: Request, problem: HookError) -> None:
        depends = ""
        if request.origin_kind == "annotation":
            depends = "containers with an annotation that requests a bind from there do not start"
        elif request.when_exists is not None:
            depends = f"containers in which {request.when_exists} exists do not start"
        elif isinstance(problem.__cause__, PermissionError) and os.geteuid() != 0:
            problem.hint = "run this as root"
            depends = "this user cannot inspect it"
        if depends:
            problem.problem = f"{problem.problem}; {depends}"
            report.unknown.append(problem)
        else:
            report.add(problem)

    binds = [match for each in requests for match in expanded(each, patience, partial(add, each))]
    sources = open_sources(binds, "/", namespace, patience.source_of)
    try:
        for source in sources:
            if source.error is not None and not (source.request.optional and source.is_missing):
                add(source.request, source.error)
            elif source.error is None and source.request.origin_kind == "annotation":
                try:
                    check_unchangeable(source.request.source, source.request.at("source"))
                except HookError as problem:
                    add(source.request, problem)
    finally:
        close_sources(sources)
