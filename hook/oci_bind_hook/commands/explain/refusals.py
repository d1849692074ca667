# SPDX-License-Identifier: Apache-2.0
"""A list of what runtimes refuse: where, why, and which runtimes."""

from __future__ import annotations

from ...kernel import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BOTH = ("crun", "runc")
CRUN = ("crun",)
RUNC = ("runc",)
# What is here disappears with its container. Engines create it again for the next start.
_VOLATILE = ("/dev/shm/", "/proc/", "/run/", "/var/run/")


class Refusals:
    """``refused`` is in the form of schemas/plan.json. ``warnings`` are refusals that are not certain."""

    def __init__(self) -> None:
        self.refused: list[dict[str, object]] = []
        self.warnings: list[str] = []

    def add(self, where: str, message: str, hint: str = "", by: Sequence[str] = BOTH) -> None:
        """Adds that the runtimes ``by`` refuse what config.json has at ``where``."""
        self.refused.append({"where": f"config.json: {where}", "message": message, "hint": hint, "by": [*by]})

    def warn(self, where: str, message: str) -> None:
        self.warnings.append(f"config.json: {where}: {message}")

    def add_missing(self, where: str, path: str, message: str, hint: str = "") -> None:
        """Adds that a ``path`` of the host does not exist."""
        if files.clean_path(path).startswith(_VOLATILE):
            self.warn(where, f"{message}; the runtime refuses this unless an engine creates it first")
        else:
            self.add(where, message, hint)
