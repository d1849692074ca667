# SPDX-License-Identifier: Apache-2.0
"""The root of a container that runs: how much of a mount table the container can have read."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from oci_bind_hook.errors import UnavailableError
from oci_bind_hook.kernel.namespace import Namespace
from oci_bind_hook.kernel.proc import Proc
from oci_bind_hook.rootfs import inside

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_read_of_mount_tables_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    depth = 9
    deep = str(tmp_path)
    for number in range(depth):
        mounting.tmpfs(deep)
        deep = f"{deep}/{number}"
        os.mkdir(deep)
    each = len(list(mounting.table())) + inside._MORE_LINES

    def walk() -> inside.Inside:
        root = inside.Inside("/", Namespace(Proc(), "container"), unlock=False)
        for _ in range(2):  # the second time nothing is read
            root.resolve(deep).close()
        return root

    before = len(walk()._entered)
    monkeypatch.setattr(inside, "_MOST_LINES", each * (before - 1))
    walk().close()
    monkeypatch.setattr(inside, "_MOST_LINES", each * (before - 1) - 1)
    with pytest.raises(UnavailableError, match=f"crosses too many mounts: {before - 1} so far"):
        walk()
