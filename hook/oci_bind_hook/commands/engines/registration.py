# SPDX-License-Identifier: Apache-2.0
"""Registrations of this hook in hooks.d, in CDI or by a runtime. One type serves to list, replace and check them."""

from __future__ import annotations

import json
import os
import re
import shlex
from typing import TYPE_CHECKING

from ...documents.acceptor import head
from ...documents.bundle import read_regular
from ...documents.strictjson import documents
from ...errors import HookError, MissingError, UsageError
from ...log import one_line
from ...options import parse
from ..explain import registered
from ..json_text import json_text
from . import cdi, conditions, hooks_d, runtimes
from .launcher import NAME, is_launcher
from .written import is_taken

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from typing import Literal

    from ...options import Options

    Kind = Literal["hooks.d", "CDI", "runtime", "base spec"]

HOOKS_PATH = "share/containers/oci/hooks.d"  # below a prefix

# Prefixes of install: the default, that of packages, and that of an ordinary user.
PREFIXES = ("/usr/local", "/usr", "~/.local")

# The hooks.d folders that engines read: the first by default, the others if their hooks_dir names them.
HOOKS_FOLDERS = (hooks_d.FOLDERS[0], "/usr/local/share/containers/oci/hooks.d", hooks_d.FOLDERS[1])

KINDS: tuple[Kind, ...] = ("hooks.d", "CDI", "runtime", "base spec")

CDI_KIND = "oci-bind-hook.github.io/bind"

# The name of a registration or a CDI device. CDI's SPEC.md allows no colon in it, although engines accept one. The
# limit of 63 is that of Kubernetes, and leaves space in the name of a file.
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)


def checked_name(option: str, name: str) -> str:
    """Returns a valid name for a registration or a CDI device. Raises UsageError."""
    if not _NAME.fullmatch(name):
        hint = "use 1 to 63 letters and digits, with - _ and . in between"
        raise UsageError(f'"{name}" is not a valid name', where=option, hint=hint)
    return name


def file_name(name: str) -> str:
    """Returns the file name of a registration, in hooks.d and in CDI folders. "" is a registration without a name."""
    return f"{NAME}-{name}.json" if name else f"{NAME}.json"


class Registration:
    """A file of hooks.d, a device of a CDI file, or a wrapper of a runtime that calls this hook.

    ``name`` is the name that install got, "" for none; for a CDI device, that of the device, and ``device`` is the full
    name. ``arguments`` are those of the hook, ``conditions`` options of install with their values, ``env`` variables of
    the container, ``runtime`` the wrapped runtime. ``is_written``: install wrote the file, even if it has been edited
    since.
    """

    def __init__(
        self, kind: Kind, name: str, path: str, launcher: str, stages: Iterable[str], args: Sequence[str]
    ) -> None:
        self.kind: Kind = kind
        self.name = name
        self.path = path
        self.launcher = launcher
        self.stages = list(stages)
        self.arguments = list(args[1:])
        self.conditions: list[list[str]] = []
        self.device: str | None = None
        self.runtime: str | None = None
        self.env: list[str] = []
        self.is_written = args[:1] == [NAME] and os.path.basename(launcher) == NAME

    def summary(self) -> str:
        """Returns the registration in one line, in the words of install."""
        options = {"hooks.d": "--name", "CDI": "--cdi", "runtime": "--runtime"}
        words = [options[self.kind], self.name] if self.name and self.kind in options else []
        words += ["--oci-runtime", self.runtime] if self.runtime is not None else []
        words += [word for condition in self.conditions for word in condition]
        words += [word for variable in self.env for word in ("--env", variable)]
        words += ["--stages", ",".join(self.stages), *(["--"] if self.arguments else []), *self.arguments]
        return shlex.join(words)

    def document(self) -> dict[str, object]:
        """Returns the registration in the form of schemas/registrations.json, without ``unread``."""
        return {
            "kind": self.kind,
            "name": self.name or None,
            "device": self.device,
            "runtime": self.runtime,
            "path": self.path,
            "launcher": self.launcher,
            "stages": self.stages,
            "conditions": [" ".join(condition) for condition in self.conditions],
            "env": self.env,
            "arguments": self.arguments,
        }


def of_hooks_d(file: hooks_d.File) -> Registration | None:
    """Returns the registration in a hooks.d file, None if it is of another hook."""
    if file.hook is None:
        return None
    if not (registered.is_ours({"path": file.hook, "args": file.args or []}) or is_launcher(file.hook)):
        return None
    name = re.fullmatch(rf"{NAME}(?:-(.+))?\.json", file.name)
    one = Registration(
        "hooks.d", (name[1] or "") if name else file.name, file.path, file.hook, file.stages, file.args or []
    )
    one.conditions = list(conditions.as_options(file))
    return one


def of_device(device: cdi.Device) -> Registration | None:
    """Returns the registration in a device of a CDI file, None if it is of another hook."""
    hooks = device.ours
    if not hooks:
        return None
    stages = dict.fromkeys(hook.stage for hook in hooks)
    one = Registration("CDI", device.name, device.file.path, hooks[0].path, stages, hooks[0].args)
    one.device, one.env = device.qualified, device.env
    return one


