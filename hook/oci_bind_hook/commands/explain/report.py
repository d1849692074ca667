# SPDX-License-Identifier: Apache-2.0
"""The result of a dry-run, as JSON for programs and as text for people.

The text has problems first and one label per line. It is folded and coloured only on a terminal. Whatever the author of
an image wrote is escaped before colours are added.
"""

from __future__ import annotations

import os

from ...documents.acceptor import head
from ...errors import REFUSED, STEPS, DataError, HookError, UnavailableError
from ...log import one_line
from ...mounting.plan import HIDDEN
from ...record.state_file import source_of
from ..json_text import json_text
from ..upkeep.replaced import WORDS
from .drawing import painted
from .refusals import BOTH
from .verdict import MADE, TURNED_OFF, sentence, verdict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...errors import Step
    from ...record.state_file import NamespaceKind

    Packed = list[tuple[bool, dict[str, Any]]]

_LABEL = 11  # the width of the longest label and a space
# The styles of labels that are not dim.
_STYLES = {
    **dict.fromkeys(("problem", "refused"), "bad"),
    "hint": "hint",
    "warning": "warning",
    **dict.fromkeys(("bind", "unmount", "remove"), "bind"),
    **dict.fromkeys(("present", "left", "skip", "gone"), "strong"),
}
_VERBS = {
    "mount": "bind",
    "present": "present",
    "left": "left",
    "unmount": "unmount",
    "gone": "gone",
    "skipped": "skip",
}
_NAMESPACES = {"container": "the container's own", "runtime": "the runtime's"}


