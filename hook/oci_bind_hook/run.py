# SPDX-License-Identifier: Apache-2.0
"""The order of steps: what is read, locked, entered and written, and when.

Each step's own work is done elsewhere. The order is what makes a run safe: everything is read and cloned before the
container's namespace is entered, resolved before anything is changed, and recorded before it is done.
"""

from __future__ import annotations

import os

from . import linux, mounts, plan, spec
from .errors import (
    DataError,
    EscapeError,
    HookError,
    KernelError,
    LeftoverError,
    MissingError,
    RecordError,
    UnavailableError,
)
from .log import NAME
from .planner import Planner
from .proc import Namespace, Proc, boot_id
from .rootfs import Rootfs
from .statefile import StateFolder, Unrecorded, is_live, now
from .trees import clone_sources, open_sources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import cast

    from .log import Log
    from .planner import Plan
    from .statefile import InitRecord, Record
else:

    def cast(_: object, value: object) -> object:
        return value


DEFAULT_ROOT = "/run/oci-bind-hook"
INIT_GRACE_SECONDS = 2.0


class Options:
    """The command line, understood."""

    def __init__(self) -> None:
        self.stage: str | None = None
        self.mounts: list[str] = []
        self.root: str | None = None
        self.dry_run = False
        self.bundle: str | None = None
        self.as_json = False
        self.allow_shared = False
        self.keep_mountpoints = False
        self.log: str | None = None
        self.log_as_json = False


class Bundle:
    """A bundle's config and rootfs, as the host finds them.

    ``data`` is config.json if the runtime sent it, else it is read from the bundle, once. MissingError, DataError.
    """

    def __init__(self, path: str, document: object | None = None) -> None:
        self.path = path
        try:
            self.stat = os.stat(path)
        except OSError as reason:
            raise MissingError(f"the bundle {path} cannot be opened: {reason.strerror}") from reason
        if document is None:
            document = spec.documents(read_regular(f"{path}/config.json"), "config.json")[0]
        self.config = spec.config(document)
        self.rootfs = os.path.normpath(os.path.join(path, self.config.root_path))
        self.has_namespace = "mount" in self.config.namespaces


