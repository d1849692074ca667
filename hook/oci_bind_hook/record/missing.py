# SPDX-License-Identifier: Apache-2.0
"""Why a state folder cannot be created: this user may not create it, or the folder above it does not exist either.

Loaded only after a failure. /run/user/UID does not exist for a user who has not logged in, as under su(1) and cron(8).
"""

from __future__ import annotations

import posix

from ..errors import RecordError
from ..kernel.files import USERS


def check_above(path: str) -> None:
    """Raises RecordError if the folder above the state folder ``path`` does not exist."""
    above = _above(path)
    if (reason := _refusal(above)) is not None:
        text = f"the state folder {path} cannot be created: {above} does not exist"
        raise RecordError(text, hint=hint(path)) from reason


def hint(path: str) -> str:
    """What to do if this user cannot create the state folder ``path``."""
    above = _above(path)
    if _refusal(above) is None:
        return f"create the folder {path}, owned by this user and with mode 0700, or choose another one by --root"
    users, _, uid = above.rpartition("/")
    how = f", as `loginctl enable-linger {uid}` does" if users == USERS else ""
    others = "--root or by XDG_RUNTIME_DIR in the hook's env" if how else "--root"
    return f"create the folder {above}, owned by this user{how}, or choose another state folder by {others}"


def _above(path: str) -> str:
    return path.rpartition("/")[0] or "/"


def _refusal(path: str) -> FileNotFoundError | None:
    """The error if nothing is at ``path``. None also if this user may not inspect it."""
    try:
        posix.lstat(path)
    except OSError as reason:
        return reason if isinstance(reason, FileNotFoundError) else None
    return None
