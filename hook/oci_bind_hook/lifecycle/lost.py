# SPDX-License-Identifier: Apache-2.0
"""A bundle that the runtime has lost, found again.

crun, from 1.8 to 1.29 at least, enters another mount namespace to make devices for a container with a user namespace of
its own. That takes it from the bundle, its working folder, to ``/``, and it tells hooks that the bundle is there. What
it was started with still says which one is meant.

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
    """The bundle of a container and its config.json, if both are certain; else None.

    The bundle is the one that the runtime, an ancestor of this process, was told in one command line with the
    container's id, by an absolute path. Its config.json must register this very call, with the same arguments.
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
    """The command line of each ancestor of this process, the next first, as far as procfs shows them."""
    above: list[int] = []
    try:
        while (pid := proc.parent(above[-1] if above else None)) > 0:
            above.append(pid)
            arguments = proc.arguments(pid)
            # If one of them has ended, its child has another parent by now: that tells a process from a later one of
            # its number, and no pidfd is needed.
            if any(proc.parent(child) != parent for child, parent in zip([None, *above], above, strict=False)):
                return
            yield arguments
    except OSError:
        return  # under hidepid, proc(5)


def _bundle(arguments: Sequence[str]) -> str:
    """The bundle that a command line of a runtime, or of conmon(8), names; "" if it names none."""
    found = ""
    for number, word in enumerate(arguments):
        if word in ("-b", "--bundle"):
            found = "".join(arguments[number + 1 : number + 2])
        elif word.startswith("--bundle="):
            found = word.partition("=")[2]
    return found


def _registers(document: object, words: Sequence[str]) -> bool:
    """Whether a config.json calls a hook with these arguments, at whatever stage."""
    stages = document.get("hooks") if isinstance(document, dict) else None
    for entries in stages.values() if isinstance(stages, dict) else ():
        for entry in entries if isinstance(entries, list) else ():
            args = entry.get("args") if isinstance(entry, dict) else None
            # Something may stand before them, such as timeout(1) with its own.
            if isinstance(args, list) and len(args) > len(words) and args[len(args) - len(words) :] == [*words]:
                return True
    return False
