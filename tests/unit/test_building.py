# SPDX-License-Identifier: Apache-2.0
"""The package as it is built: it knows its commit, and has what it needs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import building

PROJECT = Path(__file__).resolve().parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
PARTS = ("LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "hook", "schemas")
LAYOUTS = {
    "detached": {".git/HEAD": COMMIT},
    "branch": {".git/HEAD": "ref: refs/heads/main", ".git/refs/heads/main": COMMIT},
    "packed": {
        ".git/HEAD": "ref: refs/heads/main",
        ".git/packed-refs": f"# pack\n{'f' * 40} refs/a\n{COMMIT} refs/heads/main",
    },
    "further tree": {
        ".git": "gitdir: real/worktrees/w",
        "real/worktrees/w/HEAD": "ref: refs/heads/main",
        "real/worktrees/w/commondir": "../..",
        "real/refs/heads/main": COMMIT,
    },
    "none": {},
}


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{text}\n")


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_commit_is_read_without_git(name: str, tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS[name])
    assert building.commit(str(tmp_path)) == (COMMIT if name != "none" else "")


def test_a_wheel_tells_the_commit_that_it_was_built_from(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for part in PARTS:
        if (PROJECT / part).is_dir():
            shutil.copytree(PROJECT / part, tree / part, symlinks=True)
        else:
            shutil.copy(PROJECT / part, tree / part)
    write(tree, LAYOUTS["branch"])
    # Left by the build of an earlier version.
    write(tree, {"build/lib/oci_bind_hook/gone.py": "", "build/lib/oci_bind_hook/commands/gone.py": ""})
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "-w", str(tmp_path), str(tree)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = "import oci_bind_hook.cli as cli; cli.main(['--version'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    told = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd="/", capture_output=True, text=True, check=True
    )
    assert told.stdout.splitlines()[1] == f"commit: {COMMIT}"
    names = {
        str(path.relative_to(tmp_path / "site/oci_bind_hook")) for path in (tmp_path / "site/oci_bind_hook").rglob("*")
    }
    assert {name for name in names if name.endswith("gone.py")} == set()
    assert {
        "schemas/hooks-d.json",
        "man/oci-bind-hook.8.md",
        "completion/_oci-bind-hook",
        "schemas/doctor.json",
        "cli.py",
        "commands/engines/doctor.py",
    } <= names
