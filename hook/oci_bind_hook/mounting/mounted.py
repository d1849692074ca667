# SPDX-License-Identifier: Apache-2.0
"""Attached mounts: describes them for the record, finds them again by id, and detaches them.

A path is only a hint to where a mount is now: the mount id of what is opened there decides.

Loaded by every start of a container: import only posix. It runs after setns(2), when nothing can be imported.
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
TRIES = 16  # each with a new mountinfo, because a mount point may be renamed between reading and opening
_MOST_HELD = 64  # fds of mounts without unique ids that are open at the same time


class DoubtError(LeftoverError):
    """It cannot be determined whether a mount or mount namespace is the recorded one or has reused its id."""


def propagation_flag(word: str) -> int:
    """The MS_* flag of a propagation. A leading ``r`` (recursive) is ignored; the caller handles it."""
    return _PROPAGATIONS.get(word) or _PROPAGATIONS[word[1:]]


def propagate(fd: int, word: str, proc: Proc) -> None:
    """Sets the propagation of the mount with the root ``fd``; with a leading ``r``, of its tree. Raises OSError."""
    flag, recursive = propagation_flag(word), word.startswith("r")
    if linux.has_mount_api():
        linux.mount_setattr(fd, recursive=recursive, propagation=flag)
    else:
        proc.mount(None, fd, flag | (linux.MS_REC if recursive else 0))


def identity(fd: int, root: str, info: MountInfo | None) -> AttachedRecord:
    """The record of the mount with the root ``fd``, which ``find`` accepts. Raises OSError."""
    return {**describe(root, info), "id": files.mount_id(fd), "unique": files.unique_mount_id(fd)}


def describe(root: str, info: MountInfo | None) -> AttachedRecord:
    """The record of a mount without its ids, as mountinfo will show it."""
    source, kind = (info.source, info.type) if info else ("", "")
    return {"id": None, "unique": None, "root": root, "source": source, "type": kind}


def find(top: AttachedRecord, table: MountTable) -> MountInfo | None:
    """The recorded mount ``top`` in the table of this namespace, None if it is gone. Raises OSError.

    Mount ids are reused, so the unique id decides (Linux 6.8). Without one, root, source and type must match as well;
    ``Tree.find`` then also checks the mount point, and whether another record claims the mount.
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
    return info if _has_properties(top, info) else None


def is_in(
    top: AttachedRecord, table: MountTable, namespace: int | None = None, places: Sequence[str] | None = None
) -> bool:
    """Whether the recorded mount ``top`` is in another mount namespace; ``table`` is that of a process there.

    If ``namespace``, the id from linux.mount_namespace_id, is known, the unique id of the mount decides. Otherwise
    root, source and type must match and, if ``places`` are known, the mount must be on one of them. The table of a
    process lacks the mounts outside its root, chroot(2).
    """
    if top["unique"] is not None and namespace is not None:
        try:
            return linux.has_mount(top["unique"], namespace)
        except OSError:
            pass  # the namespace has ended since, or the kernel denies the call
    info = table.get(top["id"])
    return info is not None and _has_properties(top, info) and (places is None or info.mount_point in places)


def _open(path: str) -> int:
    return posix.open(path, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC)


def open_root(info: MountInfo, unique: int | None = None, hold: Callable[[str], int] = _open) -> int | None:
    """An fd of the root of the mount ``info``; None if its path leads elsewhere, or if its unique id is not ``unique``.

    ``hold`` opens the path. Raises OSError, also if it cannot be determined where the path leads.
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
    """An attached bind to be detached: ``attached``, its recorded mounts, the top first, and its ``path`` for messages.

    If it has no unique id, it must be mounted on one of ``places``, and ``claimed`` returns whether another record has
    a better claim to a mount, or raises DoubtError. ``places`` is None if an open fd prevents the reuse of its id.
    ``receives`` is true if mounts may have propagated into it: these are not foreign. ``hold`` opens a path of
    mountinfo. ``problem`` is the error that prevents detaching, or None. ``ids`` are the mount ids of its recorded
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
        self.inside = ""  # what follows its path in a message
        self.problem: Exception | None = None
        self.ids = {known["id"] for known in attached}

    @property
    def may_be_another(self) -> bool:
        """Whether another mount may have reused its id: it has no unique id, and no open fd prevents reuse."""
        return self.attached[0]["unique"] is None and self.places is not None

    def open(self, info: MountInfo) -> int | None:
        """An fd of its top mount ``info``, None if its path now leads elsewhere. Raises OSError.

        Before Linux 6.8 the kernel may reuse the id of a mount at once, but not while an fd of the mount is open. So in
        a table that is read after this call, the entry with that id describes the mount of the fd.
        """
        return open_root(info, self.attached[0]["unique"], self.hold)

    def find(self, table: MountTable) -> MountInfo | None:
        """Its top mount, None if it is gone. Raises OSError, and DoubtError if that cannot be determined.

        A mount that reused its id may have the same source: the next container's bind, or an administrator's elsewhere.
        """
        info = find(self.attached[0], table)
        if info is None or not self.may_be_another:
            return info
        if self.claimed(info):
            return None
        if self.places is not None and info.mount_point not in self.places:
            raise DoubtError(
                f"the mount on {info.mount_point} may be this bind or another one: it has the same id and source",
                hint="if the mount belongs to this container, unmount it; otherwise remove the container's other binds "
                "and its mount points by hand, then delete the state file",
            )
        return info

    def below(self, info: MountInfo, table: MountTable, gone: Set[int]) -> Iterator[MountInfo]:
        """The mounts on and below its top mount ``info``, without those in ``gone`` and those that propagated there."""
        return (below for below in table.below(info.id, gone) if not (self.receives and below.is_propagated))

    def foreign(self, below: Iterable[MountInfo], table: MountTable) -> MountInfo | None:
        """The first mount among ``below`` that does not belong to this bind, None if all do. Raises OSError."""
        ids = {known["id"] for known in self.attached[1:] if known["id"] is not None and find(known, table) is not None}
        hidden: dict[tuple[str, str, str], int] = {}
        for known in self.attached:
            if known["id"] is None:
                hidden[_properties(known)] = hidden.get(_properties(known), 0) + 1
        for info in below:
            if info.id not in ids:
                look = _properties_of(info)
                if not hidden.get(look):
                    return info
                hidden[look] -= 1
        return None

    def is_gone(self, fd: int, proc: Proc) -> bool:
        """Whether the top mount, whose root is open as ``fd``, is detached. Raises OSError."""
        unique = self.attached[0]["unique"]
        try:
            if unique is not None:
                return not linux.has_mount(unique)
        except OSError:
            pass  # a seccomp filter hides statmount(2)
        # The path of a detached mount starts at its own root; procfs appends a suffix if that root was deleted.
        return proc.path_of(fd).removesuffix(" (deleted)") == "/"


