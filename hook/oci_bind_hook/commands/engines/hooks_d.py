# SPDX-License-Identifier: Apache-2.0
"""Reads hooks.d folders as engines do, oci-hooks(5): which files count, and for which containers.

This follows what podman and CRI-O do, even where the manual differs. Both use the same code (containers/common,
pkg/hooks), and a test compares this module with podman.
"""

from __future__ import annotations

import os

from ...documents.bundle import read_regular
from ...documents.strictjson import documents
from ...errors import DataError, MissingError
from . import re2
from .folders import STAGES, Listed
from .go_json import Refused, at, loads, typed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from .automaton import Automaton

# In the order of precedence: the last wins.
FOLDERS = ("/usr/share/containers/oci/hooks.d", "/etc/containers/oci/hooks.d")
EXTENSIONS = ("precreate",)  # in podman only

# What engines bind into every container. `hasBindMounts` does not count these.
OWN_BINDS = ("/dev/shm", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/run/.containerenv", "/run/secrets")

# The members with their types.
_CURRENT = {
    "version": str,
    "hook": {"path": str, "args": [str], "env": [str], "timeout": int},
    "when": {"always": bool, "annotations": {"": str}, "commands": [str], "hasBindMounts": bool},
    "stages": [str],
}
_OLD = {
    "version": str,
    "hook": str,
    **{name: [str] for name in ("arguments", "stages", "stage", "cmds", "cmd", "annotations", "annotation")},
    "hasbindmounts": bool,
}


class Container:
    """What engines match of a container: its annotations, its command, and whether it has bind mounts."""

    def __init__(self, document: Any) -> None:
        config = document if isinstance(document, dict) else {}
        process = config.get("process")
        self.annotations = {key: value for key, value in _members(config, "annotations") if isinstance(value, str)}
        self.has_process = isinstance(process, dict)
        args = process.get("args") if isinstance(process, dict) else None
        self.command = args[0] if isinstance(args, list) and args and isinstance(args[0], str) else None
        mounts = config.get("mounts")
        self.has_bind_mounts = any(map(_is_wanted_bind, mounts if isinstance(mounts, list) else ()))


def _members(document: dict[str, Any], name: str) -> Iterable[tuple[str, Any]]:
    value = document.get(name)
    return value.items() if isinstance(value, dict) else ()


def _is_wanted_bind(mount: Any) -> bool:
    if not isinstance(mount, dict) or mount.get("destination") in OWN_BINDS:
        return False
    options = mount.get("options")
    return mount.get("type") == "bind" or (isinstance(options, list) and ("bind" in options or "rbind" in options))


class File:
    """One file of a hooks.d folder. Members that the file does not have are None.

    ``refusal`` is why engines cannot use it. ``is_absent``: because its hook does not exist, which engines tolerate.
    Without a refusal it ``is_used``, unless it is ``replaced_by`` a file of the same name.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.name = os.path.basename(path)
        self.document: Any = None  # as read, before Go's rules apply
        self.faults: list[tuple[str, str]] = []  # places where JSON parsers differ
        self.refusal: Refused | None = None
        self.is_absent = False
        self.is_used = False
        self.replaced_by = ""
        self.version = ""
        self.hook: str | None = None
        self.args: list[str] | None = None
        self.env: list[str] | None = None
        self.timeout: int | None = None
        self.stages: list[str] = []
        self._has_stages = False
        self.always: bool | None = None
        self.has_bind_mounts: bool | None = None
        self.annotations: list[tuple[Pattern, Pattern]] = []
        self.commands: list[Pattern] = []
        try:
            self._read()
        except Refused as refusal:
            self.refusal = refusal

    @property
    def hook_pointer(self) -> str:
        return "/hook/path" if self.version == "1.0.0" else "/hook"

    def _read(self) -> None:
        self.document = self._load()
        version = typed(self.document, {"version": str}, "").get("version") or ""
        self.version = version or "0.1.0"
        if version == "1.0.0":
            self._read_current(typed(self.document, _CURRENT, ""))
        elif version in ("", "0.1.0"):
            self._read_old(typed(self.document, _OLD, ""))
        else:
            raise Refused("/version", f'is "{version}", but engines accept 1.0.0 and 0.1.0')
        self._judge()

    def _load(self) -> Any:
        try:
            data = read_regular(self.path)
        except MissingError as problem:
            raise Refused("", problem.problem) from None
        try:
            return documents(data, self.path)[0]
        except DataError as problem:
            self.faults = list(problem.violations)
        try:
            # Go's parser accepts more.
            return loads(data.decode(errors="replace"))
        except (ValueError, RecursionError):
            raise Refused(*self.faults[0]) from None

    def _read_current(self, found: dict[str, Any]) -> None:
        hook, when = found.get("hook") or {}, found.get("when") or {}
        self.hook = hook.get("path") or None
        self.args, self.env, self.timeout = hook.get("args"), hook.get("env"), hook.get("timeout")
        self.always, self.has_bind_mounts = when.get("always"), when.get("hasBindMounts")
        pairs = (when.get("annotations") or {}).items()
        self.annotations = [_annotation("/when/annotations", key, value) for key, value in pairs]
        commands = when.get("commands") or ()
        self.commands = [Pattern(text, f"/when/commands/{index}") for index, text in enumerate(commands)]
        self._take_stages(found.get("stages"))

    def _read_old(self, found: dict[str, Any]) -> None:
        self.hook = found.get("hook")
        if self.hook is None:
            raise Refused("/hook", "is missing")
        for one in ("stage", "cmd", "annotation"):
            if found.get(one) is not None and found.get(f"{one}s") is not None:
                raise Refused(f"/{one}", f"must not appear together with {one}s")
        self.hook = self.hook or None
        if (arguments := found.get("arguments")) is not None:
            self.args = [self.hook or "", *arguments]
        self.has_bind_mounts = found.get("hasbindmounts")
        if (values := self._either(found, "annotation")) is not None:
            self.annotations = [(Pattern(".*", ""), Pattern("|".join(values), "/annotations"))]
        commands = self._either(found, "cmd") or ()
        self.commands = [Pattern(text, f"/cmds/{index}") for index, text in enumerate(commands)]
        self._take_stages(self._either(found, "stage"))

    def _either(self, found: dict[str, Any], name: str) -> list[str] | None:
        values = found.get(f"{name}s")
        return found.get(name) if values is None else values

    def _take_stages(self, stages: list[str] | None) -> None:
        # As in engines, missing stages are only an error if there is no other.
        self._has_stages = stages is not None
        self.stages = stages or []

    def _judge(self) -> None:
        """Checks the file in the order of the engines."""
        if self.hook is None:
            raise Refused(self.hook_pointer, "is missing")
        try:
            os.stat(self.hook)
        except FileNotFoundError:
            self.is_absent = True
            raise Refused(self.hook_pointer, f"{self.hook} does not exist") from None
        except (OSError, ValueError) as reason:
            why = reason.strerror if isinstance(reason, OSError) else reason
            raise Refused(self.hook_pointer, f"{self.hook} cannot be inspected: {why}") from None
        for pattern in self.patterns():
            if pattern.invalid:
                raise Refused(pattern.pointer, f'"{pattern.text}" is not a regular expression of Go: {pattern.invalid}')
        if not self._has_stages:
            raise Refused("/stages", "is missing")
        for index, stage in enumerate(self.stages):
            if stage not in (*STAGES, *EXTENSIONS):
                raise Refused(f"/stages/{index}", f'"{stage}" is not a stage')

    def patterns(self) -> Iterator[Pattern]:
        for pair in self.annotations:
            yield from pair
        yield from self.commands

    def match(self, container: Container) -> tuple[bool | None, str]:
        """Returns whether the hook is for this container (None: not known here), and the reason."""
        if unknown := [each for each in self.patterns() if each.unknown]:
            return None, f'"{unknown[0].text}": {unknown[0].unknown}'
        return _match_any(self, container) if self.version == "0.1.0" else _match_all(self, container)


class Pattern:
    """A regular expression of a hooks.d file. ``invalid`` or ``unknown`` is why it cannot be used."""

    def __init__(self, text: str, pointer: str) -> None:
        self.text = text
        self.pointer = pointer
        self.invalid = self.unknown = ""
        self._compiled: Automaton | None = None
        try:
            self._compiled = re2.compile(text)
        except re2.InvalidError as reason:
            self.invalid = str(reason)
        except re2.UnknownError as reason:
            self.unknown = str(reason)

    def matches(self, text: str) -> bool:
        """Whether it matches anywhere in ``text``: engines do not anchor."""
        return self._compiled is not None and self._compiled.matches(text)


def _annotation(pointer: str, key: str, value: str) -> tuple[Pattern, Pattern]:
    place = at(pointer, key)
    return Pattern(key, place), Pattern(value, place)


def _match_all(one: File, container: Container) -> tuple[bool, str]:
    """Matches as version 1.0.0: all given conditions."""
    reasons = []
    if one.always is not None:
        if not one.always:
            return False, "always is false"
        reasons.append("always")
    if one.has_bind_mounts is not None:
        if not one.has_bind_mounts:
            return False, "hasBindMounts is false, so it matches no container"
        if not container.has_bind_mounts:
            return False, "the container has no bind mounts except those of the engine"
        reasons.append("the container has bind mounts")
    for key, value in one.annotations:
        is_match, reason = _match_annotation(key, value, container)
        if not is_match:
            return False, reason
        reasons.append(reason)
    if container.has_process and one.commands:
        return _match_command(one, container)
    if not reasons:
        return False, "it has no condition, so it matches no container"
    return True, " and ".join(reasons)


def _match_any(one: File, container: Container) -> tuple[bool, str]:
    """Matches as version 0.1.0: any condition. Engines check the command last, and its result replaces all others."""
    if one.has_bind_mounts and container.has_bind_mounts:
        return True, "the container has bind mounts"
    for key, value in one.annotations:
        is_match, reason = _match_annotation(key, value, container)
        if is_match:
            return True, reason
    if container.has_process and one.commands:
        return _match_command(one, container)
    return False, "none of its conditions matches"


def _match_annotation(key: Pattern, value: Pattern, container: Container) -> tuple[bool, str]:
    named = [each for each in container.annotations.items() if key.matches(each[0])]
    if not named:
        return False, f'no annotation has a name that matches "{key.text}"'
    for name, text in named:
        if value.matches(text):
            return True, f"the annotation {name}"
    return False, f'the annotation {named[0][0]} is "{named[0][1]}", which does not match "{value.text}"'


def _match_command(one: File, container: Container) -> tuple[bool, str]:
    if container.command is None:
        return False, "process.args is empty, and engines refuse the container"
    for pattern in one.commands:
        if pattern.matches(container.command):
            return True, f'the command {container.command} matches "{pattern.text}"'
    return False, f"the command {container.command} matches none of its commands"


class Folder(Listed):
    """One hooks.d folder. ``refusal`` is why it prevents engines from starting any container, "" if it does not."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.refusal = self.trouble
        self.hidden_by = ""  # the file whose error makes engines ignore the errors of later files
        paths = [os.path.join(path, name) for name in self.names if name.endswith(".json")]
        # Engines skip a dangling link.
        self.files = [File(each) for each in paths if os.path.exists(each)]
        # Engines collect all errors and only check the kind of the first.
        first = next((each for each in self.files if each.refusal is not None), None)
        if first is not None and first.is_absent:
            self.hidden_by = first.name
        elif first is not None and first.refusal is not None:
            self.refusal = f"{first.name}: {first.refusal}"


def read(paths: Iterable[str]) -> list[Folder]:
    """Returns the folders at ``paths``. Files of later folders replace those of earlier ones."""
    folders = [Folder(path) for path in paths]
    found: dict[str, File] = {}
    for each in (file for folder in folders for file in folder.files if file.refusal is None):
        if each.name in found:
            found[each.name].is_used = False
            found[each.name].replaced_by = each.path
        each.is_used = True
        found[each.name] = each
    return folders


def in_order(folders: Iterable[Folder]) -> list[File]:
    """Returns all files in the order in which engines call their hooks."""
    return sorted((file for folder in folders for file in folder.files), key=lambda one: (one.name.lower(), one.path))
