# SPDX-License-Identifier: Apache-2.0
"""A record of rootless podman, seen from outside podman's user namespace: nothing is lost, and what works is named.

Outside, an overlay that podman mounted does not exist, and owners have other numbers.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.podman import ISOLATED, OPTIONS, ROOTLESS_LIMITS, UNIFIED
from oci_bind_hook.commands.engines.install import install

from .test_rootless import FOLDER, UID, Rootless, give

if TYPE_CHECKING:
    from pathlib import Path


class Shell:
    """Commands of one ordinary user, one after the other, in a pid namespace that takes all they leave with it."""

    def __init__(self, world: Rootless) -> None:
        self.world = world
        self.lines = [UNIFIED]

    def add(self, name: str, *words: str) -> None:
        environment = {"HOME": self.world.path, "XDG_RUNTIME_DIR": FOLDER, "PATH": support.PATH}
        settings = [f"{key}={value}" for key, value in environment.items()]
        command = shlex.join([*support.as_user(UID), "env", "-i", *settings, *words])
        to = shlex.quote(f"{self.world.path}/{name}")
        self.lines.append(f"code=0; {command} > {to}.out 2> {to}.err || code=$?; echo $code > {to}.code")

    def run(self) -> None:
        subprocess.run([*ISOLATED, "sh", "-c", "\n".join(self.lines)], check=True, timeout=support.TIMEOUT)

    def told(self, name: str) -> tuple[int, str, str]:
        """Exit code, standard output and standard error of one command."""
        code, out, err = ((self.world.path / f"{name}.{kind}").read_text() for kind in ("code", "out", "err"))
        return int(code), out, err


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_from_outside_nothing_is_lost(tmp_path: Path, launcher: str, driver: str) -> None:
    world = Rootless(tmp_path, launcher)
    image = str(world.path / "image.tar")
    subprocess.run(["tar", "-C", world.rootfs, "-cf", image, "."], check=True)
    # Without poststop, so that somebody must collect it.
    words = ["--mount", f"src={world.source},dst=/new/place"]
    install(str(world.path / "prefix"), ("createRuntime",), words, hooks_dir=f"{world.path}/hooks.d")
    give(world.path)
    # One id is enough for it here: no package must be installed for more.
    podman = ["podman", f"--storage-driver={driver}", f"--storage-opt={driver}.ignore_chown_errors=true", *OPTIONS]
    inside = [*podman, "unshare"]
    storage = f"{world.path}/.local/share/containers/storage"
    find = [*inside, "find", storage, "-path", "*/new/place"]
    records = ["find", str(world.state), "-name", "*.json"]
    shell = Shell(world)
    shell.add("import", *podman, "import", "--quiet", image, "image")
    run = [*podman, f"--hooks-dir={world.path}/hooks.d", "run", "--name=c", *ROOTLESS_LIMITS, "image"]
    shell.add("run", *run, "cat", "/new/place/word")
    shell.add("made", *find)
    shell.add("recorded", *records)
    shell.add("list", launcher, "list", "--format=json")
    show = f"{shlex.quote(launcher)} show --format=json $(basename {world.state}/*.json .json)"
    shell.add("show", "sh", "-c", show)
    shell.add("gc", launcher, "gc")
    shell.add("list inside", *inside, launcher, "list", "--format=json")
    shell.add("still made", *find)
    shell.add("still recorded", *records)
    # An overlay is not mounted any more: podman mounts it again.
    shell.add("collect", *inside, "sh", "-c", f"{shlex.join([*podman, 'mount', 'c'])} && {launcher} gc")
    shell.add("left", *find)
    shell.add("left recorded", *records)
    shell.run()
    assert shell.told("import")[0] == 0, shell.told("import")
    assert shell.told("run")[:2] == (0, "hello from the host\n"), shell.told("run")
    assert (shell.told("made")[1].count("\n"), shell.told("recorded")[1].count("\n")) == (1, 1)
    command = "run podman unshare oci-bind-hook gc"
    for name in ("list", "show"):
        code, out, err = shell.told(name)
        [entry] = json.loads(out)["records"]
        assert (code, err, entry["status"], entry["advice"]) == (0, "", "unknown", command)
        assert entry["reason"] == "it was recorded in another user namespace"
        assert {each["state"] for each in (*entry["mounts"], *entry["made"])} == {"unseen"}
    code, out, err = shell.told("gc")
    assert (code, f"its mounts are not visible from here ({command})" in out) == (71, True), (out, err)
    [entry] = json.loads(shell.told("list inside")[1])["records"]
    assert (entry["status"], f"run {entry['advice']}") == ("dead", command)
    assert shell.told("still made") == shell.told("made")
    assert shell.told("still recorded") == shell.told("recorded")
    code, out, _ = shell.told("collect")
    assert (code, [line.strip() for line in out.splitlines()[2:]]) == (0, ["removed /new/place", "removed /new"])
    assert (shell.told("left")[1], shell.told("left recorded")[1]) == ("", "")
    assert os.listdir(world.state) == []
