# SPDX-License-Identifier: Apache-2.0
"""An OCI runtime around another: adds hooks to config.json before the other one creates the container.

The wrapper that ``install --runtime`` writes is a shell script. It passes every command to the runtime unchanged, and
calls this module first for ``create``, ``run`` and ``restore``. So with a broken installation, running containers can
still be stopped, and no container starts without its binds.

Every start of a container under this wrapper loads this module, so it imports nothing slow.
"""

from __future__ import annotations

import posix
import stat as modes

from . import RUNTIME_MARK, open_stdio
from .documents.strictjson import MAX_BYTES, documents, encoded, folded, items, members, parse_trusted
from .errors import DataError, HookError, KernelError, MissingError, UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from typing import Any

CONFIG = "config.json"

# Options of create, run and restore with a value, in runc and crun, except --bundle.
VALUED = (
    *("console-socket", "pidfd-socket", "pid-file", "preserve-fds"),
    # For restore.
    *("image-path", "work-path", "parent-path", "manage-cgroups-mode", "empty-ns", "status-fd", "lsm-profile"),
    *("lsm-mount-context", "page-server"),
)
# Known options without a value. Only after an option that is in neither list, the next word may be its value.
FLAGS = ("detach", "no-pivot", "no-new-keyring", "no-subreaper", "keep")
# With one of these before the command, or a help option after it, a runtime only prints information.
SAYING = ("--help", "-help", "-h", "-?", "--usage", "--version", "-version")
# The members that this module uses.
FOLDED = ("hooks", "annotations")


def main(settings: str, before: int, words: Sequence[str]) -> int:
    """Adds the hooks and returns 0, or returns the exit code if the container must not start.

    ``settings`` is JSON: ``runtime``, the path of the runtime, ``hooks`` in the form of config.json, and
    ``annotations``, those that a container must have to get the hooks. ``words`` are the arguments of the runtime. The
    first ``before`` of them precede the command. The reason of a failure goes to stderr and to the runtime's log, where
    engines look for it.
    """
    try:
        open_stdio()
        given: Any = parse_trusted(settings.encode())
        if not posix.access(given["runtime"], posix.X_OK):
            raise MissingError(
                f"the runtime {given['runtime']} cannot be executed", hint="run oci-bind-hook install --runtime again"
            )
        bundle = None if words[0] in SAYING else bundle_of(words[before + 1 :])
        if bundle is not None:
            add(bundle, given["hooks"], given["annotations"])
    except HookError as problem:
        print_failure(str(problem), words[:before])
        return problem.exit_code
    except Exception as bug:  # noqa: BLE001 - engines must get a reason for any failure
        print_failure(f"a bug: {type(bug).__name__}: {bug}", words[:before])
        return posix.EX_SOFTWARE
    return posix.EX_OK


def bundle_of(words: Sequence[str]) -> str | None:
    """Returns the bundle in the command's arguments, by default the current folder. Raises UnavailableError.

    Returns None for a help option. Accepts all spellings of runc (Go's flags) and crun (getopt_long(3)):
    ``--bundle DIR``, ``--bundle=DIR``, ``-b DIR``; runc's ``-b=DIR``, ``-bundle DIR`` and ``-bundle=DIR``; crun's
    ``-bDIR``, ``-db DIR`` and the beginning of a long option.
    """
    found: str | None = None
    left = iter(words)
    may_be_value = False  # the next word may be the value of an unknown option
    for word in left:
        name, equals, value = word.partition("=")
        # crun allows more letters after -d.
        letters = word[1:].lstrip("d") if word[:1] == "-" != word[1:2] else ""
        if word == "--":
            break
        if not may_be_value and (word in ("-h", "-help", "-?") or _begins("help", word) or _begins("usage", word)):
            return None
        may_be_value = False
        if name in ("-bundle", "-b") or _begins("bundle", name):
            if word.startswith(("-bundle", "-b=")):
                _refuse_ambiguous(word)
            found = value if equals else next(left, "")
        elif letters.startswith("b"):
            found = letters[1:] or next(left, "")
        elif name == "-config" or letters.startswith("f") or _begins("config", name):
            raise UnavailableError(f"{word} selects a file other than the bundle's {CONFIG}", hint="omit this option")
        elif not equals and _is_of(VALUED, name):
            next(left, None)
        else:
            may_be_value = word.startswith("-") and not (equals or word == "-d" or _is_of(FLAGS, name))
    return found or "."


def _refuse_ambiguous(word: str) -> None:
    """Raises UnavailableError for ``-bWORD`` if the folder exists that crun reads it as. runc uses another bundle."""
    if posix.access(word[2:], posix.F_OK):
        raise UnavailableError(f"crun reads {word} as the bundle {word[2:]}, but runc does not", hint="use --bundle")


def _is_of(options: Sequence[str], word: str) -> bool:
    """Whether a word is one of these long options in the spelling of runc or crun."""
    return any(word == f"-{option}" or _begins(option, word) for option in options)


def _begins(option: str, word: str) -> bool:
    """Whether a word is a long option or the beginning of one."""
    return len(word) > 2 and f"--{option}".startswith(word)


