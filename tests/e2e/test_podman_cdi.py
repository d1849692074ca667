# SPDX-License-Identifier: Apache-2.0
"""CDI devices of this hook under podman: what `install --cdi` writes works, and files are read as podman reads them."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import cdi_tables as tables
from helpers import support
from helpers.cdi_tables import HOOK
from helpers.podman import LIMITS, OPTIONS, ROOTLESS_LIMITS, Podman
from oci_bind_hook.commands.engines import cdi, check
from oci_bind_hook.commands.engines.cdi_file import Devices
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.commands.engines.registration import CDI_KIND

from .test_podman_rootless import Shell
from .test_rootless import UID, Rootless, give

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

# What podman and its containers leave in a rootfs by themselves.
PODMANS_OWN = {"run", "run/.containerenv", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"}


class Machine(Podman):
    """podman with CDI folders of this test: below /run, of which each run has its own."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.cdi = folder / "cdi"
        self.state = folder / "state"
        self.prepare = f"mkdir /run/cdi; cp {self.cdi}/* /run/cdi/;"
        for name in ("one", "two"):
            (folder / name).mkdir()
            (folder / name / "word").write_text(f"{name}\n")

    def install(self, name: str, source: str, destination: str, *env: str, stages: tuple[str, ...] = ()) -> None:
        words = ["--mount", f"src={self.folder}/{source},dst={destination},ro", "--root", str(self.state)]
        install(str(self.folder / "prefix"), stages, words, instead=Devices([name], str(self.cdi), env))

    def start(self, *devices: str, script: str, runtime: str = "crun") -> subprocess.CompletedProcess[str]:
        options = tuple(f"--device={CDI_KIND}={name}" for name in devices)
        return self.run([], "/bin/sh", "-c", script, options=options, prepare=self.prepare, runtime=runtime)

    def left(self, before: Mapping[str, object]) -> list[str]:
        """What is in the rootfs now and was not before, and state files."""
        files = sorted(name for name in support.tree(self.rootfs) if name not in before)
        states = sorted(os.listdir(self.state)) if self.state.exists() else []
        return [*(name for name in files if name not in PODMANS_OWN), *(name for name in states if ".json" in name)]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_files_are_read_as_podman_reads_them(machine: Machine) -> None:
    taken: list[str] = []
    refused: list[str] = []
    hook = machine.folder / "reads"
    hook.write_text(f"#!/bin/sh\n{support.READS}")
    hook.chmod(0o755)
    for number, (what, refusal) in enumerate(tables.AGREED.values()):
        text = json.dumps(what).replace("example.com", f"v{number}.com").replace(HOOK["path"], str(hook))
        tables.write(machine.cdi, f"{number}.json", text)
        kind, name = re.search(r'"(v\d+.com/[^"]*)"', text), re.search(r'"name": "([^"]+)"', text)
        device = f"{kind[1] if kind else 'v.com/none'}={name[1] if name else 'd0'}"
        # What is no qualified name is taken for a path.
        if re.fullmatch(r"[\w.]+/[A-Za-z][\w-]*=[\w.:]*\w", device):
            (refused if refusal else taken).append(device)
    # A device that two files of one folder have is in neither.
    for each in ("x.json", "y.json"):
        tables.write(machine.cdi, each, tables.document(kind="twice.com/models"))
    refused.append("twice.com/models=d0")
    done = machine.run([], "true", options=tuple(f"--device={each}" for each in taken), prepare=machine.prepare)
    assert done.returncode == 0, done.stderr
    # podman before 5 names all that were asked for, if one of them is not known.
    run = shlex.join([*machine.words, "run", "--rm", *LIMITS])
    text = f'for each in "$@"; do {run} --device="$each" --rootfs {machine.rootfs} true || echo "$each"; done'
    done = machine.script(f"{machine.prepare} {text}", *refused)
    assert (done.stdout.split(), done.stderr.count("unresolvable CDI devices")) == (refused, len(refused)), done.stderr
    read = {each.qualified for each in cdi.devices_of(cdi.read([str(machine.cdi)])) if each.is_used}
    assert (read.issuperset(taken), read.isdisjoint(refused)) == (True, True)
    assert min(len(taken), len(refused)) > 5


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_two_devices_in_one_container(machine: Machine, runtime: str) -> None:
    machine.install("one", "one", "/new/one", "ONE=1", "PATH=/bin")
    machine.install("two", "two", "/new/two", "TWO=a b")
    found = check.Check([], None, [str(machine.cdi)])
    told = "sets PATH, which replaces the image's value"
    assert [problem.message for problem in found.problems] == [told]
    before = support.tree(machine.rootfs)
    script = "cat /new/*/word; echo $ONE $TWO; touch /new/one/x || touch /new/two/x || true"
    done = machine.start("one", "two", script=script, runtime=runtime)
    assert (done.returncode, done.stdout) == (0, "one\ntwo\n1 a b\n"), done.stderr
    assert done.stderr.count("Read-only file system") == 2
    assert machine.left(before) == []
    # Each by itself, and one that nobody asked for does not exist.
    done = machine.start("two", script="cat /new/two/word; ls /new", runtime=runtime)
    assert (done.returncode, done.stdout) == (0, "two\ntwo\n"), done.stderr
    assert machine.left(before) == []


