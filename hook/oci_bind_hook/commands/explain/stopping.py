# SPDX-License-Identifier: Apache-2.0
"""Whether somebody calls poststop whom config.json does not tell of.

podman keeps the poststop hooks of hooks.d in a list of its own and calls them when it cleans up. All other hooks stand
in config.json, and the runtime calls them: those of CDI, those that CRI-O took from hooks.d, those of a wrapper.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..engines import machine
from ..engines.check import Check
from ..engines.hooks_d import FOLDERS
from . import recognise
from .registered import SETTING_UP, is_ours

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...documents.bundle import Bundle
    from .registered import Entry


def is_by_engine(entries: Sequence[Entry], bundle: Bundle) -> bool:
    """Whether the engine of a bundle calls poststop by itself for the hook that its config.json has.

    As podman may have been told of a folder by --hooks-dir, a hook that is in no folder here counts as one of those.
    """
    if recognise.engine(bundle.config.annotations, bundle.path, bundle.rootfs) != "podman":
        return False
    hooks, devices = machine.folders("podman")
    check = Check([*FOLDERS, *hooks], None, devices or None)
    calls = [(entry.stage, entry.path, entry.args) for entry in entries if entry.stage in SETTING_UP]
    used = [one for one in check.files if one.is_used]
    if any((one.hook, one.args or []) == (path, args) for one in used for _, path, args in calls):
        return any("poststop" in one.stages and is_ours({"path": one.hook, "args": one.args}) for one in used)
    of_devices = [(hook.stage, hook.path, hook.args) for device in check.devices for hook in device.ours]
    return not any(call in of_devices for call in calls)
