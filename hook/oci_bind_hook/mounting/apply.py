# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan whole or not at all, and makes a record true again after a run that was killed.

Knows neither how requests are written nor where records are kept.
"""

from __future__ import annotations

from ..errors import At, HookError, LeftoverError, RequestError
from ..kernel.errnos import refused
from ..kernel.proc import Proc
from ..record.document import is_too_large
from ..rootfs.mount_points import Rootfs
from .mounted import restore_propagation
from .sources import check_open_files
from .undo import difference, identity_of, propagation_of, tree_of, undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..record.state_file import MadeRecord, MountRecord, Record
    from ..rootfs.mount_points import MountPoint
    from .plan import Bind, Plan


# For one bind. No image needs more. A link in one can ask for two thousand, each in the other, and some disks take a
# millisecond to remove one, while others wait for the lock.
MOST_MADE = 256


def carry_out(plan: Plan, record: Record, save: Callable[[], None], clean_up: Callable[[], None]) -> None:
    """Carries out ``plan`` and keeps ``record`` true by calling ``save``.

    ``save`` is called before the first change, when the mount points are made, and when all is attached; ``clean_up``
    before the last of these. Everything is attached or nothing is: on any error, one of
    ``clean_up`` included, what this call did is undone before the error is raised. The record keeps what could not be
    undone. HookError; LeftoverError if undoing fails as well.
    """
    binds = plan.to_mount
    old_mounts, old_made, old_uses = list(record["mounts"]), list(record["made"]), record["uses"]
    points = [point for bind in binds for point in bind.create]
    announce(plan, record)
    made = record["made"][len(old_made) :]
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
        # failure is found; one that never was is not in the table, or still in the staging folder. BaseException: an
        # interrupt leaves nothing either.
        _identify(made, points, plan.rootfs)
        # A mount point that this call did not get to make may have been made by another process since.
        made = [entry for entry, point in zip(made, points, strict=True) if point.made]
        done: Record = {**record, "mounts": record["mounts"][len(old_mounts) :], "made": made}
        try:
            undo(done, plan.namespace.proc, plan.rootfs, keep=lambda _: False, here=True, is_held=True)
        except LeftoverError as leftover:
            raise LeftoverError(f"{failure}; in addition, {leftover.problem}", hint=leftover.hint) from failure
        finally:
            record["mounts"] = old_mounts + done["mounts"]
            record["made"] = old_made + done["made"]
            if not done["mounts"] and not done["made"]:
                record["uses"] = old_uses
            record["phase"] = "done"
        raise


def announce(plan: Plan, record: Record) -> None:
    """Puts into ``record`` what ``plan`` will make and mount.

    Raises RequestError if no state file could hold it, and UnavailableError if it takes more open files than allowed.
    """
    binds = plan.to_mount
    made: list[MadeRecord] = [
        {
            "path": point.path,
            "kind": "directory" if point.directory else "file",
            "filesystem": point.filesystem,
            "identity": None,
        }
        for bind in binds
        for point in bind.create
    ]
    mounts: list[MountRecord] = [
        {
            "origin": bind.request.origin_kind,
            "by": bind.request.origin,
            "requested": bind.request.as_mount(),
            "resolved": bind.target.path if bind.target else "",
            "source": {"dev": bind.source.stat.dev, "ino": bind.source.stat.ino},
            "attached": bind.source.attached,
        }
        for bind in binds
    ]
    for bind, mount in zip(binds, mounts, strict=True):
        if bind.request.time is not None:
            mount["time"] = bind.request.time
    announced: Record = {
        **record,
        "phase": "intent",
        "mounts": record["mounts"] + mounts,
        "uses": sorted(plan.uses.union(record["uses"])),
        "made": record["made"] + made,
    }
    if is_too_large(announced):
        raise _too_large(binds)
    for bind in binds:
        if len(bind.create) > MOST_MADE:
            raise _too_deep(bind)
    check_open_files(len(binds), len(made))
    record.update(announced)


def _too_deep(bind: Bind) -> RequestError:
    assert bind.target is not None
    link = f" behind the link {bind.target.links[-1][0]}" if bind.target.links else ""
    problem = (
        f"{len(bind.create)} folders or files are missing{link}, and the hook creates at most {MOST_MADE} for one bind"
    )
    return RequestError(problem, where=bind.request.at("destination"), hint="create the mount point in the image")


def _too_large(binds: Sequence[Bind]) -> RequestError:
    """The error for binds that no state file can hold: it names the deepest one, and the link that leads there."""
    deepest = max(binds, key=lambda bind: len(bind.target.steps) if bind.target else 0)
    assert deepest.target is not None
    depth = len(deepest.target.steps) - 1
    link = f", through the link {deepest.target.links[-1][0]}," if deepest.target.links else ""
    problem = f"the {len(binds)} binds do not fit in a state file; this one is {depth} folders deep{link}"
    return RequestError(problem, where=deepest.request.at("destination"))


def _identify(made: Sequence[MadeRecord], points: Sequence[MountPoint], rootfs: Rootfs) -> None:
    for entry, point in zip(made, points, strict=True):
        entry["identity"] = identity_of(point.stat, rootfs)


def check_makeable(plan: Plan, check_writable: Callable[[int], None]) -> None:
    """For a dry-run: raises the HookError that ``carry_out`` would meet where it makes the first mount point of a bind.

    A real run finds out by making it: what it may do depends on more than access(2) tells, as on capabilities.
    ``check_writable`` is as linux.check_writable, for that run.
    """
    for bind in plan.to_mount:
        if bind.create:
            assert bind.target is not None
            try:
                plan.rootfs.check(bind.target, bind.create[0], check_writable)
            except HookError as problem:
                problem.where = problem.where or bind.request.at("destination")
                raise


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
    """Removes from a record what it announces but was never done, because the run that wrote it was killed.

    Raises OSError, and DoubtError where it cannot be known whether a bind is there.
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
