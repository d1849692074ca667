# SPDX-License-Identifier: Apache-2.0
"""Attached mounts: describing them for the record, finding them again by id, and detaching them.

A path is only a hint to where a mount is now: whatever is opened by it is compared by mount id.

Loaded by every start of a container: it imports only posix, and runs after setns(2), when nothing can be imported.
"""

from __future__ import annotations

import errno
import posix

from ..errors import HookError, LeftoverError
from ..kernel import files, linux
from ..kernel.errnos import refused
from ..kernel.mountinfo import MountInfo, MountTable, may_wait
from ..kernel.proc import Proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set

    from ..record.folder import Records
    from ..record.state_file import AttachedRecord

_PROPAGATIONS = {
    "private": linux.MS_PRIVATE,
    "slave": linux.MS_SLAVE,
    "shared": linux.MS_SHARED,
    "unbindable": linux.MS_UNBINDABLE,
}
TRIES = 16  # each with a new mountinfo, for a mount that is renamed between reading and opening
_MOST_HELD = 64  # fds at a time, of mounts without unique ids


class DoubtError(LeftoverError):
    """Whether a mount, or a mount namespace, is that of a record, or has got its number since, cannot be known."""


def propagation_flag(word: str) -> int:
    """The MS_* flag of a propagation, with or without a leading ``r`` (recursive), which the caller handles."""
    return _PROPAGATIONS.get(word) or _PROPAGATIONS[word[1:]]


def propagate(fd: int, word: str, proc: Proc) -> None:
    """Sets the propagation of the mount with the root ``fd``, or of its whole tree. Raises OSError."""
    flag, recursive = propagation_flag(word), word.startswith("r")
    if linux.has_mount_api():
        linux.mount_setattr(fd, recursive=recursive, propagation=flag)
    else:
        proc.mount(None, fd, flag | (linux.MS_REC if recursive else 0))


def identity(fd: int, root: str, info: MountInfo | None) -> AttachedRecord:
    """The record of the mount with the root ``fd``, by which it is found again. Raises OSError."""
    return {**describe(root, info), "id": files.mount_id(fd), "unique": files.unique_mount_id(fd)}


def describe(root: str, info: MountInfo | None) -> AttachedRecord:
    """The record of a mount without its ids, as mountinfo will show it."""
    source, kind = (info.source, info.type) if info else ("", "")
    return {"id": None, "unique": None, "root": root, "source": source, "type": kind}


def find(top: AttachedRecord, table: MountTable) -> MountInfo | None:
    """The recorded mount ``top`` in the table of this namespace, None if it is gone. Raises OSError.

    Mount ids are reused, so the unique id decides (Linux 6.8). Without one, root, source and type must agree too; where
    the mount stands, and whether another record claims it, is still to be asked, Tree.
    """
    info = table.get(top["id"])
    if info is None:
        return None
    if top["unique"] is not None:
        try:
            with files.Named(info.mount_point):
                return info if linux.has_mount(top["unique"]) else None
        except OSError as reason:
            if not linux.is_absent(reason):
                raise
    return info if _looks_like(top, info) else None


def is_in(
    top: AttachedRecord, table: MountTable, namespace: int | None = None, places: Sequence[str] | None = None
) -> bool:
    """Whether the recorded mount ``top`` is in another mount namespace, of which a process there sees ``table``.

    If ``namespace``, its id from linux.mount_namespace_id, is known, the unique id of the mount decides. Otherwise
    root, source and type must agree and, if ``places`` are known, it must stand at one of them. The table of a process
    after chroot(2) lacks what is outside its root.
    """
    if top["unique"] is not None and namespace is not None:
        try:
            return linux.has_mount(top["unique"], namespace)
        except OSError:
            pass  # the namespace has ended since, or the kernel denies the call
    info = table.get(top["id"])
    return info is not None and _looks_like(top, info) and (places is None or info.mount_point in places)


def _open(path: str) -> int:
    return posix.open(path, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC)


def open_root(info: MountInfo, unique: int | None = None, hold: Callable[[str], int] = _open) -> int | None:
    """An fd of the root of the mount ``info``; None if its path leads elsewhere, or if its unique id is not ``unique``.

    ``hold`` opens the path. Raises OSError, also if it cannot be known where the path leads.
    """
    try:
        fd = hold(info.mount_point)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as reason:
        if reason.errno == errno.ELOOP:
            return None
        raise
    try:
        with files.Named(info.mount_point):
            if files.mount_id(fd) == info.id and unique in (None, files.unique_mount_id(fd)):
                return fd
    except BaseException:
        posix.close(fd)
        raise
    posix.close(fd)
    return None


