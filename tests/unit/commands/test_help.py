# SPDX-License-Identifier: Apache-2.0
"""Help has all that the tables have, on lines that fit a terminal; and its examples are calls that work."""

from __future__ import annotations

import os
import re
import shlex

import pytest

from oci_bind_hook import cli, options
from oci_bind_hook.commands import help as helping
from oci_bind_hook.commands.command_line import Command, Given
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.reference import EXIT_CODES, HOOK, INSTALL, fields
from oci_bind_hook.options import STAGES
from oci_bind_hook.requests.mount_field import parse_mount

SUMMARY = helping.summary(COMMANDS)
OF_HOOK = helping.of_hook()
OF_COMMANDS = {command.name: helping.of_command(command, COMMANDS) for command in COMMANDS}
EXAMPLES = [(command, example) for command in COMMANDS for example in command.examples]


def flat(text: str) -> str:
    return " ".join(text.split())


def rows(text: str) -> list[str]:
    """What the rows of tables begin with."""
    return re.findall(r"^  (\S.*?)(?:  |$)", text, re.MULTILINE)


@pytest.mark.parametrize("text", [SUMMARY, OF_HOOK, *OF_COMMANDS.values()], ids=["summary", "options", *OF_COMMANDS])
def test_it_fits_a_terminal(text: str) -> None:
    assert [line for line in text.splitlines() if len(line) > 80] == []


def test_the_summary_fits_a_screen_with_a_prompt_below_it() -> None:
    assert SUMMARY.count("\n") <= 23
    assert rows(SUMMARY) == [command.name for command in COMMANDS if " " not in command.name]


def test_that_of_the_hook_has_every_stage_option_field_and_exit_code() -> None:
    assert rows(OF_HOOK) == [each.form for each in HOOK]
    assert [word for word in (*STAGES, *fields().split(", ")) if word not in flat(OF_HOOK)] == []
    assert [each.text for each in HOOK if each.text.replace("`", "") not in flat(OF_HOOK)] == []
    found = re.findall(r"(\d+) ([^,]+)", flat(OF_HOOK).partition("Exit codes: ")[2].removesuffix("."))
    assert found == [(str(code), text) for code, text, _ in EXIT_CODES]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_that_of_a_command_has_what_the_command_has(command: Command) -> None:
    text = OF_COMMANDS[command.name]
    head, _, rest = text.partition("Exit codes:")
    codes, _, examples = rest.partition("Examples:")
    assert rows(head) == [each.form for each in command.options]
    assert [each.text for each in command.options if each.text.replace("`", "") not in flat(head)] == []
    assert flat(command.text[1:]) in flat(head)
    assert rows(codes) == sorted((str(code) for code in {64, *dict(command.exits)}), key=int)
    assert {int(row) for row in rows(codes)} <= {code for code, _, _ in EXIT_CODES}
    # A shell takes the lines of an example as one.
    calls = examples.replace("\\\n", "")
    shown = [shlex.split(call) for call in re.findall(r"^ {6}(\S.*)", calls, re.MULTILINE)]
    assert shown == [["oci-bind-hook", *shlex.split(example.words)] for example in command.examples]


def test_every_option_of_install_is_in_the_help_of_a_command() -> None:
    assert {each.form for each in INSTALL} <= {form for text in OF_COMMANDS.values() for form in rows(text)}


def test_uninstall_says_of_its_options_what_they_remove() -> None:
    text = flat(OF_COMMANDS["uninstall"].partition("Exit codes:")[0])
    assert "remove these CDI devices" in text
    assert [words for words in ("register for", "also add it", "--check", "--list") if words in text] == []


def test_what_a_usage_names_the_command_has() -> None:
    for command in COMMANDS:
        named = set(re.findall(r"--[a-z-]+", command.usage))
        assert named <= {option.name for option in command.options}, command.name


def test_every_command_has_two_examples_or_more() -> None:
    assert [command.name for command in COMMANDS if len(command.examples) < 2] == []


@pytest.mark.parametrize(("command", "example"), EXAMPLES, ids=[example.words for _, example in EXAMPLES])
def test_every_example_is_a_call_of_its_command(command: Command, example: tuple[str, str]) -> None:
    text, line = example
    assert text[0].isupper()
    assert not text.endswith(".")
    words = shlex.split(line)
    assert words[0] == command.name.split()[0]
    assert set(command.name.split()) <= set(words)
    del words[0]
    stdin = next((place for place, word in enumerate(words) if word[0] in "<>"), len(words))
    given = Given(command, words[:stdin])
    if command.only_behind or command.name == "explain":
        passed = given.others if command.only_behind else given.passed
        found, _ = options.parse([*passed, *([] if command.only_behind else ["--dry-run"])])
        for number, mount in enumerate(found.mounts, 1):
            parse_mount(mount, f"--mount {number}", "")


def test_the_help_of_install_has_the_options_that_select_another_command() -> None:
    for option in ("--check", "--list"):
        assert f"\n  {option}  " in OF_COMMANDS["install"]
    # The exit codes of --check and --apply.
    assert {"65", "69"} <= {*rows(OF_COMMANDS["install"].partition("Exit codes:")[2].partition("Examples:")[0])}


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
@pytest.mark.parametrize("word", ["--help", "-h"])
def test_a_command_prints_its_own_and_looks_at_nothing(
    command: Command, word: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*command.name.split(), "/absent/bundle", "--root", "/absent/state", "--nonsense", word]
    assert cli.main(words) == os.EX_OK
    assert capfd.readouterr() == (OF_COMMANDS[command.name], "")


ASKED = {
    "--help": SUMMARY,
    "-h": SUMMARY,
    "--nonsense --help": SUMMARY,
    "nonsense --help": SUMMARY,
    "createRuntime --help": OF_HOOK,
    "--dry-run -h": OF_HOOK,
    "help": SUMMARY,
    "help options": OF_HOOK,
    "help gc": OF_COMMANDS["gc"],
    "install -- --mount --help": OF_COMMANDS["install"],
}


@pytest.mark.parametrize("words", ASKED)
def test_what_is_asked_for_is_printed(words: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words.split()) == os.EX_OK
    assert capfd.readouterr() == (ASKED[words], "")


def test_a_file_may_be_called_so(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["validate", "--", "--help"]) == os.EX_NOINPUT
    assert "--help" in capfd.readouterr().out


def test_a_topic_that_is_none_names_the_nearest_or_all(capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["help", "instal"]) == os.EX_USAGE
    assert capfd.readouterr().err == ('oci-bind-hook: help instal: there is no such topic (did you mean "install"?)\n')
    assert cli.main(["help", "rootless"]) == os.EX_USAGE
    assert '(did you mean "rootless-and-user-namespaces"?)' in capfd.readouterr().err
    assert cli.main(["help", "x"]) == os.EX_USAGE
    assert "topics are options, explain, attach, detach, list," in capfd.readouterr().err
