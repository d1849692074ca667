# SPDX-License-Identifier: Apache-2.0
"""Finds a bundle that the runtime has lost.

crun, from 1.8 to 1.28 at least, enters another mount namespace to create devices for a container with its own user
namespace. This changes its working folder from the bundle to ``/``, which it then passes to hooks as the bundle. The
command line of crun still contains the right one.

Loaded only for a state with such a bundle, before setns(2).
"""

from __future__ import annotations

import sys

from ..documents.bundle import read_regular
from ..documents.strictjson import documents
from ..errors import HookError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..documents.oci import State
    from ..kernel.proc import Proc


def find(state: State, proc: Proc) -> tuple[str, object] | None:
    """The bundle of a container and its config.json if both are certain, otherwise None.

    The bundle is the absolute path in the command line of the runtime, an ancestor of this process, which must also
    contain the container's id. Its config.json must register this call, with the same arguments.
    """
    for arguments in _of_ancestors(proc):
        if state.id in arguments and (bundle := _bundle(arguments)).startswith("/"):
            try:
                document = documents(read_regular(f"{bundle}/config.json"), "config.json")[0]
            except HookError:
                return None
            return (bundle, document) if _registers(document, sys.argv[1:]) else None
    return None


def _of_ancestors(proc: Proc) -> Iterator[Sequence[str]]:
    """The command line of each ancestor of this process, its parent first, as far as procfs shows them."""
    above: list[int] = []
    try:
        while (pid := proc.parent(above[-1] if above else None)) > 0:
            above.append(pid)
            arguments = proc.arguments(pid)
            # If one of them has ended, its child has another parent now. So a reused pid is noticed without a pidfd.
            if any(proc.parent(child) != parent for child, parent in zip([None, *above], above, strict=False)):
                return
            yield arguments
    except OSError:
        return  # under hidepid, proc(5)


def _bundle(arguments: Sequence[str]) -> str:
    """The bundle in a command line of a runtime or of conmon(8), "" if there is none."""
    found = ""
    for number, word in enumerate(arguments):
        if word in ("-b", "--bundle"):
            found = "".join(arguments[number + 1 : number + 2])
        elif word.startswith("--bundle="):
            found = word.partition("=")[2]
    return found


def _registers(document: object, words: Sequence[str]) -> bool:
    """Whether a config.json calls a hook with these arguments, at any stage."""
    stages = document.get("hooks") if isinstance(document, dict) else None
    for entries in stages.values() if isinstance(stages, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            # Without args, a hook is called with its path only.
            args = entry.get("args", [""]) if isinstance(entry, dict) else None
            # Other arguments may precede them, such as timeout(1) and its own.
            if isinstance(args, list) and len(args) > len(words) and args[len(args) - len(words) :] == [*words]:
                return True
    return False
