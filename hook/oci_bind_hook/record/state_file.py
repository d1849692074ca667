# SPDX-License-Identifier: Apache-2.0
"""The record of one container: its types, and functions that answer questions about it.

record/document.py converts it to JSON and back, record/folder.py reads and writes state files.

Loaded by every start of a container: import only posix and time. Importing typing takes nearly as long as starting
Python, so it is imported only under TYPE_CHECKING.
"""

from __future__ import annotations

import posix
import time

from ..kernel import files, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, NotRequired, TypedDict

    from ..kernel.proc import Proc

    # The words of the record, schemas/state-file.json.
    Phase = Literal["intent", "made", "done"]
    NamespaceKind = Literal["container", "runtime"]
    MadeKind = Literal["directory", "file"]
    Filesystem = Literal["rootfs", "tmpfs"]
    Origin = Literal["mounts", "argument", "annotation", "root", "attach"]

    class ObjectRecord(TypedDict):
        """A file or folder, by device number (posix.makedev) and inode number."""

        dev: int
        ino: int

    class PathRecord(ObjectRecord):
        """A folder, and its path."""

        path: str

    class RootfsRecord(PathRecord):
        """The rootfs. On overlayfs (``overlay``) its device and inode number change with every mount.

        ``upper`` is the folder with its files: the upper folder of an overlay, which does not change, or a folder that
        was bound on ``path``. None if it is unknown, or if the rootfs is a folder at ``path`` itself.
        ``above`` are the folders above ``upper`` or, without one, above the rootfs, ``/`` first. ``mounts`` are the
        indexes of those that were mount points, from 0; the length of ``above`` stands for the folder itself.
        """

        overlay: bool
        upper: PathRecord | None
        above: list[ObjectRecord]
        mounts: list[int]

    class IdRun(TypedDict):
        """A range of ``size`` ids of a user namespace, from ``inside``; ``outside`` is None if it is not visible."""

        inside: int
        outside: int | None
        size: int

    class UserRecord(TypedDict):
        """The user namespace in which this record can be undone: its owner's uid outside, and its id maps.

        The maps are those of user_namespaces(7), empty if they are unknown.
        """

        owner: int | None
        uids: list[IdRun]
        gids: list[IdRun]

    class NamespaceRecord(TypedDict):
        """The mount namespace of the binds: the container's, or the one that the runtime was started in.

        The kernel reuses ``inode``, but never ``unique``, which is None before Linux 6.11.
        """

        kind: NamespaceKind
        inode: int
        unique: int | None

    class InitRecord(TypedDict):
        """The container's first process: its pid in the host's procfs, and its start in clock ticks since boot.

        ``first`` is the start of process 1 there, which identifies that pid namespace; None if it is hidden.
        """

        pid: int
        start: int
        first: int | None

    class AttachedRecord(TypedDict):
        """One attached mount: its id, its unique id (Linux 6.8), and root, source and type as in mountinfo.

        Both ids are None for a mount that another one hides.
        """

        id: int | None
        unique: int | None
        root: str
        source: str
        type: str

    class MountRecord(TypedDict):
        """One bind: its origin, the request, the resolved destination, and its mounts, the top first.

        ``by`` is the place of the request in words, such as ``--mount 1``. ``time``, in seconds since 1970, is when a
        bind was attached to a running container.
        """

        origin: Origin
        by: str
        requested: dict[str, object]
        resolved: str
        source: ObjectRecord
        attached: list[AttachedRecord]
        time: NotRequired[int]

    class Identity(TypedDict):
        """What identifies a created file or folder; ``born`` is in nanoseconds since the epoch."""

        uid: int
        gid: int
        born: int | None
        dev: int | None
        ino: int | None

    class MadeRecord(TypedDict):
        """One mount point to be created; ``identity`` is None until it is known to have been created."""

        path: str
        kind: MadeKind
        filesystem: Filesystem
        identity: Identity | None

    class Record(TypedDict):
        """Everything done for one container that is needed to undo it. ``created`` is in nanoseconds since the epoch.

        Paths are decoded like file names: they may contain bytes that are not UTF-8. ``uses`` are the paths in the
        rootfs that its mounts depend on, each with those above it.
        """

        id: str
        phase: Phase
        created: int
        boot: str
        stage: str
        bundle: PathRecord
        rootfs: RootfsRecord
        user: UserRecord
        namespace: NamespaceRecord
        init: InitRecord | None
        mounts: list[MountRecord]
        uses: list[str]
        made: list[MadeRecord]


