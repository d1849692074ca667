# SPDX-License-Identifier: Apache-2.0
"""Determines the stage at which the hook was called, and enters the container's mount namespace.

Runtimes do not pass the stage to a hook, and they disagree about pid, namespaces and ``/proc``. A stage on the command
line decides; without one the stage is inferred from facts that are the same under every runtime.
"""

from __future__ import annotations

import errno
import posix

from ..errors import UnavailableError
from ..kernel import files, rights
from ..kernel.errnos import because, hint, refused, unopened
from ..kernel.proc import OUT_OF_SIGHT, HiddenError
from ..log import NAME
from ..record.state_file import is_object
from ..rootfs.mount_points import Rootfs

ROOTLESS = "rootless, register the hook for createContainer"
RUNTIMES = ("runc", "crun")

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents.bundle import Bundle
    from ..documents.oci import State
    from ..kernel.namespace import Namespace
    from ..kernel.proc import Proc
    from ..log import Log
    from ..record.state_file import InitRecord, NamespaceKind, RootfsRecord, UserRecord
    from ..rootfs.mount_points import OwnerOf


def no_process(*, is_inside: bool) -> UnavailableError:
    """The error at createRuntime without a process to enter, as when createContainer hooks are called."""
    advice = "register the hook for createContainer, with that STAGE"
    return UnavailableError(
        "the state has no pid, so no mount namespace can be entered",
        hint=advice if is_inside else f"{advice}, or pass prestart to mount in this namespace",
    )


def not_inside() -> UnavailableError:
    """The error at createContainer outside the container, where runtimes call createRuntime hooks."""
    return UnavailableError(
        "createContainer requires the container's mount namespace, but this is another one",
        hint="register the hook for createContainer, or pass the right STAGE",
    )


def not_seen(rootfs: str) -> UnavailableError:
    """The error if the process to enter already has its own root, as at poststart."""
    return UnavailableError(
        f"the rootfs {rootfs} is not visible in the container's mount namespace",
        hint="the container already has its own root, as under runsc, where no hook can bind: use the engine's binds, "
        "such as docker run -v or the mounts of config.json",
    )


NOT_CHROOT = "make the folder of the chroot the root of a mount namespace, as pivot_root(8) and systemd-nspawn do"
CHROOT_HINT = f"register the hook for createContainer, or {NOT_CHROOT}"


def in_chroot(rootfs: str) -> UnavailableError:
    """The error if the runtime runs in a chroot: setns(2) leads to the root of the namespace, outside of the chroot."""
    return UnavailableError(
        f"the rootfs {rootfs} is not visible in the container's mount namespace, because the runtime runs in a chroot",
        hint=CHROOT_HINT,
    )


