# SPDX-License-Identifier: Apache-2.0
"""A machine of its own for tests of commands that look for registrations everywhere."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from helpers import mounting
from oci_bind_hook.commands.engines import settings, timer


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, on a machine on which nothing is registered, nothing is recorded, and no engine has settings."""
    for path in ("/run", "/usr/share", "/usr/libexec", "/usr/local", "/etc/containers", "/etc/cdi"):
        os.makedirs(path, exist_ok=True)
        mounting.tmpfs(path, "mode=755")
    programs = tmp_path / "programs"
    programs.mkdir()
    monkeypatch.setattr(timer, "SYSTEM_FOLDER", f"{tmp_path}/units")
    monkeypatch.setattr(settings, "PROGRAMS", (str(programs),))
    monkeypatch.setattr(settings, "DAEMON_JSON", f"{tmp_path}/daemon.json")
    monkeypatch.setattr(settings, "CONFIG_TOML", f"{tmp_path}/config.toml")
    return tmp_path