class Report:
    """The result of a dry-run, with the members of schemas/plan.json."""

    def __init__(self) -> None:
        self.id: str | None = None
        self.stage: str | None = None
        self.command = "explain"  # the command that a hint tells to run in another namespace
        self.bundle: str | None = None
        self.rootfs: str | None = None
        self.namespace: NamespaceKind | None = None
        self.registered: list[str] | None = None
        self.registrations: list[str | None] | None = None  # the file that each of ``registered`` comes from
        self.options: str | None = None
        # Whether the launchers of all calls are turned off, so that a real run does nothing and cannot fail.
        self.is_turned_off = False
        self.running: dict[str, object] | None = None
        self.mounts: list[dict[str, Any]] = []
        self.own: list[dict[str, object]] = []
        self.selinux: dict[str, Any] | None = None
        self.remove: list[str] | None = None
        self.warnings: list[str] = []
        self.notes: list[str] = []
        self.is_sure = True
        # Whether times are for people. JSON has those for programs.
        self.is_for_people = True
        # From foresee.Run.own_rights. What this user may not inspect there, the run may not either.
        self.own_rights: list[tuple[int, int]] | None = None
        # Problems of the registration. A real run does not detect them, and may end differently.
        self.unsafe: list[HookError] = []
        # What cannot be known now. A real run does not have these problems.
        self.unknown: list[HookError] = []
        self.runtime: list[dict[str, Any]] = []
        # The index of the hook call that is being checked. Several entries of this hook make several calls.
        self.turn = 0
        self._turns: list[tuple[int, HookError]] = []

    @property
    def certain(self) -> list[HookError]:
        """The problems of a real run, in its order."""
        return [problem for _, problem in self._turns]

    @property
    def is_verdict(self) -> bool:
        """Whether the real run would certainly fail."""
        return bool(self.certain) and self.is_sure

    @property
    def exit_code(self) -> int:
        """The exit code of the first problem of a real run, which ends with it, or else of the first other problem.

        Without any: REFUSED if all runtimes would refuse the bundle, otherwise 0. Which one will run it is not known.
        """
        known = (problem.exit_code for problem in (*self.certain, *self._others))
        refusing = {runtime for refused in self.runtime for runtime in refused["by"]}
        return next(known, REFUSED if refusing.issuperset(BOTH) else 0)

    @property
    def _others(self) -> list[HookError]:
        return [*self.unsafe, *self.unknown]

    @property
    def problems(self) -> list[dict[str, object]]:
        """All problems in the order of a real run, followed by those that a real run does not detect."""
        return [facts for problem in (*self.certain, *self._others) for facts in _facts(problem)]

    def add(self, problem: HookError, step: Step | None = None) -> None:
        """Adds a problem, which a real run has at the problem's own step, or else at ``step``.

        If this user may not inspect something, the report is no longer a verdict: the real run has other rights. If no
        real run has it, because the launcher is turned off, it is only a warning.
        """
        if self.is_turned_off:
            self.warnings += map(sentence, _facts(problem))
            return
        step = problem.step or step
        if isinstance(problem.__cause__, PermissionError) and os.geteuid() != 0 and self._may_know(problem.__cause__):
            self.is_sure = False
            text = f"this user has no access: {problem.problem}"
            problem = UnavailableError(text, where=problem.where, hint="run this as root")
        problem.step = step
        self._turns.append((self.turn, problem))
        # The sort is stable: problems of one step stay in the order in which they were found.
        self._turns.sort(key=lambda known: (known[0], STEPS.index(known[1].step) if known[1].step else 0))

    def refuse(self, refused: list[dict[str, Any]]) -> None:
        """Sets what the runtime will refuse. This replaces the warning that a hook cannot be executed.

        A refused mount is never mounted, so nothing hides it.
        """
        self.runtime = refused
        places = [each["where"].replace("config.json: ", "config.json#") for each in refused]
        for mount in self.mounts:
            if any(place.startswith(f"{mount['origin']}/") for place in places):
                mount["warnings"] = [warning for warning in mount["warnings"] if not warning.startswith(HIDDEN)]
        hooks = tuple(f"{each['where']}: " for each in refused if "/hooks/" in each["where"])
        self.warnings = [warning for warning in self.warnings if not warning.startswith(hooks)]

    def _may_know(self, reason: PermissionError) -> bool:
        """Whether the real run may inspect what this user may not."""
        if self.own_rights is None:
            return True
        path = reason.filename
        owner = _denying_owner(path) if isinstance(path, str) and path.startswith("/") else None
        return owner is not None and any(first <= owner < first + number for first, number in self.own_rights)

    def as_values(self) -> dict[str, Any]:
        """Returns the report as values that can be sent to another process, kernel.asking."""
        turns = [turn for turn, _ in self._turns]
        others = {"unsafe": packed(self.unsafe), "unknown": packed(self.unknown)}
        return {**vars(self), **others, "_turns": (turns, packed(self.certain))}

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Report:
        """Returns the report with these values, as ``as_values`` returns them."""
        report = cls()
        turns, problems = values["_turns"]
        restored = list(zip(turns, unpacked(problems), strict=True))
        others = {name: unpacked(values[name]) for name in ("unsafe", "unknown")}
        vars(report).update(values, **others, _turns=restored)
        return report

    def document(self) -> dict[str, object]:
        names = (
            *("id", "stage", "bundle", "rootfs", "namespace", "registered", "registrations", "options", "running"),
            *("mounts", "own", "selinux", "problems", "runtime", "warnings", "notes"),
        )
        found = head("plan") | {name: getattr(self, name) for name in names}
        if self.remove is not None:
            found["remove"] = self.remove
        return {
            **found,
            "verdict": verdict(
                found,
                is_failure=self.is_verdict,
                is_sure=self.is_sure,
                is_known=not self.unknown,
                is_turned_off=self.is_turned_off,
            ),
        }


def _denying_owner(path: str) -> int:
    """Returns the owner of the last folder on ``path`` that this user can see, which denies access beyond it."""
    while not os.path.lexists(path):
        path = os.path.dirname(path)
    return os.lstat(path).st_uid


def packed(problems: list[HookError]) -> Packed:
    """Returns errors as values that can be sent to another process, kernel.asking."""
    return [(isinstance(each, DataError), {**vars(each), "exit_code": each.exit_code}) for each in problems]


