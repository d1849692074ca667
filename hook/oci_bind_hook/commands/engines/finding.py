# SPDX-License-Identifier: Apache-2.0
"""The findings of doctor, as JSON for programs and as text for people, which ends with what to do first."""

from __future__ import annotations

from ...documents.acceptor import head
from ...log import one_line
from ..explain.drawing import Span
from ..json_text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..explain.drawing import Pen

_COLUMN = 8
_STYLES = {"ok": "good", "MISSING": "bad", "to do": "warning", "without": "warning"}


class Finding:
    """One requirement. ``without`` is what does not work if it is missing, ``advice`` what to do, "" if not known.

    ``is_general``: it concerns the hook itself, not only the containers of a registration.
    """

    def __init__(
        self,
        name: str,
        detail: str,
        *,
        is_there: bool,
        is_needed: bool = False,
        without: str = "",
        advice: str = "",
        is_general: bool = True,
    ) -> None:
        self.name = name
        self.detail = detail
        self.is_there = is_there
        self.is_needed = is_needed
        self.without = without
        self.advice = advice
        self.is_general = is_general

    @property
    def is_problem(self) -> bool:
        """Whether it is missing and the hook, or a registration, cannot work without it."""
        return self.is_needed and not self.is_there

    @property
    def verdict(self) -> str:
        """The first word of its line. The hook also works "without" what nothing has to be done about."""
        if self.is_there:
            return "ok"
        return "MISSING" if self.is_needed else "to do" if self.advice else "without"

    def text(self) -> str:
        """Returns the text after the verdict."""
        return one_line(": ".join(filter(None, (self.name, self.detail, "" if self.is_there else self.without))))

    def document(self) -> dict[str, object]:
        """Returns the finding in the form of schemas/doctor.json."""
        return {
            "name": self.name,
            "there": self.is_there,
            "needed": self.is_needed,
            "detail": one_line(self.detail),
            "without": self.without,
        }


def as_text(findings: Sequence[Finding], pen: Pen) -> str:
    """Returns one line for each finding, and a conclusion: all is well, or what to do first."""
    lines = []
    for each in findings:
        first, *others = pen.folded(each.text(), max(pen.width - _COLUMN, 1))
        lines.append(pen.line([Span(each.verdict.ljust(_COLUMN), _STYLES[each.verdict]), Span(first)]))
        lines += [pen.line([Span(" " * _COLUMN + other)]) for other in others]
    style, text = conclusion(findings)
    lines += [pen.line([Span(line, style)]) for line in pen.folded(text, pen.width)]
    return "\n".join(lines) + "\n"


def conclusion(findings: Sequence[Finding]) -> tuple[str, str]:
    """Returns the style and the text of the conclusion: all is well, or what to do first."""
    for one in sorted(findings, key=lambda each: not each.is_problem):
        if one.is_problem:
            what = "The hook does not work here" if one.is_general else "Not everything works here"
            return "bad", one_line(f"{what}. First: {one.name}: {one.advice or one.without}")
        if one.advice and not one.is_there:
            return "warning", one_line(f"The hook works here. First: {one.advice}")
    return "good", "All is well."


def as_json(findings: Sequence[Finding]) -> str:
    """Returns all findings as one JSON document, schemas/doctor.json."""
    return json_text({**head("doctor"), "findings": [each.document() for each in findings]})
