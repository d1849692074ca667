# SPDX-License-Identifier: Apache-2.0
"""A bind into a container that runs, and out of it, under each engine; also one whose root fights it all the time."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from engines.base import Done, call, good, names
from helpers import support

if TYPE_CHECKING:
    from engines.base import Hook, Way

WAYS = ["podman crun hooks.d", "podman runc CDI", "rootless crun CDI", "docker runc runtime", "ctr runc config.json"]
WAYS += ["CRI runc base spec", "remapped runc runtime"]
# All that a container's root with CAP_SYS_ADMIN can do to what is attached, and to where.
FIGHT = """
trap 'exit 0' TERM; echo ready
while :; do
    mkdir -p /new/more /old; mount -t tmpfs tmpfs /new/more; mount --bind /etc /new; mv /new /old/new
    mount -o remount,bind,rw /data; mount --move /data /old; umount -l /data /old /new/more /new; mv /old/new /new
    rmdir /old; mount --make-rshared /; mount --make-rprivate /; mkdir -p /old; mount --bind / /old; umount -l /old
done 2>/dev/null
"""
ROUNDS = 12


class Attached:
    """The container "box" of a way, to which something is attached; ``own`` are the words of the hook's command."""

    def __init__(self, way: Way, hook: Hook, name: str) -> None:
        self.way = way
        program = [hook.launcher]
        if name.startswith("rootless"):
            program = [*way.words, "unshare", hook.launcher]  # type: ignore[attr-defined]
        self.program = program
        self.containers = getattr(way, "containers", {})

    @property
    def id(self) -> str:
        """Its id, by its record: there is no other but that of its pod."""
        if self.containers:
            return str(self.containers["box"])
        [name] = [name for name in names(self.way.state) if name.endswith(".json")]
        return name.removesuffix(".json")

    @property
    def init(self) -> Path:
        """The root of the process that ran before."""
        record = json.loads(Path(f"{self.way.state}/{self.id}.json").read_text())
        return Path(f"/proc/{record['init']['pid']}/root")

    def call(self, command: str, *words: str) -> Done:
        return call(*self.program, command, self.id, *words)


@pytest.mark.parametrize("way", WAYS, indirect=True)
def test_attached_and_detached(way: Way, hook: Hook, request: pytest.FixtureRequest) -> None:
    done = way.start("box", "models")
    assert done.returncode == 0, done.stderr
    name = request.node.callspec.params["way"]
    box = Attached(way, hook, name)
    source = hook.folder / "database"
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir()
    (source / "word").write_text("of the host\n")
    maps = "" if name.startswith("rootless") else ",idmap=uids=0-1000-1;gids=0-1000-1"
    spec = ["--mount", f"type=bind,src={source},dst=/absolute/database,ro{maps}"]
    for _ in range(2):
        done = box.call("attach", *spec)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(f"attach 1: bound {source} on /real/database (rbind ro")
        assert (box.init / "real/database/word").read_text() == "of the host\n"
        if maps:
            assert os.stat(box.init / "real/database/word").st_uid == 1000
        assert "Read-only file system" in way.execute("box", "touch", "/real/database/new").stderr
        assert box.call("attach", *spec).stdout == "attach 2: already mounted on /real/database\n"
        done = box.call("detach", "/real/database")
        assert (done.returncode, done.stdout) == (0, f"detached {source} from /real/database\n"), done.stderr
        assert way.execute("box", "ls", "/real").stdout == "models\n"
    assert box.call("attach", *spec).returncode == 0
    way.stop("box")
    assert way.left() == []


@pytest.mark.parametrize("way", ["podman crun hooks.d", "docker runc runtime"], indirect=True)
def test_attached_to_a_hostile_container(way: Way, hook: Hook, request: pytest.FixtureRequest) -> None:
    options = ["--network=none", "--cap-add=SYS_ADMIN", "--security-opt=seccomp=unconfined", "--name=box"]
    options += ["--security-opt=apparmor=unconfined"]
    words: list[str] = way.words  # type: ignore[attr-defined]
    is_docker = way.engine.startswith("docker")
    asked = ["--runtime=bind-models"] if is_docker else ["--annotation=io.example.models=yes"]
    image = "docker.io/library/bind:latest"
    good(*words, "run", "--detach", *options, *asked, image, "/bin/sh", "-c", FIGHT)
    box = Attached(way, hook, request.node.callspec.params["way"])
    source = hook.folder / "sources/more"
    before, mounts = support.tree(hook.folder / "sources"), len(support.mounts())
    done = box.call("attach", "--mount", f"src={source},dst=/data,ro")
    assert (done.returncode, "CAP_SYS_ADMIN" in done.stderr) == (os.EX_NOPERM, True), done.stderr
    codes = set()
    for number in range(ROUNDS):
        place = ("/data", "/new/more/in", "/old/new")[number % 3]
        done = box.call("attach", "--mount", f"src={source},dst={place},ro", "--force")
        codes.add(done.returncode)
        assert done.stderr.count("\n") <= 2, done.stderr
        done = box.call("detach", "--all")
        codes.add(done.returncode)
    assert codes <= {0, os.EX_NOINPUT, os.EX_UNAVAILABLE, os.EX_OSERR, os.EX_NOPERM, os.EX_CONFIG, os.EX_IOERR}, codes
    assert 0 in codes
    assert support.tree(hook.folder / "sources") == before
    way.kill("box")
    way.remove("box")
    assert way.left() == []
    assert len(support.mounts()) <= mounts
