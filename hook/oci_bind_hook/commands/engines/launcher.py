# SPDX-License-Identifier: Apache-2.0
"""The launcher: a small program that runs this package, with all paths in it. Engines call it as the hook.

It does not copy the package but imports it from its current folder. It runs isolated (`python -IS`), because its
environment may come from an image, so it contains every folder to import from.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import re
import stat
import sys
from typing import TYPE_CHECKING

from ... import FOLDER
from ...errors import UnavailableError
from .written import read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "oci-bind-hook"
TIMEOUT_SECONDS = 30
# Not empty, because some runtimes pass the image's environment to a hook without its own.
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)

LAUNCHER_PATH = "libexec/oci/hooks.d/oci-bind-hook"  # below the prefix

# BINPRM_BUF_SIZE before Linux 5.1, without the terminating byte.
SHEBANG_BYTES = 127

DEPENDENCIES = ("jsonschema", "python-prctl")
# What a launcher imports, and a file or folder of each by which it is found.
_PARTS = {NAME: "oci_bind_hook", "jsonschema": "jsonschema", "python-prctl": "prctl.py"}

MARK = "# Written by `oci-bind-hook install`, which also replaces it."
_MADE = "# Folders that it made, which uninstall removes if they are empty: "
# Python compiles the launcher at each start, so it is short. Code that can be in a module is there.
_FOLDERS = "sys.path += "
LAUNCHER = """\
#!{interpreter} -IS
{mark}{made}
import gc
import sys

# Nothing lives long enough to be collected, and looking for it takes a sixth of Python's start.
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


def launcher_text(interpreter: str, folders: Sequence[str], made: Sequence[str] = ()) -> str:
    """Returns the source of the launcher. ``made`` are the folders that install has created.

    Raises UnavailableError if the kernel could not start it.
    """
    shebang = f"#!{interpreter} -IS"
    where = f"interpreter {interpreter!r}"
    if not os.path.isabs(interpreter):
        raise UnavailableError("its path is not absolute", where=where)
    if len(interpreter.split()) != 1 or not interpreter.isprintable():
        raise UnavailableError("white space or an unprintable character cannot stand in a #! line", where=where)
    if len(os.fsencode(shebang)) > SHEBANG_BYTES:
        raise UnavailableError(f"its path is too long for a #! line of {SHEBANG_BYTES} bytes", where=where)
    note = f"\n{_MADE}{json.dumps(list(made))}" if made else ""
    return LAUNCHER.format(interpreter=interpreter, mark=MARK, made=note, folders=ascii(list(folders)))


def folders_made(path: str) -> list[str]:
    """Returns the folders that install has created, as recorded in the launcher; [] without one or if it was edited."""
    lines = read(path).split("\n", 3)
    if not is_launcher(path) or len(lines) < 3 or not lines[2].startswith(_MADE):
        return []
    try:
        found = json.loads(lines[2].removeprefix(_MADE))
    except ValueError:
        return []
    return [each for each in found if isinstance(each, str) and each.startswith("/")] if isinstance(found, list) else []


def import_folders() -> list[str]:
    """Returns the folders to import this package and its dependencies from, each once and absolute.

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
    """Yields the folders of ``name`` and of its requirements. Those for other versions of Python are not installed."""
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


def hook_entry(launcher: str, arguments: Sequence[str], *variables: str) -> dict[str, object]:
    """Returns the hook entry for hooks.d and CDI, with OCI's members. ``variables`` are added to its environment."""
    return {
        "path": launcher,
        "args": [NAME, *arguments],
        "env": [*ENVIRONMENT, *variables],
        "timeout": TIMEOUT_SECONDS,
    }


def is_launcher(path: str) -> bool:
    """Whether a file is a launcher that ``install`` wrote."""
    return read(path).split("\n", 2)[1:2] == [MARK]