class Place:
    """Where the runtime started the hook, and the process whose mount namespace can be entered.

    ``is_inside``: the hook is already in a pid namespace of the container, regardless of which one ``/proc`` shows.
    Hints for errors: ``without_rights`` if entering the namespace is denied, ``when_ended`` if its process has ended,
    ``when_moved`` if earlier binds of the container are in another namespace.
    """

    without_rights = ROOTLESS
    when_ended = "see the runtime's log and the messages of other hooks, and check the pid in the state"
    when_moved = "call poststop for it first"

    def __init__(self, stage: str | None, state: State, proc: Proc) -> None:
        self.proc = proc
        self.stage = stage or ""
        self._is_named = stage is not None
        pids = proc.pids()
        self.is_inside = len(pids) > 1 or pids != [posix.getpid()]
        self.pidfd: int | None = None
        self.init: InitRecord | None = None
        self._pid = state.pid if state.pid is not None and state.pid > 1 else None

    def choose(self, bundle: Bundle) -> str:
        """Determines the stage, opens the process to enter, if any, and returns the stage. Raises UnavailableError."""
        if not self.stage:
            self.stage = self._infer(bundle)
        if self.stage == "createContainer":
            self._check_inside(bundle)
            try:
                self.init = self._describe(self._first_process(bundle))
            except HiddenError:
                pass  # under hidepid, proc(5): no process is entered here
        elif self._pid is not None:
            self._open(self._pid)
            if not bundle.has_namespace and self.is_elsewhere():
                raise UnavailableError(
                    "the container has a mount namespace of its own, but config.json requests none",
                    hint="the runtime uses another config.json, as with crun --config, or the pid is wrong",
                )
        elif self.stage == "createRuntime":
            raise no_process(is_inside=self.is_inside)
        return self.stage

    @property
    def is_by_hand(self) -> bool:
        """Whether no runtime called the hook, as far as is known: the state has no process of a container."""
        return self._pid is None and self.stage != "createContainer"

    def _infer(self, bundle: Bundle) -> str:
        if self._pid is not None:
            return "createRuntime"
        # A runtime may itself run in a pid namespace below that of /proc. Only a container sees mounts in its rootfs.
        if self.is_inside and self.proc.mounts().has_below(bundle.rootfs):
            return "createContainer"
        return "createRuntime" if bundle.has_namespace else "prestart"

    def _open(self, pid: int) -> None:
        if self.pidfd is not None:
            return
        try:
            self.pidfd = posix.pidfd_open(pid)
        except ProcessLookupError as reason:
            raise self._ended() from reason
        except OSError as reason:
            problem = f"the container's process {pid} cannot be opened: {reason.strerror}"
            raise UnavailableError(problem, hint=hint("pidfd_open", reason)) from reason
        number = self.proc.pid_of(self.pidfd)
        try:
            self.init = self._describe(number)
        except HiddenError:
            raise UnavailableError(
                f"/proc hides the container's process {pid} from this user, as with hidepid",
                hint="mount /proc without hidepid where the runtime runs",
            ) from None
        if self.proc.pid_of(self.pidfd) != number or self.init is None:
            raise self._ended()

    def _ended(self) -> UnavailableError:
        return UnavailableError(f"the container's process {self._pid} has ended", hint=self.when_ended)

    def _first_process(self, bundle: Bundle) -> int:
        """The pid of the container's first process at createContainer: the outermost ancestor that is in the container.

        Raises OSError for a temporary error: with another process than the first, the record could say that a live
        container is dead.

        The first process calls the hook, perhaps by another one that ends with it, such as timeout(1) or a shell.
        """
        pid = self.proc.parent()
        namespaces = bundle.config.namespaces
        if namespaces.get("mount", "") is not None:
            return pid  # without its own mount namespace, the container cannot be distinguished from the runtime
        depth, inode = len(self.proc.pids()), self.proc.mount_namespace()
        try:
            while (above := self.proc.parent(pid)) > 0:
                # The first can be read of a process in another user namespace, the second cannot.
                if namespaces.get("pid", "") is None:
                    is_inside = len(self.proc.pids(above)) == depth
                else:
                    is_inside = self.proc.mount_namespace_of(above) == inode
                if not is_inside:
                    break
                pid = above
        except OUT_OF_SIGHT:
            pass  # under hidepid, proc(5), or it has ended since
        return pid

    def runtimes(self) -> tuple[str, ...]:
        """The runtimes that may have called the hook: runc if the container's first process has its name, or all.

        Until the last hook has ended, this process runs the runtime's program.
        """
        try:
            name = self.proc.name_of(self.init["pid"]) if self.init is not None else ""
        except OSError:
            name = ""  # under hidepid, proc(5)
        return RUNTIMES[:1] if name.startswith("runc:") else RUNTIMES

    def _describe(self, pid: int) -> InitRecord | None:
        start = self.proc.start_time(pid) if pid > 0 else None
        return None if start is None else {"pid": pid, "start": start, "first": self.proc.first_start()}

    def _check_inside(self, bundle: Bundle) -> None:
        """Refuses createContainer outside the container's mount namespace, where binds would be on the host."""
        if not bundle.has_namespace:
            return
        has_own_pids = bundle.config.namespaces.get("pid", "") is None
        if (has_own_pids and not self.is_inside) or not self._sees_rootfs(bundle):
            raise not_inside()

    def owner_of(self, bundle: Bundle) -> OwnerOf | None:
        """A function for uid and gid in the runtime's user namespace, as poststop sees them. None if it is this one."""
        return self.proc.owner_outside if self._is_nested(bundle) else None

    def user(self, bundle: Bundle) -> UserRecord:
        """The user namespace in which poststop will be called: the runtime's."""
        if not self._is_nested(bundle):
            return self.proc.user_namespace()
        try:
            # The container's first process calls the hook, and the runtime is its parent.
            runtime = self.proc.parent(self.init["pid"]) if self.init is not None else 0
        except OUT_OF_SIGHT:
            runtime = 0  # under hidepid, proc(5)
        return self.proc.user_namespace_of(runtime)

    def _is_nested(self, bundle: Bundle) -> bool:
        return self.stage == "createContainer" and "user" in bundle.config.namespaces

    def is_elsewhere(self) -> bool:
        """Whether the process to enter is in another mount namespace, as far as procfs shows it now."""
        if self.init is None or self.pidfd is None:
            return False
        return self.proc.mount_namespace_of(self.init["pid"]) != self.proc.mount_namespace()

    def _sees_rootfs(self, bundle: Bundle) -> bool:
        """Whether mounts of config.json are visible here, as only inside the container's mount namespace."""
        table = self.proc.mounts()
        if not bundle.config.mounts:
            return any(info.mount_point == bundle.rootfs for info in table)
        return table.has_below(bundle.rootfs)

    def kind(self, bundle: Bundle, *, is_another: bool) -> NamespaceKind:
        """The kind of the mount namespace to mount in: "container", or "runtime" if it existed before the container.

        ``is_another``: it is not the one in which the hook was started.
        """
        if not bundle.has_namespace:
            return "runtime"
        if is_another or self.stage == "createContainer":
            return "container"
        is_by_hand = self._is_named and self.stage == "prestart"
        is_made = self.is_inside or self.proc.mounts().has_below(bundle.rootfs)
        return "container" if is_made and not is_by_hand else "runtime"

    def enter(self, namespace: Namespace, log: Log) -> None:
        """Gives up all rights that are not needed, and enters the mount namespace of the process, if one is known.

        Raises KernelError, UnavailableError.
        """
        log.prepare()
        rights.harden(NAME)
        self._enter(namespace)
        rights.give_up(rights.TO_ENTER)

    def root_elsewhere(self) -> list[tuple[int, str]] | None:
        """What is mounted on the root of the process that was entered, if that is not the root of its mount namespace.

        Returns the device and the root of each mount there, None if the roots are the same or it is not known. By
        mountinfo, which shows the mounts below the root of a process, and needs no capability. Raises OSError.
        """
        theirs = self.proc.mounts_of(self.init["pid"]).at("/") if self.init is not None else []
        here = {info.id for info in self.proc.mounts().at("/")}
        is_elsewhere = bool(theirs) and here.isdisjoint(info.id for info in theirs)
        return [(info.dev, info.root) for info in theirs] if is_elsewhere else None

    def _enter(self, namespace: Namespace) -> None:
        if self.pidfd is None:
            return
        try:
            namespace.enter(self.pidfd)
        except ProcessLookupError as reason:
            raise self._ended() from reason
        except OSError as reason:
            namespace_of = "the container's mount namespace"
            if reason.errno == errno.EPERM:
                problem = f"{namespace_of} cannot be entered {because('setns', reason)}"
                raise UnavailableError(problem, hint=self.without_rights) from reason
            raise refused("setns", namespace_of, reason) from reason

    def open_rootfs(self, bundle: Bundle, known: RootfsRecord, namespace: Namespace) -> Rootfs:
        """The rootfs as seen from the namespace that was entered. Raises UnavailableError, MissingError.

        ``/`` and the rootfs must be the same objects as before; otherwise the container already has its own root, or
        the pid belongs to another process.
        """
        try:
            is_host = files.is_same_file(namespace.root, posix.stat("/"))
            is_seen = is_host and is_object(known, posix.stat(bundle.rootfs))
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            is_seen = False
        except OSError as reason:
            raise unopened(f"the rootfs {bundle.rootfs}", reason) from reason
        if not is_seen:
            # The process of a sandbox has another root than this one; that of a runtime in a chroot has the same.
            ours = [(info.dev, info.root) for info in namespace.started_in().at("/")]
            raise in_chroot(bundle.rootfs) if self.root_elsewhere() == ours else not_seen(bundle.rootfs)
        is_container = namespace.kind == "container"
        rootfs = Rootfs(
            bundle.rootfs,
            own_tmpfs=lambda stat: namespace.is_own_tmpfs(stat, bundle.rootfs),
            type_of=namespace.type_of,
            owner_of=self.owner_of(bundle),
        )
        with files.Named(bundle.rootfs):
            there = posix.fstat(rootfs.fd)
        if not is_object(known, there):
            raise UnavailableError(f"another process has just replaced the rootfs {bundle.rootfs}")
        # crun before 1.26 makes the root read-only before it calls createContainer hooks.
        is_early = self.stage == "createContainer" and bundle.config.root_readonly
        rootfs.unlock = is_container and is_early and not namespace.is_locked_by_host(rootfs.stat)
        return rootfs
