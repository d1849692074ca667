# SPDX-License-Identifier: Apache-2.0
"""Work counted instead of timed: that twice the input takes about twice holds on a busy machine, too."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import oci_bind_hook

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

# How much more each further piece of the same size may take. Quadratic work takes 5/3 for the third.
MOST = 1.2


class Text(str):
    """A text that counts the characters that are read or copied of it, and of all that is cut out of it."""

    touched = 0

    def _count(self, number: int) -> None:
        Text.touched += number + 1

    def __getitem__(self, key: Any) -> Text:
        piece = Text(super().__getitem__(key))
        self._count(len(piece))
        return piece

    def __contains__(self, what: object) -> bool:
        self._count(len(self))
        return super().__contains__(str(what))

    def startswith(self, what: Any, *where: Any) -> bool:
        self._count(len(what))
        return super().startswith(what, *where)

    def find(self, what: str, start: Any = 0, end: Any = None) -> int:
        end = len(self) if end is None else end
        found = super().find(what, start, end)
        self._count((end if found < 0 else found) - start)
        return found

    def rfind(self, what: str, start: Any = 0, end: Any = None) -> int:
        end = len(self) if end is None else end
        found = super().rfind(what, start, end)
        self._count(end - (start if found < 0 else found))
        return found

    def split(self, *arguments: Any) -> list[Any]:
        self._count(len(self))
        return [Text(piece) for piece in super().split(*arguments)]

    def partition(self, what: str) -> Any:
        self._count(len(self))
        return tuple(map(Text, super().partition(what)))


def check_growth(measure: Callable[[int], int], size: int) -> None:
    """Checks that work of thrice a size is to twice the size as that is to once: what all sizes need counts nothing."""
    once, twice, thrice = (measure(times * size) for times in (1, 2, 3))
    assert thrice - twice <= MOST * (twice - once), f"{once}, {twice}, {thrice}"


def touched(work: Callable[[str], object], text: str) -> int:
    """How many characters some work reads or copies of a text."""
    Text.touched = 0
    work(Text(text))
    return Text.touched


def opcodes(work: Callable[[], object]) -> int:
    """How many instructions of Python some work executes in the hook's own code. What C does in one counts as one."""
    count = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        if event == "call" and not frame.f_code.co_filename.startswith(oci_bind_hook.FOLDER + os.sep):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count
