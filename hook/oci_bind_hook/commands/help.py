# SPDX-License-Identifier: Apache-2.0
"""Builds the text of --help from the tables. It has no text of its own about an option or a command."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from ..options import STAGES
from .reference import EXIT_CODES, HOOK, INSTALL, fields

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .command_line import Command

WIDTH = 80
COLUMN = 24

ABOUT = (
    "An OCI runtime hook: makes the bind mounts of config.json and of --mount in the container's rootfs, and takes "
    "them down again at poststop."
)


def usages(commands: Iterable[Command]) -> list[str]:
    """The usage lines of the hook and of each command."""
    return [
        "oci-bind-hook [STAGE] [OPTION]... < state.json",
        "oci-bind-hook [STAGE] --dry-run [--bundle DIR|FILE] [OPTION]...",
        *(f"oci-bind-hook {command.name} {command.usage}" for command in commands),
    ]


def summary(commands: Iterable[Command]) -> str:
    """The whole text, in lines that fit a terminal."""
    commands = list(commands)
    first, *others = usages(commands)
    stages = f"{', '.join(STAGES[:-1])} or {STAGES[-1]}"
    codes = ", ".join(f"{code} {text}" for code, text, _ in EXIT_CODES)
    parts = (
        [f"usage: {first}", *(f"       {usage}" for usage in others)],
        _folded(ABOUT),
        _folded(f"STAGE is {stages}. Left out, it follows from the state."),
        _table((option.form, option.text) for option in HOOK),
        _folded(f"FIELD of --mount is {fields()}, or an option of mount(8) such as nosuid, rro or rslave."),
        ["Commands:", *_table((command.name, command.text) for command in commands)],
        ["WHERE AND WHEN, of install and uninstall:", *_table((option.form, option.text) for option in INSTALL)],
        _folded(f"Exit codes: {codes}."),
    )
    return "\n\n".join("\n".join(lines) for lines in parts) + "\n"


def _folded(text: str, before: str = "") -> list[str]:
    """A text in lines behind ``before``, with the further lines indented to its column."""
    text, indent = text.replace("`", ""), " " * min(len(before), COLUMN)
    return textwrap.wrap(text, WIDTH, initial_indent=before, subsequent_indent=indent, break_on_hyphens=False)


def _table(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in rows:
        yield from _folded(text, f"  {name}  ".ljust(COLUMN))
