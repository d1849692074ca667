# SPDX-License-Identifier: Apache-2.0
"""A record of nothing yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from helpers.mounting import Bench
    from oci_bind_hook.record.state_file import Record


@pytest.fixture
def record(bench: Bench) -> Record:
    return bench.record()
