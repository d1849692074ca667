# SPDX-License-Identifier: Apache-2.0
"""Writes what follows from the tables of commands, options, fields and exit codes: .venv/bin/python hook/generate.py

In the man page each piece stands between a line with "generated: " and its name and a line with "end". What stands
around is written by hand. A test fails where it is not as this would write it.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from oci_bind_hook.commands import reference
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.help import typed, usages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oci_bind_hook.commands.reference import Option

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = re.compile(r"(^[^\n]*generated: ([a-z ]*[a-z])[^\n]*\n)(.*?)(^[^\n]* end\b)", re.DOTALL | re.MULTILINE)


def files() -> dict[str, str]:
    """Each file with what is generated in it, as it should be."""
    return {os.path.join(HERE, name): _filled(os.path.join(HERE, name)) for name in FILES}


def _filled(path: str) -> str:
    pieces = FILES[os.path.relpath(path, HERE)]
    with open(path, encoding="utf-8") as file:
        return PIECE.sub(lambda match: match[1] + pieces[match[2]] + match[4], file.read())


# -- the man page ------------------------------------------------------------------------------------------------------


def _table(head: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {head} | meaning |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)]
    return "\n" + "\n".join(lines) + "\n\n"


def _options(options: Iterable[Option]) -> str:
    return _table("option", ((f"`{each.form}`".replace("|", r"\|"), each.text + each.more) for each in options))


def _examples() -> str:
    """The examples of all commands, each with its text."""
    found = []
    for command in COMMANDS:
        for example in command.examples:
            found += [f"{example.text}:", "\n".join(typed(example, " " * 4))]
    return "\n" + "\n\n".join(found) + "\n\n"


MAN = {
    "examples": _examples(),
    "usage": "\n" + "".join(f"    {usage}\n" for usage in usages(COMMANDS)) + "\n",
    "options of the hook": _options(reference.HOOK),
    "options of install": _options(reference.INSTALL),
    "fields": _table(
        "field", ((" ".join(f"`{name}`" for name in row.split()), text) for row, text in reference.FIELD_TEXTS)
    ),
    "exit codes": _table("exit code", ((str(code), text) for code, _, text in reference.EXIT_CODES)),
}

FILES = {"man/oci-bind-hook.8.md": MAN}

if __name__ == "__main__":
    for path, text in files().items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
