# SPDX-License-Identifier: Apache-2.0
"""list and show name the registration of a bind, where this machine has one that asks for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.mounting import named, request
from oci_bind_hook import cli
from oci_bind_hook.record.folder import StateFolder

if TYPE_CHECKING:
    from helpers.mounting import Bench

FOLDER = "/usr/share/containers/oci/hooks.d"


@pytest.mark.usefixtures("machine")
def test_a_bind_has_the_registration_that_asks_for_it(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    root = f"{bench.path}/state"
    made = bench.mount(request(bench.source, "/new"), request(f"{bench.source}/sub", "/subs/sub"))
    for mount, number in zip(made["mounts"], (1, 2), strict=True):
        mount["by"] = f"--mount {number}"
    folder = StateFolder.open(root, create=True)
    assert folder is not None
    with folder.lock_rootfs(made["rootfs"]) as held:
        held.save(named(made, "c1", phase="done", init=None))

    def install(name: str, *mounts: str) -> None:
        words = ["install", "--prefix", "/usr", "--name", name, "--"]
        assert cli.main([*words, *(word for mount in mounts for word in ("--mount", mount))]) == 0

    def told() -> list[str | None]:
        capfd.readouterr()
        assert cli.main(["list", "--root", root, "--format", "json"]) == 0
        [record] = json.loads(capfd.readouterr().out)["records"]
        return [mount["registration"] for mount in record["mounts"]]

    new, subs = f"src={bench.source},dst=/new", f"type=glob,src={bench.source}/s*,dst=/subs"
    assert told() == [None, None]
    install("other-place", subs, new)
    install("other-source", f"src={bench.source}/word,dst=/new", f"type=glob,src={bench.source}/w*,dst=/subs")
    install("other-part", f"{new},subpath=sub")
    install("edited", new)
    edited = Path(f"{FOLDER}/oci-bind-hook-edited.json")
    edited.write_text(edited.read_text().replace("dst=/new", "dst=new"))
    assert told() == [None, None]
    install("models", f"{new},ro", subs)
    assert told() == [f"{FOLDER}/oci-bind-hook-models.json"] * 2
    assert cli.main(["show", "c1", "--root", root]) == 0
    shown = capfd.readouterr().out
    assert f"requested by --mount 1 of {FOLDER}/oci-bind-hook-models.json, destination /new\n" in shown
    # Two of them may be meant.
    install("same", new)
    assert told() == [None, f"{FOLDER}/oci-bind-hook-models.json"]