@pytest.mark.parametrize("stage", ["createRuntime", "createContainer", "prestart"])
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_second_device_that_fails_leaves_nothing(machine: Machine, runtime: str, stage: str) -> None:
    """Neither of them calls poststop for what the first entry did: the second undoes it."""
    machine.install("one", "one", "/new/one", stages=(stage, "poststop"))
    machine.install("absent", "absent", "/new/absent", stages=(stage, "poststop"))
    # In procfs nothing may be covered, which shows only in the container's namespace.
    machine.install("late", "two", "/proc/sys", stages=(stage, "poststop"))
    before = support.tree(machine.rootfs)
    for failing, code in (("absent", "66"), ("late", "77")):
        done = machine.start("one", failing, script="echo started", runtime=runtime)
        assert (done.returncode != 0, done.stdout) == (True, ""), done.stderr
        assert f"exit code: {code}" in done.stderr or f"exit status {code}" in done.stderr
        assert machine.left(before) == []


def test_a_restart_and_a_kill(machine: Machine) -> None:
    machine.install("one", "one", "/new/one")
    machine.install("two", "two", "/new/two")
    before = support.tree(machine.rootfs)
    podman = shlex.join(machine.words)
    devices = " ".join(f"--device={CDI_KIND}={name}" for name in ("one", "two"))
    own = f"{' '.join(LIMITS)} {devices} --rootfs {machine.rootfs}"
    script = f"""
        {machine.prepare}
        p() {{ {podman} "$@"; }}
        set -e
        p create --name c {own} sh -c 'cat /new/*/word; exec sleep 1000' >/dev/null
        for way in 'restart -t 0' 'kill' 'stop -t 0'; do
            p start c >/dev/null
            until [ "$(p logs c | grep -c two)" -ge 1 ]; do p wait --condition=running c >/dev/null; done
            p $way c >/dev/null
            [ "$way" != kill ] || p wait c >/dev/null
            [ "$way" = 'restart -t 0' ] || ls {machine.state} | grep -c json || true
        done
        p rm -f c >/dev/null"""
    done = machine.script(script)
    assert (done.returncode, done.stdout.split()) == (0, ["0", "0"]), done.stderr
    assert machine.left(before) == []


def test_any_path_reaches_the_hook_as_it_is(machine: Machine) -> None:
    """The file is read as YAML, where some characters end a line and others are refused."""
    odd = "o\u2028d\x85d \x7f\ufeff\U0001f600 '\"\\"
    (machine.folder / odd).mkdir()
    (machine.folder / odd / "word").write_text("odd\n")
    words = ["--mount", f'"src={machine.folder}/{odd}",dst=/new'.replace('"\\"', '""\\"'), "--root", str(machine.state)]
    install(str(machine.folder / "prefix"), (), words, instead=Devices(["odd"], str(machine.cdi), []))
    done = machine.start("odd", script="cat /new/word")
    assert (done.returncode, done.stdout) == (0, "odd\n"), done.stderr


def test_a_rootless_user_asks_for_a_device_of_the_machine(tmp_path: Path, launcher: str) -> None:
    world = Rootless(tmp_path, launcher)
    image = str(world.path / "image.tar")
    subprocess.run(["tar", "-C", world.rootfs, "-cf", image, "."], check=True)
    words = ["--mount", f"src={world.source},dst=/new/place"]
    install(str(world.path / "prefix"), (), words, instead=Devices(["models"], str(world.path / "cdi"), ["A=b"]))
    give(world.path)
    shell = Shell(world)
    shell.lines.append(f"mount -t tmpfs tmpfs /run && mkdir -p /run/cdi /run/user/{UID} && chown {UID} /run/user/{UID}")
    shell.lines.append(f"cp {world.path}/cdi/* /run/cdi/")
    podman = ["podman", "--storage-driver=vfs", "--storage-opt=vfs.ignore_chown_errors=true", *OPTIONS]
    shell.add("import", *podman, "import", "--quiet", image, "image")
    run = [*podman, "run", "--rm", *ROOTLESS_LIMITS, f"--device={CDI_KIND}=models", "image"]
    shell.add("run", *run, "sh", "-c", "cat /new/place/word; echo $A")
    shell.add("left", "find", str(world.state), "-name", "*.json")
    shell.run()
    assert shell.told("run")[:2] == (0, "hello from the host\nb\n"), shell.told("run")
    assert shell.told("left")[1] == ""
