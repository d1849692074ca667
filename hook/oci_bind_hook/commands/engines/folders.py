# SPDX-License-Identifier: Apache-2.0
"""What hooks.d and CDI folders have in common, as engines read them."""

from __future__ import annotations

import os

# Of runtime-spec, config.md, "POSIX-platform Hooks".
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Listed:
    """A folder: if it ``is_there``, its ``names`` in the order of their bytes; ``trouble`` is why it cannot be read."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.is_there = True
        self.trouble = ""
        self.names: list[str] = []
        try:
            self.names = sorted(os.listdir(path), key=os.fsencode)
        except FileNotFoundError:
            self.is_there = False
        except OSError as reason:
            self.trouble = f"it cannot be read: {reason.strerror}"
