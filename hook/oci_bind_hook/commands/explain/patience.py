# SPDX-License-Identifier: Apache-2.0
"""A dry-run that does not hang on a file system that does not answer, and still reports all that can be known.

A child gathers the report (kernel.asking). It notes each query before it makes it. If a query takes too long, the
parent marks its target as silent and starts another child, which leaves that target out.
"""

from __future__ import annotations

import json
import os
import time
from typing import TYPE_CHECKING

from ...errors import HookError, MissingError
from ...kernel import files
from ...kernel.asking import SECONDS, ask
from ...kernel.mountinfo import first_that_may_wait, may_wait
from ...mounting.sources import expand
from .report import Report

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...errors import Step
    from ...kernel.mountinfo import MountTable
    from ...requests.request import Request

DEADLINE = 20.0  # seconds: the limit for all children together
DESTINATIONS = "destinations"  # of all binds, because a destination may lead into the source of an earlier bind
PROGRAMS = "programs"  # of the container, which the binds may cover
_TICK = SECONDS / 4
_CLOCK_OF_ALL_THREADS = 2  # CPUCLOCK_SCHED, linux/posix-timers.h
HINT = "a real run waits until the server answers or ends, or until the runtime's timeout kills the hook"


class Patience:
    """What is known to be silent, and the notes of a child on its next query.

    ``silent`` has what did not answer: key -> why it is not queried. ``mounts`` has the same by mount id.
    """

    def __init__(self, table: MountTable) -> None:
        self.silent: dict[str, str] = {}
        self.mounts: dict[int, str] = {}
        self._table = table
        self._notes = os.memfd_create("notes", os.MFD_CLOEXEC)

    def why_not(self, key: str, what: str, path: str) -> str:
        """Returns why ``path`` must not be queried, or "" if it may be. Then ``what`` is noted as the next query.

        ``key`` names the query, and is the same in every child.
        """
        mount = first_that_may_wait(self._table, path) if self.mounts else None
        if mount is not None and mount.id in self.mounts:
            return self.mounts[mount.id]
        if key not in self.silent:
            os.write(self._notes, json.dumps([key, what, path]).encode() + b"\n")
        return self.silent.get(key, "")

    def source_of(self, request: Request, path: str) -> None:
        """Call this before opening the source of a request at ``path``. If that is silent, the source is not opened."""
        if why := self.why_not(request.origin, f"the source {path} of {request.origin}", path):
            request.opener = Mute(silent(f"the source {path}", why, request.at("source")))

    def ask(self, gather: Callable[[], Report], tell: Callable[[str], None], end: float) -> Report | None:
        """Returns what a child gathers, or None if a query was not answered. Its target is then known to be silent."""
        seen, reported, quiet = (b"", 0), b"", 0

        def goes_on(child: int) -> bool:
            nonlocal seen, reported, quiet
            now = note, _ = self._last(), _cpu_time(child)
            quiet = quiet + 1 if now == seen else 0
            seen = now
            if quiet and note != reported and note:
                tell(f"waiting for {json.loads(note)[1].rstrip(',')}")
                reported = note
            return not quiet or (quiet * _TICK < SECONDS and time.monotonic() < end)

        os.ftruncate(self._notes, 0)
        outcome = ask(lambda: gather().as_values(), _TICK, fds=[self._notes], goes_on=goes_on)
        if outcome.error is not None:
            raise outcome.error
        if not outcome.is_silent:
            return Report.from_values(outcome.answer)
        key, what, path = json.loads(self._last() or b'["", "the dry-run itself", "/"]')
        mount = first_that_may_wait(self._table, path)
        why = outcome.silence(f"{mount.mount_point} ({mount.type})" if mount is not None else what)
        if mount is not None:
            # This mount may be why the destinations did not answer, because they lead anywhere.
            self.silent.pop(DESTINATIONS, None)
            self.mounts.setdefault(mount.id, why)
        self.silent[key] = why
        return None

    @property
    def known(self) -> tuple[set[int], set[str]]:
        """The mounts and keys that are known to be silent."""
        return {*self.mounts}, {*self.silent}

    def _last(self) -> bytes:
        """Returns the last complete note."""
        os.lseek(self._notes, 0, os.SEEK_SET)
        return b"\n".join(files.read_all(self._notes).split(b"\n")[-2:-1])

    def close(self) -> None:
        os.close(self._notes)


def _cpu_time(child: int) -> int:
    """Returns the CPU time of a child in nanoseconds, 0 if it has ended. It does not grow while the child waits.

    A plan of many binds takes long on a busy machine although everything answers. The clock is that of
    clock_getcpuclockid(3), which Python offers for threads only.
    """
    try:
        return time.clock_gettime_ns((~child << 3) | _CLOCK_OF_ALL_THREADS)
    except OSError:
        return 0


class Mute:
    """Replaces the opener of a source that is silent."""

    def __init__(self, problem: HookError) -> None:
        self.problem = problem

    def open(self, _: Request, /) -> int:
        raise self.problem


def silent(subject: str, why: str, where: str = "", *, step: Step = "open") -> MissingError:
    """Returns the problem of a real run that queries what is silent, at its ``step``."""
    # The exit code is that of the run if the server ends first or its file system is unmounted.
    problem = MissingError(f"{subject} cannot be inspected: {why}", where=where, hint=HINT)
    problem.step = step
    return problem


def expanded(request: Request, patience: Patience, refused: Callable[[HookError], None]) -> list[Request]:
    """Returns the matches of a request that is a pattern, or the request alone. ``refused`` is called with an error."""
    pattern = f"the pattern {request.source}"
    if request.is_glob and (why := patience.why_not(request.origin, pattern, request.source)):
        refused(silent(pattern, why, request.at("source"), step="ask"))
        return []
    try:
        return expand([request])
    except HookError as problem:
        refused(problem)
        return []


def gathered(
    report: Report, table: MountTable, gather: Callable[[Patience], Report], tell: Callable[[str], None]
) -> Report:
    """Returns what ``gather`` makes of a ``report``, within the limit. ``tell`` gets messages on what it waits for.

    A child gathers, with its own report, if the mount ``table`` has a file system that may not answer. Raises OSError
    if it cannot start.
    """
    patience = Patience(table)
    try:
        if not any(map(may_wait, table.types())):
            return gather(patience)
        end = time.monotonic() + DEADLINE
        known = None
        while time.monotonic() < end and known != patience.known:
            known = patience.known
            answer = patience.ask(lambda: gather(patience), tell, end)
            if answer is not None:
                return answer
    finally:
        patience.close()
    for why in dict.fromkeys((*patience.mounts.values(), *patience.silent.values())):
        report.add(silent("what is requested", why))
    return report
