# SPDX-License-Identifier: Apache-2.0
"""An OCI runtime around another: adds hooks to config.json before the other makes the container.

The wrapper that ``install --runtime`` writes is a shell script. It hands every command to the runtime as it is, and
calls this module first where the command is ``create``, ``run`` or ``restore``. So a broken installation stops no
container that runs, and lets none start without its binds.

Loaded by every start of a container under that wrapper: it imports nothing that takes time.
"""

from __future__ import annotations

import posix
import stat as modes

from . import open_stdio
from .documents.strictjson import MAX_BYTES, documents, encoded, members, parse_trusted
from .errors import DataError, HookError, KernelError, MissingError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Any

CONFIG = "config.json"

# Options of create, run and restore that take a value, of runc and of crun, beside --bundle.
VALUED = (
    *("console-socket", "pidfd-socket", "pid-file", "preserve-fds"),
    # Of restore.
    *("image-path", "work-path", "parent-path", "manage-cgroups-mode", "empty-ns", "status-fd", "lsm-profile"),
    *("lsm-mount-context", "page-server"),
)
# The members that count here.
FOLDED = ("hooks", "annotations")


def main(settings: str, before: int, words: Sequence[str]) -> int:
    """Adds the hooks and returns 0, or the code to exit with instead of starting the container.

    ``settings`` is JSON: ``runtime``, the path of the runtime, ``hooks`` in the form of config.json, and
    ``annotations``, what config.json must have for the container to get them. ``words`` are the arguments of the
    runtime, of which the first ``before`` come before the command. The reason of a failure goes to stderr and to the
    runtime's log, where engines look for it.
    """
    try:
        open_stdio()
        given: Any = parse_trusted(settings.encode())
        if not posix.access(given["runtime"], posix.X_OK):
            raise MissingError(f"the runtime {given['runtime']} is not there", hint="oci-bind-hook install --runtime")
        add(bundle_of(words[before + 1 :]), given["hooks"], given["annotations"])
    except HookError as problem:
        tell(str(problem), words[:before])
        return problem.exit_code
    except Exception as bug:  # noqa: BLE001 - whatever it is, engines must be told
        tell(f"a bug: {type(bug).__name__}: {bug}", words[:before])
        return posix.EX_SOFTWARE
    return posix.EX_OK


def bundle_of(words: Sequence[str]) -> str:
    """The bundle that the arguments of the command name, the current folder if they name none. UnavailableError.

    All spellings of runc and crun: ``--bundle DIR``, ``--bundle=DIR``, ``-b DIR``, ``-b=DIR``, ``-bDIR``. crun, by
    getopt_long(3), takes the beginning of a long option as well.
    """
    found: str | None = None
    left = iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if word == "--":
            break
        if name in ("-bundle", "-b") or _begins("bundle", name):
            found = value if equals else next(left, "")
        elif word.startswith("-b"):
            found = word[2:]
        elif name in ("-config", "-f") or _begins("config", name) or (word.startswith("-f") and len(word) > 2):
            raise UnavailableError(f"{word} names another file than the bundle's {CONFIG}", hint="leave it out")
        elif not equals and any(name == f"-{option}" or _begins(option, name) for option in VALUED):
            next(left, None)
    return found or "."


def _begins(option: str, word: str) -> bool:
    """Whether a word is a long option, or the beginning of one."""
    return len(word) > 2 and f"--{option}".startswith(word)


