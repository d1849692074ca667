# SPDX-License-Identifier: Apache-2.0
"""Building the package, of which this is no part: the commit is written into it, for `--version`, and the man pages."""

from __future__ import annotations

import os
import shutil
import sys

from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

# After setuptools, which puts its own in the place of the one that newer Pythons lack.
from distutils.command.install_data import install_data  # isort: skip

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import manual

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class BuildWithCommit(build_py):  # type: ignore[misc]
    """The package, and in it a file `commit` where that is known."""

    def run(self) -> None:
        # pip builds in the project's folder, where an earlier build may have left modules that the source has no more.
        if not self.editable_mode:
            shutil.rmtree(os.path.join(self.build_lib, "oci_bind_hook"), ignore_errors=True)
        super().run()
        if not self.editable_mode:
            write_commit(os.path.join(self.build_lib, "oci_bind_hook"))


class DataWithManual(install_data):
    """The files beside the package, and the man pages, which are made here."""

    def run(self) -> None:
        super().run()
        for name, text in manual.pages().items():
            folder = os.path.join(self.install_dir, f"share/man/man{name[-1]}")
            self.mkpath(folder)
            self.outfiles.append(os.path.join(folder, name))
            with open(self.outfiles[-1], "w", encoding="utf-8") as file:
                file.write(text)


class WholeSource(sdist):  # type: ignore[misc]
    """All that is needed to build, to test and to read."""

    def make_distribution(self) -> None:
        found = {"CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", ".ci/run"}
        for top in ("hook", "schemas", "tests", "examples", "docs"):
            # The link to the schemas becomes a folder.
            for folder, folders, files in os.walk(top, followlinks=True):
                folders[:] = [name for name in folders if name != "__pycache__" and not name.endswith(".egg-info")]
                found.update(os.path.join(folder, name) for name in files)
        self.filelist.files += sorted(found.difference(self.filelist.files))
        super().make_distribution()

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        write_commit(os.path.join(base_dir, "hook/oci_bind_hook"))


def write_commit(package: str) -> None:
    """Writes the file `commit` into a package where the commit is known; else one from an sdist stays."""
    if found := commit(HERE):
        with open(os.path.join(package, "commit"), "w", encoding="ascii") as file:
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
