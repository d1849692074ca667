# SPDX-License-Identifier: Apache-2.0
"""Registrations in hooks.d that bind different things on one destination: the hook refuses the second call (78)."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

from ...requests import collect
from ..explain.registered import SETTING_UP
from .problems import EFFECTS, FAILS, Problem
from .registration import options_of
from .sources import CONTAINER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...requests.request import Request
    from .registration import Registration

    # The state folder, the destination, and whether a link there is followed. A call only refuses binds of its folder.
    Place = tuple[str | None, str, bool]

_EFFECTS = {**EFFECTS, FAILS: "containers for which both are registered do not start"}
_ALL = [["--always"]]


class Conflict(Problem):
    """A problem of the registration ``second``, which is called after ``first``, at ``destination``."""

    def __init__(self, first: tuple[Registration, Request], second: tuple[Registration, Request]) -> None:
        (other, before), (one, request) = first, second
        self.files = (other.path, one.path)
        text = f"{request.place}: {request.destination} is also the destination of {before.place} in {other.path}"
        text += ", with another source or other options (use another destination)"
        super().__init__(one.path, "", text, FAILS, _EFFECTS)


def conflicts(found: Iterable[Registration]) -> Iterator[Conflict]:
    """Yields the conflicts between registrations in hooks.d, which are in the order of their calls.

    A conflict is certain only for binds that every container gets, for the same or all containers, on the same path.
    """
    earlier: list[tuple[Registration, dict[Place, Request]]] = []
    for one in found:
        if one.kind != "hooks.d":
            continue
        binds = _binds(one)
        for other, known in earlier:
            for place, request in binds.items() if _meet(one, other) else ():
                # The hook skips a bind that an earlier call has made.
                if place in known and known[place].as_mount() != request.as_mount():
                    yield Conflict((other, known[place]), (one, request))
        earlier.append((one, binds))


def _binds(one: Registration) -> dict[Place, Request]:
    """Returns the binds of a registration that do not depend on the container or on files. Invalid ones are omitted."""
    options = options_of(one.arguments)
    if options is None or not {*SETTING_UP} & {*one.stages}:
        return {}
    found: dict[Place, Request] = {}
    for request in collect.requests(CONTAINER, options.mounts, refused=lambda _: None):
        if not (request.is_glob or request.optional or request.when_exists is not None):
            path = posixpath.normpath("/" + request.destination.lstrip("/"))
            found.setdefault((options.root, path, request.nofollow), request)
    return found


def _meet(one: Registration, other: Registration) -> bool:
    """Whether there are containers for which both are certainly called: one is for all, or they have one condition."""
    if not (one.conditions and other.conditions):
        return False  # engines call a hook without conditions for no container
    return _ALL in (one.conditions, other.conditions) or sorted(one.conditions) == sorted(other.conditions)
