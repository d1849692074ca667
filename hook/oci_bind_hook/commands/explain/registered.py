# SPDX-License-Identifier: Apache-2.0
"""How a config.json registers this hook, and what is wrong with it (runtime-spec config.md, "POSIX-platform Hooks").

Pure and lenient: entries of the wrong shape are skipped here, because the schema reports them.
"""

from __future__ import annotations

from ...errors import RequestError, UsageError
from ...options import parse

NAME = "oci-bind-hook"
SETTING_UP = ("prestart", "createRuntime", "createContainer")
# The container runs at this stage. If a call fails, runc kills the container and crun continues.
LATE = "poststart"
_LOADED = ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH")
# The launcher cannot fix this: the loader ran before it, and Python has chosen its library. Empty is as bad as missing,
# since engines omit an empty env when they write config.json (`omitempty` in runtime-spec's specs-go).
WHY_ENV = (
    "some runtimes then pass the image's variables to the hook, so the image can run its code in the hook: the "
    "loader reads LD_PRELOAD, and python -I reads PYTHONEXECUTABLE"
)
ENV_HINT = 'set one variable, such as "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], as `install` does'

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any


class Entry:
    """One hook entry of ours: its ``place`` in config.json, ``stage``, program ``path``, arguments and environment.

    ``words`` are the arguments without args[0], which is a name.
    """

    def __init__(self, stage: str, number: int, entry: dict[str, Any]) -> None:
        self.stage = stage
        self.place = f"config.json: /hooks/{stage}/{number}"
        self.path = _text(entry.get("path"))
        self.args = texts(entry.get("args"))
        self.words = self.args[1:]
        self.env = texts(entry.get("env"))

    @property
    def environment(self) -> dict[str, str]:
        """The environment as the hook finds it: the first of several values counts."""
        return dict(variable.partition("=")[::2] for variable in reversed(self.env))

    @property
    def folder(self) -> tuple[str | None, str] | None:
        """What decides its state folder: --root, or else XDG_RUNTIME_DIR. None if its arguments are invalid."""
        try:
            root = parse([*self.words])[0].root
        except UsageError:
            return None
        return root, "" if root else self.environment.get("XDG_RUNTIME_DIR", "")

    @property
    def stage_argument(self) -> str | None:
        """The STAGE among its arguments. None without one, or if they are invalid."""
        try:
            return parse([*self.words])[0].stage
        except UsageError:
            return None


def find(document: object) -> list[Entry]:
    """Returns the entries of config.json's hooks that call this hook, recognised by path or args[0]."""
    found = []
    for stage, entries in members(members(document).get("hooks")).items():
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if is_ours(entry):
                found.append(Entry(stage, number, entry))
    return found


def is_ours(entry: object) -> bool:
    """Whether an entry of a hook (in config.json, hooks.d or CDI) calls this hook, recognised by path or args[0]."""
    names = [_text(members(entry).get("path")), *texts(members(entry).get("args"))[:1]]
    return any(name.rpartition("/")[2].startswith(NAME) for name in names)


def has_env(entry: object) -> bool:
    """Whether an entry of a hook has its own environment. With one, every runtime uses only that."""
    return bool(texts(members(entry).get("env")))


def problems(found: Sequence[Entry]) -> Iterator[RequestError]:
    """Yields what makes a registration unsafe, independent of a real run."""
    for entry in found:
        if not entry.env:
            yield RequestError(f"missing or empty: {WHY_ENV}", where=f"{entry.place}/env", hint=ENV_HINT)


def choose(found: Sequence[Entry], stage: str | None) -> Entry | None:
    """Returns the entry that sets up: the first at ``stage``, without a stage the first that a runtime calls."""
    for each in (stage,) if stage else SETTING_UP:
        for entry in found:
            if entry.stage == each:
                return entry
    return None


def chosen(found: Sequence[Entry], stage: str | None) -> list[Entry]:
    """Returns all entries that set up, or those at one stage, in the order in which a runtime calls them."""
    return [entry for each in ((stage,) if stage else SETTING_UP) for entry in found if entry.stage == each]


def warnings(found: Sequence[Entry], document: object, *, others_stop: bool = False) -> Iterator[str]:
    """Yields what will go wrong with a hook that is registered this way, one line each.

    ``others_stop``: the engine, not the runtime, calls poststop, which then need not be in config.json.
    """
    for entry in found:
        if fault := fault_of_stage(entry.stage):
            yield f"{entry.place}: {fault}"
        if entry.stage_argument not in (None, entry.stage):
            yield f"{entry.place}/args: the stage is {entry.stage_argument}, but the hook is called at {entry.stage}"
    stages = [entry.stage for entry in found]
    if any(stage in SETTING_UP for stage in stages) and "poststop" not in stages and not others_stop:
        yield "config.json: /hooks: poststop is not registered: mount points and state files would stay"
    if "poststop" in stages and not any(stage in SETTING_UP for stage in stages):
        yield "config.json: /hooks: only poststop is registered: nothing would be mounted"
    stopped = [entry.folder for entry in found if entry.stage == "poststop"]
    for entry in found if stopped and None not in stopped else ():
        if entry.stage in SETTING_UP and (folder := entry.folder) is not None and folder not in stopped:
            which = f"--root {folder[0]}" if folder[0] else "the default --root"
            if any(root is None for root, _ in filter(None, stopped)) and folder[0] is None:
                which += ", which depends on XDG_RUNTIME_DIR in its env,"
            yield f"{entry.place}/args: {which} is not that of poststop: mount points and state files would stay"
    for variable in texts(members(members(document).get("process")).get("env")):
        name = variable.partition("=")[0]
        if name in _LOADED:
            yield f"config.json: /process/env: {name}: a hook without its own env would load this as well"


def fault_of_stage(stage: str) -> str:
    """Returns why this hook is of no use at a stage, "" if it is of use."""
    if stage in (*SETTING_UP, "poststop"):
        return ""
    return f"at {stage} the hook can neither mount nor unmount anything"


def members(value: object) -> dict[str, Any]:
    """Returns an object's members, none for any other value."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    """Returns the strings of an array, none for any other value."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
