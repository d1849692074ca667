# SPDX-License-Identifier: Apache-2.0
"""zsh and fish complete as bash does, whose words a unit test holds; and what a file is called is never a command."""

from __future__ import annotations

import os
import pty
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from helpers import mounting, support
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
    "install --": {"--format", *(option.name for option in INSTALL if option.name != "--all"), *EVERYWHERE},
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


HOSTILE = (
    "$(touch ran)",
    "`touch ran`",
    "a;touch ran",
    "x$(touch ran)y",
    "a b",
    "'",
    '"',
    "\\",
    "*",
    "~",
    "${HOME}",
    "-n",
    "--debug",
    "a\ntouch ran\n",
    "\udcff",
    "<(touch ran)",
    "|touch ran",
    "!!",
    "{a,b}",
)
IDS = ("c1", "c2.d-e_f+g")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder to be in, in which files would be made; its state folder has names that a shell would run."""
    folder = tmp_path / "here"
    mounting.plant(folder / "state", {f"{name}.json": b"" for name in (*HOSTILE, *IDS)})
    mounting.plant(folder, {f"{name}.d".replace("/", "_"): {} for name in HOSTILE})
    return folder


def assert_nothing_ran(folder: Path) -> None:
    assert not (folder / "ran").exists()
    assert not (folder / "ran.json").exists()


def press_tab(command: list[str], setup: str, line: str, end: str, folder: Path) -> str:
    """What a shell on a terminal shows from ``line`` and two tabs until ``end``."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.environ.update(HOME=str(folder), TERM="dumb", PS1="", PAGER="cat", COLUMNS="2000")
        os.execvp(command[0], command)
    seen = b""
    try:
        os.write(terminal, f"{setup}; echo RE''ADY\n".encode())
        for text, goal in (("", b"READY\r\n"), (f"{line}\t\t", end.encode()), ("\x15echo DO''NE\n", b"DONE\r\n")):
            os.write(terminal, text.encode())
            seen = b""
            while goal not in seen:
                assert support.is_readable(terminal, 20), seen
                seen += os.read(terminal, 1 << 16)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)
    return seen.decode(errors="replace")


@pytest.mark.parametrize("line", ["gc --root state ", "show --root state ", "gc --root ", "--log ", "validate "])
def test_bash_takes_names_as_data(hostile: Path, line: str) -> None:
    end = IDS[1] if line.endswith("state ") else "state"
    press_tab(["bash", "--norc", "-i"], f". {COMPLETION}/oci-bind-hook", f"oci-bind-hook {line}", end, hostile)
    assert_nothing_ran(hostile)


def test_zsh_takes_names_as_data(hostile: Path, tmp_path: Path) -> None:
    for name, place in (("_oci-bind-hook", "zsh/site-functions"), ("oci-bind-hook", "bash-completion/completions")):
        (tmp_path / place).mkdir(parents=True)
        shutil.copy(COMPLETION / name, tmp_path / place)
    setup = f"fpath=({tmp_path}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D -u"
    press_tab(["zsh", "-f", "-i"], setup, "oci-bind-hook gc --root state ", IDS[1], hostile)
    assert_nothing_ran(hostile)


def test_fish_takes_names_as_data(hostile: Path) -> None:
    state = mounting.tmpfs("/run") + "/oci-bind-hook"
    mounting.plant(state, {f"{name}.json": b"" for name in (*HOSTILE, *IDS)})
    script = f"source {COMPLETION}/oci-bind-hook.fish; complete -C 'oci-bind-hook gc '"
    environment = {**os.environ, "HOME": str(hostile), "XDG_CONFIG_HOME": str(hostile)}
    done = subprocess.run(
        ["fish", "-N", "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=hostile
    )
    assert {told.partition("\t")[0] for told in done.stdout.splitlines()} == set(IDS)
    assert_nothing_ran(hostile)
