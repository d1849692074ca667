# SPDX-License-Identifier: Apache-2.0
"""Verdicts of validate as text, JSON, GitHub Actions annotations and SARIF.

Each function takes verdicts one by one and yields text for each, so memory does not grow with the number of documents.
"""

from __future__ import annotations

from os import fsencode
from typing import TYPE_CHECKING
from urllib.parse import quote

from .. import __version__
from ..documents.acceptor import head
from ..log import one_line
from .json_text import ITEMS, json_pieces

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .validate import Verdict, Violation


def as_text(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yields a line for each violation, as compilers do: FILE:LINE:COLUMN: POINTER: MESSAGE."""
    for verdict in verdicts:
        if verdict.problem is not None:
            yield one_line(str(verdict.problem)) + "\n"
        for each in verdict.violations:
            line, column = each.position
            yield one_line(f"{verdict.path}:{line}:{column}: {_sentence(each)}") + "\n"


def as_json(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yields one JSON document, schemas/validation.json."""
    return json_pieces({**head("validation"), "documents": [ITEMS]}, map(_document, verdicts))


def as_github(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yields workflow commands, which GitHub shows next to the line: ::error file=...,line=...,col=...::MESSAGE."""
    for verdict in verdicts:
        file = [] if verdict.path == "-" else [f"file={_property(verdict.path)}"]
        if verdict.problem is not None:
            yield _error(file, one_line(str(verdict.problem)))
        for each in verdict.violations:
            line, column = each.position
            yield _error([*file, f"line={line}", f"col={column}"], _sentence(each))


def as_sarif(verdicts: Iterable[Verdict]) -> Iterator[str]:
    """Yields one document in the Static Analysis Results Interchange Format, SARIF 2.1.0."""
    rules = [{"id": rule, "shortDescription": {"text": text}} for rule, text in _RULES.items()]
    driver = {"name": "oci-bind-hook", "version": __version__, "rules": rules}
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": [ITEMS]}
    results = (result for verdict in verdicts for result in _results(verdict))
    return json_pieces({"$schema": _SARIF, "version": "2.1.0", "runs": [run]}, results)


FORMATS: dict[str, Callable[[Iterable[Verdict]], Iterator[str]]] = {
    "text": as_text,
    "json": as_json,
    "github": as_github,
    "sarif": as_sarif,
}


def _sentence(violation: Violation) -> str:
    return ": ".join(filter(None, (violation.pointer, violation.message)))


def _document(verdict: Verdict) -> dict[str, object]:
    found: dict[str, object] = {
        "name": verdict.path,
        "valid": not verdict.violations and verdict.problem is None,
        "violations": [
            {"pointer": each.pointer, "message": each.message, **each.position._asdict()} for each in verdict.violations
        ],
    }
    if verdict.problem is not None:
        found["problem"] = one_line(str(verdict.problem))
    return found


# -- GitHub Actions ----------------------------------------------------------------------------------------------------


def _error(properties: list[str], message: str) -> str:
    return f"::error {','.join(properties)}".rstrip() + f"::{_data(message)}\n"


def _data(text: str) -> str:
    """Escapes the text of a workflow command, so that nothing in it ends the command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escapes the value of a property, in which colon and comma are special as well."""
    return _data(text).replace(":", "%3A").replace(",", "%2C")


# -- SARIF -------------------------------------------------------------------------------------------------------------

_SARIF = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RULES = {
    "invalid": "The document is not strict JSON, or violates its schema.",
    "unreadable": "The document cannot be read.",
}


def _results(verdict: Verdict) -> Iterator[dict[str, object]]:
    if verdict.problem is not None:
        yield _result("unreadable", one_line(str(verdict.problem)), _location(verdict.path))
    for each in verdict.violations:
        yield _result("invalid", _sentence(each), _location(verdict.path, each))


def _result(rule: str, text: str, location: dict[str, object]) -> dict[str, object]:
    result: dict[str, object] = {"ruleId": rule, "level": "error", "message": {"text": text}}
    return {**result, "locations": [location]} if location else result


def _location(path: str, violation: Violation | None = None) -> dict[str, object]:
    """Returns a place in a file and in a document. Stdin has no file."""
    found: dict[str, object] = {}
    if path != "-":
        address = quote(fsencode(path))
        place: dict[str, object] = {"artifactLocation": {"uri": f"file://{address}" if path[0] == "/" else address}}
        if violation is not None:
            line, column = violation.position
            place["region"] = {"startLine": line, "startColumn": column}
        found["physicalLocation"] = place
    if violation is not None and violation.pointer:
        found["logicalLocations"] = [{"fullyQualifiedName": violation.pointer}]
    return found
