# SPDX-License-Identifier: Apache-2.0
"""bash, zsh and fish show what the program offers, and what a file is called is never a command.

What is offered where, tests/unit/commands/test_completion.py holds.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import mounting, support
from helpers.terminal import begun
from oci_bind_hook.commands.completion import SCRIPTS

COMPLETION = Path(__file__).resolve().parents[2] / "hook/completion"
SHELLS = {"bash": ["bash", "--norc", "-i"], "zsh": ["zsh", "-f", "-i"]}
# How each is told of the completion, by the line that the manual has.
SETUPS = {
    "bash": ". <(oci-bind-hook completion bash)",
    "zsh": "autoload -Uz compinit; compinit -D -u; . <(oci-bind-hook completion zsh)",
    "fish": "oci-bind-hook completion fish | source",
}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH with the program on it."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "oci-bind-hook"
    # As fast as it can be: a shell asks for each line.
    program.write_text(
        f"#!{sys.executable} -IS\nimport sys\nsys.path[:0] = {sys.path!r}\n"
        "from oci_bind_hook.cli import console\nconsole()\n"
    )
    program.chmod(0o755)
    return f"{folder}:{support.PATH}"


class Shell:
    """A shell on a terminal, in which keys are pressed."""

    def __init__(self, name: str, setup: str, folder: Path, path: str) -> None:
        environment = {
            "HOME": str(folder),
            "TERM": "dumb",
            "PS1": "",
            "PAGER": "cat",
            "PATH": path,
            "LC_ALL": "C.UTF-8",
        }
        self.pid, self.terminal = begun(2000, SHELLS[name], {**os.environ, **environment}, str(folder))
        self._type(f"{setup}; echo RE''ADY\n", "READY\r\n")

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)

    def press(self, line: str, keys: str, end: str) -> None:
        """Types a line behind the program's name, and keys, until ``end`` is shown; then takes the line away."""
        self._type(f"oci-bind-hook {line}{keys}", end)
        self._type("\x15echo DO''NE\n", "DONE\r\n")

    def _type(self, text: str, end: str) -> None:
        os.write(self.terminal, text.encode())
        seen = b""
        while end.encode() not in re.sub(b"\x07|.\x08", b"", seen):  # bells, and what is taken back
            assert support.is_readable(self.terminal, 20), (text, end, seen)
            seen += os.read(self.terminal, 1 << 16)


