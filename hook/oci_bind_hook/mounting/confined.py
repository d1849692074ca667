# SPDX-License-Identifier: Apache-2.0
"""Sources that must not lead out of a folder: those of annotations, the matches of a pattern, and what has a subpath.

A name in such a folder may be a link that somebody planted. So a source is walked to name by name, from the folder that
is held by fd, and what counts is where the walk has come to, not what a path says before or after.

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
    """A file or folder on the way of a walk, held by ``fd``. ``key`` tells it, as it is mounted there, from others."""

    __slots__ = ("fd", "key", "mode", "name")

    def __init__(self, name: str, fd: int) -> None:
        stat = files.statx(fd)
        self.name = name
        self.fd = fd
        self.mode = stat.mode
        self.key = (stat.mnt_id, stat.dev, stat.ino)


class Walk:
    """A walk to a path of the host. ``steps`` are what it has come through, from ``/`` on, also after an error.

    ``judge`` is called with the steps after each one, and raises if the walk may not come there. Without one the path
    is the administrator's. ``links`` are pairs (path, text) of the links that were followed. When the block ends, all
    fds are closed that were not there before or were not kept.
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
        """Closes those fds before the block ends. The steps still tell where the walk was."""
        while self._opened:
            posix.close(self._opened.pop())

    def go(self, path: str, *, beneath: bool = False) -> None:
        """Walks on to ``path``, as path_resolution(7) does. Raises OSError, and what ``judge`` raises.

        With ``beneath`` it stays below the last of the steps, as with RESOLVE_BENEATH of openat2(2): EscapeError for a
        link that is absolute, that leads above that step, or that is one of procfs.
        """
        floor = len(self.steps) if beneath else 1
        # Each name with the number of links that were followed before it stood there: the last of them says it.
        names = [(name, 0) for name in path.split("/")[::-1]]
        while names:
            name, said = names.pop()
            top = self.steps[-1]
            if not modes.S_ISDIR(top.mode):
                raise OSError(errno.ENOTDIR, posix.strerror(errno.ENOTDIR), path)
            if name == ".." and len(self.steps) > floor:
                # The folder that the walk came from: the kernel's ".." may be another one after a rename.
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
            # O_DIRECTORY: an automount point is mounted as for any other who comes by.
            fd = posix.open(name, flags | posix.O_DIRECTORY, dir_fd=folder)
        except NotADirectoryError:
            fd = posix.open(name, flags, dir_fd=folder)
        self._opened.append(fd)
        return Held("" if folder is None else name, fd)

    def _led_above(self, floor: int, said: int) -> EscapeError:
        """The error for what leads above the first ``floor`` steps: the link of that number, counted from 1."""
        above = "/".join(step.name for step in self.steps[:floor]) or "/"
        at, text = self.links[said - 1] if said else ("..", "..")
        hint = "below the source, only relative links that stay inside are followed"
        return EscapeError(f"the link {at} to {text} leads out of the source {above}", hint=hint)

    def _follow(self, link: Held, floor: int) -> list[str]:
        """The names to walk on with, from the last of the steps; ``floor`` as in ``_led_above``, 0 if there is none."""
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
            # A link of procfs may lead anywhere, whatever its text says: to the root of another mount namespace, to a
            # file that is open somewhere. openat2(2) could tell which ones do, but none has a use in such a path.
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
        """The steps, whose fds stay open."""
        kept = {step.fd for step in self.steps}
        self._opened = [fd for fd in self._opened if fd not in kept]
        return self.steps

    def take(self) -> int:
        """An fd of its own of what the walk has come to."""
        return posix.dup(self.steps[-1].fd)


def open_beneath(fd: int, path: str, subpath: str) -> int:
    """An fd of what ``subpath`` names in the folder ``fd``, which ``path`` has led to. Raises OSError, EscapeError."""
    with Walk([Held(path.rstrip("/"), fd)]) as walk:
        walk.go(subpath, beneath=True)
        return walk.take()


class Folder:
    """A folder that sources must not lead out of.

    ``steps``, from ``/`` to it, are held by fd, so that it does not matter what ``path`` names later.
    """

    def __init__(self, steps: list[Held]) -> None:
        self.steps = steps
        self.path = "/".join(step.name for step in steps) or "/"

    @classmethod
    def at(cls, path: str) -> Folder:
        """The folder at a path that the administrator names. Raises OSError."""
        with Walk() as walk:
            walk.go(f"{path}/")
            return cls(walk.keep())

    def holds(self, steps: Sequence[Held]) -> bool:
        """Whether a walk is in this folder."""
        return any(step.key == self.steps[-1].key for step in steps)

    def is_on_the_way(self, steps: Sequence[Held]) -> bool:
        """Whether the last of ``steps`` is one to this folder, or in it, like all before."""
        count = min(len(steps), len(self.steps))
        return count > 0 and steps[count - 1].key == self.steps[count - 1].key


class Allowed:
    """What ``--allow-source`` allows: the folders below which annotations may name sources.

    The author of an annotation must learn nothing about the host. So a source elsewhere is refused with the same words
    whether it exists or not: by its name, before it is looked up, and otherwise at the first step out of the folders,
    also where a later one would lead back. The folders are opened when the first source is asked for.
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
        """The folder that a source is named below, the path by which it is, and the names from there on.

        ``written`` is how the source writes a name of the folder. Raises as ``open`` does.
        """
        names = [name for name in request.source.split("/") if name not in ("", ".")]
        # Where ".." leads depends on links, so a path with one cannot be judged by its name.
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
        """The walk from a folder to ``path``, for a request. Raises as ``open`` does."""
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
        # The judge lets it pass the folders above, for a link that comes back by their names. It must not end there,
        # and what is missing there is not told.
        if not any(each.holds(walk.steps) for each in folders):
            failure = _refused(request)
        if failure is None:
            return walk
        walk.close()
        raise failure

    def _folders(self) -> dict[str, Folder | OSError]:
        """The folders by the names that they are given, each opened once. Raises EscapeError."""
        found: dict[str, Folder | OSError] = {}
        for path in () if self._found else self._paths:
            try:
                above = files.changeable(path)
                found[path] = Folder.at(path)
            except OSError as reason:
                found[path] = reason
                continue
            if above:
                raise EscapeError(
                    f"other users can replace {path}, because they can write {above}",
                    where="--allow-source",
                    hint="use a folder whose parent folders only root or you can write",
                )
        self._found = self._found or found
        return self._found


class Within:
    """What holds for the matches of a pattern: they are in its folder, the part before the first ``*``, ``?`` or ``[``.

    In an annotation they must be ``allowed`` besides. ``above`` is the folder's path in the names of the matches.
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
