# SPDX-License-Identifier: Apache-2.0
"""CDI files that name this hook (Container Device Interface, SPEC.md, "Container Edits").

Engines add such a hook to the config.json of each container that asks for the device. The files are JSON or YAML. JSON
is read; of YAML only what can be told without a parser is told, since no package that the hook needs has one.
"""

from __future__ import annotations

import json
import os

from ...documents.bundle import read_regular
from ...errors import MissingError
from ..explain import registered

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

# The default folders of the specification.
FOLDERS = ("/etc/cdi", "/var/run/cdi")
UNKNOWN = "is YAML, which is not read here: see that the hook's env is not empty; the dry-run of a container tells"


def without_env(folders: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
    """Each place that names this hook without an env, as path, JSON pointer, and whether that is certain.

    What cannot be read, or is no CDI file, is left to the engines.
    """
    for folder in folders:
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        for name in names:
            path = os.path.join(folder, name)
            try:
                text = read_regular(path).decode() if name.endswith((".json", ".yaml")) else ""
            except (MissingError, UnicodeDecodeError):
                continue
            if registered.NAME in text:
                yield from _judged(path, text)


def _judged(path: str, text: str) -> Iterator[tuple[str, str, bool]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        # Without the word no hook in it has one. With it, it may be the container's.
        yield path, "", "env:" not in text
        return
    for pointer, edits in _edits(document):
        hooks = edits.get("hooks")
        for number, hook in enumerate(hooks if isinstance(hooks, list) else ()):
            if registered.is_ours(hook) and not registered.has_env(hook):
                yield path, f"{pointer}/hooks/{number}/env", True


def _edits(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """The edits of all devices, and of each."""
    if not isinstance(document, dict):
        return
    devices = document.get("devices")
    for number, device in enumerate([document, *(devices if isinstance(devices, list) else ())]):
        edits = device.get("containerEdits") if isinstance(device, dict) else None
        if isinstance(edits, dict):
            yield f"/devices/{number - 1}/containerEdits" if number else "/containerEdits", edits
