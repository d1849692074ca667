# SPDX-License-Identifier: Apache-2.0
"""What commands do if stdout cannot be written."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook import cli

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def stdout(fd: int) -> Iterator[None]:
    """Replaces stdout by ``fd``, which is closed at the end."""
    saved = os.dup(1)
    os.dup2(fd, 1)
    os.close(fd)
    try:
        yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def without_reader() -> contextlib.AbstractContextManager[None]:
    """Replaces stdout by a pipe without a reader."""
    read, write = os.pipe()
    os.close(read)
    return stdout(write)


def test_a_full_disk_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with stdout(os.open("/dev/full", os.O_WRONLY)):
        code = cli.main(["--help"])
    assert code == os.EX_OSERR
    assert capfd.readouterr() == (
        "",
        "oci-bind-hook: write stdout: No space left on device (the file system has no space or inodes left)\n",
    )


def test_without_a_reader_the_exit_code_is_the_usual_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.json").write_text("[]")
    for words, code in (
        (["--help"], os.EX_OK),
        (["help", "manual"], os.EX_OK),
        *((["validate", "--format", name, f"{tmp_path}/bad.json"], os.EX_DATAERR) for name in ("text", "json")),
    ):
        with without_reader():
            assert cli.main(words) == code
        assert capfd.readouterr() == ("", "")


def test_without_a_reader_the_work_is_completed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """uninstall removes folders after it has reported the files that it removed."""
    prefix = tmp_path / "prefix"
    assert cli.main(["install", "--prefix", str(prefix), "--", "--mount", "src=/usr,dst=/data"]) == os.EX_OK
    assert prefix.exists()
    capfd.readouterr()
    with without_reader():
        assert cli.main(["uninstall", "--prefix", str(prefix)]) == os.EX_OK
    assert not prefix.exists()
    assert "stdout" not in capfd.readouterr().err