def read_regular(path: str) -> bytes:
    """The bytes of a regular file, at most one more than any document may have. MissingError."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as reason:
        raise MissingError(f"{path} cannot be opened: {reason.strerror}") from reason
    try:
        if not os.path.isfile(fd):
            raise MissingError(f"{path} is not a regular file")
        return read_all(fd)
    finally:
        os.close(fd)


def read_all(fd: int) -> bytes:
    """What is left to read of ``fd``, cut one byte above the size of any document that is accepted."""
    chunks = []
    left = spec.MAX_BYTES + 1
    while left and (chunk := os.read(fd, min(left, 1 << 20))):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def read_state(data: bytes) -> tuple[spec.State, object | None]:
    """The state that the runtime sent, and the config if it sent that too. DataError."""
    documents = spec.documents(data, "state", most=2)
    return spec.state(documents[0]), documents[1] if len(documents) > 1 else None


def parse_record(data: bytes, name: str) -> Record:
    """The record in a state file. DataError with ``name``."""
    document = spec.documents(data, name)[0]
    if violations := spec.violations(document, "state-file"):
        raise DataError(name, violations)
    return cast("Record", document)


def is_teardown(stage: str | None, state: spec.State) -> bool:
    """Whether this is poststop. UnavailableError for a container that is past, or not yet at, any stage of ours."""
    if stage == "poststop" or (stage is None and state.status == "stopped"):
        return True
    if state.status not in ("creating", "created"):
        raise UnavailableError(
            f'nothing can be mounted into a container that is "{state.status}"',
            hint="register the hook for createRuntime, createContainer or prestart",
        )
    return False


def state_folder(options: Options) -> str:
    """Where the state files are: as asked, else below /run, or for an ordinary user below their runtime folder."""
    if options.root is not None:
        return options.root
    if os.geteuid() == 0:
        return DEFAULT_ROOT
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    return f"{runtime}/oci-bind-hook"


# -- set-up ----------------------------------------------------------------------------------------------------------


def set_up(options: Options, state: spec.State, document: object | None, log: Log) -> None:
    """Everything from a checked state to attached mounts and a finished state file. HookError."""
    proc = Proc()
    place = Place(options.stage, state, proc)
    bundle = Bundle(state.bundle, document)
    log.stage = place.choose(bundle)
    requests = plan.requests(bundle.config, options.mounts)
    if not any(request.is_bind for request in requests):
        log.debug("no bind is asked for")
        return
    folder = _open_folder(options, place)
    with folder.lock_id(state.id):
        _clear_stale(folder, state, bundle, proc, log)
        try:
            rootfs = os.stat(bundle.rootfs)
        except OSError as reason:
            raise MissingError(f"the rootfs {bundle.rootfs} cannot be opened: {reason.strerror}") from reason
        with folder.lock_rootfs(rootfs):
            _set_up_locked(options, state, bundle, place, folder, requests, log)


def _set_up_locked(
    options: Options,
    state: spec.State,
    bundle: Bundle,
    place: Place,
    folder: StateFolder,
    requests: list[plan.Request],
    log: Log,
) -> None:
    record = folder.load(state.id)
    namespace = Namespace(place.proc, "container" if bundle.has_namespace else "runtime")
    sources = open_sources(requests, bundle.path, namespace)
    clone_sources(sources)
    before = [os.stat("/"), os.stat(bundle.rootfs)]
    log.prepare()
    linux.harden(NAME, hide=not place.proc.in_user_namespace())
    place.enter(namespace)
    _check_same(before, bundle)
    rootfs = Rootfs(
        bundle.rootfs,
        unlock=namespace.kind == "container",
        own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs),
    )
    if record is None:
        record = _new_record(state, bundle, rootfs, namespace, place)
    elif record["namespace"]["inode"] != namespace.inode:
        raise RecordError(f'the container "{state.id}" is recorded already, in another mount namespace', hint="gc")
    recorded = [mount["requested"] for mount in record["mounts"]]
    planner = Planner(rootfs, namespace, recorded, allow_shared=options.allow_shared)
    found = planner.resolve(requests, sources)
    _raise_first(found)
    for bind in found.binds:
        for warning in bind.warnings:
            log.warning(f"{bind.request.origin}: {warning}")
    _carry_out(found, record, folder, place)


def _carry_out(found: Plan, record: Record, folder: StateFolder, place: Place) -> None:
    record["uses"] = sorted(found.uses.union(record["uses"]))
    neighbours = folder.neighbours(record, place.proc, record["boot"])
    if not found.to_mount:
        # Not even a record is needed, unless we stand on something that a neighbour would remove one day.
        if any(made["path"] in record["uses"] for other in neighbours for made in other["made"]):
            folder.save(record)
        return
    if isinstance(folder, Unrecorded) and any(bind.create for bind in found.to_mount):
        raise UnavailableError(
            f"mount points must be made, and {folder.path} cannot be written to record it",
            hint="make them in the image, or register for createRuntime",
        )
    record["created"] = now()
    try:
        mounts.attach(found, record, lambda: folder.save(record))
    except BaseException:
        if record["mounts"] or record["made"]:
            folder.save(record)
        else:
            folder.remove(record["id"])
        raise


def _open_folder(options: Options, place: Place) -> StateFolder:
    path = state_folder(options)
    try:
        folder = StateFolder.open(path, parse_record, create=True)
        assert folder is not None
        return folder
    except RecordError:
        # The host's root is nobody to a container's user namespace. The mounts die with it, so they need no record.
        if place.is_inside and place.proc.in_user_namespace():
            return Unrecorded(path)
        raise


def _clear_stale(folder: StateFolder, state: spec.State, bundle: Bundle, proc: Proc, log: Log) -> None:
    """Undoes what a dead container of the same id left behind. RecordError where one of another bundle lives."""
    record = folder.load(state.id)
    if record is None:
        return
    if not is_live(record, proc, boot_id()):
        log.warning("an earlier container of this id was not torn down: doing it now")
        _tear_down(folder, record, proc, log, keep_mountpoints=False)
    elif not _is_same_bundle(record, bundle.path):
        other = record["bundle"]["path"]
        raise RecordError(f'the id "{state.id}" belongs to another container that lives, of the bundle {other}')


def _is_same_bundle(record: Record, path: str) -> bool:
    known = record["bundle"]
    try:
        stat = os.stat(path)
    except OSError:
        return known["path"] == path
    return (known["dev"], known["ino"]) == (stat.st_dev, stat.st_ino)


def _check_same(before: list[os.stat_result], bundle: Bundle) -> None:
    """After entering: ``/`` and the rootfs must be the same, or this is no container that is just being made."""
    try:
        after = [os.stat("/"), os.stat(bundle.rootfs)]
    except OSError:
        after = []
    if not after or not all(map(os.path.samestat, before, after)):
        raise UnavailableError(
            f"the mount namespace of the container does not show the rootfs {bundle.rootfs}",
            hint="it has its own root already: register for createRuntime or createContainer; runsc needs the latter",
        )


def _raise_first(found: Plan) -> None:
    if problems := found.problems:
        first = problems[0]
        if len(problems) > 1:
            more = f"and {len(problems) - 1} more: --dry-run tells all"
            first.hint = f"{first.hint}; {more}" if first.hint else more
        raise first


def _new_record(state: spec.State, bundle: Bundle, rootfs: Rootfs, namespace: Namespace, place: Place) -> Record:
    return {
        "version": 1,
        "id": state.id,
        "phase": "intent",
        "created": 0,
        "boot": boot_id(),
        "stage": place.stage,
        "bundle": {"path": bundle.path, "dev": bundle.stat.st_dev, "ino": bundle.stat.st_ino},
        "rootfs": {
            "path": rootfs.path,
            "dev": rootfs.stat.dev,
            "ino": rootfs.stat.ino,
            "overlay": rootfs.is_overlay,
        },
        "namespace": {"kind": namespace.kind, "inode": namespace.inode},
        "init": place.init,
        "mounts": [],
        "uses": [],
        "made": [],
    }


class Place:
    """Where the runtime has started us, and by which process the container's namespace can be entered.

    ``is_inside`` tells that we are in a pid namespace of the container's already, whatever ``/proc`` belongs to.
    """

    def __init__(self, stage: str | None, state: spec.State, proc: Proc) -> None:
        self.proc = proc
        self.stage = stage or ""
        pids = proc.pids()
        self.is_inside = len(pids) > 1 or pids != [os.getpid()]
        self._pidfd: int | None = None
        self.init: InitRecord | None = None
        self._pid = state.pid if state.pid is not None and state.pid > 1 else None

    def choose(self, bundle: Bundle) -> str:
        """Decides on the stage and opens the process to enter, if any. Returns the stage. UnavailableError."""
        if not self.stage:
            self.stage = "createContainer" if self.is_inside else "createRuntime"
            if self._pid is None and not self.is_inside and not bundle.has_namespace:
                self.stage = "prestart"
        if self.stage == "createContainer":
            self._check_inside(bundle)
            self.init = self._describe(self.proc.parent())
        elif self._pid is not None:
            self._open(self._pid)
        elif self.stage == "createRuntime":
            raise UnavailableError(
                "the state names no process whose mount namespace could be entered",
                hint="name the STAGE as first argument: createContainer, or prestart to mount in this namespace",
            )
        return self.stage

    def _open(self, pid: int) -> None:
        try:
            self._pidfd = os.pidfd_open(pid)
        except OSError as reason:
            raise UnavailableError(f"the container's process {pid} cannot be opened: {reason.strerror}") from reason
        number = self.proc.pid_of(self._pidfd)
        self.init = self._describe(number)
        if self.proc.pid_of(self._pidfd) != number or self.init is None:
            raise UnavailableError(f"the container's process {pid} has ended")

    def _describe(self, pid: int) -> InitRecord | None:
        start = self.proc.start_time(pid) if pid > 0 else None
        return None if start is None else {"pid": pid, "start": start}

    def _check_inside(self, bundle: Bundle) -> None:
        """createContainer is called inside the container's namespaces; anywhere else its mounts would hit the host."""
        if not bundle.has_namespace:
            return
        inside = bundle.rootfs + "/"
        if bundle.config.namespaces.get("pid", "") is None:
            is_right = self.is_inside
        else:
            is_right = any(info.mount_point.startswith(inside) for info in self.proc.mounts())
        if not is_right:
            raise UnavailableError(
                "this is not the container's mount namespace, as it is at createContainer",
                hint="register it for createContainer, or name the right STAGE",
            )

    def enter(self, namespace: Namespace) -> None:
        """Enters the container's namespace, if it is not the one we are in. KernelError."""
        if self._pidfd is not None:
            try:
                namespace.enter(self._pidfd)
            except OSError as reason:
                hint = "CAP_SYS_ADMIN and CAP_SYS_CHROOT are needed; rootless, register for createContainer"
                raise KernelError("setns", "the container's mount namespace", reason, hint=hint) from reason
        if not namespace.entered and not self.is_inside and self.stage == "prestart":
            namespace.kind = "runtime"


