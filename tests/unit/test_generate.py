# SPDX-License-Identifier: Apache-2.0
"""Man page and completions have what the tables say, and bash completes by it."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

import generate
from oci_bind_hook.commands.reference import HOOK, INSTALL
from oci_bind_hook.documents.acceptor import SCHEMAS
from oci_bind_hook.options import STAGES

COMPLETION = Path(__file__).resolve().parents[2] / "hook/completion"


@pytest.mark.parametrize("name", generate.FILES)
def test_what_is_generated_is_up_to_date(name: str) -> None:
    path = os.path.join(generate.HERE, name)
    text = Path(path).read_text(encoding="utf-8")
    assert generate.files()[path] == text, "run: .venv/bin/python hook/generate.py"
    assert sorted(re.findall(r"generated: ([a-z ]*[a-z])", text)) == sorted(generate.FILES[name])


def complete(*words: str, folder: str = "/") -> set[str]:
    """What bash offers for the last of these words of a command line."""
    script = f'. "{COMPLETION}/oci-bind-hook"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _oci_bind_hook'
    script += '; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-uc", script, "bash", "oci-bind-hook", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_stages_and_commands_first() -> None:
    assert complete("") == {*STAGES, *generate.OPTIONS, "--dry-run", "--version", "--help"}
    assert complete("un") == {"uninstall"}
    assert complete("create") == {"createRuntime", "createContainer"}


UNINSTALL = ("prefix", "name", "hooks-dir", "cdi", "cdi-dir", "runtime", "apply", "all", "units-dir")


def test_bash_completes_the_options_that_each_command_has() -> None:
    assert complete("createRuntime", "--") == {option.name for option in HOOK}
    assert complete("install", "--") == {*(option.name for option in INSTALL), "--format", "--"} - {"--all"}
    assert complete("uninstall", "--") == {f"--{name}" for name in UNINSTALL}
    assert complete("validate", "--") == complete("doctor", "--") == {"--format"}
    assert complete("list", "--") == complete("show", "--") == {"--root", "--format", "--debug"}
    assert complete("gc", "--") - complete("list", "--") == {"--dry-run", "--keep-mountpoints", "--log", "--log-format"}


def test_bash_completes_values(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/c1.json").touch()
    (tmp_path / "file").touch()
    folder = str(tmp_path)
    assert complete("--format", "") == complete("--dry-run", "--format", "=", "") == {"text", "tree", "json"}
    assert complete("list", "--format", "") == complete("doctor", "--format", "=", "") == {"text", "json"}
    assert complete("--log-format", "=") == {"text", "json"}
    assert complete("install", "--stages", "") == set(STAGES)
    assert complete("--dry-run", "--bundle", "", folder=folder) == {"state", "file"}
    assert complete("install", "--units-dir", "", folder=folder) == {"state"}
    assert complete("explain", "f", folder=folder) == {"file"}
    assert complete("--log", "", folder=folder) == {"state", "file"}
    assert complete("--mount", "") == set()
    assert complete("gc", "--root", f"{tmp_path}/state", "c") == {"c1"}
    assert complete("validate", "f", folder=folder) == {"file"}
    assert complete("schema", "") == {*SCHEMAS, "--bundled"}


def test_bash_offers_ids_only(tmp_path: Path) -> None:
    for name in ("c1", "a b", "$(touch ran)", "`touch ran`", "-x", "*", "\udcff"):
        (tmp_path / f"{name}.json").touch()
    assert complete("gc", "--root", str(tmp_path), "", folder=str(tmp_path)) - {
        option.name for option in generate.OPTIONS["gc"]
    } == {"c1"}
    assert not (tmp_path / "ran").exists()
