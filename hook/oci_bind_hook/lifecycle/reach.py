# SPDX-License-Identifier: Apache-2.0
"""Whether the rootfs and the binds of a record can be reached now: they are here, elsewhere, gone, or not visible.

What is not visible is not gone: a LeftoverError keeps the record, and has a hint what to do.
"""

from __future__ import annotations

from ..errors import EscapeError, LeftoverError, MissingError
from ..kernel.errnos import hint as advice
from ..kernel.mountinfo import may_wait
from ..kernel.proc import boot_id
from ..mounting.mounted import DoubtError, is_in
from ..rootfs.identity import identify, is_gone, is_same
from ..rootfs.mount_points import Rootfs
from .claims import is_same_namespace, stands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..errors import HookError
    from ..kernel.mountinfo import MountTable
    from ..kernel.proc import Proc
    from ..record.held import Users
    from ..record.state_file import Record, RootfsRecord
    from ..rootfs.mount_points import OwnerOf
    from ..rootfs.silence import Silence
    from .claims import Claimed

ANSWER_SECONDS = 3.0  # the time limit for a rootfs on FUSE or on the network to answer


class Removal:
    """The rootfs in which the mount points of ``record`` are removed. It stays open until the block ends.

    ``rootfs`` is None if it is gone; if it is not visible now, with ``problem`` as the reason, for example ``silent``;
    or if the record has no mount points: then it is not accessed (``is_asked`` is false), because it may not answer.
    ``now`` identifies the rootfs as it is now or, if it is not open, as recorded; ``all`` are both, to be locked.
    """

    # The rootfs is opened before it is locked: its keys decide which locks to take, and only an open fd stays the same
    # rootfs. Another process may mount an overlay again between both steps, which then has other keys.

    def __init__(self, record: Record, proc: Proc, owner_of: OwnerOf | None = None, silent: str = "") -> None:
        self.rootfs: Rootfs | None = None
        self.problem: LeftoverError | None = None
        self.now = record["rootfs"]
        self.is_asked = bool(record["made"])
        if silent:
            self.problem = _unlooked(self.now, silent, silent_hint(proc))
        elif self.is_asked:
            try:
                if (found := find_rootfs(record, proc, owner_of)) is not None:
                    self.rootfs, self.now = found
            except LeftoverError as problem:
                self.problem = problem
        self.all = [self.now] if self.now is record["rootfs"] else [self.now, record["rootfs"]]

    def __enter__(self) -> Removal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.rootfs is not None:
            self.rootfs.close()

    def why_kept(self, users: Users) -> str | HookError:
        """Why no mount point can be removed now, "" if they can.

        A neighbour whose record cannot be read may be alive and use the same mount points.
        """
        return self.problem if self.problem is not None else next(iter(users.unread), "")


def silent_hint(proc: Proc) -> str:
    """What to do about a rootfs that does not answer."""
    return f"restart or stop its server, or unmount it with umount -f; then run {proc.command('gc')}"


def find_rootfs(record: Record, proc: Proc, owner_of: OwnerOf | None = None) -> tuple[Rootfs, RootfsRecord] | None:
    """The rootfs of a record, and what identifies it now; None if it is certainly gone, rootfs.identity.is_gone.

    One that is not at its path may be elsewhere, rootfs.elsewhere. Raises LeftoverError if it is not found now. A
    rootfs that does not answer is not gone, nor is one whose file system is not mounted at this moment.
    """
    known = record["rootfs"]
    try:
        rootfs = Rootfs(known["path"], owner_of=owner_of)
    except MissingError as problem:
        return _elsewhere(record, proc, owner_of, problem)
    except EscapeError as problem:
        raise LeftoverError(problem.problem, hint=_mount_hint(record, proc)) from problem
    try:
        now = identify(known["path"], rootfs.fd, proc.mounts)
    except OSError as reason:
        rootfs.close()
        raise _unlooked(known, str(reason.strerror), advice("openat", reason) or _mount_hint(record, proc)) from reason
    upper = known["upper"] if known["overlay"] and now["upper"] is None else None  # that cannot be inspected now
    if is_same(known, now, same_boot=record["boot"] == boot_id()) and upper is None:
        return rootfs, now
    rootfs.close()
    why = f"{known['path']} is now another file system"
    if upper is not None and now["overlay"]:
        # Without it, containers that were on the same rootfs before it was mounted again would not be neighbours.
        why = f"the upper folder {upper['path']} cannot be inspected"
    return _elsewhere(record, proc, owner_of, LeftoverError(why))


def _elsewhere(
    record: Record, proc: Proc, owner_of: OwnerOf | None, problem: HookError
) -> tuple[Rootfs, RootfsRecord] | None:
    """As ``find_rootfs``, for a rootfs that is not at its path, as ``problem`` says."""
    known, same_boot = record["rootfs"], record["boot"] == boot_id()
    if is_gone(known, same_boot=same_boot):
        return None
    from ..rootfs import elsewhere

    table = proc.mounts()
    if found := elsewhere.find(known, table, owner_of, same_boot=same_boot):
        return found
    if elsewhere.is_unmounted(known, table, same_boot=same_boot):
        raise LeftoverError(
            f"the rootfs {known['path']} is not mounted in this mount namespace",
            hint=f"remove the container, or mount its rootfs as podman mount does; then run {proc.command('gc')}",
        ) from problem
    raise LeftoverError(problem.problem, hint=problem.hint or _mount_hint(record, proc)) from problem


