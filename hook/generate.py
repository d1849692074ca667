# SPDX-License-Identifier: Apache-2.0
"""Writes what follows from the tables of commands, options, fields and exit codes: .venv/bin/python hook/generate.py

In the man page and the completions each piece stands between a line with "generated: " and its name and a line with
"end". What stands around is written by hand. A test fails where a file is not as this would write it.
"""

from __future__ import annotations

import os
import re
import textwrap
from typing import TYPE_CHECKING

from oci_bind_hook.commands import reference
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.help import typed, usages
from oci_bind_hook.documents.acceptor import SCHEMAS
from oci_bind_hook.options import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from oci_bind_hook.commands.reference import Option

HERE = os.path.dirname(os.path.abspath(__file__))
PIECE = re.compile(r"(^[^\n]*generated: ([a-z ]*[a-z])[^\n]*\n)(.*?)(^[^\n]* end\b)", re.DOTALL | re.MULTILINE)

ALL = tuple(dict.fromkeys((*reference.HOOK, *(option for command in COMMANDS for option in command.options))))
# What each command has, by its first word: "install --check" is completed as install is.
OPTIONS: dict[str, list[Option]] = {}
TAKES: dict[str, set[str]] = {}
for command in COMMANDS:
    name = command.name.split()[0]
    OPTIONS.setdefault(name, []).extend(each for each in command.options if each not in OPTIONS[name])
    TAKES.setdefault(name, set()).update(command.takes)


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

# -- bash, and zsh, which reads the same file --------------------------------------------------------------------------

# What stands for each kind of word that a command takes, where it is no file.
WORDS = {"OPTION": "--", "ID": "$(_oci_bind_hook_ids)", "SCHEMA": " ".join(SCHEMAS)}
VALUES = {
    "text|json": "words='text json'",
    "text|tree|json": "words='text tree json'",
    "STAGE,...": "words=$stages",
    "DIR": "kind=directory",
    "FILE": "kind=file",
    "DIR|FILE": "kind=file",
}


def _values() -> str:
    """What may stand behind each option."""
    by_action: dict[str, list[str]] = {}
    for option in (*reference.HOOK, *reference.INSTALL):
        if option.value:
            action = VALUES.get(option.value, "return")
            for other in (each for each in reference.OF_COMMANDS if each.name == option.name):
                names = [name for name, options in OPTIONS.items() if other in options]
                action = _by_command({" | ".join(names): VALUES[other.value], "*": action})
            by_action.setdefault(action, []).append(option.name)
    lines = (f"        {' | '.join(names)}) {action} ;;\n" for action, names in by_action.items())
    return "".join(lines).replace(") \n", ")\n")


def _by_command(actions: dict[str, str]) -> str:
    """What differs from one command to the next."""
    cases = "".join(f"                {pattern}) {action} ;;\n" for pattern, action in actions.items())
    return f"\n            case $command in\n{cases}            esac"


def _case(pattern: str, options: Iterable[Option], takes: Iterable[str] = ()) -> str:
    """What may stand behind a command."""
    words = [option.name for option in options]
    words += [word for kind, word in WORDS.items() if kind in takes]
    lines = textwrap.wrap(" ".join(words), 88, break_on_hyphens=False, break_long_words=False)
    kind = " kind=file" if "FILE" in takes else " kind=directory" if "BUNDLE" in takes else ""
    return f'        {pattern}) words="' + " \\\n            ".join(lines) + f'"{kind} ;;\n'


BASH = {
    "names": f"    local stages='{' '.join(STAGES)}'\n    local commands='{' '.join(OPTIONS)}'\n",
    "values": _values(),
    "words": "".join(_case(name, OPTIONS[name], TAKES[name]) for name in OPTIONS) + _case("*", reference.HOOK),
}

# -- fish --------------------------------------------------------------------------------------------------------------

FISH_VALUES = {
    "": "",
    "text|json": " -x -a 'text json'",
    "text|tree|json": " -x -a 'text tree json'",
    "STAGE,...": ' -x -a "$stages"',
    "DIR": " -x -a '(__fish_complete_directories)'",
    "FILE": " -r -F",
    "DIR|FILE": " -r -F",
}


def _complete(condition: str, what: str, text: str) -> str:
    """One line, with the beginning of a text to describe it."""
    description = reference.first_part(text).replace("'", r"\'")
    return f"complete -c oci-bind-hook{condition} {what} -d '{description}'\n"


def _option(option: Option) -> str:
    commands = " ".join(name for name, options in OPTIONS.items() if option in options)
    tests = ["$hook"] if option in reference.HOOK else []
    tests += [f"__fish_seen_subcommand_from {commands}"] if commands else []
    condition = "" if option.name in ("--version", "--help") else f' -n "{"; or ".join(tests)}"'
    return _complete(condition, f"-l {option.name[2:]}{FISH_VALUES.get(option.value, ' -x')}", option.text)


FISH = {
    "names": f"set -l stages {' '.join(STAGES)}\nset -l commands {' '.join(OPTIONS)}\n"
    f"set -l schemas {' '.join(SCHEMAS)}\n",
    "commands": "".join(
        _complete(" -n __fish_use_subcommand", f"-a {each.name}", each.text)
        for each in COMMANDS
        if each.name in OPTIONS
    ),
    "options": "".join(map(_option, ALL)),
}

FILES = {
    "man/oci-bind-hook.8.md": MAN,
    "completion/oci-bind-hook": BASH,
    "completion/oci-bind-hook.fish": FISH,
}

if __name__ == "__main__":
    for path, text in files().items():
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
