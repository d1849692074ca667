# SPDX-License-Identifier: Apache-2.0
"""What the kernel will refuse to a real run for lack of rights or of a file system's features.

Any user may start a dry-run, but a real run has the rights of whoever starts the runtime. So the only rights that count
here are those that follow from config.json.
"""

from __future__ import annotations

import errno
import os

from ...errors import HookError, UnavailableError
from ...kernel import files, linux, rights
from ...kernel.chroot import is_in_chroot
from ...kernel.errnos import because
from ...lifecycle.stage import ROOTLESS, RUNTIMES, in_chroot
from ...lifecycle.start_record import opened_or_unrecorded
from ...mounting.config_mounts import is_runtimes
from ...mounting.propagation import Runtimes
from ...options import state_folder
from ...record.folder import StateFolder, changeable_by_others
from ...record.indexes import refused
from ...record.missing import check_above
from . import recognise

# File systems that cannot be id-mapped, as of Linux 6.18. For the others it depends on the kernel version; a process
# with the rights to do so can try.
_NEVER_MAPPED = frozenset("cgroup cgroup2 devpts devtmpfs mqueue proc sysfs".split())

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ...documents.bundle import Bundle
    from ...documents.oci import Config
    from ...errors import Step
    from ...kernel.mountinfo import MountInfo
    from ...kernel.namespace import Namespace
    from ...kernel.proc import Proc
    from ...mounting.plan import Bind
    from ...mounting.sources import Source
    from ...options import Options
    from ...record.folder import Records
    from ...rootfs.mount_points import Rootfs
    from ...rootfs.walk import Target


