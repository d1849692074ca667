# SPDX-License-Identifier: Apache-2.0
"""Files that install and uninstall write and remove, and what was done to each."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile

from ...errors import HookError, KernelError
from ...kernel.errnos import refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Literal

    Action = Literal["wrote", "replaced", "unchanged", "removed"]

    # The mode and the text of a file to write.
    Content = tuple[int, str]


class Change(str):
    """The path of a file with the ``action`` that was taken. ``before``: what a replaced file registered."""

    __slots__ = ("action", "before")

    action: Action
    before: str

    def __new__(cls, path: str, action: Action, before: str = "") -> Change:
        """Creates the string, and sets its attributes."""
        change = super().__new__(cls, path)
        change.action, change.before = action, before
        return change

    def line(self) -> str:
        """Returns the change as one line of text."""
        return f"{self.action} {self}{f', which registered {self.before}' if self.before else ''}"


def write_all(contents: Mapping[str, Content], before: Mapping[str, str] | None = None) -> list[Change]:
    """Writes all files or none: after a failure, restores what was there. Raises KernelError.

    Each file is replaced in one step, but a file that is already right is not touched. ``before`` has what existing
    files register.
    """
    changes: list[Change] = []
    restore: list[Callable[[], None]] = []
    folders = missing_folders(contents)
    try:
        for path, (mode, text) in contents.items():
            if _is_right(path, mode, text):
                changes.append(Change(path, "unchanged"))
                continue
            is_new, back = not os.path.lexists(path), _restorer(path)
            _write(path, mode, text)
            restore.append(back)
            changes.append(Change(path, "wrote") if is_new else Change(path, "replaced", (before or {}).get(path, "")))
    except BaseException:
        for step in reversed(restore):
            with contextlib.suppress(OSError, HookError):
                step()
        remove_folders(folders)
        raise
    return changes


def missing_folders(paths: Iterable[str]) -> list[str]:
    """Returns the folders above ``paths`` that do not exist, the outer first."""
    found = set()
    for path in paths:
        folder = os.path.dirname(path)
        while not os.path.lexists(folder):
            found.add(folder)
            folder = os.path.dirname(folder)
    return sorted(found)


def remove_folders(paths: Iterable[str]) -> list[Change]:
    """Removes those of the folders that are empty, the inner first. Anything else stays."""
    removed = []
    for path in sorted(paths, reverse=True):
        with contextlib.suppress(OSError):
            os.rmdir(path)
            removed.append(Change(f"{path}/", "removed"))
    return removed


def remove(path: str) -> Change:
    """Removes a file. Raises KernelError."""
    try:
        os.unlink(path)
    except OSError as error:
        raise denied("remove", path, error) from error
    return Change(path, "removed")


AS_ROOT = "run it as root"
_ELSEWHERE = "or with folders of your own: --prefix ~/.local, --hooks-dir, --cdi-dir"


def denied(call: str, path: str, reason: OSError, hint: str = f"{AS_ROOT}, {_ELSEWHERE}") -> KernelError:
    """Returns the error for ``call`` being refused on ``path``. An ordinary user also gets ``hint``."""
    if os.geteuid() != 0 and reason.errno in (errno.EACCES, errno.EPERM):
        return KernelError(call, path, reason, hint=hint)
    return refused(call, path, reason)


def existing(path: str) -> str:
    """Returns ``path`` or the nearest folder above it that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def read(path: str, most: int = 1 << 20) -> str:
    """Returns the first ``most`` characters of a regular file (-1: all), "" for anything else."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, encoding="utf-8", errors="replace", newline="") as file:
            return file.read(most) if os.path.isfile(fd) else ""
    except OSError:
        return ""


def is_taken(path: str) -> bool:
    """Whether a regular file exists that another program may have written. A link is replaced, not followed."""
    return os.path.isfile(path) and not os.path.islink(path)


def _is_right(path: str, mode: int, text: str) -> bool:
    return is_taken(path) and stat.S_IMODE(os.lstat(path).st_mode) == mode and read(path, -1) == text


def _write(path: str, mode: int, text: str) -> None:
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
        raise denied("write", path, error) from error


def _restorer(path: str) -> Callable[[], None]:
    """Returns a function that restores what is at ``path`` now: nothing, a link or a file."""

    def forget() -> None:
        os.unlink(path)

    def link() -> None:
        os.unlink(path)
        os.symlink(target, path)

    def rewrite() -> None:
        _write(path, mode, text)

    if os.path.islink(path):
        target = os.readlink(path)
        return link
    if not os.path.isfile(path):
        return forget
    mode, text = stat.S_IMODE(os.lstat(path).st_mode), read(path, -1)
    return rewrite
