# SPDX-License-Identifier: Apache-2.0
"""Which container a word means: by the folders of engines and runtimes, and by what engines answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from oci_bind_hook.commands.explain import answers, by_name, containers
from oci_bind_hook.commands.explain.answers import Answer
from oci_bind_hook.errors import HookError
from oci_bind_hook.kernel.proc import Proc

if TYPE_CHECKING:
    from collections.abc import Sequence

A, B = "a1" * 32, "b2" * 32


class Machine:
    """The folders of a machine, and what its engines answer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.told: list[Answer] = []
        self.remarks: list[str] = []
        self.asked: list[str] = []

    def bundle(self, path: str, **members: Any) -> str:
        folder = self.path / path
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(members))
        return str(folder)

    def file(self, path: str, document: object) -> None:
        (self.path / path).parent.mkdir(parents=True, exist_ok=True)
        (self.path / path).write_text(json.dumps(document))

    def ask(self, word: str) -> tuple[list[Answer], list[str]]:
        self.asked.append(word)
        return [one for one in self.told if word == one.name or one.id.startswith(word)], self.remarks


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    storages = [f"{tmp_path}/run/containers/storage", f"{tmp_path}/lib/containers/storage"]
    monkeypatch.setattr(containers, "_runtime_folders", lambda: [f"{tmp_path}/run"])
    monkeypatch.setattr(containers, "_storages", lambda: iter(storages))
    monkeypatch.setattr(answers, "ask", found.ask)
    return found


def podmans(machine: Machine, container: str) -> str:
    return machine.bundle(f"lib/containers/storage/overlay-containers/{container}/userdata")


def found(machine: Machine, word: str) -> tuple[str, str]:
    one = by_name.find(word, f"{machine.path}/state")
    return one.id, one.bundle


def test_folders_of_engines(machine: Machine) -> None:
    bundles = {
        "pod": podmans(machine, "pod"),
        "k8s": machine.bundle("run/containerd/io.containerd.runtime.v2.task/k8s.io/k8s"),
        "own": machine.bundle("run/docker/containerd/daemon/io.containerd.runtime.v2.task/moby/own"),
        "old": machine.bundle("run/containerd/io.containerd.runtime.v1.linux/moby/old"),
        "cri": machine.bundle("run/containers/storage/overlay-containers/cri/userdata"),
    }
    # CRI-O keeps a copy with what is not for the runtime, and podman an empty folder of that name.
    podmans(machine, "cri")
    os.makedirs(f"{machine.path}/run/containers/storage/overlay-containers/pod/userdata")
    for word, bundle in bundles.items():
        assert found(machine, word) == (word, bundle)
    known_by = {word: by_name.find(word, None).known_by for word in bundles}
    of_storage = "podman or CRI-O"
    assert known_by == {
        **dict.fromkeys(("pod", "cri"), of_storage),
        "k8s": "containerd",
        "own": "docker",
        "old": "docker",
    }


def test_folders_of_runtimes(machine: Machine) -> None:
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start = Proc().start_time(os.getpid())
    assert start == int(stat[19])
    runs, ended = (os.getpid(), start), (os.getpid(), start - 1)
    for name, (pid, begun) in {"one": runs, "two": ended}.items():
        bundle = machine.bundle(f"bundles/{name}")
        labels = ["x=y", f"bundle={bundle}"]
        state = {"id": name, "init_process_pid": pid, "init_process_start": begun, "config": {"labels": labels}}
        machine.file(f"run/runc/{name}/state.json", state)
        machine.file(f"run/crun/c{name}/status", {"pid": pid, "process-start-time": begun, "bundle": bundle})
        for word in (name, f"c{name}"):
            assert found(machine, word) == (word, bundle)
            assert by_name.find(word, None).pid == (os.getpid() if name == "one" else None)


def test_one_container_in_several_folders_is_one(machine: Machine) -> None:
    bundle = podmans(machine, A)
    os.symlink(f"{machine.path}/lib", f"{machine.path}/link")
    other = bundle.replace("/lib/", "/link/")
    machine.file(f"run/crun/{A}/status", {"pid": 0, "process-start-time": 0, "bundle": other})
    one = by_name.find(A[:3], None)
    assert (one.id, one.bundle, one.known_by) == (A, bundle, f"podman or CRI-O, {machine.path}/run/crun/{A}")
    # A whole id of an engine is nobody's name.
    machine.asked.clear()
    by_name.find(A, None)
    assert machine.asked == []


ODD: Sequence[tuple[str, object]] = [
    ("runc/x/state.json", []),
    ("runc/x/state.json", {"config": {"labels": "bundle=/"}}),
    ("runc/x/state.json", {"config": {"labels": ["bundle=relative"]}}),
    ("runc/x/state.json", {"config": []}),
    ("crun/x/status", {"bundle": 7}),
    ("crun/x/status", {"bundle": ["/"]}),
    ("crun/x/status", None),
    ("crun/x/other", {"bundle": "/"}),
]


@pytest.mark.parametrize(("path", "document"), ODD)
def test_a_state_that_names_no_bundle_is_passed_over(machine: Machine, path: str, document: object) -> None:
    machine.file(f"run/{path}", document)
    assert containers.find("x", str(machine.path)) == []


def refusal(word: str) -> tuple[int, str]:
    with pytest.raises(HookError) as raised:
        by_name.find(word, None)
    return raised.value.exit_code, str(raised.value)


