# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan whole or not at all, and makes a record true again after a run that was killed.

Knows neither how requests are written nor where records are kept.
"""

from __future__ import annotations

from ..errors import At, HookError, LeftoverError
from ..kernel.errnos import refused
from ..kernel.proc import Proc
from ..rootfs.mount_points import Rootfs
from .mounted import find, restore_propagation
from .sources import check_open_files
from .undo import difference, identity_of, propagation_of, undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..record.state_file import MadeRecord, Record
    from ..rootfs.mount_points import MountPoint
    from .plan import Bind, Plan


def carry_out(plan: Plan, record: Record, save: Callable[[], None], clean_up: Callable[[], None]) -> None:
    """Carries out ``plan`` and keeps ``record`` true by calling ``save``.

    ``save`` is called before the first change, when the mount points are made, and when all is attached; ``clean_up``
    before the last of these. Everything is attached or nothing is: on any error, one of
    ``clean_up`` included, what this call did is undone before the error is raised. The record keeps what could not be
    undone. HookError; LeftoverError if undoing fails as well.
    """
    binds = plan.to_mount
    old_mounts, old_made = list(record["mounts"]), list(record["made"])
    points = [point for bind in binds for point in bind.create]
    check_open_files(len(binds), len(points))
    made: list[MadeRecord] = [
        {
            "path": point.path,
            "kind": "directory" if point.directory else "file",
            "filesystem": point.filesystem,
            "identity": None,
        }
        for point in points
    ]
    record["made"] = old_made + made
    record["mounts"] = old_mounts + [
        {
            "origin": bind.request.origin,
            "requested": bind.request.as_mount(),
            "resolved": bind.target.path if bind.target else "",
            "source": {"dev": bind.source.stat.dev, "ino": bind.source.stat.ino},
            "attached": bind.source.attached,
        }
        for bind in binds
    ]
    record["phase"] = "intent"
    try:
        save()
        targets = [_make(plan.rootfs, bind) for bind in binds]
        _identify(made, points, plan.rootfs)
        if points:
            record["phase"] = "made"
            save()
        with At("attach"):
            for bind, fd in zip(binds, targets, strict=True):
                _attach(bind, fd)
            clean_up()
            record["phase"] = "done"
            save()
    except BaseException as failure:
        # Roll back here and now: crun calls no poststop after a hook that failed, and runc none if the container was
        # never created. It goes the way of poststop, by the record of this call alone: what an earlier call made or
        # mounted is in use. Ids were known before anything was attached, so a mount that was attached just before the
        # failure is found; one that never was is not in the table. BaseException: an interrupt leaves nothing either.
        _identify(made, points, plan.rootfs)
        # A mount point that this call did not get to make may have been made by another process since.
        made = [entry for entry, point in zip(made, points, strict=True) if point.made]
        done: Record = {**record, "mounts": record["mounts"][len(old_mounts) :], "made": made}
        try:
            undo(done, plan.namespace.proc, plan.rootfs, keep=lambda _: False, here=True)
        except LeftoverError as leftover:
            raise LeftoverError(f"{failure}; then {leftover.problem}", hint=leftover.hint) from failure
        finally:
            record["mounts"] = old_mounts + done["mounts"]
            record["made"] = old_made + done["made"]
            record["phase"] = "done"
        raise


def _identify(made: Sequence[MadeRecord], points: Sequence[MountPoint], rootfs: Rootfs) -> None:
    for entry, point in zip(made, points, strict=True):
        entry["identity"] = identity_of(point.stat, rootfs)


def _make(rootfs: Rootfs, bind: Bind) -> int:
    assert bind.target is not None
    try:
        return rootfs.make(bind.target)
    except HookError as problem:
        problem.where = problem.where or bind.request.at("destination")
        raise


def _attach(bind: Bind, fd: int) -> None:
    """Attaches one bind on the mount point ``fd``. KernelError."""
    assert bind.target is not None
    try:
        bind.source.attach(fd)
    except OSError as reason:
        where = bind.request.at("destination")
        raise refused(bind.source.call, bind.target.path, reason, where=where) from reason


def reconcile(record: Record, proc: Proc, rootfs: Rootfs) -> None:
    """Removes from a record what it announces but was never done, because the run that wrote it was killed."""
    table = proc.mounts()
    record["mounts"] = [mount for mount in record["mounts"] if find(mount["attached"][0], table) is not None]
    if record["phase"] != "done":
        for mount in record["mounts"]:
            restore_propagation(mount["attached"], propagation_of(mount), proc)
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
