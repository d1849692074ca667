# SPDX-License-Identifier: Apache-2.0
"""Takes recorded binds out of a container that runs: a part of its record is undone, as at poststop.

It reads neither config.json nor anything else that the container could have changed.
"""

from __future__ import annotations

from ..errors import LeftoverError, MissingError, RecordError
from ..kernel import files, linux, rights
from ..kernel.namespace import Namespace
from ..kernel.proc import Proc, boot_id
from ..mounting.mounted import find
from ..mounting.undo import undo
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live
from .reach import check_answers
from .running import Running, check_process, rootfs_here
from .start_record import complete_or_check, is_needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..documents.oci import State
    from ..log import Log
    from ..mounting.undo import Remark
    from ..options import Options
    from ..record.state_file import MadeRecord, MountRecord, Record
    from ..rootfs.mount_points import Rootfs


def detach(options: Options, state: State, destination: str | None, log: Log) -> tuple[list[MountRecord], list[Remark]]:
    """Takes the binds on ``destination`` out of a container that runs, or all that are recorded of it. HookError.

    Returns these binds, and what was left standing in the rootfs. LeftoverError if anything resists.
    """
    rights.hide()
    proc = Proc(options.root)
    running = Running(state, proc)
    init = running.hold()
    folder = StateFolder.open(state_folder(options, proc), create=False)
    if folder is None or not folder.has(state.id):
        raise MissingError(f'nothing is recorded for a container "{state.id}" in {state_folder(options, proc)}')
    with folder.lock_id(state.id):
        record = _load(folder, state.id, running)
        check_answers(record, proc, boot_id(), may_give_up=False)
        namespace = Namespace(proc, "runtime")
        running.look_at(rootfs_here(record["rootfs"]["path"], init["pid"], proc), namespace)
        with folder.lock_rootfs(record["rootfs"]) as held:
            record = _load(folder, state.id, running)  # a neighbour that has ended may have handed a mount point over
            if not held.holds(record["rootfs"]):
                raise RecordError("the container has just been moved to another rootfs", hint="try again")
            chosen = _chosen(record, destination, proc)
            others = [each for each in record["mounts"] if each not in chosen]
            users = held.users(record["rootfs"], record["boot"], state.id)
            running.enter(namespace, log)
            namespace.kind = "container"
            rootfs = running.open_inside(record["rootfs"]["path"], record["rootfs"], namespace)
            complete_or_check(record, rootfs, namespace, running)
            if others:
                _check_below(chosen, others, proc)
            linux.raise_open_files()
            keeps = options.keep_mountpoints
            try:
                remarks = _undo(
                    record,
                    chosen,
                    rootfs,
                    proc,
                    keep=lambda made: keeps or held.hand_over(made, users, state.id),
                    kept="" if keeps else next(iter(users.unread), ""),
                )
            finally:
                # One of the container's start is kept as long as that lives: it tells which container it is.
                if record["stage"] != "attach" or is_needed(record, users):
                    held.save(record)
                else:
                    held.remove(state.id)
    return chosen, remarks


def _load(folder: StateFolder, container: str, running: Running) -> Record:
    record = folder.load(container)
    if record is None:
        raise MissingError(f'nothing is recorded for the container "{container}"')
    if not is_live(record, running.proc, boot_id()):
        raise MissingError(
            f'nothing is recorded for the container "{container}" since it was restarted',
            hint=f"{running.proc.command('gc')} undoes the record of its earlier start",
        )
    check_process(record, running)
    return record


def _chosen(record: Record, destination: str | None, proc: Proc) -> list[MountRecord]:
    """The binds of a record on ``destination``, or all. MissingError if there is none."""
    path = None if destination is None else files.clean_path(destination)
    chosen = [each for each in record["mounts"] if path in (None, each["resolved"], each["requested"]["destination"])]
    if not chosen and path is None:
        raise MissingError(f'no bind is recorded for the container "{record["id"]}"')
    if not chosen:
        show = proc.command(f"show {record['id']}")
        raise MissingError(f"no bind on {path} is recorded", hint=f"{show} lists the recorded binds")
    return chosen


def _check_below(chosen: Sequence[MountRecord], others: Sequence[MountRecord], proc: Proc) -> None:
    """Raises LeftoverError if one of the binds ``others`` is below one of ``chosen``: it would go with that one."""
    table = proc.mounts()
    tops = {other["attached"][0]["id"]: other for other in others}
    for each in chosen:
        info = find(each["attached"][0], table)
        for below in table.below(info.id) if info is not None else ():
            other = tops.get(below.id)
            if other is not None and find(other["attached"][0], table) is not None:
                raise LeftoverError(
                    f"could not undo {each['resolved']}: the bind on {other['resolved']} is below it",
                    hint="detach that bind first, or use --all",
                )


def _undo(
    record: Record,
    chosen: Sequence[MountRecord],
    rootfs: Rootfs,
    proc: Proc,
    *,
    keep: Callable[[MadeRecord], bool],
    kept: str,
) -> list[Remark]:
    """Undoes a part of a record: the binds ``chosen``, and the mount points that are for no other. LeftoverError."""
    taken = {id(each) for each in chosen}
    points = _only_for(record, chosen)
    taken.update(map(id, points))
    part: Record = {
        **record,
        "mounts": [each for each in record["mounts"] if id(each) in taken],
        "made": [each for each in record["made"] if id(each) in taken],
    }
    try:
        again = "poststop or gc tries again after the container has ended"
        return undo(part, proc, rootfs, keep=keep, inherit=keep, here=True, kept=kept, again=again)
    finally:
        left = {id(each) for each in (*part["mounts"], *part["made"])}
        gone = {each["path"] for each in points if id(each) not in left}
        record["mounts"] = [each for each in record["mounts"] if id(each) not in taken or id(each) in left]
        record["made"] = [each for each in record["made"] if id(each) not in taken or id(each) in left]
        record["uses"] = [path for path in record["uses"] if path not in gone]


def _only_for(record: Record, chosen: Sequence[MountRecord]) -> list[MadeRecord]:
    """The mount points of a record that nothing needs but the binds ``chosen``, as far as they are not below it."""
    ways = _ways(each["resolved"] for each in chosen)
    mine = {id(each) for each in chosen}
    others = [each["resolved"] for each in record["mounts"] if id(each) not in mine]
    needed = _ways([*others, *(path for path in record["uses"] if path not in ways)])
    return [made for made in record["made"] if made["path"] in ways and made["path"] not in needed]


def _ways(paths: Iterable[str]) -> set[str]:
    """These paths, and those of the folders above."""
    found: set[str] = set()
    for path in paths:
        while path and path not in found:
            found.add(path)
            path = path.rpartition("/")[0]
    return found
