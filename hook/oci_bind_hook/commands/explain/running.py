# SPDX-License-Identifier: Apache-2.0
"""A running container: which of its binds are mounted, by its record and the mount table of its init."""

from __future__ import annotations

from ...mounting.mounted import is_in
from ...record.state_file import places_of
from ...requests.request import Recorded, source_of
from ..upkeep.replaced import compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from ...kernel.proc import Proc
    from ...mounting.plan import Bind
    from ...record.state_file import MountRecord, Record
    from ..upkeep.replaced import SourceNow


class Running:
    """The container ``name`` with its record, if there is one, and the pid of its init, if that is known."""

    def __init__(self, name: str, record: Record | None, pid: int | None, proc: Proc) -> None:
        self._name = name
        self._pid = record["init"]["pid"] if record is not None and record["init"] is not None else pid
        self._has_record = record is not None
        table = proc.mounts() if self._pid is None else proc.mounts_of(self._pid)
        self._table = table
        self._points = {info.mount_point for info in table}
        self._namespace = proc.mount_namespace_id() if self._pid is None else proc.mount_namespace_id_of(self._pid)
        self._record = record
        self._recorded = record["mounts"] if record is not None else []
        self._known = Recorded(self._recorded)
        self._asked: set[int] = set()  # by id(), since records are no keys

    def facts(self) -> dict[str, object]:
        """The member ``running`` of schemas/plan.json."""
        return {"id": self._name, "pid": self._pid, "recorded": self._has_record, "visible": bool(self._points)}

    def has(self, bind: Bind, rootfs: str) -> bool | None:
        """Whether a bind is mounted now. None if this user may not look, or if its destination is not resolved."""
        mount = self._known.find(bind.request)
        if mount is not None:
            self._asked.add(id(mount))
        if not self._points or bind.target is None:
            return None
        if mount is not None:
            return self._is_in(mount)
        return not self._points.isdisjoint((bind.target.path, rootfs + bind.target.path))

    def source_now(self, bind: Bind) -> SourceNow:
        """What the path of a bind's source leads to now, by the record. None if that is not known."""
        mount = self._known.find(bind.request)
        if mount is None:
            return None
        if bind.source.is_open:
            return compare(bind.source.stat.dev, bind.source.stat.ino, mount["source"])
        return "gone" if bind.source.is_missing else None

    def _is_in(self, mount: MountRecord) -> bool:
        places = places_of(mount, self._record) if self._record is not None else None
        return is_in(mount["attached"][0], self._table, self._namespace, places)

    def others(self) -> Iterator[str]:
        """The recorded binds that no call of ``has`` asked for, one line each."""
        for mount in self._recorded:
            if id(mount) not in self._asked:
                source = source_of(mount["requested"])
                what = f"{source} on {mount['resolved']}, asked for by {mount['by']}"
                there = "is mounted" if self._is_in(mount) else "is recorded"
                yield f"{what}, {there} in the container that runs, and is not in this plan"