class Tree:
    """An attached bind to be detached: its recorded mounts, the top first, and its ``path`` for messages.

    Where it has no unique id, it must stand at one of ``places``, and ``claimed`` says whether another record has a
    better claim to a mount, or raises DoubtError. ``places`` are None if an open fd keeps its id from being used again.
    ``receives`` is true if mounts may have propagated into it: these are not foreign. ``hold`` opens a path of
    mountinfo. ``problem`` is the error that keeps it from being detached, or None. ``ids`` are those of its recorded
    mounts.
    """

    def __init__(
        self,
        attached: Sequence[AttachedRecord],
        path: str,
        *,
        places: Sequence[str] | None = None,
        claimed: Callable[[MountInfo], bool] = lambda _: False,
        receives: bool = False,
    ) -> None:
        self.attached = attached
        self.path = path
        self.places = places
        self.claimed = claimed
        self.receives = receives
        self.hold = _open
        self.problem: Exception | None = None
        self.ids = {known["id"] for known in attached}

    @property
    def may_be_another(self) -> bool:
        """Whether another mount may have got its id: nothing else is known, and no fd keeps it."""
        return self.attached[0]["unique"] is None and self.places is not None

    def open(self, info: MountInfo) -> int | None:
        """An fd of its top mount ``info``, None if its path leads elsewhere by now. Raises OSError.

        Before Linux 6.8 the kernel gives the id of a mount to the next one at once, but not while there is an fd: what
        a table that is read after this tells of that id is true of the fd.
        """
        return open_root(info, self.attached[0]["unique"], self.hold)

    def find(self, table: MountTable) -> MountInfo | None:
        """Its top mount, None if it is gone. Raises OSError, and DoubtError if that cannot be known.

        What has got its id may be of the same source: the next container's, or what an administrator mounts elsewhere.
        """
        info = find(self.attached[0], table)
        if info is None or not self.may_be_another:
            return info
        if self.claimed(info):
            return None
        if self.places is not None and info.mount_point not in self.places:
            raise DoubtError(
                f"the mount on {info.mount_point} may be this bind or another one: it has the same id and source",
                hint="if the mount belongs to this container, unmount it; otherwise delete the state file; then run gc",
            )
        return info

    def below(self, info: MountInfo, table: MountTable, gone: Set[int]) -> Iterator[MountInfo]:
        """The mounts on and below its top mount ``info``, without those ``gone`` or propagated there."""
        return (below for below in table.below(info.id, gone) if not (self.receives and below.is_propagated))

    def foreign(self, below: Iterable[MountInfo], table: MountTable) -> MountInfo | None:
        """The first mount among ``below`` that does not belong to this bind, None if all do. Raises OSError."""
        ids = {known["id"] for known in self.attached[1:] if known["id"] is not None and find(known, table) is not None}
        hidden: dict[tuple[str, str, str], int] = {}
        for known in self.attached:
            if known["id"] is None:
                hidden[_look(known)] = hidden.get(_look(known), 0) + 1
        for info in below:
            if info.id not in ids:
                look = _look_of(info)
                if not hidden.get(look):
                    return info
                hidden[look] -= 1
        return None

    def is_gone(self, fd: int, proc: Proc) -> bool:
        """Whether the top mount, whose root ``fd`` holds, is detached."""
        unique = self.attached[0]["unique"]
        try:
            if unique is not None:
                return not linux.has_mount(unique)
        except OSError:
            pass  # a filter hides statmount(2)
        # What is mounted nowhere has no path but that below its own root; procfs adds to it if that was deleted.
        return proc.path_of(fd).removesuffix(" (deleted)") == "/"


def detach(trees: Sequence[Tree], proc: Proc) -> None:
    """Unmounts ``trees`` in the current namespace, the last one first, or sets their ``problem``. Raises OSError.

    A tree that is not mounted any more is skipped. One with a foreign mount on or below it, or that cannot be reached,
    stays and gets a ``problem``.
    """
    # umount2(path) detaches whatever is at the path by now: the container may have renamed the mount point and put a
    # link to a mount of the host there. UMOUNT_NOFOLLOW does not help, since the link can be a parent. So the path from
    # mountinfo is only opened (O_PATH), and the fd must have the recorded unique id, since plain mount ids are reused
    # at once; without one it is held first, and looked at after that. The tree is made private first, or the umount
    # would propagate and take the mounts below the source from the host. MNT_DETACH, because a tree with mounts below
    # it or with open files is EBUSY otherwise. At the end the mount must be gone. If not, one that was put on top
    # between look and call was detached in its place: try again.
    left = list(reversed(trees))
    tries = TRIES
    while left and tries:
        again = _detach(left, proc)
        tries -= len(again) == len(left)
        left = again
    for tree in left:
        why = "another mount hides it, or a process keeps moving it"
        tree.problem = LeftoverError(f"the mount on {tree.path} cannot be reached: {why}")


def _detach(trees: Sequence[Tree], proc: Proc) -> list[Tree]:
    """Detaches what can be reached now. Returns the trees to try again."""
    table = proc.mounts()
    held = _hold(trees, table)
    try:
        return _detach_reached(trees, proc.mounts() if held else table, held, proc)
    finally:
        for fd in held.values():
            posix.close(fd)


def _hold(trees: Sequence[Tree], table: MountTable) -> dict[Tree, int]:
    """An fd of each tree that may be another mount by now, as far as they can be opened, and are not too many."""
    held: dict[Tree, int] = {}
    silent = _silent(trees, table)
    for tree in trees:
        if not tree.may_be_another or len(held) == _MOST_HELD:
            continue
        info = find(tree.attached[0], table)
        if info is None or info.mount_point not in (tree.places or ()) or _is_beyond(silent, info, table):
            continue
        if (fd := _reach(tree, info)) is not None:
            held[tree] = fd
    return held


