# SPDX-License-Identifier: Apache-2.0
"""The text of --version: where the commit comes from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook.commands import version

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "commit"),
    [
        ('{"url": "u", "vcs_info": {"vcs": "git", "commit_id": "abc123"}}', "abc123"),
        ('{"url": "file:///x", "dir_info": {}}', ""),
        ("[]", ""),
        ("{", ""),
        (None, ""),
    ],
)
def test_the_commit_is_what_pip_wrote_down(
    text: str | None, commit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "oci_bind_hook-9.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: oci-bind-hook\nVersion: 9\n")
    if text is not None:
        (information / "direct_url.json").write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert version.commit() == commit
    assert f"commit: {commit or 'unknown'}\n" in version.version()