def fish(line: str, folder: Path, path: str) -> set[str]:
    """What fish offers for a line."""
    script = f"source {COMPLETION}/oci-bind-hook.fish; complete -C {shlex.quote('oci-bind-hook ' + line)}"
    environment = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "PATH": path}
    command = ["fish", "-N", "-c", script]
    done = subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=True, env=environment, cwd=folder
    )
    assert done.stderr == ""
    return {told.partition("\t")[0] for told in done.stdout.splitlines()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder to be in, with a state folder, a file and a folder."""
    folder = tmp_path / "here"
    mounting.plant(folder, {"state": {"c1.json": b"", "other.json": b""}, "models": {}, "word": b""})
    return folder


# What is typed, and what one tab makes of it.
ONE = {
    "unin": "uninstall ",
    "createR": "createRuntime ",
    "install --st": "install --stages ",
    "install --stages=creater": "install --stages=creater",
    "install --stages=createR": "install --stages=createRuntime ",
    "list --format=j": "list --format=json ",
    "list --format j": "list --format json ",
    "gc --root state c": "gc --root state c1 ",
    "gc --root=state c": "gc --root=state c1 ",
    "--log w": "--log word ",
    "--log=w": "--log=word ",
    "gc --root mod": "gc --root models/",
    "--mount subp": "--mount subpath=",
    "--mount src=w": "--mount src=word",
    "--mount type=bind,src=mod": "--mount type=bind,src=models/",
    "--mount type=g": "--mount type=glob",
    "--mount src=/a,bind-recursive=w": "--mount src=/a,bind-recursive=writable",
    "--mount src=/a,bind-nonr": "--mount src=/a,bind-nonrecursive",
    "install -- --mou": "install -- --mount ",
}


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_one_tab_completes(shell: str, folder: Path, path: str) -> None:
    with Shell(shell, SETUPS[shell], folder, path) as terminal:
        for typed, becomes in ONE.items():
            # The X shows whether a blank was put behind.
            terminal.press(typed, "\tX", f"oci-bind-hook {becomes}X")


def test_fish_offers_the_same(folder: Path, path: str) -> None:
    for typed, becomes in ONE.items():
        *_, word = becomes.rstrip().split(" ")
        assert fish(typed, folder, path) == ({word} if becomes != typed else set()), typed
    assert fish("gc --root state ", folder, path) == {"c1", "other"}
    assert {"state/", "models/", "word"} <= fish("--mount ro,src=", folder, path) or {
        "ro,src=state/",
        "ro,src=models/",
        "ro,src=word",
    } <= fish("--mount ro,src=", folder, path)


# -- where they are found by themselves --------------------------------------------------------------------------------


def share(folder: Path) -> Path:
    """The completions as a package puts them below its share/."""
    places = {"bash": "bash-completion/completions", "zsh": "zsh/site-functions", "fish": "fish/vendor_completions.d"}
    for shell, name in SCRIPTS.items():
        (folder / "share" / places[shell]).mkdir(parents=True)
        shutil.copy(COMPLETION / name, folder / "share" / places[shell])
    return folder / "share"


def test_zsh_loads_it_from_its_folders_for_functions(folder: Path, path: str, tmp_path: Path) -> None:
    setup = f"fpath=({share(tmp_path)}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D -u"
    with Shell("zsh", setup, folder, path) as terminal:
        terminal.press("uni", "\tX", "oci-bind-hook uninstall X")


def test_bash_completion_loads_it_from_the_data_folders(folder: Path, path: str, tmp_path: Path) -> None:
    setup = f"export XDG_DATA_DIRS={share(tmp_path)}; . /usr/share/bash-completion/bash_completion"
    with Shell("bash", setup, folder, path) as terminal:
        terminal.press("uni", "\tX", "oci-bind-hook uninstall X")


def test_fish_loads_it_from_the_data_folders(folder: Path, path: str, tmp_path: Path) -> None:
    environment = {**os.environ, "HOME": str(folder), "PATH": path, "XDG_DATA_DIRS": f"{share(tmp_path)}:/usr/share"}
    command = ["fish", "-c", "complete -C 'oci-bind-hook uni'"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=folder)
    assert done.stdout.startswith("uninstall\t")


# -- names that a shell could run --------------------------------------------------------------------------------------

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
    "(touch ran)",
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


LINES = ("gc --root state ", "show --root=state ", "gc --root ", "--log ", "validate ", "--mount ro,src=")


def last(line: str) -> str:
    """Something that is offered late for a line of ``LINES``."""
    return IDS[1] if line.endswith("state ") else "state"


@pytest.mark.parametrize("shell", SHELLS)
def test_names_are_data(shell: str, hostile: Path, path: str) -> None:
    with Shell(shell, SETUPS[shell], hostile, path) as terminal:
        for line in LINES:
            terminal.press(line, "\t\t\t", last(line))
            assert_nothing_ran(hostile)


def test_names_are_data_in_fish(hostile: Path, path: str) -> None:
    for line in LINES:
        assert any(last(line) in word for word in fish(line, hostile, path)), line
        assert_nothing_ran(hostile)


# Words that the shell would run, once the line is entered.
TYPED = ("gc --root $(touch ran) --form", "gc --root `touch ran` --form", "gc --root <(touch ran) --form")


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_typed_is_data(shell: str, hostile: Path, path: str) -> None:
    with Shell(shell, SETUPS[shell], hostile, path) as terminal:
        for line in TYPED:
            terminal.press(line, "\tX", "X")
            assert_nothing_ran(hostile)


def test_what_is_typed_is_data_in_fish(hostile: Path, path: str) -> None:
    for line in ("gc --root (touch ran) --form", "gc --root $(touch ran) --form", "gc --root (touch ran)/"):
        fish(line, hostile, path)
        assert_nothing_ran(hostile)


def test_a_program_that_is_only_typed_is_not_run(hostile: Path, path: str) -> None:
    """bash completes by the last name of a command: one in this folder would be run before the line is entered."""
    program = hostile / "oci-bind-hook"
    program.write_text("#!/bin/sh\ntouch ran\n")
    program.chmod(0o755)
    with Shell("bash", f"{SETUPS['bash']}; cd ..", hostile, path) as terminal:
        terminal._type("here/oci-bind-hook uni\tX", "uninstall X")
    assert_nothing_ran(hostile)
