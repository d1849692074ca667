# SPDX-License-Identifier: Apache-2.0
"""A running container: which of its binds are mounted, by its record and the mount table of its init."""

from __future__ import annotations

import os

from ...errors import RecordError
from ...kernel.proc import HiddenError, boot_id
from ...mounting.mounted import is_in
from ...options import state_folder
from ...record.folder import StateFolder
from ...record.state_file import is_live, is_same_bundle, places_of, source_of
from ...requests.request import Recorded
from ..moments import asked_by
from ..upkeep.replaced import compare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ...documents.bundle import Bundle
    from ...documents.oci import State
    from ...kernel.proc import Proc
    from ...mounting.plan import Bind
    from ...options import Options
    from ...record.state_file import MountRecord, Record
    from ..upkeep.replaced import SourceNow
    from .containers import Container


class Running:
    """The container ``name`` with its record, None without one, and the pid of its init, None if it is not known."""

    def __init__(self, name: str, record: Record | None, pid: int | None, proc: Proc) -> None:
        self._name = name
        self._pid = record["init"]["pid"] if record is not None and record["init"] is not None else pid
        self._has_record = record is not None
        table = proc.mounts() if self._pid is None else proc.mounts_of(self._pid)
        self._table = table
        self._points = {info.mount_point for info in table}
        self._namespace = proc.mount_namespace_id() if self._pid is None else proc.mount_namespace_id_of(self._pid)
        if self._pid is None and record is not None and record["namespace"]["inode"] != proc.mount_namespace():
            self._points = set()  # its binds are in another namespace, and no process that shows it is known
        self._record = record
        self._recorded = record["mounts"] if record is not None else []
        self._known = Recorded(self._recorded)
        self._asked: set[int] = set()  # by id(), since records are not hashable

    def facts(self) -> dict[str, object]:
        """Returns the member ``running`` of schemas/plan.json."""
        return {"id": self._name, "pid": self._pid, "recorded": self._has_record, "visible": bool(self._points)}

    def has(self, bind: Bind, rootfs: str) -> bool | None:
        """Whether a bind is mounted now. None if this user may not inspect it, or its destination is not resolved."""
        mount = self._known.find(bind.request)
        if mount is not None:
            self._asked.add(id(mount))
        if not self._points or bind.target is None:
            return None
        if mount is not None:
            return self._is_in(mount)
        # Without a pid, these are the mounts of this process: only those below the rootfs are the container's.
        inside = () if self._pid is None else (bind.target.path,)
        return not self._points.isdisjoint((*inside, rootfs + bind.target.path))

    def source_now(self, bind: Bind) -> SourceNow:
        """Compares what a bind's source path leads to now with the record. None if that is not known."""
        mount = self._known.find(bind.request)
        if mount is None:
            return None
        if bind.source.is_open:
            return compare(bind.source.stat.dev, bind.source.stat.ino, mount["source"])
        return "gone" if bind.source.is_missing else None

    def _is_in(self, mount: MountRecord) -> bool:
        places = places_of(mount, self._record) if self._record is not None else None
        return is_in(mount["attached"][0], self._table, self._namespace, places)

    def others(self, *, is_for_people: bool = True) -> Iterator[str]:
        """Yields the recorded binds that ``has`` was not called for, as lines with times for people or programs."""
        for mount in self._recorded:
            if id(mount) not in self._asked:
                who = asked_by(mount["by"], mount.get("time"), is_for_people=is_for_people)
                what = f"{source_of(mount['requested'])} on {mount['resolved']}, requested by {who}"
                there = "is mounted in" if self._is_in(mount) else "is recorded for"
                yield f"{what}, {there} the running container, but is not in this plan"


def load(options: Options, proc: Proc, container: str) -> Record | None:
    """The record of a container. None if it has none or this user may not read it. As root, raises RecordError."""
    try:
        folder = StateFolder.open(state_folder(options, proc), create=False)
        return folder.load(container) if folder else None
    except RecordError:
        if os.geteuid() == 0:
            raise
        return None


def _may_run(pid: int, proc: Proc) -> bool:
    """Whether a process runs or is hidden. A zombie has ended, even if its engine has not noticed yet."""
    try:
        return proc.start_time(pid) is not None
    except HiddenError:
        return True


def find_running(
    options: Options,
    bundle: Bundle,
    records: Iterable[Record],
    state: State | None,
    proc: Proc,
    container: Container | None,
) -> Running | None:
    """Returns the running container of a bundle, or None. ``records`` are those on its rootfs.

    If ``container`` is given, only that one counts.
    """
    if state is not None:
        if state.status != "running":
            return None
        return Running(state.id, load(options, proc, state.id), state.pid, proc)
    mine = [each for each in records if is_same_bundle(each, bundle.path) and is_live(each, proc, boot_id())]
    if container is not None:
        mine = [each for each in mine if each["id"] == container.id]
        if not mine and container.pid is not None and _may_run(container.pid, proc):
            return Running(container.id, None, container.pid, proc)
    return Running(mine[0]["id"], mine[0], None, proc) if mine else None
