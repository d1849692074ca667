# SPDX-License-Identifier: Apache-2.0
"""Times and durations, as people read them and as programs do."""

from __future__ import annotations

import time

import pytest

from oci_bind_hook.commands import moments

DURATIONS = {
    -5: "0 s",
    0.4: "0 s",
    59.9: "59 s",
    60: "1 min",
    3599: "59 min",
    3600: "1 h",
    47.9 * 3600: "47 h",
    48 * 3600: "2 d",
    400 * 86400: "400 d",
}


@pytest.mark.parametrize("seconds", DURATIONS)
def test_a_duration_has_the_unit_that_fits(seconds: float) -> None:
    assert moments.lasted(seconds) == DURATIONS[seconds]


def test_a_moment_has_its_day_only_if_that_is_not_today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    noon = 1_800_014_400  # 2027-01-15 12:00
    assert moments.moment(noon - 2 * 3600, noon) == "10:00, 2 h ago"
    assert moments.moment(noon - 13 * 3600, noon) == "2027-01-14 23:00, 13 h ago"
    # A clock that was set back since.
    assert moments.moment(noon + 60, noon) == "12:01"
    monkeypatch.undo()
    time.tzset()


def test_who_asked_has_a_time_for_people_or_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "XXX-3")
    time.tzset()
    noon = 1_800_014_400  # 2027-01-15 12:00 UTC
    monkeypatch.setattr(time, "time", lambda: noon + 120.0)
    assert moments.asked_by("attach 1", noon, is_for_people=True) == "attach 1 at 15:00, 2 min ago"
    assert moments.asked_by("attach 1", noon, is_for_people=False) == "attach 1 at 2027-01-15T12:00:00Z"
    assert moments.asked_by("--mount 1", None, is_for_people=True) == "--mount 1"
    monkeypatch.undo()
    time.tzset()
