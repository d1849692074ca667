# SPDX-License-Identifier: Apache-2.0
"""CDI folders as engines read them (Container Device Interface, SPEC.md, and the Go package that all engines use).

If a container requests a device, the engine adds the edits of the device, such as hooks, to config.json. The files are
JSON or YAML. This module reads JSON. Of YAML it only reports what needs no parser, since no package that the hook needs
contains one.
"""

from __future__ import annotations

import os

from ...documents.bundle import read_regular
from ...documents.strictjson import documents
from ...errors import DataError, MissingError
from ..explain import registered
from .folders import STAGES, Listed
from .go_json import Refused, at, loads, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

# The default folders in the specification. Devices in the last one replace those in the first.
FOLDERS = ("/etc/cdi", "/var/run/cdi")
VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0", "0.7.0", "0.8.0", "1.0.0", "1.1.0")

# The members with their types. Engines refuse a file with any other member.
_EDITS = {
    "env": [str],
    "deviceNodes": [
        {
            **dict.fromkeys(("path", "hostPath", "type", "permissions"), str),
            **dict.fromkeys(("major", "minor", "fileMode", "uid", "gid"), int),
        }
    ],
    "netDevices": [{"hostInterfaceName": str, "name": str}],
    "mounts": [{"hostPath": str, "containerPath": str, "type": str, "options": [str]}],
    "hooks": [{"hookName": str, "path": str, "args": [str], "env": [str], "timeout": int}],
    "intelRdt": {
        **dict.fromkeys(("closID", "l3CacheSchema", "memBwSchema"), str),
        "schemata": [str],
        **dict.fromkeys(("enableMonitoring", "enableCMT", "enableMBM"), bool),
    },
    "additionalGids": [int],
}
_FILE = {
    "cdiVersion": str,
    "kind": str,
    "annotations": {"": str},
    "devices": [{"name": str, "annotations": {"": str}, "containerEdits": _EDITS}],
    "containerEdits": _EDITS,
}
# The first version with each feature, as far as engines check it: a name in the edits, and in one of their entries.
_NEEDS = (
    ("1.1.0", "netDevices", ""),
    ("1.1.0", "intelRdt", "schemata"),
    ("1.1.0", "intelRdt", "enableMonitoring"),
    ("0.7.0", "intelRdt", ""),
    ("0.7.0", "additionalGids", ""),
    ("0.5.0", "deviceNodes", "hostPath"),
    ("0.4.0", "mounts", "type"),
)


class Hook:
    """A hook of a device: its place in the file, its ``stage``, and what config.json gets."""

    def __init__(self, pointer: str, entry: dict[str, Any]) -> None:
        self.pointer = pointer
        self.stage: str = entry.get("hookName", "")
        self.path: str = entry.get("path", "")
        self.args: list[str] = entry.get("args", [])
        self.env: list[str] = entry.get("env", [])
        self.timeout: int | None = entry.get("timeout")
        self.is_ours = registered.is_ours(entry)


class Device:
    """A device of a file: ``qualified`` is its full name, ``hooks`` and ``env`` are added to its containers.

    It ``is_used`` unless files of one folder ``conflict`` in it, or a file of a later folder replaces it.
    """

    def __init__(self, file: File, pointer: str, name: str) -> None:
        self.file = file
        self.pointer = pointer
        self.name = name
        self.qualified = f"{file.kind}={name}"
        self.hooks: list[Hook] = []
        self.env: list[str] = []
        self.is_used = False
        self.replaced_by = ""
        self.conflicts: list[str] = []

    @property
    def ours(self) -> list[Hook]:
        """Its hooks that are this hook."""
        return [hook for hook in self.hooks if hook.is_ours]

    def take(self, pointer: str, edits: dict[str, Any]) -> None:
        """Adds the edits at a place in the file."""
        hooks = edits.get("hooks", [])
        self.hooks += [Hook(f"{pointer}/hooks/{number}", entry) for number, entry in enumerate(hooks)]
        self.env += edits.get("env", [])


