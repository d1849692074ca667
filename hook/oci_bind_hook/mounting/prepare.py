# SPDX-License-Identifier: Apache-2.0
"""The sources of all binds, opened and made ready in the way that this kernel has."""

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
    if not binds:
        return []
    if linux.has_mount_api():
        return [DetachedSource(request, bundle, namespace) for request in binds]
    from .by_mount import open_classic

    return [open_classic(request, bundle, namespace) for request in binds]


def clone_sources(sources: Iterable[Source]) -> None:
    """Clones every source that can be while we are in its namespace: from another one the kernel refuses it."""
    for source in sources:
        if source.is_detached:
            _clone(source)


class Staged:
    """While it lasts, the sources that have to be made ready in the container's namespace are so.

    ``make`` gives the path of a folder for that, ``remove`` takes it away. HookError.
    """

    def __init__(
        self, sources: Iterable[Source], make: Callable[[], str], remove: Callable[[], None], proc: Proc
    ) -> None:
        # Only those of the other kind are not detached; to ask for their class would load it on every kernel.
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
        # Loaded already, by those who opened such sources: here nothing can be imported any more.
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
        """Takes away the folder, and what was not moved out of it, unless that is done already. HookError."""
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
    """Makes one source ready. For one of config.json it is an error only if the hook has to mount it, that it fails."""
    if source.error is None:
        try:
            source.clone()
        except (KernelError, MissingError, UnavailableError) as problem:
            if not source.request.is_from_mounts:
                raise
            source.error = problem
