# SPDX-License-Identifier: Apache-2.0
"""Binds into a container that runs, and out of it: a second caller of the steps of set_up, and of the way back.

What is different: the container has its own root already, and may do anything there at any moment. So its mount
namespace is entered by pidfd, its root must be the one that its bundle names, and its file systems are walked as
rootfs.inside does. If anything fails, this call alone is undone: nobody gives up the container.
"""

from __future__ import annotations

import posix
import time

from ..errors import At, EscapeError, LeftoverError, MissingError, RecordError, UnavailableError
from ..kernel import files, linux, rights
from ..kernel.namespace import Namespace
from ..kernel.proc import Proc, boot_id
from ..log import one_line
from ..mounting.mounted import find
from ..mounting.sources import expand
from ..mounting.undo import undo
from ..options import state_folder
from ..record.folder import StateFolder
from ..record.state_file import is_live, is_object
from ..requests import collect
from ..requests.request import source_of
from ..rootfs.inside import Inside
from .set_up import Call, before, enter, mount, read
from .stage import Place
from .start_record import complete_or_check, is_needed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..documents.bundle import Bundle
    from ..documents.oci import State
    from ..log import Log
    from ..mounting.plan import Bind, Plan, Planner
    from ..mounting.undo import Remark
    from ..options import Options
    from ..record.state_file import InitRecord, MadeRecord, MountRecord, Record, RootfsRecord
    from ..requests.request import Request
    from ..rootfs.mount_points import Rootfs

OTHERS_HINT = "as root; for a rootless container of podman by its user: podman unshare oci-bind-hook"


class Running(Place):
    """A container that runs, by its first process, which is held by pidfd."""

    without_rights = OTHERS_HINT
    when_ended = "if the container was restarted, try again"
    when_moved = "its first process has entered another one since: they stay where they are until the container ends"

    def __init__(self, state: State, proc: Proc) -> None:
        super().__init__(None, state, proc)
        self.stage = "attach"
        self._is_locked = True

    def hold(self) -> InitRecord:
        """Opens the process. UnavailableError if it cannot be entered, or need not be."""
        if lacking := rights.lacking("CAP_SYS_ADMIN"):
            raise UnavailableError(f"entering a container requires {lacking}", hint=OTHERS_HINT)
        if not linux.has_mount_api() or not linux.tells_mounts():
            raise UnavailableError("this requires the mount API of Linux 5.12, which this kernel lacks or hides")
        assert self._pid is not None
        self._open(self._pid)
        assert self.init is not None
        inode = self.proc.mount_namespace_of(self.init["pid"])
        if inode is None:
            raise UnavailableError(f"the process {self._pid} has ended or belongs to another user", hint=OTHERS_HINT)
        if inode == self.proc.mount_namespace():
            raise UnavailableError(
                f"the process {self._pid} is in this mount namespace",
                hint="it is not a container, or has no mount namespace of its own: use mount(8)",
            )
        return self.init

    def may_have(self, capability: int) -> bool:
        """Whether the process may have a capability by its bounding set; true if it has ended."""
        try:
            return self.init is None or self.proc.may_have(self.init["pid"], capability)
        except OSError:
            return True

    def choose(self, bundle: Bundle) -> str:
        """As Place.choose; and notes how the rootfs is mounted here. UnavailableError for another than the first."""
        init = self.hold()
        # With another one for the first, the container could be taken for dead while it lives, and be undone.
        try:
            pids = self.proc.pids(init["pid"])
        except OSError:
            raise self._ended() from None
        has_own_pids = bundle.config.namespaces.get("pid", "") is None
        if has_own_pids and len(pids) > len(self.proc.pids()) and pids[-1] != 1:
            raise UnavailableError(
                f"the process {init['pid']} is not the container's first process",
                hint="runc state or crun state shows its pid",
            )
        self.look_at(bundle.rootfs, Namespace(self.proc, "runtime"))
        return super().choose(bundle)

    def look_at(self, rootfs: str, namespace: Namespace) -> None:
        """Notes whether the rootfs is read-only for the host as well, before the namespace is entered."""
        try:
            fd = posix.open(rootfs, posix.O_PATH | posix.O_CLOEXEC)
        except OSError:
            return
        info = namespace.mount_of(files.statx(fd, ask=False))
        posix.close(fd)
        self._is_locked = info is None or "ro" in info.options

    def runtimes(self) -> tuple[str, ...]:
        """None: no runtime changes what is bound from now on."""
        return ()

    def open_rootfs(self, bundle: Bundle, known: RootfsRecord, namespace: Namespace) -> Rootfs:
        """As Place.open_rootfs, for a container that has its root."""
        return self.open_inside(bundle.rootfs, known, namespace)

    def open_inside(self, path: str, known: RootfsRecord, namespace: Namespace) -> Rootfs:
        """The root of the container, which must be ``known``. UnavailableError."""
        if not namespace.entered:
            raise UnavailableError("the container's process has just changed its mount namespace")
        rootfs = Inside(path, namespace, unlock=not self._is_locked)
        if not is_object(known, posix.fstat(rootfs.fd)):
            raise UnavailableError(
                f"the root of the container is not the rootfs {path}",
                hint="it runs in a sandbox such as runsc, or it has mounted or entered another root: nothing can be "
                "bound there",
            )
        return rootfs