def add(bundle: str, hooks: dict[str, list[object]], annotations: dict[str, str]) -> None:
    """Adds ``hooks`` to a bundle's config.json in one step if it has ``annotations``. Raises HookError.

    Hooks that this wrapper added before are replaced: an engine may reuse a bundle after the registration has changed.
    """
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
        is_for = not annotations or (isinstance(asked, dict) and annotations.items() <= asked.items())
        text = data.decode()
        changed = with_hooks(text, document.get("hooks"), hooks if is_for else {}, marks_of(hooks))
        if changed != text:
            _replace(folder, changed.encode(), stat, f"{bundle}/{CONFIG}")
    finally:
        posix.close(folder)


def marks_of(hooks: dict[str, list[Any]]) -> set[str]:
    """Returns the variables with which a wrapper marks its ``hooks``."""
    variables = (each for entries in hooks.values() for entry in entries for each in entry.get("env", ()))
    return {each for each in variables if each.startswith(RUNTIME_MARK)}


def with_hooks(text: str, known: object, hooks: dict[str, list[object]], marks: Collection[str] = ()) -> str:
    """Returns the config.json ``text`` with ``hooks`` after its own hooks, ``known``. Raises DataError.

    The rest of the text stays as it is. Existing hooks are not added again. Others with one of ``marks`` are removed.
    """
    if known is None:
        return _with_member(text, "hooks", encoded(hooks).decode()) if hooks else text
    if not isinstance(known, dict):
        raise DataError(CONFIG, [("/hooks", "is not an object")])
    _refuse_folded(known, hooks, "/hooks")
    start, end = members(text)["hooks"]
    part = text[start:end]
    for stage in dict.fromkeys((*hooks, *known)):
        there, wanted = known.get(stage), hooks.get(stage, [])
        if not isinstance(there, list):
            if stage in hooks and there is not None:
                raise DataError(CONFIG, [(f"/hooks/{stage}", "is not an array")])
            part = _with_member(part, stage, encoded(wanted).decode()) if wanted else part
            continue
        stale = [entry not in wanted and _is_marked(entry, marks) for entry in there]
        missing = [encoded(entry).decode() for entry in wanted if entry not in there]
        if missing or any(stale):
            first, last = members(part)[stage]
            written = [part[first + at : first + to] for at, to in items(part[first:last])]
            kept = [entry for entry, is_stale in zip(written, stale, strict=True) if not is_stale]
            part = f"{part[:first]}[{','.join([*kept, *missing])}]{part[last:]}"
    return text[:start] + part + text[end:]


def _is_marked(entry: object, marks: Collection[str]) -> bool:
    env = entry.get("env") if isinstance(entry, dict) else None
    return isinstance(env, list) and any(mark in env for mark in marks)


def _refuse_folded(document: dict[str, object], names: Iterable[str], pointer: str) -> None:
    """Raises DataError for a member that other JSON parsers, such as runtimes, read as one of ``names``."""
    known = {folded(name): name for name in names}
    for name in document:
        meant = known.get(folded(name), name)
        if meant != name:
            raise DataError(CONFIG, [(f"{pointer}/{name}", f'some runtimes read this as "{meant}"')])


def _with_member(text: str, name: str, value: str) -> str:
    """Returns the object ``text`` with a member, which replaces one with the same name."""
    found = members(text)
    if name in found:
        start, end = found[name]
        return text[:start] + value + text[end:]
    brace = text.index("{") + 1
    return f'{text[:brace]}"{name}":{value}{"," if found else ""}{text[brace:]}'


def _read(folder: int, path: str) -> tuple[bytes, posix.stat_result]:
    """Returns the content of the bundle's config.json, and its stat for owner and mode. MissingError, KernelError."""
    try:
        # O_NONBLOCK: opening must not block if a FIFO has this name.
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
    """Replaces config.json, with the same owner and mode. Does not follow a link. Raises KernelError.

    Not synced: a bundle is created at each start and is not used after a crash of the machine.
    """
    name = f".{CONFIG}.oci-bind-hook.{posix.getpid()}"
    try:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC
        try:
            fd = posix.open(name, flags, 0o600, dir_fd=folder)
        except FileExistsError:
            posix.unlink(name, dir_fd=folder)  # left by a killed process with the same pid
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


def print_failure(problem: str, options: Sequence[str]) -> None:
    """Writes why the container does not start to stderr, and to the log in the runtime's ``options``.

    The log gets an entry in runc's form. Engines show its last message.
    """
    import time

    from .log import one_line

    line = f"oci-bind-hook: {one_line(problem)}; the container is not started"
    path, form = _value(options, "log", "l"), _value(options, "log-format")
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    entry = encoded({"level": "error", "msg": line, "time": now}).decode() if form == "json" else line
    try:
        posix.write(2, f"{line}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # stderr has no reader
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
        pass  # the message is on stderr


def _value(options: Sequence[str], *names: str) -> str:
    """Returns the value of the option with one of these names, "" if not given. The last one counts."""
    found = ""
    for number, word in enumerate(options):
        name, equals, value = word.partition("=")
        if name.startswith("-") and name.lstrip("-") in names:
            found = value if equals else "".join(options[number + 1 : number + 2])
    return found
