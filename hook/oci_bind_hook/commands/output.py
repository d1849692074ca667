# SPDX-License-Identifier: Apache-2.0
"""The output of commands: the answer to stdout, remarks to stderr."""

from __future__ import annotations

import os

from ..kernel.errnos import refused
from ..log import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .engines.written import Change


def answer(text: str) -> None:
    """Writes to stdout, independent of the locale. Raises KernelError, but not for a pipe without a reader."""
    rest = text.encode(errors="backslashreplace")
    try:
        while rest:
            rest = rest[os.write(1, rest) :]
    except BrokenPipeError:
        pass  # the reader, such as head(1), has read enough; the command still completes its work
    except OSError as reason:
        raise refused("write", "stdout", reason) from reason


def warn(remarks: Iterable[str]) -> None:
    """Prints each remark as a line on stderr."""
    for remark in remarks:
        tell(f"warning: {remark}")


def tell_changes(changes: Iterable[Change]) -> None:
    """Prints on stdout what was done to files. Raises KernelError."""
    for change in changes:
        answer(f"{one_line(change.line())}\n")


def tell(remark: str) -> None:
    """Prints a line on stderr, so that stdout only has the answer, or what was done to files."""
    try:
        os.write(2, f"oci-bind-hook: {one_line(remark)}\n".encode(errors="backslashreplace"))
    except OSError:
        pass  # stderr has no reader
