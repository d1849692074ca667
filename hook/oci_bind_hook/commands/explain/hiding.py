# SPDX-License-Identifier: Apache-2.0
"""What each bind of a plan hides: earlier mounts, and what the image has at its destination."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...mounting.config_mounts import upwards
from .facts import holds_anything

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...mounting.plan import Bind
    from ...requests.request import Request
    from ...rootfs.walk import Target

    Hidden = Mapping[str, str | None]  # a member of "hides" in schemas/plan.json


def hidden(
    order: Sequence[tuple[Request, str, Bind | None]], is_made: Callable[[Target], bool] | None
) -> dict[Bind, list[Hidden]]:
    """Returns what each bind hides. ``order`` has all mounts in the order of mounting, as Planner.order.

    If several later mounts cover one, the first of them hides it. ``is_made`` returns whether the hook created a
    destination, which is then not the image's. Without it the image is not inspected.
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
    if is_made is None:
        return found
    for request, path, bind in order:
        if bind is None or bind.action != "mount" or bind.problem is not None or request.is_root:
            continue
        if bind.target is not None and (what := _in_image(bind.target)) and not is_made(bind.target):
            found.setdefault(bind, []).insert(0, {"path": path, "what": what, "origin": None})
    return found


def _in_image(target: Target) -> str:
    """Returns what the image has at the destination of a bind: "link", "file" or "folder".

    Returns "" for nothing, for an empty folder, and for a folder that this user may not read.
    """
    last = target.last
    if last.fd is None or last.stat is None or last.cover is not None or last.stat.mount_root:
        return ""
    if last.is_link:
        return "link"
    if not last.folder:
        return "file"
    return "folder" if holds_anything(f"/proc/self/fd/{last.fd}") else ""
