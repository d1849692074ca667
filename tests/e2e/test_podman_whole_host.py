# SPDX-License-Identifier: Apache-2.0
"""The hook for every container, and one that gets the whole host: what is sick below / stops nobody."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.fuse import Fuse
from helpers.podman import Podman
from oci_bind_hook.commands.engines import install

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("is_wanted", [False, True], ids=["no mount", "a mount"])
def test_a_container_with_the_whole_host_starts(is_wanted: bool, tmp_path: Path) -> None:
    """Below / lie a FUSE mount of another user, one whose server has died, and one whose server is silent."""
    podman = Podman(tmp_path)
    source, state, hooks = tmp_path / "source", tmp_path / "state", str(tmp_path / "hooks.d")
    source.mkdir()
    (source / "word").write_text("hello\n")
    words = ["--root", str(state), *(["--mount", f"src={source},dst=/new/place,ro"] if is_wanted else [])]
    install.install(str(tmp_path / "prefix"), (), words, hooks_dir=hooks)
    told = ("cat", *(["/new/place/word"] if is_wanted else []), f"/host{source}/word")
    with Fuse(f"{tmp_path}/other", user=1000), Fuse(f"{tmp_path}/dead") as dead, Fuse(f"{tmp_path}/silent") as silent:
        dead.end()
        for kind in ("LOOKUP", "GETATTR", "STATFS", "OPEN"):
            silent.silence(kind)
            asked = silent.asked()
            done = podman.run([hooks], *told, options=("--volume=/:/host:ro",))
            assert (done.returncode, done.stdout) == (0, "hello\n" * (1 + is_wanted)), done.stderr
            assert silent.asked() == asked
    assert not (state.exists() and [name for name in os.listdir(state) if name.endswith(".json")])
    assert not os.path.exists(f"{podman.rootfs}/new")
