# SPDX-License-Identifier: Apache-2.0
"""Finds the registration that requests a recorded bind, of which the record only has the number of its ``--mount``."""

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
    """The registrations on this machine and their current requests. They are read when first needed."""

    def __init__(self) -> None:
        self._found: dict[str, list[tuple[str, Request]]] | None = None

    def path(self, mount: MountRecord) -> str | None:
        """Returns the file that requests a recorded bind by the same ``--mount``. None if none or several do."""
        if mount["origin"] != "argument":
            return None
        if self._found is None:
            self._found = _read()
        paths = {path for path, request in self._found.get(mount["by"], ()) if _asks(request, mount)}
        return paths.pop() if len(paths) == 1 else None


def _read() -> dict[str, list[tuple[str, Request]]]:
    """Returns for each place, such as ``--mount 1``, the files with a request there. Invalid requests are skipped."""
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
    """Whether a request is that of a recorded bind, by its paths. A pattern has to match the recorded source."""
    requested = mount["requested"]
    source = str(requested["source"])
    if request.subpath != requested.get("subpath"):
        return False
    if request.is_glob:
        return fnmatch.fnmatchcase(source, request.source)
    return (request.source, request.absolute_destination) == (source, requested["destination"])
