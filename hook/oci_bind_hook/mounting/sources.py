# SPDX-License-Identifier: Apache-2.0
"""The sources of all binds. Each is opened once, and only its fd is used from then on.

The kernel decides how a source becomes a mount of the container: by_mount_api, or by_mount for older kernels.

Loaded by every start of a container: import only posix, errno and stat. by_mount, confined and patterns are
loaded where they are needed, and unopened if a source cannot be opened, all before setns(2).
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..errors import At, HookError, KernelError, MissingError, UnavailableError
from ..kernel import files, linux
from ..kernel.errnos import ABSENT, refused, unopened
from ..kernel.mountinfo import may_wait
from ..log import few
from . import by_mount_api

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Protocol

    from ..kernel.mountinfo import MountInfo
    from ..kernel.namespace import Namespace
    from ..kernel.proc import Proc
    from ..record.state_file import AttachedRecord
    from ..requests.request import Opener, Request
    from .by_mount import Staging

    Before = Callable[[Request, str], None]

    class Way(Protocol):
        """How a source becomes a mount: the module by_mount_api or by_mount."""

        CALL: str
        IS_DETACHED: bool

        def check(self, source: Source) -> None: ...

        def clone(self, source: Source) -> None: ...

        def attach(self, source: Source, target: int) -> None: ...


_DELETED = "//deleted"  # at the end of a mount's root in mountinfo, proc_pid_mountinfo(5): no path can end like this
FDS_PER_BIND = 3  # the tree, its mount point, and the folder in which a name is created
FDS_BESIDES = 64  # fds that do not belong to a bind


class Source:
    """The source of a bind, open as ``fd``. ``error`` is why it cannot be bound; ``is_missing``: it does not exist.

    ``path`` is the path of the request, and ``above`` the same without its subpath.

    ``info`` is the mount that it is on, ``root`` its path inside that file system, as mountinfo will show it for a
    bind. ``submounts`` are the mounts below it, as pairs (relative path, MountInfo), and ``visible`` those that no
    other mount hides. ``infos`` are all these mounts by id: those of the source and, after cloning, those of the bind.
    ``attached`` identifies the mounts of the bind, the top first. ``warnings`` are differences from the request.

    ``way``, by_mount_api or by_mount, makes it a mount of the container.
    """

    __slots__ = (
        *("_way", "above", "attached", "error", "fd", "info", "infos", "is_missing", "namespace", "path"),
        *("request", "root", "staging", "stat", "submounts", "visible", "warnings"),
    )

    staging: Staging  # where by_mount clones; set by Staged

    def __init__(self, request: Request, bundle: str, namespace: Namespace, way: Way) -> None:
        self._way = way
        self.request = request
        self.above = files.below(bundle, request.source)
        self.path = self.above if request.subpath is None else files.below(self.above, request.subpath)
        self.fd = -1
        self.error: HookError | None = None
        self.attached: list[AttachedRecord] = []
        self.infos: dict[int | None, MountInfo | None] = {}
        self.submounts: list[tuple[str, MountInfo]] = []
        self.visible: list[tuple[str, MountInfo]] = []
        self.info: MountInfo | None = None
        self.is_missing = False
        self.warnings: list[str] = []
        self.namespace = namespace
        try:
            self.fd = self._open()
            self.stat = files.statx(self.fd)
        except HookError as refusal:
            refusal.where = refusal.where or request.at("source")
            self.error = refusal
            return
        except OSError as reason:
            self._fail(reason)
            return
        with files.Named(self.path):
            self._locate()
        is_walked = request.opener is not None or request.subpath is not None  # the walk triggers automounts
        if self.info is not None and self.info.type == "autofs" and self.is_folder and not is_walked:
            try:
                self._trigger()
            except OSError as reason:
                self._fail(reason)
                return
        if self.info is not None and self.info.root.endswith(_DELETED):
            self.error = MissingError(f"the source {self.path} was deleted", where=request.at("source"))
            self.is_missing = True
            return
        try:
            way.check(self)
        except UnavailableError as problem:
            self.error = problem
        if request.top.get("ro") is True:
            self._warn_of_writable()

    def _warn_of_writable(self) -> None:
        """Adds a warning if ``ro`` leaves submounts writable: it applies to the top mount only, which few expect."""
        writable = [path for path, info in self.visible if "ro" not in info.options]
        if writable:
            self.warnings.append(
                f"ro does not apply to the mounts below, which stay writable: {few(writable)}; rro includes them"
            )

    def _fail(self, reason: OSError) -> None:
        self.is_missing = reason.errno in ABSENT
        if self.request.origin_kind != "annotation":
            from .unopened import explain

            self.error = explain(self, reason)
        else:  # the author of an annotation must learn nothing about the host
            self.error = unopened(f"the source {self.path}", reason, where=self.request.at("source"))
        self.error.__cause__ = reason
        if self.is_missing and "*" in self.request.source and self.request.may_mean_star:
            self.error.hint = "to use * as a pattern, set type=glob"

    def _open(self) -> int:
        # O_PATH, because opening a FIFO or a device for reading could block or have an effect. Links are followed,
        # because config.json and the command line are trusted. Annotations and the matches of a pattern are not: they
        # have an opener, which does not follow links out of a folder.
        opener, subpath = self.request.opener, self.request.subpath
        if subpath is None and opener is None:
            return posix.open(self.path, posix.O_PATH | posix.O_CLOEXEC)
        if opener is not None:
            fd = opener.open(self.request)
        else:
            # O_DIRECTORY triggers an automount on the source itself.
            fd = posix.open(self.above, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        if subpath is None:
            return fd
        from .confined import open_beneath

        try:
            return open_beneath(fd, self.above, subpath)
        finally:
            posix.close(fd)

    def _trigger(self) -> None:
        """Triggers a direct map of automount(8) on the source, and opens what is mounted there. Raises OSError."""
        # O_PATH alone does not trigger it, open(2). Like mount(8), this looks up the path and uses what is there then.
        fd = posix.open(self.path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        posix.close(self.fd)
        self.fd = fd
        self.stat = files.statx(fd)
        self._locate()

    @property
    def is_open(self) -> bool:
        """Whether ``fd`` and ``stat`` are set. It may still have an ``error``, because it cannot be bound."""
        return hasattr(self, "stat")

    @property
    def is_folder(self) -> bool:
        return modes.S_ISDIR(self.stat.mode)

    def _locate(self) -> None:
        table = self.namespace.started_in()
        self.info = table.get(self.stat.mnt_id)
        self.root = "/"
        if self.info is None:
            return
        # Example: a bind of /mnt/a/b from a file system mounted on /mnt has the root /a/b in mountinfo.
        path = self.namespace.proc.path_of(self.fd)
        inside = path[len(self.info.mount_point.rstrip("/")) :]
        self.root = (self.info.root.rstrip("/") + inside).rstrip("/") or "/"
        self.infos = {self.info.id: self.info}
        if self.request.recursive and (below := table.inside(self.info.id, path)):
            length = len(path.rstrip("/") + "/")
            self.submounts = [(info.mount_point[length:], info) for info in below]
            self.infos.update((info.id, info) for info in below)
            unasked = _unasked(below)
            self.visible = [
                (path, info) for path, info in self.submounts if info.parent not in unasked and self._shows(path, info)
            ]

    def _shows(self, path: str, info: MountInfo) -> bool:
        """Whether a mount below the source can be reached: no other mount hides it."""
        try:
            fd = posix.open(path, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return False
        try:
            return files.mount_id(fd) == info.id
        finally:
            posix.close(fd)

    @property
    def is_detached(self) -> bool:
        """Whether it is cloned before setns(2), in its own namespace; otherwise after it, in the container's."""
        return self._way.IS_DETACHED

    @property
    def call(self) -> str:
        """The system call that attaches the bind, for messages."""
        return self._way.CALL

    def clone(self) -> None:
        """Replaces ``fd`` with the complete mount to attach, which no other process can see. Raises HookError."""
        try:
            self._way.clone(self)
        except OSError as reason:
            raise refused("statx", self.path, reason, where=self.request.at("source")) from reason
        # It is the same file, now as the root of a new mount. No second statx(2), whose server may not answer now.
        self.stat.mount_root = True
        self.stat.mnt_id = self.attached[0]["id"] or self.stat.mnt_id

    def refused_clone(self, *, is_same: bool) -> HookError | None:
        """The error that ``clone`` would raise, as by_mount_api.refused_clone; None also without the mount API."""
        from .by_mount_api import refused_clone

        return refused_clone(self, is_same=is_same) if self.is_detached else None

    def attach(self, target: int) -> None:
        """Attaches the mount on the file or folder ``target``. Raises OSError.

        A mount that was attached before the error is found by its recorded id.
        """
        self._way.attach(self, target)

    def refused_attributes(self, call: str, reason: OSError) -> KernelError:
        """The error for attributes that the kernel refuses to set. It names those that are locked."""
        error = refused(call, self.path, reason, where=self.request.at("options"))
        if reason.errno == errno.EPERM and self.namespace.proc.in_user_namespace() and (locked := self.locked()):
            error.hint = f"the source was mounted outside this user namespace, which locks {', '.join(locked)}"
        return error

    def locked(self) -> list[str]:
        """The attributes that the request changes but that are locked on mounts of the source.

        In a less privileged mount namespace, restrictions and the atime settings are locked, mount_namespaces(7).
        """
        below = [info for _, info in self.submounts]
        found: dict[str, None] = {}
        for wanted, infos in ((self.request.deep, [self.info, *below]), (self.request.top, [self.info])):
            for info in infos:
                options = info.options if info is not None else ()
                for attribute, value in wanted.items():
                    atime = next((word for word in ("noatime", "relatime") if word in options), "strictatime")
                    word = atime if attribute == "atime" else attribute
                    if attribute == "nodiratime":
                        is_locked = value is not (word in options)
                    else:
                        is_locked = value is not True and word != value and (attribute == "atime" or word in options)
                    if is_locked:
                        found[word] = None
        return [*found]

    def shares(self, mnt_id: int) -> bool:
        """Whether a later mount inside the bind, on the mount with the id ``mnt_id``, would propagate to the source."""
        word = self.request.propagation
        if word in ("rprivate", "rslave", "runbindable"):
            return False
        # Without "r" only the top mount gets the propagation. The mounts below keep that of the source, and the clone
        # of a shared mount is its peer.
        top = self.attached[0]["id"] if self.attached else None
        is_top = mnt_id == (self.stat.mnt_id if top is None else top)
        if is_top and word not in ("shared", "rshared"):
            return False
        info = self.info if is_top else self.infos.get(mnt_id)
        return info is None or info.shared is not None


