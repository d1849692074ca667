# SPDX-License-Identifier: Apache-2.0
"""Binds by the mount API of Linux 5.12: a detached tree that is complete before it is attached.

Loaded by every start of a container: import only posix and errno. ``clone`` runs before setns(2), ``attach``
after it, when nothing can be imported.
"""

from __future__ import annotations

import errno
import posix

from ..errors import HookError, UnavailableError
from ..kernel import linux
from ..kernel.errnos import because, refused
from .mounted import describe, identity, propagation_flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..requests.request import IdMap
    from .sources import Source

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


# Attributes are set before the bind is visible. With mount(2) a bind is first visible with the attributes of its source
# and only then remounted "ro" or "nosuid". In between, a process of the container can write to the source or start a
# set-uid program. The remount also looks up the mount by path: if the container renames the path before that, another
# mount gets the flags. Here open_tree(OPEN_TREE_CLONE) makes a copy that is not attached, mount_setattr(2) changes it
# by fd, first the whole tree and then its top, and move_mount(2) with two fds is the last step. Do not set an
# attribute after ``attach``: that would open the window again.

CALL = "move_mount"  # attaches a bind
IS_DETACHED = True  # sources are cloned in their own namespace, before setns(2)


def check(source: Source) -> None:
    """Does nothing: the mount API can bind every source."""


def clone(source: Source) -> None:
    """Replaces ``source.fd`` with a detached copy of the source's tree, with all attributes set.

    Raises KernelError, and UnavailableError if this kernel, file system or stage does not support it.
    """
    tree = _copy(source)
    posix.close(source.fd)
    source.fd = tree
    _set_attributes(source, tree)
    _identify(source)


def refused_clone(source: Source, *, is_same: bool) -> HookError | None:
    """The error that ``clone`` would raise, tried on a detached copy that is dropped. None without an error.

    If ``is_same`` is false, the run clones in another mount namespace or with other rights: whether the source can be
    copied there is not known here, and None is returned if it cannot be copied here.

    For a dry-run: which sources can be copied and id-mapped depends on the version of the kernel and on the backports
    of its vendor. Only trying shows it.
    """
    try:
        tree = _copy(source)
    except HookError as problem:
        return problem if is_same else None
    try:
        _set_attributes(source, tree)
    except HookError as problem:
        return problem
    finally:
        posix.close(tree)
    return None


def _copy(source: Source) -> int:
    """A detached copy of the source's tree. Raises HookError."""
    request = source.request
    try:
        return linux.open_tree(source.fd, clone=True, recursive=request.recursive)
    except OSError as reason:
        if reason.errno == errno.EPERM:
            problem = f"{source.path} cannot be bound {because('open_tree', reason)}"
            advice = "rootless, register the hook for createContainer"
            raise UnavailableError(problem, where=request.at("source"), hint=advice) from reason
        raise refused("open_tree", source.path, reason, where=request.at("source")) from reason


def _unmappable(source: Source, idmap: IdMap) -> UnavailableError:
    """The error for a refused id map. The kernel does not report which mount of the tree it refused."""
    infos = [source.info, *(info for _, info in source.submounts if idmap.recursive)]
    kinds = sorted({info.type for info in infos if info is not None})
    which = f"the {''.join(kinds)} file system" if len(kinds) < 2 else f"one of the {', '.join(kinds)} file systems"
    return UnavailableError(f"{which} of {source.path} cannot be id-mapped", where=source.request.at("options"))


def _set_attributes(source: Source, tree: int) -> None:
    """Sets the attributes of a detached tree. Raises HookError."""
    request = source.request
    try:
        _set_all(source, tree)
    except OSError as reason:
        if reason.errno == errno.EINVAL and request.idmap is not None:
            raise _unmappable(source, request.idmap) from reason
        if reason.errno == errno.EPERM and request.idmap is not None:
            raise refused("mount_setattr(idmap)", source.path, reason, where=request.at("options")) from reason
        raise source.refused_attributes("mount_setattr", reason) from reason


def _set_all(source: Source, tree: int) -> None:
    """Sets the attributes of the whole tree, then those of the top mount that differ. Raises OSError, HookError."""
    request = source.request
    propagation = propagation_flag(request.propagation)
    whole = request.propagation.startswith("r")
    idmap = request.idmap
    userns = 0
    if idmap is not None:
        from .idmap import user_namespace

        userns = user_namespace(idmap, source.namespace.proc, request.at("options"))
    try:
        for recursive, attributes in ((True, request.deep), (False, request.top)):
            attr_set, attr_clr = _bits(attributes)
            maps = idmap is not None and idmap.recursive == recursive
            spreads = whole == recursive
            if attr_set or attr_clr or maps or spreads:
                linux.mount_setattr(
                    tree,
                    recursive=recursive,
                    attr_set=attr_set | (linux.MOUNT_ATTR_IDMAP if maps else 0),
                    attr_clr=attr_clr,
                    propagation=propagation if spreads else 0,
                    userns_fd=userns if maps else 0,
                )
    finally:
        if userns:
            posix.close(userns)


def _identify(source: Source) -> None:
    """Records the ids of the mounts in the detached tree. They identify the mounts after they are attached."""
    source.attached = [identity(source.fd, source.root, source.info)]
    source.infos[source.attached[0]["id"]] = source.info
    for path, info in source.visible:
        fd = posix.open(path, posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC, dir_fd=source.fd)
        source.attached.append(identity(fd, info.root, info))
        source.infos[source.attached[-1]["id"]] = info
        posix.close(fd)
    # A mount that another one hides cannot be opened, but it is attached with the tree.
    visible = {info.id for _, info in source.visible}
    hidden = [info for _, info in source.submounts if info.id not in visible]
    source.attached += [describe(info.root, info) for info in hidden]


def attach(source: Source, target: int) -> None:
    """Attaches the tree on the file or folder ``target``. Raises OSError."""
    linux.move_mount(source.fd, target)
    # The propagation is set twice. ``clone`` sets it so that the clone is no peer of its source: otherwise, mounts that
    # the container makes in it would appear on the host. It is set again here, because the kernel makes a tree shared
    # when it is attached below a shared mount. The plan has checked that this mount is not shared with the host.
    word = source.request.propagation
    linux.mount_setattr(source.fd, recursive=word.startswith("r"), propagation=propagation_flag(word))


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
