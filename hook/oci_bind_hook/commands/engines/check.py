# SPDX-License-Identifier: Apache-2.0
"""hooks.d folders, CDI folders and wrappers of runtimes: their problems, the effects on engines, and on a bundle.

The modules hooks_d and cdi implement how engines read the folders; problems has what is wrong with the files.
"""

from __future__ import annotations

import os

from ...documents.acceptor import head
from ...documents.bundle import read_regular
from ...documents.strictjson import documents
from ...log import one_line
from ..explain import registered
from ..json_text import json_text
from . import cdi, hooks_d, machine, problems, runtimes, settings, sources
from .conflicts import conflicts
from .problems import EFFECTS, WARNS, Problem
from .registration import of_device, of_hooks_d, of_wrapper, roots
from .timer import Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..explain.registered import Entry
    from .registration import Registration
    from .sources import SourceProblem


class Check:
    """The findings in hooks.d and CDI folders, and those for the container of ``bundle``, if given."""

    def __init__(
        self,
        hooks_folders: Iterable[str],
        bundle: str | None = None,
        cdi_folders: Iterable[str] | None = None,
        runtimes_folders: Iterable[str] | None = None,
    ) -> None:
        self.bundle = bundle
        self.container: hooks_d.Container | None = None
        self.entries: list[Entry] = []
        if bundle is not None:
            self.config = os.path.join(bundle, "config.json") if os.path.isdir(bundle) else bundle
            document = documents(read_regular(self.config), self.config)[0]
            self.container, self.entries = hooks_d.Container(document), registered.find(document)
        self.folders = hooks_d.read(hooks_folders)
        self.files = hooks_d.in_order(self.folders)
        self.cdi_folders = cdi.read(cdi.FOLDERS if cdi_folders is None else cdi_folders)
        self.devices = [device for device in cdi.devices_of(self.cdi_folders) if device.ours]
        self.runtimes = list(runtimes.find(runtimes.FOLDERS if runtimes_folders is None else runtimes_folders))
        found = [problem for folder in self.folders for problem in problems.of_hooks_folder(folder)]
        found += problems.of_cdi_folders(self.cdi_folders)
        found += problems.of_runtimes(self.runtimes)
        found += conflicts(self.ours)
        for problem in registered.problems(self.entries):
            found.append(Problem(self.config, _pointer(problem.where), problem.problem, problems.EXPOSES))
        # Of several entries with the same program, the first. Runtimes start containers without one for poststop.
        starting = [entry for entry in self.entries if entry.stage != "poststop"]
        for path, entry in {entry.path: entry for entry in reversed(starting)}.items():
            found += problems.of_program(self.config, _pointer(f"{entry.place}/path"), path)
        self.timer = Timer()
        found += [Problem(self.timer.service, "", text, WARNS) for text in self.timer.warnings(self.roots)]
        self.problems = _sorted(found)

    def judge_sources(self) -> list[SourceProblem]:
        """Adds the problems with the sources of these registrations, and returns them.

        A dry-run checks registrations as well, within its own time limit, and never calls this.
        """
        found = list(sources.problems(self.ours))
        self.problems = _sorted([*self.problems, *found])
        return found

    def judge_folders(self) -> None:
        """Adds a warning for each registration on this machine that no engine reads."""
        unread = machine.unread(machine.everywhere())
        self.problems += [Problem(path, "", f"no engine reads this file: {why}", WARNS) for path, why in unread.items()]

    @property
    def ours(self) -> list[Registration]:
        """The registrations of this hook that engines read."""
        found = [of_hooks_d(one) for one in self.files if one.is_used]
        found += [of_device(device) for device in self.devices if device.is_used]
        found += map(of_wrapper, self.runtimes)
        return [one for one in found if one is not None]

    @property
    def roots(self) -> list[str | None]:
        """The ``--root`` of each registration of this hook, None for the default, each once."""
        return roots(self.ours)

    @property
    def is_broken(self) -> bool:
        """Whether any problem is more than a warning."""
        return any(problem.effect != WARNS for problem in self.problems)

    def verdict(self, one: hooks_d.File) -> tuple[bool | None, str]:
        """Returns whether an engine calls this hook for the bundle (None: not known), and the reason."""
        if one.refusal is not None:
            return False, f"engines do not read it: {one.refusal}"
        if one.replaced_by:
            return False, f"it is replaced by {one.replaced_by}"
        if not one.stages:
            return False, "it has no stages"
        if self.container is None:
            return None, "no bundle was passed"
        return one.match(self.container)

    def verdict_of(self, device: cdi.Device) -> tuple[bool | None, str]:
        """As ``verdict``, for a CDI device. It depends on whether an engine has added its hooks to config.json."""
        if device.conflicts:
            return False, f"the same device is also in {', '.join(device.conflicts)}, so engines ignore it"
        if not device.is_used:
            return False, f"it is replaced by {device.replaced_by}"
        if self.container is None:
            return None, "no bundle was passed"
        if all(any(_is_of(entry, hook) for entry in self.entries) for hook in device.ours if hook.stage != "poststop"):
            return True, "config.json has its hooks"
        return False, "config.json does not have its hooks"

    def origin(self, entry: Entry) -> str:
        """Returns what added an entry to config.json, as far as it is known."""
        for device in self.devices:
            if device.is_used and any(_is_of(entry, hook) for hook in device.ours):
                return f"config.json registers it, for the CDI device {device.qualified}"
        for file in self.runtimes:
            if any((entry.path, entry.args) == (one["path"], one["args"]) for one in file.hooks.get(entry.stage, ())):
                return f"config.json registers it, as the runtime {file.path} does"
        for one in self.files:
            if one.is_used and entry.stage in one.stages and (entry.path, entry.args) == (one.hook, one.args or []):
                return f"config.json registers it, as {one.path} does"
        return "config.json registers it"


