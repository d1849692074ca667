# SPDX-License-Identifier: Apache-2.0
"""What runtimes refuse to run: a process without a program or with an invalid cwd, and hooks without a program."""

from __future__ import annotations

import contextlib
import os
import stat as modes
from typing import TYPE_CHECKING

from ...errors import HookError, RequestError
from ...rootfs.walk import Root
from ..engines import launcher
from .programs import PATH, interpreters, is_text, same_machine
from .refusals import BOTH, CRUN, RUNC
from .refused_mounts import dangling_link, is_unknown
from .registered import is_ours, members, texts

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ...rootfs.walk import Target
    from .refusals import Refusals
    from .refused_mounts import Covers

_MOST_INTERPRETERS = 4  # the limit of the kernel, execve(2)
# Stages whose hooks are programs of the host: runtime-spec config.md, "POSIX-platform Hooks".
_HOST_STAGES = ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
# For this hook.
_HINT = "run install again; until then, the section Break glass in docs/ENGINES.md says how containers start without it"
# Stages whose failure ends the start of a container.
_MUST_SUCCEED = ("prestart", "createRuntime", "createContainer")


class Unsure(Exception):
    """The answer cannot be known here."""


def judge_process(found: Refusals, document: dict[str, Any], root: Root | None, covers: Covers | None) -> None:
    """Checks ``process``: its cwd and its program in ``root``, with all mounts. ``root`` is None if it is not known."""
    if not isinstance(document.get("process"), dict):
        found.add("/process", "missing: no program to run")
        return
    process = members(document["process"])
    cwd = process.get("cwd")
    if not isinstance(cwd, str) or not cwd:
        found.add("/process/cwd", "missing or empty")
        cwd = "/"
    elif not cwd.startswith("/"):
        found.add("/process/cwd", f"{cwd} is not absolute", by=RUNC)
    if root is not None:
        _judge_cwd(found, cwd, root)
    args = process.get("args")
    name = args[0] if isinstance(args, list) and args else ""
    if not name:
        found.add("/process/args", "missing or empty: no program to run")
        return
    if root is None or covers is None or not isinstance(name, str):
        return
    try:
        _judge_args(found, name, cwd, texts(process.get("env")), root, covers)
    except Unsure:
        pass


def _judge_cwd(found: Refusals, cwd: str, root: Root) -> None:
    at = "/process/cwd"
    try:
        target = root.resolve(os.path.join("/", cwd))
    except RequestError as problem:
        found.add(at, problem.problem)
        return
    except (HookError, ValueError):
        return
    target.close()
    if is_unknown(target):
        return
    if target.last.exists and not target.last.folder:
        found.add(at, f"{target.path} is not a folder")
    elif target.missing and (link := dangling_link(root, target)) is not None:
        found.add(at, f"the link {link} leads to a path that does not exist")


def _judge_args(found: Refusals, name: str, cwd: str, env: list[str], root: Root, covers: Covers) -> None:
    """Checks the program. Raises Unsure if it may be in a file system that is not mounted yet."""
    at = "/process/args/0"
    path = dict(text.partition("=")[::2] for text in env).get("PATH")
    folders = [""] if "/" in name else (PATH if path is None else path).split(":")
    why = ""
    by: tuple[str, ...] = BOTH
    is_in_cwd = False
    for folder in folders:
        target, fault = _program(root, os.path.join("/", cwd, folder, name))
        if target is None:
            why = why or fault
            continue
        with contextlib.closing(target):
            if "/" not in name and not folder.startswith("/") and by is BOTH:
                which = f"{folder}, which is not absolute" if folder else "cwd, by an empty entry"
                found.add(at, f"{name} is found in a folder of PATH that runc refuses: {which}", by=RUNC)
                by = CRUN
            if "/" not in name and not folder:
                is_in_cwd = True
                continue  # crun 1.8 skips an empty folder
            if path is None and "/" not in name:
                found.warn(at, f"{name} cannot be found: process.env has no PATH")
            elif target.last.cover in covers.noexec:
                found.add(at, f"{target.path} is on a noexec mount", by=by)
            elif fault := _fault_of_interpreters(root, target):
                found.add(at, fault, by=by)
        return
    if is_in_cwd:
        found.warn(at, f"{name} is found only by an empty entry of PATH, which crun 1.8 skips")
    elif why:
        found.add(at, why, by=by)
    elif "/" in name:
        found.add(at, f"{name} does not exist in the rootfs or in its mounts")
    else:
        where = "has no PATH" if path is None else f"has PATH={path}"
        found.add(at, f"{name} is not found in the rootfs: process.env {where}", by=by)


