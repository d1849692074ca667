# SPDX-License-Identifier: Apache-2.0
"""runsc, gVisor's runtime, calls no hook that could bind: what its user is told, and that nothing is left."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from engines.conftest import hook
from engines.daemons import command, unpacked

if TYPE_CHECKING:
    from pathlib import Path


def test_a_wrapper_of_it_is_refused() -> None:
    done = hook("install", "--runtime", "sandbox", "--oci-runtime", "/usr/bin/runsc")
    assert done.returncode == 69
    assert "runsc calls no hook that could mount for its sandbox (give the bind to the engine" in done.stderr


@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
def test_a_container_does_not_start_without_its_bind(tmp_path: Path, source: Path, stage: str) -> None:
    assert hook("install").returncode == 0
    words = ["oci-bind-hook", stage, "--mount", f"src={source},dst=/link,ro"]
    entry = {"path": "/usr/local/libexec/oci/hooks.d/oci-bind-hook", "args": words, "env": ["PATH=/usr/bin:/bin"]}
    unpacked(tmp_path / "rootfs")
    config = {
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["true"], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": "rootfs"},
        "linux": {"namespaces": [{"type": name} for name in ("pid", "ipc", "uts", "mount", "network")]},
        "hooks": {stage: [entry]},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    words = ["runsc", "--root", str(tmp_path / "state"), "--network=none", "--ignore-cgroups", "run"]
    done = command(*words, "--bundle", str(tmp_path), "c1")
    assert done.returncode != 0
    assert "runsc" in done.stderr
    assert "oci-bind-hook: c1" in done.stderr, done
    assert "give the bind to the engine" in done.stderr, done
