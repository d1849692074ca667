# SPDX-License-Identifier: Apache-2.0
"""Writes a launcher and the hooks.d file (oci-hooks(5)) that names it, and removes them.

The launcher is a copy of no code: it finds this package where it is now. It runs isolated (`python -IS`), since the
environment it is started with may be an image's, and so has to know by itself every folder to import from.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import os
import re
import stat
import sys
import tempfile
from typing import TYPE_CHECKING

from ... import FOLDER
from ...errors import MissingError, UnavailableError, UsageError
from ...kernel.errnos import refused
from ...options import STAGES
from . import re2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

LAUNCHER_PATH = "libexec/oci/hooks.d/oci-bind-hook"
REGISTRATION_PATH = "share/containers/oci/hooks.d/oci-bind-hook.json"

# What engines read: the first by themselves, others where their hooks_dir names them.
KNOWN_FOLDERS = (
    "/usr/share/containers/oci/hooks.d",
    "/usr/local/share/containers/oci/hooks.d",
    "/etc/containers/oci/hooks.d",
)

NAME = "oci-bind-hook"
DEFAULT_STAGES = ("createRuntime", "poststop")
TIMEOUT_SECONDS = 30
# Not empty: only then does no runtime fall back on the image's own environment.
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)

# BINPRM_BUF_SIZE before Linux 5.1, less the byte that ends it.
SHEBANG_BYTES = 127

DEPENDENCIES = ("jsonschema", "python-prctl")

MARK = "# Written by `oci-bind-hook install`, which also replaces it."
# Short, since Python compiles it at each start: what can stand in a module does.
LAUNCHER = """\
#!{interpreter} -IS
{mark}
import gc
import sys

# Nothing lives long enough to be collected, and to look for it takes a sixth of Python's start.
gc.disable()
sys.dont_write_bytecode = True
sys.path += {folders}
try:
    from oci_bind_hook import prepare_process

    # Before the other imports: libffi keeps a file of its own open, which must neither be closed nor be stdin.
    prepare_process()
    from oci_bind_hook.cli import console
except BaseException as error:
    import os

    reason = " ".join(f"{{type(error).__name__}}: {{error}}".split())
    try:
        os.write(2, f"oci-bind-hook: the installation is broken: {{reason}}\\n".encode(errors="backslashreplace"))
    finally:
        os._exit(os.EX_SOFTWARE)
