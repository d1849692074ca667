# SPDX-License-Identifier: Apache-2.0
"""Binds by the mount API of Linux 5.12: a detached tree, complete before it is attached.

Loaded by every start of a container: it imports only os and errno. ``attach`` runs after setns(2), when nothing can be
imported; ``clone`` runs before.
"""

from __future__ import annotations

import errno
import os

from ..errors import UnavailableError
from ..kernel import linux
from ..kernel.errnos import because, refused
from .mounted import describe, identity, propagation_flag
from .source import STATVFS, Source

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..requests.request import IdMap

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


class DetachedSource(Source):
    """A source that is cloned by open_tree(2) and attached by move_mount(2)."""

    # Attributes come before visibility. With mount(2) a bind is first visible with the attributes of its source and
    # only then remounted "ro" or "nosuid": a process of the container that waits for this moment writes to the source,
    # or starts a set-uid program. Besides, the remount looks the mount up by path, and if the container has renamed
    # that meanwhile, another mount gets the flags. Here open_tree(CLONE) attaches the copy nowhere, mount_setattr(2)
    # changes it by fd, first the whole tree and then its top, and move_mount(2) by two fds is the last step. An
    # attribute that is set after ``attach`` would open the window again.

    def clone(self) -> None:
        """Turns ``fd`` into a detached copy of the source's tree, with all attributes set.

        Raises KernelError, and UnavailableError if this kernel, file system or stage cannot do it.
        """
        request = self.request
        try:
            tree = linux.open_tree(self.fd, clone=True, recursive=request.recursive)
        except OSError as reason:
            if reason.errno == errno.EPERM:
                problem = f"{self.path} cannot be bound {because('open_tree', reason)}"
                advice = "rootless, register for createContainer"
                raise UnavailableError(problem, where=request.at("source"), hint=advice) from reason
            raise refused("open_tree", self.path, reason, where=request.at("source")) from reason
        os.close(self.fd)
        self.fd = tree
        try:
            self._set_attributes()
        except OSError as reason:
            if reason.errno == errno.EINVAL and request.idmap is not None:
                raise self._unmappable(request.idmap) from reason
            call = "mount_setattr"
            if reason.errno == errno.EPERM and request.idmap is not None:
                call = "mount_setattr(idmap)"
            raise refused(call, self.path, reason, where=request.at("options")) from reason
        self._identify()

    def _unmappable(self, idmap: IdMap) -> UnavailableError:
        """The error for a refused id map. The kernel does not say which mount of the tree it refused."""
        infos = [self.info, *(info for _, info in self.submounts if idmap.recursive)]
        kinds = sorted({info.type for info in infos if info is not None})
        which = f"the {''.join(kinds)} file system" if len(kinds) < 2 else f"one of the {', '.join(kinds)} file systems"
        return UnavailableError(f"{which} of {self.path} cannot be id-mapped", where=self.request.at("options"))

    def _set_attributes(self) -> None:
        """Sets the attributes of the whole tree, then those of the top mount that differ. Raises OSError, HookError."""
        request = self.request
        propagation = propagation_flag(request.propagation)
        whole = request.propagation.startswith("r")
        idmap = request.idmap
        userns = 0
        if idmap is not None:
            from .idmap import user_namespace

            userns = user_namespace(idmap, self.namespace.proc, request.at("options"))
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
        """Records the ids of the mounts in the detached tree, by which they are found wherever they are moved."""
        self.attached = [identity(self.fd, self.root, self.info)]
        self.infos = {self.attached[0]["id"]: self.info}
        for path, info in self.visible:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            self.attached.append(identity(fd, info.root, info))
            self.infos[self.attached[-1]["id"]] = info
            os.close(fd)
        # A mount that another one hides cannot be opened, but is attached with the tree.
        hidden = [info for path, info in self.submounts if (path, info) not in self.visible]
        self.attached += [describe(info.root, info) for info in hidden]

    def attach(self, target: int) -> None:
        """Attaches the tree on the file or folder ``target``. Raises OSError, also if an attribute is missing then."""
        linux.move_mount(self.fd, target)
        # The propagation is set twice. Before, so that the clone is no peer of its source: what the container mounts in
        # it would appear on the host. Again here, because the kernel makes a tree shared when it is attached below a
        # shared mount, whatever it was before. The plan has checked that this mount is not shared with the host.
        word = self.request.propagation
        linux.mount_setattr(self.fd, recursive=word.startswith("r"), propagation=propagation_flag(word))
        flags = os.fstatvfs(self.fd).f_flag
        for attribute, value in {**self.request.deep, **self.request.top}.items():
            if value is True and not flags & STATVFS[attribute]:
                raise OSError(errno.EIO, f'the mount did not become "{attribute}"')


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