def detach(trees: Sequence[Tree], proc: Proc) -> None:
    """Unmounts ``trees`` in the current namespace, the last one first, or sets their ``problem``. Raises OSError.

    A tree that is no longer mounted is skipped. A tree that cannot be reached, or with a foreign mount on or below it,
    stays and gets a ``problem``.
    """
    # umount2(path) detaches whatever is at the path now: the container may have renamed the mount point and put a link
    # to a mount of the host there. UMOUNT_NOFOLLOW does not help, because the link can be a parent folder. So the path
    # from mountinfo is only opened (O_PATH), and the fd must have the recorded unique id, because plain mount ids are
    # reused at once. Without a unique id, the fd is opened first and checked by a table that is read after that. The
    # tree is made private first; otherwise the umount would propagate and detach the mounts below the source on the
    # host. MNT_DETACH, because umount2 fails with EBUSY if the tree has mounts below it or open files. Afterwards the
    # mount must be gone. If not, umount2 detached one that was put on top after the check: try again.
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
    """Detaches the trees that can be reached now. Returns the trees to try again. Raises OSError."""
    table = proc.mounts()
    held = _hold(trees, table)
    try:
        return _detach_reached(trees, proc.mounts() if held else table, held, proc)
    finally:
        for fd in held.values():
            posix.close(fd)


def _hold(trees: Sequence[Tree], table: MountTable) -> dict[Tree, int]:
    """An fd of each tree whose id may have been reused, if it can be opened; at most ``_MOST_HELD``."""
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
    """The ids of the mounts of ``trees`` whose server may not answer."""
    return {info.id for tree in trees for info in map(table.get, tree.ids) if info and may_wait(info.type)}


def _is_beyond(silent: Set[int], info: MountInfo, table: MountTable) -> bool:
    """Whether the path to a mount leads through one of ``silent``. It is detached with that one, without a lookup."""
    return bool(silent) and any(above.id in silent for above in table.above(info))


def _detach_reached(trees: Sequence[Tree], table: MountTable, held: Mapping[Tree, int], proc: Proc) -> list[Tree]:
    """Detaches what ``table`` allows, or sets its ``problem``. Returns the trees to try again."""
    again: list[Tree] = []
    gone: set[int] = set()  # detached with all mounts below them
    silent = _silent(trees, table)
    trees_of: dict[int | None, int] = {}  # by mount id, the number of trees without a problem that have this mount
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
            # The foreign mount belongs to another of ``trees``, which was moved there or could not be reached yet.
            again.append(tree)
        elif foreign is None and _is_beyond(silent, info, table):
            gone.add(info.id)
            again.append(tree)
        elif foreign is not None:
            tree.problem = LeftoverError(
                f"another process mounted something on {foreign.mount_point}{tree.inside}: unmount it first"
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
    """Calls ``Tree.open``. An error becomes the ``problem`` of the tree."""
    try:
        return tree.open(info)
    except (OSError, HookError) as reason:
        tree.problem = reason
        return None


def restore_propagation(trees: Sequence[tuple[Tree, str]], proc: Proc) -> None:
    """Sets the propagation of attached trees, given as pairs (tree, word). Raises OSError, DoubtError.

    A run that was killed may not have set it.
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
            table = proc.mounts()  # ids cannot be reused while the fds are open, so this table matches them
        for tree, propagation, fd in held:
            if not tree.may_be_another or tree.find(table) is not None:
                propagate(fd, propagation, proc)
    finally:
        for _, _, fd in held:
            posix.close(fd)


def _has_properties(known: AttachedRecord, info: MountInfo) -> bool:
    return _properties(known) == _properties_of(info)


def _properties(known: AttachedRecord) -> tuple[str, str, str]:
    return known["root"], known["source"], known["type"]


def _properties_of(info: MountInfo) -> tuple[str, str, str]:
    return _properties(describe(info.root.removesuffix("//deleted"), info))


def clear_staging(folder: Records, container: str, proc: Proc) -> None:
    """Removes the staging folder of a container, and mounts that an interrupted run left on it. Raises HookError."""
    if path := folder.staging(container):
        try:
            _clear(path, proc)
        except OSError as reason:
            raise refused("umount2", path, reason) from reason
        folder.remove_staging(container)


def _clear(path: str, proc: Proc) -> None:
    """Unmounts everything on the folder ``path``, if it exists. Other users cannot mount there. Raises OSError."""
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
    """Detaches the tree with the root ``fd``. It is made private first, so that its peers stay. Raises OSError."""
    propagate(fd, "rprivate", proc)
    proc.umount(fd)
