# SPDX-License-Identifier: Apache-2.0
"""The table of reasons itself: what must stand in it, and when nothing is said."""

from __future__ import annotations

import errno
import os

import pytest

from oci_bind_hook.kernel import errnos
from oci_bind_hook.record.indexes import refused

# The refusals that people meet, and the word that leads them on.
WANTED = [
    ("mkdirat", errno.ENOSPC, "disk"),
    ("mkdirat", errno.EROFS, "register the hook for createRuntime"),
    ("mknodat", errno.ENOSPC, "disk"),
    ("mknodat", errno.EROFS, "register the hook for createRuntime"),
    ("open_tree", errno.EINVAL, "rbind"),
    ("mount(MS_BIND)", errno.EINVAL, "rbind"),
    ("move_mount", errno.ENOSPC, "mount-max"),
    ("mount(MS_MOVE)", errno.ENOSPC, "mount-max"),
    ("mount_setattr", errno.EPERM, "locked"),
    ("unshare", errno.ENOSPC, "user.max_user_namespaces"),
    ("openat", errno.ELOOP, "loop"),
    ("openat", errno.ENAMETOOLONG, "255"),
    ("openat", errno.ENOTDIR, "not a folder"),
    ("openat", errno.EMFILE, "RLIMIT_NOFILE"),
    ("openat", errno.ESTALE, "NFS"),
    ("openat", errno.ENOTCONN, "FUSE"),
    ("unlinkat", errno.EBUSY, "mount point"),
    ("unlinkat", errno.EPERM, "lsattr(1)"),
    ("state", errno.EROFS, "--root"),
    ("state", errno.ENOSPC, "--root"),
]


def refusal(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(("call", "number", "word"), WANTED)
def test_what_people_meet_has_a_hint(call: str, number: int, word: str) -> None:
    assert word in errnos.hint(call, refusal(number))


@pytest.mark.parametrize(("call", "number"), errnos.NEEDS)
def test_what_is_forbidden_without_a_capability_may_be_so_with_it(call: str, number: int) -> None:
    assert errnos.HINTS.get((call, number)) or errnos.HINTS["", number]


@pytest.mark.parametrize("reason", [OSError(errno.EIO, "it did not become ro"), OSError("odd"), refusal(errno.ENOENT)])
def test_nothing_is_said_of_what_is_plain_or_our_own(reason: OSError) -> None:
    assert errnos.hint("move_mount" if reason.errno == errno.EIO else "openat", reason) == ""


def test_every_hint_is_one_short_line() -> None:
    assert [text for text in errnos.HINTS.values() if not text.isprintable() or len(text) > 100] == []


def test_who_may_not_open_the_state_folder_is_not_told_to_change_it() -> None:
    refusal = refused("the state folder /s cannot be opened", PermissionError(errno.EACCES, "Permission denied"))
    advice = "run this as a user who may write there, or choose another folder with --root"
    assert str(refusal) == f"the state folder /s cannot be opened: Permission denied ({advice})"
