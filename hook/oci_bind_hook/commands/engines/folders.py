# SPDX-License-Identifier: Apache-2.0
"""What hooks.d and CDI folders have in common when engines read them."""

from __future__ import annotations

import os

# runtime-spec, config.md, "POSIX-platform Hooks".
STAGES = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")


class Listed:
    """A folder: whether it ``is_there``, its ``names`` sorted by bytes, and ``trouble``, why it cannot be read."""

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
