# SPDX-License-Identifier: Apache-2.0
"""Completion of the command line. bash, zsh and fish all query this module.

It only offers options, words of this program, and names whose characters have no meaning in a shell. The shells
complete files and folders themselves, because they know how to quote them.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from .. import FOLDER
from ..documents.acceptor import SCHEMAS
from ..options import STAGES, state_folder
from ..requests.mount_field import FIELDS, FLAG
from ..requests.request import WORDS
from .reference import FIELD_TEXTS, HOOK, first_part

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Literal

    from .command_line import Command
    from .reference import Option

    Files = Literal["words", "file", "directory"]

    __loader__: Any

# The scripts, in the package's folder `completion`.
SCRIPTS = {"bash": "oci-bind-hook", "zsh": "_oci-bind-hook", "fish": "oci-bind-hook.fish"}
# Shells call `oci-bind-hook completion words -- WORD...`. The last word is the one to complete.
WORDS_OF = "words"

_ID = re.compile(r"(?!-)[A-Za-z0-9_+.-]{1,200}", re.ASCII)
_KINDS: dict[str, Files] = {"DIR": "directory", "FILE": "file", "DIR|FILE": "file", "PATH": "file"}


class Offer(NamedTuple):
    """What may be at a place: words, each with its meaning. ``files``: files or folders too, after ``before``.

    The words are complete, including what has been typed. ``goes_on``: the word may continue.
    """

    words: list[tuple[str, str]]
    files: Files = "words"
    before: str = ""
    goes_on: bool = False

    def text(self) -> str:
        """Returns the text for shells: a line for ``files``, a line for ``before``, and a line for each word."""
        head = [f"{self.files}{' nospace' * self.goes_on}", self.before]
        return "".join(f"{line}\n" for line in (*head, *("\t".join(word) for word in self.words)))


def script(shell: str) -> str:
    """Returns the script of one of ``SCRIPTS``."""
    data: bytes = __loader__.get_data(os.path.join(FOLDER, f"completion/{SCRIPTS[shell]}"))
    return data.decode()


def complete(words: Sequence[str], commands: Sequence[Command], topics: Callable[[], Iterable[str]]) -> Offer:
    """Returns what may replace the last of these words, which follow the name of the program.

    ``topics`` returns the topics of help.
    """
    *done, word = words or [""]
    place = _Place(done, commands)
    value = place.awaits
    if value is None and word.startswith("--") and "=" in word:
        name, _, text = word.partition("=")
        option = place.options.get(name)
        return _value(option, text, f"{name}=", place) if option is not None and option.value else Offer([])
    if value is not None:
        return _value(value, word, "", place)
    offered = Offer([])
    if not word.startswith("-"):
        offered = _words(word, place, topics)
    if word.startswith("-") or not (offered.words or offered.files != "words" or word):
        found = [(option.name, first_part(option.text)) for option in place.options.values()]
        found += [("--", "the options of the hook follow")] if place.has_dashes else []
        return Offer(_beginning(word, found), offered.files)
    return offered


class _Place:
    """What follows from the words before: the options, the kinds of other words (``takes``), and the given ``values``.

    ``name`` is the command, "" for the hook itself. ``awaits`` is the option whose value comes next, or None.
    """

    def __init__(self, done: Sequence[str], commands: Sequence[Command]) -> None:
        self.done = done
        self.commands = commands
        first = done[0] if done else ""
        # An option may select another command, such as "install --check", so the options of all of them are offered.
        of_first = [each for each in commands if each.name.split()[0] == first]
        self.name = first if of_first else ""
        chosen = [each for each in of_first if each.name.split()[-1] in done[1:]] or of_first[:1]
        self.takes = {kind for each in chosen for kind in each.takes}
        self.has_dashes = "OPTION" in self.takes and "--" not in done
        own = {option.name: option for each in of_first for option in each.options}
        if not of_first or ("OPTION" in self.takes and "--" in done):
            self.takes = {"STAGE"} if not of_first else set()
            own = {option.name: option for option in HOOK}
        elif "--" in done:
            own = {}
        self.options = {**own, "--help": _HELP} if own else {}
        self.values: dict[str, str] = {}
        self.awaits: Option | None = None
        for word in done:
            name, equals, text = word.partition("=")
            if self.awaits is not None:
                self.values[self.awaits.name] = word
                self.awaits = None
            elif name in self.options and self.options[name].value:
                self.values[name] = text
                self.awaits = None if equals else self.options[name]


_HELP = next(option for option in HOOK if option.name == "--help")


def _beginning(word: str, found: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(each, text) for each, text in found if each.startswith(word)]


def _plain(words: Iterable[str]) -> list[tuple[str, str]]:
    return [(word, "") for word in words]


def _words(word: str, place: _Place, topics: Callable[[], Iterable[str]]) -> Offer:
    """Returns the possible words that are not options."""
    if not place.done:
        first: list[tuple[str, str]] = [(stage, "run the hook at this stage") for stage in STAGES]
        first += [(each.name, each.short) for each in place.commands if " " not in each.name]
        return Offer(_beginning(word, first))
    kinds: dict[str, Callable[[], Iterable[str]]] = {
        "STAGE": lambda: () if {*STAGES}.intersection(place.done) else STAGES,
        "ID": lambda: _ids(place.values.get("--root")),
        "CONTAINER": lambda: _ids(place.values.get("--root")),
        "SCHEMA": lambda: SCHEMAS,
        "TOPIC": topics,
        "SHELL": lambda: SCRIPTS,
    }
    found = [each for kind, of_kind in kinds.items() if kind in place.takes for each in of_kind()]
    takes_files = not {"FILE", "BUNDLE"}.isdisjoint(place.takes)
    return Offer(_beginning(word, _plain(found)), "file" if takes_files else "words")


def _value(option: Option, text: str, before: str, place: _Place) -> Offer:
    """Returns values of an option. ``text`` has been typed of the value, and follows ``before`` in the same word."""
    if option.value == "SPEC":
        return _mount(text, before)
    if option.value in _KINDS:
        return Offer([], _KINDS[option.value], before)
    # In a list, only the part after the last comma is completed.
    if option.value.endswith(",..."):
        begun = text[: text.rfind(",") + 1]
        before, text = before + begun, text[len(begun) :]
    found: Iterable[str] = ()
    if option.value == "STAGE,...":
        found = [stage for stage in STAGES if stage not in before.split(",")]
    elif option.name in ("--name", "--cdi", "--runtime") and place.name == "uninstall":
        found = _registrations(option.name)
    elif option.value == "SCHEMA":
        found = SCHEMAS
    else:
        found = option.choices
    return Offer([(before + word, said) for word, said in _beginning(text, _plain(found))])


def _mount(text: str, before: str) -> Offer:
    """Returns completions of a ``--mount`` value: the names of its fields, or the values of a field."""
    begun = text[: text.rfind(",") + 1]
    field = text[len(begun) :]
    name, equals, value = field.partition("=")
    before += begun
    if not equals:
        given = {each.partition("=")[0] for each in begun.split(",")}
        found = [(before + word, said) for word, said in _fields() if word.startswith(field) and word[:-1] not in given]
        return Offer([(word, said) for word, said in found if word.rpartition(",")[2] not in given], goes_on=True)
    before += f"{name}="
    if name in ("src", "source"):
        return Offer([], "file", before, goes_on=True)
    kind = FIELDS[name][1] if name in FIELDS else ""
    found = _beginning(value, _plain(kind if isinstance(kind, tuple) else ()))
    return Offer([(before + word, said) for word, said in found], goes_on=True)


def _fields() -> Iterator[tuple[str, str]]:
    """Yields the fields of --mount, with "=" after those that take a value."""
    texts = {name: first_part(text) for row, text in FIELD_TEXTS for name in row.split()}
    for name in dict.fromkeys((*FIELDS, *WORDS)):
        is_flag = name not in FIELDS or FIELDS[name][1] == FLAG or name.endswith("idmap")
        yield name if is_flag else f"{name}=", texts.get(name, "")


def _ids(root: str | None) -> list[str]:
    """Returns the containers with state files, as far as this user can see."""
    from ..kernel.proc import Proc
    from .upkeep import folders

    proc = Proc()
    paths = [state_folder(one, proc) for one in folders.of(folders.at(root or None))]
    found = {each for path in paths for each in folders.state_files(path) if os.path.isfile(f"{path}/{each}.json")}
    return sorted(filter(_ID.fullmatch, found))


def _registrations(option: str) -> list[str]:
    """Returns the names that an option of uninstall takes: those of the registrations on this machine."""
    from .engines import machine, registration

    kind = {"--name": "hooks.d", "--cdi": "CDI", "--runtime": "runtime"}[option]
    found = registration.find(*machine.places())
    return sorted({one.name for one in found if one.kind == kind and _ID.fullmatch(one.name)})
