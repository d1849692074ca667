# SPDX-License-Identifier: Apache-2.0
"""Which registration asks for a recorded bind: the record has only the number of its ``--mount``."""

from __future__ import annotations

import fnmatch

from ...errors import HookError
from ...options import parse
from ...requests.mount_field import parse_mount
from ..engines import machine

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...record.state_file import MountRecord
    from ...requests.request import Request


class Requesters:
    """The registrations on this machine and what they ask for now, read when they are first needed."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[str, Request]]] | None = None

    def path(self, mount: MountRecord) -> str | None:
        """The file that asks for a recorded bind by the same ``--mount``. None if there is none, or more than one."""
        if mount["origin"] != "argument":
            return None
        if self._found is None:
            self._found = _read()
        paths = {path for path, request in self._found.get(mount["by"], ()) if _asks(request, mount)}
        return paths.pop() if len(paths) == 1 else None


def _read() -> dict[str, list[tuple[str, Request]]]:
    """For each place, such as ``--mount 1``, the files with a request there. What makes no sense is left out."""
    found: dict[str, list[tuple[str, Request]]] = {}
    for one in machine.everywhere():
        try:
            places = [(f"--mount {number}", text) for number, text in enumerate(parse(one.arguments)[0].mounts, 1)]
            requests = [parse_mount(text, place, place) for place, text in places]
        except HookError:
            continue
        for request in requests:
            found.setdefault(request.origin, []).append((one.path, request))
    return found


def _asks(request: Request, mount: MountRecord) -> bool:
    """Whether a request is the one of a recorded bind: by its paths, or of a pattern by what matches it."""
    requested = mount["requested"]
    source = str(requested["source"])
    if request.subpath != requested.get("subpath"):
        return False
    if request.is_glob:
        return fnmatch.fnmatchcase(source, request.source)
    return (request.source, request.absolute_destination) == (source, requested["destination"])
