# SPDX-License-Identifier: Apache-2.0
"""Fixtures: the launcher as it is installed, and a world for one test."""

from __future__ import annotations

from pathlib import Path

import pytest

from oci_bind_hook.install import install
from world import World


@pytest.fixture(scope="session")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The launcher as `oci-bind-hook install` writes it."""
    prefix = tmp_path_factory.mktemp("prefix")
    prefix.chmod(0o755)
    path, _ = install(str(prefix))
    return path


@pytest.fixture
def world(tmp_path: Path, launcher: str) -> World:
    return World(tmp_path, launcher)
