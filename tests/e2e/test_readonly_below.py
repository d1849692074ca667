# SPDX-License-Identifier: Apache-2.0
"""What ``ro`` makes of the mounts below a source, in docker's words and in OCI's, and what is said of it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.world import call

if TYPE_CHECKING:
    from helpers.world import World

WARNING = "ro does not apply to the mounts below, which stay writable: below; rro includes them"
# Fields, whether the mount below is there, whether it is writable, whether somebody is told.
READ_ONLY = {
    "ro": (True, True, True),
    "readonly,bind-recursive=enabled": (True, False, False),
    "ro,bind-recursive=writable": (True, True, True),
    "ro,bind-recursive=readonly": (True, False, False),
    "ro,bind-recursive=disabled": (False, False, False),
    "rro": (True, False, False),
    "ro,bind-nonrecursive=false": (True, True, True),
    "bind-recursive=enabled": (True, True, False),
}


@pytest.mark.parametrize("fields", READ_ONLY)
def test_what_is_below_is_read_only_or_it_is_said(world: World, fields: str) -> None:
    is_there, is_writable, is_told = READ_ONLY[fields]
    mounting.tmpfs(f"{world.source}/below")
    with open(f"{world.source}/below/there", "w"):
        pass
    log = world.path / "log"
    words = ["--mount", f"src={world.source},dst=/x,{fields}", "--log", str(log), "--log-format", "json"]
    script = "test -e /x/below/there && echo there; touch /x/below/new 2>/dev/null && test -e /x/below/there && echo w"
    # Without CAP_SYS_ADMIN there is nothing else to warn of.
    bundle = world.bundle(f"{script}; true", "createRuntime", *words)
    with open(f"{bundle}/config.json") as file:
        config = json.load(file)
    del config["process"]["capabilities"]
    with open(f"{bundle}/config.json", "w") as file:
        json.dump(config, file)
    options = ("--dry-run", "--format", "json", "--bundle", bundle)
    [planned] = [
        each
        for each in json.loads(call(world, "createRuntime", *words, *options, stdin="").stdout)["mounts"]
        if each["origin"] == "--mount 1"
    ]
    done = support.run_container("runc", bundle, "c1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["there"] * is_there + ["w"] * is_writable
    entries = [json.loads(line) for line in log.read_text().splitlines()]
    told = [entry["msg"] for entry in entries if entry["level"] == "warning"]
    assert told == [f"--mount 1: {WARNING}"] * is_told
    assert planned["warnings"] == [WARNING] * is_told
