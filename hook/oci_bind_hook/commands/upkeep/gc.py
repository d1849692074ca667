# SPDX-License-Identifier: Apache-2.0
"""Undoes the leftovers of dead containers and killed runs, as poststop does. Leaves live containers alone.

Each container is checked again under its lock. If another run has that lock, gc does not wait for it.

Containers on one rootfs are undone in turns. For each turn the rootfs is locked and the records on it are read once.
With one lock and one reading per container, hundreds of records would be read hundreds of times.
"""

from __future__ import annotations

import contextlib
from functools import partial

from ...documents.acceptor import head
from ...errors import HookError, RecordError, UnavailableError
from ...kernel import linux, rights
from ...lifecycle.reach import Removal
from ...lifecycle.tear_down import foreign, forget, undo_held
from ...log import NAME, one_line
from ...rootfs.identity import primary
from ..json_text import json_text
from . import folders
from .described import columns, short
from .folders import problem_member
from .listing import registries

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ...log import Log
    from ...mounting.undo import Remark
    from ...options import Options
    from ...record.folder import StateFolder
    from ...record.held import HeldRootfs
    from ..explain.drawing import Pen
    from .folders import Folder
    from .listing import Entry, Registry

    Action = Literal["finished", "finish", "kept", "failed"]

# A turn undoes an eighth of the containers that are left, so that all readings together are linear, and other runs on
# the rootfs wait for an eighth of the time at most. A turn has at least _LEAST containers, which takes little time.
_SHARE = 8
_LEAST = 50

_WORKED = "a run of the hook has just changed it"
# The words for a container, for its binds and for its mount points.
_DONE = {
    "finished": ("undone", "unmounted", "removed"),
    "finish": ("would be undone", "would unmount", "would remove"),
    "kept": ("kept", "unmounted", "removed"),
    "failed": ("failed", "unmounted", "removed"),
}


class Outcome:
    """What was done for one container, with the members of schemas/gc.json.

    ``action`` is "finished", "finish" (in a dry-run: would be finished), "kept", or "failed" with its ``problem``.
    """

    def __init__(self, entry: Entry) -> None:
        self.id = entry.id
        self.folder = entry.folder
        self.action: Action = "kept"
        self.reason = entry.reason
        self.advice = entry.advice
        self.unmount: list[str] = []
        self.remove: list[str] = []
        self.remarks: list[str] = []
        self.problem: HookError | None = None

    def follow(self, earlier: Outcome) -> None:
        """Adds what an earlier attempt, which failed, has done."""
        self.unmount = earlier.unmount + self.unmount
        self.remove = earlier.remove + self.remove
        self.remarks = [each for each in earlier.remarks if each not in self.remarks] + self.remarks

    def keep(self, reason: str) -> None:
        """Changes the plan: nothing is undone."""
        self.action, self.reason = "kept", reason
        self.unmount, self.remove, self.remarks = [], [], []

    def hand_over(self, path: str, other: str, verb: str) -> None:
        """Adds that a mount point goes to the record of another container."""
        self.remarks.append(f"{path} {verb} handed over to the container {other}, which uses it")
        self.remove = [each for each in self.remove if each != path]

    def leave(self, remarks: Sequence[Remark]) -> None:
        """Adds ``remarks`` on mount points that were left in the rootfs."""
        self.remarks += map(str, remarks)
        left = {remark.path for remark in remarks}
        self.remove = [path for path in self.remove if path not in left]

    def fail(self, problem: HookError) -> None:
        self.action, self.problem, self.advice = "failed", problem, problem.hint

    def document(self) -> dict[str, object]:
        names = ("action", "reason", "advice", "unmount", "remove", "remarks")
        found = {
            "id": self.id,
            "folder": self.folder,
            **{each: getattr(self, each) for each in names},
        }
        return {**found, **problem_member(self.problem)}


class Collection:
    """The outcomes of one call, and the state ``folders``."""

    def __init__(self, folders: list[Folder]) -> None:
        self.folders = folders
        self.outcomes: list[Outcome] = []


