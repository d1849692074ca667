# SPDX-License-Identifier: Apache-2.0
"""Binds that cover what the container runs: its program, interpreters, and what many names lead to."""

from __future__ import annotations

import os
import shutil
import struct
from typing import TYPE_CHECKING, Any

import pytest

from helpers.mounting import fds, plant, request
from helpers.support import APPLETS, busybox_rootfs
from oci_bind_hook.commands.explain.programs import warnings

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.mounting import Bench

PATH = "PATH=/usr/bin:/bin"


def elf(interpreter: str, *, bits: int = 64, order: str = "<") -> bytes:
    """A program with two segments: one of no interest, and one that names what loads it, elf(5)."""
    text = interpreter.encode() + b"\0"
    ident = b"\x7fELF" + bytes([bits // 32, 1 if order == "<" else 2, 1]) + bytes(9)
    if bits == 64:
        header = ident + struct.pack(f"{order}2HI3QI6H", 2, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
        form, place = f"{order}2I6Q", 64 + 2 * 56
        load = struct.pack(form, 1, 4, 0, 0, 0, 8, 8, 8)
        found = struct.pack(form, 3, 4, place, 0, 0, len(text), len(text), 1)
    else:
        header = ident + struct.pack(f"{order}2H5I6H", 2, 3, 1, 0, 52, 0, 0, 52, 32, 2, 0, 0, 0)
        form, place = f"{order}8I", 52 + 2 * 32
        load = struct.pack(form, 1, 0, 0, 0, 8, 8, 4, 8)
        found = struct.pack(form, 3, place, 0, 0, len(text), len(text), 4, 1)
    return header + load + found + text


@pytest.fixture
def image(bench: Bench) -> Bench:
    """Programs as images have them: links, scripts, a loader behind a merged /usr."""
    tree: dict[str, Any] = {
        "usr": {
            "bin": {
                "python3": "python3.11",
                "python3.11": elf("/lib64/ld.so"),
                "tool": b"#!/usr/bin/env -S X=1 python3 -u\n",
                "script": b"#! /bin/sh -e\n",
                "sh": elf("/usr/lib/ld.so", bits=32, order=">"),
                "env": elf("/lib64/ld.so"),
                "static": b"\x7fELF" + bytes(100),
                "short": b"\x7fELF",
                "plain": b"no program",
                "loop": b"#!/usr/bin/loop",
                "nul": b"#!/usr/bin/\0\n",
                "other": "/etc/alternatives/other",
            },
            "lib": {"ld.so": b"loader"},
            "lib64": {"ld.so": "../lib/ld.so"},
        },
        "bin": "usr/bin",
        "lib64": "usr/lib64",
        "etc": {"alternatives": {"other": "../../usr/bin/static"}, "word": b""},
        "srv": {"here": b"#!here2\n", "here2": b"\x7fELF"},
    }
    shutil.rmtree(f"{bench.rootfs}/etc")
    plant(bench.rootfs, tree)
    for folder in ("usr/bin", "usr/lib", "srv"):
        for name in os.listdir(f"{bench.rootfs}/{folder}"):
            if name != "plain" and not os.path.islink(f"{bench.rootfs}/{folder}/{name}"):
                os.chmod(f"{bench.rootfs}/{folder}/{name}", 0o755)
    return bench


def told(
    bench: Bench, destination: str, *args: str, folder: bool = False, nofollow: bool = False, **members: Any
) -> list[str]:
    """The warnings for a bind on ``destination`` in a container that runs ``args``."""
    asked = request(bench.source if folder else bench.file, destination, *(["dest-nofollow"] if nofollow else []))
    plan = bench.plan(asked, assumed=True)
    assert plan.problems == []
    return warnings(plan, {"process": {"args": [*args], "env": [PATH], "cwd": "/", **members}}).get(plan.binds[0], [])


PROGRAM = "the program of process.args"
FILES = {
    # destination, args[0], what is covered
    "itself": ("/usr/bin/static", "/usr/bin/static", f"covers /usr/bin/static, {PROGRAM}"),
    "by a folder's link": ("/bin/static", "/bin/static", f"covers /usr/bin/static, {PROGRAM}"),
    "by PATH": ("/bin/static", "static", f"covers /usr/bin/static, {PROGRAM}"),
    "by two links": ("/etc/alternatives/other", "other", f"covers /usr/bin/static, {PROGRAM}"),
    "by a link's name": ("/bin/python3", "python3.11", f"covers /usr/bin/python3.11, {PROGRAM}"),
    "the loader": ("/usr/lib/ld.so", "python3", "covers /usr/lib/ld.so, the interpreter of /usr/bin/python3.11"),
    "the loader, 32 bits": ("/lib64/ld.so", "sh", "covers /usr/lib/ld.so, the interpreter of /usr/bin/sh"),
    "a script's shell": ("/bin/sh", "script", "covers /usr/bin/sh, the interpreter of /usr/bin/script"),
    "a script's shell's loader": ("/lib64/ld.so", "script", "covers /usr/lib/ld.so, the interpreter of /usr/bin/sh"),
    "env": ("/bin/env", "tool", "covers /usr/bin/env, the interpreter of /usr/bin/tool"),
    "by env": ("/bin/python3", "tool", "covers /usr/bin/python3.11, the interpreter of /usr/bin/tool"),
    "a script of itself": ("/bin/loop", "loop", f"covers /usr/bin/loop, {PROGRAM}"),
    "something else": ("/etc/word", "python3", None),
    "no program": ("/bin/plain", "plain", None),
    "no such program": ("/bin/static", "absent", None),
    "a NUL in it": ("/bin/nul", "nul", f"covers /usr/bin/nul, {PROGRAM}"),
    "cut": ("/bin/short", "short", f"covers /usr/bin/short, {PROGRAM}"),
    "a new file": ("/usr/bin/new", "/usr/bin/new", None),
}


@pytest.mark.parametrize(("destination", "program", "warning"), FILES.values(), ids=FILES)
def test_a_file_that_is_to_run(image: Bench, destination: str, program: str, warning: str | None) -> None:
    assert told(image, destination, program) == ([warning] if warning else [])


FOLDERS = {
    "/usr/bin": f"covers /usr/bin/python3.11, {PROGRAM}",
    "/bin": f"covers /usr/bin/python3.11, {PROGRAM}",
    "/usr": f"covers /usr/bin/python3.11, {PROGRAM}",
    "/usr/lib": "covers /usr/lib/ld.so, the interpreter of /usr/bin/python3.11",
    "/lib64": "covers /usr/lib64/ld.so, a link that leads to the interpreter of /usr/bin/python3.11",
    "/etc": None,
    "/usr/bi": None,
}


@pytest.mark.parametrize(("destination", "warning"), FOLDERS.items())
def test_a_folder_above_it(image: Bench, destination: str, warning: str | None) -> None:
    assert told(image, destination, "python3", folder=True) == ([warning] if warning else [])


@pytest.mark.kernel(5, 12)  # nofollow
def test_a_link_on_the_way_itself(image: Bench) -> None:
    assert told(image, "/bin/python3", "python3", nofollow=True) == [
        f"covers /usr/bin/python3, a link that leads to {PROGRAM}"
    ]
    assert told(image, "/bin/python3", "python3.11", nofollow=True) == []


def test_a_relative_program(image: Bench) -> None:
    assert told(image, "/srv/here", "./here", cwd="/srv") == [f"covers /srv/here, {PROGRAM}"]
    assert told(image, "/srv/here", "here", cwd="/srv", env=["PATH=:/bin"]) == [f"covers /srv/here, {PROGRAM}"]
    assert told(image, "/srv/here2", "./here", cwd="/srv", env=["PATH=."]) == [
        "covers /srv/here2, the interpreter of /srv/here"
    ]


@pytest.mark.parametrize(
    "process", [None, [], {}, {"args": []}, {"args": [1]}, {"args": [""]}, {"args": ["\ud800"]}, {"args": ["/a\0b"]}]
)
def test_a_config_that_says_nothing_of_it(image: Bench, process: object) -> None:
    plan = image.plan(request(image.file, "/bin/static"), assumed=True)
    assert [*warnings(plan, {"process": process}).values()] == [[]]


def test_nothing_stays_open(image: Bench) -> None:
    """Of folders that are not there, are the same, or are none."""
    asked = request(image.file, "/usr/bin/static")
    plan = image.plan(asked, assumed=True)
    env = ["PATH=/usr/absent:/usr/bin/absent/too:/usr/bin:/bin:/usr/bin/plain"]
    before = fds()
    warnings(plan, {"process": {"args": ["python3"], "env": env}})
    assert fds() == before


@pytest.mark.kernel(5, 12)  # nofollow
def test_what_many_names_are_links_to(bench: Bench, tmp_path: Path) -> None:
    bench.rootfs = busybox_rootfs(tmp_path / "busybox")
    others = sorted(f"/bin/{name}" for name in APPLETS)
    some, count = ", ".join(others[:3]), len(others)
    program = f"covers /bin/busybox, {PROGRAM}"
    assert told(bench, "/bin/busybox", "cat") == [
        program,
        f"covers /bin/busybox, which {some} and {count - 3} more are links to",
    ]
    others.remove("/bin/sh")
    assert told(bench, "/bin/sh", "sleep") == [
        program,
        f"covers /bin/busybox, which {', '.join(others[:3])} and {count - 4} more are links to:"
        " with the field nofollow, the bind is on the link alone",
    ]
    assert told(bench, "/bin/sh", "sleep", nofollow=True) == []
    assert told(bench, "/bin/sh", "sh", nofollow=True) == [f"covers /bin/sh, a link that leads to {PROGRAM}"]