class Attach(Call):
    """A call for a container that runs. ``binds`` are those of the plan that was carried out."""

    is_start = False

    def __init__(self, options: Options, state: State, log: Log) -> None:
        super().__init__(options, state, log)
        self._place = self.running = Running(state, Proc())
        self.binds: list[Bind] = []
        self._is_admin = False

    def prepare(self) -> tuple[Bundle, list[Request]]:
        """Holds the process, reads the bundle, and returns it with what is asked for. HookError."""
        with At("read"):
            bundle = self.bundle = read(self, None)
        with At("ask"):
            return bundle, self._requests(bundle)

    def _requests(self, bundle: Bundle) -> list[Request]:
        """What is asked for, after the container's own mounts. HookError."""
        self._is_admin = bundle.config.is_admin or self.running.may_have(linux.CAP_SYS_ADMIN)
        asked = collect.requests(bundle.config, self.options.mounts)
        for request in asked:
            if request.origin_kind == "argument":
                request.origin_kind, request.time = "attach", int(time.time())
        found = expand(asked, before(self.log))
        for request in found:
            if request.origin_kind == "attach" and request.is_read_only and self._is_admin and not self.options.force:
                raise EscapeError(
                    "root in the container has CAP_SYS_ADMIN, and can make the bind writable again",
                    where=request.at("options"),
                    hint="use a source that is itself read-only, or pass --force",
                )
        return found

    def begin(self, record: Record, requests: list[Request]) -> None:
        check_process(record, self.running)
        known = [mount["by"].removeprefix("attach ") for mount in record["mounts"] if mount["origin"] == "attach"]
        last = max((int(number) for number in known if number.isdigit()), default=0)
        for request in requests:
            if request.origin_kind == "attach":
                request.origin = f"attach {last + int(request.place.removeprefix('--mount '))}"

    def planner(self, rootfs: Rootfs, namespace: Namespace, record: Record) -> Planner:
        planner = super().planner(rootfs, namespace, record)
        # The runtime has mounted all of its own. What is not there any more, the container has unmounted.
        planner.is_late = True
        planner.is_admin = self._is_admin
        return planner

    def check_attached(self, plan: Plan) -> None:
        """Refuses binds that have propagated, since the mount below joined a peer group of the host. EscapeError."""
        table = plan.namespace.proc.mounts()
        for bind in plan.to_mount if not self.options.allow_shared else ():
            info = table.get(bind.source.attached[0]["id"])
            below = table.get(info.parent) if info is not None else None
            if info is None and table.get(plan.rootfs.stat.mnt_id) is None:
                raise UnavailableError("the container has just changed its root")
            if info is None:
                place = bind.request.destination if bind.target is None else bind.target.path
                raise UnavailableError(f"the bind on {place} has just been unmounted", hint="run the command again")
            if below is not None and below.shared is not None and below.shared in plan.namespace.groups_started_in():
                raise EscapeError(f"the mount on {below.mount_point} has just become shared with the host")

    def tell(self, plan: Plan) -> None:
        super().tell(plan)
        self.binds = [bind for bind in plan.binds if not bind.request.is_from_mounts]