console()
"""


class When:
    """Which containers the hook is for: all of them, or those that all of these conditions hold for.

    ``annotations`` are ``KEY=VALUE`` and meant literally, ``commands`` regular expressions of Go for process.args[0].
    UsageError for what makes no sense.
    """

    def __init__(
        self,
        *,
        always: bool = False,
        annotations: Sequence[str] = (),
        commands: Sequence[str] = (),
        has_bind_mounts: bool = False,
    ) -> None:
        self.document: dict[str, object] = {}
        if annotations:
            self.document["annotations"] = _annotations(annotations)
        if commands:
            self.document["commands"] = [_command(text) for text in commands]
        if has_bind_mounts:
            self.document["hasBindMounts"] = True
        if always and self.document:
            raise UsageError("the other conditions choose among all containers", where="--always")
        if not self.document:
            self.document["always"] = True


def _annotations(words: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UsageError(f'"{word}" is not KEY=VALUE', where="--annotation")
        if f"^{quoted(key)}$" in found:
            raise UsageError(f"{key} is asked for twice, and one annotation has one value", where="--annotation")
        found[f"^{quoted(key)}$"] = f"^{quoted(value)}$"
    return found


def quoted(text: str) -> str:
    """A regular expression of Go that matches exactly this text."""
    return re.sub(r"[\\.+*?()|\[\]{}^$]", r"\\\g<0>", text)


def _command(text: str) -> str:
    try:
        re2.compile(text)
    except re2.InvalidError as reason:
        raise UsageError(f'"{text}" is no regular expression of Go: {reason}', where="--command") from None
    except re2.UnknownError:
        pass  # Go may know it
    return text


class Places:
    """Where the two files are: below ``prefix``, but for the hooks.d file where its folder is named. UsageError."""

    def __init__(self, prefix: str, hooks_dir: str | None = None) -> None:
        if not prefix:
            raise UsageError("the prefix is empty", where="--prefix")
        if hooks_dir == "":
            raise UsageError("the folder is empty", where="--hooks-dir")
        self.launcher = os.path.join(os.path.abspath(prefix), LAUNCHER_PATH)
        registration = os.path.join(os.path.abspath(prefix), REGISTRATION_PATH)
        if hooks_dir is not None:
            registration = os.path.join(os.path.abspath(hooks_dir), os.path.basename(REGISTRATION_PATH))
        self.registration = registration


def install(
    prefix: str,
    stages: Sequence[str] = (),
    arguments: Sequence[str] = (),
    *,
    hooks_dir: str | None = None,
    when: When | None = None,
) -> list[str]:
    """Install below ``prefix`` and return the paths written: the launcher, then the hooks.d file.

    ``stages`` are those to be called at (none: createRuntime and poststop), ``arguments`` what the hook is given at
    each of them, ``hooks_dir`` another folder for the hooks.d file. Installing again gives the same files. Raises
    UsageError, UnavailableError for an interpreter that no ``#!`` line can name or a file that is somebody else's, and
    KernelError.
    """
    places = Places(prefix, hooks_dir)
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no stage", where="--stages", hint=f"known: {', '.join(STAGES)}")
    text = registration_text(places.launcher, stages or DEFAULT_STAGES, arguments, when or When())
    contents = {
        places.launcher: (0o755, launcher_text(sys.executable, import_folders())),
        places.registration: (0o644, text),
    }
    _refuse_foreign(places)
    umask = os.umask(0o022)
    try:
        for path, (mode, text) in contents.items():
            write(path, mode, text)
        # Best effort: the launcher writes no byte code, and a read-only package folder merely starts slower.
        compileall.compile_dir(FOLDER, quiet=2)
    finally:
        os.umask(umask)
    return list(contents)


def _refuse_foreign(places: Places) -> None:
    """Raises UnavailableError for a file at one of the paths that install did not write. A link is replaced."""
    ours = {places.launcher: is_launcher(places.launcher), places.registration: bool(_registered(places.registration))}
    for path, is_ours in ours.items():
        if os.path.isfile(path) and not os.path.islink(path) and not is_ours:
            raise UnavailableError(
                "was not written by install", where=path, hint="move it away, or choose other folders"
            )


def launcher_text(interpreter: str, folders: Sequence[str]) -> str:
    """The launcher's source. Raises UnavailableError if the kernel could not start it."""
    shebang = f"#!{interpreter} -IS"
    where = f"interpreter {interpreter!r}"
    if not os.path.isabs(interpreter):
        raise UnavailableError("its path is not absolute", where=where)
    if len(interpreter.split()) != 1 or not interpreter.isprintable():
        raise UnavailableError("white space or an unprintable character cannot stand in a #! line", where=where)
    if len(os.fsencode(shebang)) > SHEBANG_BYTES:
        raise UnavailableError(f"its path is too long for a #! line of {SHEBANG_BYTES} bytes", where=where)
    return LAUNCHER.format(interpreter=interpreter, mark=MARK, folders=ascii(list(folders)))


def registration_text(launcher: str, stages: Sequence[str], arguments: Sequence[str], when: When) -> str:
    """The hooks.d file, version 1.0.0 of oci-hooks(5). Raises UsageError for text that JSON cannot hold."""
    document = {
        "version": "1.0.0",
        "hook": {
            "path": launcher,
            "args": [NAME, *arguments],
            "env": list(ENVIRONMENT),
            "timeout": TIMEOUT_SECONDS,
        },
        "when": when.document,
        "stages": list(dict.fromkeys(stages)),
    }
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object[error.start :]!r} is not UTF-8", where="install") from None
    return text


def import_folders() -> list[str]:
    """The folders to import this package and all it depends on from, each once and absolute.

    Raises UnavailableError for a dependency that is not installed.
    """
    folders = [os.path.dirname(os.path.abspath(FOLDER))]
    for name in DEPENDENCIES:
        found = list(_distribution_folders(name, set()))
        if not found:
            raise UnavailableError("not installed", where=name)
        folders += found
    return list(dict.fromkeys(folders))


def _distribution_folders(name: str, seen: set[str]) -> Iterator[str]:
    """The folders of ``name`` and of its requirements. One that is not installed is for another Python."""
    name = re.sub("[-_.]+", "-", name).lower()
    if name in seen:
        return
    seen.add(name)
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return
    yield os.path.abspath(str(distribution.locate_file("")))
    for requirement in distribution.requires or ():
        required = re.match(r"[\w.-]+", requirement)
        if required and not re.search(r";.*\bextra\b", requirement):
            yield from _distribution_folders(required[0], seen)


