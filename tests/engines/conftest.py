# SPDX-License-Identifier: Apache-2.0
"""Engines that run for all tests, and what each of them needs: a source, an image, the hook in /usr/local."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engines.daemons import Docker

if TYPE_CHECKING:
    from collections.abc import Iterator

HOOK = Path(sys.executable).with_name("oci-bind-hook")


def hook(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line of the hook, as it is installed here."""
    return subprocess.run([HOOK, *words], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(scope="session")
def source() -> Path:
    folder = Path("/srv/models")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "word").write_text("hello from the host\n")
    return folder


@pytest.fixture(scope="session")
def docker() -> Iterator[Docker]:
    with Docker() as daemon:
        yield daemon


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """No bind of the source, no record and no registration is there after a test."""
    yield
    left = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/srv/models" in line]
    assert left == []
    listed = hook("list", "--format", "json")
    assert '"records": []' in listed.stdout or "[]" in listed.stdout, listed
    removed = hook("uninstall", "--all", "--apply")
    assert removed.returncode in (0, 66), removed