def now() -> int:
    """The time in nanoseconds since the epoch, on the clock that the kernel uses for inode timestamps."""
    return time.clock_gettime_ns(linux.CLOCK_REALTIME_COARSE)


def is_lost(bundle: str) -> bool:
    """Whether the runtime has lost the bundle and passes ``/`` instead, as crun may, lifecycle.lost. Raises OSError."""
    try:
        return bundle == "/" and not posix.lstat("/config.json")
    except FileNotFoundError:
        return True


def is_same_bundle(record: Record, path: str) -> bool:
    """Whether a record belongs to the bundle at ``path``, which may be another path of it. Raises OSError."""
    known = record["bundle"]
    if known["path"] == path:
        return True
    try:
        stat = posix.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return is_object(known, stat)


def is_object(known: ObjectRecord, stat: posix.stat_result) -> bool:
    """Whether ``stat`` describes the recorded file or folder."""
    return (known["dev"], known["ino"]) == (stat.st_dev, stat.st_ino)


def is_of_another_user(record: Record, here: UserRecord) -> bool:
    """Whether a record was made in a user namespace other than ``here``, from which most of it is not visible.

    The inode of a user namespace does not help: podman creates a new one, with the same maps, whenever none is left.
    """
    known = record["user"]
    if not known["uids"] and posix.geteuid():
        # Version 1 did not record it. But only inside a namespace like podman's can other users create files of uid 0.
        return any(made["identity"] is not None and made["identity"]["uid"] == 0 for made in record["made"])
    return not (_are_alike(known["uids"], here["uids"]) and _are_alike(known["gids"], here["gids"]))


def _are_alike(known: list[IdRun], here: list[IdRun]) -> bool:
    """Whether ids have the same meaning in two id maps, as far as both are known."""
    if not known or (posix.geteuid() == 0 and _changes_nothing(known) and _changes_nothing(here)):
        return True
    return len(known) == len(here) and all(
        (one["inside"], one["size"]) == (other["inside"], other["size"])
        and (None in (one["outside"], other["outside"]) or one["outside"] == other["outside"])
        for one, other in zip(known, here, strict=True)
    )


def _changes_nothing(id_map: list[IdRun]) -> bool:
    """Whether ids have the same numbers outside, as in a user namespace that root creates for itself."""
    return all(run["inside"] == run["outside"] for run in id_map)


def source_of(requested: Mapping[str, object]) -> str:
    """The source with its subpath, for people, of a recorded request or of another object with its members."""
    source, subpath = str(requested["source"]), requested.get("subpath")
    return source if subpath is None else files.below(source, str(subpath))


def places_of(mount: MountRecord, record: Record) -> tuple[str, ...]:
    """Possible mount points of a bind in mountinfo: below the rootfs or, in the container's namespace, below ``/``."""
    resolved = mount["resolved"]
    outside = record["rootfs"]["path"].rstrip("/") + (resolved if resolved != "/" else "")
    return (outside or "/",) if record["namespace"]["kind"] == "runtime" else (outside or "/", resolved)


def is_live(record: Record, proc: Proc, boot: str) -> bool:
    """Whether the container of a record may still be alive.

    True if the host has not rebooted since, and its first process runs, is unknown or hidden, or belongs to another pid
    namespace and is therefore not visible here.
    """
    if record["boot"] != boot:
        return False
    init = record["init"]
    return init is None or proc.runs(init["pid"], init["start"]) or is_unseen(init, proc)


def is_unseen(init: InitRecord, proc: Proc) -> bool:
    """Whether a recorded pid is of another pid namespace than this procfs, where it is free or another process."""
    first = proc.first_start()
    return None not in (first, init["first"]) and first != init["first"]