def collect(options: Options, wanted: Sequence[str], log: Log) -> Collection:
    """Finishes dead containers: all of them, or those ``wanted``. A wanted container that is alive is a failure.

    The failure of one container does not stop the others. Raises HookError.
    """
    found, usable = registries(options, wanted)
    collection = Collection(found)
    linux.raise_open_files()
    if not options.dry_run:
        rights.hide()
        rights.harden(NAME)
    for registry, pending in usable:
        outcomes = _collect(registry, pending, options, log)
        for outcome in outcomes:
            if wanted and outcome.action == "kept":
                outcome.fail(UnavailableError(f"nothing is undone: {outcome.reason}", hint=outcome.advice))
        collection.outcomes += outcomes
    return collection


def _collect(registry: Registry, pending: list[str], options: Options, log: Log) -> list[Outcome]:
    """Finishes those of the containers ``pending`` in one state folder that are dead."""
    outcomes: dict[str, Outcome] = {}
    if registry.folder is not None and not options.dry_run:
        # Before anything is undone, because other containers on the same rootfs are mostly found by these lists.
        registry.folder.check_lists()
    while pending:
        done = len(pending)
        found = _Round(pending, registry, options, log).outcomes
        for container in [each for each in pending if each in found]:
            if container in outcomes:
                found[container].follow(outcomes[container])
            outcomes[container] = found[container]
        # A mount of one dead container may be on the mount point of another, which then fails in this round.
        pending = [each for each in pending if _has_failed(outcomes.get(each))]
        if len(pending) == done or options.dry_run:
            break
    if registry.folder is not None and not options.dry_run:
        registry.folder.sweep(indexes=True)
    return list(outcomes.values())


