# SPDX-License-Identifier: Apache-2.0
"""What runtimes refuse, noted: where, why, and which of them."""

from __future__ import annotations

from ...kernel import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BOTH = ("crun", "runc")
CRUN = ("crun",)
RUNC = ("runc",)
# What stands there is gone when its container is, and engines make it anew for the next start.
_VOLATILE = ("/dev/shm/", "/proc/", "/run/", "/var/run/")


class Refusals:
    """What is found: ``refused``, as schemas/plan.json has it, and ``warnings`` of what is not sure."""

    def __init__(self) -> None:
        self.refused: list[dict[str, object]] = []
        self.warnings: list[str] = []

    def add(self, where: str, message: str, hint: str = "", by: Sequence[str] = BOTH) -> None:
        """Takes note that the runtimes ``by`` refuse what config.json has at ``where``."""
        self.refused.append({"where": f"config.json: {where}", "message": message, "hint": hint, "by": [*by]})

    def warn(self, where: str, message: str) -> None:
        self.warnings.append(f"config.json: {where}: {message}")

    def add_missing(self, where: str, path: str, message: str) -> None:
        """Takes note of a ``path`` of the host that is not there."""
        if files.clean_path(path).startswith(_VOLATILE):
            self.warn(where, f"{message}; the runtime refuses this unless an engine creates it first")
        else:
            self.add(where, message)