class File:
    """One CDI file. ``refusal`` is why engines ignore it. ``is_yaml``: it is YAML, which is not read here."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.text = ""
        self.document: Any = None  # as read, before Go's rules apply
        self.faults: list[tuple[str, str]] = []  # places where JSON parsers differ
        self.refusal: Refused | None = None
        self.is_yaml = False
        self.version = self.kind = ""
        self.devices: list[Device] = []
        try:
            self._read()
        except Refused as refusal:
            self.refusal = refusal

    @property
    def ours(self) -> list[Device]:
        """Its devices that call this hook."""
        return [device for device in self.devices if device.ours]

    @property
    def names_us(self) -> bool:
        """Whether the text contains the name of this hook."""
        return registered.NAME in self.text

    def _read(self) -> None:
        try:
            data = read_regular(self.path)
        except MissingError as problem:
            raise Refused("", problem.problem) from None
        self.text = data.decode(errors="replace")
        try:
            self.document = documents(data, self.path)[0]
        except DataError as problem:
            self.faults = list(problem.violations)
            try:
                self.document = loads(self.text)
            except (ValueError, RecursionError):
                self.is_yaml = True
                return
        if os.path.splitext(self.path)[1] == ".yaml" and not isinstance(self.document, dict):
            self.is_yaml = True
            return
        self._judge(typed(self.document, _FILE, "", is_strict=True))

    def _judge(self, found: dict[str, Any]) -> None:
        """Checks the file in the order of the engines."""
        self.version, self.kind = found.get("cdiVersion", ""), found.get("kind", "")
        devices, shared = found.get("devices", []), found.get("containerEdits", {})
        for number, each in enumerate(devices):
            pointer = f"/devices/{number}"
            device = Device(self, pointer, each.get("name", ""))
            # In the order in which engines add them to config.json.
            device.take("/containerEdits", shared)
            device.take(f"{pointer}/containerEdits", each.get("containerEdits", {}))
            self.devices.append(device)
        if self.version.removeprefix("v") not in VERSIONS:
            raise Refused("/cdiVersion", f'is "{self.version}", but engines accept {VERSIONS[0]} to {VERSIONS[-1]}')
        self._check_version(found)
        self._check_kind()
        _check_edits("/containerEdits", shared)
        names: set[str] = set()
        for device, each in zip(self.devices, devices, strict=True):
            if fault := _fault_of(device.name, dots=".:"):
                raise Refused(f"{device.pointer}/name", f'"{device.name}" {fault}')
            edits = each.get("containerEdits", {})
            if not any(edits.values()):
                raise Refused(f"{device.pointer}/containerEdits", "is missing or empty")
            _check_edits(f"{device.pointer}/containerEdits", edits)
            if device.name in names:
                raise Refused(f"{device.pointer}/name", f'"{device.name}" appears twice')
            names.add(device.name)
        if not devices:
            raise Refused("/devices", "is missing or empty")

    def _check_version(self, found: dict[str, Any]) -> None:
        """Raises Refused if the file uses what its version does not have."""
        mine = VERSIONS.index(self.version.removeprefix("v"))
        for least, pointer in _needed(found):
            if VERSIONS.index(least) > mine:
                raise Refused("/cdiVersion", f'is "{self.version}", but {pointer} requires {least}')

    def _check_kind(self) -> None:
        vendor, slash, device_class = self.kind.partition("/")
        if not (vendor and slash and device_class):
            raise Refused("/kind", f'"{self.kind}" is not VENDOR/CLASS')
        for what, name in (("vendor", vendor), ("class", device_class)):
            if len(name) == 1 and name.isascii() and name.isalpha():
                raise Refused("/kind", f'the {what} "{name}" has one letter, which makes docker crash', is_fatal=True)
            if fault := _fault_of(name, dots=".") or ("" if name[0].isalpha() else "must start with a letter"):
                raise Refused("/kind", f'the {what} "{name}" {fault}')


def _needed(found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the minimum versions that a file needs, each with the place that needs it."""
    if found.get("annotations"):
        yield "0.6.0", "/annotations"
    if "." in found.get("kind", "").partition("/")[2]:
        yield "0.6.0", "the dot in the class of /kind"
    places = {"/containerEdits": found.get("containerEdits", {})}
    for number, device in enumerate(found.get("devices", [])):
        if device.get("annotations"):
            yield "0.6.0", f"/devices/{number}/annotations"
        if device.get("name", "")[:1].isdigit():
            yield "0.5.0", f"the digit at the start of /devices/{number}/name"
        places[f"/devices/{number}/containerEdits"] = device.get("containerEdits", {})
    for pointer, edits in places.items():
        for least, name, inner in _NEEDS:
            value = edits.get(name)
            entries = value if isinstance(value, list) else [value or {}]
            if value and (not inner or any(entry.get(inner) for entry in entries)):
                yield least, "/".join(filter(None, (pointer, name, inner)))


