# SPDX-License-Identifier: Apache-2.0
"""Detached trees of mounts: cloned from a source, given their attributes, attached, and found again by their ids.

A source is held by fd from the moment it was found. Its tree gets all attributes before it is attached, so that no
instant exists in which it is visible without them.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from . import linux
from .errors import EscapeError, HookError, KernelError, LeftoverError, MissingError, UnavailableError
from .idmap import check_power, user_namespace
from .proc import MountInfo, Namespace, Proc, below_mount, mount_by_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .request import IdMap, Request
    from .statefile import AttachedRecord

_FLAGS = {
    "ro": linux.MOUNT_ATTR_RDONLY,
    "nosuid": linux.MOUNT_ATTR_NOSUID,
    "nodev": linux.MOUNT_ATTR_NODEV,
    "noexec": linux.MOUNT_ATTR_NOEXEC,
    "nodiratime": linux.MOUNT_ATTR_NODIRATIME,
    "nosymfollow": linux.MOUNT_ATTR_NOSYMFOLLOW,
}
_ATIMES = {
    "noatime": linux.MOUNT_ATTR_NOATIME,
    "relatime": linux.MOUNT_ATTR_RELATIME,
    "strictatime": linux.MOUNT_ATTR_STRICTATIME,
}
# The same attributes as statvfs(3) tells them of a mount.
_STATVFS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "nodiratime": 0x800, "nosymfollow": 0x2000}
_STATVFS_ATIMES = {"noatime": 0x400, "relatime": 0x1000}

_PROPAGATIONS = {
    "private": linux.MS_PRIVATE,
    "slave": linux.MS_SLAVE,
    "shared": linux.MS_SHARED,
    "unbindable": linux.MS_UNBINDABLE,
}

FDS_PER_BIND = 3  # the tree, its mount point, and a folder that a name is to be made in
FDS_BESIDES = 64
DETACH_TRIES = 16  # each a new look at mountinfo, for a mount that is renamed while we look


class Source:
    """The source of a bind, held by fd from the moment it was found; ``error`` tells why it was not.

    ``info`` is the mount it is on, and ``root`` which part of that file system it is, as mountinfo tells of a bind of
    it. ``submounts`` are the mounts below it, relative path and line of mountinfo.
    """

    def __init__(self, request: Request, bundle: str, namespace: Namespace) -> None:
        self.request = request
        self.path = os.path.join(bundle, request.source)
        self.fd = -1
        self.error: HookError | None = None
        self.attached: list[AttachedRecord] = []
        self._infos: dict[int | None, MountInfo | None] = {}
        self.submounts: list[tuple[str, MountInfo]] = []
        self._visible: list[tuple[str, MountInfo]] = []
        self.info: MountInfo | None = None
        self.is_missing = False
        try:
            self.fd = self._open(namespace.proc)
        except EscapeError as refusal:
            self.error = refusal
            return
        except OSError as reason:
            self.is_missing = reason.errno in (errno.ENOENT, errno.ENOTDIR)
            self.error = MissingError(
                f"the source {self.path} cannot be opened: {reason.strerror}", where=request.at("source")
            )
            self.error.__cause__ = reason
            return
        self.stat = linux.statx(self.fd)
        self._namespace = namespace
        self._locate()

    def _open(self, proc: Proc) -> int:
        if self.request.allowed_sources is None:
            return os.open(self.path, os.O_PATH | os.O_CLOEXEC)
        from .allowed import open_allowed

        return open_allowed(self.request, self.request.allowed_sources, lambda fd: _real_path(fd, proc))

    @property
    def is_folder(self) -> bool:
        return modes.S_ISDIR(self.stat.mode)

    def _locate(self) -> None:
        table = self._namespace.started_in()
        self.info = mount_by_id(table, self.stat.mnt_id)
        self.root = "/"
        if self.info is None:
            return
        path = _real_path(self.fd, self._namespace.proc)
        inside = path[len(self.info.mount_point.rstrip("/")) :]
        self.root = (self.info.root.rstrip("/") + inside).rstrip("/") or "/"
        if self.request.recursive:
            prefix = path.rstrip("/") + "/"
            below = [info for info in below_mount(table, self.info.id) if info.mount_point.startswith(prefix)]
            self.submounts = [(info.mount_point[len(prefix) :], info) for info in below]
            self._visible = [(path, info) for path, info in self.submounts if self._shows(path, info)]

    def _shows(self, path: str, info: MountInfo) -> bool:
        """Whether a mount below the source can be reached, and is not hidden by another one."""
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
        except OSError:
            return False
        try:
            return linux.statx(fd).mnt_id == info.id
        finally:
            os.close(fd)

    def attributes(self) -> list[str]:
        """The attributes of the mount as it will be, those kept from the source included, in a fixed order."""
        flags = os.fstatvfs(self.fd).f_flag if self.error is None else 0
        wanted = {**self.request.deep, **self.request.top}
        words = [word for word, bit in _STATVFS.items() if wanted.get(word, bool(flags & bit))]
        kept = next((word for word, bit in _STATVFS_ATIMES.items() if flags & bit), "")
        atime = str(wanted.get("atime", kept))
        return [*words, atime] if atime else words

    def clone(self) -> None:
        """Turns ``fd`` into a detached copy of the source's tree, with all attributes set. KernelError."""
        request = self.request
        try:
            tree = linux.open_tree(self.fd, clone=True, recursive=request.recursive)
        except OSError as reason:
            if reason.errno == errno.EPERM:
                problem = f"{self.path} cannot be bound without CAP_SYS_ADMIN"
                hint = "rootless, register for createContainer"
                raise UnavailableError(problem, where=request.at("source"), hint=hint) from reason
            hint = ""
            if reason.errno == errno.EINVAL:
                hint = "it is unbindable, or mounts below it are locked and need rbind"
            raise KernelError("open_tree", self.path, reason, where=request.at("source"), hint=hint) from reason
        os.close(self.fd)
        self.fd = tree
        try:
            self._set_attributes()
        except OSError as reason:
            if reason.errno == errno.EINVAL and request.idmap is not None:
                raise self._unmappable(request.idmap) from reason
            hint = ""
            if reason.errno == errno.EPERM and request.idmap is not None:
                check_power(self._namespace.proc, request.at("options"), reason)
                hint = "it is id-mapped already, or belongs to another user namespace"
            elif reason.errno == errno.EPERM:
                hint = "an attribute of the source is locked"
            raise KernelError("mount_setattr", self.path, reason, where=request.at("options"), hint=hint) from reason
        self._identify()

    def _unmappable(self, idmap: IdMap) -> UnavailableError:
        """That an id map was refused. The kernel does not say for which of the mounts below."""
        infos = [self.info, *(info for _, info in self.submounts if idmap.recursive)]
        kinds = sorted({info.type for info in infos if info is not None})
        which = f"the {''.join(kinds)} file system" if len(kinds) < 2 else f"one of the {', '.join(kinds)} file systems"
        return UnavailableError(f"{which} of {self.path} cannot be id-mapped", where=self.request.at("options"))

    def _set_attributes(self) -> None:
        """First those of the whole tree, then those of the top mount, where they may differ."""
        request = self.request
        propagation = _propagation(request.propagation)
        whole = request.propagation.startswith("r")
        idmap = request.idmap
        userns = user_namespace(idmap, self._namespace.proc, request.at("options")) if idmap is not None else 0
        try:
            for recursive, attributes in ((True, request.deep), (False, request.top)):
                attr_set, attr_clr = _bits(attributes)
                maps = idmap is not None and idmap.recursive == recursive
                spreads = whole == recursive
                if attr_set or attr_clr or maps or spreads:
                    linux.mount_setattr(
                        self.fd,
                        recursive=recursive,
                        attr_set=attr_set | (linux.MOUNT_ATTR_IDMAP if maps else 0),
                        attr_clr=attr_clr,
                        propagation=propagation if spreads else 0,
                        userns_fd=userns if maps else 0,
                    )
        finally:
            if userns:
                os.close(userns)

    def _identify(self) -> None:
        """Keeps the ids of the mounts in the detached tree: by them they are found again, wherever they are moved."""
        self.attached = [_identity(self.fd, self.root, self.info)]
        self._infos = {self.attached[0]["id"]: self.info}
        for path, info in self._visible:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            self.attached.append(_identity(fd, info.root, info))
            self._infos[self.attached[-1]["id"]] = info
            os.close(fd)
        # Those that another mount hides cannot be opened, but will be there.
        hidden = [info for path, info in self.submounts if (path, info) not in self._visible]
        self.attached += [_describe(info.root, info) for info in hidden]

    def shares(self, mnt_id: int) -> bool:
        """Whether a mount of the tree, by its id, will pass on to the source what is mounted in it later."""
        word = self.request.propagation
        if word in ("rprivate", "rslave", "runbindable"):
            return False
        is_top = mnt_id == (self.attached[0]["id"] if self.attached else self.stat.mnt_id)
        if is_top and word not in ("shared", "rshared"):
            return False
        info = self.info if is_top else self._infos.get(mnt_id)
        if info is None:
            info = next((below for _, below in self.submounts if below.id == mnt_id), None)
        return info is None or info.shared is not None

    def attach(self, target: int) -> None:
        """Attaches the tree on top of ``target``. OSError; what was attached then is found by its recorded id."""
        linux.move_mount(self.fd, target)
        # Attaching below a shared mount makes the tree shared again, whatever it was.
        _propagate(self.fd, self.request.propagation)
        flags = os.fstatvfs(self.fd).f_flag
        for attribute, value in {**self.request.deep, **self.request.top}.items():
            if value is True and not flags & _STATVFS[attribute]:
                raise OSError(errno.EIO, f'the mount did not become "{attribute}"')


