# SPDX-License-Identifier: Apache-2.0
"""The text of --help, made of the tables. It contains no text of its own about an option or a command."""

from __future__ import annotations

import textwrap
from functools import partial
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..options import STAGES
from ..requests.request import nearest
from . import manual
from .reference import EXIT_CODES, HOOK, fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from .command_line import Command, Example

WIDTH = 80
COLUMN = 24
NAME = "oci-bind-hook"

ABOUT = "An OCI runtime hook that bind-mounts files and folders into containers, and unmounts them again."
MORE = (
    f"More: `{NAME} COMMAND --help`; STAGE, OPTION and --mount: `{NAME} help options`; all topics: `{NAME} help help`; "
    f"manual: `man {NAME}`."
)
OPTIONS = "options"  # the topic for the options of the hook itself


def usages(commands: Iterable[Command]) -> list[str]:
    """Returns the usage lines of the hook and of each command."""
    return [*_USAGES, *map(usage, commands)]


_USAGES = (
    f"{NAME} [STAGE] [OPTION]... < state.json",
    f"{NAME} [STAGE] --dry-run [--bundle DIR|FILE] [OPTION]...",
)


def usage(command: Command) -> str:
    """Returns the usage line of a command."""
    return f"{NAME} {command.name} {command.usage}".rstrip()


def summary(commands: Iterable[Command]) -> str:
    """Returns the usage and the commands, on one screen of 80 columns and 24 lines."""
    rows = [(command.name, command.short) for command in commands if " " not in command.name]
    column = max(len(name) for name, _ in rows) + 4
    return _joined(
        _usage([_USAGES[0], f"{NAME} COMMAND [ARGUMENT]..."]),
        _folded(ABOUT),
        _table(rows, column),
        _folded(MORE),
    )


def of_hook() -> str:
    """Returns the stages, options, fields and exit codes of the hook."""
    stages = f"{', '.join(STAGES[:-1])} or {STAGES[-1]}"
    codes = ", ".join(f"{code} {text}" for code, text, _ in EXIT_CODES)
    return _joined(
        _usage(_USAGES),
        _folded(f"STAGE is {stages}. If omitted, it is determined from the state."),
        _table((option.form, option.text) for option in HOOK),
        _folded(
            f"FIELD of --mount is {fields()}, or an option of runtime-spec for binds, such as nosuid, rro or rslave."
        ),
        _folded(f"Exit codes: {codes}."),
    )


def of_command(command: Command, commands: Sequence[Command]) -> str:
    """Returns a command's usage, description, options, exit codes and examples.

    Includes the usage lines of related commands that an option selects, such as "install --check" for install.
    """
    others = [usage(each) for each in commands if each.name.startswith(f"{command.name} ")]
    codes = sorted({UsageError.exit_code: "the command line is wrong", **dict(command.exits)}.items())
    parts = [
        _usage([usage(command), *others]),
        _folded(f"{command.text[0].upper()}{command.text[1:]}."),
        _folded(f"Topics: {', '.join(topics(commands))}.") if "TOPIC" in command.takes else [],
        _table((option.form, option.text) for option in command.options),
        ["Exit codes:", *_table(((str(code), text) for code, text in codes), 6)],
    ]
    if command.examples:
        parts.append(["Examples:", *_examples(command.examples)])
    return _joined(*parts)


def of_words(words: Sequence[str], commands: Iterable[Command]) -> str:
    """Returns the help for words that name no command: a stage or an option is one of the hook itself."""
    return of_hook() if {*STAGES, "--dry-run"}.intersection(words) else summary(commands)


def topic(name: str, commands: Sequence[Command]) -> str:
    """Returns the text of a topic (see ``topics``), or the summary without one. Raises UsageError."""
    known = topics(commands)
    wanted = name.lower().replace(",", "").replace(" ", "-")
    if not name:
        return summary(commands)
    if wanted not in known:
        longer = [f'did you mean "{each}"?' for each in known if each.startswith(f"{wanted}-")]
        near = next(iter(longer), "") or nearest(name, tuple(known)) or f"topics are {', '.join(known)}"
        raise UsageError("there is no such topic", where=f"help {name}", hint=near)
    return known[wanted]()


def topics(commands: Sequence[Command]) -> dict[str, Callable[[], str]]:
    """Returns the topics, each with the function for its text: options, commands, pages and sections of the manual.

    If a section has the name of a command, the topic is the command.
    """
    found: dict[str, Callable[[], str]] = {OPTIONS: of_hook}
    found.update((each.name, partial(of_command, each, commands)) for each in commands if " " not in each.name)
    found.update((name, partial(manual.page, name)) for name in manual.PAGES)
    for title in manual.sections():
        found.setdefault(title.replace(",", "").replace(" ", "-"), partial(manual.section, title))
    return found


def _joined(*parts: Iterable[str]) -> str:
    return "\n\n".join(filter(None, map("\n".join, parts))) + "\n"


def _usage(usages: Iterable[str]) -> list[str]:
    first, *others = usages
    return [f"usage: {first}", *(f"       {other}" for other in others)]


def _examples(examples: Iterable[Example]) -> Iterator[str]:
    for example in examples:
        yield from _folded(f"{example.text}:", "  ")
        yield from typed(example, " " * 6)


def typed(example: Example, indent: str) -> list[str]:
    """Returns an example as lines that a shell reads as one."""
    *lines, last = _wrapped(f"{NAME} {example.words}", WIDTH - len(" \\"), indent, f"{indent}  ")
    return [*(f"{line} \\" for line in lines), last]


def _table(rows: Iterable[tuple[str, str]], column: int = COLUMN) -> Iterator[str]:
    for name, text in rows:
        before = f"  {name}  "
        if len(before) > column:
            yield before.rstrip()
            before = ""
        yield from _folded(text, before.ljust(column))


def _folded(text: str, before: str = "") -> list[str]:
    """Returns a text as lines after ``before``. Further lines are indented to the same column."""
    return _wrapped(text.replace("`", ""), WIDTH, before, " " * len(before))


def _wrapped(text: str, width: int, first: str, others: str) -> list[str]:
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=others, break_on_hyphens=False, break_long_words=False
    )
