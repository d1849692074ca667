# SPDX-License-Identifier: Apache-2.0
"""The state file: what is recorded of one container, as schemas/state-file.json describes it, and what follows from it.

Where the files are, and how they are locked and written, is not known here.
"""

from __future__ import annotations

import os
import time

from ..documents import oci
from ..documents.strictjson import documents
from ..errors import DataError
from ..kernel import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Literal, TypedDict, cast

    from ..kernel.proc import Proc

    # The words of the record, schemas/state-file.json.
    Phase = Literal["intent", "made", "done"]
    NamespaceKind = Literal["container", "runtime"]
    MadeKind = Literal["directory", "file"]
    Filesystem = Literal["rootfs", "tmpfs"]

    class ObjectRecord(TypedDict):
        """A file or folder, by device (os.makedev) and inode number."""

        dev: int
        ino: int

    class PathRecord(ObjectRecord):
        """The bundle, and where it was."""

        path: str

    class RootfsRecord(PathRecord):
        """The rootfs; on overlayfs device and inode numbers change with every mount of it."""

        overlay: bool

    class NamespaceRecord(TypedDict):
        """The mount namespace that was mounted in: one that the runtime made, or its own."""

        kind: NamespaceKind
        inode: int

    class InitRecord(TypedDict):
        """The container's first process: pid as the host's procfs numbers it, start in clock ticks since boot.

        ``first`` is the start of process 1 there, by which that pid namespace is known, None where nothing tells it.
        """

        pid: int
        start: int
        first: int | None

    class AttachedRecord(TypedDict):
        """One mount that was attached: its id, the one never used again (Linux 6.8), and what mountinfo says of it.

        No ids where another mount hides it. The texts are as Python's ascii() writes them.
        """

        id: int | None
        unique: int | None
        root: str
        source: str
        type: str

    class MountRecord(TypedDict):
        """One bind: who asked for what, where it led, and the mounts it consists of, the top first."""

        origin: str
        requested: dict[str, object]
        resolved: str
        source: ObjectRecord
        attached: list[AttachedRecord]

    class Identity(TypedDict):
        """How a file or folder that was made is known again."""

        uid: int
        gid: int
        born: int | None
        dev: int | None
        ino: int | None

    class MadeRecord(TypedDict):
        """One file or folder that was made to be mounted on; ``identity`` None until it is known that it was."""

        path: str
        kind: MadeKind
        filesystem: Filesystem
        identity: Identity | None

    class Record(TypedDict):
        """All that was done for one container, and all that is needed to undo it."""

        version: Literal[1]
        id: str
        phase: Phase
        created: int
        boot: str
        stage: str
        bundle: PathRecord
        rootfs: RootfsRecord
        namespace: NamespaceRecord
        init: InitRecord | None
        mounts: list[MountRecord]
        uses: list[str]
        made: list[MadeRecord]

else:

    def cast(_: object, value: object) -> object:
        return value


def now() -> int:
    """The time in nanoseconds since the epoch on the clock of the kernel's inode timestamps."""
    return time.clock_gettime_ns(linux.CLOCK_REALTIME_COARSE)


def parse_record(data: bytes, name: str) -> Record:
    """The record in a state file. DataError with ``name``."""
    document = documents(data, name)[0]
    if violations := oci.violations(document, "state-file"):
        raise DataError(name, violations)
    return cast("Record", document)


def is_same_bundle(record: Record, path: str) -> bool:
    """Whether a record is of the bundle at ``path``, by whatever name."""
    known = record["bundle"]
    if known["path"] == path:
        return True
    try:
        stat = os.stat(path)
    except OSError:
        return False
    return (known["dev"], known["ino"]) == (stat.st_dev, stat.st_ino)


def heir(path: str, neighbours: Iterable[Record]) -> Record | None:
    """The first of ``neighbours`` that uses what was made at a path, to whom it is handed over; None if nobody does."""
    return next((other for other in neighbours if path in other["uses"]), None)


def object_of(known: os.stat_result | ObjectRecord) -> tuple[int, int]:
    """Device and inode number of a file or folder, as it is or as it was recorded."""
    return (known.st_dev, known.st_ino) if isinstance(known, os.stat_result) else (known["dev"], known["ino"])


def names_other_rootfs(data: bytes, rootfs: tuple[int, int]) -> bool:
    """Whether a record of this version, whole and as we write it, names another rootfs, without a look at the rest.

    Text cannot be taken for it: in JSON its quotes are escaped. False says nothing.
    """
    end = data.find(b',"overlay":')
    if end < 0 or not data.startswith(b'{"version":1,') or not data.endswith(b"}"):
        return False
    dev, _, ino = data[data.rfind(b'"dev":', 0, end) + 6 : end].partition(b',"ino":')
    return dev.isdigit() and ino.isdigit() and (dev, ino) != (b"%d" % rootfs[0], b"%d" % rootfs[1])


def is_live(record: Record, proc: Proc, boot: str) -> bool:
    """Whether the container of a record may still be there: same boot, and its first process runs, if it has one.

    It may where that process is one of another pid namespace, which is not seen here, whether it runs or not.
    """
    if record["boot"] != boot:
        return False
    init = record["init"]
    return init is None or proc.start_time(init["pid"]) == init["start"] or is_unseen(init, proc)


def is_unseen(init: InitRecord, proc: Proc) -> bool:
    """Whether a pid is one of another pid namespace than this procfs has: here nobody has it, or a stranger."""
    first = proc.first_start()
    return None not in (first, init["first"]) and first != init["first"]
