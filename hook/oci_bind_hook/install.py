# SPDX-License-Identifier: Apache-2.0
"""Writes a launcher and the hooks.d file (oci-hooks(5)) that names it.

The launcher is a copy of no code: it finds this package where it is now. It runs isolated (`python -IS`), since the
environment it is started with may be an image's, and so has to know by itself every folder to import from.
"""

from __future__ import annotations

import compileall
import importlib.metadata
import json
import os
import re
import sys
import tempfile
from typing import TYPE_CHECKING

from .errors import KernelError, UnavailableError, UsageError
from .stage import STAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAUNCHER_PATH = "libexec/oci/hooks.d/oci-bind-hook"
REGISTRATION_PATH = "share/containers/oci/hooks.d/oci-bind-hook.json"

DEFAULT_STAGES = ("createRuntime", "poststop")
TIMEOUT_SECONDS = 30
# Not empty: only then does no runtime fall back on the image's own environment.
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin",)

# BINPRM_BUF_SIZE before Linux 5.1, less the byte that ends it.
SHEBANG_BYTES = 127

DEPENDENCIES = ("jsonschema", "python-prctl")

LAUNCHER = """\
#!{interpreter} -IS
# Written by `oci-bind-hook install`, which also replaces it.
import gc
import os
import sys

# Nothing lives long enough to be collected, and to look for it takes a sixth of Python's start.
gc.disable()
sys.dont_write_bytecode = True
sys.path += {folders}
# Python 3.14 asks for the home folder when it imports ctypes; without HOME that would ask all sources of users.
os.environ.setdefault("HOME", "/")
try:
    from oci_bind_hook import close_inherited, open_stdio

    # Before the other imports: libffi keeps a file of its own open, which must neither be closed nor be stdin.
    close_inherited()
    open_stdio()
    from oci_bind_hook.cli import main
except BaseException as error:
    reason = " ".join(f"{{type(error).__name__}}: {{error}}".split())
    try:
        os.write(2, f"oci-bind-hook: the installation is broken: {{reason}}\\n".encode(errors="backslashreplace"))
    finally:
        os._exit(os.EX_SOFTWARE)
code = main(sys.argv[1:])
try:
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.flush()
except OSError:
    code = code or os.EX_IOERR
# No finalisation of the interpreter: it costs time, and nothing can be imported any more from here on.
os._exit(code)
"""


def install(prefix: str, stages: Sequence[str] = (), arguments: Sequence[str] = ()) -> list[str]:
    """Install below ``prefix`` and return the paths written: the launcher, then the hooks.d file.

    ``stages`` are those to be called at (none: createRuntime and poststop), ``arguments`` what the hook is given at
    each of them. Installing again gives the same files. Raises UsageError, UnavailableError for an interpreter that
    no ``#!`` line can name, and KernelError.
    """
    if not prefix:
        raise UsageError("the prefix is empty", where="--prefix")
    unknown = [stage for stage in stages if stage not in STAGES]
    if unknown:
        raise UsageError(f"{unknown[0]!r} is no stage", where="--stages", hint=f"known: {', '.join(STAGES)}")
    launcher = os.path.join(os.path.abspath(prefix), LAUNCHER_PATH)
    registration = os.path.join(os.path.abspath(prefix), REGISTRATION_PATH)
    contents = {
        launcher: (0o755, launcher_text(sys.executable, import_folders())),
        registration: (0o644, registration_text(launcher, stages or DEFAULT_STAGES, arguments)),
    }
    umask = os.umask(0o022)
    try:
        for path, (mode, text) in contents.items():
            _write(path, mode, text)
        # Best effort: the launcher writes no byte code, and a read-only package folder merely starts slower.
        compileall.compile_dir(os.path.dirname(os.path.abspath(__file__)), quiet=2)
    finally:
        os.umask(umask)
    return list(contents)


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
    return LAUNCHER.format(interpreter=interpreter, folders=ascii(list(folders)))


def registration_text(launcher: str, stages: Sequence[str], arguments: Sequence[str]) -> str:
    """The hooks.d file, version 1.0.0 of oci-hooks(5). Raises UsageError for text that JSON cannot hold."""
    document = {
        "version": "1.0.0",
        "hook": {
            "path": launcher,
            "args": ["oci-bind-hook", *arguments],
            "env": list(ENVIRONMENT),
            "timeout": TIMEOUT_SECONDS,
        },
        "when": {"always": True},
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
    folders = [os.path.dirname(os.path.dirname(os.path.abspath(__file__)))]
    for name in DEPENDENCIES:
        found = list(_distribution_folders(name, set()))
        if not found:
            raise UnavailableError("not installed", where=name)
        folders += found
    return list(dict.fromkeys(folders))


def _distribution_folders(name: str, seen: set[str]) -> Iterator[str]:
    """Where ``name`` and what it requires are installed; what is not installed is a requirement of another Python."""
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


def _write(path: str, mode: int, text: str) -> None:
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
        raise KernelError("write", path, error) from error
