# SPDX-License-Identifier: Apache-2.0
"""Whether a config.json registers this very call of the hook."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, cast

import pytest

from oci_bind_hook.documents.oci import State
from oci_bind_hook.lifecycle import lost

if TYPE_CHECKING:
    from pathlib import Path

    from oci_bind_hook.kernel.proc import Proc

ENTRIES: dict[str, tuple[list[str], dict[str, Any], bool]] = {
    "the same arguments": (["createRuntime", "--debug"], {"args": ["x", "createRuntime", "--debug"]}, True),
    "something before them": (
        ["--debug"],
        {"args": ["timeout", "9", "x", "--debug"]},
        True,
    ),
    "others": (["--debug"], {"args": ["x", "--strict"]}, False),
    "more": (["--debug"], {"args": ["x", "--debug", "--strict"]}, False),
    "none of several": (["--debug"], {}, False),
    "no member for them": ([], {}, True),
    "none but the name": ([], {"args": ["x"]}, True),
}


class Started:
    """The procfs of a hook whose parent is the runtime, and nobody above that."""

    def __init__(self, bundle: Path) -> None:
        self._words = ["crun", "run", "--bundle", str(bundle), "c1"]

    def parent(self, pid: int | None = None) -> int:
        return 7 if pid is None else 0

    def arguments(self, _: int) -> list[str]:
        return self._words


@pytest.mark.parametrize(("words", "entry", "is_this"), ENTRIES.values(), ids=ENTRIES)
def test_which_entry_is_this_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], entry: dict[str, Any], is_this: bool
) -> None:
    config = {"hooks": {"createRuntime": [{"path": "/x", **entry}]}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr(sys, "argv", ["x", *words])
    state = State({"ociVersion": "1.0.2", "id": "c1", "status": "creating", "bundle": "/"})
    found = lost.find(state, cast("Proc", Started(tmp_path)))
    assert found == ((str(tmp_path), config) if is_this else None)
