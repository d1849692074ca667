# SPDX-License-Identifier: Apache-2.0
"""A rootfs whose links lead everywhere: up, around, to nothing, and in circles."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from helpers.mounting import Tree

LONG = "n" * 255

TREE: Tree = {
    "etc": {"passwd": b"root\n", "x": {}, "y": b""},
    "real": {"conf": {}, "deep": {"er": {}}},
    "file": b"",
    LONG: {},
    "\udcff\udcfe": {"caf\xe9": b""},
    "absolute": "/real",
    "relative": "real/conf",
    "climbing": "../../../../real",
    "back": "real/deep/er/../..",
    "folder-slash": "real/",
    "file-slash": "file/",
    "to-file": "file",
    "dangling": "/absent/place",
    "a": {"dangling": "c/d", "climbing": "../../../etc", "self": "/a/self"},
    "absent-and-back": "absent/../real",
    "self": "self",
    "two": "owt",
    "owt": "/two",
    "hop1": "hop2",
    "hop2": "/hop3",
    "hop3": "a/../hop4",
    "hop4": "../hop1",
    "lx": "etc/x",
    "root": "/",
    "root-dot": ".",
    "root-above": "a/../../..",
    "non-utf8": "\udcff\udcfe/caf\xe9",
    "chain1": "real",
    **{f"chain{n}": f"chain{n - 1}" for n in range(2, 42)},
    # Each follows twice as many links as the one before: 1, 3, 7, 15, 31, 63, ...
    "bomb0": ".",
    **{f"bomb{n}": f"bomb{n - 1}/bomb{n - 1}" for n in range(1, 31)},
}
