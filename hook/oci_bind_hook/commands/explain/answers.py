# SPDX-License-Identifier: Apache-2.0
"""Queries podman and docker for a container by its name, which only the engine knows.

Besides doctor, this is the only module that starts programs. It queries the engines of this machine, never one that the
environment or a docker context names. Each query has a deadline, and its output is validated like any other input.
"""

from __future__ import annotations

import os
import re
import selectors
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ...documents.strictjson import documents
from ...errors import DataError
from ...kernel.proc import Proc
from ...options import Options, state_folder
from ..engines import settings
from . import containers
from .meant import CONFIG
from .programs import PATH
from .registered import members

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 5.0
MOST_BYTES = 1 << 20
# The variables that podman needs to find its storage, also inside `podman unshare`. None of them names a machine.
_KEPT = ("HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "CONTAINERS_STORAGE_CONF", "CONTAINERS_CONF")
_KEPT_BEGINNING = "_CONTAINERS_"
_DOCKER_SOCKET = "/var/run/docker.sock"
_ID = re.compile("[0-9a-f]{64}")
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]*")  # for podman and docker


class Answer(NamedTuple):
    """What an engine reports about one container.

    ``config`` is the path of its config.json, "" if it has none or if the engine does not report it (docker).
    ``pid`` is the container's first process, None without one.
    """

    engine: str
    id: str
    name: str
    config: str
    status: str
    pid: int | None


class NoAnswerError(Exception):
    """A program gives no usable answer. The text has the reason and follows the name of the program."""


def ask(word: str) -> tuple[list[Answer], list[str]]:
    """Returns the answers of the installed engines that know a container by ``word``, and why others did not answer."""
    found, remarks = [], []
    if _NAME.fullmatch(word):
        for engine, command, environment in _commands(word):
            try:
                answer = _parsed(engine, word, _output(command, environment))
            except NoAnswerError as why:
                remarks.append(f"{engine} {why}")
            else:
                found += [answer] if answer is not None else []
    return found, remarks


def _commands(word: str) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yields each engine with the command that queries it, and the environment of that command."""
    clean = {"PATH": PATH, "LC_ALL": "C"}
    question = ["inspect", "--type", "container", "--", word]
    # Even for a query, podman creates its storage if there is none, and mounts it.
    if (path := settings.installed("podman")) and containers.has_stored():
        kept = {key: text for key, text in os.environ.items() if key in _KEPT or key.startswith(_KEPT_BEGINNING)}
        yield "podman", [path, "--remote=false", *question], {**clean, **kept}
    if path := settings.installed("docker"):
        own = f"{os.path.dirname(state_folder(Options(), Proc()))}/docker.sock"
        for socket in dict.fromkeys(map(os.path.realpath, (own, _DOCKER_SOCKET))):
            # The user's configuration may name a context, so HOME is not the user's.
            if os.path.exists(socket):
                yield "docker", [path, "--host", f"unix://{socket}", *question], {**clean, "HOME": "/"}


def _output(command: list[str], environment: dict[str, str]) -> bytes | None:
    """Returns what a program prints, None if it does not know the container. Raises NoAnswerError."""
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd="/",
            env=environment,
            start_new_session=True,
        )
    except OSError as reason:
        raise NoAnswerError(f"cannot be started: {reason.strerror}") from None
    end = time.monotonic() + SECONDS
    try:
        out, err = _read(child, end)
        code = child.wait(max(0.0, end - time.monotonic()))
    except BaseException as why:
        # Kills its children too, which would continue: podman has one in a user namespace. The child has not been
        # awaited, so its pid cannot belong to another process.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        if isinstance(why, subprocess.TimeoutExpired):
            raise _late() from None
        raise
    finally:
        for stream in (child.stdout, child.stderr):
            assert stream is not None
            stream.close()
    if code == 0:
        return out
    problem = _problem(err.decode(errors="replace").strip().split("\n"))
    if "no such" in problem.lower():
        return None
    raise NoAnswerError(f"fails: {problem}" if problem else f"fails with exit code {code}")


def _problem(lines: list[str]) -> str:
    """Returns the last line that is an error, otherwise the first line: podman also writes warnings to stderr."""
    return next((line for line in reversed(lines) if line.lower().startswith("error")), lines[0])


def _late() -> NoAnswerError:
    return NoAnswerError(f"does not answer within {SECONDS:.0f} seconds")


def _read(child: subprocess.Popen[bytes], end: float) -> tuple[bytes, bytes]:
    """Returns what a child writes to stdout and stderr until it closes both. Raises NoAnswerError after ``end``."""
    read: dict[int, bytes] = {}
    with selectors.DefaultSelector() as waiting:
        for stream in (child.stdout, child.stderr):
            assert stream is not None
            read[stream.fileno()] = b""
            waiting.register(stream, selectors.EVENT_READ)
        while waiting.get_map():
            ready = waiting.select(max(0.0, end - time.monotonic()))
            if not ready:
                raise _late()
            for key, _ in ready:
                data = os.read(key.fd, 1 << 16)
                read[key.fd] += data
                if not data:
                    waiting.unregister(key.fileobj)
                if len(read[key.fd]) > MOST_BYTES:
                    raise NoAnswerError("returns more than a megabyte")
    out, err = read.values()
    return out, err


def _parsed(engine: str, word: str, data: bytes | None) -> Answer | None:
    """Parses an engine's output, None if the engine does not know the container. Raises NoAnswerError."""
    if data is None:
        return None
    try:
        document = documents(data, engine)[0]
    except DataError:
        raise NoAnswerError("returns something other than JSON") from None
    [one] = document if isinstance(document, list) and len(document) == 1 else [None]
    facts = members(one)
    state = members(facts.get("State"))
    container, name = _text(facts, "Id"), _text(facts, "Name").removeprefix("/")
    config, pid = _text(facts, "OCIConfigPath"), state.get("Pid")
    if not _ID.fullmatch(container) or not _NAME.fullmatch(name):
        raise NoAnswerError("returns no id and name")
    if word != name and not container.startswith(word):
        raise NoAnswerError(f"returns another container, {name}")
    # The folder of a bundle, or one above it, is named after the id.
    names = config.split("/")
    if config and not (config.startswith("/") and names[-1] == CONFIG and container in names and ".." not in names):
        raise NoAnswerError(f"returns a config.json that does not belong to {name}: {config}")
    is_process = isinstance(pid, int) and not isinstance(pid, bool) and pid > 0
    return Answer(engine, container, name, config, _status(state), pid if is_process else None)


def _status(state: dict[str, Any]) -> str:
    """Returns the state of a container in the engine's words."""
    status, error, code = _text(state, "Status"), _text(state, "Error"), state.get("ExitCode")
    if status in ("exited", "stopped", "dead") and isinstance(code, int):
        status += f" with {code}"
    return f"{status}: {error}" if error else status


def _text(facts: dict[str, Any], name: str) -> str:
    value = facts.get(name)
    return value if isinstance(value, str) else ""
