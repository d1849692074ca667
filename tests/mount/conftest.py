# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the mount tests: a bench of its own for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.mounting import Bench
from oci_bind_hook.record.folder import StateFolder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A rootfs on the file system of the test machine, in a namespace that plays the container's."""
    return Bench(tmp_path)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where a state folder may be made."""
    return f"{tmp_path}/state"


@pytest.fixture
def folder(path: str) -> StateFolder:
    """A state folder that is there."""
    folder = StateFolder.open(path, create=True)
    assert folder is not None
    return folder
