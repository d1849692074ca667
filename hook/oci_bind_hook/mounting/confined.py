# SPDX-License-Identifier: Apache-2.0
"""Sources that must stay inside a folder: those of annotations, matches of a pattern, and sources with a subpath.

A name in such a folder may be a malicious link. So the walk to a source starts at an fd of the folder and opens one
name at a time. Only the object that the walk reaches is judged, not a path, which can lead elsewhere later.

Loaded only for such a source, before setns(2): it imports only errno, posix and stat.
"""

from __future__ import annotations

import errno
import posix
import stat as modes

from ..errors import EscapeError
from ..kernel import files, linux

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..requests.request import Request

HOLD = posix.O_PATH | posix.O_NOFOLLOW | posix.O_CLOEXEC


class Held:
    """A file or folder on a walk, kept open as ``fd``. ``key`` identifies it: its mount id, device and inode."""

    __slots__ = ("fd", "key", "mode", "name")

    def __init__(self, name: str, fd: int) -> None:
        stat = files.statx(fd)
        self.name = name
        self.fd = fd
        self.mode = stat.mode
        self.key = (stat.mnt_id, stat.dev, stat.ino)


class Walk:
    """A walk to a path of the host. ``steps`` are the objects on the way from ``/``, also after an error.

    ``judge`` is called with the steps after each one, and raises if the walk may not go there; by default, any path is
    allowed. ``links`` are pairs (path, text) of the links that were followed. As a context manager it closes all fds
    that the walk opened, except those of ``keep``.
    """

    def __init__(self, start: Sequence[Held] = (), judge: Callable[[Sequence[Held]], None] | None = None) -> None:
        self._opened: list[int] = []
        self._judge = judge
        self.links: list[tuple[str, str]] = []
        self.steps = [*start] or [self._open("/", None)]

    def __enter__(self) -> Walk:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes these fds before the block ends. The steps keep their names and keys."""
        while self._opened:
            posix.close(self._opened.pop())

    def go(self, path: str, *, beneath: bool = False) -> None:
        """Continues the walk to ``path`` as in path_resolution(7). Raises OSError, and what ``judge`` raises.

        With ``beneath`` the walk stays below the last step, as with RESOLVE_BENEATH of openat2(2): raises EscapeError
        for a link that is absolute, that leads above that step, or that is a link of procfs.
        """
        floor = len(self.steps) if beneath else 1
        # Each name with the number, from 1, of the link whose text contains it; 0 for a name of ``path``.
        names = [(name, 0) for name in path.split("/")[::-1]]
        while names:
            name, said = names.pop()
            top = self.steps[-1]
            if not modes.S_ISDIR(top.mode):
                raise OSError(errno.ENOTDIR, posix.strerror(errno.ENOTDIR), path)
            if name == ".." and len(self.steps) > floor:
                # Back to the folder that the walk came from: after a rename, the kernel's ".." may be another one.
                self.steps.pop()
            elif name == ".." and beneath:
                raise self._led_above(floor, said)
            if name in ("", ".", ".."):
                continue
            step = self._open(name, top.fd)
            if modes.S_ISLNK(step.mode):
                names += [(each, len(self.links)) for each in self._follow(step, floor if beneath else 0)[::-1]]
                continue
            self.steps.append(step)
            if self._judge is not None:
                self._judge(self.steps)

    def _open(self, name: str, folder: int | None, flags: int = HOLD) -> Held:
        try:
            # O_DIRECTORY triggers an automount point, which O_PATH alone does not, open(2).
            fd = posix.open(name, flags | posix.O_DIRECTORY, dir_fd=folder)
        except NotADirectoryError:
            fd = posix.open(name, flags, dir_fd=folder)
        self._opened.append(fd)
        return Held("" if folder is None else name, fd)

    def _led_above(self, floor: int, said: int) -> EscapeError:
        """The error for a path that leads above the first ``floor`` steps, by link number ``said``, counted from 1."""
        above = "/".join(step.name for step in self.steps[:floor]) or "/"
        at, text = self.links[said - 1] if said else ("..", "..")
        hint = "below the source, only relative links that stay inside are followed"
        return EscapeError(f"the link {at} to {text} leads out of the source {above}", hint=hint)

    def _follow(self, link: Held, floor: int) -> list[str]:
        """The names to continue with, from the last step. ``floor`` is as in ``_led_above``, 0 without a limit."""
        if len(self.links) == files.MAX_LINKS:
            raise OSError(errno.ELOOP, posix.strerror(errno.ELOOP), link.name)
        text = posix.readlink("", dir_fd=link.fd)
        at = "/".join([*(step.name for step in self.steps), link.name])
        self.links.append((at, text))
        is_magic = linux.fstatfs_type(link.fd) == linux.PROC_SUPER_MAGIC
        if floor and is_magic:
            problem = f"the link {at} to {text} is a link of procfs, which a subpath does not follow"
            raise EscapeError(problem, hint="use the path that it leads to")
        if floor and text.startswith("/"):
            raise self._led_above(floor, len(self.links))
        if is_magic:
            # A link of procfs may lead anywhere, regardless of its text: to the root of another mount namespace, or to
            # an open file. openat2(2) could identify these links, but no such path needs one.
            if self._judge is not None:
                self.steps = []
                self._judge(self.steps)
            self.steps = [self._open(link.name, self.steps[-1].fd, posix.O_PATH | posix.O_CLOEXEC)]
            self.steps[0].name = at
            return []
        if text.startswith("/"):
            self.steps = [self._open("/", None)]
        return text.split("/")

    def keep(self) -> list[Held]:
        """The steps, whose fds then stay open after the block."""
        kept = {step.fd for step in self.steps}
        self._opened = [fd for fd in self._opened if fd not in kept]
        return self.steps

    def take(self) -> int:
        """A new fd of the last step, which the caller closes."""
        return posix.dup(self.steps[-1].fd)


def open_beneath(fd: int, path: str, subpath: str) -> int:
    """An fd of ``subpath`` in the folder ``fd``, whose path is ``path``. Raises OSError, EscapeError."""
    with Walk([Held(path.rstrip("/"), fd)]) as walk:
        walk.go(subpath, beneath=True)
        return walk.take()


class Folder:
    """A folder that sources must not lead out of.

    ``steps`` lead from ``/`` to it and stay open as fds, so that a later change of ``path`` has no effect.
    """

    def __init__(self, steps: list[Held]) -> None:
        self.steps = steps
        self.path = "/".join(step.name for step in steps) or "/"

    @classmethod
    def at(cls, path: str) -> Folder:
        """The folder at a trusted path. Raises OSError."""
        with Walk() as walk:
            walk.go(f"{path}/")
            return cls(walk.keep())

    def holds(self, steps: Sequence[Held]) -> bool:
        """Whether a walk with these steps passes through this folder."""
        return any(step.key == self.steps[-1].key for step in steps)

    def is_on_the_way(self, steps: Sequence[Held]) -> bool:
        """Whether ``steps`` are on the way to this folder, or in it. Assumes that the steps before the last one are."""
        count = min(len(steps), len(self.steps))
        return count > 0 and steps[count - 1].key == self.steps[count - 1].key


class Allowed:
    """The folders of ``--allow-source``: annotations may name only sources below them.

    The author of an annotation must learn nothing about the host. So a source elsewhere is refused with the same
    message whether it exists or not. It is refused by its name, before any lookup, or at the first step outside of the
    folders, even if a later step would lead back. The folders are opened once, with the first source.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = paths
        self._found: dict[str, Folder | OSError] = {}

    def open(self, request: Request) -> int:
        """An fd of the source. Raises OSError if it cannot be opened in the folders, EscapeError if it is elsewhere."""
        folder, _, names = self.named(request, lambda name: name)
        with self.walk(folder, "/".join(names), request) as walk:
            return walk.take()

    def named(self, request: Request, written: Callable[[str], str]) -> tuple[Folder, str, list[str]]:
        """The allowed folder above a source, its path as the source writes it, and the names below it.

        ``written`` converts a name to the syntax of the source, such as a pattern. Raises the errors of ``open``.
        """
        names = [name for name in request.source.split("/") if name not in ("", ".")]
        # Links decide where ".." leads, so a path with ".." cannot be judged by its names.
        for path, folder in () if ".." in names else self._folders().items():
            for known in {path, folder.path} if isinstance(folder, Folder) else {path}:
                above = [written(name) for name in known.split("/") if name]
                if names[: len(above)] != above:
                    continue
                if isinstance(folder, OSError):
                    raise folder
                is_folder = request.source.endswith(("/", "/."))
                return folder, known, names[len(above) :] + [""] * is_folder
        raise _refused(request)

    def walk(self, folder: Folder, path: str, request: Request) -> Walk:
        """The walk from ``folder`` to ``path``, for a request. Raises the same errors as ``open``."""
        folders = [each for each in self._folders().values() if isinstance(each, Folder)]

        def judge(steps: Sequence[Held]) -> None:
            if not any(each.is_on_the_way(steps) for each in folders):
                raise _refused(request)

        walk = Walk(folder.steps, judge)
        failure: Exception | None = None
        try:
            walk.go(path)
        except (OSError, EscapeError) as reason:
            failure = reason
        # The judge also allows the folders above the allowed ones, for a link that leads back through them. The walk
        # must not end in one of these, and the error must not reveal what does not exist there.
        if not any(each.holds(walk.steps) for each in folders):
            failure = _refused(request)
        if failure is None:
            return walk
        walk.close()
        raise failure

    def _folders(self) -> dict[str, Folder | OSError]:
        """The folders by the path in ``--allow-source``, each opened once. Raises EscapeError."""
        found: dict[str, Folder | OSError] = {}
        for path in () if self._found else self._paths:
            try:
                check_unchangeable(path, "--allow-source")
                found[path] = Folder.at(path)
            except OSError as reason:
                found[path] = reason
        self._found = self._found or found
        return self._found


