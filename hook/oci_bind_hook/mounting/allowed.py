# SPDX-License-Identifier: Apache-2.0
"""Sources of annotations: only those below a folder that the administrator allows.

The author of an annotation must learn nothing about the host. So a source elsewhere is refused with the same message
whether it exists or not: by its name, before it is looked up, and otherwise by where its links lead.

Loaded only if annotations are allowed, before setns(2): it imports only os, and glob for a pattern.
"""

from __future__ import annotations

import os

from ..errors import EscapeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..requests.request import Request


def open_allowed(request: Request, folders: Sequence[str], real_path: Callable[[int], str]) -> int:
    """An fd of the source of a request, if it is below one of ``folders``. ``real_path`` returns the path of an fd.

    Raises OSError if it is below them and cannot be opened, and EscapeError if it is elsewhere, existing or not.
    """
    path = request.source
    if not _is_named_below(path, folders):
        raise _refused(request)
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        if not _is_below(os.path.realpath(path), _real(folders)):
            raise _refused(request) from None
        raise
    if not _is_below(real_path(fd), _real(folders)):
        os.close(fd)
        raise _refused(request)
    return fd


def check_pattern(request: Request, folders: Sequence[str]) -> None:
    """Checks that a pattern, glob(7), matches only below ``folders`` and reads no other folder. Raises EscapeError."""
    import glob

    written = [glob.escape(folder) for folder in folders]
    if not _is_named_below(request.source, written):
        raise _refused(request)
    names = request.source.split("/")
    for part in ("/".join(names[:end]) for end in range(2, len(names) + 1)):
        if _is_named_below(part, written):
            for match in glob.glob(part):
                if not _is_below(os.path.realpath(match), _real(folders)):
                    raise _refused(request)


def _refused(request: Request) -> EscapeError:
    problem = f"no --allow-source allows the source {request.source}"
    return EscapeError(problem, where=request.at("source"), hint="links are followed")


def _is_named_below(path: str, folders: Sequence[str]) -> bool:
    # Where ".." leads depends on links, so a path with one cannot be judged by its name.
    if ".." in path.split("/"):
        return False
    return _is_below(os.path.normpath("/" + path.lstrip("/")), [*folders, *_real(folders)])


def _real(folders: Sequence[str]) -> list[str]:
    return [os.path.realpath(folder) for folder in folders]


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
