# SPDX-License-Identifier: Apache-2.0
"""A word that may be a container, where a file system is mounted that may not answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers.fuse import Fuse
from oci_bind_hook.commands.explain.by_name import find_in_time
from oci_bind_hook.errors import HookError

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_in_the_current_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    word = "no name"  # about which no engine is asked
    (tmp_path / word).mkdir()
    monkeypatch.chdir(tmp_path)
    with Fuse(str(tmp_path / "fuse")), pytest.raises(HookError) as caught:
        find_in_time(word, str(tmp_path / "state"))
    assert caught.value.hint == f"for the one in the current folder, use ./{word}"
