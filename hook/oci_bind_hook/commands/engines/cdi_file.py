# SPDX-License-Identifier: Apache-2.0
"""CDI files that install writes: one device each. Containers with the device get this hook (CDI, SPEC.md)."""

from __future__ import annotations

import os

from ...errors import UsageError
from ..json_text import written
from . import cdi
from .launcher import hook_entry
from .registration import CDI_KIND, checked_name, file_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .registration import Kind

# A version that every engine accepts: podman 4 refuses later ones, podman 5 those before 0.3.0.
VERSION = "0.5.0"

_LOADER = "LD_"


class Devices:
    """The devices ``names``, each with a file in ``folder``. Their containers get the variables ``env``.

    Raises UsageError for values that are invalid or that some engine refuses.
    """

    kind: Kind = "CDI"
    mode = 0o644

    def __init__(self, names: Sequence[str], folder: str | None = None, env: Sequence[str] = ()) -> None:
        if folder == "":
            raise UsageError("the folder is empty", where="--cdi-dir")
        self.names = [checked_name("--cdi", name) for name in dict.fromkeys(names)]
        self.folder = os.path.abspath(cdi.FOLDERS[0] if folder is None else folder)
        self.env = list(env)
        keys: set[str] = set()
        for variable in env:
            key, equals, _ = variable.partition("=")
            if not key or not equals or "\0" in variable:
                raise UsageError(f"{variable!r} is not KEY=VALUE", where="--env")
            if key in keys:
                raise UsageError(f"{key} is set twice", where="--env")
            keys.add(key)

    @property
    def paths(self) -> list[str]:
        """The files, in the order of ``names``."""
        return [os.path.join(self.folder, file_name(name)) for name in self.names]

    @property
    def uses(self) -> Iterator[str]:
        """Yields the beginnings of the commands that start a container with one of the devices."""
        for engine in ("docker", "podman"):
            for name in self.names:
                yield f"{engine} run --device {CDI_KIND}={name} ..."

    def texts(self, launcher: str, stages: Sequence[str], arguments: Sequence[str]) -> list[str]:
        """Returns the contents of the files. Raises UsageError for text that JSON cannot contain."""
        return [written(self._document(name, launcher, stages, arguments)) for name in self.names]

    def _document(self, name: str, launcher: str, stages: Sequence[str], arguments: Sequence[str]) -> object:
        hooks = [{"hookName": stage, **hook_entry(launcher, arguments)} for stage in dict.fromkeys(stages)]
        edits = {**({"env": self.env} if self.env else {}), "hooks": hooks}
        return {"cdiVersion": VERSION, "kind": CDI_KIND, "devices": [{"name": name, "containerEdits": edits}]}


def warnings_of_env(device: cdi.Device, others: Iterable[cdi.Device]) -> Iterator[str]:
    """Yields warnings about the variables of a device. ``others`` are the other devices with this hook."""
    values = dict(variable.partition("=")[::2] for variable in device.env)
    for key in values:
        if key.startswith(_LOADER) or key == "PATH":
            yield f"sets {key}, which replaces the image's value"
    for other in others:
        theirs = dict(variable.partition("=")[::2] for variable in other.env)
        for key in (key for key in values if theirs.get(key, values[key]) != values[key]):
            both = f"{device.qualified} and {other.qualified}"
            yield f"sets {key} to a different value than {other.file.path}: a container with {both} gets one value"
