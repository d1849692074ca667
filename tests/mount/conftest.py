# SPDX-License-Identifier: Apache-2.0
"""Fixtures of the mount tests: a bench of its own for each."""

from __future__ import annotations

from pathlib import Path

import pytest

from mounting import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A rootfs on the file system of the test machine, in a namespace that plays the container's."""
    return Bench(tmp_path)
