# SPDX-License-Identifier: Apache-2.0
"""Neither of the two programs that read man pages has anything to say against ours."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

import manual
from oci_bind_hook import __version__


@pytest.mark.parametrize("name", manual.pages())
def test_a_page_is_clean(name: str, tmp_path: Path) -> None:
    page = tmp_path / name
    page.write_text(manual.pages()[name])
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "MANWIDTH": "80"}
    for command in (["mandoc", "-T", "lint", "-W", "all"], ["man", "--warnings", "-l"]):
        done = subprocess.run([*command, page], capture_output=True, text=True, check=False, env=environment)
        remarks = done.stderr + (done.stdout if command[0] == "mandoc" else "")
        assert (done.returncode, remarks) == (0, "")
        if command[0] == "man":
            assert f"oci-bind-hook {__version__}" in done.stdout.splitlines()[-1]
            assert manual.date() in done.stdout.splitlines()[-1]
