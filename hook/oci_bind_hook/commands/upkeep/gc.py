# SPDX-License-Identifier: Apache-2.0
"""Undoes what dead containers and killed runs left behind, the way poststop does. Live containers are left alone.

Each container is judged again under its lock. If another run holds that lock, gc does not wait for it.
"""

from __future__ import annotations

from ...errors import HookError, RecordError, UnavailableError
from ...kernel import linux, rights
from ...lifecycle.tear_down import forget, take_down
from ...log import NAME, one_line
from ...record.state_file import heir
from .listing import Registry, columns, json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ...log import Log
    from ...options import Options
    from ...record.folder import StateFolder
    from .listing import Entry

    Action = Literal["finished", "finish", "kept", "failed"]

_DONE = {"finished": "finished", "finish": "would be finished", "kept": "kept", "failed": "failed"}


class Outcome:
    """What was done about one container, with the members of schemas/gc.json.

    ``action`` is "finished", "finish" (a dry-run: would be finished), "kept" or "failed", with its ``problem``.
    """

    def __init__(self, entry: Entry) -> None:
        self.id = entry.id
        self.action: Action = "kept"
        self.reason = entry.reason
        self.advice = entry.advice
        self.unmount: list[str] = []
        self.remove: list[str] = []
        self.remarks: list[str] = []
        self.problem: HookError | None = None

    def fail(self, problem: HookError) -> None:
        self.action, self.problem, self.advice = "failed", problem, problem.hint

    def document(self) -> dict[str, object]:
        names = ("action", "reason", "advice", "unmount", "remove", "remarks")
        found = {
            "id": self.id.encode(errors="backslashreplace").decode(),
            **{each: getattr(self, each) for each in names},
        }
        if self.problem is not None:
            found["problem"] = {"message": one_line(str(self.problem)), "exit": self.problem.exit_code}
        return found


class Collection:
    """The outcomes of one call by container, and the state folder."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.outcomes: dict[str, Outcome] = {}

    @property
    def problems(self) -> list[HookError]:
        return [outcome.problem for outcome in self.outcomes.values() if outcome.problem is not None]


def collect(options: Options, wanted: Sequence[str], log: Log) -> Collection:
    """Finishes dead containers: all of them, or those ``wanted``, of which a live one is a failure. HookError.

    A failure with one container does not stop the others.
    """
    registry = Registry(options)
    collection = Collection(registry.path)
    pending = registry.names(wanted)
    linux.raise_open_files()
    if not options.dry_run:
        rights.hide()
        rights.harden(NAME)
    while pending:
        done = len(pending)
        for container in pending:
            outcome = _collect(container, registry, options, log)
            if outcome is not None:
                collection.outcomes[container] = outcome
                if wanted and outcome.action == "kept":
                    outcome.fail(UnavailableError(f"nothing is touched: {outcome.reason}", hint=outcome.advice))
        # A dead container may stand in the way of another one, on whose mount point it is mounted.
        pending = [each for each in pending if _has_failed(collection.outcomes.get(each))]
        if len(pending) == done or options.dry_run:
            break
    if registry.folder is not None and not options.dry_run:
        registry.folder.sweep()
    return collection


def _has_failed(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.problem is not None


def _collect(container: str, registry: Registry, options: Options, log: Log) -> Outcome | None:
    """The outcome for one container, None if it has gone meanwhile."""
    entry = registry.entry(container)
    if registry.folder is None or entry is None:
        return None
    outcome = _planned(entry, registry, options)
    if options.dry_run or outcome.action != "finish":
        return outcome
    log.container, log.stage = container, "gc"
    try:
        with registry.folder.lock_id(container, wait=False):
            return _finish(container, registry, registry.folder, options, log)
    except RecordError as problem:
        if isinstance(problem.__cause__, BlockingIOError):
            outcome.action, outcome.reason = "kept", "a run of the hook works on it now"
        else:
            outcome.fail(problem)
        return outcome


def _planned(entry: Entry, registry: Registry, options: Options) -> Outcome:
    """The outcome that a run would have."""
    outcome = Outcome(entry)
    if entry.problem is not None:
        outcome.fail(entry.problem)
    elif entry.status in ("dead", "leftover") and not entry.busy:
        outcome.action, outcome.advice = "finish", ""
        outcome.unmount = [str(mount["resolved"]) for mount in reversed(entry.mounts) if mount["state"] == "mounted"]
        removable = [] if options.keep_mountpoints else entry.made[::-1]
        neighbours = registry.neighbours(entry.record) if entry.record and removable else []
        for made in removable:
            path = str(made["path"])
            if other := heir(path, neighbours):
                outcome.remarks.append(f"{path} is handed over to the container {other['id']}, which uses it")
            elif made["state"] in ("there", "covered"):
                outcome.remove.append(path)
    return outcome


def _finish(container: str, registry: Registry, folder: StateFolder, options: Options, log: Log) -> Outcome | None:
    """Plans again under the container's lock, since the holder before may have changed everything, and does it."""
    entry = registry.entry(container, locked=True)
    if entry is None:
        return None
    outcome = _planned(entry, registry, options)
    if outcome.action != "finish":
        return outcome
    try:
        if entry.record is None:
            forget(folder, container, registry.proc)
        else:
            keep = options.keep_mountpoints
            remarks = take_down(folder, entry.record, registry.proc, log, keep_mountpoints=keep)
            outcome.remarks += map(str, remarks)
            left = {remark.path for remark in remarks}
            outcome.remove = [path for path in outcome.remove if path not in left]
        outcome.action = "finished"
    except HookError as problem:
        outcome.fail(problem)
    return outcome


# -- in words --------------------------------------------------------------------------------------------------------


def as_json(collection: Collection, *, dry_run: bool) -> str:
    """All as one JSON document, schemas/gc.json."""
    records = [outcome.document() for outcome in collection.outcomes.values()]
    return json_text({"folder": collection.folder, "dryRun": dry_run, "records": records})


def as_text(collection: Collection) -> str:
    """A line for each container, and what was done below it."""
    if not collection.outcomes:
        return one_line(f"nothing is recorded in {collection.folder}") + "\n"
    outcomes = collection.outcomes.values()
    heads = columns([(each.id, _DONE[each.action], "" if each.problem else each.reason) for each in outcomes])
    lines = []
    for head, outcome in zip(heads, outcomes, strict=True):
        details = [f"unmount {path}" for path in outcome.unmount] + [f"remove {path}" for path in outcome.remove]
        details += [*outcome.remarks, *filter(None, [outcome.advice])]
        if outcome.problem is not None:
            details = [str(outcome.problem)]
        lines += [head, *(one_line(f"  {detail}") for detail in details)]
    return "\n".join(lines) + "\n"
