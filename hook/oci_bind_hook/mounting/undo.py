# SPDX-License-Identifier: Apache-2.0
"""Undoes a record: detaches its mounts and removes the mount points that were created for them.

poststop and a set-up that fails both use this module. It does not depend on the syntax of requests or on where records
are stored.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..errors import HookError, LeftoverError
from ..kernel import files
from ..kernel.errnos import message
from ..kernel.proc import Proc
from ..record.state_file import places_of
from ..rootfs.mount_points import Rootfs
from .mounted import DoubtError, Tree, detach, restore_propagation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..kernel.mountinfo import MountInfo
    from ..record.state_file import Identity, MadeRecord, MountRecord, Record


class Remark:
    """An object that was left: its ``path`` in the rootfs, its ``place``, Rootfs.place, and the ``reason``."""

    __slots__ = ("path", "place", "reason")

    def __init__(self, path: str, reason: str, place: str) -> None:
        self.path = path
        self.reason = reason
        self.place = place

    def __str__(self) -> str:
        return f"{self.place} is kept: {self.reason}"


def undo(
    record: Record,
    proc: Proc,
    rootfs: Rootfs | None,
    keep: Callable[[MadeRecord], bool],
    inherit: Callable[[MadeRecord], bool] = lambda _: False,
    claimed: Callable[[MountInfo], bool] = lambda _: False,
    *,
    here: bool,
    is_held: bool = False,
    kept: str | HookError = "",
    give_up: bool = False,
    again: str = "",
) -> list[Remark]:
    """Undoes what ``record`` contains, in reverse order, and removes each finished part from the record.

    ``here``: the mounts are in this mount namespace; otherwise they ended with their own. ``rootfs`` is None if it is
    gone. ``kept`` is why no mount point can be removed now, "" if they can. Returns what was left because it is not
    what was made or, with ``give_up``, may not be. Raises LeftoverError if something cannot be undone; the record then
    contains the rest.

    rmdir(2) and unlink(2) of a mount point succeed on the host while another mount namespace has a mount on it, and
    detach that mount there: the bind of another running container on the same rootfs would vanish. So two functions are
    asked about each mount point. ``keep(made)``: does a live container use it? If so, it moves to that container's
    record, and the last container removes it. ``inherit(made)``, called when the kernel refuses (not empty, or a mount
    on it here): does any other record use it, even one of a dead container? If two containers end at the same time,
    each prevents the other from removing it; the one that is undone last then removes the mount points of both.

    ``claimed(mount)``, called for mounts without a unique id: does another record have a better claim to it?
    ``is_held``: the caller has fds of all mounts, so that their ids cannot have been reused. ``again`` is what undoes
    the rest later, by default gc.
    """
    problems: list[LeftoverError] = []
    remarks: list[Remark] = []
    was_laid = any(mount["resolved"] == "/" for mount in record["mounts"])
    if here:
        trees = [tree_of(mount, record, claimed, is_held=is_held, rootfs=rootfs) for mount in record["mounts"]]
        detach(trees, proc)
        for tree in trees if give_up else ():
            if isinstance(tree.problem, DoubtError):
                remarks.append(Remark(tree.path, str(tree.problem), tree.path))
                tree.problem = None
        record["mounts"] = [mount for mount, tree in zip(record["mounts"], trees, strict=True) if tree.problem]
        problems += [_problem_of(tree.path, tree.problem) for tree in reversed(trees) if tree.problem is not None]
    else:
        record["mounts"] = []
    if rootfs is not None and was_laid:
        rootfs.reopen_root()
    if kept and record["made"]:
        problems.append(_kept(record, kept))
    elif not record["mounts"]:
        remarks += _unmake_all(record, rootfs, keep, inherit, problems, here=here)
    if problems:
        error = _leftover(problems, proc, again)
        error.remarks = remarks
        raise error
    return remarks


def kept_points(record: Record, reason: str | HookError, proc: Proc) -> LeftoverError:
    """The error that ``undo`` raises for mount points that cannot be removed now, if everything else was undone."""
    return _leftover([_kept(record, reason)], proc)


def _kept(record: Record, reason: str | HookError) -> LeftoverError:
    return _of(record["made"][-1]["path"], reason)


def _of(path: str, reason: object) -> LeftoverError:
    """The error for what is at ``path``. It keeps the hint of ``reason`` apart, because ``_leftover`` adds to it."""
    if isinstance(reason, HookError) and not reason.where:
        return LeftoverError(f"{path}: {reason.problem}", hint=reason.hint)
    return LeftoverError(f"{path}: {reason}")


def _leftover(problems: Sequence[LeftoverError], proc: Proc, again: str = "") -> LeftoverError:
    more = f"; {len(problems) - 1} more could not be undone" if len(problems) > 1 else ""
    own, gc = problems[0].hint, f"run {proc.command('gc')}"
    if not again and gc not in own:
        again = f"{gc} to try again"
    stays = "they stay in the state file" if more else "it stays in the state file"
    hint = "; ".join(filter(None, (stays, own, again)))
    return LeftoverError(f"could not undo {problems[0].problem}{more}", hint=hint)


def _unmake_all(
    record: Record,
    rootfs: Rootfs | None,
    keep: Callable[[MadeRecord], bool],
    inherit: Callable[[MadeRecord], bool],
    problems: list[LeftoverError],
    *,
    here: bool,
) -> list[Remark]:
    """Removes mount points, the last one first. The record keeps those that cannot be removed, and the folders above.

    ``problems`` gets one for each. Returns what was left.
    """
    remarks: list[Remark] = []
    resisting: list[MadeRecord] = []
    above: set[str] = set()  # the folders above mount points that cannot be removed
    try:
        while record["made"]:
            made = record["made"][-1]
            if made["path"] in above:
                resisting.append(record["made"].pop())
                continue
            place = made["path"] if rootfs is None else rootfs.place(made["path"])
            try:
                reason = _unmake(record, made, rootfs, keep, here=here)
            except (OSError, HookError) as refusal:
                number = refusal.errno if isinstance(refusal, OSError) else None
                is_in_use = number in (errno.ENOTEMPTY, errno.EBUSY)
                if is_in_use and made["identity"] is not None and inherit(made):
                    reason = ""
                elif number == errno.ENOTEMPTY:
                    reason = "it is not empty"
                else:
                    why = message("unlinkat", refusal) if isinstance(refusal, OSError) else refusal
                    problems.append(_of(place, why))
                    resisting.append(record["made"].pop())
                    folder = made["path"].rpartition("/")[0]
                    while folder not in above:
                        above.add(folder)
                        folder = folder.rpartition("/")[0]
                    continue
            record["made"].pop()
            if reason:
                remarks.append(Remark(made["path"], reason, place))
    finally:
        record["made"] += reversed(resisting)
    return remarks


def tree_of(
    mount: MountRecord,
    record: Record,
    claimed: Callable[[MountInfo], bool] = lambda _: False,
    *,
    is_held: bool = False,
    rootfs: Rootfs | None = None,
) -> Tree:
    """A bind of ``record``, to be detached or found. ``claimed``, ``is_held`` and ``rootfs`` are as in ``undo``."""
    places = None if is_held else places_of(mount, record)
    tree = Tree(mount["attached"], mount["resolved"], places=places, claimed=claimed, receives=_receives(mount))
    if rootfs is not None:
        tree.hold, tree.inside = rootfs.hold_path, rootfs.inside
    return tree


def _receives(mount: MountRecord) -> bool:
    """Whether mounts from elsewhere may have propagated into a bind."""
    return propagation_of(mount).removeprefix("r") in ("slave", "shared")


def _problem_of(path: str, problem: Exception) -> LeftoverError:
    if isinstance(problem, OSError):
        return LeftoverError(f"the bind on {path}: {message('umount2', problem)}")
    return _of(path, problem)


def _unmake(
    record: Record, made: MadeRecord, rootfs: Rootfs | None, keep: Callable[[MadeRecord], bool], *, here: bool
) -> str:
    """Removes one mount point. Returns why it must stay, "" if it is gone. Raises OSError and HookError."""
    on_tmpfs = made["filesystem"] == "tmpfs"
    if rootfs is None or (on_tmpfs and not here):
        return ""
    found = rootfs.find(made["path"], across=on_tmpfs)
    if found is None:
        return ""
    try:
        if found.stat.mount_root or (found.stat.mnt_id != rootfs.stat.mnt_id and not on_tmpfs):
            umount = rootfs.umount(made["path"])
            raise OSError(errno.EBUSY, f"something else is mounted on it: if nothing uses that, run {umount}")
        stranger = difference(record, made, found.stat, rootfs)
        if stranger:
            return stranger
        # It may be unknown, or have the device number of another boot. A record that inherits it needs the current one.
        made["identity"] = identity_of(found.stat, rootfs)
        if keep(made):
            return ""
        rootfs.remove(found)
    finally:
        found.close()
    return ""


def difference(record: Record, made: MadeRecord, stat: files.Stat, rootfs: Rootfs) -> str:
    """How the object with ``stat`` differs from the one that was made, "" if it is the same."""
    directory = made["kind"] == "directory"
    if modes.S_ISDIR(stat.mode) != directory or (not directory and not modes.S_ISREG(stat.mode)):
        return f"it is no longer a {made['kind']}"
    if not directory and stat.size:
        return "it is not empty"
    known = made["identity"]
    if known is None:
        # Its name did not exist when the record was written. On a file system without birth times, the time of the last
        # change is an upper bound.
        born = stat.changed if stat.born is None else stat.born
        if stat.uid != posix.geteuid() or born < record["created"]:
            return "it existed before"
        return ""
    if rootfs.owner_of(stat) != (known["uid"], known["gid"]):
        return "its owner has changed"
    if known["born"] is None and known["ino"] is None:
        return "this file system provides nothing to identify it by"
    is_other = known["born"] is not None and stat.born != known["born"]
    # An object on the rootfs itself has the device number of the rootfs, which a reboot may have changed.
    dev = rootfs.stat.dev if known["dev"] == record["rootfs"]["dev"] else known["dev"]
    if known["ino"] is not None and (stat.dev, stat.ino) != (dev, known["ino"]):
        is_other = True
    return "another process created it" if is_other else ""


def identity_of(stat: files.Stat | None, rootfs: Rootfs) -> Identity | None:
    """What identifies an object that was made. No device and inode on overlayfs: they change with every mount."""
    if stat is None:
        return None
    uid, gid = rootfs.owner_of(stat)
    is_overlay = rootfs.is_overlay
    return {
        "uid": uid,
        "gid": gid,
        "born": stat.born,
        "dev": None if is_overlay else stat.dev,
        "ino": None if is_overlay else stat.ino,
    }


def propagation_of(mount: MountRecord) -> str:
    """The requested propagation: the last one of the normalized options, requests.request.Request.options."""
    options = mount["requested"]["options"]
    assert isinstance(options, list)
    return str(options[-1])


def reconcile(record: Record, proc: Proc, rootfs: Rootfs) -> None:
    """Removes from ``record`` what it announces but was never done, because the run that wrote it was killed.

    Raises OSError, and DoubtError if it cannot be determined whether a bind is still mounted.
    """
    table = proc.mounts()
    record["mounts"] = [mount for mount in record["mounts"] if tree_of(mount, record).find(table) is not None]
    if record["phase"] != "done":
        trees = [(tree_of(mount, record, rootfs=rootfs), propagation_of(mount)) for mount in record["mounts"]]
        restore_propagation(trees, proc)
    known = []
    for made in record["made"]:
        if made["identity"] is None:
            found = rootfs.find(made["path"], across=made["filesystem"] == "tmpfs")
            if found is None:
                continue
            found.close()
            if difference(record, made, found.stat, rootfs):
                continue
            made["identity"] = identity_of(found.stat, rootfs)
        known.append(made)
    record["made"] = known
