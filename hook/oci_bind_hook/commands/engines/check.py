# SPDX-License-Identifier: Apache-2.0
"""hooks.d folders explained: what is wrong with them, what engines make of that, and which hooks a bundle gets."""

from __future__ import annotations

import json
import os

from ...documents import oci
from ...documents.bundle import read_regular
from ...documents.strictjson import documents
from ...errors import UsageError
from ...log import one_line, readable
from ...options import parse
from ..explain import registered
from . import cdi, hooks_d
from .install import is_launcher
from .timer import Timer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .hooks_d import Container, Folder, Registration

# What follows from a problem, the worst first.
REFUSES, FAILS, EXPOSES, SKIPS, WARNS = "refuses", "fails", "exposes", "skips", "warns"
EFFECTS = {
    REFUSES: "podman and CRI-O start no container",
    FAILS: "containers that it is for do not start",
    EXPOSES: "",
    SKIPS: "podman and CRI-O pass over this file",
    WARNS: "",
}
SCHEMAS = {"1.0.0": "hooks-d", "0.1.0": "hooks-d-old"}


class Problem:
    """A problem at ``pointer`` of the file or folder ``path``, and which of EFFECTS it has."""

    def __init__(self, path: str, pointer: str, message: str, effect: str) -> None:
        self.path = path
        self.pointer = pointer
        self.message = message
        self.effect = effect

    def line(self) -> str:
        """For a person."""
        kind = "warning" if self.effect == WARNS else "problem"
        return ": ".join(filter(None, (kind, self.path, self.pointer, self.message, EFFECTS[self.effect])))


class Check:
    """The findings in hooks.d folders, and for the container of ``bundle``, if one is given."""

    def __init__(self, paths: Iterable[str], bundle: str | None = None) -> None:
        self.bundle = bundle
        self.container = None if bundle is None else read_container(bundle)
        self.folders = hooks_d.read(paths)
        self.files = hooks_d.in_order(self.folders)
        found = [problem for folder in self.folders for problem in _of_folder(folder)]
        for path, pointer, is_certain in cdi.without_env(cdi.FOLDERS):
            found.append(_exposed(path, pointer) if is_certain else Problem(path, pointer, cdi.UNKNOWN, WARNS))
        self.timer = Timer()
        found += [Problem(self.timer.service, "", text, WARNS) for text in self.timer.warnings(self.roots)]
        self.problems = sorted(found, key=lambda problem: list(EFFECTS).index(problem.effect))

    @property
    def ours(self) -> list[Registration]:
        """The files that engines read and that register this hook."""
        return [one for one in self.files if one.is_used and _is_ours(one)]

    @property
    def roots(self) -> list[str | None]:
        """The ``--root`` of each registration of this hook, None for the default, each once."""
        found = []
        for one in self.ours:
            try:
                found.append(parse((one.args or [])[1:])[0].root)
            except UsageError:  # somebody has edited it, and the hook will say so
                pass
        return list(dict.fromkeys(found))

    @property
    def is_broken(self) -> bool:
        """Whether any problem is more than a warning."""
        return any(problem.effect != WARNS for problem in self.problems)

    def verdict(self, one: Registration) -> tuple[bool | None, str]:
        """Whether an engine calls this hook for the bundle, and why or why not. None: not known."""
        if one.refusal is not None:
            return False, f"it is not read: {one.refusal.message}"
        if one.replaced_by:
            return False, f"it is replaced by {one.replaced_by}"
        if not one.stages:
            return False, "it has no stages"
        if self.container is None:
            return None, "no bundle was named"
        return one.match(self.container)


def read_container(bundle: str) -> Container:
    """The container of a bundle's folder or config.json, as engines see it. Raises MissingError, DataError."""
    path = os.path.join(bundle, "config.json") if os.path.isdir(bundle) else bundle
    return hooks_d.Container(documents(read_regular(path), path)[0])


def _of_folder(folder: Folder) -> Iterator[Problem]:
    if folder.refusal and not folder.files:
        yield Problem(folder.path, "", folder.refusal, REFUSES)
    for one in folder.files:
        known = set()
        for problem in _of_file(one, folder):
            known.add(problem.pointer)
            yield problem
        if one.document is not None and one.version in SCHEMAS:
            for pointer, message in oci.violations(one.document, SCHEMAS[one.version]):
                if pointer not in known:
                    yield Problem(one.path, pointer, message, WARNS)


def _of_file(one: Registration, folder: Folder) -> Iterator[Problem]:
    for pointer, message in one.faults:
        if one.refusal is None or pointer != one.refusal.pointer:
            yield Problem(one.path, pointer, message, WARNS)
    if one.refusal is not None:
        effect = SKIPS if folder.hidden_by else REFUSES
        message = one.refusal.message
        if effect == SKIPS and not one.is_absent:
            message += f" (which nobody minds only because of what is wrong with {folder.hidden_by})"
        yield Problem(one.path, one.refusal.pointer, message, effect)
        return
    yield from _of_path(one)
    yield from _of_stages(one)
    if one.version == "0.1.0":
        text = "is of version 0.1.0, which gives the hook neither env nor timeout, and matches annotations of any name"
        yield Problem(one.path, "", text, WARNS)
        if _is_ours(one):
            yield _exposed(one.path, "/version", "has no env")
    else:
        yield from _of_members(one)


