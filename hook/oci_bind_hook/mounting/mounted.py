# SPDX-License-Identifier: Apache-2.0
"""Mounts that were attached: described, found again by their ids, and detached.

A path is never more than a hint to where a mount is now: what is opened by it is compared by id.
"""

from __future__ import annotations

import os

from ..errors import LeftoverError
from ..kernel import linux
from ..kernel.errnos import refused
from ..kernel.proc import MountInfo, MountTable, Proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..record.folder import Records
    from ..record.state_file import AttachedRecord

_PROPAGATIONS = {
    "private": linux.MS_PRIVATE,
    "slave": linux.MS_SLAVE,
    "shared": linux.MS_SHARED,
    "unbindable": linux.MS_UNBINDABLE,
}
TRIES = 16  # each a new look at mountinfo, for a mount that is renamed while we look


def propagation_flag(word: str) -> int:
    """The MS_* number of a propagation; what an ``r`` in front means is the caller's business."""
    return _PROPAGATIONS.get(word) or _PROPAGATIONS[word[1:]]


def propagate(fd: int, word: str, proc: Proc) -> None:
    """Gives the mount whose root is ``fd``, or its whole tree, another propagation. OSError."""
    flag, recursive = propagation_flag(word), word.startswith("r")
    if linux.has_mount_api():
        linux.mount_setattr(fd, recursive=recursive, propagation=flag)
    else:
        proc.mount(None, fd, flag | (linux.MS_REC if recursive else 0))


def identity(fd: int, root: str, info: MountInfo | None) -> AttachedRecord:
    """How the mount whose root is ``fd`` is found again."""
    return {**describe(root, info), "id": linux.statx(fd).mnt_id, "unique": linux.unique_mount_id(fd)}


def describe(root: str, info: MountInfo | None) -> AttachedRecord:
    """What mountinfo will say of a mount whose ids are not known, in characters that every file can hold."""
    source, kind = (info.source, info.type) if info else ("", "")
    return {"id": None, "unique": None, "root": ascii(root), "source": ascii(source), "type": ascii(kind)}


def find(top: AttachedRecord, table: MountTable) -> MountInfo | None:
    """A mount that was attached, in the table of this namespace; None where it is gone.

    Mount ids are used again: the unique one decides, or, where there is none, that all else we know agrees too.
    """
    info = table.get(top["id"])
    if info is None:
        return None
    if top["unique"] is not None:
        try:
            return info if linux.has_mount(top["unique"]) else None
        except OSError as reason:
            if not linux.is_absent(reason):
                raise
    return info if _looks_like(top, info) else None


def is_in(top: AttachedRecord, table: MountTable, namespace: int | None = None) -> bool:
    """Whether a mount that was attached is in the table of another namespace.

    By its unique id if the namespace's own is known, linux.mount_namespace_id; else as far as such a table tells.
    """
    info = table.get(top["id"])
    if info is None:
        return False
    if top["unique"] is not None and namespace is not None:
        try:
            return linux.has_mount(top["unique"], namespace)
        except OSError:
            pass  # the namespace has gone meanwhile, or the kernel does not let us ask
    return _looks_like(top, info)


