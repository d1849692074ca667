# SPDX-License-Identifier: Apache-2.0
"""The man page has what the tables say."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import generate


@pytest.mark.parametrize("name", generate.FILES)
def test_what_is_generated_is_up_to_date(name: str) -> None:
    path = os.path.join(generate.HERE, name)
    text = Path(path).read_text(encoding="utf-8")
    assert generate.files()[path] == text, "run: .venv/bin/python hook/generate.py"
    assert sorted(re.findall(r"generated: ([a-z ]*[a-z])", text)) == sorted(generate.FILES[name])