def of_wrapper(file: runtimes.File) -> Registration | None:
    """Returns the registration in a wrapper, None if install did not write it."""
    if file.settings is None:
        return None
    name = os.path.basename(file.path).removeprefix(f"{NAME}-")
    one = Registration("runtime", name, file.path, file.entry["path"], file.hooks, file.entry["args"])
    one.runtime = file.runtime
    one.conditions = [["--annotation", f"{key}={value}"] for key, value in file.annotations.items()]
    return one


def of_base_spec(path: str, name: str) -> Registration | None:
    """Returns the registration in the base spec of containerd's runtime ``name``, None if it is of another hook."""
    try:
        entries = registered.find(documents(read_regular(path), path)[0])
    except HookError:
        return None
    if not entries:
        return None
    stages = dict.fromkeys(entry.stage for entry in entries)
    one = Registration("base spec", name, path, entries[0].path, stages, entries[0].args)
    one.is_written = False
    return one


def at(path: str, kind: Kind) -> Registration | None:
    """Returns the registration that install wrote into a file, None if it did not write the file."""
    if not is_taken(path):
        return None
    if kind == "hooks.d":
        found = [of_hooks_d(hooks_d.File(path))]
    elif kind == "runtime":
        found = [of_wrapper(runtimes.File(path))]
    else:
        found = [of_device(device) for device in cdi.File(path).devices]
    return next((one for one in found if one is not None and one.is_written), None)


def options_of(arguments: Sequence[str]) -> Options | None:
    """Returns the hook's options. None if they are invalid, because the file has been edited."""
    try:
        return parse([*arguments])[0]
    except UsageError:
        return None


def requests_binds(arguments: Sequence[str]) -> bool:
    """Whether the hook with these arguments binds anything, for all containers or for annotations."""
    options = options_of(arguments)
    return options is not None and bool(options.mounts or options.annotation_sources)


def roots(found: Iterable[Registration]) -> list[str | None]:
    """Returns the ``--root`` of these registrations, None for the default, each once."""
    given = (options_of(one.arguments) for one in found)
    return list(dict.fromkeys(options.root for options in given if options is not None))


def find(
    hooks_folders: Iterable[str], cdi_folders: Iterable[str], runtimes_folders: Iterable[str]
) -> list[Registration]:
    """Returns all registrations of this hook in these folders by kind and name, as far as they can be read."""
    files = [file for folder in map(hooks_d.Folder, dict.fromkeys(hooks_folders)) for file in folder.files]
    found = [one for file in files if (one := of_hooks_d(file)) is not None]
    folders = [cdi.Folder(path) for path in dict.fromkeys(cdi_folders)]
    devices = [device for folder in folders for file in folder.files for device in file.devices]
    found += [one for device in devices if (one := of_device(device)) is not None]
    found += [one for file in runtimes.find(runtimes_folders) if (one := of_wrapper(file)) is not None]
    return sorted(found, key=lambda one: (KINDS.index(one.kind), one.name, one.path))


def users(launcher: str, folders: Iterable[str]) -> Iterator[str]:
    """Yields the files in folders of hooks.d, CDI and runtimes that name a launcher, whatever else they contain."""
    spellings = {launcher, json.dumps(launcher)[1:-1], json.dumps(launcher, ensure_ascii=False)[1:-1]}
    for folder in dict.fromkeys(folders):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            if name.endswith((".json", ".yaml")) or folder.endswith(runtimes.RUNTIMES_PATH):
                try:
                    text = read_regular(path).decode(errors="replace")
                except MissingError:
                    continue
                if any(spelling in text for spelling in spellings):
                    yield path


def as_json(found: Iterable[Registration], unread: Mapping[str, str]) -> str:
    """Returns the registrations as one JSON document, schemas/registrations.json.

    ``unread`` has the files that no engine reads, each with the reason.
    """
    documents_of = [{**one.document(), "unread": unread.get(one.path)} for one in found]
    return json_text({**head("registrations"), "registrations": documents_of})


def as_text(found: Sequence[Registration], unread: Mapping[str, str]) -> str:
    """Returns a line for each registration, and its details below. ``unread``: as for ``as_json``."""
    lines: list[str] = []
    for one in found:
        name = one.device or one.name or "without a name"
        lines.append(f"{one.kind} {name}: {one.path}")
        lines += [f"  read by    no engine: {unread[one.path]}"] if one.path in unread else []
        lines += [f"  wraps      {one.runtime}"] if one.runtime is not None else []
        lines += [f"  calls      {one.launcher}", f"  at         {', '.join(one.stages)}"]
        lines += [f"  for        {shlex.join(condition)}" for condition in one.conditions]
        lines += [f"  sets       {variable}" for variable in one.env]
        lines.append(f"  gives it   {shlex.join(one.arguments) or 'nothing'}")
    return "".join(f"{one_line(line)}\n" for line in lines) or "nothing registers this hook\n"
