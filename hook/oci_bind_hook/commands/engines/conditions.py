# SPDX-License-Identifier: Apache-2.0
"""A hooks.d file as install writes it, version 1.0.0 of oci-hooks(5), with conditions for containers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...errors import UsageError
from ..json_text import written
from . import re2
from .launcher import hook_entry

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .hooks_d import File


class When:
    """The containers that the hook is for: all, or those that match all of these conditions.

    ``annotations`` are literal ``KEY=VALUE``, ``commands`` are Go regular expressions for process.args[0].
    Raises UsageError for invalid conditions.
    """

    def __init__(
        self,
        *,
        always: bool = False,
        annotations: Sequence[str] = (),
        commands: Sequence[str] = (),
        has_bind_mounts: bool = False,
    ) -> None:
        self.document: dict[str, object] = {}
        self.warnings: list[str] = []
        if annotations:
            asked = annotations_of(annotations)
            self.document["annotations"] = {_exactly(key): _exactly(value) for key, value in asked.items()}
        if commands:
            self.document["commands"] = [self._command(text) for text in commands]
        if has_bind_mounts:
            self.document["hasBindMounts"] = True
        if always and self.document:
            raise UsageError("cannot be combined with other conditions: it selects all containers", where="--always")
        if not self.document:
            self.document["always"] = True

    def _command(self, text: str) -> str:
        try:
            if not re2.compile(text).can_match():
                self.warnings.append(f'--command "{text}" matches no command at all')
        except re2.InvalidError as reason:
            raise UsageError(f'"{text}" is not a regular expression of Go: {reason}', where="--command") from None
        except re2.UnknownError:
            pass  # Go may accept it
        return text


def annotations_of(words: Sequence[str]) -> dict[str, str]:
    """Returns the annotations of ``--annotation KEY=VALUE``. Raises UsageError."""
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f'"{word}" is not KEY=VALUE', where="--annotation")
        if key in found:
            raise UsageError(f"{key} is set twice, but an annotation has one value", where="--annotation")
        found[key] = value
    return found


def _exactly(text: str) -> str:
    return f"^{quoted(text)}$"


def quoted(text: str) -> str:
    """Returns a Go regular expression that matches exactly this text."""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def _literal(pattern: str) -> str:
    """Returns the text that ``_exactly`` made the expression from, or the expression itself if it did not."""
    text = re.sub(r"\\(.)", r"\1", pattern[1:-1], flags=re.DOTALL)
    return text if _exactly(text) == pattern else pattern


def text(launcher: str, stages: Sequence[str], arguments: Sequence[str], when: When) -> str:
    """Returns the content of the hooks.d file. Raises UsageError for text that JSON cannot contain."""
    return written(
        {
            "version": "1.0.0",
            "hook": hook_entry(launcher, arguments),
            "when": when.document,
            "stages": list(dict.fromkeys(stages)),
        }
    )


def as_options(file: File) -> Iterator[list[str]]:
    """Yields the conditions of a hooks.d file, each as an option of install with its value."""
    for key, value in file.annotations:
        yield ["--annotation", f"{_literal(key.text)}={_literal(value.text)}"]
    for pattern in file.commands:
        yield ["--command", pattern.text]
    if file.has_bind_mounts:
        yield ["--has-bind-mounts"]
    if file.always:
        yield ["--always"]