def add(bundle: str, hooks: dict[str, list[object]], annotations: dict[str, str]) -> None:
    """Adds ``hooks`` to the config.json of a bundle, in one step, if it has ``annotations``. HookError."""
    try:
        folder = posix.open(bundle, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as reason:
        raise MissingError(f"the bundle {bundle} cannot be opened: {reason.strerror}") from reason
    try:
        data, stat = _read(folder, f"{bundle}/{CONFIG}")
        document = documents(data, CONFIG)[0]
        if not isinstance(document, dict):
            raise DataError(CONFIG, [("", "is not an object")])
        _refuse_folded(document, FOLDED, "")
        asked = document.get("annotations")
        if annotations and not (isinstance(asked, dict) and annotations.items() <= asked.items()):
            return
        text = data.decode()
        changed = with_hooks(text, document.get("hooks"), hooks)
        if changed != text:
            _replace(folder, changed.encode(), stat, f"{bundle}/{CONFIG}")
    finally:
        posix.close(folder)


def with_hooks(text: str, known: object, hooks: dict[str, list[object]]) -> str:
    """The config.json ``text`` with ``hooks`` after those that it has, ``known``; all else as it is written. DataError.

    A hook that is there already is not added again.
    """
    if known is None:
        return _with_member(text, "hooks", encoded(hooks).decode())
    if not isinstance(known, dict):
        raise DataError(CONFIG, [("/hooks", "is not an object")])
    _refuse_folded(known, hooks, "/hooks")
    start, end = members(text)["hooks"]
    part = text[start:end]
    for stage, entries in hooks.items():
        there = known.get(stage)
        if there is None:
            part = _with_member(part, stage, encoded(entries).decode())
        elif not isinstance(there, list):
            raise DataError(CONFIG, [(f"/hooks/{stage}", "is not an array")])
        elif missing := [entry for entry in entries if entry not in there]:
            last = members(part)[stage][1] - 1  # the bracket that ends it
            part = f"{part[:last]}{',' if there else ''}{encoded(missing).decode()[1:-1]}{part[last:]}"
    return text[:start] + part + text[end:]


def _refuse_folded(document: dict[str, object], names: Iterable[str], pointer: str) -> None:
    """Raises DataError for a member that Go's readers, runc among them, take for one of ``names``.

    They fold case, a long s and the sign of Kelvin included, and the last of several counts.
    """
    folded = {name.casefold(): name for name in names}
    for name in document:
        meant = folded.get(name.casefold(), name)
        if meant != name:
            raise DataError(CONFIG, [(f"{pointer}/{name}", f'is read by some runtimes as "{meant}"')])


def _with_member(text: str, name: str, value: str) -> str:
    """The object ``text`` with a member, in the place of one of that name."""
    found = members(text)
    if name in found:
        start, end = found[name]
        return text[:start] + value + text[end:]
    brace = text.index("{") + 1
    return f'{text[:brace]}"{name}":{value}{"," if found else ""}{text[brace:]}'


def _read(folder: int, path: str) -> tuple[bytes, posix.stat_result]:
    """The content of the bundle's config.json, and its owner and mode. MissingError, KernelError."""
    try:
        # O_NONBLOCK: a FIFO in its place must not block.
        fd = posix.open(CONFIG, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC, dir_fd=folder)
    except OSError as reason:
        raise MissingError(f"{path} cannot be opened: {reason.strerror}") from reason
    try:
        stat = posix.fstat(fd)
        if not modes.S_ISREG(stat.st_mode):
            raise MissingError(f"{path} is not a regular file")
        data = b""
        while len(data) <= MAX_BYTES and (chunk := posix.read(fd, 1 << 20)):
            data += chunk
        return data, stat
    except OSError as reason:
        raise KernelError("read", path, reason) from reason
    finally:
        posix.close(fd)


def _replace(folder: int, data: bytes, stat: posix.stat_result, path: str) -> None:
    """Writes config.json anew, with the owner and the mode that it had. A link is replaced, not followed. KernelError.

    Not synced: a bundle is made anew at each start, and after a crash of the machine nobody reads it.
    """
    name = f".{CONFIG}.oci-bind-hook.{posix.getpid()}"
    try:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
        try:
            fd = posix.open(name, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            posix.unlink(name, dir_fd=folder)  # of a process of that pid that was killed
            fd = posix.open(name, flags, 0o600, dir_fd=folder)
        try:
            while data:
                data = data[posix.write(fd, data) :]
            if (stat.st_uid, stat.st_gid) != (posix.geteuid(), posix.getegid()):
                posix.fchown(fd, stat.st_uid, stat.st_gid)
            posix.fchmod(fd, modes.S_IMODE(stat.st_mode))
            posix.rename(name, CONFIG, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            posix.unlink(name, dir_fd=folder)
            raise
        finally:
            posix.close(fd)
    except OSError as reason:
        raise KernelError("write", path, reason) from reason


def tell(problem: str, options: Sequence[str]) -> None:
    """Writes why the container does not start to stderr, and to the log that the runtime's ``options`` name.

    There in the form of runc, of which engines show the last message.
    """
    import time

    from .log import one_line

    line = f"oci-bind-hook: {one_line(problem)}, so the container is not started"
    path, form = _value(options, "log", "l"), _value(options, "log-format")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = encoded({"level": "error", "msg": line, "time": now}).decode() if form == "json" else line
    try:
        posix.write(2, f"{line}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # nobody reads it
    path = path.removeprefix("file:")
    if not path or path.startswith(("journald:", "syslog:")):
        return
    try:
        fd = posix.open(
            path, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_NONBLOCK | posix.O_CLOEXEC, 0o644
        )
        posix.write(fd, f"{entry}\n".encode(errors="backslashreplace"))
        posix.close(fd)
    except OSError:
        pass  # it is on stderr


def _value(options: Sequence[str], *names: str) -> str:
    """The value of the option that has one of these names, "" if it is not given. The last one counts."""
    found = ""
    for number, word in enumerate(options):
        name, equals, value = word.partition("=")
        if name.startswith("-") and name.lstrip("-") in names:
            found = value if equals else "".join(options[number + 1 : number + 2])
    return found
