# SPDX-License-Identifier: Apache-2.0
"""What is wrong with files in hooks.d and CDI folders, and the effects on engines."""

from __future__ import annotations

from ...documents import oci
from ..explain import registered
from . import hooks_d, launcher, runtimes, settings
from .cdi_file import VERSION, warnings_of_env
from .launcher import is_launcher
from .registration import of_hooks_d

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import Any

    from . import cdi

# The effects of a problem, the worst first.
REFUSES, FAILS, EXPOSES, SKIPS, WARNS = "refuses", "fails", "exposes", "skips", "warns"
EFFECTS = {
    REFUSES: "podman and CRI-O start no container",
    FAILS: "containers for which it is registered do not start",
    EXPOSES: "",
    SKIPS: "podman and CRI-O skip this file",
    WARNS: "",
}
CDI_EFFECTS = {
    **EFFECTS,
    REFUSES: "the engine crashes when it reads this file",
    FAILS: "containers that request it do not start",
    SKIPS: "engines skip this file, and containers that request its devices do not start",
}
_TURNED_OFF = {**EFFECTS, FAILS: "containers for which it is registered start without the binds"}
_LOST = {**EFFECTS, SKIPS: f"{EFFECTS[SKIPS]}, and start containers without the binds"}
SCHEMAS = {"1.0.0": "hooks-d", "0.1.0": "hooks-d-old"}
NO_TIMEOUT = "is missing: if the hook hangs, its container waits"
NO_POSTSTOP = "has no poststop: created mount points and the state file stay"
UNREAD = (
    "registers this hook, but is YAML, which is not checked here: engines may ignore it, or the hook's env may be "
    "empty (`explain` of a container with its device shows both)"
)


class Problem:
    """A problem at ``pointer`` in the file or folder ``path``, and which of ``effects`` it has."""

    def __init__(
        self, path: str, pointer: str, message: str, effect: str, effects: dict[str, str] | None = None
    ) -> None:
        self.path = path
        self.pointer = pointer
        self.message = message
        self.effect = effect
        self._effects = effects or EFFECTS

    @property
    def consequence(self) -> str:
        """The effect on engines or containers, "" for none."""
        return self._effects[self.effect]

    @property
    def text(self) -> str:
        """The message and the consequence."""
        return ": ".join(filter(None, (self.message, self.consequence)))

    def line(self) -> str:
        """Returns the problem as one line of text."""
        kind = "warning" if self.effect == WARNS else "problem"
        return ": ".join(filter(None, (kind, self.path, self.pointer, self.text)))


def of_hooks_folder(folder: hooks_d.Folder) -> Iterator[Problem]:
    """Yields problems with a hooks.d folder and with all files in it."""
    if folder.refusal and not folder.files:
        yield Problem(folder.path, "", folder.refusal, REFUSES)
    for one in folder.files:
        known = list(_of_hooks_file(one, folder))
        yield from known
        if one.document is not None and one.version in SCHEMAS:
            yield from _of_schema(one.path, one.document, SCHEMAS[one.version], known)


def of_program(path: str, pointer: str, program: str) -> Iterator[Problem]:
    """Yields the problem with the program of a hook, which a file names at a pointer."""
    if fault := launcher.fault(program):
        effects = _TURNED_OFF if launcher.is_turned_off(program) else None
        yield Problem(path, pointer, fault, FAILS, effects)


def _of_schema(path: str, document: Any, schema: str, known: Iterable[Problem]) -> Iterator[Problem]:
    """Yields warnings for violations of a schema at places without another problem."""
    places = {problem.pointer for problem in known}
    for pointer, message in oci.violations(document, schema):
        if pointer not in places:
            yield Problem(path, pointer, message, WARNS)


def _of_hooks_file(one: hooks_d.File, folder: hooks_d.Folder) -> Iterator[Problem]:
    for pointer, message in one.faults:
        if one.refusal is None or pointer != one.refusal.pointer:
            yield Problem(one.path, pointer, message, WARNS)
    if one.refusal is not None:
        effect = SKIPS if folder.hidden_by else REFUSES
        message = one.refusal.message
        if effect == SKIPS and not one.is_absent:
            message += f" (once {folder.hidden_by} is repaired, this file can keep all containers from starting)"
        is_lost = one.is_absent and of_hooks_d(one) is not None
        yield Problem(one.path, one.refusal.pointer, message, effect, _LOST if is_lost else None)
        return
    yield from of_program(one.path, one.hook_pointer, one.hook or "")
    yield from _of_stages(one)
    is_ours = of_hooks_d(one) is not None
    if one.version == "0.1.0":
        text = "has version 0.1.0, which gives the hook neither env nor timeout and matches annotations of any name"
        yield Problem(one.path, "", text, WARNS)
        if is_ours:
            yield _exposed(one.path, "/version", "has no env")
    else:
        yield from _of_members(one, is_ours=is_ours)


def _exposed(path: str, pointer: str, what: str = "the hook's env is missing or empty") -> Problem:
    return Problem(path, pointer, f"{what}: {registered.WHY_ENV} ({registered.ENV_HINT})", EXPOSES)


def _of_members(one: hooks_d.File, *, is_ours: bool) -> Iterator[Problem]:
    """Yields problems with a file of version 1.0.0."""
    if not one.env and is_ours:
        yield _exposed(one.path, "/hook/env")
    elif not one.env:
        yield Problem(one.path, "/hook/env", "is missing: some runtimes pass the image's variables to the hook", WARNS)
    if one.timeout is None:
        yield Problem(one.path, "/hook/timeout", NO_TIMEOUT, WARNS)
    for key, _ in one.annotations:
        if not is_anchored(key.text):
            text = f'"{key.text}" is not anchored: it matches every name that contains it (add ^ and $)'
            yield Problem(one.path, key.pointer, text, WARNS)


