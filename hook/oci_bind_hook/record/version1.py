# SPDX-License-Identifier: Apache-2.0
"""State files of version 1, schemas/state-file-1.json, which are read and never written.

Loaded only if there is one.
"""

from __future__ import annotations

from ..documents import oci
from ..errors import DataError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .state_file import Record


def read(document: Any, name: str) -> Record:
    """The record in a document of version 1. Raises DataError, which names the document ``name``.

    That version did not record the user namespace, the upper folder of an overlay, and the folders above the rootfs.
    Without these folders, a missing rootfs is not known to be gone.
    """
    if violations := oci.violations(document, "state-file-1"):
        raise DataError(name, violations)
    del document["version"]
    document["rootfs"] |= {"upper": None, "above": [], "mounts": []}
    document["user"] = {"owner": None, "uids": [], "gids": []}
    document["namespace"]["unique"] = None
    for mount in document["mounts"]:
        mount["by"] = mount["origin"]
        mount["origin"] = _origin(mount["by"])
        for attached in mount["attached"]:
            attached |= {member: _text(attached[member]) for member in ("root", "source", "type")}
    return document  # type: ignore[no-any-return]


def _origin(by: str) -> str:
    if by.startswith("--mount "):
        return "argument"
    return {"config.json#/root": "root"}.get(by, "mounts" if by.startswith("config.json#/mounts/") else "annotation")


def _text(quoted: str) -> str:
    r"""The text that Python's ascii() wrote in quotes and with escapes: ``\n``, ``\x0a``, ``\u0a0a``, ``\'``."""
    return quoted[1:-1].encode("ascii").decode("unicode_escape")
