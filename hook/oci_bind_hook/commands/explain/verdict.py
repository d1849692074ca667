# SPDX-License-Identifier: Apache-2.0
"""The verdict of a dry-run in one sentence: what would be done, or the problem that it would fail with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import REFUSED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from typing import Any

ANY = "the runtime"
TURNED_OFF = "nothing would be bound: the launcher is turned off"
MADE = {"directory": "folder", "file": "file"}


def verdict(
    document: Mapping[str, Any], *, is_failure: bool, is_sure: bool, is_known: bool = True, is_turned_off: bool = False
) -> str:
    """Returns the sentence for a report with these members, schemas/plan.json.

    ``is_failure``: the real run would certainly fail, with the first problem. Not ``is_sure``: this user may not see
    everything. Other problems are those of the registration. ``is_turned_off``: the hook does nothing.
    """
    problem = next(iter(document["problems"]), None)
    refusals = document.get("runtime") or ()
    # If there is a failure, what is merely unknown does not count as a further problem.
    others = len(document["problems"]) + len(refusals) - 1 - (is_failure and not is_known)
    more = f" (and {others} more)" if others > 0 else ""
    if is_failure and problem is not None:
        return f"would fail: {problem['exit']}, {sentence(problem)}{more}"
    if problem is not None and not (is_sure and is_known):
        return f"not known: {sentence(problem)}{more}"
    done = _of_undoing(document) if "remove" in document else TURNED_OFF if is_turned_off else _of_binds(document)
    if refusals:
        refusing = who({runtime for each in refusals for runtime in each["by"]})
        code = f"{REFUSED}, " if refusing == ANY and problem is None else ""
        refused = f"{refusing} would refuse it: {code}{sentence(refusals[0])}{more}"
        return refused if refusing == ANY else f"{done}; {refused}"
    if problem is not None:
        return f"not safe: {problem['exit']}, {problem['where']}; otherwise {done}"
    return done


def who(runtimes: Collection[str]) -> str:
    """Returns a name for these runtimes: that of the only one, or ANY for both."""
    return next(iter(runtimes)) if len(runtimes) == 1 else ANY


def sentence(problem: Mapping[str, Any]) -> str:
    """Returns a problem with its place."""
    return f"{problem['where']}: {problem['message']}" if problem["where"] else str(problem["message"])


def count(number: int, noun: str) -> str:
    """Returns a number with its noun in the singular or plural."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _of_undoing(document: Mapping[str, Any]) -> str:
    binds = sum(mount["action"] == "unmount" for mount in document["mounts"])
    parts = [f"undo {count(binds, 'bind')}"] if binds else []
    parts += [f"remove {count(len(document['remove']), 'mount point')}"] if document["remove"] else []
    return f"would {' and '.join(parts)}" if parts else "nothing to undo"


def _of_binds(document: Mapping[str, Any]) -> str:
    own = [mount for mount in document["mounts"] if mount["by"] != "runtime"]
    parts = ", ".join(_parts(own)) or "no bind is requested"
    if document["running"] is not None and (known := [mount["now"] for mount in own if mount["now"] is not None]):
        parts += f"; the container runs with {sum(known)} of {len(known)} mounted"
    # The warnings of a skipped bind include the reason, which does not count.
    warnings = len(document["warnings"]) + sum(
        len(mount["warnings"]) - (mount["action"] == "skipped") for mount in document["mounts"]
    )
    return f"ready: {parts}" + (f"; {count(warnings, 'warning')}" if warnings else "")


def _parts(own: list[Mapping[str, Any]]) -> Iterator[str]:
    numbers = {action: sum(mount["action"] == action for mount in own) for action in ("mount", "present", "skipped")}
    if own and not numbers["mount"]:
        yield "nothing to mount"
    elif own:
        yield count(numbers["mount"], "bind")
    if numbers["present"]:
        yield f"{numbers['present']} already mounted"
    if numbers["skipped"]:
        yield f"{numbers['skipped']} skipped"
    made = {point["path"]: point["kind"] for mount in own for point in mount["create"]}
    kinds = [*made.values()]
    points = [count(kinds.count(kind), noun) for kind, noun in MADE.items() if kind in kinds]
    if points:
        yield f"{' and '.join(points)} to create"
