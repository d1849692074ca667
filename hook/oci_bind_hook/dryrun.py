# SPDX-License-Identifier: Apache-2.0
"""A run explained: what would be done for a bundle, and every problem it would meet. Nothing is changed.

The plan is made by the same code as the real one. Only what a real run learns by doing is missing: whether the kernel
lets us clone and attach, and what the runtime has mounted in a namespace that nobody but root may enter. There
config.json's own mounts are taken as made.
"""

from __future__ import annotations

import json
import os

from . import plan
from .attached import is_in
from .bundle import Bundle, read_state
from .errors import DataError, HookError, RecordError, UnavailableError, UsageError
from .log import one_line
from .planner import Planner, describe
from .proc import Namespace, Proc, boot_id
from .rootfs import Rootfs
from .run import Options, is_continued, is_here, is_teardown, parse_record, state_folder, why_untouched
from .stage import Place
from .statefile import StateFolder, is_live
from .trees import expand, open_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .request import Request
    from .spec import State
    from .statefile import MountRecord


class Report:
    """What a dry-run found, member for member as schemas/plan.json has it."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.stage: str | None = None
        self.bundle: str | None = None
        self.rootfs: str | None = None
        self.namespace: str | None = None
        self.mounts: list[dict[str, object]] = []
        self.remove: list[str] | None = None
        self.warnings: list[str] = []
        self._is_sure = True
        self.problems: list[dict[str, object]] = []

    @property
    def is_verdict(self) -> bool:
        """Whether it is known that the real run would fail."""
        return bool(self.problems) and self._is_sure

    @property
    def exit_code(self) -> int:
        """The code with which the real run would end: that of the first problem it would meet."""
        return int(str(self.problems[0]["exit"])) if self.problems else 0

    def add(self, problem: HookError) -> None:
        """Takes note of a problem; a document that breaks its schema has one for each place.

        What this user may not look at is no verdict on the real run, which has other rights.
        """
        if isinstance(problem.__cause__, PermissionError) and os.geteuid() != 0:
            self._is_sure = False
            text = f"this user may not look: {problem.problem}"
            problem = UnavailableError(text, where=problem.where, hint="ask again as root")
        if isinstance(problem, DataError):
            for pointer, message in problem.violations:
                where = f"{problem.document}: {pointer}" if pointer else problem.document
                self.problems.append({"where": where, "message": message, "exit": problem.exit_code})
        else:
            message = f"{problem.problem} ({problem.hint})" if problem.hint else problem.problem
            self.problems.append({"where": problem.where, "message": message, "exit": problem.exit_code})

    def document(self) -> dict[str, object]:
        members = ("id", "stage", "bundle", "rootfs", "namespace", "mounts", "problems")
        found: dict[str, object] = {name: getattr(self, name) for name in members}
        if self.remove is not None:
            found["remove"] = self.remove
        if self.warnings:
            found["warnings"] = self.warnings
        return found


def dry_run(options: Options, read: Callable[[], bytes]) -> Report:
    """The report on the bundle of ``options``, or on that of the state that ``read`` gives."""
    report = Report()
    try:
        _fill(report, options, read)
    except HookError as problem:
        report.add(problem)
    return report


def _fill(report: Report, options: Options, read: Callable[[], bytes]) -> None:
    proc = Proc()
    report.stage = options.stage
    document = place = None
    if options.bundle is not None:
        if options.stage == "poststop":
            raise UsageError("poststop needs a state on stdin: a bundle alone does not tell the container's id")
        report.bundle = options.bundle
        report.stage = options.stage or "createRuntime"
    else:
        state, document = read_state(read())
        report.id, report.bundle = state.id, state.bundle
        if is_teardown(options.stage, state):
            report.stage = "poststop"
            _fill_from_record(report, options, state, proc)
            return
        place = Place(options.stage, state, proc)
    bundle = Bundle(report.bundle, document, whole=True)
    report.rootfs = bundle.rootfs
    if bundle.violations and options.strict:
        report.add(DataError("config.json", bundle.violations))
    else:
        report.warnings += [f"config.json: {at}: {text} (not used by the hook)" for at, text in bundle.violations]
    if place is None:
        is_elsewhere = bundle.has_namespace and report.stage != "prestart"
        report.namespace = "container" if is_elsewhere else "runtime"
    else:
        is_elsewhere = _place(report, place, bundle)
    namespace = Namespace(proc, report.namespace or "runtime", assumed=is_elsewhere)
    requests = _requests(report, bundle, options)
    if bundle.config.root_readonly and report.namespace == "runtime":
        requests.insert(0, plan.read_only_root(bundle.rootfs))
    sources = open_sources(requests, bundle.path, namespace)
    rootfs = Rootfs(bundle.rootfs, own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs))
    recorded = _recorded(options, report, place, proc)
    planned = Planner(rootfs, namespace, recorded, allow_shared=options.allow_shared).resolve(requests, sources)
    report.mounts = describe(planned)
    for problem in planned.problems:
        report.add(problem)


def _place(report: Report, place: Place, bundle: Bundle) -> bool:
    """Fills in stage and namespace. Whether that is one that we would have to enter, and so cannot look into."""
    # createContainer will be called elsewhere, and that we are not there now is no fault of the bundle.
    is_elsewhere = bundle.has_namespace
    try:
        if place.stage != "createContainer":
            place.choose(bundle)
            is_elsewhere = place.is_elsewhere()
    except UnavailableError as problem:
        # What would be mounted is worth knowing all the same.
        report.add(problem)
    report.stage = place.stage
    report.namespace = place.kind(bundle, is_another=is_elsewhere)
    return is_elsewhere


def _requests(report: Report, bundle: Bundle, options: Options) -> list[Request]:
    """All requests that can be understood; the others are problems."""
    requests = plan.requests(bundle.config, options.mounts, options.annotation_sources, report.add)
    expanded = []
    for request in requests:
        try:
            expanded += expand([request], bundle.path)
        except HookError as problem:
            report.add(problem)
    return expanded


def _recorded(options: Options, report: Report, place: Place | None, proc: Proc) -> list[MountRecord]:
    """What an earlier call for the same container has mounted, as far as we may look."""
    if place is None or report.id is None or report.bundle is None:
        return []
    try:
        folder = StateFolder.open(state_folder(options, proc), parse_record, create=False)
        record = folder.load(report.id) if folder else None
    except RecordError:
        if os.geteuid() == 0:
            raise
        return []
    if record is None or not is_continued(record, report.bundle, proc):
        return []
    init = record["init"]
    table = proc.mounts() if init is None or not place.is_elsewhere() else proc.mounts_of(init["pid"])
    return [mount for mount in record["mounts"] if is_in(mount["attached"][0], table)]


def _fill_from_record(report: Report, options: Options, state: State, proc: Proc) -> None:
    report.remove = []
    folder = StateFolder.open(state_folder(options, proc), parse_record, create=False)
    record = folder.load(state.id) if folder else None
    if record is None:
        report.warnings.append(f"nothing is recorded in {state_folder(options, proc)}")
        return
    report.rootfs = record["rootfs"]["path"]
    report.namespace = record["namespace"]["kind"]
    if reason := why_untouched(record, state, proc, 0):
        report.warnings.append(reason)
        return
    here = is_here(record, proc, boot_id())
    report.mounts = [_undone(mount, here=here) for mount in reversed(record["mounts"])]
    others, remarks = folder.on_rootfs(record["rootfs"], record["id"]) if folder else ([], [])
    report.warnings += remarks
    for path in [] if options.keep_mountpoints else [made["path"] for made in reversed(record["made"])]:
        users = [other["id"] for other in others if path in other["uses"] and is_live(other, proc, boot_id())]
        if users:
            report.warnings.append(f"{path} is handed over to the container {users[0]}, which uses it")
        else:
            report.remove.append(path)


def _undone(mount: MountRecord, *, here: bool) -> dict[str, object]:
    requested = mount["requested"]
    options = requested["options"]
    assert isinstance(options, list)
    return {
        "origin": mount["origin"],
        "source": requested["source"],
        "destination": requested["destination"],
        "resolved": mount["resolved"],
        "links": [],
        "create": [],
        "attributes": [],
        "propagation": options[-1],
        "action": "unmount" if here else "gone",
        "warnings": [],
    }


def as_json(report: Report) -> str:
    """The report as one JSON document, schemas/plan.json."""
    return json.dumps(_plain(report.document()), indent=2) + "\n"


def _plain(value: object) -> object:
    """The same without what only a file name can hold: a byte that is not UTF-8 is written as an escape."""
    if isinstance(value, str):
        return value.encode(errors="backslashreplace").decode()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return value


def as_text(report: Report) -> str:
    """The report for a person, problems first."""
    lines = []
    for problem in report.problems:
        where = f"{problem['where']}: " if problem["where"] else ""
        lines.append(f"problem: {where}{problem['message']}")
    if report.is_verdict:
        lines.append(f"the real run would exit with {report.exit_code} and change nothing")
    title = [f"container {report.id}" if report.id else "container"]
    title += [f"stage {report.stage}"] if report.stage else []
    title += [f"{report.namespace} namespace"] if report.namespace else []
    lines.append(", ".join(title))
    if report.rootfs:
        lines.append(f"rootfs {report.rootfs}")
    for mount in report.mounts:
        lines += _mount_lines(mount)
    if not report.mounts and not report.remove and not report.problems:
        lines.append("no bind is asked for" if report.remove is None else "nothing to undo")
    for path in report.remove or ():
        lines.append(f"remove {path}")
    lines += [f"warning: {warning}" for warning in report.warnings]
    return "".join(one_line(line) + "\n" for line in lines)


def _mount_lines(mount: dict[str, object]) -> list[str]:
    verbs = {"mount": "bind", "present": "present", "unmount": "unmount", "gone": "gone", "skipped": "skip"}
    lines = [f"{verbs[str(mount['action'])]} {mount['source']} on {mount['resolved'] or mount['destination']}"]
    lines.append(f"  asked for by {mount['origin']}, destination {mount['destination']}")
    for link in _list(mount["links"]):
        lines.append(f"  link {link['at']} -> {link['to']}")
    for made in _list(mount["create"]):
        lines.append(f"  make {made['kind']} {made['path']}")
    if mount["action"] == "mount":
        words = [str(word) for word in _list(mount["attributes"])]
        lines.append(f"  {' '.join([*words, str(mount['propagation'])])}")
    lines += [f"  warning: {warning}" for warning in _list(mount["warnings"])]
    return lines


def _list(value: object) -> list[dict[str, object]]:
    assert isinstance(value, list)
    return value
