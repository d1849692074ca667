# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan completely or not at all, and corrects the record of a run that was killed.

This module does not depend on the syntax of requests or on where records are stored.
"""

from __future__ import annotations

from ..errors import At, HookError, LeftoverError, RequestError
from ..kernel.errnos import refused
from ..record.document import is_too_large
from ..rootfs.mount_points import Rootfs
from .sources import check_open_files
from .undo import identity_of, undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..record.state_file import MadeRecord, MountRecord, Record
    from ..rootfs.mount_points import MountPoint
    from .plan import Bind, Plan


# The most mount points for one bind. No image needs more. A link in an image can require two thousand nested folders,
# and some disks take a millisecond to remove one, while other containers wait for the lock.
MOST_MADE = 256


def carry_out(plan: Plan, record: Record, save: Callable[[], None], clean_up: Callable[[], None]) -> None:
    """Carries out ``plan``, and updates ``record`` and calls ``save`` before and after each phase.

    ``save`` is called before the first change, after the mount points are created, and after all binds are attached;
    ``clean_up`` is called before the last ``save``. Either all binds are attached or none: on any error, also one of
    ``clean_up``, this call undoes its own changes before it raises the error. The record keeps what could not be
    undone. Raises HookError; LeftoverError if undoing fails as well.
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
        # Roll back now: crun does not call poststop after a hook that failed, and runc does not if the container was
        # never created. poststop uses the same function; here it gets only the record of this call, because what an
        # earlier call made or mounted is in use. The ids of mounts are known before they are attached, so a mount that
        # was attached just before the failure is found; another is not in the table, or still in the staging folder.
        # BaseException: an interrupt must not leave anything either.
        _identify(made, points, plan.rootfs)
        # If this call did not reach a mount point, another process may have created it since.
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
    """Adds to ``record`` what ``plan`` will create and mount.

    Raises RequestError if it exceeds a state file's size or ``MOST_MADE``, UnavailableError for too many open files.
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
    """The error for binds that do not fit in a state file. It names the deepest one, and the link that leads there."""
    deepest = max(binds, key=lambda bind: len(bind.target.steps) if bind.target else 0)
    assert deepest.target is not None
    depth = len(deepest.target.steps) - 1
    link = f", through the link {deepest.target.links[-1][0]}" if deepest.target.links else ""
    problem = f"the {len(binds)} binds do not fit in a state file; this one is {depth} folders deep{link}"
    return RequestError(problem, where=deepest.request.at("destination"))


def _identify(made: Sequence[MadeRecord], points: Sequence[MountPoint], rootfs: Rootfs) -> None:
    for entry, point in zip(made, points, strict=True):
        entry["identity"] = identity_of(point.stat, rootfs)


def check_makeable(plan: Plan, check_writable: Callable[[int], None]) -> None:
    """For a dry-run: raises the HookError that ``carry_out`` would raise at the first mount point of a bind.

    A real run creates it without this check: access(2) does not consider everything, for example capabilities.
    ``check_writable`` answers like linux.check_writable, but for that run.
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
    """Attaches one bind on the mount point ``fd``. Raises KernelError."""
    assert bind.target is not None
    try:
        bind.source.attach(fd)
    except OSError as reason:
        where = bind.request.at("destination")
        raise refused(bind.source.call, bind.target.path, reason, where=where) from reason
