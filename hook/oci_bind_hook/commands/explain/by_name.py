# SPDX-License-Identifier: Apache-2.0
"""The container that a word refers to: an id, the beginning of an id, or a name in podman or docker."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ...errors import HookError, MissingError, UnavailableError, UsageError
from ...kernel.asking import ask
from ...kernel.mountinfo import may_wait
from ...kernel.proc import Proc
from ..engines import settings
from . import answers, containers
from .containers import Container
from .report import packed, unpacked

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from .answers import Answer
    from .report import Packed

_SECONDS = 15.0  # longer than the deadline of the engines
_WHOLE = re.compile("[0-9a-f]{64}")  # an id that an engine assigned, never a name


def find(word: str, root: str | None, *, is_over: bool = False, folder: str = "", option: str = "") -> Container:
    """The container that ``word`` refers to. It has a config.json unless ``is_over``. ``root``: containers.find.
    ``folder`` is the current folder of the user, if this process is in another. ``option`` is the one with which the
    command takes the path of a bundle, "" if it takes a path instead of ``word``.

    Raises UsageError if several match, MissingError or UnavailableError if no container or no config.json is found.
    """
    if not word:
        raise UsageError("the name of the container is empty")
    found = containers.find(word, root)
    remarks: list[str] = []
    if not (_WHOLE.fullmatch(word) and len(found) == 1):
        # Even if the word begins an id: it may also be the name of another container.
        reported, remarks = answers.ask(word)
        found = _together(word, found, reported, root)
    if len(found) > 1:
        several = "; ".join(each.line() for each in found)
        raise UsageError(
            f"the name matches {len(found)} containers", where=word, hint=f"pass the bundle of one: {several}"
        )
    if not found:
        raise _unknown(word, remarks, folder, None if is_over else option)
    if not (is_over or found[0].has_config):
        raise _without_config(found[0], root)
    return found[0]


def recorded(word: str, ids: Collection[str]) -> str:
    """Returns the one of ``ids`` that a word refers to: the id itself, the id of the container with that name in an
    engine, or the only id that begins with it. Without a match: the id that an engine reports, or the word itself.
    Raises UsageError if several match.
    """
    if word in ids:
        return word
    named = {answer.id for answer in answers.ask(word)[0] if answer.name == word}
    begin = {each for each in ids if word and each.startswith(word)}
    found = sorted(named.intersection(ids) or named or begin)
    if len(found) > 1:
        raise UsageError(
            f"the name matches {len(found)} containers",
            where=word,
            hint=f"pass more characters of an id: {', '.join(found)}",
        )
    return found[0] if found else word


def find_in_time(word: str, root: str | None, *, is_over: bool = False, option: str = "") -> Container:
    """As ``find``. A child does it if a mounted file system may not answer, because a bundle may be on any of them.

    Raises UnavailableError also if a file system does not answer.
    """
    if not any(map(may_wait, Proc().mounts().types())):
        return find(word, root, is_over=is_over, option=option)
    try:
        folder = os.getcwd()
    except OSError:
        folder = ""  # the current folder has been removed, so nothing is in it
    outcome = ask(lambda: _packed_result(word, root, is_over=is_over, folder=folder, option=option), _SECONDS)
    if outcome.error is not None:
        raise outcome.error
    if outcome.is_silent:
        problem = outcome.silence("a file system on the path of a bundle")
        raise UnavailableError(problem, where=word, hint="pass the path of the bundle")
    found, problems = outcome.answer
    for failure in unpacked(problems):
        raise failure
    return Container(*found)


def _packed_result(word: str, root: str | None, **facts: Any) -> tuple[tuple[Any, ...], Packed]:
    """Returns the result of ``find`` and what it raises as values that can be sent to another process."""
    try:
        return tuple(find(word, root, **facts)), []
    except HookError as problem:
        return (), packed([problem])


def _together(word: str, found: list[Container], reported: Sequence[Answer], root: str | None) -> list[Container]:
    """Merges the containers found by id with those that engines report, each once.

    As in the engines, a whole id or name takes precedence over the beginning of an id.
    """
    if any(answer.name == word for answer in reported):
        found = [each for each in found if each.id == word]
        reported = [answer for answer in reported if word in (answer.name, answer.id)]
    for answer in reported:
        known = containers.find(answer.id, root)
        bundle = os.path.dirname(answer.config) or next((each.bundle for each in known if each.has_config), "")
        bundle = bundle or containers.bundle_of_process(answer.pid, answer.id)
        same = [each for each in known if each.bundle == bundle]
        base = same[0] if same else containers.Container(answer.id, bundle, answer.engine)
        # At a start, podman writes config.json first.
        is_failed = answer.status == "created" and bool(answer.config)
        status = f"{answer.status}: its last start failed" if is_failed else answer.status
        one = base._replace(known_by=answer.engine, name=answer.name, status=status, pid=answer.pid or base.pid)
        found = [one, *(each for each in found if each.id != answer.id)]
    return found


def _unknown(word: str, remarks: Sequence[str], folder: str, option: str | None) -> HookError:
    """The error for a word that refers to no container. ``option`` is as in ``find``, None if no path is accepted."""
    hint = "; ".join(remarks)
    if option is not None and os.path.lexists(os.path.join(folder, word)):
        path, which = (word, "of this path") if "/" in word else (f"./{word}", "in the current folder")
        hint = f"for the one {which}, use {f'{option} {path}'.strip()}"
    elif not hint:
        hint = "no container has this name or an id that starts with it"
        if option == "" and settings.installed("podman"):
            hint += "; for a podman with --root, pass the path that its `inspect --format '{{.OCIConfigPath}}'` prints"
    return MissingError(f'the container "{word}" is not known', hint=hint)


def _without_config(container: Container, root: str | None) -> HookError:
    """The error for a container without a config.json, with a hint on how to get one. ``root``: containers.find."""
    name = container.name or container.id
    what = f"the container {name}" + (f" ({container.status})" if container.status else "")
    if container.known_by.startswith("podman"):
        problem = f"{what} has no config.json, because it was never started"
        return MissingError(problem, hint=f"run `podman init {name}`, which writes it and runs the hooks")
    if container.root is not None and not container.name:
        problem = f"the bundle of the container {name} is gone: {container.bundle}"
        return MissingError(problem, hint=f"`{Proc(root).command(f'show {name}')}` shows its record")
    if container.pid is None:
        problem = f"{what} has no config.json: {container.known_by} keeps one only while the container runs"
        hint = "for messages of its start or its hooks, see its status in the engine, the journal or syslog, and --log"
        return MissingError(problem, hint=hint)
    problem = f"{what} has no config.json in any known folder"
    hint = "pass the path of its bundle" if os.geteuid() == 0 else "run this as root"
    return UnavailableError(problem, hint=hint)
