# SPDX-License-Identifier: Apache-2.0
"""A matcher that takes time in proportion to the text, as Go's regexp does; Python's re may take exponential time.

An expression is a program, and a text is run through it once, with all ways to match followed side by side (Thompson,
"Regular Expression Search Algorithm", 1968). Which sets of ways were met, and what follows from them, is kept.
"""

from __future__ import annotations

import functools
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Assertion = Literal["start", "end", "line start", "line end", "word edge", "no word edge"]
    # What must be there: a character, by a pattern of re, or something that holds; or where to go on, counted from the
    # step itself. A program has matched when it comes to its end, so that one may simply follow another.
    Step: TypeAlias = "re.Pattern[str] | Assertion | tuple[int, ...]"
    Program = list[Step]

LARGEST = 5000  # steps: each may be looked at for each character
_KEPT = 10_000


def either(programs: list[Program]) -> Program:
    """One of several programs."""
    size = sum(map(len, programs)) + 2 * (len(programs) - 1)
    found: Program = []
    for program in programs[:-1]:
        found += [(1, len(program) + 2), *program]
        found.append((size - len(found),))
    return found + programs[-1]


def repeated(program: Program, least: int, most: int | None) -> Program:
    """A program that is run ``least`` to ``most`` times in a row, or any number of times from ``least`` on."""
    size = len(program) + 1
    if most is None:
        return program * least + [(1, size + 1), *program, (-size,)]
    optional = [step for left in range(most - least, 0, -1) for step in ((1, left * size), *program)]
    return program * least + optional


class _State:
    """A set of steps that were come to, and the kind of the character before. ``follows`` is what is known of it."""

    __slots__ = ("before", "follows", "steps")

    def __init__(self, steps: frozenset[int], before: str) -> None:
        self.steps = steps
        self.before = before
        self.follows: dict[str, _State] = {}


class Automaton:
    """A program that searches texts."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._states: dict[tuple[frozenset[int], str], _State] = {}
        self._kept = 0
        self._matched = _State(frozenset(), "")

    def matches(self, text: str) -> bool:
        """Whether the program matches anywhere in ``text``."""
        state = self._state(frozenset(), "")
        for character in text:
            state = state.follows.get(character) or self._follow(state, character)
            if state is self._matched:
                return True
        return self._reach(state, "")[1]

    def can_match(self) -> bool:
        """Whether there is any text that the program matches."""
        # Any text may stand before a match, so that it may begin behind a character of any kind.
        reached = {(0, before) for before in ("", "\n", "w", "other")}
        pending = [*reached]
        while pending:
            number, before = pending.pop()
            for after in _KINDS:
                steps, has_matched = self._reach(_State(frozenset((number,)), before), after, is_new=False)
                if has_matched:
                    return True
                taken = {(step + 1, _kind(after)) for step, pattern in steps if _has(pattern, after)}
                pending += taken - reached
                reached |= taken
        return False

    def _state(self, steps: frozenset[int], before: str) -> _State:
        return self._states.setdefault((steps, before), _State(steps, before))

    def _follow(self, state: _State, character: str) -> _State:
        """The state behind a character."""
        reached, has_matched = self._reach(state, character)
        if has_matched:
            found = self._matched
        else:
            taken = [number + 1 for number, pattern in reached if pattern.match(character)]
            found = self._state(frozenset(taken), _kind(character))
        self._kept += 1
        if self._kept > _KEPT:
            # Begun anew, so that no text fills the memory.
            self._kept = 0
            self._states.clear()
            state.follows.clear()
        else:
            state.follows[character] = found
        return found

    def _reach(
        self, state: _State, character: str, *, is_new: bool = True
    ) -> tuple[list[tuple[int, re.Pattern[str]]], bool]:
        """The steps for a character to which a state leads before ``character``, and whether the end is reached.

        With ``is_new`` a match may also begin here.
        """
        pending = [*([0] if is_new else []), *state.steps]
        seen = set(pending)
        found = []
        after = _kind(character)
        while pending:
            number = pending.pop()
            if number == len(self._program):
                return [], True
            step = self._program[number]
            further: list[int] = []
            if isinstance(step, re.Pattern):
                found.append((number, step))
            elif isinstance(step, tuple):
                further = [number + each for each in step]
            elif _holds(step, state.before, after):
                further = [number + 1]
            pending += [each for each in further if each not in seen]
            seen.update(further)
        return found, False


# A character of each kind that assertions know, and none.
_KINDS = ("", "\n", "a", "-")


@functools.cache
def _all_of(kind: str) -> str:
    """All characters of a kind that may stand in a text of Go, which has no surrogates."""
    found = "".join(character for character in map(chr, range(0x80)) if _kind(character) == kind)
    if kind == "other":
        found += "".join(map(chr, (*range(0x80, 0xD800), *range(0xE000, sys.maxunicode + 1))))
    return found


@functools.cache
def _has(pattern: re.Pattern[str], character: str) -> bool:
    """Whether a pattern matches any character of the same kind."""
    return bool(character) and pattern.search(_all_of(_kind(character))) is not None


def _kind(character: str) -> str:
    """What assertions know of a character: a letter "w", a line's end, any other, "" for none."""
    if not character or character == "\n":
        return character
    return "w" if character.isascii() and (character.isalnum() or character == "_") else "other"


def _holds(assertion: Assertion, before: str, after: str) -> bool:
    if assertion in ("start", "end"):
        return not (before if assertion == "start" else after)
    if assertion in ("line start", "line end"):
        return (before if assertion == "line start" else after) in ("", "\n")
    return ((before == "w") != (after == "w")) == (assertion == "word edge")
