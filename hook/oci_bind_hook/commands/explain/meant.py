# SPDX-License-Identifier: Apache-2.0
"""What a word stands for that is given to explain: the folder of a bundle, a file that is its config, or a container.

A runtime takes a folder only, while engines tell of the file: `podman inspect` has its path as OCIConfigPath.
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
    """The one word that is to be explained, of those given; without one the current folder. UsageError."""
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
    """Whether a word names a file or folder by itself: no id or name of a container has a slash, nor is it a dot."""
    return "/" in text or text in (".", "..")


def bundle_of(path: str) -> tuple[str, str]:
    """The bundle that an absolute path means, and the file that is read in place of its config.json, "" for none.

    A file of the name config.json stands for its folder, wherever it leads to, as it does for a runtime. Of another
    name, it stands for what it leads to through links.
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
        return path  # whoever reads it will say why
