# SPDX-License-Identifier: Apache-2.0
"""--help has all that the tables have, on lines that fit a terminal."""

from __future__ import annotations

import re

from oci_bind_hook.commands.dispatch import COMMANDS
from oci_bind_hook.commands.help import summary
from oci_bind_hook.commands.reference import EXIT_CODES, HOOK, INSTALL, fields
from oci_bind_hook.options import STAGES

HELP = summary(COMMANDS)
FLAT = " ".join(HELP.split())


def test_it_fits_a_terminal() -> None:
    assert max(map(len, HELP.splitlines())) <= 80


def test_it_has_every_stage_command_option_and_field() -> None:
    lines = re.findall(r"^  (\S.*?)(?:  |$)", HELP, re.MULTILINE)
    assert lines == [*(each.form for each in HOOK), *(each.name for each in COMMANDS), *(each.form for each in INSTALL)]
    assert [word for word in (*STAGES, *fields().split(", ")) if word not in FLAT] == []


def test_it_has_the_text_of_each_row() -> None:
    texts = [each.text for each in (*HOOK, *INSTALL, *COMMANDS)]
    assert [text for text in texts if text.replace("`", "") not in FLAT] == []


def test_it_has_every_exit_code() -> None:
    found = re.findall(r"(\d+) ([^,]+)", FLAT.partition("Exit codes: ")[2].removesuffix("."))
    assert found == [(str(code), text) for code, text, _ in EXIT_CODES]


def test_what_a_usage_names_the_command_has() -> None:
    for command in COMMANDS:
        named = set(re.findall(r"--[a-z-]+", command.usage))
        assert named <= {option.name for option in command.options}, command.name
