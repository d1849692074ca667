# SPDX-License-Identifier: Apache-2.0
"""A program for hooks.d files to name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from helpers import hooks_d_tables as tables

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    return tables.write_probe(tmp_path)