class Run:
    """The real run that is foreseen: its stage, and how its rights compare with those of this process.

    ``is_nested``: in the container's own user namespace. ``is_own``: as the user of the dry-run, as far as config.json
    shows, or that user is root. ``is_of_podman``: as that user, inside rootless podman's user namespace.
    """

    def __init__(self, bundle: Bundle, stage: str | None) -> None:
        uid, config = os.geteuid(), bundle.config
        self.stage = stage
        self.uid_mappings = config.uid_mappings or ()
        if uid != 0 and not self.uid_mappings and config.namespaces.get("user", "") is None:
            self.uid_mappings = ((0, uid, 1),)  # crun maps root to its caller then; runc refuses
        self.is_nested = stage == "createContainer" and "user" in config.namespaces
        self.is_own = uid == 0 or self.is_mapped(uid)
        # Rootless podman keeps its bundles among its user's files. config.json does not have its user namespace.
        is_podmans = recognise.engine(config.annotations, bundle.path, bundle.rootfs) == "podman"
        self.is_of_podman = not self.is_own and is_podmans and bundle.stat.st_uid == uid

    def is_mapped(self, uid: int) -> bool:
        """Whether the container's user namespace maps a uid of the host."""
        return any(host <= uid < host + size for _, host, size in self.uid_mappings)

    def check_writable(self, fd: int) -> None:
        """As linux.check_writable, but passes if only this process, not the run, lacks the permission."""
        try:
            linux.check_writable(fd)
        except PermissionError:
            # A run in the container's user namespace has CAP_DAC_OVERRIDE over files of mapped owners.
            owner = os.fstat(fd).st_uid
            if self.is_of_podman:
                if owner == 0:  # root, whom an ordinary user cannot map
                    raise
            elif self.is_own and not (self.is_nested and self.is_mapped(owner)):
                raise

    @property
    def own_rights(self) -> list[tuple[int, int]] | None:
        """None if the run may have other rights than this user. Otherwise ranges (first, number) of uids.

        The run may open files of these owners: in its own user namespace it has CAP_DAC_OVERRIDE over them.
        """
        if not self.is_own:
            return None
        return [(host, size) for _, host, size in self.uid_mappings] if self.is_nested else []

    @property
    def can_be_tried(self) -> bool:
        """Whether this process has the view and the rights of the run: then the kernel answers both alike."""
        if self.stage == "createContainer":
            return False
        return rights.has_capability("CAP_SYS_ADMIN") if os.geteuid() == 0 else self.is_own

    def folder(self, options: Options, proc: Proc, *, is_asked: bool, container: str | None) -> Records | None:
        """The state folder, or what the run uses instead. None if the folder does not exist yet or is another user's.

        ``is_asked``: the run creates a missing folder. Raises RecordError for a folder that the run would refuse.
        """
        path, uid = state_folder(options, proc), proc.uid_outside(os.geteuid())
        if self.is_nested:
            is_nested = bool(self.uid_mappings)
            is_ours = any(inside == 0 and host == uid for inside, host, _ in self.uid_mappings)
        else:
            is_nested = self.stage == "createContainer" and proc.in_user_namespace()
            is_ours = is_nested and proc.is_ours()
        folder = opened_or_unrecorded(
            lambda: self._opened(path, create=is_asked) if self.is_own or self.is_of_podman else None,
            is_nested=is_nested,
            is_ours=lambda: is_ours,
        )
        if isinstance(folder, StateFolder):
            folder.check_lock(container or "ID")
        return folder

    def _opened(self, path: str, *, create: bool) -> StateFolder | None:
        """As StateFolder.open, but creates nothing: returns None for a folder that could be created."""
        if not create or os.path.isdir(path):
            return StateFolder.open(path, create=False)
        above = path
        while not os.path.lexists(above):
            above = os.path.dirname(above)
        try:
            if above == path:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            fd = os.open(above, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self.check_writable(fd)
            finally:
                os.close(fd)
        except OSError as reason:
            if isinstance(reason, PermissionError):
                check_above(path)
            raise refused(f"the state folder {path} cannot be opened", reason) from reason
        if files.changeable(path):
            raise changeable_by_others(path)
        return None


def problems_of_stage(run: Run, rootfs: str) -> Iterator[HookError]:
    """The error of a ``run`` that enters a process, as this user: at the stages before createContainer.

    A rootless run may not enter it. Root's run in a chroot does not find the rootfs then.
    """
    if run.stage not in ("prestart", "createRuntime"):
        return
    if os.geteuid() != 0 and run.is_own:
        reason = OSError(errno.EPERM, os.strerror(errno.EPERM))
        problem = f"the container's mount namespace cannot be entered {because('setns', reason)}"
        yield _at("enter", UnavailableError(problem, hint=ROOTLESS))
    elif os.geteuid() == 0 and is_in_chroot():
        yield _at("enter", in_chroot(rootfs))


def problems_of_sources(sources: Iterable[Source], run: Run, namespace: Namespace, rootfs: str) -> Iterator[HookError]:
    """Yields the errors of sources that the kernel will not clone, or whose ids it will not map.

    As in a real run (mounting.sources.clone_sources), a source of config.json keeps its error, which only counts if the
    hook has to mount it.
    """
    is_inside = run.is_nested or namespace.proc.in_user_namespace()
    for source in sources:
        request, top = source.request, source.info
        if source.error is not None or (request.idmap is None and is_runtimes(request, namespace.kind, rootfs)):
            continue
        # If this process can try what the run does, the kernel may refuse the clone before the id map.
        is_untried = request.idmap is not None and not run.can_be_tried
        problem: HookError
        if request.idmap is not None and is_inside:
            problem = UnavailableError(
                "ids cannot be mapped inside a user namespace",
                where=request.at("options"),
                hint="register the hook for createRuntime, with a runtime that root starts",
            )
        elif is_untried and top is not None and top.type in _NEVER_MAPPED:
            text = f"the {top.type} file system of {source.path} cannot be id-mapped"
            problem = UnavailableError(text, where=request.at("options"))
        elif (run.can_be_tried or request.idmap is not None) and (
            refusal := source.refused_clone(is_same=run.can_be_tried)
        ):
            problem = refusal
        elif is_inside and run.stage == "createContainer" and source.is_detached and source.locked():
            problem = source.refused_attributes("mount_setattr", OSError(errno.EPERM, os.strerror(errno.EPERM)))
        else:
            continue
        if request.is_from_mounts:
            source.error = problem
        else:
            yield _at("clone", problem)


class Leaks:
    """Foresees for mounting.plan.Planner which mounts a runtime leaves shared with the host."""

    def __init__(self, config: Config, stage: str | None, namespace: Namespace, rootfs: Rootfs) -> None:
        has_users, word = "user" in config.namespaces, config.rootfs_propagation
        self._runtimes = Runtimes(RUNTIMES, word, ahead=rootfs.stat.mnt_id, has_users=has_users)
        self._is_inside = stage == "createContainer"
        self._namespace = namespace

    def __call__(self, bind: Bind, target: Target, volume: Bind | None) -> bool:
        """Whether the mount below a ``target`` will be shared. ``volume`` is the runtime's bind there, if any.

        If that depends on the runtime, adds a warning to the ``bind``.
        """
        stat = target.anchor.stat
        assert stat is not None
        if volume is None:
            # runc carries over the mounts below the rootfs as they are; crun makes them private.
            by = self._sharing(self._namespace.mount_of(stat), ("runc",))
        elif volume.request.propagation != "rshared" and stat.mnt_id != volume.source.stat.mnt_id:
            return False
        elif volume.request.propagation not in ("shared", "rshared"):
            return False
        elif self._is_inside:
            return True  # the peers are not visible from inside the container
        else:
            by = self._sharing(volume.source.info, RUNTIMES)
        if by == [*RUNTIMES]:
            return True
        if by:
            under = f"under {' and '.join(by)}, {target.path} is below a mount that is shared with the host"
            bind.warnings.append(f"{under}, and the hook refuses to bind there without --allow-shared")
        return False

    def _sharing(self, info: MountInfo | None, names: Sequence[str]) -> list[str]:
        """Returns those of the named runtimes that leave a mount of the host's namespace shared with the host."""
        return [name for name in names if info is not None and self._runtimes.kind_of(info, name) == "shared"]


def _at(step: Step, problem: HookError) -> HookError:
    """Sets the step at which a real run has the problem, and returns the problem."""
    problem.step = step
    return problem
