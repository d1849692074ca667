# SPDX-License-Identifier: Apache-2.0
"""Whether a rootfs answers, tested before it is accessed to undo or describe a record.

Loaded only if the mount table shows a file system whose server may not answer, and never after setns(2).
"""

from __future__ import annotations

import posix

from ..errors import HookError
from ..kernel.asking import ask
from ..kernel.mountinfo import first_that_may_wait, may_wait
from .identity import identify, is_gone
from .mount_points import Rootfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..kernel.mountinfo import MountInfo, MountTable
    from ..record.state_file import Record


class Silence:
    """Finds out which mounts in ``table``, those of this mount namespace, do not answer.

    ``known`` are earlier results, not tested again: sets of mount ids, of which one did not answer, and the message.
    """

    def __init__(self, table: MountTable, known: dict[frozenset[int], str] | None = None) -> None:
        self.known = {} if known is None else known
        self._table = table

    def why(self, record: Record, seconds: float, *, here: bool) -> str:
        """Why the record cannot be undone now: the mounts that do not answer within ``seconds``; "" if all answer.

        ``here``: the binds are in this mount namespace.
        """
        points = [*self._points(record)] if here else []
        rootfs = record["rootfs"]
        # The table has no layers of an overlay that is not mounted now, so the path of its upper folder is tested too.
        places = [each["path"] for each in (rootfs, rootfs["upper"]) if each is not None]
        mounts = [first_that_may_wait(self._table, place) for place in places] + [mount for _, mount in points]
        on_the_way = {mount.id: mount for mount in mounts if mount is not None}
        if silent := next((silence for way, silence in self.known.items() if way.issubset(on_the_way)), ""):
            return silent
        if not on_the_way:
            return ""
        who = " or ".join(f"{mount.mount_point} ({mount.type})" for mount in on_the_way.values())
        try:
            outcome = ask(lambda: self._look_up_all(record, [point for point, _ in points]), seconds)
        except OSError as reason:  # without a child this process could wait forever
            return f"{who} may not answer, and no child process can be started to test it: {reason}"
        if not outcome.is_silent:
            return ""
        silence = self.known[frozenset(on_the_way)] = outcome.silence(who)
        return silence

    def _look_up_all(self, record: Record, points: list[str]) -> None:
        """Makes all lookups that undoing the record requires. The results are ignored; only an answer counts."""
        for point in points:
            try:
                posix.close(posix.open(point, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC))
            except OSError:
                continue
        known = record["rootfs"]
        for same_boot in (True, False):  # each stops at the first folder that differs
            is_gone(known, same_boot=same_boot)
        try:
            rootfs = Rootfs(known["path"])
            identify(known["path"], rootfs.fd, lambda: self._table)
        except (OSError, HookError):
            return
        for made in record["made"]:
            try:
                found = rootfs.find(made["path"], across=False)
            except OSError:
                continue
            if found is not None:
                found.close()

    def _points(self, record: Record) -> Iterator[tuple[str, MountInfo]]:
        """The mount points of a record's binds whose lookup may wait, each with the mount that it may wait for."""
        ids = {known["id"] for mount in record["mounts"] for known in mount["attached"]}
        for mount in record["mounts"]:
            info = self._table.get(mount["attached"][0]["id"])
            above = [*self._table.above(info)] if info is not None else []
            # A mount in a silent bind of this record is detached with that bind, without a lookup, mounting.mounted.
            if info is None or not above or any(each.id in ids and may_wait(each.type) for each in above):
                continue
            if (first := first_that_may_wait(self._table, above[0].mount_point)) is not None:
                yield info.mount_point, first
