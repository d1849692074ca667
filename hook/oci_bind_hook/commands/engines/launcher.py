# SPDX-License-Identifier: Apache-2.0
"""The launcher: a small program that runs this package, with every path in it. Engines call it as the hook.

It is a copy of no code: it finds this package where it is now. It runs isolated (`python -IS`), since the environment
it is started with may be an image's, and so has to know by itself every folder to import from.
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
# Not empty: only then does no runtime fall back on the image's own environment.
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)

LAUNCHER_PATH = "libexec/oci/hooks.d/oci-bind-hook"  # below the prefix

# BINPRM_BUF_SIZE before Linux 5.1, less the byte that ends it.
SHEBANG_BYTES = 127

DEPENDENCIES = ("jsonschema", "python-prctl")

MARK = "# Written by `oci-bind-hook install`, which also replaces it."
_MADE = "# Folders that it made, which uninstall removes if they are empty: "
# Short, since Python compiles it at each start: what can stand in a module does.
_FOLDERS = "sys.path += "
LAUNCHER = """\
#!{interpreter} -IS
{mark}{made}
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


def launcher_text(interpreter: str, folders: Sequence[str], made: Sequence[str] = ()) -> str:
    """The launcher's source: what it imports from, and which folders install has ``made``.

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
    """The folders that install has made, as a launcher notes them; none if there is none, or somebody has edited it."""
    lines = read(path).split("\n", 3)
    if not is_launcher(path) or len(lines) < 3 or not lines[2].startswith(_MADE):
        return []
    try:
        found = json.loads(lines[2].removeprefix(_MADE))
    except ValueError:
        return []
    return [each for each in found if isinstance(each, str) and each.startswith("/")] if isinstance(found, list) else []


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


def hook_entry(launcher: str, arguments: Sequence[str], *variables: str) -> dict[str, object]:
    """How a file names this hook, in hooks.d and in CDI: OCI's members. It gets ``variables`` besides its own."""
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
    """Why no container starts by the launcher at ``path``, or why none gets a bind, "" if nothing is wrong with it.

    Its Python or its package is gone, as after a virtual environment was deleted; or somebody has turned it off, as
    docs/ENGINES.md says.
    """
    interpreter = interpreter_of(path)
    if interpreter and not os.path.isfile(interpreter):
        return f"{interpreter}, the interpreter in the first line of {path}, does not exist: run install again"
    if not is_launcher(path):
        return ""
    folders = _imports(path)
    if folders is None:
        return f"{path} has been turned off, and binds nothing: install again"
    # A folder, or a single file, which is an archive.
    if folders and not any(
        os.path.isfile(each) or os.path.isdir(os.path.join(each, "oci_bind_hook")) for each in folders
    ):
        return (
            f"{path} finds no package in {', '.join(folders[:1])}: "
            "it was removed; install the package, then run install again"
        )
    return ""


def runs_this(path: str) -> bool:
    """Whether a launcher runs this installation of the program, and not that of another folder."""
    return is_launcher(path) and os.path.dirname(os.path.abspath(FOLDER)) in (_imports(path) or ())


def _imports(path: str) -> list[str] | None:
    """The folders that a launcher imports from: None if it has been turned off, none if it has been edited."""
    line = next((line for line in read(path).split("\n") if line.startswith(_FOLDERS)), None)
    if line is None:
        return None
    try:
        return [each for each in ast.literal_eval(line.removeprefix(_FOLDERS)) if isinstance(each, str)]
    except (ValueError, SyntaxError, TypeError, RecursionError):
        return []


def prefix_of(path: str) -> str:
    """The prefix of a launcher, "" if its path is not one that ``install`` writes to."""
    return path.removesuffix(f"/{LAUNCHER_PATH}") if path.endswith(f"/{LAUNCHER_PATH}") else ""


def home() -> tuple[str, str]:
    """The virtual environment that the hook runs from, and the command that deletes it: "" and "" if it is in none."""
    if sys.prefix == sys.base_prefix:
        return "", ""
    commands = {"pipx_metadata.json": "pipx uninstall", "uv-receipt.toml": "uv tool uninstall"}
    known = (command for name, command in commands.items() if os.path.isfile(os.path.join(sys.prefix, name)))
    return sys.prefix, next(known, "rm -r")


def interpreter_of(path: str) -> str:
    """The interpreter of a script, from its #! line. Empty if the file is no script."""
    try:
        with open(path, "rb") as file:
            line = file.readline(256)
    except OSError:
        return ""
    words = line[2:].split() if line.startswith(b"#!") else []
    return os.fsdecode(words[0]) if words else ""


def closed(path: str) -> str:
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