def _mount_hint(record: Record, proc: Proc) -> str:
    """What to do about a rootfs that may exist, but not here and now."""
    otherwise = f'if its file system no longer exists, delete the state file of "{record["id"]}"'
    return f"mount the rootfs, then run {proc.command('gc')}; {otherwise}"


def check_answers(record: Record, proc: Proc, boot: str, *, may_give_up: bool) -> str:
    """Why the rootfs of a record must not be accessed, "" if it can be. Raises LeftoverError if it is needed.

    ``may_give_up``: its mount points need not be removed, only its binds must be unmounted.
    """
    silent = why_silent(record, proc, boot, lambda: listen(proc.mounts()), ANSWER_SECONDS)
    # If the binds are in another namespace and the mount points are given up, the rootfs is not needed.
    if silent and (is_in_this_namespace(record, proc, boot) or not may_give_up):
        raise _unlooked(record["rootfs"], silent, silent_hint(proc))
    return silent


def why_silent(record: Record, proc: Proc, boot: str, listener: Callable[[], Silence | None], seconds: float) -> str:
    """Why a record cannot be undone without waiting for a server that does not answer, "" if it can be.

    ``listener`` returns the result of ``listen``, and is called only if something in the rootfs is needed.
    """
    here = is_in_this_namespace(record, proc, boot)
    silence = listener() if record["made"] or (here and record["mounts"]) else None
    return silence.why(record, seconds, here=here) if silence is not None else ""


def listen(table: MountTable, known: dict[frozenset[int], str] | None = None) -> Silence | None:
    """The test for mounts that do not answer, rootfs.silence; usually None, because no mount in ``table`` may wait."""
    # A call to a server that does not answer blocks regardless of signals, and the caller keeps all its locks.
    if not any(map(may_wait, table.types())):
        return None
    from ..rootfs.silence import Silence

    return Silence(table, known)


def is_in_this_namespace(record: Record, proc: Proc, boot: str) -> bool:
    """Whether this mount namespace is, or may be, that of a record: it has the same number, in the same boot."""
    return record["boot"] == boot and is_same_namespace(record, proc) is not False


def is_here(record: Record, proc: Proc, boot: str, claimed: Claimed = lambda _: False) -> bool:
    """Whether the binds of a record are in this mount namespace. If not, they ended with their own.

    ``claimed`` returns whether another record has a better claim to a mount. Raises LeftoverError if the binds are in a
    namespace that existed before the container and still exists, or may exist; DoubtError if this namespace has the
    number of theirs, and it cannot be determined whether it is the same.
    """
    if record["boot"] != boot:
        return False
    is_same = is_same_namespace(record, proc)
    if is_same is not False:
        return is_same or _may_be_here(record, proc, claimed)
    if record["namespace"]["kind"] != "runtime" or not record["mounts"]:
        return False
    hint = "run poststop or gc in the mount namespace in which prestart ran"
    inode = record["namespace"]["inode"]
    user = proc.process_in_namespace(inode)
    # The kernel reuses inode numbers of namespaces: only the mounts show whether it is the same one.
    if user is not None and is_same_namespace(record, proc, user) is not False:
        table, namespace = proc.mounts_of(user), proc.mount_namespace_id_of(user)
        tops = [mount["attached"][0] for mount in record["mounts"]]
        # The table of a process lacks mounts outside its root, chroot(2). A mount missing for this reason counts, too.
        found = [table.get(top["id"]) for top in tops if is_in(top, table, namespace)]
        if any(info is None or not claimed(info) for info in found):
            raise LeftoverError(f"the binds are in the mount namespace of process {user}, not in this one", hint=hint)
    if user is None and proc.in_user_namespace() and not proc.may_see_all():
        problem = "the binds are in a mount namespace that cannot be searched from this user namespace"
        raise LeftoverError(problem, hint=hint)
    return False


def _may_be_here(record: Record, proc: Proc, claimed: Claimed) -> bool:
    """Whether this mount namespace, with the same number as that of the record, may be the same. Raises DoubtError."""
    # In the runtime's own namespace, the place of each mount is checked, mounting.mounted.Tree.
    if record["namespace"]["kind"] == "runtime":
        return True
    # The container's namespace ends with its last process. While its first process lives, the number is not reused.
    init = record["init"]
    if init is not None and proc.runs(init["pid"], init["start"]):
        return True
    table = proc.mounts()
    for mount in record["mounts"]:
        if stands(mount, record, table, claimed) is False:
            continue
        if mount["attached"][0]["unique"] is not None:
            return True
        raise DoubtError(
            f"this may be the container's mount namespace or another one: it has the same number, and a mount like the"
            f" bind on {mount['resolved']}",
            hint="run poststop or gc in another mount namespace",
        )
    return False


def _unlooked(rootfs: RootfsRecord, why: str, hint: str) -> LeftoverError:
    return LeftoverError(f"the rootfs {rootfs['path']} cannot be inspected: {why}", hint=hint)