def attach(options: Options, state: State, log: Log) -> list[Bind]:
    """Binds what ``options`` ask for into the container of ``state``, and returns the binds. HookError."""
    rights.hide()
    call = Attach(options, state, log)
    bundle, requests = call.prepare()
    mount(call, bundle, requests, "container")
    return call.binds


def check_process(record: Record, running: Running) -> None:
    """Raises RecordError if a record belongs to another first process than the one that is held."""
    if record["init"] != running.init:
        raise RecordError(
            f'the state file of the container "{record["id"]}" belongs to another first process',
            hint="give only the container's id, and try again",
        )


def detach(options: Options, state: State, destination: str | None, log: Log) -> tuple[list[str], list[Remark]]:
    """Takes the binds on ``destination`` out of a container that runs, or all that are recorded of it. HookError.

    Returns a line for each bind, and what was left standing in the rootfs. LeftoverError if anything resists.
    """
    from .reach import check_answers

    rights.hide()
    call = Attach(options, state, log)
    proc = call.place.proc
    call.running.hold()
    folder = StateFolder.open(state_folder(options, proc), create=False)
    if folder is None or not folder.has(state.id):
        raise MissingError(f'nothing is recorded for a container "{state.id}" in {state_folder(options, proc)}')
    with folder.lock_id(state.id):
        record = _load(folder, call)
        check_answers(record, proc, boot_id(), may_give_up=False)
        namespace = Namespace(proc, "runtime")
        call.running.look_at(record["rootfs"]["path"], namespace)
        with folder.lock_rootfs(record["rootfs"]) as held:
            record = _load(folder, call)  # a neighbour that has ended may have handed a mount point over
            if not held.holds(record["rootfs"]):
                raise RecordError("the container has just been moved to another rootfs", hint="try again")
            chosen = _chosen(record, destination)
            others = [each for each in record["mounts"] if each not in chosen]
            users = held.users(record["rootfs"], record["boot"], state.id)
            enter(call, namespace)
            namespace.kind = "container"
            rootfs = call.running.open_inside(record["rootfs"]["path"], record["rootfs"], namespace)
            complete_or_check(record, rootfs, namespace, call.place)
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
    return [one_line(f"detached {source_of(each['requested'])} from {each['resolved']}") for each in chosen], remarks


def _load(folder: StateFolder, call: Attach) -> Record:
    record = folder.load(call.state.id)
    if record is None:
        raise MissingError(f'nothing is recorded for the container "{call.state.id}"')
    if not is_live(record, call.place.proc, boot_id()):
        raise MissingError(
            f'nothing is recorded for the container "{call.state.id}" since it was restarted',
            hint="oci-bind-hook gc undoes the record of its earlier start",
        )
    check_process(record, call.running)
    return record


def _chosen(record: Record, destination: str | None) -> list[MountRecord]:
    """The binds of a record on ``destination``, or all. MissingError if there are none."""
    path = None if destination is None else files.clean_path(destination)
    chosen = [each for each in record["mounts"] if path in (None, each["resolved"], each["requested"]["destination"])]
    if not chosen and path is not None:
        raise MissingError(f"no bind on {path} is recorded", hint="oci-bind-hook show lists the recorded binds")
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
                    hint="detach that one first, or all by --all",
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
        return undo(part, proc, rootfs, keep=keep, inherit=keep, here=True, kept=kept)
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
