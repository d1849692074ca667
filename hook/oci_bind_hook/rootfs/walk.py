# SPDX-License-Identifier: Apache-2.0
"""Resolves a path below a root that is open as an fd, as a process in the container would resolve it.

Everything below the root is untrusted and may be renamed during the walk. So the walk opens one component at a time
from an open fd, never lets the kernel follow a link, and returns an fd, not a path that would be looked up again. This
module does not decide what may be mounted there.

Loaded by every start of a container: import only posix, errno and stat. It runs after setns(2), when nothing can be
imported.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..errors import EscapeError, RequestError
from ..kernel import files, linux
from ..kernel.errnos import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence

NAME_MAX = 255
PATH_MAX = 4096
HOLD = posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC


class Cover:
    """A mount that does not exist yet: planned by the hook, or expected from the runtime.

    ``held`` is the fd and Stat of its root, in which a walk continues. It is None if only the ``type`` of the file
    system is known: then every name below counts as missing. ``types`` are the known file system types of its mounts,
    by mount id.
    """

    __slots__ = ("held", "type", "types")

    def __init__(
        self, kind: str, held: tuple[int, files.Stat] | None = None, types: Mapping[int | None, str] | None = None
    ) -> None:
        self.type = kind
        self.held = held
        self.types = types or {}


class Step:
    """One component of a walk: its ``name``, and the file (of any type) there, as its ``fd`` and ``stat``.

    ``exists`` is false for a missing name. ``fd`` is None for a missing name, and for the root of a cover without
    ``held``. ``cover`` is the cover that the file is in or is the root of. ``on_rootfs`` is true if the name, mounted
    on or not, is in the rootfs's own mount. ``place`` identifies it as the parent of names below, Root.key. ``size`` is
    the length of its path in bytes.
    """

    __slots__ = ("cover", "exists", "fd", "name", "on_rootfs", "place", "size", "stat")

    def __init__(self, name: str, held: tuple[int, files.Stat] | None, cover: Cover | None, *, exists: bool) -> None:
        self.name = name
        self.fd = held[0] if held else None
        self.stat = held[1] if held else None
        self.cover = cover
        self.exists = exists
        self.on_rootfs = False
        self.place: Hashable = None
        self.size = 0

    @property
    def folder(self) -> bool:
        """Whether it can have names below: a folder, a missing name (it can become a folder), the root of a cover."""
        return self.stat is None or modes.S_ISDIR(self.stat.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link. Among the steps of a walk this is only a link that was not to be followed."""
        return self.stat is not None and modes.S_ISLNK(self.stat.mode)

    def close(self) -> None:
        """Closes ``fd``, except that of the root of a cover, which belongs to its source."""
        is_cover = self.cover is not None and self.cover.held == (self.fd, self.stat)
        if self.fd is not None and not is_cover:
            posix.close(self.fd)
            self.fd = None


