# SPDX-License-Identifier: Apache-2.0
"""What is known of where output goes, and what a terminal shows meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.terminal import on_terminal
from oci_bind_hook.commands.terminal import has_unicode

LOCALES = {
    b"": False,
    b"LANG=C": False,
    b"LANG=C.UTF-8": True,
    b"LANG=de_DE.utf8": True,
    b"LANG=de_DE.ISO-8859-1": False,
    b"LANG=en_GB.UTF-8\0LC_ALL=C": False,
    b"LC_ALL=\0LANG=en_GB.UTF-8": True,
    b"LANG=C\0LC_CTYPE=C.UTF-8": True,
    b"LANG=en_GB.UTF-8\0LC_CTYPE=C": False,
    b"LC_NUMERIC=en_GB.UTF-8\0\xff\0=": False,
}


@pytest.mark.parametrize("environment", LOCALES)
def test_whether_the_locale_has_unicode(environment: bytes) -> None:
    assert has_unicode(environment) == LOCALES[environment]


def told(folder: Path, total: int, **environment: str) -> str:
    """What a terminal shows while so many documents are validated, of which the last is invalid."""
    for name, text in (("good", '{"ociVersion": "1.2.0", "root": {"path": "rootfs"}}'), ("bad", "[]")):
        (folder / name).write_text(text, encoding="utf-8")
    return on_terminal(80, ["validate", *[f"{folder}/good"] * (total - 1), f"{folder}/bad"], **environment)


def test_a_terminal_shows_how_many_are_done(tmp_path: Path) -> None:
    violation = f"{tmp_path}/bad:1:1: must be of type object, not an array\n"
    shown = ["", *(f"{done} of 200" for done in range(0, 200, 2)), violation, ""]
    assert told(tmp_path, 200).split("\r\033[K") == shown
    assert told(tmp_path, 99) == told(tmp_path, 200, TERM="dumb") == violation
