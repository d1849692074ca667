# SPDX-License-Identifier: Apache-2.0
"""Whether the path of a source still leads to the file that is bound. A rename can put another file there.

A path may lead to a server that never answers, so a child inspects it, with a deadline.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from ...kernel import files, linux
from ...kernel.asking import SECONDS, ask
from ...kernel.mountinfo import first_that_may_wait
from ...record.state_file import source_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from ...kernel.mountinfo import MountTable
    from ...record.state_file import MountRecord, ObjectRecord

    # None: not known.
    SourceNow = Literal["same", "another", "gone"] | None

# The words after "mounted".
WORDS = {"another": "but the source path now leads to another file", "gone": "but the source path no longer exists"}


def sources_now(mounts: Sequence[MountRecord], bundle: str, table: MountTable) -> list[SourceNow]:
    """Returns what the source path of each recorded bind leads to in this boot.

    Paths are grouped by the first mount on them in ``table`` that may not answer, so that one silent server does not
    affect the other groups. The table does not show whether a link leads to such a mount.
    """
    paths = [files.below(bundle, source_of(mount["requested"])) for mount in mounts]
    groups: dict[int | None, list[int]] = {}
    for number, path in enumerate(paths):
        first = first_that_may_wait(table, path)
        groups.setdefault(None if first is None else first.id, []).append(number)
    found: list[SourceNow] = [None] * len(mounts)
    for numbers in groups.values():
        question = partial(_compare_all, [(paths[number], mounts[number]["source"]) for number in numbers])
        try:
            answers = ask(question, SECONDS).answer
        except OSError:
            continue  # no child can be started, and this process must not risk to hang
        for number, answer in zip(numbers, answers or (), strict=False):
            found[number] = answer
    return found


def _compare_all(asked: Sequence[tuple[str, ObjectRecord]]) -> list[SourceNow]:
    return [_compare_at(path, bound) for path, bound in asked]


def _compare_at(path: str, bound: ObjectRecord) -> SourceNow:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as reason:
        return "gone" if reason.errno in (errno.ENOENT, errno.ENOTDIR) else None
    try:
        # The file system below an expired automount(8) mount is mounted again on access.
        if linux.fstatfs_type(fd) == linux.AUTOFS_SUPER_MAGIC:
            return None
        stat = os.fstat(fd)
    except OSError:
        return None
    finally:
        os.close(fd)
    return compare(stat.st_dev, stat.st_ino, bound)


def compare(dev: int, ino: int, bound: ObjectRecord) -> SourceNow:
    """Returns whether a file is the one that was bound."""
    return "same" if (dev, ino) == (bound["dev"], bound["ino"]) else "another"