def _of_path(one: Registration) -> Iterator[Problem]:
    hook = one.hook or ""
    if not os.path.isabs(hook):
        yield Problem(one.path, one.hook_pointer, f'"{hook}" is not an absolute path', FAILS)
    elif not os.path.isfile(hook):
        yield Problem(one.path, one.hook_pointer, f"{hook} is no file", FAILS)
    elif not os.stat(hook).st_mode & 0o111:
        yield Problem(one.path, one.hook_pointer, f"{hook} is not executable", FAILS)
    elif (interpreter := _interpreter(hook)) and not os.path.isfile(interpreter):
        text = f"{interpreter}, which the first line of {hook} names, is not there: install again"
        yield Problem(one.path, one.hook_pointer, text, FAILS)


def _exposed(path: str, pointer: str, what: str = "the hook's env is missing or empty") -> Problem:
    return Problem(path, pointer, f"{what}: {registered.WHY_ENV} ({registered.ENV_HINT})", EXPOSES)


def _is_ours(one: Registration) -> bool:
    return one.hook is not None and (
        registered.is_ours({"path": one.hook, "args": one.args or []}) or is_launcher(one.hook)
    )


def _interpreter(path: str) -> str:
    """The interpreter of a script, from its #! line. Empty if the file is no script."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def _of_members(one: Registration) -> Iterator[Problem]:
    """Problems with a file of version 1.0.0."""
    if not one.env and _is_ours(one):
        yield _exposed(one.path, "/hook/env")
    elif not one.env:
        yield Problem(one.path, "/hook/env", "is missing: some runtimes hand the hook the image's own variables", WARNS)
    if one.timeout is None:
        yield Problem(one.path, "/hook/timeout", "is missing: a hook that hangs keeps its container waiting", WARNS)
    for key, _ in one.annotations:
        if not is_anchored(key.text):
            text = f'"{key.text}" is not anchored: it matches names that only contain it (^ before it, $ behind it)'
            yield Problem(one.path, key.pointer, text, WARNS)


def _of_stages(one: Registration) -> Iterator[Problem]:
    if not one.stages:
        yield Problem(one.path, "/stages", "is empty: nothing is ever called", WARNS)
    elif "poststop" not in one.stages and one.hook is not None and is_launcher(one.hook):
        text = "has no poststop: mount points that were made and the state file stay"
        yield Problem(one.path, "/stages", text, WARNS)
    for index, stage in enumerate(one.stages):
        if stage in hooks_d.EXTENSIONS:
            text = f'"{stage}" is known to podman only: CRI-O starts no container'
            yield Problem(one.path, f"/stages/{index}", text, WARNS)


def is_anchored(pattern: str) -> bool:
    r"""Whether a regular expression is held at both ends, in the plain way: by ``^`` or ``\A``, and ``$`` or ``\z``."""
    starts = pattern.startswith(("^", r"\A"))
    ends = pattern.endswith((r"\z", "$")) and not pattern.endswith(r"\$")
    return starts and ends


def as_json(check: Check) -> str:
    """The findings as one JSON document, schemas/hooks-check.json."""
    document = {
        "bundle": None if check.bundle is None else readable(check.bundle),
        "problems": [
            {
                "path": readable(problem.path),
                "pointer": readable(problem.pointer),
                "message": one_line(problem.message),
                "effect": problem.effect,
            }
            for problem in check.problems
        ],
        "folders": [
            {"path": readable(folder.path), "there": folder.is_there, "refused": bool(folder.refusal)}
            for folder in check.folders
        ],
        "hooks": [_hook(check, one) for one in check.files],
        "timer": None if not check.timer.is_there else _timer(check.timer),
    }
    return json.dumps(document, indent=2) + "\n"


def _hook(check: Check, one: Registration) -> dict[str, object]:
    matches, because = check.verdict(one)
    return {
        "path": readable(one.path),
        "hook": None if one.hook is None else readable(one.hook),
        "stages": [readable(stage) for stage in one.stages],
        "used": one.is_used,
        "matches": matches,
        "because": one_line(because),
    }


def _timer(timer: Timer) -> dict[str, object]:
    command = [readable(word) for word in timer.words]
    return {"path": readable(timer.timer), "command": command, "enabled": timer.is_enabled}


def as_text(check: Check) -> str:
    """The findings as text, problems first."""
    lines = [problem.line() for problem in check.problems]
    for folder in check.folders:
        if not folder.is_there:
            lines.append(f"folder {folder.path} is not there")
        elif folder.refusal and folder.files:
            lines.append(f"folder {folder.path} is refused for {folder.refusal}")
        elif not folder.files:
            lines.append(f"folder {folder.path} has no file that ends in .json")
        elif folder.path != hooks_d.FOLDERS[0]:
            lines.append(f"folder {folder.path} counts where the engine's hooks_dir names it")
    for one in check.files:
        matches, because = check.verdict(one)
        stages = ", ".join(one.stages)
        if matches:
            lines.append(f"hook {one.path} is called at {stages}: {because}")
        elif check.container is None and one.is_used and one.stages:
            lines.append(f"hook {one.path} is for {stages}")
        else:
            verb = "may be" if matches is None else "is not"
            lines.append(f"hook {one.path} {verb} called: {because}")
    if check.timer.is_there:
        lines.append(f"timer {check.timer.timer} calls {' '.join(check.timer.words)}")
    return "".join(one_line(line) + "\n" for line in lines)
