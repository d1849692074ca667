# SPDX-License-Identifier: Apache-2.0
"""Validates documents by the bundled schemas, without a container: a config.json, a state, or another document."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from ..documents import oci
from ..documents.acceptor import ADDRESS, SCHEMAS
from ..documents.bundle import read_regular
from ..documents.strictjson import documents
from ..errors import DataError, HookError
from .positions import Lines, Position, positions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

# The end of a message of json.JSONDecodeError.
_PLACE = re.compile(r": line \d+ column \d+ \(char \d+\)$")

# Names of our schemas by their ``$id``.
_BY_ADDRESS = {ADDRESS + name: name for name in SCHEMAS}

# For these schemas, a folder may be given: it is a bundle with a config.json.
_OF_BUNDLES = (None, "config", "config-used")


class Violation(NamedTuple):
    """What is wrong with a document at one place, given as JSON pointer and as position in the text."""

    pointer: str
    message: str
    position: Position


class Verdict(NamedTuple):
    """The verdict on the document at ``path``, or ``-``: its violations, or the problem that prevented reading it."""

    path: str
    violations: list[Violation]
    problem: HookError | None = None


class Verdicts:
    """A verdict on each document: a file, the config.json of a folder, or for ``-`` what ``stdin`` returns.

    The schema is the named one. With None it depends on the document: that of ``$schema`` if it is one of ours.
    Otherwise a document with ``status`` is a state, and a config may follow it, as in a hook's stdin; any other is a
    config. Iterate once: only one document is in memory at a time.
    """

    def __init__(self, names: Iterable[str], stdin: Callable[[], bytes], schema: str | None = None) -> None:
        self._names = names
        self._stdin = stdin
        self._schema = schema
        # So far: whether a document was invalid, and the first problem that prevented reading one.
        self.has_violations = False
        self.problem: HookError | None = None

    def __iter__(self) -> Iterator[Verdict]:
        for name in self._names:
            verdict = self._verdict(name)
            self.has_violations = self.has_violations or bool(verdict.violations)
            self.problem = self.problem or verdict.problem
            yield verdict

    def _verdict(self, name: str) -> Verdict:
        is_bundle = self._schema in _OF_BUNDLES and os.path.isdir(name)
        path = os.path.join(name, "config.json") if is_bundle else name
        try:
            data = self._stdin() if name == "-" else read_regular(path)
        except DataError as problem:  # the document is too large
            return Verdict(path, [Violation("", problem.problem, Position(1, 1))])
        except HookError as problem:
            return Verdict(path, [], problem)
        try:
            found = documents(data, path, most=2)
        except DataError as problem:
            return Verdict(path, _unread(data, problem))
        return Verdict(path, _placed(data, self._judge(found)))

    def _judge(self, found: list[object]) -> list[list[tuple[str, str]]]:
        """Returns the violations of each document, in the form of DataError."""
        first, *rest = found
        schema = self._schema or _schema_of(first)
        is_state = schema == "state"
        # With an unexpected schema, the messages alone would be a riddle.
        by = f" (by the schema {schema})" if self._schema is None and schema not in ("config", "state") else ""
        violations = [[(at, text + by) for at, text in oci.violations(first, schema)]]
        for each in rest:
            if is_state:
                violations.append(
                    [(at, f"{text} (in the config.json after the state)") for at, text in oci.config_violations(each)]
                )
            else:
                violations.append([("", "is a second document: only a state can be followed by one")])
        return violations


def _schema_of(document: object) -> str:
    """Returns the name of the schema for a document, if none is requested."""
    if not isinstance(document, dict):
        return "config"
    address = document.get("$schema")
    if isinstance(address, str) and address in _BY_ADDRESS:
        return _BY_ADDRESS[address]
    return "state" if "status" in document else "config"


def _placed(data: bytes, violations: list[list[tuple[str, str]]]) -> list[Violation]:
    if not any(violations):
        return []
    found = positions(data.decode(), [[pointer for pointer, _ in each] for each in violations])
    placed = [
        Violation(pointer, message, at[pointer])
        for each, at in zip(violations, found, strict=True)
        for pointer, message in each
    ]
    return sorted(placed, key=lambda each: each.position)


def _unread(data: bytes, problem: DataError) -> list[Violation]:
    """Returns why a text is not strict JSON: the syntax error, or each member that parsers read differently."""
    if problem.index is not None:
        at = Lines(data.decode(errors="replace")).position(problem.index)
        # The decoder's message ends with the place, which the caller prints before it.
        return [Violation(pointer, _PLACE.sub("", message), at) for pointer, message in problem.violations]
    if any(pointer for pointer, _ in problem.violations):
        return _placed(data, [list(problem.violations)])
    at = Position(1, 1)  # empty, too large, or in another encoding
    return [Violation(pointer, message, at) for pointer, message in problem.violations]
