# SPDX-License-Identifier: Apache-2.0
"""What the kernel will refuse to a real run, for want of rights or of a file system's features.

Any user may call a dry-run, while the real run belongs to whoever starts the runtime. So only what config.json itself
shows of that user counts here.
"""

from __future__ import annotations

import errno
import os

from ...errors import HookError, UnavailableError
from ...kernel import files, linux, rights
from ...kernel.errnos import because
from ...lifecycle.stage import ROOTLESS, RUNTIMES
from ...lifecycle.start_record import opened_or_unrecorded
from ...mounting.config_mounts import is_runtimes
from ...mounting.propagation import Runtimes
from ...options import state_folder
from ...record.folder import StateFolder, changeable_by_others
from ...record.indexes import refused
from . import recognise

# File systems that cannot be id-mapped, as of Linux 6.18. Of the others it depends on the kernel, which tells who may
# try it.
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
    """The real run that is foreseen: of which bundle, at which stage, and how its rights compare with these here.

    ``is_nested``: it is in the container's own user namespace. ``is_own``: its user is the one who asks, as far as
    config.json shows: root, if root asks. ``is_of_podman``: it is that user's as well, inside podman's user namespace.
    """

    def __init__(self, bundle: Bundle, stage: str | None) -> None:
        uid, config = os.geteuid(), bundle.config
        self.stage = stage
        self.uid_mappings = config.uid_mappings or ()
        self.is_nested = stage == "createContainer" and "user" in config.namespaces
        self.is_own = uid == 0 or self.is_mapped(uid)
        # Rootless podman keeps its bundles among its user's files, and its user namespace is in none of them.
        is_podmans = recognise.engine(config.annotations, bundle.path, bundle.rootfs) == "podman"
        self.is_of_podman = not self.is_own and is_podmans and bundle.stat.st_uid == uid

    def is_mapped(self, uid: int) -> bool:
        """Whether the container's user namespace maps a uid of the host."""
        return any(host <= uid < host + size for _, host, size in self.uid_mappings)

    def check_writable(self, fd: int) -> None:
        """As linux.check_writable. What only this process may not write is no error."""
        try:
            linux.check_writable(fd)
        except PermissionError:
            # In its own user namespace it has CAP_DAC_OVERRIDE over files of those who are mapped.
            owner = os.fstat(fd).st_uid
            if self.is_of_podman:
                if owner == 0:  # whom no user may map
                    raise
            elif self.is_own and not (self.is_nested and self.is_mapped(owner)):
                raise

    @property
    def own_rights(self) -> list[tuple[int, int]] | None:
        """None if the run may have other rights than this user; else, as (first, number), whose files it may open yet.

        In its own user namespace it has CAP_DAC_OVERRIDE over files of those who are mapped.
        """
        if not self.is_own:
            return None
        return [(host, size) for _, host, size in self.uid_mappings] if self.is_nested else []

    @property
    def can_be_tried(self) -> bool:
        """Whether this process sees and may do just what the run does: then the kernel's answer is that to the run."""
        if self.stage == "createContainer":
            return False
        return rights.has_capability("CAP_SYS_ADMIN") if os.geteuid() == 0 else self.is_own

    def folder(self, options: Options, proc: Proc, *, is_asked: bool, container: str | None) -> Records | None:
        """The state folder, or what the run takes instead; None if it has none yet, or if it is another user's.

        Raises RecordError for one that the run would refuse. ``is_asked``: it makes a missing one.
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
        """As StateFolder.open, but nothing is made: None as well for a folder that could be."""
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
            raise refused(f"the state folder {path} cannot be opened", reason) from reason
        if files.changeable(path):
            raise changeable_by_others(path)
        return None


def problems_of_stage(run: Run) -> Iterator[HookError]:
    """A rootless runtime of this user cannot let a hook enter a process, as a ``run`` would, at the stages before."""
    is_rootless = os.geteuid() != 0 and run.is_own
    if is_rootless and run.stage in ("prestart", "createRuntime"):
        reason = OSError(errno.EPERM, os.strerror(errno.EPERM))
        problem = f"the container's mount namespace cannot be entered {because('setns', reason)}"
        yield _at("enter", UnavailableError(problem, hint=ROOTLESS))


def problems_of_sources(sources: Iterable[Source], run: Run, namespace: Namespace, rootfs: str) -> Iterator[HookError]:
    """Sources that the kernel will not copy, or whose ids it will not map.

    As in a real run, mounting.sources.clone_sources, one of config.json is no problem yet: it gets the error, which
    counts if the hook has to mount it.
    """
    is_inside = run.is_nested or namespace.proc.in_user_namespace()
    for source in sources:
        request, top = source.request, source.info
        if source.error is not None or (request.idmap is None and is_runtimes(request, namespace.kind, rootfs)):
            continue
        # Where the kernel answers for the run, it may refuse the copy first.
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
    """Which mounts a runtime leaves shared with the host, as mounting.plan.Planner asks it."""

    def __init__(self, config: Config, stage: str | None, namespace: Namespace, rootfs: Rootfs) -> None:
        has_users, word = "user" in config.namespaces, config.rootfs_propagation
        self._runtimes = Runtimes(RUNTIMES, word, ahead=rootfs.stat.mnt_id, has_users=has_users)
        self._is_inside = stage == "createContainer"
        self._namespace = namespace

    def __call__(self, bind: Bind, target: Target, volume: Bind | None) -> bool:
        """Whether the mount below a ``target``, that of a ``volume`` of the runtime if there is one, will be shared.

        What depends on the runtime is a warning of the ``bind``.
        """
        stat = target.anchor.stat
        assert stat is not None
        if volume is None:
            # runc takes the mounts below the rootfs along, and crun makes them private.
            by = self._sharing(self._namespace.mount_of(stat), ("runc",))
        elif volume.request.propagation != "rshared" and stat.mnt_id != volume.source.stat.mnt_id:
            return False
        elif volume.request.propagation not in ("shared", "rshared"):
            return False
        elif self._is_inside:
            return True  # with whom it is shared, nobody can see there
        else:
            by = self._sharing(volume.source.info, RUNTIMES)
        if by == [*RUNTIMES]:
            return True
        if by:
            under = f"under {' and '.join(by)} {target.path} is below a mount that is shared with the host"
            bind.warnings.append(f"{under}, and the hook refuses to bind there without --allow-shared")
        return False

    def _sharing(self, info: MountInfo | None, names: Sequence[str]) -> list[str]:
        """Of some runtimes those that leave a mount of the host's namespace shared with it."""
        return [name for name in names if info is not None and self._runtimes.kind_of(info, name) == "shared"]


def _at(step: Step, problem: HookError) -> HookError:
    """The problem, which a real run meets at ``step``."""
    problem.step = step
    return problem
