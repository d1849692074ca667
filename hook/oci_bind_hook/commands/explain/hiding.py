# SPDX-License-Identifier: Apache-2.0
"""What each bind of a plan hides: earlier mounts, and what the image has at its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...mounting.config_mounts import upwards
from .facts import holds_anything

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...mounting.plan import Bind
    from ...requests.request import Request
    from ...rootfs.walk import Target

    Hidden = Mapping[str, str | None]  # a member of "hides" in schemas/plan.json


def hidden(order: Sequence[tuple[Request, str, Bind | None]], *, is_silent: bool = False) -> dict[Bind, list[Hidden]]:
    """What the binds among all mounts in their ``order``, Planner.order, hide.

    Of several later mounts above one, the first hides it. The image is not looked at if it ``is_silent``.
    """
    later: dict[str, Bind | None] = {}
    found: dict[Bind, list[Hidden]] = {}
    for request, path, bind in reversed(order):
        if bind is not None and (bind.problem is not None or request.is_root):
            continue
        for above in upwards(path):
            if above in later:
                if (hider := later[above]) is not None:
                    found.setdefault(hider, []).insert(0, {"path": path, "what": "mount", "origin": request.origin})
                break
        later[path] = bind
    for request, path, bind in () if is_silent else order:
        if bind is None or bind.action != "mount" or bind.problem is not None or request.is_root:
            continue
        if bind.target is not None and (what := _there(bind.target)):
            found.setdefault(bind, []).insert(0, {"path": path, "what": what, "origin": None})
    return found


def _there(target: Target) -> str:
    """What the image has at the place of a bind, "" for nothing and for an empty folder, which leaves nothing to hide.

    What this user may not look into is taken for empty: it is not known to hide anything.
    """
    last = target.last
    if last.fd is None or last.stat is None or last.cover is not None or last.stat.mount_root:
        return ""
    if last.is_link:
        return "link"
    if not last.folder:
        return "file"
    return "folder" if holds_anything(f"/proc/self/fd/{last.fd}") else ""
