# SPDX-License-Identifier: Apache-2.0
"""The rootfs as a handle: where a destination leads inside it, and the mount points made in it.

Everything below the rootfs was written by strangers and may be renamed while we look. So a walk opens one component
at a time from a held fd, never follows a link in the kernel, and answers with an fd, not with a path to look up
again. What is mounted there, and why, is no business of this module.
"""

from __future__ import annotations

import errno
import os
import stat as modes

from ..errors import EscapeError, RequestError
from ..kernel import linux
from ..kernel.errnos import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    OwnerOf = Callable[[linux.Stat], tuple[int, int]]

MAX_LINKS = 40  # what the kernel allows in one lookup, path_resolution(7)
NAME_MAX = 255
PATH_MAX = 4096
DEPTH_MAX = 2048  # names that fit into the longest path the kernel takes, PATH_MAX
HOLD = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC


class Cover:
    """A mount that is planned, or known to be the runtime's: what a walk finds at its mount point.

    ``held`` is the root of what will be mounted, fd and Stat. Where only the ``type`` of the file system is known it
    is None, and nothing is known of what is inside.
    """

    __slots__ = ("held", "type")

    def __init__(self, kind: str, fd: int | None = None) -> None:
        self.type = kind
        self.held = None if fd is None else (fd, linux.statx(fd))


class Step:
    """One name of a walk and what stands there: an object held by ``fd``, the unseen root of a cover, or nothing.

    ``cover`` is the cover it lies in, or is the root of. ``on_rootfs`` tells that the name itself, be it a mount
    point or not, belongs to the rootfs's own mount.
    """

    __slots__ = ("cover", "exists", "fd", "name", "on_rootfs", "stat")

    def __init__(self, name: str, held: tuple[int, linux.Stat] | None, cover: Cover | None, *, exists: bool) -> None:
        self.name = name
        self.fd = held[0] if held else None
        self.stat = held[1] if held else None
        self.cover = cover
        self.exists = exists
        self.on_rootfs = False

    @property
    def folder(self) -> bool:
        """Whether names can stand below it: what is missing can be made a folder, and an unseen root is one."""
        return self.stat is None or modes.S_ISDIR(self.stat.mode)

    def close(self) -> None:
        is_cover = self.cover is not None and self.cover.held == (self.fd, self.stat)
        if self.fd is not None and not is_cover:
            os.close(self.fd)
            self.fd = None


class Target:
    """Where a destination leads: the ``steps`` from the root to the object, the last of them perhaps missing.

    ``links`` are the links that were followed, pairs of where and to what. ``as_folder`` tells that the destination
    can only mean a folder (``/a/``). Of the steps only ``anchor``, the last that exists, is still held by fd.
    """

    __slots__ = ("anchor", "as_folder", "links", "missing", "path", "steps", "uses")

    def __init__(self, steps: list[Step], links: list[tuple[str, str]], *, as_folder: bool) -> None:
        self.steps = steps
        self.links = links
        self.as_folder = as_folder
        self.path = path_of(steps)
        existing = max(i for i, step in enumerate(steps) if step.exists)
        self.anchor = steps[existing]
        self.missing = steps[existing + 1 :]
        self.uses = [path_of(steps[: i + 1]) for i, step in enumerate(steps) if step.on_rootfs]

    @property
    def last(self) -> Step:
        return self.steps[-1]

    def close(self) -> None:
        """Lets go of the anchor, where only the path matters. The root and the covers stay held."""
        if self.anchor is not self.steps[0]:
            self.anchor.close()


def is_utf8(path: str) -> bool:
    """Whether a path of this file system can stand in a JSON document."""
    return path.isascii() or not any("\udc80" <= c <= "\udcff" for c in path)


def path_of(steps: Sequence[Step]) -> str:
    """The path, absolute and without links, that a walk has come to."""
    return "/" + "/".join(step.name for step in steps[1:])


