# SPDX-License-Identifier: Apache-2.0
"""Whether the engine calls poststop although config.json does not register it.

podman keeps the poststop hooks of hooks.d in its own list and calls them when it cleans up. All other hooks are in
config.json, and the runtime calls them: those of CDI, those of hooks.d under CRI-O, those of a wrapper.
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
    """Whether the engine of a bundle calls poststop of the hook that is in its config.json.

    podman may have another folder, by --hooks-dir. So a hook that is in no known folder is assumed to be in that one.
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
