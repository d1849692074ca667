# SPDX-License-Identifier: Apache-2.0
"""Whether a source that an annotation names lies below a folder that the administrator allows.

Who writes annotations may know nothing of the host. So what is elsewhere is refused in the same words whether it is
there or not: by its name before it is looked for, and else by where its links lead.
"""

from __future__ import annotations

import os

from ..errors import EscapeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..requests.request import Request


def open_allowed(request: Request, folders: Sequence[str], real_path: Callable[[int], str]) -> int:
    """The source of a request, held by fd, if it is below one of ``folders``; ``real_path`` tells where an fd leads.

    OSError for what is not there, EscapeError for what is not below them, be it there or not.
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
    """EscapeError where a pattern, glob(7), names anything that is not below ``folders``, or would look elsewhere."""
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
    # What .. means depends on links that may be anywhere.
    if ".." in path.split("/"):
        return False
    return _is_below(os.path.normpath("/" + path.lstrip("/")), [*folders, *_real(folders)])


def _real(folders: Sequence[str]) -> list[str]:
    return [os.path.realpath(folder) for folder in folders]


def _is_below(path: str, folders: Sequence[str]) -> bool:
    return any(path == folder or path.startswith(folder.rstrip("/") + "/") for folder in folders)
