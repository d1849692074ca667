# SPDX-License-Identifier: Apache-2.0
"""zsh and fish complete as bash does, whose words a unit test holds."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from helpers import mounting
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.reference import HOOK, INSTALL
from oci_bind_hook.options import STAGES

COMPLETION = Path(__file__).resolve().parents[2] / "hook/completion"

# What fish offers for a line: stages and commands, and what each command knows; --help and --version everywhere.
EVERYWHERE = {"--help", "--version"}
LINES = {
    "": {*STAGES, *(command.name.split()[0] for command in COMMANDS)},
    "createRuntime --": {option.name for option in HOOK},
    **{
        f"{command.name} --": {*(option.name for option in command.options), *EVERYWHERE}
        for command in COMMANDS
        if not command.name.startswith("install")
    },
    "install --": {"--format", *(option.name for option in INSTALL), *EVERYWHERE},
    "show c": {"c1", "c2"},
    "install --stages ": set(STAGES),
    "--log-format ": {"text", "json"},
}


@pytest.mark.parametrize("line", LINES)
def test_fish(line: str, tmp_path: Path) -> None:
    state = mounting.tmpfs("/run") + "/oci-bind-hook"
    mounting.plant(state, {"c1.json": b"", "c2.json": b"", "d.lock": b""})
    script = f"source {COMPLETION}/oci-bind-hook.fish; complete -C 'oci-bind-hook {line}'"
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(["fish", "-N", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert {told.partition("\t")[0] for told in done.stdout.splitlines()} == LINES[line]
    assert done.stderr == ""


# A terminal of its own, in which keys are pressed, until what they should become is there.
ZSH = """
zmodload zsh/zpty
zpty terminal zsh -f -i
zpty -w terminal 'fpath=($SHARE/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D -u; print RE''ADY'
zpty -r terminal seen '*READY*'
zpty -n -w terminal "oci-bind-hook $1"$'\\t'
zpty -r terminal seen "*oci-bind-hook $2*"
"""


@pytest.mark.parametrize(
    ("typed", "completed"), [("uni", "uninstall"), ("createR", "createRuntime"), ("install --st", "install --stages")]
)
def test_zsh(typed: str, completed: str, tmp_path: Path) -> None:
    for name, place in (("_oci-bind-hook", "zsh/site-functions"), ("oci-bind-hook", "bash-completion/completions")):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(COMPLETION / name, tmp_path / place)
    environment = {**os.environ, "HOME": str(tmp_path), "SHARE": str(tmp_path), "TERM": "dumb"}
    command = ["zsh", "-f", "-c", ZSH, "zsh", typed, completed]
    subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=20)
