# SPDX-License-Identifier: Apache-2.0
"""The text of --version."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys

from .. import FOLDER, __version__
from ..kernel import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    __loader__: Any


def version() -> str:
    """Returns this version, its commit, and the Python and the kernel that it runs on."""
    there = [name for name, is_there in linux.features().items() if is_there]
    return (
        f"oci-bind-hook {__version__}\n"
        f"commit: {commit() or 'unknown'}\n"
        f"Python: {sys.version.split()[0]}\n"
        f"kernel: {os.uname().release} ({', '.join(there)})\n"
    )


def commit() -> str:
    """Returns the commit that was built, or that pip fetched by version control (direct_url.json), "" if not known."""
    try:
        data: bytes = __loader__.get_data(os.path.join(FOLDER, "commit"))
        return data.decode().strip()
    except OSError:
        pass
    try:
        text = importlib.metadata.distribution("oci-bind-hook").read_text("direct_url.json")
        return str(json.loads(text or "{}").get("vcs_info", {}).get("commit_id", ""))
    except (importlib.metadata.PackageNotFoundError, ValueError, AttributeError):
        return ""
