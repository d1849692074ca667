# SPDX-License-Identifier: Apache-2.0
"""A matcher whose time is proportional to the text, like Go's regexp. Python's re may take exponential time.

An expression is a program. The text is processed once, and all possible matches are followed in parallel (Thompson,
"Regular Expression Search Algorithm", 1968). The sets of steps that occur are cached, with their successors.
"""

from __future__ import annotations

import functools
import re
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal, TypeAlias

    Assertion = Literal["start", "end", "line start", "line end", "word edge", "no word edge"]
    # A step is a pattern of re for one character, an assertion, or the offsets of the steps to continue with. A program
    # has matched when it reaches its end, so two programs are concatenated by appending.
    Step: TypeAlias = "re.Pattern[str] | Assertion | tuple[int, ...]"
    Program = list[Step]

LARGEST = 5000  # steps: each may be tried for each character
_KEPT = 10_000


def either(programs: list[Program]) -> Program:
    """Returns a program that matches what one of several programs matches."""
    size = sum(map(len, programs)) + 2 * (len(programs) - 1)
    found: Program = []
    for program in programs[:-1]:
        found += [(1, len(program) + 2), *program]
        found.append((size - len(found),))
    return found + programs[-1]


def repeated(program: Program, least: int, most: int | None) -> Program:
    """Returns a program that repeats one from ``least`` to ``most`` times. None: without a limit."""
    size = len(program) + 1
    if most is None:
        return program * least + [(1, size + 1), *program, (-size,)]
    optional = [step for left in range(most - least, 0, -1) for step in ((1, left * size), *program)]
    return program * least + optional


class _State:
    """A set of reached steps, and the kind of the character before. ``follows`` caches the next state by character."""

    __slots__ = ("before", "follows", "steps")

    def __init__(self, steps: frozenset[int], before: str) -> None:
        self.steps = steps
        self.before = before
        self.follows: dict[str, _State] = {}


class Automaton:
    """Searches texts with a program."""

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
        """Whether any text exists that the program matches."""
        # A match may begin after any text, hence after a character of any kind.
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
        """Returns the state after a character."""
        reached, has_matched = self._reach(state, character)
        if has_matched:
            found = self._matched
        else:
            taken = [number + 1 for number, pattern in reached if pattern.match(character)]
            found = self._state(frozenset(taken), _kind(character))
        self._kept += 1
        if self._kept > _KEPT:
            # The cache is cleared when it is full, so that no text can fill the memory.
            self._kept = 0
            self._states.clear()
            state.follows.clear()
        else:
            state.follows[character] = found
        return found

    def _reach(
        self, state: _State, character: str, *, is_new: bool = True
    ) -> tuple[list[tuple[int, re.Pattern[str]]], bool]:
        """Returns the steps that a state has for ``character``, with their patterns, and whether it reaches the end.

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


# One character of each kind that assertions distinguish, and "" for none.
_KINDS = ("", "\n", "a", "-")


@functools.cache
def _all_of(kind: str) -> str:
    """Returns all characters of a kind that a text of Go may have. It has no surrogates."""
    found = "".join(character for character in map(chr, range(0x80)) if _kind(character) == kind)
    if kind == "other":
        found += "".join(map(chr, (*range(0x80, 0xD800), *range(0xE000, sys.maxunicode + 1))))
    return found


@functools.cache
def _has(pattern: re.Pattern[str], character: str) -> bool:
    """Whether a pattern matches any character of the same kind."""
    return bool(character) and pattern.search(_all_of(_kind(character))) is not None


def _kind(character: str) -> str:
    """Returns the kind of a character for assertions: "w" for a word character, a newline, "other", or "" for none."""
    if not character or character == "\n":
        return character
    return "w" if character.isascii() and (character.isalnum() or character == "_") else "other"


def _holds(assertion: Assertion, before: str, after: str) -> bool:
    if assertion in ("start", "end"):
        return not (before if assertion == "start" else after)
    if assertion in ("line start", "line end"):
        return (before if assertion == "line start" else after) in ("", "\n")
    return ((before == "w") != (after == "w")) == (assertion == "word edge")
