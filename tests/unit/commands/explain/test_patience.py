# SPDX-License-Identifier: Apache-2.0
"""Who is taken for silent: not a child that is still at work, however long that takes."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest

from oci_bind_hook.commands.explain import patience
from oci_bind_hook.commands.explain.patience import Patience
from oci_bind_hook.commands.explain.report import Report
from oci_bind_hook.kernel.asking import Outcome
from oci_bind_hook.kernel.mountinfo import MountTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TIMES = 100  # more often than somebody silent is waited for


@pytest.fixture
def one() -> Iterator[Patience]:
    one = Patience(MountTable(""))
    yield one
    one.close()


@pytest.fixture
def waiting() -> Iterator[int]:
    """A process that does nothing."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    yield child
    os.close(write)
    os.waitpid(child, 0)


def asked(one: Patience, child: int, monkeypatch: pytest.MonkeyPatch, seconds: float = 60) -> tuple[bool, list[str]]:
    """Whether it is waited for ``child``, which has noted whom it asks, all the time; and what is told meanwhile."""

    def ask(_: object, __: float, *, goes_on: Callable[[int], bool], **___: Any) -> Outcome:
        one.why_not("key", "what", "/")
        outcome = Outcome()
        outcome.is_silent = not all(goes_on(child) for _ in range(TIMES))
        outcome.answer = Report().as_values()
        return outcome

    monkeypatch.setattr(patience, "ask", ask)
    told: list[str] = []
    return one.ask(Report, told.append, time.monotonic() + seconds) is not None, told


def test_who_works_is_not_silent(one: Patience, monkeypatch: pytest.MonkeyPatch) -> None:
    for seconds in (60, 0):  # a deadline is for those that wait
        assert asked(one, os.getpid(), monkeypatch, seconds) == (True, [])  # it works between the questions


def test_who_waits_is(one: Patience, waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    while "S" not in _state(waiting):
        pass
    assert asked(one, waiting, monkeypatch) == (False, ["waiting for what"])
    assert one.silent == {"key": "what does not answer"}


def test_after_the_deadline_who_waits_is_at_once(one: Patience, waiting: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SECONDS", 600)
    while "S" not in _state(waiting):
        pass
    assert asked(one, waiting, monkeypatch, 0) == (False, ["waiting for what"])


def _state(process: int) -> str:
    with open(f"/proc/{process}/stat", encoding="ascii") as file:
        return file.read().rpartition(")")[2].split()[0]
