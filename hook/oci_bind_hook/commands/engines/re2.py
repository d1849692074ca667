# SPDX-License-Identifier: Apache-2.0
"""Regular expressions as Go's regexp package parses them, compiled to programs of an automaton.

Engines match hooks.d files by Go's package. In Python the same text has other meanings: ``$`` also matches before a
final newline, ``\\d`` more than ten digits, and ``a{,3}`` is a repetition; and each refuses what the other accepts.
The result is only whether a text matches, not where, so the preference among matches is ignored.
"""

from __future__ import annotations

import re

from .automaton import LARGEST, Automaton, either, repeated

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .automaton import Assertion, Program

    Ranges = list[tuple[int, int]]

LAST = 0x10FFFF
MAX_REPEAT = 1000  # of Go's regexp/syntax
LONGEST = 10_000
MAX_DEPTH = 1000  # of Go's regexp/syntax, since Go 1.19

PERL: dict[str, Ranges] = {
    "d": [(0x30, 0x39)],
    "s": [(0x09, 0x0A), (0x0C, 0x0D), (0x20, 0x20)],
    "w": [(0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A)],
}
POSIX: dict[str, Ranges] = {
    "alnum": [(0x30, 0x39), (0x41, 0x5A), (0x61, 0x7A)],
    "alpha": [(0x41, 0x5A), (0x61, 0x7A)],
    "ascii": [(0x00, 0x7F)],
    "blank": [(0x09, 0x09), (0x20, 0x20)],
    "cntrl": [(0x00, 0x1F), (0x7F, 0x7F)],
    "digit": [(0x30, 0x39)],
    "graph": [(0x21, 0x7E)],
    "lower": [(0x61, 0x7A)],
    "print": [(0x20, 0x7E)],
    "punct": [(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)],
    "space": [(0x09, 0x0D), (0x20, 0x20)],
    "upper": [(0x41, 0x5A)],
    "word": PERL["w"],
    "xdigit": [(0x30, 0x39), (0x41, 0x46), (0x61, 0x66)],
}
CONTROLS = {"a": 0x07, "f": 0x0C, "n": 0x0A, "r": 0x0D, "t": 0x09, "v": 0x0B}
EMPTY: dict[str, Assertion] = {"A": "start", "z": "end", "b": "word edge", "B": "no word edge"}


class InvalidError(ValueError):
    """Go refuses the expression."""


class UnknownError(ValueError):
    """The expression may be valid, but this module does not support it."""


def compile(pattern: str) -> Automaton:
    """Compiles an expression. Raises InvalidError, UnknownError."""
    if len(pattern) > LONGEST:
        raise UnknownError(f"it is too long to be checked here, with {len(pattern)} characters")
    return Automaton(_Parser(pattern).translate())


class _Group:
    """The text between two brackets: finished alternatives, the atoms of the current one, and the flags before it."""

    def __init__(self, flags: frozenset[str]) -> None:
        self.flags_before = flags
        self.done: list[Program] = []
        self.atoms: list[Program] = []
        self.times = 1  # the most that anything in it is repeated, nested repetitions multiplied

    def end_alternative(self) -> None:
        self.done.append([step for atom in self.atoms for step in atom])
        self.atoms = []

    def program(self) -> Program:
        self.end_alternative()
        return either(self.done)