def fault(path: str) -> str:
    """Returns why no runtime can start the program of a hook at ``path``, or why it binds nothing; "" if it is fine.

    The Python or the package of a launcher may be missing, as after a virtual environment was deleted, or the launcher
    may be turned off as docs/ENGINES.md describes. See also ``hidden``.
    """
    if not os.path.isabs(path):
        return f'"{path}" is not an absolute path'
    if place := hidden(path):
        step = "install the package where all users can read it, then run install again as root"
        return _with_step(
            path, f"this user cannot read {place}, so rootless containers of this user cannot run {path}", step
        )
    if not os.path.lexists(path):
        return _with_step(path, f"{path} does not exist")
    if not os.path.isfile(path):
        return f"{path} is not a file"
    if not os.stat(path).st_mode & 0o111:
        return f"{path} is not executable"
    interpreter = interpreter_of(path)
    if interpreter and not os.path.isfile(interpreter):
        return _with_step(path, f"{interpreter}, the interpreter in the first line of {path}, does not exist")
    if not is_launcher(path):
        return ""
    folders = _imports(path)
    if folders is None:
        return f"{path} has been turned off, and binds nothing: run install again"
    # An entry is a folder, or a single file, which is an archive with everything in it.
    if not folders or any(map(os.path.isfile, folders)):
        return ""
    for name, part in _PARTS.items():
        if not any(os.path.exists(os.path.join(each, part)) for each in folders):
            missing = f"the package in {folders[0]}" if name == NAME else f"the package {name}"
            return f"{path} requires {missing}, which was removed; install it, then run install again"
    return ""


def _with_step(path: str, problem: str, step: str = "run install again") -> str:
    """Returns ``problem`` with the ``step`` that solves it, if this package installs a program of this name."""
    return f"{problem}: {step}" if os.path.basename(path) == NAME else problem


def hidden(path: str) -> str:
    """Returns the outermost folder or file that keeps this user from running the program of a hook, "" for none.

    The program, its interpreter and what it imports may be in a folder that only root can search, such as /root.
    """
    needed = [path, interpreter_of(path), *((_imports(path) or ()) if is_launcher(path) else ())]
    return next(filter(None, map(_unreadable, (each for each in needed if each and "\0" not in each))), "")


def _unreadable(path: str) -> str:
    """Returns the outermost folder or file of ``path``, links followed, that denies this user access, "" for none."""
    for place in _places(path):
        try:
            mode = os.stat(place).st_mode
        except OSError:
            return ""  # it is missing: what is above it can be searched
        if not os.access(place, os.X_OK if stat.S_ISDIR(mode) else os.R_OK, effective_ids=True):
            return place
    return ""


def _places(path: str) -> Iterator[str]:
    """Yields the folders above ``path`` and ``path``, and the same of the path with all links followed."""
    for way in (path, os.path.realpath(path)):
        steps = way.split("/")
        yield from ("/".join(steps[:number]) for number in range(2, len(steps) + 1))


def is_turned_off(path: str) -> bool:
    """Whether containers start without their binds, since a launcher was turned off as docs/ENGINES.md describes."""
    return is_launcher(path) and _imports(path) is None


def runs_this(path: str) -> bool:
    """Whether a launcher runs this installation of the program, not one in another folder."""
    return is_launcher(path) and os.path.dirname(os.path.abspath(FOLDER)) in (_imports(path) or ())


def _imports(path: str) -> list[str] | None:
    """Returns the folders that a launcher imports from, None if it has been turned off, [] if it has been edited."""
    line = next((line for line in read(path).split("\n") if line.startswith(_FOLDERS)), None)
    if line is None:
        return None
    try:
        return [each for each in ast.literal_eval(line.removeprefix(_FOLDERS)) if isinstance(each, str)]
    except (ValueError, SyntaxError, TypeError, RecursionError):
        return []


def prefix_of(path: str) -> str:
    """Returns the prefix of a launcher, "" if ``install`` does not write to such a path."""
    return path.removesuffix(f"/{LAUNCHER_PATH}") if path.endswith(f"/{LAUNCHER_PATH}") else ""


def home() -> tuple[str, str]:
    """Returns the virtual environment that the hook runs from and the command that deletes it; "" and "" for none."""
    if sys.prefix == sys.base_prefix:
        return "", ""
    commands = {"pipx_metadata.json": "pipx uninstall", "uv-receipt.toml": "uv tool uninstall"}
    known = (command for name, command in commands.items() if os.path.isfile(os.path.join(sys.prefix, name)))
    return sys.prefix, next(known, "rm -r")


def interpreter_of(path: str) -> str:
    """Returns the interpreter in the #! line of a script, "" if the file is no script."""
    try:
        # A pipe with the name of a hook would block open(2) until another process writes to it.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            line = file.readline(256) if os.path.isfile(fd) else b""
    except OSError:
        return ""
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def closed(path: str) -> str:
    """Returns the outermost folder or file of ``path``, links followed, that denies other users access, "" for none."""
    for place in _places(path):
        try:
            mode = os.stat(place).st_mode
        except OSError:
            return place
        # A file must be readable, a folder searchable.
        if not mode & (0o001 if stat.S_ISDIR(mode) else 0o004):
            return place
    return ""
