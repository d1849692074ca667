# SPDX-License-Identifier: Apache-2.0
"""The existing wrappers of OCI runtimes that ``install --runtime`` wrote."""

from __future__ import annotations

import json
import os
import shlex

from .written import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

MARK = "# An OCI runtime, written by `oci-bind-hook install`, which also replaces it."

RUNTIMES_PATH = "libexec/oci/runtimes.d"  # below the prefix
_SETTINGS = {"runtime": str, "hooks": dict, "annotations": dict}
FOLDERS = tuple(f"{prefix}/{RUNTIMES_PATH}" for prefix in ("/usr/local", "/usr"))


class File:
    """The wrapper in the file ``path``: the ``runtime`` that it calls, and the hooks that it adds.

    ``settings`` is None if install did not write the file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.settings = settings_of(path)
        known = self.settings or {"runtime": "", "hooks": {}, "annotations": {}}
        self.runtime: str = known["runtime"]
        self.hooks: dict[str, list[dict[str, Any]]] = known["hooks"]
        self.annotations: dict[str, str] = known["annotations"]

    @property
    def entry(self) -> dict[str, Any]:
        """Its hook entry, which is the same at all stages."""
        return next((entry for entries in self.hooks.values() for entry in entries), {})


def find(folders: Iterable[str]) -> Iterator[File]:
    """Yields the wrappers in these folders by name."""
    for folder in dict.fromkeys(folders):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            file = File(os.path.join(folder, name))
            if file.settings is not None:
                yield file


def settings_of(path: str) -> Any:
    """Returns the settings in a wrapper, as for oci_bind_hook.wrapper.main; None if install did not write it."""
    lines = read(path).split("\n", 3)
    if len(lines) < 4 or lines[1] != MARK or not lines[2].startswith("obh_settings="):
        return None
    try:
        found = json.loads(shlex.split(lines[2].removeprefix("obh_settings="))[0])
        is_known = {key: type(value) for key, value in found.items()} == _SETTINGS
        entries = [entry for stage in found["hooks"].values() for entry in stage] if is_known else []
        is_known = is_known and all(isinstance(entry["path"], str) and entry["args"][0] for entry in entries)
    except (ValueError, LookupError, AttributeError, TypeError):
        return None  # the file has been edited
    return found if is_known and entries else None
