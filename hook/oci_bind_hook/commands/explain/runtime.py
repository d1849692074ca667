# SPDX-License-Identifier: Apache-2.0
"""What the runtime will refuse in a bundle, with or without the hook. Users would otherwise look for it in the hook.

Each refusal was seen with the runtimes that it names, in the versions of docs/RUNTIMES.md, and a test repeats this.
Uncertain refusals are warnings: another version may behave differently, or an engine may create what is missing.
"""

from __future__ import annotations

from ...rootfs.walk import Root
from . import refused_mounts, refused_programs, refused_settings
from .facts import holds_anything
from .refusals import Refusals
from .registered import members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...documents.bundle import Bundle
    from ...mounting.plan import Plan
    from ...mounting.sources import Source
    from .patience import Patience


def find(bundle: Bundle, plan: Plan, sources: Iterable[Source], patience: Patience) -> Refusals:
    """Returns what the runtimes will refuse in a ``bundle`` whose document was read whole.

    ``plan`` is what the hook will bind. ``sources`` are all that were opened; those of config.json count. What
    ``patience`` does not allow to be queried is not checked.
    """

    def may_ask(where: str, path: str) -> bool:
        return not patience.why_not(f"runtime {where}", f"{path}, which config.json has at {where},", path)

    found = Refusals()
    document = members(bundle.document)
    refused_settings.judge(found, document, may_ask)
    refused_settings.judge_rootfs(found, bundle)
    if holds_anything(f"/proc/self/fd/{plan.rootfs.fd}") is False:
        found.warn("/root/path", "the rootfs is empty: unless an engine mounts it first, it contains no program")
        refused_programs.judge_process(found, document, None, None)
        refused_programs.judge_hooks(found, document, None, may_ask)
        return found
    root = Root(plan.rootfs.fd)
    covers = refused_mounts.judge(found, bundle, root, {source.request.origin: source for source in sources})
    refused_mounts.cover_by_hook(plan, root, covers)
    if covers is not None:
        refused_settings.judge_places(found, document, root)
    # If the hook's plan is not known, the program may be in what it would bind.
    is_known = covers is not None and not plan.problems
    refused_programs.judge_process(found, document, root if is_known else None, covers)
    refused_programs.judge_hooks(found, document, root if is_known else None, may_ask)
    return found