def _sorted(found: Iterable[Problem]) -> list[Problem]:
    return sorted(found, key=lambda problem: list(EFFECTS).index(problem.effect))


def _is_of(entry: Entry, hook: cdi.Hook) -> bool:
    return (entry.stage, entry.path, entry.args) == (hook.stage, hook.path, hook.args)


def _pointer(place: str) -> str:
    """Returns the pointer in a place such as ``config.json: /hooks/poststop/0``."""
    return place.partition(": ")[2]


def as_json(check: Check) -> str:
    """Returns the findings as one JSON document, schemas/hooks-check.json."""
    document = {
        **head("hooks-check"),
        "bundle": check.bundle,
        "problems": [
            {
                "path": problem.path,
                "pointer": problem.pointer,
                "message": one_line(problem.message),
                "effect": problem.effect,
            }
            for problem in check.problems
        ],
        "folders": [
            {"path": folder.path, "there": folder.is_there, "refused": bool(folder.refusal)} for folder in check.folders
        ],
        "cdiFolders": [{"path": folder.path, "there": folder.is_there} for folder in check.cdi_folders],
        "hooks": [_hook(check, one) for one in check.files],
        "devices": [_device(check, device) for device in check.devices],
        "runtimes": [
            {"path": file.path, "runtime": file.runtime, "stages": [*file.hooks], "named": _named(file)}
            for file in check.runtimes
        ],
        "registered": [
            {
                "pointer": _pointer(entry.place),
                "stage": entry.stage,
                "hook": entry.path,
                "because": one_line(check.origin(entry)),
            }
            for entry in check.entries
        ],
        "timer": None if not check.timer.is_there else _timer(check.timer),
    }
    return json_text(document)


def _hook(check: Check, one: hooks_d.File) -> dict[str, object]:
    matches, because = check.verdict(one)
    return {
        "path": one.path,
        "hook": one.hook,
        "stages": one.stages,
        "used": one.is_used,
        "matches": matches,
        "because": one_line(because),
    }


def _device(check: Check, device: cdi.Device) -> dict[str, object]:
    matches, because = check.verdict_of(device)
    return {
        "path": device.file.path,
        "device": device.qualified,
        "hook": device.ours[0].path,
        "stages": list(dict.fromkeys(hook.stage for hook in device.ours)),
        "used": device.is_used,
        "matches": matches,
        "because": one_line(because),
    }


def _named(file: runtimes.File) -> list[str]:
    """Returns the engines' files that name a wrapper."""
    return [each.file for each in settings.of("", file.path) if each.names_it()]


def _timer(timer: Timer) -> dict[str, object]:
    return {"path": timer.timer, "command": timer.words, "enabled": timer.is_enabled}


def as_text(check: Check) -> str:
    """Returns the findings as text, problems first."""
    lines = [problem.line() for problem in check.problems]
    hooks, devices = machine.named()
    for folder in check.folders:
        if not folder.is_there:
            lines.append(f"folder {folder.path} does not exist")
        elif folder.refusal and folder.files:
            lines.append(f"folder {folder.path} is refused because of {folder.refusal}")
        elif not folder.files:
            lines.append(f"folder {folder.path} has no file that ends in .json")
        elif folder.path not in (hooks_d.FOLDERS[0], *hooks):
            lines.append(f"folder {folder.path}: engines read it only if their hooks_dir lists it")
    for each in check.cdi_folders:
        if each.is_there and each.path not in (*cdi.FOLDERS, *devices):
            lines.append(f"folder {each.path}: engines read it only if their cdi_spec_dirs list it")
    for one in check.files:
        is_for = check.container is None and one.is_used and bool(one.stages)
        lines.append(_called(f"hook {one.path}", one.stages, check.verdict(one), is_for=is_for))
    for device in check.devices:
        name, stages = f"device {device.qualified} of {device.file.path}", [hook.stage for hook in device.ours]
        is_for = check.container is None and device.is_used
        lines.append(_called(name, list(dict.fromkeys(stages)), check.verdict_of(device), is_for=is_for))
    for file in check.runtimes:
        named = ", ".join(_named(file)) or "no engine's configuration (podman needs none)"
        lines.append(
            f"runtime {file.path} adds the hook at {', '.join(file.hooks)}, and calls {file.runtime}; named by {named}"
        )
    for entry in check.entries:
        lines.append(f"hook {entry.path} is called at {entry.stage}: {check.origin(entry)} ({_pointer(entry.place)})")
    if check.timer.is_there:
        lines.append(f"timer {check.timer.timer} calls {' '.join(check.timer.words)}")
    return "".join(one_line(line) + "\n" for line in lines)


def _called(what: str, stages: list[str], verdict: tuple[bool | None, str], *, is_for: bool) -> str:
    """Returns whether a hook is called for the bundle; without a bundle, at which stages it is called."""
    matches, because = verdict
    if matches:
        return f"{what} is called at {', '.join(stages)}: {because}"
    if is_for:
        return f"{what} is for {', '.join(stages)}"
    return f"{what} {'may be' if matches is None else 'is not'} called: {because}"