def _silent(trees: Sequence[Tree], table: MountTable) -> set[int]:
    """The mounts of ``trees`` whose server need not answer."""
    return {info.id for tree in trees for info in map(table.get, tree.ids) if info and may_wait(info.type)}


def _is_beyond(silent: Set[int], info: MountInfo, table: MountTable) -> bool:
    """Whether the way to a mount leads through one of ``silent``: it goes with that one, and nobody walks there."""
    return bool(silent) and any(above.id in silent for above in table.above(info))


def _detach_reached(trees: Sequence[Tree], table: MountTable, held: Mapping[Tree, int], proc: Proc) -> list[Tree]:
    """Detaches what ``table`` allows, or sets its ``problem``. Returns the trees to try again."""
    again: list[Tree] = []
    gone: set[int] = set()  # with all below them
    silent = _silent(trees, table)
    trees_of: dict[int | None, int] = {}  # how many trees without a problem have a mount
    reachable = [tree for tree in trees if tree.problem is None]
    for tree in reachable:
        for number in tree.ids:
            trees_of[number] = trees_of.get(number, 0) + 1
    for tree in reachable:
        info = foreign = None
        try:
            info = tree.find(table)
        except LeftoverError as problem:
            tree.problem = problem
        if info is not None:
            foreign = tree.foreign(tree.below(info, table, gone), table)
        if info is None:
            pass
        elif foreign is not None and trees_of.get(foreign.id, 0) > (foreign.id in tree.ids):
            # It is another of ``trees``, which was moved there or could not be reached yet.
            again.append(tree)
        elif foreign is None and _is_beyond(silent, info, table):
            gone.add(info.id)
            again.append(tree)
        elif foreign is not None:
            tree.problem = LeftoverError(
                f"another process mounted something on {foreign.mount_point}: unmount it first"
            )
        elif (fd := held.get(tree) if tree.may_be_another else _reach(tree, info)) is None:
            again += [tree] if tree.problem is None else []
        else:
            gone.add(info.id)
            try:
                unmount(fd, proc)
            except OSError as reason:
                tree.problem = reason
            else:
                if not tree.is_gone(fd, proc):
                    again.append(tree)
            finally:
                if tree not in held:
                    posix.close(fd)
        if tree.problem:
            for number in tree.ids:
                trees_of[number] -= 1
    return again


def _reach(tree: Tree, info: MountInfo) -> int | None:
    """As ``Tree.open``, but an error is the ``problem`` of the tree."""
    try:
        return tree.open(info)
    except (OSError, HookError) as reason:
        tree.problem = reason
        return None


def restore_propagation(trees: Sequence[tuple[Tree, str]], proc: Proc) -> None:
    """Sets the propagation of attached trees, as the word beside each says. Raises OSError, DoubtError.

    A killed run may not have done so.
    """
    table = proc.mounts()
    for first in range(0, len(trees), _MOST_HELD):
        _restore(trees[first : first + _MOST_HELD], table, proc)


def _restore(trees: Sequence[tuple[Tree, str]], table: MountTable, proc: Proc) -> None:
    held: list[tuple[Tree, str, int]] = []
    try:
        for tree, propagation in trees:
            info = find(tree.attached[0], table)
            if info is not None and (fd := tree.open(info)) is not None:
                held.append((tree, propagation, fd))
        if any(tree.may_be_another for tree, _, _ in held):
            table = proc.mounts()  # only what is read while they are held is true of them
        for tree, propagation, fd in held:
            if not tree.may_be_another or tree.find(table) is not None:
                propagate(fd, propagation, proc)
    finally:
        for _, _, fd in held:
            posix.close(fd)


def _looks_like(known: AttachedRecord, info: MountInfo) -> bool:
    return _look(known) == _look_of(info)


def _look(known: AttachedRecord) -> tuple[str, str, str]:
    return known["root"], known["source"], known["type"]


def _look_of(info: MountInfo) -> tuple[str, str, str]:
    return _look(describe(info.root.removesuffix("//deleted"), info))


def clear_staging(folder: Records, container: str, proc: Proc) -> None:
    """Removes the folder in which mounts were made ready, and what a run that was stopped has left on it. HookError."""
    if path := folder.staging(container):
        try:
            _clear(path, proc)
        except OSError as reason:
            raise refused("umount2", path, reason) from reason
        folder.remove_staging(container)


def _clear(path: str, proc: Proc) -> None:
    """Unmounts everything on the folder ``path``, if it exists, where no other user can mount. Raises OSError."""
    while True:
        try:
            fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            if not files.statx(fd).mount_root:
                return
            unmount(fd, proc)
        finally:
            posix.close(fd)


def unmount(fd: int, proc: Proc) -> None:
    """Detaches the tree with the root ``fd``, and not its peers: it is made private first. Raises OSError."""
    propagate(fd, "rprivate", proc)
    proc.umount(fd)
