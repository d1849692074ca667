# SPDX-License-Identifier: Apache-2.0
"""The mounts of config.json: which are the runtime's work alone, and which hide another one.

Loaded by every start of a container: it imports only what the walk does.
"""

from __future__ import annotations

from ..errors import EscapeError, HookError, RequestError
from ..kernel import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from ..record.state_file import NamespaceKind
    from ..requests.request import Request
    from ..rootfs.mount_points import Rootfs


def is_runtimes(request: Request, kind: NamespaceKind, rootfs: str) -> bool:
    """Whether a mount is the runtime's work alone: one of config.json, in a namespace of this kind.

    In any namespace it is if runtimes do something else than to bind, or do not agree where, in this ``rootfs``.
    """
    if not request.is_from_mounts:
        return False
    return kind == "container" or request.is_runtimes_alone or below_rootfs(rootfs, request.destination) != ""


def below_rootfs(rootfs: str, destination: str) -> str:
    """A destination without the rootfs's own path on the host, if it begins with that, else ""."""
    if len(destination) + 1 < len(rootfs):  # as nearly all are
        return ""
    path = lexical(destination)
    if path != rootfs and not path.startswith(f"{rootfs}/"):
        return ""
    return path[len(rootfs) :] or "/"


class Hiders:
    """What may hide a bind of config.json: the binds ``recorded``, and later mounts of config.json itself.

    They are found by the paths that they cover, so that each bind is compared with those above it only.
    """

    def __init__(self, rootfs: Rootfs, recorded: Sequence[str]) -> None:
        self._rootfs = rootfs
        self._recorded = recorded
        self._by_record = {path: number for number, path in reversed(list(enumerate(recorded)))}
        self._requests: list[Request] = []
        self._numbers: dict[Request, int] = {}
        # By path, the numbers of the requests that cover it, the first of them last. None until it is asked for.
        self._by_request: dict[str, list[int]] | None = None
        self._unknown: list[tuple[int, HookError]] = []

    def await_requests(self, requests: Sequence[Request]) -> None:
        """Takes notice of all requests, in their order."""
        self._requests = [request for request in requests if request.is_from_mounts and request.type != "remount"]
        self._numbers = {request: number for number, request in enumerate(self._requests)}

    def find(self, request: Request, paths: Iterable[str]) -> str | None:
        """The destination of the first mount later than ``request`` that covers one of ``paths``, None if none does.

        To be asked about one request after the other, in their order. Raises KernelError.
        """
        covering = {above for path in paths for above in (path, *upwards(path))}
        if recorded := [self._by_record[path] for path in covering if path in self._by_record]:
            return self._recorded[min(recorded)]
        here = self._numbers[request]
        if self._by_request is None:
            self._by_request = self._look_behind(here)
        first = len(self._requests)
        for path in covering:
            numbers = self._by_request.get(path, [])
            while numbers and numbers[-1] <= here:
                numbers.pop()
            if numbers:
                first = min(first, numbers[-1])
        while self._unknown and self._unknown[-1][0] <= here:
            self._unknown.pop()
        if self._unknown and self._unknown[-1][0] < first:
            raise self._unknown[-1][1]
        return self._requests[first].destination if first < len(self._requests) else None

    def _look_behind(self, here: int) -> dict[str, list[int]]:
        """The paths at which a runtime may have put the mounts behind ``here``: cleaned, and with links followed."""
        found: dict[str, list[int]] = {}
        for number in range(len(self._requests) - 1, here, -1):
            request = self._requests[number]
            paths = {lexical(request.destination), below_rootfs(self._rootfs.path, request.destination)} - {""}
            try:
                target = self._rootfs.resolve(request.destination, nofollow=request.nofollow)
            except (RequestError, EscapeError):
                pass  # the runtime cannot reach it either
            except HookError as problem:
                problem.where = problem.where or request.at("destination")
                self._unknown.append((number, problem))
            else:
                paths.add(target.path)
                target.close()
            for path in paths:
                found.setdefault(path, []).append(number)
        return found


def lexical(destination: str) -> str:
    """A destination cleaned of ``..``, ``.`` and double slashes, as runtimes do that clean paths lexically."""
    return files.clean_path("/" + destination.lstrip("/"))


def upwards(path: str) -> Iterator[str]:
    """A path and every folder above it but ``/``."""
    while path != "/":
        yield path
        path = path.rpartition("/")[0] or "/"
