# SPDX-License-Identifier: Apache-2.0
"""The input from the runtime: the state on stdin, and the bundle with its config and rootfs.

Each file is opened and read once, so that replacing it later has no effect.

Loaded by every start of a container: import only posix and time. Importing json and pathlib takes longer than the work.
"""

from __future__ import annotations

import posix
import stat as modes
import time

from ..errors import DataError, MissingError, UsageError
from ..kernel import files, linux
from ..kernel.errnos import hint, message, unopened
from . import oci
from .strictjson import MAX_BYTES, documents

# Less than the timeout of a registered hook (install), after which the runtime kills it without a reason.
STDIN_SECONDS = 20.0

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


class Bundle:
    """A bundle's config and rootfs, by their paths on the host.

    ``document`` is the config if the runtime sent it on stdin; otherwise config.json is read. With ``whole`` the entire
    document is stored in ``document`` and its schema violations in ``violations``; otherwise only what the hook uses is
    validated. ``real_path`` resolves the rootfs. Raises MissingError, and DataError if a used part is invalid.
    """

    def __init__(
        self,
        path: str,
        document: object | None = None,
        *,
        whole: bool = False,
        real_path: Callable[[str], str] = files.real_path,
    ) -> None:
        self.path = path
        try:
            self.stat = posix.stat(path)
        except OSError as reason:
            raise unopened(f"the bundle {path}", reason) from reason
        if document is None:
            document = documents(_read_config(path), "config.json")[0]
        self.document = document if whole else None
        self.violations = oci.config_violations(document) if whole else []
        try:
            self.config = oci.config(document)
        except DataError as problem:
            raise (DataError("config.json", self.violations) if whole else problem) from None
        rootfs = files.below(path, self.config.root_path)
        try:
            self.rootfs = real_path(rootfs)
        except OSError as reason:
            raise unopened(f"the rootfs {rootfs}", reason) from reason
        self.has_namespace = "mount" in self.config.namespaces


def _read_config(bundle: str) -> bytes:
    try:
        return read_regular(f"{bundle}/config.json")
    except MissingError as problem:
        if isinstance(problem.__cause__, FileNotFoundError):
            problem.hint = "crun --config uses another file and does not pass its name to hooks"
            if bundle == "/":
                problem.problem = (
                    "the runtime has lost the bundle: the state has / as the bundle, which has no config.json"
                )
                problem.hint = (
                    "crun does this when it creates devices for a user namespace: pass it --bundle "
                    "with an absolute path, "
                    "register the hook for createContainer, or use runc"
                )
        raise


def read_regular(path: str) -> bytes:
    """The content of a regular file, at most MAX_BYTES + 1 bytes. Raises MissingError."""
    try:
        # O_NONBLOCK: a FIFO instead of config.json must not block the hook.
        fd = posix.open(path, posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError as reason:
        raise unopened(path, reason) from reason
    try:
        if not modes.S_ISREG(posix.fstat(fd).st_mode):
            raise MissingError(f"{path} is not a regular file")
        return read_all(fd)
    except OSError as reason:
        raise MissingError(f"{path} cannot be read: {reason.strerror}", hint=hint("read", reason)) from reason
    finally:
        posix.close(fd)


def read_all(fd: int, wait: Callable[[], object] = lambda: None) -> bytes:
    """The rest of the content of ``fd``, at most MAX_BYTES + 1 bytes, which shows that it is too large. Raises OSError.

    ``wait`` is called before each read(2).
    """
    chunks = []
    left = MAX_BYTES + 1
    while left:
        wait()
        chunk = posix.read(fd, min(left, 1 << 16))
        if not chunk:
            break
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)


def read_stdin() -> bytes:
    """The rest of stdin, as ``read_all``. Raises UsageError if reading fails or stdin is open after STDIN_SECONDS."""
    end = time.monotonic() + STDIN_SECONDS

    def wait() -> None:
        left = end - time.monotonic()
        if left <= 0 or not linux.wait_readable(0, left):
            problem = f"stdin is still open after {STDIN_SECONDS:.0f} seconds, so the state may be incomplete"
            raise UsageError(problem, hint="the process that writes the state must close stdin")

    try:
        return read_all(0, wait)
    except OSError as reason:
        raise UsageError(f"the state cannot be read from stdin: {message('read', reason)}") from reason


def read_state(data: bytes) -> tuple[oci.State, object | None]:
    """The state from ``data``, and the config if a second document follows it, otherwise None. Raises DataError."""
    found = documents(data, "state", most=2)
    return oci.state(found[0]), found[1] if len(found) > 1 else None


def read_given() -> bytes:
    """The content of stdin. Raises UsageError, also if stdin is a terminal."""
    if posix.isatty(0):
        raise UsageError(
            "stdin is a terminal, but the hook reads the state from stdin",
            hint="to explain a bundle, use --dry-run --bundle DIR; see --help",
        )
    return read_stdin()
