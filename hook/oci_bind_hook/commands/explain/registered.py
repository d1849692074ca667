# SPDX-License-Identifier: Apache-2.0
"""How a config.json registers this hook, and what is wrong with that (runtime-spec config.md, "POSIX-platform Hooks").

Pure, and lenient: entries of the wrong shape are skipped here. The schema reports them.
"""

from __future__ import annotations

from ...errors import RequestError, UsageError
from ...options import parse

NAME = "oci-bind-hook"
SETTING_UP = ("prestart", "createRuntime", "createContainer")
# The container runs then: runc gives it up if a call fails, and crun goes on.
LATE = "poststart"
_LOADED = ("LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH")
# The launcher cannot mend it: the loader has run before it, and Python has chosen its library. Empty is as bad as
# missing, since engines that write it into config.json leave it out (`omitempty` of runtime-spec's specs-go).
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

    ``words`` are the arguments without the first, which is a name.
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
        """Its environment as the hook finds it, in which the first of several values counts."""
        return dict(variable.partition("=")[::2] for variable in reversed(self.env))

    @property
    def folder(self) -> tuple[str | None, str] | None:
        """What decides its state folder, --root or else XDG_RUNTIME_DIR; None if nobody understands its words."""
        try:
            root = parse([*self.words])[0].root
        except UsageError:
            return None
        return root, "" if root else self.environment.get("XDG_RUNTIME_DIR", "")

    @property
    def said(self) -> str | None:
        """The STAGE among its words; None without one, or if nobody understands them."""
        try:
            return parse([*self.words])[0].stage
        except UsageError:
            return None


def find(document: object) -> list[Entry]:
    """The entries of config.json's hooks that call this hook, recognised by the program's path or its args[0]."""
    found = []
    for stage, entries in members(members(document).get("hooks")).items():
        for number, entry in enumerate(entries if isinstance(entries, list) else ()):
            if is_ours(entry):
                found.append(Entry(stage, number, entry))
    return found


def is_ours(entry: object) -> bool:
    """Whether a hook's entry (in config.json, in hooks.d, in CDI) calls this hook, by its path or its args[0]."""
    names = [_text(members(entry).get("path")), *texts(members(entry).get("args"))[:1]]
    return any(name.rpartition("/")[2].startswith(NAME) for name in names)


def has_env(entry: object) -> bool:
    """Whether a hook's entry has an environment of its own, with which no runtime uses another one."""
    return bool(texts(members(entry).get("env")))


def problems(found: Sequence[Entry]) -> Iterator[RequestError]:
    """What makes a registration unsafe, whatever a real run does."""
    for entry in found:
        if not entry.env:
            yield RequestError(f"missing or empty: {WHY_ENV}", where=f"{entry.place}/env", hint=ENV_HINT)


def choose(found: Sequence[Entry], stage: str | None) -> Entry | None:
    """The entry that sets up: the first one at ``stage``, or without a stage the first that a runtime calls."""
    for each in (stage,) if stage else SETTING_UP:
        for entry in found:
            if entry.stage == each:
                return entry
    return None


def chosen(found: Sequence[Entry], stage: str | None) -> list[Entry]:
    """All entries that set up, or those at one stage, in the order in which a runtime calls them."""
    return [entry for each in ((stage,) if stage else SETTING_UP) for entry in found if entry.stage == each]


def warnings(found: Sequence[Entry], document: object, *, others_stop: bool = False) -> Iterator[str]:
    """What will go wrong with a hook that is registered this way, one line each.

    ``others_stop``: poststop is called by somebody else than the runtime, who has no need of config.json for that.
    """
    for entry in found:
        if fault := fault_of_stage(entry.stage):
            yield f"{entry.place}: {fault}"
        if entry.said not in (None, entry.stage):
            yield f"{entry.place}/args: the stage is {entry.said}, but the hook is called at {entry.stage}"
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
                which += ", by its XDG_RUNTIME_DIR,"
            yield f"{entry.place}/args: {which} is not that of poststop: mount points and state files would stay"
    for variable in texts(members(members(document).get("process")).get("env")):
        name = variable.partition("=")[0]
        if name in _LOADED:
            yield f"config.json: /process/env: {name}: a hook without its own env would load this as well"


def fault_of_stage(stage: str) -> str:
    """Why this hook is of no use at a stage, "" if it is."""
    if stage in (*SETTING_UP, "poststop"):
        return ""
    return f"at {stage} the hook can neither mount nor unmount anything"


def members(value: object) -> dict[str, Any]:
    """The members of an object; none of anything else."""
    return value if isinstance(value, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def texts(value: object) -> list[str]:
    """The texts in an array; none in anything else."""
    return [each for each in value if isinstance(each, str)] if isinstance(value, list) else []
