# SPDX-License-Identifier: Apache-2.0
"""The tables for people and those the program works by have the same rows."""

from __future__ import annotations

from oci_bind_hook import errors, options
from oci_bind_hook.commands import reference
from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.errors import HookError
from oci_bind_hook.requests import mount_field, request

# The two that no parser sees: each stands for itself wherever it is.
ALONE = {"--help", "--version"}


def test_each_option_of_the_hook_has_a_text_and_the_parser_knows_which_have_a_value() -> None:
    assert {option.name for option in reference.HOOK} == set(options._OPTIONS)
    assert {option.name for option in reference.HOOK if not option.value} - ALONE == set(options.FLAGS)


def test_each_option_belongs_to_the_hook_or_to_a_command() -> None:
    tables = (reference.HOOK, reference.INSTALL, reference.RUNNING)
    told = [option.name for table in tables for option in table]
    known = {*told}
    # Three names mean two things: they belong to the hook, and to uninstall or to attach.
    assert sorted(told) == sorted((*known, "--all", "--bundle", "--dry-run"))
    of_commands = {option.name for command in COMMANDS for option in command.options}
    of_hook = {option.name for option in reference.HOOK}
    assert known | {option.name for option in (*reference.OF_COMMANDS, *reference.VALIDATE)} == {*of_hook, *of_commands}


def test_attach_and_detach_have_one_table_of_their_options() -> None:
    for command in COMMANDS:
        assert (command.run is None) == (command.name in options.TAKEN_BY)
        if command.run is None:
            assert tuple(option.name for option in command.options) == options.TAKEN_BY[command.name]
            assert options.parse(["one", "/two"], command.name)[0].others == ["one", "/two"]


def test_each_field_has_a_text() -> None:
    told = [name for row, _ in reference.FIELD_TEXTS for name in row.split()]
    deep = {f"r{word}" for word in request._ATTRIBUTES}
    assert len(told) == len(set(told))
    assert set(told) == {*mount_field.FIELDS, *request.WORDS} - deep


def test_the_fields_in_help_are_those_with_a_kind_and_without_what_is_shown_already() -> None:
    words = "subpath=PATH nofollow "
    words += "ro bind-recursive=WORD bind-nonrecursive bind-propagation=WORD idmap[=MAP] optional when-exists=PATH glob"
    words += " follow-links"
    assert reference.fields() == ", ".join(words.split())


def test_each_exit_code_has_a_text() -> None:
    classes = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, HookError)]
    ours = {0, errors.REFUSED, 130, *(each.exit_code for each in classes)}
    not_started_or_killed = {1, 126, 127, 137}
    codes = [code for code, _, _ in reference.EXIT_CODES]
    assert codes == sorted(ours | not_started_or_killed)
