# SPDX-License-Identifier: Apache-2.0
"""Judges documents by the bundled schemas, without a container: a whole config.json, or a state."""

from __future__ import annotations

import os

from ..documents import oci
from ..documents.acceptor import head
from ..documents.bundle import read_regular
from ..documents.strictjson import documents
from ..errors import DataError, HookError
from ..log import one_line, readable
from .json_text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Verdict:
    """The verdict on one document: its ``violations`` as in DataError, or the ``problem`` that kept it unread."""

    def __init__(self, name: str, violations: Iterable[tuple[str, str]] = (), problem: HookError | None = None) -> None:
        self.name = name
        self.violations = list(violations)
        self.problem = problem

    def lines(self) -> Iterator[str]:
        """The verdict as text, one line for each place. Empty for a valid document."""
        if self.problem is not None:
            yield one_line(str(self.problem))
        for pointer, message in self.violations:
            yield one_line(": ".join(filter(None, (self.name, pointer, message))))

    def document(self) -> dict[str, object]:
        """The verdict in the form of schemas/validation.json."""
        found: dict[str, object] = {
            "name": readable(self.name),
            "valid": not self.violations and self.problem is None,
            "violations": [{"pointer": pointer, "message": message} for pointer, message in self.violations],
        }
        if self.problem is not None:
            found["problem"] = one_line(str(self.problem))
        return found


def validate(names: Iterable[str], stdin: Callable[[], bytes]) -> Iterator[Verdict]:
    """A verdict on each document: a file, the config.json of a folder, or for ``-`` what ``stdin`` gives.

    What has a ``status`` is a state, and the config may stand behind it, as hooks get them; all else is a config.
    """
    for name in names:
        path = os.path.join(name, "config.json") if os.path.isdir(name) else name
        try:
            data = stdin() if name == "-" else read_regular(path)
            found = documents(data, path, most=2)
        except DataError as problem:
            yield Verdict(path, problem.violations)
        except HookError as problem:
            yield Verdict(path, problem=problem)
        else:
            yield Verdict(path, _violations(found))


def _violations(documents: list[object]) -> Iterator[tuple[str, str]]:
    first, *rest = documents
    is_state = isinstance(first, dict) and "status" in first
    yield from oci.violations(first, "state") if is_state else oci.config_violations(first)
    for each in rest:
        if is_state:
            for pointer, message in oci.config_violations(each):
                yield pointer, f"{message} (in the config behind the state)"
        else:
            yield "", "has a second document behind it, which only a state may have"


def as_text(verdicts: Iterable[Verdict]) -> str:
    """All violations as text. Empty if there are none."""
    return "".join(f"{line}\n" for verdict in verdicts for line in verdict.lines())


def as_json(verdicts: Iterable[Verdict]) -> str:
    """All verdicts as one JSON document, schemas/validation.json."""
    return json_text({**head("validation"), "documents": [verdict.document() for verdict in verdicts]})
