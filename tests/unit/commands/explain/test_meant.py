# SPDX-License-Identifier: Apache-2.0
"""What is explained: a folder, a file in it, what a link leads to; and the command that does so."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands.explain.meant import bundle_of

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = {"ociVersion": "1.0.2", "root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "mount"}]}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two bundles, whose configs are of different names, and links to all of them."""
    for name in ("b", "c"):
        (tmp_path / name / "rootfs").mkdir(parents=True)
        (tmp_path / name / "config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "b/other.json").write_text(json.dumps({**CONFIG, "root": {"path": "../c/rootfs"}}))
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/config.json").symlink_to("../b/other.json")
    for name, target in {"folder": "b", "file": "b/config.json", "far": "file", "other": "b/other.json"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "nowhere").symlink_to("absent/config.json")
    return tmp_path


MEANT = {
    "b": ("b", ""),
    "folder": ("folder", ""),
    "b/config.json": ("b", ""),
    "folder/config.json": ("folder", ""),
    "file": ("b", ""),
    "far": ("b", ""),
    "b/other.json": ("b", "b/other.json"),
    "other": ("b", "b/other.json"),
    "kept/config.json": ("kept", ""),
    "absent": ("absent", ""),
    "absent/config.json": ("absent/config.json", ""),
    "b/rootfs": ("b/rootfs", ""),
}


@pytest.mark.parametrize(("word", "meant"), MEANT.items(), ids=MEANT)
def test_a_path_means_a_bundle(folder: Path, word: str, meant: tuple[str, str]) -> None:
    bundle, file = meant
    assert bundle_of(f"{folder}/{word}") == (f"{folder}/{bundle}", f"{folder}/{file}" if file else "")


def explained(capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    code = cli.main(["explain", *words, "--format=json"])
    out, err = capfd.readouterr()
    assert err == ""
    return code, json.loads(out)


def test_each_way_to_name_a_bundle(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder / "b")
    for words in ([], ["."], ["./config.json"], ["../b/config.json"], [f"{folder}/file"]):
        code, told = explained(capfd, *words)
        # No runtime starts what has no program.
        assert (code, told["bundle"], told["rootfs"]) == (os.EX_CANTCREAT, f"{folder}/b", f"{folder}/b/rootfs"), words
        assert not [note for note in told["notes"] if "is read instead of" in note]
    code, told = explained(capfd, "./other.json", "createContainer", "--mount=src=/absent,dst=/a")
    assert (code, told["stage"], told["rootfs"]) == (os.EX_NOINPUT, "createContainer", f"{folder}/c/rootfs")
    assert f"{folder}/b/other.json is read instead of {folder}/b/config.json" in told["notes"]
    # --dry-run --bundle takes the same words.
    assert cli.main(["--dry-run", "--bundle", f"{folder}/file", "--format=json"]) == os.EX_CANTCREAT
    assert json.loads(capfd.readouterr().out)["bundle"] == f"{folder}/b"


def test_what_is_no_bundle_is_told(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    os.mkfifo(folder / "fifo")
    (folder / "torn").write_text("{")
    said = {
        "./absent": (66, "", f"the bundle {folder}/absent cannot be opened: No such file or directory"),
        "./nowhere": (66, "", f"{folder}/nowhere cannot be opened: No such file or directory"),
        "./fifo": (66, "", f"{folder}/fifo is not a regular file"),
        "kept/../torn": (65, "config.json", "Expecting property name"),
        "b/rootfs": (66, "", f"{folder}/b/rootfs/config.json cannot be opened: No such file or directory"),
    }
    for word, (exit_code, where, message) in said.items():
        code, told = explained(capfd, word)
        [problem] = told["problems"]
        assert (code, problem["exit"]) == (exit_code, exit_code), word
        assert (problem["where"], problem["message"][: len(message)]) == (where, message)
    assert cli.main(["explain"]) == os.EX_USAGE
    assert "the current folder has no config.json" in capfd.readouterr().err