def open_root(info: MountInfo, unique: int | None = None) -> int | None:
    """An fd of the root of a mount; None where its path does not lead there, or it is not the one with that id."""
    try:
        fd = os.open(info.mount_point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if linux.statx(fd).mnt_id == info.id and unique in (None, linux.unique_mount_id(fd)):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


class Tree:
    """A bind as it was attached, to be detached: its mounts, the top first, and the path a person knows it by.

    ``receives`` tells that mounts may have propagated into it, which are no work of anybody else's here. ``problem`` is
    what keeps it from being detached.
    """

    def __init__(self, attached: Sequence[AttachedRecord], path: str, *, receives: bool = False) -> None:
        self.attached = attached
        self.path = path
        self.receives = receives
        self.problem: Exception | None = None

    def below(self, info: MountInfo, table: MountTable) -> list[MountInfo]:
        """What stands on and below it now, ``info`` being its top."""
        return [below for below in table.below(info.id) if not (self.receives and below.is_propagated)]

    def foreign(self, below: Iterable[MountInfo], table: MountTable) -> MountInfo | None:
        """The first mount on or below it, which is there, that is not its own."""
        ids = {known["id"] for known in self.attached[1:] if known["id"] is not None and find(known, table) is not None}
        hidden = [known for known in self.attached if known["id"] is None]
        for info in below:
            if info.id not in ids:
                own = next((known for known in hidden if _looks_like(known, info)), None)
                if own is None:
                    return info
                hidden.remove(own)
        return None

    def is_gone(self) -> bool:
        """Whether the kernel says so by the id that is never used again. False where only the mount table can tell."""
        unique = self.attached[0]["unique"]
        try:
            return unique is not None and not linux.has_mount(unique)
        except OSError:
            return False


def detach(trees: Sequence[Tree], proc: Proc) -> None:
    """Unmounts ``trees``, the last first, from the namespace we are in, or sets their ``problem``.

    Nothing is done where one is not mounted any more. One resists where somebody mounted something on or below it, or
    where it cannot be reached.
    """
    left = list(reversed(trees))
    for _ in range(TRIES):
        left = _detach(left, proc)
        if not left:
            return
    for tree in left:
        why = "another one hides it, or it moves all the time"
        tree.problem = LeftoverError(f"the mount on {tree.path} cannot be reached: {why}")


def _detach(trees: Sequence[Tree], proc: Proc) -> list[Tree]:
    """One look at the mount table, and all done that it allows. Returns those to be looked at once more."""
    table = proc.mounts()
    again: list[Tree] = []
    gone: set[int] = set()
    for tree in trees:
        info = find(tree.attached[0], table)
        if info is None:
            continue
        below = tree.below(info, table)
        foreign = tree.foreign([each for each in below if each.id not in gone], table)
        if foreign is not None and any(
            foreign.id in _ids(other) for other in trees if other is not tree and not other.problem
        ):
            # One of ours, which somebody moved there, or which could not be reached yet.
            again.append(tree)
        elif foreign is not None:
            tree.problem = LeftoverError(
                f"somebody mounted something else on {foreign.mount_point}, which must be unmounted first"
            )
        elif (fd := open_root(info, tree.attached[0]["unique"])) is None:
            again.append(tree)
        else:
            gone.update([info.id], (each.id for each in below))
            try:
                unmount(fd, proc)
            except OSError as reason:
                tree.problem = reason
            else:
                if not tree.is_gone():
                    again.append(tree)
            finally:
                os.close(fd)
    return again


def _ids(tree: Tree) -> set[int | None]:
    return {known["id"] for known in tree.attached}


def restore_propagation(attached: Sequence[AttachedRecord], propagation: str, proc: Proc) -> None:
    """Sets the propagation of a tree again, for a run that was killed just before it did so. OSError."""
    info = find(attached[0], proc.mounts())
    fd = open_root(info, attached[0]["unique"]) if info is not None else None
    if fd is not None:
        try:
            propagate(fd, propagation, proc)
        finally:
            os.close(fd)


def _looks_like(known: AttachedRecord, info: MountInfo) -> bool:
    seen = describe(info.root.removesuffix("//deleted"), info)
    return (seen["root"], seen["source"], seen["type"]) == (known["root"], known["source"], known["type"])


def clear_staging(folder: Records, container: str, proc: Proc) -> None:
    """Removes the folder in which mounts were made ready, and what a run that was stopped has left on it. HookError."""
    if path := folder.staging(container):
        try:
            _clear(path, proc)
        except OSError as reason:
            raise refused("umount2", path, reason) from reason
        folder.remove_staging(container)


def _clear(path: str, proc: Proc) -> None:
    """Unmounts all that stands on the folder ``path``, if it is there: one that only we can mount on. OSError."""
    while True:
        try:
            fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if not linux.statx(fd).mount_root:
                return
            unmount(fd, proc)
        finally:
            os.close(fd)


def unmount(fd: int, proc: Proc) -> None:
    """Unmounts the tree whose root is held by ``fd``, here only: what is shared with other places stays there."""
    propagate(fd, "rprivate", proc)
    proc.umount(fd)
