# SPDX-License-Identifier: Apache-2.0
"""What is offered at each place of the command line; that the shells show it, tests/e2e/test_completion.py holds."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands import completion
from oci_bind_hook.commands.command_line import Command
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.engines import machine
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.commands.reference import FIELD_TEXTS, HOOK, INSTALL
from oci_bind_hook.documents.acceptor import SCHEMAS
from oci_bind_hook.options import STAGES

if TYPE_CHECKING:
    from pathlib import Path

NAMES = {command.name.split()[0] for command in COMMANDS}
OF_HOOK = {option.name for option in HOOK}


def offer(line: str) -> completion.Offer:
    return completion.complete(line.split(" "), COMMANDS, lambda: ("options", "manual"))


def words(line: str) -> set[str]:
    return {word for word, _ in offer(line).words}


OF_INSTALL = {option.name for option in INSTALL} - {"--all", "--own"}
WORDS = {
    "": {*STAGES, *NAMES},
    "un": {"uninstall"},
    "create": {"createRuntime", "createContainer"},
    "createRuntime --": OF_HOOK,
    "createRuntime ": OF_HOOK,
    "--": OF_HOOK,
    "--dry-run ": {*STAGES},
    "--dry-run prestart --l": {"--log", "--log-format"},
    "--form": {"--format"},
    "--format ": {"text", "tree", "json"},
    "--format=": {"--format=text", "--format=tree", "--format=json"},
    "--format=te": {"--format=text"},
    "--format t": {"text", "tree"},
    "--log-format ": {"text", "json"},
    "list --format ": {"text", "json"},
    "validate --format ": {"text", "json", "github", "sarif"},
    "validate --schema pl": {"plan"},
    "explain --format ": {"text", "tree", "json"},
    "--debug=": set(),
    "--nonsense=": set(),
    "nonsense --": OF_HOOK,
    "explain ": {*STAGES},
    "explain c": {"createRuntime", "createContainer"},
    "explain prestart ": set(),
    "explain -- --": set(),
    "schema ": {*SCHEMAS},
    "schema state": {"state", "state-file", "state-file-1"},
    "help ": {"options", "manual"},
    "help m": {"manual"},
    "completion ": {"bash", "zsh", "fish"},
    "install --st": {"--stages"},
    "install --stages ": {*STAGES},
    "install --stages=p": {"--stages=prestart", "--stages=poststop"},
    "install --stages prestart,p": {"prestart,poststop"},
    "install --name ": set(),
    "install --prefix /usr --check --f": {"--format"},
    "install --apply -": {"--", *OF_INSTALL, "--format", "--help"},
    "install -- --mou": {"--mount"},
    "install -- --pre": set(),
    "install -- --mount gl": {"glob"},
    "doctor ": {"--format", "--help"},
}


@pytest.mark.parametrize("line", WORDS)
def test_words(line: str) -> None:
    assert words(line) == WORDS[line]


FILES = {
    "--bundle ": ("file", ""),
    "--bundle=/a": ("file", "--bundle="),
    "--log ": ("file", ""),
    "--root ": ("directory", ""),
    "gc --root=": ("directory", "--root="),
    "explain ": ("file", ""),
    "validate x": ("file", ""),
    "validate -- x": ("file", ""),
    "install --check ": ("file", ""),
    "install --check -- ": ("file", ""),
    "install x": ("words", ""),
    "install --units-dir ": ("directory", ""),
    "install --oci-runtime ": ("file", ""),
    "--mount src=": ("file", "src="),
    "--mount type=bind,source=/a": ("file", "type=bind,source="),
    "--mount=ro,src=/a": ("file", "--mount=ro,src="),
    "--mount dst=/a": ("words", "dst="),
    "list ": ("words", ""),
    "doctor x": ("words", ""),
}


@pytest.mark.parametrize("line", FILES)
def test_files_are_left_to_the_shell(line: str) -> None:
    found = offer(line)
    assert (found.files, found.before if found.files != "words" else FILES[line][1]) == FILES[line]


def test_every_command_and_every_option_of_it_is_offered() -> None:
    for name in NAMES:
        own = {option.name for command in COMMANDS if command.name.split()[0] == name for option in command.options}
        assert {*own, "--help"} - {"--help" if not own else ""} <= words(f"{name} --") | {"--help"}


def test_the_fields_of_mount_are_offered_once_each_and_those_with_a_value_with_the_sign() -> None:
    known = {name for row, _ in FIELD_TEXTS for name in row.split()}
    found = words("--mount ")
    assert known <= {word.removesuffix("=") for word in found}
    assert {"src=", "dst=", "subpath=", "ro", "idmap", "bind-propagation=", "rro", "when-exists="} <= found
    assert offer("--mount ").goes_on
    assert words("explain /b --mount src=/a,d") == {
        "src=/a,dst=",
        "src=/a,destination=",
        "src=/a,dev",
        "src=/a,diratime",
    } | {"src=/a,dest-nofollow"}
    assert words("--mount src=/a,ro,r").isdisjoint({"src=/a,ro,ro"})
    assert words("--mount src=/a,src").isdisjoint({"src=/a,src="})


def test_the_values_of_a_field_are_offered() -> None:
    assert words("--mount type=") == {"type=bind", "type=glob"}
    assert words("--mount src=/a,type=g") == {"src=/a,type=glob"}
    assert words("--mount=src=/a,bind-recursive=") == {
        f"--mount=src=/a,bind-recursive={word}" for word in ("enabled", "disabled", "writable", "readonly")
    }
    assert words("--mount ro=") == words("--mount nonsense=") == set()


# Names that a shell could take for more than a name, or that are no id.
HOSTILE = ("$(x)", "`x`", "a b", "-x", "--debug", "*", "\udcff", "a\nb", "a\tb", "é", "x" * 201, "")


def test_ids_of_state_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*HOSTILE[:-2], "c1", "c2.d-e_f+g"):
        (tmp_path / f"{name}.json").touch()
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "c3.lock").touch()
    (tmp_path / "registered").mkdir()
    for command in ("show", "gc", "explain prestart"):
        assert words(f"{command} --root {tmp_path} ") == {"c1", "c2.d-e_f+g"}
        assert words(f"{command} --root={tmp_path} c2") == {"c2.d-e_f+g"}
    assert words(f"gc --root {tmp_path}/absent ") >= {"--dry-run"}
    monkeypatch.setattr(completion, "state_folder", lambda *_: str(tmp_path))
    assert words("install --check ") == words("install --format json --check ") == {"c1", "c2.d-e_f+g"}
    assert words("install c") == words("install -- c") == words("install --list c") == set()


def test_registrations_are_those_that_uninstall_can_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = tmp_path / "hooks.d"
    monkeypatch.setattr(machine, "places", lambda: ([str(hooks)], [], []))
    for name in ("models", "mpi", None):
        install(str(tmp_path / "p"), (), hooks_dir=str(hooks), name=name)
    [file] = [each for each in hooks.iterdir() if "mpi" in each.name]
    (hooks / "oci-bind-hook-$(x).json").write_text(file.read_text())
    assert words("uninstall --name ") == {"models", "mpi"}
    assert words("uninstall --name=mo") == {"--name=models"}
    assert words("uninstall --cdi ") == words("uninstall --runtime ") == set()


def test_what_shells_read(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "words", "--", "--mount", "src=/a,bind-nonr"]) == os.EX_OK
    assert capfd.readouterr().out == "words nospace\n\nsrc=/a,bind-nonrecursive\tthe same as bind-recursive=disabled\n"
    assert cli.main(["completion", "words", "--", "gc", "--root="]) == os.EX_OK
    assert capfd.readouterr().out == "directory\n--root=\n"
    assert cli.main(["completion", "words"]) == os.EX_OK
    assert "\nexplain\t" in capfd.readouterr().out
    # What a command may mean is not asked, nor done.
    assert cli.main(["completion", "words", "--", "list", "--help"]) == os.EX_OK
    assert capfd.readouterr().out == "words\n\n--help\tprint the usage and the commands\n"


@pytest.mark.parametrize("shell", completion.SCRIPTS)
def test_each_script_is_printed(shell: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == os.EX_OK
    out = capfd.readouterr().out
    assert f"{shell} completion for oci-bind-hook" in out
    assert "completion words -- " in out


@pytest.mark.parametrize("words", [[], ["tcsh"], ["bash", "zsh"]])
def test_another_shell_is_none(words: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", *words]) == os.EX_USAGE
    assert "name one shell (known: bash, zsh, fish)" in capfd.readouterr().err


def test_no_kind_of_word_is_forgotten() -> None:
    kinds = {kind for command in COMMANDS for kind in command.takes}
    assert kinds <= {"BUNDLE", "FILE", "ID", "STAGE", "-", "OPTION", "SCHEMA", "TOPIC", "SHELL", "CONTAINER"}
    own = Command("own", COMMANDS[0].run, "", "", (), takes=("CONTAINER",))
    assert json.dumps(completion.complete(["own", "x"], (own,), tuple).words) == "[]"