class _Parser:
    """Parses one expression from left to right."""

    def __init__(self, pattern: str) -> None:
        self.rest = pattern
        self.flags: frozenset[str] = frozenset()
        self.groups = [_Group(self.flags)]
        self.times = 1  # the same for the last atom

    def translate(self) -> Program:
        is_repeated = False
        while self.rest:
            if count := self._count():
                self._repeat(*count, again=is_repeated)
                is_repeated = True
            else:
                self._step()
                is_repeated = False
        if len(self.groups) > 1:
            raise InvalidError("a ) is missing")
        return _bounded(self.groups[0].program())

    def _take(self, number: int = 1) -> str:
        taken, self.rest = self.rest[:number], self.rest[number:]
        return taken

    def _count(self) -> tuple[str, int, int | None, int] | None:
        """Parses a repetition: its text, minimum and maximum, and the number that Go counts for it. None without one.

        Greediness makes no difference here.
        """
        least, most, times = 0, None, 1
        if self.rest[0] in "*+?":
            count = self._take()
            least, most = int(count == "+"), 1 if count == "?" else None
        elif match := re.match(r"\{(0|[1-9][0-9]*)(?:,(|0|[1-9][0-9]*))?\}", self.rest):
            least = int(match[1])
            times = int(match[2]) if match[2] else least
            if max(least, times) > MAX_REPEAT:
                raise InvalidError(f"more than {MAX_REPEAT} repetitions")
            if times < least:
                raise InvalidError(f"{match[0]} has a minimum above its maximum")
            count, most = self._take(len(match[0])), None if match[2] == "" else times
            times = max(1, times) if most is None else times
        else:
            return None
        if self.rest.startswith("?"):
            self._take()
        return count, least, most, times

    def _repeat(self, count: str, least: int, most: int | None, times: int, *, again: bool) -> None:
        group = self.groups[-1]
        atoms = group.atoms
        if not atoms:
            raise InvalidError(f"{count} has nothing to repeat")
        if again:
            raise InvalidError(f"{count} follows another repetition")
        self.times *= times
        if self.times > MAX_REPEAT:
            raise InvalidError(f"more than {MAX_REPEAT} nested repetitions")
        group.times = max(group.times, self.times)
        _bounded(atoms[-1], least + 1 if most is None else most)
        atoms[-1] = repeated(atoms[-1], least, most)

    def _step(self) -> None:
        group, letter = self.groups[-1], self._take()
        if letter != "(":  # flags in brackets are not an atom
            self.times = 1
        if letter == "(":
            self._open()
        elif letter == ")":
            if len(self.groups) == 1:
                raise InvalidError("an unmatched )")
            self.groups.pop()
            self.flags = group.flags_before
            self.groups[-1].atoms.append(_bounded(group.program()))
            self.times = group.times
            self.groups[-1].times = max(self.groups[-1].times, group.times)
        elif letter == "|":
            group.end_alternative()
        elif letter == "^":
            group.atoms.append(["line start" if "m" in self.flags else "start"])
        elif letter == "$":
            group.atoms.append(["line end" if "m" in self.flags else "end"])
        elif letter == ".":
            group.atoms.append([re.compile("(?s:.)" if "s" in self.flags else r"[^\n]")])
        elif letter == "[":
            group.atoms.append(self._cased(self._class()))
        elif letter == "\\":
            group.atoms += self._escaped()
        else:
            group.atoms.append(self._cased(_char(ord(letter))))

    def _cased(self, pattern: str) -> Program:
        return [re.compile(f"(?i:{pattern})" if "i" in self.flags else pattern)]

    def _open(self) -> None:
        if len(self.groups) > MAX_DEPTH:
            raise UnknownError(
                f"its groups are nested more than {MAX_DEPTH} deep, which only some versions of Go accept"
            )
        if not self.rest.startswith("?"):
            self.groups.append(_Group(self.flags))
        elif match := re.match(r"\?(P?)<\w+>", self.rest, re.ASCII):
            if not match[1]:
                raise UnknownError(f"({match[0]} requires Go 1.22")
            self._take(len(match[0]))
            self.groups.append(_Group(self.flags))
        elif match := re.match(r"\?([imsU]*)(?:-([imsU]+))?([:)])", self.rest):
            self._take(len(match[0]))
            before = self.flags
            self.flags = (before | set(match[1])) - set(match[2] or "")
            if match[3] == ":":
                self.groups.append(_Group(before))
        else:
            raise InvalidError(f"Go does not support ({self.rest[:2]}")

    def _escaped(self) -> list[Program]:
        """Returns the atoms for what follows a backslash. A quotation has several."""
        letter = self.rest[:1]
        if letter in EMPTY:
            self._take()
            return [[EMPTY[letter]]]
        if letter == "Q":
            quoted, _, self.rest = self.rest[1:].partition(r"\E")
            return [self._cased(_char(ord(each))) for each in quoted]
        if ranges := self._perl():
            return [self._cased(_set(ranges))]
        return [self._cased(_char(self._code()))]

    def _perl(self) -> Ranges:
        r"""Returns the class that the letter after a backslash names, if any. Raises UnknownError for ``\p``."""
        letter = self.rest[:1]
        if letter in ("p", "P"):
            raise UnknownError(rf"the Unicode class \{letter} cannot be checked here")
        if letter.lower() not in PERL:
            return []
        self._take()
        ranges = PERL[letter.lower()]
        return ranges if letter.islower() else _others(ranges)

    def _code(self) -> int:
        """Returns the code point of an escape, after its backslash."""
        if match := re.match(r"0[0-7]{0,2}|[1-7][0-7]{1,2}", self.rest):
            self._take(len(match[0]))
            return int(match[0], 8)
        if match := re.match(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]+)\})", self.rest):
            self._take(len(match[0]))
            code = int(match[1] or match[2], 16)
            if code <= LAST:
                return code
            raise InvalidError(rf"\{match[0]} is not a character")
        character = self._take()
        if character in CONTROLS:
            return CONTROLS[character]
        if not character or not character.isascii() or character.isalnum():
            raise InvalidError(rf"Go does not support \{character}" if character else r"a \ at the end")
        return ord(character)

    def _class(self) -> str:
        """Parses a class, after its opening bracket."""
        is_negated = self.rest.startswith("^")
        if is_negated:
            self._take()
        ranges: Ranges = []
        is_first = True
        while is_first or not self.rest.startswith("]"):
            is_first = False
            if not self.rest:
                raise InvalidError("a ] is missing")
            ranges += self._posix() or self._class_item()
        self._take()
        return _set(ranges, negated=is_negated)

    def _posix(self) -> Ranges:
        if not self.rest.startswith("[:") or ":]" not in self.rest[2:]:
            return []
        name, _, rest = self.rest[2:].partition(":]")
        if name.removeprefix("^") not in POSIX:
            raise InvalidError(f"[:{name}:] is not a class")
        self.rest = rest
        return _others(POSIX[name[1:]]) if name.startswith("^") else POSIX[name]

    def _class_item(self) -> Ranges:
        if self.rest.startswith("\\"):
            self._take()
            if ranges := self._perl():
                return ranges
            low = self._code()
        else:
            low = ord(self._take())
        high = low
        if self.rest.startswith("-") and self.rest[1:2] not in ("]", ""):
            self._take()
            character = self._take()
            high = self._code() if character == "\\" else ord(character)
        if high < low:
            raise InvalidError("a range in [] is reversed")
        return [(low, high)]


def _bounded(program: Program, times: int = 1) -> Program:
    if len(program) * times > LARGEST:
        raise UnknownError("it is too large to be checked here")
    return program


def _others(ranges: Ranges) -> Ranges:
    """Returns all characters that are not in ``ranges``."""
    found, start = [], 0
    for low, high in sorted(ranges):
        if low > start:
            found.append((start, low - 1))
        start = max(start, high + 1)
    return [*found, (start, LAST)] if start <= LAST else found


def _set(ranges: Ranges, *, negated: bool = False) -> str:
    if not ranges:
        return "(?s:.)" if negated else "(?!)"
    members = "".join(f"{_char(low)}-{_char(high)}" for low, high in ranges)
    return f"[{'^' if negated else ''}{members}]"


def _char(code: int) -> str:
    return f"\\U{code:08x}"
