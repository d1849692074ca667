# SPDX-License-Identifier: Apache-2.0
"""What a tear-down would undo now and what it would leave, for list, show, and the dry-runs of gc and poststop.

Changes nothing, so another process may change what was foreseen.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from ...errors import LeftoverError
from ...kernel.errnos import message
from ...kernel.proc import boot_id
from ...lifecycle.reach import is_here
from ...mounting.undo import bind_resists, covered, difference, kept_points, leftover, resists, stays, tree_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from typing import Literal

    from ...errors import HookError
    from ...kernel.mountinfo import MountTable
    from ...kernel.proc import Proc
    from ...lifecycle.claims import Claimed
    from ...lifecycle.reach import Removal
    from ...record.held import Users
    from ...record.state_file import MadeRecord, MountRecord, Record
    from ...rootfs.mount_points import Found, Rootfs

    State = Literal["there", "covered", "gone", "changed", "unseen"]


class Standing:
    """How a created mount point stands, with the ``state`` and the ``reason`` of schemas/records.json.

    ``place`` is Rootfs.place. ``problem`` is why it cannot be removed, None if it can or need not be.
    """

    def __init__(
        self, made: MadeRecord, place: str, state: State, reason: str = "", problem: LeftoverError | None = None
    ) -> None:
        self.made = made
        self.place = place
        self.state: State = state
        self.reason = reason
        self.problem = problem

    def document(self) -> dict[str, object]:
        """Returns it as a member of schemas/records.json."""
        where = {name: self.made[name] for name in ("path", "kind", "filesystem")}
        return {**where, "state": self.state, "reason": self.reason}


def standings(record: Record, rootfs: Rootfs | None, *, here: bool) -> list[Standing]:
    """Returns how the mount points of a record stand, in its order.

    ``rootfs`` is None if it is gone. ``here``: the record's binds are in this mount namespace, or may be.
    """
    ours: dict[str, set[str]] = {}
    for made in record["made"]:
        above, _, name = made["path"].rpartition("/")
        ours.setdefault(above, set()).add(name)
    return [_stand(record, made, rootfs, ours.get(made["path"], ()), here=here) for made in record["made"]]


def _stand(record: Record, made: MadeRecord, rootfs: Rootfs | None, ours: Collection[str], *, here: bool) -> Standing:
    """How one mount point stands. ``ours`` are the names of those that are directly in it."""
    on_tmpfs = made["filesystem"] == "tmpfs"
    if rootfs is None:
        return Standing(made, made["path"], "gone", "the rootfs was removed or replaced")
    place = rootfs.place(made["path"])
    if on_tmpfs and not here:
        return Standing(made, place, "unseen", "it is on a tmpfs of the container's own")
    try:
        found = rootfs.find(made["path"], across=on_tmpfs)
    except OSError as reason:
        state: State = "covered" if reason.errno == errno.EBUSY else "unseen"
        return Standing(made, place, state, reason.strerror or "", resists(place, message("unlinkat", reason)))
    if found is None:
        return Standing(made, place, "gone")
    try:
        if found.stat.mount_root or (found.stat.mnt_id != rootfs.stat.mnt_id and not on_tmpfs):
            problem = resists(place, covered(place).strerror)
            return Standing(made, place, "covered", "something is mounted on it", problem)
        if stranger := difference(record, made, found.stat, rootfs):
            return Standing(made, place, "changed", stranger)
        try:
            rootfs.check_removable(found)
        except OSError as reason:
            why = message("unlinkat", reason)
            return Standing(made, place, "there", f"it cannot be removed: {why}", resists(place, why))
        return Standing(made, place, "there", "it is not empty" if _holds_others(found, ours) else "")
    finally:
        found.close()


def _holds_others(found: Found, ours: Collection[str]) -> bool:
    """Whether a folder contains anything but ``ours``. A folder that may not be read counts as empty."""
    try:
        with os.scandir(f"/proc/self/fd/{found.fd}") as entries:
            return any(entry.name not in ours for entry in entries)
    except OSError:
        return False  # and a file


def resisting(found: Sequence[Standing], unmounted: Collection[str]) -> list[LeftoverError]:
    """Returns why mount points cannot be removed after the binds on ``unmounted`` are, innermost first."""
    return [one.problem for one in reversed(found) if one.problem is not None and not _is_below(one, unmounted)]


def _is_below(one: Standing, unmounted: Collection[str]) -> bool:
    """Whether only a bind that is unmounted first covers a mount point."""
    path = one.made["path"]
    return one.state == "covered" and any(f"{path}/".startswith(f"{each}/") for each in unmounted)


class Foreseen:
    """What a tear-down would do: ``binds``, each with whether it is still mounted here; the mount points to ``remove``,
    innermost first; ``remarks`` on what it would keep; and the ``problem`` it would end with, None if it succeeds.
    """

    def __init__(self) -> None:
        self.binds: list[tuple[MountRecord, bool]] = []
        self.remove: list[str] = []
        self.remarks: list[str] = []
        self.problem: HookError | None = None


def foresee(
    record: Record,
    removal: Removal,
    users: Users,
    proc: Proc,
    table: MountTable,
    claimed: Claimed,
    lives: Callable[[Record], bool],
    *,
    keep_mountpoints: bool,
) -> Foreseen:
    """Returns what a tear-down of ``record`` would do, as mounting.undo does it. Raises LeftoverError.

    ``users`` are the containers on the rootfs, ``table`` has the mounts of this namespace, and ``lives`` returns
    whether the container of a record may be alive.
    """
    foreseen = Foreseen()
    here = is_here(record, proc, boot_id(), claimed)
    problems: list[LeftoverError] = []
    for mount in reversed(record["mounts"]):
        try:
            is_there = here and tree_of(mount, record, claimed).find(table) is not None
        except LeftoverError as problem:
            problems.append(bind_resists(mount["resolved"], problem))
            is_there = True
        foreseen.binds.append((mount, is_there))
    kept = removal.why_kept(users)
    if keep_mountpoints or not record["made"]:
        pass
    elif kept:
        foreseen.problem = kept_points(record, kept, proc)
        return foreseen
    elif not problems:
        unmounted = {mount["resolved"] for mount, is_there in foreseen.binds if is_there}
        found = standings(record, removal.rootfs, here=here)
        if removal.rootfs is None:
            foreseen.remarks += of_a_rootfs_that_is_gone(record)
        problems += _remove(foreseen, found, unmounted, record["id"], users, lives)
    if problems:
        foreseen.problem = leftover(problems, proc)
    return foreseen


def _remove(
    foreseen: Foreseen,
    found: Sequence[Standing],
    unmounted: Collection[str],
    container: str,
    users: Users,
    lives: Callable[[Record], bool],
) -> list[LeftoverError]:
    """Adds what becomes of each mount point, innermost first. Returns why some resist."""
    problems: list[LeftoverError] = []
    above: set[str] = set()  # the folders above mount points that resist
    filled: set[str] = set()  # the folders of mount points that are kept
    for one in reversed(found):
        path = one.made["path"]
        folder = path.rpartition("/")[0]
        if path in above or one.state == "gone" or (one.state == "unseen" and one.problem is None):
            continue
        is_covered = one.problem is not None and not _is_below(one, unmounted)
        is_filled = path in filled or (one.state == "there" and bool(one.reason))
        if other := users.heir(path, container, lives):
            foreseen.remarks.append(f"{path} would be handed over to the container {other['id']}, which uses it")
            filled.add(folder)
        elif (is_covered or is_filled) and users.heir(path, container):
            foreseen.remove.append(path)  # a dead container on the same rootfs, which is undone as well, removes it
        elif is_covered:
            assert one.problem is not None
            problems.append(one.problem)
            while folder not in above:
                above.add(folder)
                folder = folder.rpartition("/")[0]
        elif one.state == "changed" or is_filled:
            foreseen.remarks.append(stays(one.place, one.reason or "it is not empty", would=True))
            filled.add(folder)
        else:
            foreseen.remove.append(path)
    return problems


def of_a_rootfs_that_is_gone(record: Record) -> list[str]:
    """Returns what to know of mount points whose rootfs does not exist any more: a renamed one still has them."""
    paths = [made["path"] for made in record["made"] if made["filesystem"] == "rootfs"]
    if not paths:
        return []
    gone = f"the rootfs {record['rootfs']['path']} was removed or replaced"
    return [f"{gone}; if it was renamed, these mount points stay in it: {', '.join(paths)}"]
