# SPDX-License-Identifier: Apache-2.0
"""A program for hooks.d files to name, and a machine without engines."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers import hooks_d_tables as tables
from oci_bind_hook.commands.engines import machine, settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_engines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where engines are looked for: a folder that a test may put them into, with their settings beside it.

    Nor is the hook registered on that machine, as it may be on this one.
    """
    folder = tmp_path_factory.mktemp("engines")
    monkeypatch.setattr(machine, "HOOKS_FOLDERS", ())
    monkeypatch.setattr(machine, "PREFIXES", ())
    monkeypatch.setattr(settings, "PROGRAMS", (str(folder),))
    monkeypatch.setattr(settings, "DAEMON_JSON", str(tmp_path / "daemon.json"))
    monkeypatch.setattr(settings, "CONFIG_TOML", str(tmp_path / "config.toml"))
    return folder


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    return tables.write_probe(tmp_path)