def _has_failed(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.problem is not None


class _Round:
    """One attempt to finish the containers ``pending``. ``outcomes`` has those that still exist."""

    def __init__(self, pending: Sequence[str], registry: Registry, options: Options, log: Log) -> None:
        self.registry = registry
        self.options = options
        self.log = log
        self.outcomes: dict[str, Outcome] = {}
        left = list(pending)
        while left and registry.folder is not None:
            size = len(left) if options.dry_run else max(_LEAST, len(left) // _SHARE)
            self._take_turn(left[:size], registry.folder)
            left = left[size:]

    def _take_turn(self, containers: Sequence[str], folder: StateFolder) -> None:
        self.registry.look_around()
        found = filter(None, map(self.registry.entry, containers))
        over: dict[tuple[int, int], list[tuple[Entry, Removal]]] = {}
        with contextlib.ExitStack() as stack:
            for entry in found:
                if self.options.dry_run or not entry.is_over:
                    self.outcomes[entry.id] = self._planned(entry)
                elif entry.record is None:
                    self._finish(entry, folder)
                else:
                    removal = stack.enter_context(Removal(entry.record, self.registry.proc))
                    over.setdefault(primary(removal.now), []).append((entry, removal))
            for dead in over.values():
                self._finish_on_rootfs(dead, folder)

    def _finish_on_rootfs(self, dead: list[tuple[Entry, Removal]], folder: StateFolder) -> None:
        try:
            with folder.lock_rootfs(*(rootfs for _, removal in dead for rootfs in removal.all), wait=False) as held:
                for entry, removal in dead:
                    self._finish(entry, folder, held, removal)
        except RecordError as problem:
            for entry, _ in dead:
                self.outcomes[entry.id] = _refused(entry, problem, "a run of the hook works on its rootfs now")

    def _finish(
        self, entry: Entry, folder: StateFolder, held: HeldRootfs | None = None, removal: Removal | None = None
    ) -> None:
        """Finishes one container under its lock. Plans it again, since the previous holder may have changed everything.

        Without a record there is no rootfs, so ``held`` and ``removal`` are None.
        """
        outcome = Outcome(entry)
        self.log.container, self.log.stage = entry.id, "gc"
        try:
            with folder.lock_id(entry.id, wait=False):
                now = self.registry.entry(entry.id, locked=True)
                if now is None:
                    return
                outcome = self._planned(now)
                if outcome.action == "finish" and now.rootfs != entry.rootfs:
                    outcome.keep(_WORKED)
                elif outcome.action == "finish":
                    self._undo(now, folder, held, removal, outcome)
        except RecordError as problem:
            outcome = _refused(entry, problem, "a run of the hook works on it now")
        self.outcomes[entry.id] = outcome

    def _undo(
        self, entry: Entry, folder: StateFolder, held: HeldRootfs | None, removal: Removal | None, outcome: Outcome
    ) -> None:
        proc, keep = self.registry.proc, self.options.keep_mountpoints
        try:
            if held is None or removal is None:
                forget(folder, entry.id, proc)
            else:
                lives, claims = self.registry.lives, self.registry.witness.claims
                remarks = undo_held(
                    folder, held, entry.id, removal, proc, self.log, lives, keep_mountpoints=keep, claims=claims
                )
                if remarks is None:
                    outcome.keep(_WORKED)
                    return
                outcome.leave(remarks)
            outcome.action = "finished"
        except HookError as problem:
            outcome.fail(problem)
            outcome.leave(problem.remarks)
            self._keep_done(outcome, folder)
        for path, other in (held.handed.get(entry.id, {}) if held is not None else {}).items():
            outcome.hand_over(path, other, "is")

    def _keep_done(self, outcome: Outcome, folder: StateFolder) -> None:
        """Removes from the outcome of a failure what is still recorded."""
        try:
            left = folder.load(outcome.id)
        except RecordError:
            left = None
        binds = [mount["resolved"] for mount in left["mounts"]] if left else outcome.unmount
        points = [made["path"] for made in left["made"]] if left else outcome.remove
        outcome.unmount = [path for path in outcome.unmount if path not in binds]
        outcome.remove = [path for path in outcome.remove if path not in points]

    def _planned(self, entry: Entry) -> Outcome:
        """Returns the outcome of a run. That a mount point is handed over is foreseen only in a dry-run."""
        outcome = Outcome(entry)
        if entry.problem is not None:
            outcome.fail(entry.problem)
        elif entry.is_foreign and entry.record is not None and entry.status != "alive":
            outcome.fail(foreign(entry.record, self.registry.proc))
        elif entry.is_over:
            outcome.action, outcome.advice = "finish", ""
            mounted = [str(mount["resolved"]) for mount in entry.mounts if mount["state"] == "mounted"]
            outcome.unmount = mounted[::-1]
            if not self.options.keep_mountpoints:
                points = [(str(made["path"]), made["state"]) for made in entry.made[::-1]]
                outcome.remove = [path for path, state in points if state in ("there", "covered")]
                if self.options.dry_run and points and entry.record is not None:
                    users = self.registry.users(entry.record)
                    for path, _ in points:
                        if other := self.registry.heir(path, entry.id, users):
                            outcome.hand_over(path, str(other["id"]), "would be")
        return outcome


def _refused(entry: Entry, problem: RecordError, busy: str) -> Outcome:
    """Returns the outcome if a lock cannot be taken: "kept", for the reason ``busy``, if another run has it."""
    outcome = Outcome(entry)
    if isinstance(problem.__cause__, BlockingIOError):
        outcome.reason = busy
    else:
        outcome.fail(problem)
    return outcome


# -- text and JSON ---------------------------------------------------------------------------------------------------


def as_json(collection: Collection, *, dry_run: bool) -> str:
    """Returns all outcomes as one JSON document, schemas/gc.json."""
    records = [outcome.document() for outcome in collection.outcomes]
    return json_text(
        {**head("gc"), "folders": folders.documents(collection.folders), "dryRun": dry_run, "records": records}
    )


def as_text(collection: Collection, pen: Pen) -> str:
    """Returns a line for each container, and below it what was done."""
    return folders.as_text(collection.folders, collection.outcomes, partial(_as_lines, pen=pen))


def _as_lines(outcomes: Sequence[Outcome], *, pen: Pen) -> list[str]:
    names = short([each.id for each in outcomes], pen)
    rows = [(names[each.id], _DONE[each.action][0], "" if each.problem else each.reason) for each in outcomes]
    lines = []
    for first, outcome in zip(columns(rows), outcomes, strict=True):
        _, unmounted, removed = _DONE[outcome.action]
        details = [f"{unmounted} {path}" for path in outcome.unmount]
        details += [f"{removed} {path}" for path in outcome.remove]
        details += [*outcome.remarks, *filter(None, [str(outcome.problem or outcome.advice)])]
        lines += [first, *(one_line(f"  {detail}") for detail in details)]
    return lines
