# SPDX-License-Identifier: Apache-2.0
"""The record of one container: its shape, as schemas/state-file.json describes it, and what follows from its content.

Where state files are, and how they are locked and written, is unknown here.

Loaded by every start of a container: it imports only posix and time. typing takes nearly as long to import as Python to
start, so all of it stands under TYPE_CHECKING.
"""

from __future__ import annotations

import posix
import time

from ..documents import oci
from ..documents.strictjson import MAX_BYTES, documents, encoded
from ..errors import DataError
from ..kernel import linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Literal, TypedDict, cast

    from ..kernel.proc import Proc

    # The words of the record, schemas/state-file.json.
    Phase = Literal["intent", "made", "done"]
    NamespaceKind = Literal["container", "runtime"]
    MadeKind = Literal["directory", "file"]
    Filesystem = Literal["rootfs", "tmpfs"]

    class ObjectRecord(TypedDict):
        """A file or folder, by device number (posix.makedev) and inode number."""

        dev: int
        ino: int

    class PathRecord(ObjectRecord):
        """The bundle, and its path."""

        path: str

    class RootfsRecord(PathRecord):
        """The rootfs. On overlayfs (``overlay``) device and inode number change with every mount of it."""

        overlay: bool

    class NamespaceRecord(TypedDict):
        """The mount namespace of the binds: the container's, or the one that the runtime was started in."""

        kind: NamespaceKind
        inode: int

    class InitRecord(TypedDict):
        """The container's first process: its pid in the host's procfs, and its start in clock ticks since boot.

        ``first`` is the start of process 1 there, which identifies that pid namespace; None if it is hidden.
        """

        pid: int
        start: int
        first: int | None

    class AttachedRecord(TypedDict):
        """One attached mount: its id, its unique id (Linux 6.8), and root, source and type as in mountinfo.

        Both ids are None for a mount that another one hides. The texts are as Python's ascii() writes them.
        """

        id: int | None
        unique: int | None
        root: str
        source: str
        type: str

    class MountRecord(TypedDict):
        """One bind: the request and its origin, the resolved destination, and the attached mounts, the top first."""

        origin: str
        requested: dict[str, object]
        resolved: str
        source: ObjectRecord
        attached: list[AttachedRecord]

    class Identity(TypedDict):
        """How a made file or folder is recognised; ``born`` in nanoseconds since the epoch."""

        uid: int
        gid: int
        born: int | None
        dev: int | None
        ino: int | None

    class MadeRecord(TypedDict):
        """One mount point to be made; ``identity`` is None until it is known to have been made."""

        path: str
        kind: MadeKind
        filesystem: Filesystem
        identity: Identity | None

    class Record(TypedDict):
        """All that was done for one container, and all that is needed to undo it. ``created`` is in nanoseconds."""

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
    # typing.cast, without typing.
    def cast(_: object, value: object) -> object:
        return value


_ENTRY = 300  # bytes in JSON of an entry without its texts, at most


def now() -> int:
    """The time in nanoseconds since the epoch, on the clock that the kernel uses for inode timestamps."""
    return time.clock_gettime_ns(linux.CLOCK_REALTIME_COARSE)


def parse_record(data: bytes, name: str) -> Record:
    """The record in the content of a state file. Raises DataError for the document ``name``."""
    document = documents(data, name)[0]
    if violations := oci.violations(document, "state-file"):
        raise DataError(name, violations)
    return cast("Record", document)


def is_too_large(record: Record) -> bool:
    """Whether a state file with ``record`` could not be read again, now or when all that is to be made is known."""
    texts = [*record["uses"], *(made["path"] for made in record["made"])]
    for mount in record["mounts"]:
        texts += [mount["origin"], mount["resolved"], *map(str, mount["requested"].values())]
        texts += [text for attached in mount["attached"] for text in (attached["root"], attached["source"])]
    length = sum(map(len, texts))
    # No character takes more than six bytes in JSON.
    if 6 * length + _ENTRY * len(texts) < MAX_BYTES:
        return False
    return length > MAX_BYTES or len(encoded(record)) + _ENTRY * len(record["made"]) > MAX_BYTES


def is_same_bundle(record: Record, path: str) -> bool:
    """Whether a record is of the bundle at ``path``, by whatever name."""
    known = record["bundle"]
    if known["path"] == path:
        return True
    try:
        stat = posix.stat(path)
    except OSError:
        return False
    return (known["dev"], known["ino"]) == (stat.st_dev, stat.st_ino)


def heir(path: str, neighbours: Iterable[Record], is_live: Callable[[Record], bool] | None = None) -> Record | None:
    """The first of ``neighbours`` that uses the mount point at ``path`` and so takes it over; None if there is none.

    With ``is_live`` only a live one counts.
    """
    users = (other for other in neighbours if path in other["uses"])
    return next((other for other in users if is_live is None or is_live(other)), None)


def object_of(known: posix.stat_result | ObjectRecord) -> tuple[int, int]:
    """The device and inode number of a file or folder, from its stat or from its record."""
    return (known.st_dev, known.st_ino) if isinstance(known, posix.stat_result) else (known["dev"], known["ino"])


def names_other_rootfs(data: bytes, rootfs: tuple[int, int]) -> bool:
    """Whether a state file certainly names another rootfs than the one with device and inode ``rootfs``.

    Does not parse it: only a whole record of this version, as ``encoded`` writes it, is recognised. False: not sure.
    """
    # A path in the record cannot imitate the members searched for: in JSON its quotes are escaped. Of the two "dev"
    # members before "overlay" the last is the rootfs's.
    end = data.find(b',"overlay":')
    if end < 0 or not data.startswith(b'{"version":1,') or not data.endswith(b"}"):
        return False
    dev, _, ino = data[data.rfind(b'"dev":', 0, end) + 6 : end].partition(b',"ino":')
    return dev.isdigit() and ino.isdigit() and (dev, ino) != (b"%d" % rootfs[0], b"%d" % rootfs[1])


def is_live(record: Record, proc: Proc, boot: str) -> bool:
    """Whether the container of a record may still be alive.

    It may if the host has not rebooted since and its first process runs, is unknown, or belongs to another pid
    namespace and so cannot be seen here.
    """
    if record["boot"] != boot:
        return False
    init = record["init"]
    return init is None or proc.start_time(init["pid"]) == init["start"] or is_unseen(init, proc)


def is_unseen(init: InitRecord, proc: Proc) -> bool:
    """Whether a recorded pid belongs to another pid namespace than this procfs: here it is free or another process."""
    first = proc.first_start()
    return None not in (first, init["first"]) and first != init["first"]