# -- tear-down -------------------------------------------------------------------------------------------------------


def tear_down(options: Options, state: spec.State, log: Log) -> None:
    """Undoes what is recorded for a container. Nothing recorded, or undone already, is no error. HookError.

    Neither config.json is read nor anything else that the container could have changed.
    """
    log.stage = "poststop"
    folder = StateFolder.open(state_folder(options), parse_record, create=False)
    if folder is None:
        return
    proc = Proc()
    with folder.lock_id(state.id):
        record = folder.load(state.id)
        if record is None:
            return
        if not _is_same_bundle(record, state.bundle):
            log.warning(f"what is recorded belongs to the bundle {record['bundle']['path']}: nothing is touched")
            return
        if record["init"] is not None and not _has_ended(record["init"], proc):
            log.warning("the container's first process still runs: nothing is touched")
            return
        linux.harden(NAME, hide=not proc.in_user_namespace())
        _tear_down(folder, record, proc, log, keep_mountpoints=options.keep_mountpoints)


def _has_ended(init: InitRecord, proc: Proc) -> bool:
    """Whether a process is gone, or goes within the grace that a runtime may need to reap it."""
    if proc.start_time(init["pid"]) != init["start"]:
        return True
    try:
        pidfd = os.pidfd_open(init["pid"])
    except OSError:
        return True
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    if proc.start_time(init["pid"]) == init["start"]:
        poll.poll(INIT_GRACE_SECONDS * 1000)
    os.close(pidfd)
    return proc.start_time(init["pid"]) != init["start"]


