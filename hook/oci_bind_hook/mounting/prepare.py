# SPDX-License-Identifier: Apache-2.0
"""Opens the sources of all binds and clones them, in the way that this kernel has."""

from __future__ import annotations

import os

from ..errors import At, KernelError, MissingError, UnavailableError
from ..kernel import linux
from ..kernel.errnos import refused
from .by_mount_api import DetachedSource

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..kernel.proc import Namespace, Proc
    from ..requests.request import Request
    from .by_mount import ClassicSource, Staging
    from .source import Source

FDS_PER_BIND = 3  # the tree, its mount point, and a folder that a name is to be made in
FDS_BESIDES = 64


def expand(requests: Iterable[Request], bundle: str) -> list[Request]:
    """The requests, each pattern (glob(7)) replaced by one request per match, sorted by name.

    A match goes below the destination under its own name. MissingError if nothing matches, RequestError for a match
    that is not UTF-8, EscapeError for a pattern outside the allowed folders.
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
    """Raises the soft limit of open files to the hard one. UnavailableError if the binds need more than that."""
    limit = linux.raise_open_files()
    if binds * FDS_PER_BIND + mount_points + FDS_BESIDES > limit:
        points = f" with {mount_points} mount points to make" if mount_points else ""
        raise UnavailableError(
            f"{binds} binds{points} need more than the {limit} open files that are allowed",
            hint="raise the hard limit RLIMIT_NOFILE of the runtime",
        )


def open_sources(requests: Iterable[Request], bundle: str, namespace: Namespace) -> list[Source]:
    """The sources of all binds among ``requests``, held by fd. UnavailableError if there are not enough fds.

    A source that is missing or refused raises nothing here: it carries the error, since a condition may leave its
    bind out.
    """
    binds = [request for request in requests if request.is_bind]
    check_open_files(len(binds))
    if not binds:
        return []
    if linux.has_mount_api():
        return [DetachedSource(request, bundle, namespace) for request in binds]
    from .by_mount import open_classic

    return [open_classic(request, bundle, namespace) for request in binds]


def clone_sources(sources: Iterable[Source]) -> None:
    """Clones the sources by the mount API, before setns: open_tree(2) refuses mounts of another namespace."""
    for source in sources:
        if source.is_detached:
            _clone(source)


class Staged:
    """A context manager: within it the sources that mount(2) binds are cloned, in the container's namespace.

    ``make`` returns the path of the staging folder, ``remove`` removes it. HookError. With the mount API there is
    nothing to do.
    """

    def __init__(
        self, sources: Iterable[Source], make: Callable[[], str], remove: Callable[[], None], proc: Proc
    ) -> None:
        # Not by isinstance: naming the class would load its module on every kernel.
        self._sources: list[ClassicSource] = [
            source  # type: ignore[misc]
            for source in sources
            if not source.is_detached and source.error is None
        ]
        self._make = make
        self._remove = remove
        self._proc = proc
        self._staging: Staging | None = None

    def __enter__(self) -> Staged:
        if not self._sources:
            return self
        # open_sources has loaded the module: after setns nothing can be imported.
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
        """Removes the folder with whatever was not moved out of it. May be called again. HookError."""
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


def _clone(source: Source) -> None:
    """Clones one source. A failure to clone one of config.json counts only if the hook has to mount it."""
    if source.error is None:
        try:
            source.clone()
        except (KernelError, MissingError, UnavailableError) as problem:
            if not source.request.is_from_mounts:
                raise
            source.error = problem
