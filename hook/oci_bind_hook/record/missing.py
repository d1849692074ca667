# SPDX-License-Identifier: Apache-2.0
"""Why a state folder cannot be created: the folder above it does not exist either, and this user may not create it.

Loaded only after a failure. /run/user/UID does not exist for a user who has not logged in, as under su(1) and cron(8).
"""

from __future__ import annotations

import posix

from ..errors import RecordError
from ..kernel.files import USERS


def check_above(path: str) -> None:
    """Raises RecordError if the folder above the state folder ``path`` does not exist."""
    above = path.rpartition("/")[0] or "/"
    try:
        posix.lstat(above)
    except FileNotFoundError as reason:
        raise RecordError(
            f"the state folder {path} cannot be created: {above} does not exist", hint=hint(path)
        ) from reason
    except OSError:
        pass  # whether it exists is not known


def hint(path: str) -> str:
    """What to do if the folder above the state folder ``path`` does not exist."""
    above = path.rpartition("/")[0] or "/"
    users, _, uid = above.rpartition("/")
    how = f", as `loginctl enable-linger {uid}` does" if users == USERS else ""
    others = "--root or by XDG_RUNTIME_DIR in the hook's env" if how else "--root"
    return f"create the folder {above}, owned by this user{how}, or choose another state folder by {others}"