def unpacked(packed_problems: Packed) -> list[HookError]:
    """Returns the errors with these values, as ``packed`` returns them."""
    problems: list[HookError] = []
    for is_data, values in packed_problems:
        problem = DataError.__new__(DataError) if is_data else HookError("")
        vars(problem).update(values)
        problems.append(problem)
    return problems


def _facts(problem: HookError) -> Iterator[dict[str, object]]:
    """Yields a problem in the form of schemas/plan.json. A document that violates its schema has one for each place."""
    code = problem.exit_code
    if isinstance(problem, DataError):
        for pointer, message in problem.violations:
            where = f"{problem.document}: {pointer}" if pointer else problem.document
            yield {"where": where, "message": message, "hint": "", "exit": code}
    else:
        yield {"where": problem.where, "message": problem.problem, "hint": problem.hint, "exit": code}


def as_json(report: Report) -> str:
    """Returns the report as one JSON document, schemas/plan.json."""
    return json_text(report.document())


def as_text(report: Report, *, width: int = 0, colour: bool = False) -> str:
    """Returns the report as text, problems first, folded to ``width`` columns of a terminal, or not with 0."""
    lines: list[str] = []
    for is_part, label, text in _rows(report):
        if label:
            lines += _folded("  " if is_part else "", label, one_line(text), width, colour=colour)
        else:
            lines.append("")
    return "".join(f"{line}\n" for line in lines)


def _folded(indent: str, label: str, text: str, width: int, *, colour: bool) -> list[str]:
    """Returns one row, a label and its text, folded between words. Words stay whole because people copy them."""
    head = f"{indent}{label:<{_LABEL - len(indent)}}"
    if colour:
        head = f"{indent}{painted(label, _STYLES.get(label, 'dim'))}{head[len(indent) + len(label) :]}"
    room = width - _LABEL
    rows, row = [], ""
    for word in text.split(" "):
        if width and row and len(row) + 1 + len(word) > room:
            rows.append(row)
            row = word
        else:
            row = f"{row} {word}" if row else word
    return [f"{head if number == 0 else ' ' * _LABEL}{row}" for number, row in enumerate([*rows, row])]


_Row = tuple[bool, str, str]
_SPACE: _Row = (False, "", "")


def _rows(report: Report) -> Iterator[_Row]:
    """Yields all rows: whether it belongs to the row above, its label, its text."""
    problems = report.problems
    for problem in problems:
        yield False, "problem", sentence(problem)
        if problem["hint"]:
            yield True, "hint", str(problem["hint"])
    if report.is_verdict:
        # A tear-down still undoes what it can.
        undoes = report.remove is not None and any(each["now"] for each in report.mounts)
        effect = "undo only the rest" if undoes else "change nothing"
        yield False, "so", f"the real run would exit with {report.exit_code} and {effect}"
    for refused in report.runtime:
        yield False, "refused", f"by {' and '.join(reversed(refused['by']))}: {sentence(refused)}"
        if refused["hint"]:
            yield True, "hint", str(refused["hint"])
    if report.exit_code == REFUSED:
        yield False, "so", f"neither runc nor crun would start it: the exit code is {REFUSED}"
    elif report.is_turned_off:
        yield False, "so", TURNED_OFF
    for warning in report.warnings:
        yield False, "warning", warning
    if problems or report.runtime or report.warnings:
        yield _SPACE
    yield from _of_the_container(report)
    for note in report.notes:
        yield False, "note", note
    for mount in report.mounts:
        yield _SPACE
        yield from _of_a_mount(mount)
    if not report.mounts and not report.remove and not problems and not report.is_turned_off:
        yield False, "binds", "none requested" if report.remove is None else "nothing to undo"
    if report.remove:
        yield _SPACE
    for path in report.remove or ():
        yield False, "remove", path


