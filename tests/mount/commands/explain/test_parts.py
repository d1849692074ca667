# SPDX-License-Identifier: Apache-2.0
"""explain names the registration that an entry of config.json comes from, where one on this machine has its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from oci_bind_hook import cli

if TYPE_CHECKING:
    from helpers.mounting import Bench

FOLDER = "/usr/share/containers/oci/hooks.d"


@pytest.mark.usefixtures("machine")
def test_an_entry_has_the_registration_that_it_comes_from(bench: Bench, capfd: pytest.CaptureFixture[str]) -> None:
    def install(*words: str, path: str) -> None:
        assert cli.main(["install", "--prefix", "/usr", *words, "--", "--mount", f"src={bench.source},dst={path}"]) == 0

    def hook(name: str) -> dict[str, Any]:
        found = json.loads(Path(f"{FOLDER}/oci-bind-hook-{name}.json").read_text())["hook"]
        assert isinstance(found, dict)
        return found

    def told() -> list[str | None]:
        capfd.readouterr()
        cli.main(["explain", bundle, "--format=json"])
        found = json.loads(capfd.readouterr().out)
        assert len(found["registered"]) == 4
        return [file and file.rpartition("/")[2] for file in found["registrations"]]

    for name in ("models", "hpc"):
        install("--name", name, path=f"/{name}")
    install("--cdi", "gpu", path="/gpu")
    device = json.loads(Path("/etc/cdi/oci-bind-hook-gpu.json").read_text())["devices"][0]
    entry = {key: value for key, value in device["containerEdits"]["hooks"][0].items() if key != "hookName"}
    edited = {**hook("hpc"), "args": [*hook("hpc")["args"], "--debug"]}
    hooks = {"createRuntime": [hook("hpc"), edited, entry], "poststop": [hook("models")]}
    bundle = support.bundle(Path(bench.path, "bundle"), ["true"], hooks=hooks)
    names = ["oci-bind-hook-hpc.json", None, "oci-bind-hook-gpu.json", "oci-bind-hook-models.json"]
    assert told() == names
    cli.main(["explain", bundle])
    places = [f"config.json: /hooks/{each}" for each in ("createRuntime/0", "createRuntime/1", "createRuntime/2")]
    line = f"{places[0]} (from {FOLDER}/oci-bind-hook-hpc.json), {places[1]}, {places[2]} (from /etc/cdi/oci-bind-hook"
    assert f"\nregistered {line}-gpu.json), " in capfd.readouterr().out
    # Another one with the same words may be meant.
    install("--name", "same", path="/hpc")
    assert told() == [None, *names[1:]]