def judge_hooks(
    found: Refusals, document: dict[str, Any], image: Root | None, may_ask: Callable[[str, str], bool]
) -> None:
    """Checks the hooks of all stages: startContainer's in the ``image`` (None if not known), others on the host."""
    hooks = members(document.get("hooks"))
    fd = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        host = Root(fd)
        for stage in (*_HOST_STAGES, "startContainer"):
            root = image if stage == "startContainer" else host
            entries = hooks.get(stage)
            for number, entry in enumerate(entries if isinstance(entries, list) else ()):
                at, path = f"/hooks/{stage}/{number}/path", members(entry).get("path")
                hint = _HINT if is_ours(entry) else ""
                is_reported = stage == "poststop" and bool(hint)  # commands.explain.parts reports it
                if root is None or not isinstance(path, str) or not path.startswith("/") or is_reported:
                    continue
                if root is image or may_ask(at, path):
                    _judge_hook(found, stage, at, path, root, hint)
    finally:
        os.close(fd)


def _judge_hook(found: Refusals, stage: str, at: str, path: str, root: Root, hint: str) -> None:
    is_for_sh = False
    try:
        target, fault = _program(root, path)
        if target is not None:
            with contextlib.closing(target):
                is_for_sh = _is_empty(target) or is_text(target)
                fault = _fault_of_interpreters(root, target)
    except Unsure:
        return
    if target is not None and not fault and stage in _MUST_SUCCEED and not launcher.is_turned_off(path):
        fault = launcher.fault(path)
    if target is not None and not fault:
        return
    is_missing = not fault
    fault = fault or f"{path} does not exist"
    if stage == "poststop":
        found.warn(at, f"{fault}; runtimes start without it")
    elif stage == "poststart" or is_for_sh:  # crun allows poststart to fail, and runs such a file with sh
        found.add(at, fault, hint, by=RUNC)
    elif is_missing and stage != "startContainer":
        found.add_missing(at, path, fault, hint)
    else:
        found.add(at, fault, hint)


def _program(root: Root, path: str) -> tuple[Target | None, str]:
    """Returns the program at a path, or None and what is wrong, "" if it does not exist. Raises Unsure if not known."""
    try:
        target = root.resolve(path)
    except RequestError:
        return None, ""
    except (HookError, ValueError) as reason:
        raise Unsure from reason
    if is_unknown(target):
        target.close()
        raise Unsure
    stat = target.last.stat
    fault = ""
    if target.missing:
        target.close()
        return None, ""
    if stat is None or modes.S_ISDIR(stat.mode):
        fault = f"{target.path} is a folder"
    elif not modes.S_ISREG(stat.mode):
        fault = f"{target.path} is not a regular file"
    elif not stat.mode & 0o111:
        fault = f"{target.path} is not executable"
    if not fault:
        return target, ""
    target.close()
    return None, fault


def _is_empty(program: Target) -> bool:
    return program.anchor.fd is not None and os.fstat(program.anchor.fd).st_size == 0


def _fault_of_interpreters(root: Root, program: Target) -> str:
    """Returns why the kernel cannot start a program or its interpreter, "" if it can. Raises Unsure if not known."""
    if _is_empty(program):
        return f"{program.path} is empty"
    if is_text(program):
        return f"{program.path} is a text file without #! and an interpreter in its first line"
    names = interpreters(program)[:1] if same_machine(program) else []
    by = program.path
    for _ in range(_MOST_INTERPRETERS):
        if not names:
            break
        target, fault = _program(root, os.path.join("/", names[0]))
        if target is None:
            return f"{by} needs {names[0]}: {fault or 'it does not exist'}"
        with contextlib.closing(target):
            by, names = target.path, interpreters(target)[:1]
    return ""