def _of_the_container(report: Report) -> Iterator[_Row]:
    facts = {
        "container": report.id,
        "bundle": report.bundle,
        "rootfs": report.rootfs,
        "stage": report.stage,
        "namespace": _NAMESPACES.get(report.namespace or ""),
    }
    yield from ((False, label, text) for label, text in facts.items() if text)
    if report.registered is not None:
        pairs = zip(report.registered, report.registrations or (), strict=True)
        where = ", ".join(f"{place} (from {file})" if file else place for place, file in pairs)
        yield False, "registered", where or "not in config.json"
    if report.options is not None:
        yield False, "options", f"from {report.options}"
    if (labels := _labels(report.selinux)) is not None:
        yield False, "SELinux", labels
    if report.running is not None:
        pid, seen = report.running["pid"], report.running["visible"]
        process = f"process {pid}" if pid else "process not known"
        yield False, "running", f"{report.running['id']}, {process}{'' if seen else ', whose mounts are not visible'}"


def _labels(selinux: dict[str, Any] | None) -> str | None:
    """Returns the labels in config.json, and the SELinux mode of this machine. None without labels."""
    if selinux is None or not (selinux["process"] or selinux["mount"]):
        return None
    named = [f"processes {selinux['process']}"] if selinux["process"] else []
    named += [f"file systems {selinux['mount']}"] if selinux["mount"] else []
    return f"{', '.join(named)}; here it is {selinux['mode'] or 'not on'}"


def _of_a_mount(mount: dict[str, Any]) -> Iterator[_Row]:
    action = mount["action"]
    source = source_of(mount)
    yield False, _VERBS[action], f"{source} on {mount['resolved'] or mount['destination']}"
    yield True, "asked", f"{mount['origin']}, destination {mount['destination']}"
    if "subpath" in mount:
        yield True, "subpath", f"{mount['subpath']}, beneath {mount['source']}"
    if "when_exists" in mount:
        yield True, "only if", f"{mount['when_exists']} exists in the container"
    if action in ("mount", "present", "left"):
        earlier = ", in an earlier call" if action == "present" and mount["by"] == "hook" else ""
        yield True, "by", "left to the runtime" if action == "left" else f"the {mount['by']}{earlier}"
        yield from ((True, "through", f"{link['at']} -> {link['to']}") for link in mount["source_links"])
        yield from _of_a_source(source, mount["found"])
    yield from ((True, "link", f"{link['at']} -> {link['to']}") for link in mount["links"])
    yield from ((True, "create", f"{MADE[made['kind']]} {made['path']}") for made in mount["create"])
    if action == "mount":
        yield True, "options", " ".join(mount["asked"])
        if mount["kept"]:
            yield True, "kept", f"{' '.join(mount['kept'])}, as the source has it"
    if mount["idmap"]:
        yield True, "ids", _ids(mount["idmap"])
    if mount["now"] is not None and action != "gone":
        there = "mounted" if mount["now"] else "not mounted"
        yield True, "now", ", ".join(filter(None, (there, WORDS.get(mount["source_now"]))))
    warnings = [*mount["warnings"]]
    reason = [warnings.pop()] if action == "skipped" else []
    yield from ((True, "note", text) for text in reason)
    yield from ((True, "warning", warning) for warning in warnings)


def _of_a_source(path: str, found: dict[str, Any] | None) -> Iterator[_Row]:
    if found is None:
        yield True, "source", "not found here"
        return
    where = f"{found['filesystem']} of {found['from']}" if found["filesystem"] else "a mount that is not visible"
    kind = f"{found['kind']} {found['number']}" if found["number"] else found["kind"]
    facts = f"{kind}, {where} ({found['device']}), owner {found['owner']}, mode {found['mode']}"
    yield True, "source", facts
    if found["label"]:
        yield True, "label", found["label"]
    if found["known"]:
        yield True, "known as", found["known"]
    if found["path"] != path:
        yield True, "really", found["path"]
    if found["submounts"]:
        yield True, "below it", f"mounts: {' '.join(found['submounts'])}"


def _ids(idmap: dict[str, Any]) -> str:
    if idmap["namespace"]:
        return f"those of the user namespace {idmap['namespace']}"
    return f"uids {' '.join(idmap['uids'])}; gids {' '.join(idmap['gids'])} (in the source, on the host, how many)"
