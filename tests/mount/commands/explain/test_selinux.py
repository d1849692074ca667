# SPDX-License-Identifier: Apache-2.0
"""The SELinux labels of sources. Where SELinux is off they are extended attributes that root may set."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from helpers.fuse import Fuse
from helpers.mounting import Bench, ext4, overlay, request, tmpfs
from oci_bind_hook.commands.explain.facts import describe
from oci_bind_hook.commands.explain.selinux import Labels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from helpers.fuse import Tree

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


READING = ("getattr", "open", "read", "search")
WRITING = ("add_name", "remove_name", "write")
PERMISSIONS = ("ioctl", *READING, *WRITING)  # by their numbers, which begin with 1


def selinuxfs(allowed: Sequence[str], *, flags: int = 0, enforce: bytes = b"1") -> Tree:
    """What selinuxfs has, with a policy that knows one question: what PROCESS may do to a folder of LABEL."""
    bits = sum(1 << PERMISSIONS.index(each) for each in allowed)

    def access(question: bytes) -> bytes:
        if question != f"{PROCESS} {LABEL} 7".encode():
            raise OSError(errno.EINVAL, "")
        return f"{bits:x} ffffffff 0 ffffffff 1 {flags:x}".encode()

    numbers: Tree = {name: str(number).encode() for number, name in enumerate(PERMISSIONS, 1)}
    return {"enforce": enforce, "access": access, "class": {"dir": {"index": b"7", "perms": numbers}}}


DENIED = f"SELinux denies {PROCESS} access to {LABEL}: "
ADVICE = " (relabel the source: the hook does not)"
VERDICTS: dict[str, tuple[Tree, str, str, list[str]]] = {
    "all allowed": (selinuxfs(PERMISSIONS), LABEL, "rw", []),
    "not to be written": (selinuxfs(READING), LABEL, "rw", [f"{DENIED}add_name, remove_name, write{ADVICE}"]),
    "not to be written, read-only": (selinuxfs(READING), LABEL, "ro", []),
    "not to be read": (selinuxfs(("ioctl", "open", "read")), LABEL, "ro", [f"{DENIED}getattr, search{ADVICE}"]),
    "only logged": (
        selinuxfs(READING[1:], enforce=b"0"),
        LABEL,
        "ro",
        [f"{DENIED}getattr, which is only logged while SELinux is permissive{ADVICE}"],
    ),
    "a permissive domain": (selinuxfs((), flags=1), LABEL, "rw", []),
    "another flag": (selinuxfs(READING[1:], flags=2), LABEL, "ro", [f"{DENIED}getattr{ADVICE}"]),
    "a label that the policy does not know": (selinuxfs(()), "a:b:c", "rw", []),
}


@pytest.mark.parametrize(("tree", "of_source", "word", "warnings"), VERDICTS.values(), ids=VERDICTS)
def test_the_policy_is_asked_for_the_process_and_the_source(
    tree: Tree, of_source: str, word: str, warnings: list[str], tmp_path: Path
) -> None:
    """A stand-in answers as security/selinux/selinuxfs.c does: no kernel of the tests has SELinux on."""
    bench = Bench(tmp_path)
    label(tmpfs(f"{tmp_path}/place"), of_source.encode())
    with Fuse(f"{tmp_path}/selinuxfs", tree) as fuse:
        found = Labels({"process": {"selinuxLabel": PROCESS}}, fuse.path)
        planned = bench.plan(request(f"{tmp_path}/place", "/new", word), assumed=True)
        (described,) = describe(planned, labels=found)
        assert described["warnings"] == warnings
