# SPDX-License-Identifier: Apache-2.0
"""The parser of all commands: what each command takes, and its parsed arguments.

Not argparse: it has its own wording of errors, accepts no value that begins with a dash (as a regular expression may),
and treats ``--`` differently in each version of Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ..errors import UsageError
from ..options import Arguments, one_of
from ..requests.request import nearest
from .reference import HOOK, first_part

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..log import Log
    from .reference import Option


class Example(NamedTuple):
    """A call of a command: what it does, and its words as typed in a shell after the program's name."""

    text: str
    words: str


class Command(NamedTuple):
    """One command: its name, function, usage, description and options.

    ``run`` returns the exit code and may raise HookError. It is None for the commands in options.TAKEN_BY, which
    commands.running runs, because this parser takes longer than their work. ``takes`` are the kinds of its other words,
    with "-" if it reads stdin; these may be anywhere, or only after ``--``. ``hint`` is for an invalid word.
    ``exits`` are the main exit codes, with their meanings for this command; 64 need not be among them.
    """

    name: str
    run: Callable[[Given, Log], int] | None
    usage: str
    text: str
    options: tuple[Option, ...]
    takes: tuple[str, ...] = ()
    only_behind: bool = False
    hint: str = "see --help"
    examples: tuple[Example, ...] = ()
    exits: tuple[tuple[int, str], ...] = ((0, "done"),)

    @property
    def short(self) -> str:
        """A short description: the first part of its text."""
        return first_part(self.text)


class Given:
    """The arguments of a command. Raises UsageError, which names the wrong argument.

    ``values`` has a list for each given option: its values, or one "" for each occurrence of a flag. ``others`` are the
    words that are not options, including those after ``--``. ``format`` is the value of ``--format``, by default the
    command's first. ``passed`` are all options except ``--format``, each as one word, for the parser of the hook's own
    options.
    """

    def __init__(self, command: Command, words: list[str]) -> None:
        self.values: dict[str, list[str]] = {}
        self.others: list[str] = []
        self.passed: list[str] = []
        options = {option.name: option for option in command.options}
        flags = [name for name, option in options.items() if not option.value]
        arguments = Arguments(words)
        while arguments:
            word = arguments.option(flags)
            if word in options:
                value = "" if word in flags else arguments.value(word)
                if choices := options[word].choices:
                    one_of(word, value, choices)
                self.values.setdefault(word, []).append(value)
                if word != "--format":
                    self.passed.append(word if word in flags else f"{word}={value}")
            elif word == "--":
                self.others += arguments.rest()
                if self.others and not command.takes:
                    raise _unknown(command, self.others[0])
            elif command.takes and not command.only_behind and (word in command.takes or not word.startswith("-")):
                self.others.append(word)
            else:
                raise _unknown(command, word)
        self.format = self.last("--format") or next(
            (each.choices[0] for each in command.options if each.choices), "text"
        )

    def last(self, option: str) -> str | None:
        """Returns the last value of an option, which counts. None if it is not given."""
        return self.values[option][-1] if option in self.values else None

    def all(self, option: str) -> list[str]:
        """Returns all values of an option that may be repeated."""
        return self.values.get(option, [])


def _unknown(command: Command, word: str) -> UsageError:
    if command.only_behind and word in (option.name for option in HOOK):
        return UsageError(
            "this is an option of the hook", where=word, hint=f"put -- before {word} and the other options of the hook"
        )
    known = ("--help", *(option.name for option in command.options))
    return UsageError(
        f"unknown argument of {command.name}", where=word, hint=f"{nearest(word, known)} {command.hint}".strip()
    )
