# SPDX-License-Identifier: Apache-2.0
"""The record of a container that starts: where it is stored, and whether it is new or continues an earlier call's.

record.state_file has its type; mounting.apply and lifecycle.set_up decide when it is written.
"""

from __future__ import annotations

from ..errors import RecordError, UnavailableError
from ..kernel.proc import boot_id
from ..mounting.undo import reconcile
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_same_bundle
from ..rootfs.identity import is_same

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..documents.bundle import Bundle
    from ..documents.oci import State
    from ..errors import LeftoverError
    from ..kernel.namespace import Namespace
    from ..kernel.proc import Proc
    from ..options import Options
    from ..record.folder import Records
    from ..record.held import Users
    from ..record.state_file import MadeRecord, Record, RootfsRecord
    from ..requests.request import Request
    from ..rootfs.mount_points import Rootfs
    from .stage import Place


def open_folder(options: Options, place: Place, *, create: bool) -> Records | None:
    """The state folder or, in a container's user namespace where no record can be written, a stand-in.

    There, binds need no record: they end with the container's namespace. Only mount points do. Raises RecordError.
    """
    path = state_folder(options, place.proc)
    is_nested = place.stage == "createContainer" and place.proc.in_user_namespace()
    return opened_or_unrecorded(
        lambda: StateFolder.open(path, create=create), is_nested=is_nested, is_ours=place.proc.is_ours
    )


def opened_or_unrecorded(
    opened: Callable[[], StateFolder | None], *, is_nested: bool, is_ours: Callable[[], bool]
) -> Records | None:
    """The folder that ``opened`` returns, or a stand-in. Raises RecordError.

    ``is_nested``: the run is in a container's user namespace. ``is_ours``: the user of the run owns that namespace.
    """
    if is_nested and not is_ours():
        # poststop runs as the runtime's user, which is not mapped here, and refuses a folder of another user.
        reason = "nothing can be recorded in the user namespace of another user"
        return _unrecorded(reason, "create them in the image, or register the hook for createRuntime")
    try:
        return opened()
    except RecordError as problem:
        if is_nested and isinstance(problem.__cause__, OSError):
            hint = "create them in the image, pass --root a writable folder, or register the hook for createRuntime"
            return _unrecorded(problem.problem, f"{hint} if root starts the runtime")
        raise


def _unrecorded(reason: str, hint: str) -> Records:
    from ..record.unrecorded import Unrecorded

    return Unrecorded(UnavailableError(f"mount points are missing, and {reason}", hint=hint))


def new_record(state: State, bundle: Bundle, place: Place, rootfs: RootfsRecord, inherited: list[MadeRecord]) -> Record:
    """The record of a container for which nothing is done yet, with the mount points that it has inherited."""
    return {
        "id": state.id,
        "phase": "done",
        "created": 0,
        "boot": boot_id(),
        "stage": place.stage,
        "bundle": {"path": bundle.path, "dev": bundle.stat.st_dev, "ino": bundle.stat.st_ino},
        "rootfs": rootfs,
        "user": place.user(bundle),
        "namespace": {"kind": "container", "inode": 0, "unique": None},
        "init": place.init,
        "mounts": [],
        "uses": [],
        "made": inherited,
    }


def inherited(known: Record | None, rootfs: RootfsRecord, resisting: list[LeftoverError]) -> list[MadeRecord]:
    """The mount points of the dead container with the record ``known`` that could not be removed.

    The next container of its id must start, and removes them when it ends. LeftoverError if it has another rootfs.
    """
    if known is None or not known["made"]:
        return []
    if not is_same(known["rootfs"], rootfs, same_boot=known["boot"] == boot_id()):
        raise resisting[0]
    made = [one for one in known["made"] if one["identity"] is not None]
    for one in made:
        # With the current device number, which the record of the next container has.
        if one["identity"] is not None and one["identity"]["dev"] == known["rootfs"]["dev"]:
            one["identity"]["dev"] = rootfs["dev"]
    return made


def is_needed(record: Record, users: Users) -> bool:
    """Whether a record must be saved: it has something to undo, or uses mount points that other containers created."""
    if record["mounts"] or record["made"]:
        return True
    made = {made["path"] for other in users.besides(record["id"]) for made in other["made"]}
    return not made.isdisjoint(record["uses"]) or bool(users.unread and record["uses"])


def check_neighbours(requests: list[Request], others: list[Record], namespace: Namespace) -> None:
    """Refuses a read-only root if another container has binds in the same rootfs and namespace, and the reverse.

    Raises UnavailableError. Undoing one would undo the other. Containers with their own namespaces have no conflict.
    """
    has_root = any(request.is_root for request in requests)
    boot = boot_id() if others else ""
    for other in others:
        is_here = other["boot"] == boot and other["namespace"]["inode"] == namespace.inode
        # If a dead container had its own namespace, another one has reused its number: the binds ended with it.
        is_here = is_here and (other["namespace"]["kind"] == "runtime" or is_live(other, namespace.proc, boot))
        if is_here and any(has_root or mount["resolved"] == "/" for mount in other["mounts"]):
            raise UnavailableError(
                f'root.readonly would also apply to the container "{other["id"]}", which has binds in '
                "the same rootfs and "
                "mount namespace",
                hint="give each container its own rootfs or mount namespace",
            )


def complete_or_check(record: Record, rootfs: Rootfs, namespace: Namespace, place: Place) -> None:
    """Completes a new record, or checks that the record of an earlier call is for the same namespace and rootfs.

    Removes from the record what an earlier call announced but did not do, because it was killed. Raises RecordError,
    with a hint for this ``place``.
    """
    is_new = not record["namespace"]["inode"]
    if is_new or (not record["mounts"] and not record["made"]):
        unique = namespace.proc.mount_namespace_id()
        record["namespace"] = {"kind": namespace.kind, "inode": namespace.inode, "unique": unique}
        return
    check_place(record, rootfs, namespace, place.when_moved)
    reconcile(record, namespace.proc, rootfs)


def check_place(record: Record, rootfs: Rootfs, namespace: Namespace, hint: str) -> None:
    """Checks that a record belongs to this mount namespace and rootfs. Raises RecordError with the ``hint``."""
    if record["namespace"]["inode"] != namespace.inode:
        raise RecordError(f'the container "{record["id"]}" already has binds in another mount namespace', hint=hint)
    if (record["rootfs"]["dev"], record["rootfs"]["ino"]) != (rootfs.stat.dev, rootfs.stat.ino):
        raise RecordError(
            f'the container "{record["id"]}" already has binds in another rootfs, {record["rootfs"]["path"]}', hint=hint
        )


def is_continued(record: Record, bundle: str, proc: Proc) -> bool:
    """Whether a record belongs to the container that is being set up. False if its container is dead.

    Raises RecordError if it belongs to another container that is alive.
    """
    if not is_live(record, proc, boot_id()):
        return False
    if not is_same_bundle(record, bundle):
        other = record["bundle"]["path"]
        problem = f'the id "{record["id"]}" belongs to another running container, with the bundle {other}'
        raise RecordError(problem, hint="choose another id, or stop that container first; list and show describe it")
    return True
