# SPDX-License-Identifier: Apache-2.0
"""Times and durations: for people local and as short as possible, for programs in UTC by RFC 3339."""

from __future__ import annotations

import time


def lasted(seconds: float) -> str:
    """Returns a duration in the one unit that suits it."""
    for unit, size, most in (("s", 1, 60), ("min", 60, 3600), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{max(int(seconds / size), 0)} {unit}"
    return f"{int(seconds / 86400)} d"


def moment(then: float, now: float) -> str:
    """Returns a time in seconds since the epoch for people: the time, the date if not today, and how long ago."""
    is_today = time.localtime(then)[:3] == time.localtime(now)[:3]
    clock = time.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M", time.localtime(then))
    return f"{clock}, {lasted(now - then)} ago" if then <= now else clock


def asked_by(origin: str, then: object, *, is_for_people: bool) -> str:
    """Returns what requested a bind, and the time ``then`` (seconds since the epoch; None: the container's start)."""
    if not isinstance(then, int):
        return origin
    exact = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(then))
    return f"{origin} at {moment(then, time.time()) if is_for_people else exact}"
