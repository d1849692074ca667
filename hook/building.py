# SPDX-License-Identifier: Apache-2.0
"""Building the package, of which this is no part: the commit is written into it, for `--version`."""

from __future__ import annotations

import os

from setuptools.command.build_py import build_py

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class BuildWithCommit(build_py):  # type: ignore[misc]
    """The package, and in it a file `commit` where that is known."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode and (found := commit(HERE)):
            with open(os.path.join(self.build_lib, "oci_bind_hook", "commit"), "w", encoding="ascii") as file:
                file.write(f"{found}\n")


def commit(tree: str) -> str:
    """The commit checked out in ``tree``, gitrepository-layout(5), without git; empty where there is none."""
    folder = os.path.join(tree, ".git")
    if os.path.isfile(folder):  # of a further work tree
        folder = os.path.join(tree, _text(folder).removeprefix("gitdir:").strip())
    head = _text(os.path.join(folder, "HEAD")).strip()
    if not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    common = os.path.join(folder, _text(os.path.join(folder, "commondir")).strip())
    if found := _text(os.path.join(common, name)).strip():
        return found
    packed = (line.split() for line in _text(os.path.join(common, "packed-refs")).splitlines())
    return next((words[0] for words in packed if words[1:] == [name]), "")


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""
