# SPDX-License-Identifier: Apache-2.0
"""The SELinux labels of sources. Where SELinux is off they are extended attributes that root may set."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers.fuse import Fuse
from helpers.mounting import Bench, ext4, overlay, request, tmpfs
from oci_bind_hook.commands.explain.facts import describe
from oci_bind_hook.commands.explain.selinux import Labels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LABEL = "system_u:object_r:container_file_t:s0:c1,c2"
PROCESS = "system_u:system_r:container_t:s0:c1,c2"


def label(path: str, value: bytes = LABEL.encode() + b"\0") -> None:
    os.setxattr(path, "security.selinux", value)


def labels(bench: Bench, *sources: str) -> list[object]:
    """What is said of the labels of these sources."""
    requests = [request(source, f"/new{number}") for number, source in enumerate(sources)]
    described = describe(bench.plan(*requests, assumed=True))
    found = [each["found"] for each in described]
    return [each["label"] for each in found if isinstance(each, dict)]


@pytest.mark.parametrize("make", [tmpfs, ext4])
def test_a_source_is_shown_with_its_label_however_it_is_reached(make: Callable[[str], str], tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    place = make(f"{tmp_path}/place")
    os.mkdir(f"{place}/folder")
    with open(f"{place}/file", "wb"):
        pass
    os.symlink("folder", f"{place}/link")
    label(f"{place}/folder")
    label(f"{place}/file", b"without:an:end")
    overlay(f"{tmp_path}/over", lower=place)
    sources = [f"{place}/folder", f"{place}/link", f"{place}/file", f"{tmp_path}/over/folder", bench.source]
    assert labels(bench, *sources) == [LABEL, LABEL, "without:an:end", LABEL, None]


def test_no_server_is_asked_for_a_label(tmp_path: Path) -> None:
    """A real run does not ask for it: a dry-run that waited would wait for what does not matter."""
    bench = Bench(tmp_path)
    with Fuse(f"{tmp_path}/fuse") as fuse:
        overlay(f"{tmp_path}/over", lower=f"{fuse.path}/folder")
        assert labels(bench, fuse.path, f"{fuse.path}/word", f"{tmp_path}/over") == [None, None, None]
        assert fuse.asked_for_attributes() == 0


def test_without_selinux_nothing_is_denied(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    label(tmpfs(f"{tmp_path}/place"))
    found = Labels({"process": {"selinuxLabel": PROCESS}}, f"{tmp_path}/no-selinuxfs")
    (described,) = describe(bench.plan(request(f"{tmp_path}/place", "/new"), assumed=True), labels=found)
    assert described["warnings"] == []
    assert found.facts() == {"process": PROCESS, "mount": None, "mode": None}