def _real_path(fd: int, proc: Proc) -> str:
    return os.readlink(f"fd/{fd}", dir_fd=proc.fd)


def _bits(attributes: dict[str, bool | str]) -> tuple[int, int]:
    attr_set = attr_clr = 0
    for attribute, value in attributes.items():
        if attribute == "atime":
            attr_clr |= linux.MOUNT_ATTR__ATIME
            attr_set |= _ATIMES[str(value)]
        elif value:
            attr_set |= _FLAGS[attribute]
        else:
            attr_clr |= _FLAGS[attribute]
    return attr_set, attr_clr


def _propagation(word: str) -> int:
    return _PROPAGATIONS.get(word) or _PROPAGATIONS[word[1:]]


def _identity(fd: int, root: str, info: MountInfo | None) -> AttachedRecord:
    return {**_describe(root, info), "id": linux.statx(fd).mnt_id, "unique": linux.unique_mount_id(fd)}


def _describe(root: str, info: MountInfo | None) -> AttachedRecord:
    """What mountinfo will say of a mount, in characters that every file can hold."""
    source, kind = (info.source, info.type) if info else ("", "")
    return {"id": None, "unique": None, "root": ascii(root), "source": ascii(source), "type": ascii(kind)}


def expand(requests: Iterable[Request], bundle: str) -> list[Request]:
    """The requests, with one for each match instead of one with a pattern, glob(7), in the order of their names.

    Each match goes below the destination under its own name. MissingError where nothing matches, RequestError for a
    match that is not UTF-8, EscapeError for a pattern that may not be looked for.
    """
    expanded: list[Request] = []
    for request in requests:
        if not request.is_glob:
            expanded.append(request)
            continue
        import glob

        if request.allowed_sources is not None:
            from .allowed import check_pattern

            check_pattern(request, request.allowed_sources)
        matches = sorted(glob.glob(os.path.join(bundle, request.source)))
        if not matches and not request.optional:
            where = request.at("source")
            raise MissingError(f"nothing matches {request.source}", where=where, hint="optional allows that")
        expanded += [request.match(path) for path in matches]
    return expanded