def allowed(folders: Sequence[str]) -> Opener | None:
    """The opener for sources of annotations, which must be below ``folders``; None if there are no folders."""
    if not folders:
        return None
    from .confined import Allowed

    return Allowed(folders)


def expand(requests: Iterable[Request], before: Before | None = None) -> list[Request]:
    """The requests, each pattern (glob(7)) replaced by one request per match, sorted by name.

    A match is bound below the destination under its own name, or fills the ``*`` in it. ``before`` is called for each
    pattern before its lookup, to name a file system that does not answer. Raises the errors of patterns.found.
    """
    expanded: list[Request] = []
    for request in requests:
        if not request.is_glob:
            expanded.append(request)
            continue
        from .patterns import found

        if before is not None:
            before(request, request.source)
        expanded += found(request)
    return expanded


def check_open_files(binds: int, mount_points: int = 0) -> None:
    """Sets RLIMIT_NOFILE to its hard limit. Raises UnavailableError if the binds need more fds than that."""
    limit = linux.raise_open_files()
    if binds * FDS_PER_BIND + mount_points + FDS_BESIDES > limit:
        points = f" with {mount_points} new mount points" if mount_points else ""
        raise UnavailableError(
            f"{binds} binds{points} need more than {limit} open files, the current limit",
            hint="raise the hard limit RLIMIT_NOFILE of the runtime",
        )