def test_several_are_listed(machine: Machine) -> None:
    one, two = podmans(machine, A), podmans(machine, A[:4] + B)
    code, text = refusal(A[:4])
    assert (code, "the name matches 2 containers" in text) == (os.EX_USAGE, True)
    assert all(part in text for part in (f"{A}, podman or CRI-O: {one}", f"{A[:4]}{B}, podman or CRI-O: {two}"))
    assert found(machine, A) == (A, one)
    # The same id in two places.
    bundle = machine.bundle("bundles/x")
    machine.file(f"run/runc/{A}/state.json", {"config": {"labels": [f"bundle={bundle}"]}})
    code, text = refusal(A)
    assert (code, one in text, bundle in text) == (os.EX_USAGE, True, True)


def answer(engine: str, container: str, name: str, config: str = "", status: str = "running") -> Answer:
    return Answer(engine, container, name, config, status, None)


def test_names_are_those_that_engines_know(machine: Machine) -> None:
    one, two = podmans(machine, A), podmans(machine, B)
    machine.told = [answer("podman", A, "web", f"{one}/config.json")]
    assert found(machine, "web") == (A, one)
    assert (by_name.find("web", None).name, by_name.find(A[:6], None).name) == ("web", "web")
    # A name goes before the beginning of an id, as with the engines themselves.
    machine.told = [answer("podman", A, B[:4], f"{one}/config.json")]
    assert found(machine, B[:4]) == (A, one)
    assert found(machine, B[:5]) == (B, two)
    # A name that both engines know.
    other = machine.bundle(f"run/containerd/io.containerd.runtime.v2.task/moby/{'c3' * 32}")
    machine.told = [answer("podman", A, "web", f"{one}/config.json"), answer("docker", "c3" * 32, "web")]
    code, text = refusal("web")
    assert (code, one in text, other in text) == (os.EX_USAGE, True, True)
    assert found(machine, "c3c3") == ("c3" * 32, other)
    # And that is the id of a runtime's.
    machine.told = machine.told[:1]
    bundle = machine.bundle("bundles/x")
    machine.file("run/runc/web/state.json", {"config": {"labels": [f"bundle={bundle}"]}})
    assert refusal("web")[0] == os.EX_USAGE


def test_no_config(machine: Machine) -> None:
    os.makedirs(f"{machine.path}/lib/containers/storage/vfs-containers/{A}/userdata")
    never = "has no config.json, because it was never started"
    writes = "which writes it and runs the hooks)"
    assert refusal(A) == (66, f"the container {A} {never} (run `podman init {A}`, {writes}")
    machine.told = [answer("podman", A, "web", status="created")]
    assert refusal("web") == (66, f"the container web (created) {never} (run `podman init web`, {writes}")
    machine.told = [answer("docker", B, "web", status="created: error running createRuntime hook #0")]
    code, text = refusal("web")
    assert code == 66
    assert text.startswith("the container web (created: error running createRuntime hook #0) has no config.json")
    machine.told = [answer("docker", B, "web")._replace(pid=1)]
    assert refusal("web")[0] == 69


@pytest.mark.parametrize("place", ["state/moby", "state/moby/other"])
def test_a_bundle_is_where_the_shim_works(machine: Machine, place: str) -> None:
    """Settings of an engine may put its folders anywhere."""
    bundle = machine.bundle(f"{place}/{A}" if place == "state/moby" else place)
    shim = subprocess.Popen(["sh", "-c", "sleep 1000 & echo $!; wait"], cwd=bundle, stdout=subprocess.PIPE, text=True)
    assert shim.stdout is not None
    pid = int(shim.stdout.readline())
    machine.told = [answer("docker", A, "web")._replace(pid=pid)]
    try:
        if place == "state/moby":
            assert (found(machine, "web"), by_name.find("web", None).pid) == ((A, bundle), pid)
        else:
            assert refusal("web")[0] == 69
    finally:
        os.kill(pid, signal.SIGKILL)
        shim.communicate()


def test_nobody(machine: Machine) -> None:
    assert refusal("web")[0] == 66
    machine.remarks = ["podman does not answer within 5 seconds"]
    assert refusal("web") == (66, 'the container "web" is not known (podman does not answer within 5 seconds)')
    assert refusal("")[0] == os.EX_USAGE


def test_a_file_of_that_name_is_told(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(machine.path)
    machine.bundle("web")
    assert refusal("web") == (66, 'the container "web" is not known (for the one in the current folder, use ./web)')
    hints = []
    for facts in ({"option": "--bundle"}, {"is_over": True}):
        with pytest.raises(HookError) as caught:
            by_name.find_in_time("web", None, **facts)
        hints.append(caught.value.hint.partition(";")[0])
    assert hints == [
        "for the one in the current folder, use --bundle ./web",
        "no container has this name or an id that starts with it",
    ]


def test_storages_are_those_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conf = tmp_path / "storage.conf"
    conf.write_text('[storage]\nrunroot = "/r"\ngraphroot = "/g"\nrootless_storage_path = "$HOME/s"\n')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(conf))
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    found = list(containers._storages())
    assert {"/r", "/g", "/home/x/s", "/home/x/.local/share/containers/storage"} <= set(found)
    assert found.index("/r") < found.index("/run/containers/storage") < found.index("/g")
    conf.write_text("[storage\n")
    assert "/r" not in list(containers._storages())
