# SPDX-License-Identifier: Apache-2.0
"""What the argument of explain and install --check means: a bundle's folder, a file that is its config, a container.

A runtime only takes a folder. Engines name the file: `podman inspect` has its path as OCIConfigPath.
"""

from __future__ import annotations

import os

from ...errors import UsageError
from ...kernel import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIG = "config.json"


def word(words: Sequence[str]) -> str:
    """Returns the one argument of explain, "." without any. Raises UsageError."""
    if len(words) > 1:
        raise UsageError(f'"{words[1]}" is unexpected', where=words[0], hint="explain takes one bundle")
    if words:
        return words[0]
    if not os.path.lexists(CONFIG):
        raise UsageError(
            "the current folder has no config.json",
            where="explain",
            hint="pass the folder of a bundle, its config.json, or the id or name of a container",
        )
    return "."


def is_path(text: str) -> bool:
    """Whether the argument is a path. An id or a name of a container has no slash and is not "." or ".."."""
    return "/" in text or text in (".", "..")


def bundle_of(path: str) -> tuple[str, str]:
    """Returns the bundle that an absolute path refers to, and the file that replaces its config.json, "" for none.

    A file named config.json refers to its folder even if it is a link, as for a runtime. For a file of any other name,
    links are followed first.
    """
    if not os.path.lexists(path) or os.path.isdir(path):
        return path, ""
    if os.path.basename(path) != CONFIG:
        path = _real(path)
    folder, name = os.path.split(path)
    return folder, "" if name == CONFIG else path


def _real(path: str) -> str:
    try:
        return files.real_path(path)
    except OSError:
        return path  # the caller reads it and reports the error
