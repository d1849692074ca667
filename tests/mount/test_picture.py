# SPDX-License-Identifier: Apache-2.0
"""The picture in README.md is what the hook prints."""

from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
SCRIPT = DOCS / "picture.py"


def test_it_is_made_again_byte_for_byte(tmp_path: Path) -> None:
    made = tmp_path / "explain.svg"
    subprocess.run([sys.executable, SCRIPT, made], check=True)
    assert made.read_bytes() == (DOCS / "explain.svg").read_bytes()


def test_its_text_can_be_read_and_nothing_is_fetched() -> None:
    picture = (DOCS / "explain.svg").read_text(encoding="utf-8")
    lines = ["".join(text.itertext()) for text in ET.fromstring(picture).iter("{http://www.w3.org/2000/svg}text")]
    assert "└─ by the runtime: /proc, /dev, /dev/pts, /dev/shm, /dev/mqueue, /sys, /sys/fs/cgroup" in lines
    assert lines[-1].startswith("ready: ")
    assert [word for word in ("href", "@import", "url(", "<script", "<image") if word in picture] == []