def open_sources(
    requests: Iterable[Request], bundle: str, namespace: Namespace, before: Before | None = None
) -> list[Source]:
    """The opened sources of all binds among ``requests``. Raises UnavailableError if there are not enough fds.

    ``before`` is called for each before it is opened, with its path.

    A source that does not exist or is refused raises no error here: it has an ``error``, because a condition may skip
    its bind.
    """
    binds = [request for request in requests if request.is_bind]
    check_open_files(len(binds))
    if not binds:
        return []
    way: Way = by_mount_api
    if not linux.has_mount_api():
        from . import by_mount

        way = by_mount
    sources = []
    for request in binds:
        if before is not None:
            before(request, files.below(bundle, request.source))
        sources.append(Source(request, bundle, namespace, way))
    return sources


def warn_of_propagation(
    sources: Iterable[Source], runtimes: Callable[[], Sequence[str]], word: str, *, is_inside: bool
) -> None:
    """Adds a warning to each source whose requested propagation will not take effect.

    ``runtimes`` returns the names, ``word`` and ``is_inside`` are those of propagation.Runtimes.
    """
    asking = [source for source in sources if source.request.propagation not in ("private", "rprivate")]
    if asking:
        from .propagation import Runtimes, remark

        remark(asking, Runtimes(runtimes(), word, is_inside=is_inside))