def write(path: str, mode: int, text: str) -> None:
    """Replace the file at ``path``, whatever is there, in one step. Raises KernelError."""
    folder, name = os.path.split(path)
    temporary = ""
    try:
        os.makedirs(folder, exist_ok=True)
        fd, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fchmod(fd, mode)
            os.fsync(fd)
        os.replace(temporary, path)
    except OSError as error:
        if temporary:
            os.unlink(temporary)
        raise refused("write", path, error) from error


def warnings(places: Places) -> list[str]:
    """Warnings about an installation that was written but will not work for everyone."""
    found = []
    folder = os.path.dirname(places.registration)
    if folder != KNOWN_FOLDERS[0]:
        found.append(f"podman and CRI-O read {folder} only if their hooks_dir names it")
    closed = [_closed(path) for path in (sys.executable, *import_folders(), places.launcher, places.registration)]
    for path in dict.fromkeys(filter(None, closed)):
        found.append(f"{path} is closed to other users: their containers, rootless ones, cannot run this hook")
    return found


def _closed(path: str) -> str:
    """The outermost folder or file that keeps other users from ``path``, links followed; empty if nothing does."""
    for way in (path, os.path.realpath(path)):
        steps = way.split("/")
        for number in range(2, len(steps) + 1):
            place = "/".join(steps[:number])
            try:
                mode = os.stat(place).st_mode
            except OSError:
                return place
            # Files are read, and folders are gone through.
            if not mode & (0o001 if stat.S_ISDIR(mode) else 0o004):
                return place
    return ""


class Removed:
    """What uninstall did: ``paths`` it removed, why others were ``kept``, and the hook's registered ``arguments``."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.kept: list[str] = []
        self.arguments: list[str] = []


def uninstall(prefix: str, hooks_dir: str | None = None) -> Removed:
    """Remove what ``install`` wrote there, and nothing else: files are known by what is in them.

    A launcher that other hooks.d files name stays. MissingError if there is nothing of ours, UsageError, KernelError.
    """
    places, removed = Places(prefix, hooks_dir), Removed()
    launcher = places.launcher
    if os.path.lexists(places.registration):
        hook = _registered(places.registration)
        if hook is None:
            removed.kept.append(f"{places.registration} was not written by install")
        else:
            launcher, removed.arguments = hook["path"], hook["args"][1:]
            _unlink(places.registration, removed)
    if os.path.lexists(launcher):
        folders = (*KNOWN_FOLDERS, os.path.dirname(places.registration), os.path.dirname(Places(prefix).registration))
        users = list(_users(launcher, folders))
        if not is_launcher(launcher):
            removed.kept.append(f"{launcher} was not written by install")
        elif users:
            removed.kept.append(f"{launcher} is still named by {users[0]}")
        else:
            _unlink(launcher, removed)
    if not removed.paths:
        where = f"{places.registration} and {launcher}"
        raise MissingError(f"nothing that install wrote is at {where}", hint="; ".join(removed.kept))
    return removed


def is_launcher(path: str) -> bool:
    """Whether a file is a launcher that ``install`` wrote."""
    return read(path).split("\n", 2)[1:2] == [MARK]


def _registered(path: str) -> dict[str, Any] | None:
    """The hook of a hooks.d file that ``install`` wrote, even if edited since. None for any other file."""
    try:
        document = json.loads(read(path))
        hook: dict[str, Any] = document["hook"]
        is_ours = hook["args"][0] == NAME and os.path.basename(hook["path"]) == NAME
    except (ValueError, LookupError, TypeError):
        return None
    return hook if is_ours and all(isinstance(word, str) for word in hook["args"]) else None


def _users(launcher: str, folders: Sequence[str]) -> Iterator[str]:
    """The files in hooks.d folders that name a launcher."""
    for folder in dict.fromkeys(folders):
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            path = os.path.join(folder, name)
            try:
                if name.endswith(".json") and json.loads(read(path))["hook"]["path"] == launcher:
                    yield path
            except (ValueError, LookupError, TypeError):
                pass


def read(path: str) -> str:
    """The text of a regular file, empty for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, encoding="utf-8", errors="replace") as file:
            return file.read(1 << 20) if os.path.isfile(fd) else ""
    except OSError:
        return ""


def _unlink(path: str, removed: Removed) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        raise refused("remove", path, error) from error
    removed.paths.append(path)