def check_open_files(binds: int, mount_points: int = 0) -> None:
    """Allows as many open files as may be, and raises UnavailableError where so many binds need more."""
    limit = linux.raise_open_files()
    if binds * FDS_PER_BIND + mount_points + FDS_BESIDES > limit:
        points = f" with {mount_points} mount points to make" if mount_points else ""
        raise UnavailableError(
            f"{binds} binds{points} need more than the {limit} open files that are allowed",
            hint="raise the hard limit RLIMIT_NOFILE of the runtime",
        )


def open_sources(requests: Iterable[Request], bundle: str, namespace: Namespace) -> list[Source]:
    """The sources of all binds among ``requests``, held by fd. UnavailableError for more than there can be fds."""
    binds = [request for request in requests if request.is_bind]
    check_open_files(len(binds))
    return [Source(request, bundle, namespace) for request in binds]


def clone_sources(sources: Iterable[Source]) -> None:
    """Clones every source that was found, while we are in their namespace: from another one it is refused.

    A source of config.json that cannot be cloned is an error only if the hook has to mount it.
    """
    for source in sources:
        if source.error is None:
            try:
                source.clone()
            except (KernelError, UnavailableError) as problem:
                if not source.request.is_from_mounts:
                    raise
                source.error = problem


def detach(attached: Sequence[AttachedRecord], path: str, proc: Proc, *, receives: bool = False) -> None:
    """Unmounts the tree whose mounts are ``attached``, the top first, from the namespace we are in.

    Nothing is done where it is not mounted any more. ``receives`` tells that mounts may have propagated into it, which
    are no work of anybody else's here. LeftoverError where somebody mounted something on or below it, or where it
    cannot be reached.
    """
    for _ in range(DETACH_TRIES):
        table = proc.mounts()
        info = find(attached[0], table)
        if info is None:
            return
        below = [info for info in below_mount(table, info.id) if not (receives and info.is_propagated)]
        foreign = _foreign(attached, below)
        if foreign is not None:
            raise LeftoverError(f"somebody mounted something else on {foreign.mount_point}")
        try:
            fd = os.open(info.mount_point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            if _is_root_of(fd, attached[0]):
                _unmount(fd, proc)
        finally:
            os.close(fd)
    raise LeftoverError(f"the mount on {path} cannot be reached: another one hides it, or it moves all the time")


def settle(attached: Sequence[AttachedRecord], propagation: str, proc: Proc) -> None:
    """Sets the propagation of a tree again, for a run that was killed just before it did so. OSError."""
    info = find(attached[0], proc.mounts())
    if info is None:
        return
    fd = os.open(info.mount_point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if _is_root_of(fd, attached[0]):
            _propagate(fd, propagation)
    finally:
        os.close(fd)


def _is_root_of(fd: int, known: AttachedRecord) -> bool:
    """Whether ``fd`` is on the mount that was attached. The path it was opened by is only a hint."""
    return linux.statx(fd).mnt_id == known["id"] and known["unique"] in (None, linux.unique_mount_id(fd))


def _propagate(fd: int, word: str) -> None:
    linux.mount_setattr(fd, recursive=word.startswith("r"), propagation=_propagation(word))


def find(top: AttachedRecord, table: Iterable[MountInfo]) -> MountInfo | None:
    """A mount that was attached, in the table of this namespace; None where it is gone.

    Mount ids are used again: the unique one decides, or, before Linux 6.8, that all else we know agrees too.
    """
    info = mount_by_id(table, top["id"])
    if info is None:
        return None
    if top["unique"] is None:
        return info if _looks_like(top, info) else None
    return info if linux.has_mount(top["unique"]) else None


def is_in(top: AttachedRecord, table: Iterable[MountInfo]) -> bool:
    """Whether a mount that was attached is in the table of another namespace, as far as such a table tells."""
    return any(info.id == top["id"] and _looks_like(top, info) for info in table)


def _looks_like(known: AttachedRecord, info: MountInfo) -> bool:
    seen = _describe(info.root, info)
    return (seen["root"], seen["source"], seen["type"]) == (known["root"], known["source"], known["type"])


def _foreign(attached: Sequence[AttachedRecord], below: Sequence[MountInfo]) -> MountInfo | None:
    """The first mount on or below ours that is not ours."""
    ids = {known["id"] for known in attached if find(known, below) is not None}
    hidden = [known for known in attached if known["id"] is None]
    for info in below:
        if info.id not in ids:
            ours = next((known for known in hidden if _looks_like(known, info)), None)
            if ours is None:
                return info
            hidden.remove(ours)
    return None


def _unmount(fd: int, proc: Proc) -> None:
    """Unmounts the tree whose root is held by ``fd``, here only: what is shared with other places stays there."""
    linux.mount_setattr(fd, recursive=True, propagation=linux.MS_PRIVATE)
    if modes.S_ISDIR(os.fstat(fd).st_mode):
        os.fchdir(fd)
        linux.umount2(".", linux.MNT_DETACH | linux.UMOUNT_NOFOLLOW)
        os.chdir("/")
    else:
        proc.umount_file(fd)