def _fault_of(name: str, dots: str) -> str:
    """Returns why a name is invalid, "" if it has letters and digits, with ``-``, ``_`` and ``dots`` in between."""
    if not name:
        return "is empty"
    if not all(each.isascii() and (each.isalnum() or each in f"-_{dots}") for each in name):
        return f"may only contain letters, digits, -, _ and {' and '.join(dots)}"
    if not (name[0].isalnum() and name[-1].isalnum()):
        return "must start and end with a letter or digit"
    return ""


def _check_edits(pointer: str, edits: dict[str, Any]) -> None:
    """Raises Refused if engines refuse the edits at ``pointer``."""
    _check_env(f"{pointer}/env", edits.get("env", []))
    for number, node in enumerate(edits.get("deviceNodes", [])):
        place = f"{pointer}/deviceNodes/{number}"
        _check_there(place, node, "path")
        if node.get("type", "") not in ("", "b", "c", "u", "p"):
            raise Refused(f"{place}/type", f'"{node["type"]}" is not b, c, u or p')
        if node.get("permissions") != "none" and not set(node.get("permissions", "")) <= set("rwm"):
            raise Refused(f"{place}/permissions", f'"{node["permissions"]}" is neither "none" nor made of r, w and m')
    for number, hook in enumerate(edits.get("hooks", [])):
        place = f"{pointer}/hooks/{number}"
        if hook.get("hookName") not in STAGES:
            raise Refused(f"{place}/hookName", f'"{hook.get("hookName", "")}" is not one of {", ".join(STAGES)}')
        _check_there(place, hook, "path")
        _check_env(f"{place}/env", hook.get("env", []))
    for name, members in (("mounts", ("hostPath", "containerPath")), ("netDevices", ("hostInterfaceName", "name"))):
        for number, entry in enumerate(edits.get(name, [])):
            for member in members:
                _check_there(f"{pointer}/{name}/{number}", entry, member)


def _check_there(pointer: str, entry: dict[str, Any], member: str) -> None:
    if not entry.get(member):
        raise Refused(at(pointer, member), "is missing or empty")


def _check_env(pointer: str, env: list[str]) -> None:
    for number, variable in enumerate(env):
        if variable.find("=") <= 0:
            raise Refused(f"{pointer}/{number}", f'"{variable}" is not NAME=VALUE')


class Folder(Listed):
    """One CDI folder."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        names = [name for name in self.names if os.path.splitext(name)[1] in (".json", ".yaml")]
        self.files = [File(each) for each in (os.path.join(path, name) for name in names) if not os.path.isdir(each)]

    @property
    def unread(self) -> list[File]:
        """The files that are not read: YAML."""
        return [file for file in self.files if file.is_yaml]


def read(paths: Iterable[str]) -> list[Folder]:
    """Returns the folders at ``paths``. Devices of later folders replace those of earlier ones."""
    folders = [Folder(path) for path in paths]
    found: dict[str, tuple[int, Device]] = {}
    for number, folder in enumerate(folders):
        for device in (device for file in folder.files if file.refusal is None for device in file.devices):
            before, other = found.get(device.qualified, (-1, device))
            if before == number:
                other.conflicts.append(device.file.path)
                device.conflicts.append(other.file.path)
                continue
            if before >= 0:
                other.replaced_by = device.file.path
            found[device.qualified] = number, device
    # A device that conflicts within one folder does not exist, even if a later folder has it.
    refused = {device.qualified for device in devices_of(folders) if device.conflicts}
    for name, (_, device) in found.items():
        device.is_used = name not in refused
    return folders


def devices_of(folders: Iterable[Folder]) -> list[Device]:
    """Returns all devices of files that engines accept, sorted by name."""
    files = (file for folder in folders for file in folder.files if file.refusal is None)
    return sorted((device for file in files for device in file.devices), key=lambda one: (one.qualified, one.file.path))
