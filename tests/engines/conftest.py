# SPDX-License-Identifier: Apache-2.0
"""Engines that run for all tests, and what each of them needs: a source, an image, the hook in /usr/local."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engines.daemons import Docker, command

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian 12's docker and containerd know no CDI.
HAS_CDI = not command("containerd", "--version").stdout.split()[2].lstrip("v").startswith("1.")
collect_ignore = [] if HAS_CDI else ["test_cdi.py"]

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


# -- the table of docs/ENGINES.md --------------------------------------------------------------------------------------

# By module: the engines that it runs, how each tells its version, and the registration.
ROWS = {
    "test_docker.py": (("docker",), "`install --runtime`"),
    "test_containerd.py": (("containerd",), "`install --runtime`, a base spec"),
    "test_podman.py": (("podman",), "`install` (hooks.d), `install --cdi`"),
    "test_runsc.py": (("runsc",), "none works: what its user is told"),
    "test_cdi.py": (("docker", "containerd"), "`install --cdi`"),
}
passed: dict[str, int] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Counts what passed, by module."""
    if report.when == "call" and report.passed:
        name = Path(report.location[0]).name
        passed[name] = passed.get(name, 0) + 1


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints the rows of the table."""
    terminalreporter.write_line("")
    for name, count in passed.items():
        engines, way = ROWS[name]
        terminalreporter.write_line(f"| {', '.join(map(version, engines))} | {way} | {count} |")


def version(program: str) -> str:
    """A program with its version."""
    found = re.search(r"\d+\.\d+[\w.]*|release-[\d.]+", command(program, "--version").stdout)
    return f"{program} {found[0] if found else '?'}"
