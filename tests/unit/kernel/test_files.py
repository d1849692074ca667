# SPDX-License-Identifier: Apache-2.0
"""Paths without links: as the kernel resolves them, and by the names that stand there."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from helpers.mounting import plant
from helpers.rival import Rival
from oci_bind_hook.kernel import files

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from helpers.mounting import Tree

TREE: Tree = {
    "a": {"b": {"file": b""}, "up": "..", "to b": "b", "back": "../a/to b/../b"},
    "other": {"b": "../a/to b", "dots": ".././//other/./b"},
    "loop": "loop",
    "there": "loop/x",
    "dangling": "absent",
    "0": {},
    **{str(number): str(number - 1) for number in range(1, 42)},
}
SAME = [
    "",
    "a",
    "a/b/file",
    "a/up",
    "a/up/a/to b/..",
    "a/out/b/file",
    "a/back/file",
    "other/dots",
    "a//./b/",
    "40",
    "2/..",
]
REFUSED = {
    "absent": errno.ENOENT,
    "absent/..": errno.ENOENT,
    "dangling": errno.ENOENT,
    "dangling/..": errno.ENOENT,
    "a/b/file/..": errno.ENOTDIR,
    "a/b/file/x": errno.ENOTDIR,
    "loop": errno.ELOOP,
    "there": errno.ELOOP,
    "41": errno.ELOOP,
    "a/" + "x" * 256: errno.ENAMETOOLONG,
}


@pytest.fixture
def tree(tmp_path: Path) -> str:
    root = plant(tmp_path / "tree", TREE)
    os.symlink(f"{root}/other", f"{root}/a/out")
    return root


@pytest.mark.parametrize("path", SAME)
def test_a_path_is_the_one_that_the_kernel_finds(tree: str, path: str) -> None:
    """Its name has no link in it, and is that of the very same file."""
    real = files.real_path(f"{tree}/{path}")
    assert real == os.path.realpath(f"{tree}/{path}", strict=True)
    # If something is mounted at that moment, the kernel walks a path twice, and counts its links twice: by chance, more
    # than 20 are too many for it.
    if path != "40":
        assert os.path.samefile(real, f"{tree}/{path}")


def refusal(call: Callable[[str], object], path: str) -> int | None:
    """The errno with which ``call`` refuses ``path``, None if it does not."""
    try:
        call(path)
    except OSError as reason:
        return reason.errno
    return None


@pytest.mark.parametrize("path", REFUSED)
def test_what_the_kernel_does_not_find_is_refused_as_by_the_kernel(tree: str, path: str) -> None:
    assert refusal(files.real_path, f"{tree}/{path}") == refusal(os.stat, f"{tree}/{path}") == REFUSED[path]


@pytest.mark.parametrize("folder", ["/", "/a", "/a/", "/a//"])
@pytest.mark.parametrize("path", ["b", "/b", ".", "../c", "b/"])
def test_below_a_folder_is_as_os_path_has_it(folder: str, path: str) -> None:
    assert files.below(folder, path) == os.path.join(folder, path)


def test_the_root_is_its_own_path_and_has_nothing_above_it() -> None:
    assert [files.real_path(path) for path in ("/", "//", "/..", "/../.", "/./..")] == ["/"] * 5


def test_a_folder_that_is_renamed_at_this_moment_keeps_the_name_it_was_asked_for_by(tmp_path: Path) -> None:
    """The state file would name the other folder, and poststop would find nothing to undo in it."""
    one, other = plant(tmp_path / "one", {}), plant(tmp_path / "other", {})
    with Rival(one, other) as rival, rival.at_work():
        while rival.swaps < 2000:
            assert files.real_path(one) == one
