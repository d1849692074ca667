# SPDX-License-Identifier: Apache-2.0
"""The verdict in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from oci_bind_hook.commands.explain.verdict import verdict


def mount(action: str = "mount", *create: str, by: str | None = "hook", **members: Any) -> dict[str, Any]:
    points = [{"path": path, "kind": "directory" if path.endswith("d") else "file"} for path in create]
    return {"action": action, "by": by, "create": points, "warnings": [], "now": None, **members}


def problem(where: str = "--mount 2", code: int = 66) -> dict[str, Any]:
    return {"where": where, "message": "it does not exist", "hint": "h", "exit": code}


def refused(where: str, *runtimes: str) -> dict[str, Any]:
    return {"where": where, "message": "it does not exist", "hint": "", "by": list(runtimes)}


SKIPPED = mount("skipped", by=None, warnings=["why"])
RUNTIME = mount("present", by="runtime")

VERDICTS: list[tuple[dict[str, Any], str]] = [
    ({}, "ready: no bind is requested"),
    ({"mounts": [RUNTIME]}, "ready: no bind is requested"),
    ({"mounts": [mount()]}, "ready: 1 bind"),
    ({"mounts": [mount("mount", "/a/d", "/a/d/d"), mount("mount", "/a/d")]}, "ready: 2 binds, 2 folders to create"),
    ({"mounts": [mount("mount", "/d", "/f")]}, "ready: 1 bind, 1 folder and 1 file to create"),
    ({"mounts": [SKIPPED, SKIPPED]}, "ready: nothing to mount, 2 skipped"),
    ({"mounts": [mount("present"), mount()]}, "ready: 1 bind, 1 already mounted"),
    ({"mounts": [mount(warnings=["a"]), SKIPPED], "warnings": ["b"]}, "ready: 1 bind, 1 skipped; 2 warnings"),
    (
        {"mounts": [mount(now=True), mount(now=False), RUNTIME], "running": {}},
        "ready: 2 binds; the container runs with 1 of 2 mounted",
    ),
    ({"problems": [problem(), problem("x", 78)]}, "would fail: 66, --mount 2: it does not exist (and 1 more)"),
    ({"problems": [problem("")]}, "would fail: 66, it does not exist"),
    ({"problems": [problem()], "sure": False}, "not known: --mount 2: it does not exist"),
    ({"problems": [problem()] * 3, "sure": False}, "not known: --mount 2: it does not exist (and 2 more)"),
    (
        {"problems": [problem("e", 78)], "failure": False, "runtime": [refused("m", "runc", "crun")]},
        "the runtime would refuse it: m: it does not exist (and 1 more)",
    ),
    (
        {"problems": [problem()], "runtime": [refused("m", "runc")]},
        "would fail: 66, --mount 2: it does not exist (and 1 more)",
    ),
    ({"runtime": [refused("m", "runc", "crun")]}, "the runtime would refuse it: 73, m: it does not exist"),
    (
        {"runtime": [refused("m", "runc"), refused("n", "crun")]},
        "the runtime would refuse it: 73, m: it does not exist (and 1 more)",
    ),
    ({"runtime": [refused("m", "runc")]}, "ready: no bind is requested; runc would refuse it: m: it does not exist"),
    (
        {"problems": [problem("config.json: /hooks/createRuntime/0/env", 78)], "failure": False, "mounts": [mount()]},
        "not safe: 78, config.json: /hooks/createRuntime/0/env; otherwise ready: 1 bind",
    ),
    ({"off": True, "warnings": ["w"]}, "nothing would be bound: the launcher is turned off"),
    (
        {"off": True, "problems": [problem("e", 78)], "failure": False},
        "not safe: 78, e; otherwise nothing would be bound: the launcher is turned off",
    ),
    ({"remove": []}, "nothing to undo"),
    ({"remove": ["/a"]}, "would remove 1 mount point"),
    (
        {"remove": ["/a", "/b"], "mounts": [mount("unmount"), mount("gone")]},
        "would undo 1 bind and remove 2 mount points",
    ),
]


@pytest.mark.parametrize(("members", "expected"), VERDICTS, ids=[row[1] for row in VERDICTS])
def test_the_verdict(members: dict[str, Any], expected: str) -> None:
    is_sure = members.pop("sure", True)
    document = {"mounts": [], "problems": [], "warnings": [], "running": None, **members}
    is_failure = document.pop("failure", is_sure and bool(document["problems"]))
    is_off = document.pop("off", False)
    assert verdict(document, is_failure=is_failure, is_sure=is_sure, is_turned_off=is_off) == expected


def test_what_nobody_can_tell_now_is_no_fault_besides_one() -> None:
    document: dict[str, Any] = {"mounts": [], "problems": [problem()] * 2, "warnings": [], "running": None}
    told = verdict(document, is_failure=True, is_sure=True, is_known=False)
    assert told == "would fail: 66, --mount 2: it does not exist"


def test_what_nobody_can_tell_now() -> None:
    document: dict[str, Any] = {
        **{"mounts": [mount()], "problems": [problem("")], "runtime": [], "warnings": [], "running": None},
    }
    assert verdict(document, is_failure=False, is_sure=True, is_known=False) == "not known: it does not exist"