def check_unchangeable(path: str, where: str) -> None:
    """Raises EscapeError if other users can replace the folder of ``--allow-source``, OSError if it does not exist."""
    if above := files.changeable(path):
        raise EscapeError(
            f"other users can replace {path}, because they can write {above}",
            where=where,
            hint="use a folder whose parent folders only root or you can write",
        )


class Within:
    """Opens the matches of a pattern, which must be in its folder: the part before the first ``*``, ``?`` or ``[``.

    Those of an annotation must also be ``allowed``. ``above`` is the path of the folder, as the matches begin with it.
    """

    def __init__(self, pattern: Request, folder: Folder, above: str, allowed: Allowed | None = None) -> None:
        self._pattern = pattern
        self._folder = folder
        self._above = above
        self._allowed = allowed

    def open(self, match: Request) -> int:
        """An fd of a match. Raises OSError if it cannot be opened, EscapeError if it is elsewhere."""

        def judge(steps: Sequence[Held]) -> None:
            if not steps:
                raise self._led_out(match)

        path = match.source[len(self._above) :]
        if self._allowed is not None:
            walk = self._allowed.walk(self._folder, path, self._pattern)
        else:
            walk = Walk(self._folder.steps, judge)
        with walk:
            if self._allowed is None:
                walk.go(path)
            if not self._folder.holds(walk.steps):
                raise self._led_out(match)
            return walk.take()

    def _led_out(self, match: Request) -> EscapeError:
        hint = "" if self._allowed else "to allow this, set follow-links"
        return EscapeError(f"{match.source} leads out of {self._above}", where=match.at("source"), hint=hint)


def _refused(request: Request) -> EscapeError:
    problem = f"the source {request.source} is not below any --allow-source"
    return EscapeError(problem, where=request.at("source"), hint="after following links")
