# SPDX-License-Identifier: Apache-2.0
"""The man pages and completions say what the program knows, all of it and nothing else."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

import manual
from oci_bind_hook import errors, options
from oci_bind_hook.commands import dispatch
from oci_bind_hook.documents import acceptor
from oci_bind_hook.options import STAGES
from oci_bind_hook.requests import mount_field, request

PROJECT = Path(__file__).resolve().parents[2]
PAGE = (PROJECT / "hook/man/oci-bind-hook.8.md").read_text(encoding="utf-8")
COMPLETION = PROJECT / "hook/completion"

# As --help has them: what an option is called, with its value.
OPTIONS = re.findall(r"^  (--[a-z-]+(?:, --[a-z-]+)*(?: [A-Z=,.]+| text\|json)?)(?:  |$)", dispatch.HELP, re.MULTILINE)
NAMES = {name for option in OPTIONS for name in re.findall(r"--[a-z-]+", option)} | {"--check"}
COMMANDS = {*dispatch._COMMANDS, *dispatch._OF_RECORDS}


def section(title: str) -> str:
    [found] = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


def column(text: str) -> list[str]:
    """The first cells of the rows of tables, without quotes."""
    rows = re.findall(r"^\| (.*?) (?<!\\)\|", text, re.MULTILINE)
    return [row.replace("`", "").replace("\\|", "|") for row in rows if row not in ("option", "stage", "field")]


def test_the_synopsis_is_that_of_help() -> None:
    shown = [line[4:] for line in section("SYNOPSIS").strip("\n").splitlines()]
    usage = dispatch.HELP.split("\n\n")[0].removeprefix("usage: ").splitlines()
    assert shown == [line.strip() for line in usage]


def test_the_options_are_those_of_help() -> None:
    assert len(OPTIONS) > 20
    assert column(section("OPTIONS")) == OPTIONS


def test_help_has_each_option_that_is_known() -> None:
    known = {*options._OPTIONS, *(f"--{name}" for name in "prefix hooks-dir stages annotation command".split())}
    assert known | set(options.FLAGS_OF_COMMANDS) == NAMES


def test_the_stages_are_those_that_are_known() -> None:
    assert column(section("STAGES")) == list(STAGES)


def test_the_exit_codes_are_those_of_errors_and_help() -> None:
    codes = {
        0,
        *(each.exit_code for each in vars(errors).values() if isinstance(each, type) and hasattr(each, "exit_code")),
    }
    rows = [word for word in column(section("EXIT STATUS")) if word != "exit code"]
    told = re.findall(r"(?:^|, )(\d+) ", dispatch.HELP.partition("exit codes: ")[2].replace("\n", " "))
    assert (sorted(codes), rows) == ([int(row) for row in rows], told)


def test_the_fields_are_those_that_mounts_have() -> None:
    told = [word for row in column(section("MOUNTS")) for word in row.split()]
    deep = {f"r{word}" for word in request._ATTRIBUTES}
    assert len(told) == len(set(told))
    assert set(told) == {*mount_field._MEMBERS, *request.WORDS} - deep


def test_every_command_is_told() -> None:
    assert [name for name in COMMANDS if f"**{name}" not in PAGE] == []


def test_what_troubles_are_known_by_is_what_is_said() -> None:
    quoted = re.findall(r'"(.+?)"', section("TROUBLESHOOTING"))
    others = {"error executing hook", "(exit code: N)", "No such file or directory", "Read-only file system"}
    sources = "".join(file.read_text(encoding="utf-8") for file in (PROJECT / "hook/oci_bind_hook").rglob("*.py"))
    said = re.sub(r'"\s*f?"', "", sources)
    words = {word.strip() for text in quoted for word in re.split(r"\.\.\.|: (?=No such)", text)} - others
    assert len(words) > 8
    assert [word for word in words if word not in re.sub(r"\{[^{}]*\}", "", said) and word not in said] == []


def test_each_member_of_the_state_file_is_told_with_its_description() -> None:
    page = manual.pages()["oci-bind-hook-state-file.5"]
    rows = dict(manual.members("state-file"))
    assert {"`version`", "`bundle.ino`", "`mounts[].attached[].unique`", "`made[].identity.born`"} < set(rows)
    descriptions = re.findall(r'"description": ("[^"]*")', json.dumps(acceptor.schema("state-file")))
    assert len(descriptions) > 15
    assert [text for text in descriptions if not any(json.loads(text) in told for told in rows.values())] == []
    assert [name for name in rows if manual.escaped(name.strip("`")) not in page] == []


MARKDOWN = {
    "# name(5)": '.TH NAME 5 "" "oci-bind-hook" ""\n.nh\n.ad l',
    "## A TITLE": ".SH A TITLE",
    "### A part": ".SS A part",
    ".dot\nand 'more'": ".PP\n\\&.dot and 'more'",
    "a-b \\ **bold-c**, *it* and `--x`": ".PP\na\\-b \\e \\fBbold\\-c\\fR, \\fIit\\fR and \\fB\\-\\-x\\fR",
    "    .a\n      'b": ".PP\n.RS 4\n.EX\n\\&.a\n  'b\n.EE\n.RE",
    "- one\n  more\n- two": ".IP \\(bu 2\none more\n.IP \\(bu 2\ntwo",
    "| a | b |\n|---|---|\n| `x\\|y` | z |": ".TP\n\\fBx|y\\fR\nz",
}


@pytest.mark.parametrize("markdown", MARKDOWN)
def test_markdown_becomes_roff(markdown: str) -> None:
    assert manual.roff(markdown).split("\n", 1)[1] == MARKDOWN[markdown] + "\n"


@pytest.mark.parametrize("markdown", ["```\nx\n```", "<b>x</b>", "| a | b | c |\n|---|---|---|\n| 1 | 2 | 3 |"])
def test_other_markdown_is_refused(markdown: str) -> None:
    with pytest.raises(ValueError, match=r"known here|two columns"):
        manual.roff(markdown)


def complete(*words: str, folder: str = "/") -> set[str]:
    """What bash offers for the last of these words of a command line."""
    script = f'. "{COMPLETION}/oci-bind-hook"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _oci_bind_hook'
    script += '; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-uc", script, "bash", "oci-bind-hook", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert done.stderr == ""
    return set(done.stdout.split())


def test_bash_completes_stages_and_commands_first() -> None:
    assert complete("") == {*STAGES, *COMMANDS, "--dry-run", "--version", "--help"}
    assert complete("un") == {"uninstall"}
    assert complete("create") == {"createRuntime", "createContainer"}


def test_bash_completes_the_options_that_each_command_has() -> None:
    assert complete("createRuntime", "--") == set(options._OPTIONS)
    for command, words in dispatch._OF_RECORDS.items():
        assert complete(command, "--") == set(words)
    of_install = NAMES - set(options._OPTIONS) | {"--", "--format"}
    assert complete("install", "--") == of_install
    assert complete("uninstall", "--") == {"--prefix", "--hooks-dir"}
    assert complete("validate", "--") == complete("doctor", "--") == {"--format"}


def test_bash_completes_values(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state/c1.json").touch()
    (tmp_path / "file").touch()
    folder = str(tmp_path)
    assert (
        complete("--format", "") == complete("--format", "=", "") == complete("--log-format", "=") == {"text", "json"}
    )
    assert complete("install", "--stages", "") == set(STAGES)
    assert complete("--dry-run", "--bundle", "", folder=folder) == {"state"}
    assert complete("--log", "", folder=folder) == {"state", "file"}
    assert complete("--mount", "") == set()
    assert complete("gc", "--root", f"{tmp_path}/state", "c") == {"c1"}
    assert complete("validate", "f", folder=folder) == {"file"}


def test_fish_knows_each_option_and_command() -> None:
    text = (COMPLETION / "oci-bind-hook.fish").read_text()
    assert {f"--{name}" for name in re.findall(r"^ *complete .* -l ([a-z-]+)", text, re.MULTILINE)} == NAMES
    words = {name: set(value.split()) for name, value in re.findall(r"^set -l (\w+) ([\w ]+)$", text, re.MULTILINE)}
    assert (words["stages"], words["commands"]) == (set(STAGES), COMMANDS)


DOCUMENTS = (
    *("README.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("docs/ARCHITECTURE.md", "examples/README.md", "schemas/README.md"),
)


def test_every_link_of_the_documents_leads_to_something() -> None:
    for document in DOCUMENTS:
        text = (PROJECT / document).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)[)#]", text):
            assert os.path.exists((PROJECT / document).parent / target), f"{document}: {target}"