class Target:
    """The result of a walk: the ``steps`` from the root. The last ones, ``missing``, may not exist.

    ``path`` is the path without links, and ``links`` are pairs (path, text) of those that were followed. ``as_folder``
    is true if the destination can only be a folder (``/a/``). ``uses`` are the paths of the steps on the rootfs's own
    mount. Only the fd of ``anchor``, the last step that exists, is still open.
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
        self.uses = [path for step, path in self.paths() if step.on_rootfs]

    @property
    def last(self) -> Step:
        return self.steps[-1]

    def paths(self) -> Iterator[tuple[Step, str]]:
        """Each step except the root, with its path."""
        path = ""
        for step in self.steps[1:]:
            path = f"{path}/{step.name}"
            yield step, path

    def close(self) -> None:
        """Closes the anchor, if only the path is needed. The root and the covers stay open."""
        if self.anchor is not self.steps[0]:
            self.anchor.close()


def by_link(links: Sequence[tuple[str, str]]) -> str:
    """The end of a sentence about the path to which a walk through ``links`` leads: the last link in the image, if any.

    The sentence has a path without links, and the request has another one.
    """
    # Links of procfs and sysfs are not the image's, and ``admit`` names a link in place of one of them.
    places = [place for place, _ in links if not f"{place}/".startswith(("/proc/", "/sys/"))]
    return f"; the link {places[-1][:NAME_MAX]} leads there" if places else ""


def path_of(steps: Sequence[Step]) -> str:
    """The path of the last of ``steps``, absolute and without links."""
    return "/" + "/".join(step.name for step in steps[1:])


class Root:
    """A folder, open as ``fd`` with its ``stat``, that is ``/`` for a walk, which never leaves it.

    The caller opens it once. Where its path leads later does not matter.
    """

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.stat = files.statx(fd)
        self._covers: dict[Hashable, Cover] = {}
        self._missing: dict[Hashable, int] = {}

    def resolve(self, destination: str, *, nofollow: bool = False) -> Target:
        """Resolves ``destination`` as in path_resolution(7), with this root as ``/``.

        With ``nofollow`` a link at the end is not followed: it is the last step.

        The path is not cleaned first: ``link/..`` is the parent of the link's target. A missing tail is returned as
        missing steps. Raises RequestError for a file used as a folder, a path or name that is too long, and more than
        files.MAX_LINKS links; EscapeError for a magic link; and KernelError.
        """
        steps = [self._root()]
        links: list[tuple[str, str]] = []
        pending = destination.split("/")[::-1]
        as_folder = False
        try:
            while pending:
                name = pending.pop()
                top = steps[-1]
                if not top.folder:
                    problem = f"{path_of(steps)} is not a folder{by_link(links)}"
                    raise RequestError(problem, hint="the destination is below it")
                as_folder = name in ("", ".", "..")
                # ".." goes back to the fd that the walk came from, without the kernel: if an attacker renames the
                # current folder to a place outside the root during the walk (a container can, in a shared volume), its
                # ".." is a folder of the host, and the next ".." the one above. All fds on the stack were reached from
                # the root, steps[0], which is never popped, so no number of ".." leaves it. openat2(2) is no
                # replacement: its check of ".." fails with EAGAIN while anything on the machine is renamed, and it
                # supports neither missing names nor the roots of planned mounts.
                if name == ".." and len(steps) > 1:
                    steps.pop().close()
                if as_folder:
                    continue
                size = top.size + len(linux.encode_path(name)) + 1
                # Each name is stored with its path in steps, plan and record, and forty links can make paths of 160 kB.
                if size > PATH_MAX:
                    raise RequestError(
                        f"{destination[:NAME_MAX]} leads to a path of more than {PATH_MAX} bytes{by_link(links)}"
                    )
                step, text = self._step(steps, name, follow=bool(pending) or not nofollow)
                if text is None:
                    step.place, step.size = self._place(top, step), size
                    steps.append(step)
                    continue
                links.append((path_of([*steps, step]), text))
                if len(links) > files.MAX_LINKS:
                    raise RequestError(
                        f"{destination} leads through more than {files.MAX_LINKS} links", hint="check for a loop"
                    )
                # An absolute link starts again at this root, not at the "/" of this process.
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

    def _step(self, steps: list[Step], name: str, *, follow: bool) -> tuple[Step, str | None]:
        """The step from the last of ``steps`` to ``name``, and the link's text if it is one to ``follow``."""
        top = steps[-1]
        step = Step(name, None, top.cover, exists=False)
        # Checked here, because the kernel does not see names below a missing one.
        if len(linux.encode_path(name)) > NAME_MAX:
            raise RequestError(f"a name in {path_of([*steps, step])[:NAME_MAX]}... is longer than {NAME_MAX} bytes")
        if top.fd is not None:
            try:
                # A cover is opened directly: its file system is not one of the container's.
                fd = self.hold(name, top.fd) if top.cover is None else posix.open(name, HOLD, dir_fd=top.fd)
                # ask=False: the lookup has just asked the server of the file system, and that of a mount on the name
                # is never asked.
                step = Step(name, (fd, files.statx(fd, ask=False)), top.cover, exists=True)
            except FileNotFoundError:
                pass
            except OSError as reason:
                raise refused("openat", path_of([*steps, step]), reason) from reason
        step.on_rootfs = self.is_on_root(top)
        # Covers come first: a mount on a link hides the link, so the walk does not follow it.
        if (cover := self._covers.get(self.key(top, step))) is not None:
            step.close()
            on_rootfs = step.on_rootfs
            step = Step(name, cover.held, cover, exists=True)
            step.on_rootfs = on_rootfs
        elif follow and step.is_link:
            try:
                text = self._readlink(top, step, path_of([*steps, step]))
            finally:
                step.close()
            if text is not None:
                return step, text
            # The link has no text for this process. It becomes a missing name on procfs, which admit refuses.
            step = Step(name, None, top.cover, exists=False)
            step.on_rootfs = self.is_on_root(top)
        return step, None

    def hold(self, name: str, folder: int) -> int:
        """An fd of ``name`` in the open ``folder``, or of what is mounted on it, without following a link. OSError."""
        return posix.open(name, HOLD, dir_fd=folder)

    def is_on_root(self, step: Step) -> bool:
        """Whether names below ``step``, existing or to be created, are in the rootfs's own mount."""
        if step.cover is not None:
            return False
        return step.on_rootfs if step.stat is None else step.stat.mnt_id == self.stat.mnt_id

    def _readlink(self, top: Step, link: Step, path: str) -> str | None:
        """The text of a link; None for ``self`` of procfs, which has a text only in its pid namespace. HookError."""
        assert link.fd is not None
        assert top.fd is not None
        is_proc = linux.fstatfs_type(link.fd) == linux.PROC_SUPER_MAGIC
        if is_proc:
            try:
                flags = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
                posix.close(linux.openat2(top.fd, link.name, flags=posix.O_PATH, resolve=flags))
            except OSError as reason:
                # ELOOP means a magic link: procfs has no ordinary link that loops. Without openat2(2), before Linux
                # 5.6, every link outside the root of procfs counts as magic: nearly all ordinary links are in its root.
                is_absent = linux.is_absent(reason) and (top.stat is None or top.stat.ino != linux.PROC_ROOT_INO)
                if reason.errno == errno.ELOOP or is_absent:
                    raise EscapeError(f"{path} is a magic link of procfs, which may lead out of the rootfs") from reason
        try:
            return posix.readlink("", dir_fd=link.fd)
        except OSError as reason:
            if is_proc and reason.errno == errno.ENOENT:
                return None
            raise refused("readlinkat", path, reason) from reason

    def _root(self) -> Step:
        root = Step("", (self.fd, self.stat), None, exists=True)
        root.place = self._place(root, root)
        return root

    def key(self, above: Step, step: Step) -> Hashable:
        """The identity of the place of ``step``, whether a file exists there or not: equal for equal places.

        ``above`` is the step before it.
        """
        # A walk recognises a planned mount by its parent folder and its name there. The file of that name is not used:
        # a file can have several names (hard links), a mount covers only one of them, and a missing mount point has no
        # file yet. The path is not used either: a container can rename the parent between two walks, and the mount
        # moves with it. The mount id is part of the parent, because one folder bound at two places is two parents:
        # what is mounted below one is not visible below the other. The cover is part of it too: a dry-run does not
        # clone, so two binds of one source lead to the same file in the same mount. Below a missing name the parent is
        # a number that stands for the last existing folder and all names from there, so that binds which need the same
        # missing folder share it. A number instead of the names, because a walk can be two thousand names deep.
        return above.place, step.name

    def _place(self, above: Step, step: Step) -> Hashable:
        if step.stat is not None:
            return step.cover, step.stat.mnt_id, step.stat.dev, step.stat.ino
        if step.exists:
            return step.cover
        return self._missing.setdefault((above.place, step.name), len(self._missing))

    def key_of(self, target: Target) -> Hashable:
        """The identity of the place of ``target``, as from ``key``."""
        return self.key(*target.steps[-2:]) if len(target.steps) > 1 else target.steps[0].place

    def cover(self, target: Target, cover: Cover) -> None:
        """Places ``cover`` on ``target``: every later walk that gets there continues in the cover."""
        self._covers[self.key_of(target)] = cover