def _of_stages(one: hooks_d.File) -> Iterator[Problem]:
    if not one.stages:
        yield Problem(one.path, "/stages", "is empty: the hook is never called", WARNS)
    elif "poststop" not in one.stages and one.hook is not None and is_launcher(one.hook):
        yield Problem(one.path, "/stages", NO_POSTSTOP, WARNS)
    for index, stage in enumerate(one.stages):
        if stage in hooks_d.EXTENSIONS:
            text = f'only podman accepts "{stage}": CRI-O starts no container'
            yield Problem(one.path, f"/stages/{index}", text, WARNS)


def is_anchored(pattern: str) -> bool:
    r"""Whether a regular expression has a simple anchor at each end: ``^`` or ``\A``, and ``$`` or ``\z``."""
    starts = pattern.startswith(("^", r"\A"))
    ends = pattern.endswith((r"\z", "$")) and not pattern.endswith(r"\$")
    return starts and ends


# -- runtimes ----------------------------------------------------------------------------------------------------------


def of_runtimes(files: Iterable[runtimes.File]) -> Iterator[Problem]:
    """Yields problems with wrappers of runtimes, and with engines that name a wrapper that does not exist."""
    for file in files:
        for fault in map(launcher.fault, (file.path, file.runtime, file.entry["path"])):
            if fault:
                yield Problem(file.path, "", fault, FAILS)
        if runtimes.settings_of(file.runtime) is not None:
            yield Problem(file.path, "", f"{file.runtime}, the runtime behind it, is a wrapper as well", FAILS)
        if not file.entry.get("env"):
            yield _exposed(file.path, "")
        if "poststop" not in file.hooks:
            yield Problem(file.path, "", NO_POSTSTOP, WARNS)
    for path, wrapper in settings.dangling():
        yield Problem(path, "", f"names the runtime {wrapper}, which does not exist", FAILS)


# -- CDI ---------------------------------------------------------------------------------------------------------------


def of_cdi_folders(folders: Sequence[cdi.Folder]) -> Iterator[Problem]:
    """Yields problems with CDI folders. For files without this hook, only why engines ignore them."""
    ours = [device for folder in folders for file in folder.files for device in file.ours]
    for folder in folders:
        if folder.trouble:
            yield _of_cdi(folder.path, "", folder.trouble, WARNS)
        for file in folder.files:
            known = [*_of_cdi_file(file), *(each for device in file.ours for each in _of_device(device, ours))]
            yield from known
            if file.ours:
                yield from _of_schema(file.path, file.document, "cdi", known)


def _of_cdi(path: str, pointer: str, message: str, effect: str) -> Problem:
    return Problem(path, pointer, message, effect, CDI_EFFECTS)


def _of_cdi_file(file: cdi.File) -> Iterator[Problem]:
    if file.is_yaml and file.names_us:
        # Without this word, no hook has an env. With it, the env may be the container's, or the word may be in a path.
        yield Problem(file.path, "", UNREAD, WARNS) if "env" in file.text.lower() else _exposed(file.path, "")
    if file.ours:
        for pointer, message in file.faults:
            yield _of_cdi(file.path, pointer, message, WARNS)
    if (refusal := file.refusal) is not None:
        yield _of_cdi(file.path, refusal.pointer, refusal.message, REFUSES if refusal.is_fatal else SKIPS)
    elif file.ours and file.version.removeprefix("v") > VERSION:
        text = f'is "{file.version}", but podman 4 accepts at most {VERSION}'
        yield _of_cdi(file.path, "/cdiVersion", text, WARNS)


def _of_device(device: cdi.Device, others: Iterable[cdi.Device]) -> Iterator[Problem]:
    """Yields problems with a device that calls this hook."""
    path, place = device.file.path, device.pointer
    if device.conflicts:
        text = f"{device.qualified} is also in {', '.join(device.conflicts)}, so engines ignore it"
        yield _of_cdi(path, f"{place}/name", text, FAILS)
    elif device.replaced_by:
        yield _of_cdi(path, f"{place}/name", f"{device.qualified} is replaced by that of {device.replaced_by}", WARNS)
    for hook in device.ours:
        if fault := launcher.fault(hook.path):
            yield _of_cdi(path, f"{hook.pointer}/path", fault, FAILS)
        if not hook.env:
            yield _exposed(path, f"{hook.pointer}/env")
        if hook.timeout is None:
            yield _of_cdi(path, f"{hook.pointer}/timeout", NO_TIMEOUT, WARNS)
        if fault := registered.fault_of_stage(hook.stage):
            yield _of_cdi(path, f"{hook.pointer}/hookName", fault, FAILS)
    stages = {hook.stage for hook in device.ours}
    if "poststop" not in stages:
        yield _of_cdi(path, f"{place}/containerEdits/hooks", NO_POSTSTOP, WARNS)
    elif stages.isdisjoint(registered.SETTING_UP):
        text = "has only poststop: nothing is mounted"
        yield _of_cdi(path, f"{place}/containerEdits/hooks", text, WARNS)
    for text in warnings_of_env(device, others):
        yield _of_cdi(path, f"{place}/containerEdits/env", text, WARNS)