class Root:
    """A folder that is ``/`` for whoever is meant by a path: a walk never leaves it. Held by ``fd``, with its ``stat``.

    Policy is elsewhere: what may be mounted on, made or bound is not known here.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.stat = linux.statx(fd)
        self._covers: dict[Hashable, Cover] = {}

    def resolve(self, destination: str) -> Target:
        """Where ``destination`` leads for a process in the container, path_resolution(7) with this root as ``/``.

        Links and ``..`` never leave the root. Nothing is cleaned beforehand: ``link/..`` is the parent of what the
        link points to. RequestError for a file used as a folder or too many links, EscapeError for a magic link.
        """
        steps = [Step("", (self.fd, self.stat), None, exists=True)]
        links: list[tuple[str, str]] = []
        pending = destination.split("/")[::-1]
        as_folder = False
        try:
            while pending:
                name = pending.pop()
                top = steps[-1]
                if not top.folder:
                    raise RequestError(f"{path_of(steps)} is not a folder", hint="the destination leads through it")
                as_folder = name in ("", ".", "..")
                if name == ".." and len(steps) > 1:
                    steps.pop().close()
                if as_folder:
                    continue
                if len(steps) > DEPTH_MAX:
                    raise RequestError(f"{destination[:NAME_MAX]} leads more than {DEPTH_MAX} folders deep")
                step, text = self._step(steps, name)
                if text is None:
                    steps.append(step)
                    continue
                links.append((path_of([*steps, step]), text))
                if len(links) > MAX_LINKS:
                    raise RequestError(f"{destination} leads through more than {MAX_LINKS} links", hint="a loop?")
                while text.startswith("/") and len(steps) > 1:
                    steps.pop().close()
                pending.extend(text.split("/")[::-1])
        except BaseException:
            for step in steps[1:]:
                step.close()
            raise
        target = Target(steps, links, as_folder=as_folder)
        for step in steps[1:]:
            if step is not target.anchor:
                step.close()
        return target

    def _step(self, steps: list[Step], name: str) -> tuple[Step, str | None]:
        """The step to ``name``, and its text where it is a link."""
        top = steps[-1]
        step = Step(name, None, top.cover, exists=False)
        if len(os.fsencode(name)) > NAME_MAX:
            raise RequestError(f"a name in {path_of([*steps, step])[:NAME_MAX]}... is longer than {NAME_MAX} bytes")
        if top.fd is not None:
            try:
                fd = os.open(name, HOLD, dir_fd=top.fd)
                step = Step(name, (fd, linux.statx(fd)), top.cover, exists=True)
            except FileNotFoundError:
                pass
            except OSError as reason:
                raise refused("openat", path_of([*steps, step]), reason) from reason
        step.on_rootfs = self.is_on_root(top)
        if step.stat is not None and modes.S_ISLNK(step.stat.mode):
            try:
                return step, self._readlink(top, step, path_of([*steps, step]))
            finally:
                step.close()
        if (cover := self._covers.get(self.key([*steps, step]))) is not None:
            step.close()
            on_rootfs = step.on_rootfs
            step = Step(name, cover.held, cover, exists=True)
            step.on_rootfs = on_rootfs
        return step, None

    def is_on_root(self, step: Step) -> bool:
        """Whether what stands or will stand below ``step`` belongs to the rootfs's own mount."""
        if step.cover is not None:
            return False
        return step.on_rootfs if step.stat is None else step.stat.mnt_id == self.stat.mnt_id

    def _readlink(self, top: Step, link: Step, path: str) -> str:
        assert link.fd is not None
        assert top.fd is not None
        if linux.fstatfs_type(link.fd) == linux.PROC_SUPER_MAGIC:
            try:
                flags = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
                os.close(linux.openat2(top.fd, link.name, flags=os.O_PATH, resolve=flags))
            except OSError as reason:
                # Only a magic link loops here: procfs has no ordinary link that leads to itself. Before Linux 5.6
                # nobody tells, but they all are in folders, and nearly all others are directly in the root of procfs.
                is_absent = linux.is_absent(reason) and (top.stat is None or top.stat.ino != linux.PROC_ROOT_INO)
                if reason.errno == errno.ELOOP or is_absent:
                    raise EscapeError(f"{path} is a magic link of procfs and leads anywhere") from reason
        try:
            return os.readlink("", dir_fd=link.fd)
        except OSError as reason:
            raise refused("readlinkat", path, reason) from reason

    def key(self, steps: Sequence[Step]) -> Hashable:
        """What tells one name in the tree of mounts from all others, be there an object or not.

        Not the object of that name: a file may have several, and only one of them is mounted on.
        """
        names = [steps[-1].name]
        for step in steps[-2::-1]:
            if step.stat is not None:
                return (step.cover, step.stat.mnt_id, step.stat.dev, step.stat.ino, *names)
            if step.exists:
                return (step.cover, *names)
            names.append(step.name)
        return tuple(names)

    def cover(self, target: Target, cover: Cover) -> None:
        """Every later walk that comes to ``target`` finds the root of ``cover`` there."""
        self._covers[self.key(target.steps)] = cover