def _tear_down(folder: StateFolder, known: Record, proc: Proc, log: Log, *, keep_mountpoints: bool) -> None:
    boot = boot_id()
    with folder.lock_rootfs(known["rootfs"]):
        # A neighbour that ended meanwhile may have handed something over.
        record = folder.load(known["id"])
        if record is None:
            return
        here = record["boot"] == boot and record["namespace"]["inode"] == proc.mount_namespace()
        if not here and record["boot"] == boot and record["namespace"]["kind"] == "runtime" and record["mounts"]:
            raise LeftoverError(
                f"the binds are in the mount namespace {record['namespace']['inode']}, which is not this one",
                hint="run poststop in the namespace that prestart ran in",
            )
        neighbours = folder.neighbours(record, proc, boot)
        rootfs = _find_rootfs(record)
        try:
            remarks = mounts.undo(
                record,
                proc,
                rootfs,
                keep=lambda made: keep_mountpoints or folder.hand_over(made, neighbours),
                here=here,
            )
        except HookError:
            folder.save(record)
            raise
        folder.remove(record["id"])
    for remark in remarks:
        log.warning(remark)


def _find_rootfs(record: Record) -> Rootfs | None:
    """The rootfs of a record, None where it is gone or another one has taken its place."""
    known = record["rootfs"]
    try:
        rootfs = Rootfs(known["path"])
    except (MissingError, EscapeError):
        return None
    if known["overlay"]:
        return rootfs if rootfs.is_overlay else None
    return rootfs if (rootfs.stat.dev, rootfs.stat.ino) == (known["dev"], known["ino"]) else None
