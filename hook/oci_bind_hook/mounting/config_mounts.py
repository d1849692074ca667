# SPDX-License-Identifier: Apache-2.0
"""The mounts of config.json: which of them only the runtime makes, and which hide another one.

Loaded by every start of a container: import only what rootfs.walk imports.
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
    """Whether only the runtime makes this mount: a mount of config.json, in a mount namespace of this ``kind``.

    In a namespace of any kind this is true if runtimes do not just bind it, or not at the same place in ``rootfs``.
    """
    if not request.is_from_mounts:
        return False
    return kind == "container" or request.is_runtimes_alone or below_rootfs(rootfs, request.destination) != ""


def below_rootfs(rootfs: str, destination: str) -> str:
    """The destination without the path of the rootfs on the host, "" if it does not begin with that path."""
    if len(destination) + 1 < len(rootfs):  # a short way for nearly all destinations
        return ""
    path = lexical(destination)
    if path != rootfs and not path.startswith(f"{rootfs}/"):
        return ""
    return path[len(rootfs) :] or "/"


class Hiders:
    """What may hide a bind of config.json: ``recorded`` binds, by destination, and later mounts of config.json.

    They are indexed by the path that they cover, so that each bind is compared only with those above it.
    """

    def __init__(self, rootfs: Rootfs, recorded: Sequence[str]) -> None:
        self._rootfs = rootfs
        self._recorded = recorded
        self._by_record = {path: number for number, path in reversed(list(enumerate(recorded)))}
        self._requests: list[Request] = []
        self._numbers: dict[Request, int] = {}
        # For each path the numbers of the requests that cover it, in descending order. None until the first ``find``.
        self._by_request: dict[str, list[int]] | None = None
        self._unknown: list[tuple[int, HookError]] = []

    def await_requests(self, requests: Sequence[Request]) -> None:
        """Registers all requests, in their order."""
        self._requests = [request for request in requests if request.is_from_mounts and request.type != "remount"]
        self._numbers = {request: number for number, request in enumerate(self._requests)}

    def find(self, request: Request, paths: Iterable[str]) -> str | None:
        """The destination of the first mount after ``request`` that covers one of ``paths``, None if none does.

        Call it for the requests in their order. Raises HookError if a later destination cannot be resolved.
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
        """Paths where a runtime may have made the mounts after number ``here``, cleaned and with links followed."""
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
    """The destination without ``..``, ``.`` and double slashes, as runtimes clean paths lexically."""
    return files.clean_path("/" + destination.lstrip("/"))


def upwards(path: str) -> Iterator[str]:
    """The path and every folder above it except ``/``."""
    while path != "/":
        yield path
        path = path.rpartition("/")[0] or "/"