def clone_sources(sources: Iterable[Source]) -> None:
    """Clones the sources by the mount API, before setns(2): open_tree(2) refuses mounts of another namespace."""
    for source in sources:
        if source.is_detached:
            _clone(source)


def close_sources(sources: Iterable[Source]) -> None:
    """Closes sources that are not bound after all. The kernel then discards their clones."""
    for source in sources:
        if source.fd >= 0:
            posix.close(source.fd)


class Staged:
    """A context manager that clones the sources that mount(2) binds, in the container's namespace. Raises HookError.

    ``make`` creates the staging folder and returns its path, ``remove`` removes it. With the mount API it does nothing.
    """

    def __init__(
        self, sources: Iterable[Source], make: Callable[[], str], remove: Callable[[], None], proc: Proc
    ) -> None:
        self._sources = [source for source in sources if not source.is_detached and source.error is None]
        self._make = make
        self._remove = remove
        self._proc = proc
        self._staging: Staging | None = None

    def __enter__(self) -> Staged:
        if not self._sources:
            return self
        # This imports nothing new: open_sources has loaded the module before setns(2), after which imports are blocked.
        from .by_mount import Staging

        try:
            with At("clone"):
                self._staging = Staging(self._make(), self._proc)
                for source in self._sources:
                    source.staging = self._staging
                    _clone(source)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Removes the staging folder with mounts that were not moved out of it. Can be repeated. Raises HookError."""
        if not self._sources:
            return
        staging, self._staging = self._staging, None
        if staging is not None:
            try:
                staging.close()
            except OSError as reason:
                raise refused("umount2", "the staging folder", reason) from reason
        self._remove()
        self._sources = []


def _unasked(below: Iterable[MountInfo]) -> set[int]:
    """The ids of mounts below a source that are not opened: their server may not answer, or they are in such a mount.

    mount(2) does not access them either. A mount in such a mount is bound like a hidden one.
    """
    found: set[int] = set()
    for info in below:  # each after its parent
        if may_wait(info.type) or info.parent in found:
            found.add(info.id)
    return found


def _clone(source: Source) -> None:
    """Clones one source. For a bind of config.json an error is only kept: it matters if the hook has to mount it."""
    if source.error is None:
        try:
            source.clone()
        except (KernelError, MissingError, UnavailableError) as problem:
            if not source.request.is_from_mounts:
                raise
            source.error = problem
