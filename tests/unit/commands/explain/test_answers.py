# SPDX-License-Identifier: Apache-2.0
"""podman and docker, asked for a name: only those of this machine, within a deadline, and not believed everything."""

from __future__ import annotations

import json
import os
import select
import socket
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from oci_bind_hook.commands.engines import settings
from oci_bind_hook.commands.explain import answers, containers
from oci_bind_hook.commands.explain.answers import Answer, ask

if TYPE_CHECKING:
    from pathlib import Path

ID = "ab" * 32
CONFIG = f"/srv/storage/overlay-containers/{ID}/userdata/config.json"


def container(**members: Any) -> dict[str, Any]:
    state = {"Status": "running", "Pid": 4711, "ExitCode": 0, "Error": ""}
    return {"Id": ID, "Name": "web", "State": state, "OCIConfigPath": CONFIG, **members}


class Programs:
    """A folder of programs in place of the engines, each a shell script."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, script: str) -> None:
        (self.folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / name).chmod(0o755)

    def answering(self, name: str, document: object) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(document))
        self.add(name, f"cat {self.folder}/{name}.json")


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    monkeypatch.setattr(settings, "PROGRAMS", (str(tmp_path),))
    monkeypatch.setattr(answers, "SECONDS", float(support.TIMEOUT))
    storage = tmp_path / "storage"
    (storage / "overlay-containers/another/userdata").mkdir(parents=True)
    monkeypatch.setattr(containers, "_storages", lambda: iter([str(storage)]))
    monkeypatch.setattr(answers, "_DOCKER_SOCKET", str(tmp_path / "docker.sock"))
    return Programs(tmp_path)


UNDERSTOOD: dict[str, tuple[dict[str, Any], tuple[str, str, int | None]]] = {
    "runs": ({}, (CONFIG, "running", 4711)),
    "was never started": ({"OCIConfigPath": None, "State": {"Status": "created", "Pid": 0}}, ("", "created", None)),
    "has ended": ({"State": {"Status": "exited", "Pid": 0, "ExitCode": 137}}, (CONFIG, "exited with 137", None)),
    "docker's": ({"Name": "/web", "OCIConfigPath": ""}, ("", "running", 4711)),
    "has failed": ({"State": {"Status": "created", "Error": "no such file"}}, (CONFIG, "created: no such file", None)),
    "is odd": ({"State": {"Status": 7, "Pid": True, "ExitCode": "x", "Error": []}}, (CONFIG, "", None)),
    "has no state": ({"State": None}, (CONFIG, "", None)),
}


@pytest.mark.parametrize("case", UNDERSTOOD)
def test_a_container(programs: Programs, case: str) -> None:
    members, (config, status, pid) = UNDERSTOOD[case]
    programs.answering("podman", [container(**members)])
    assert ask("web") == ([Answer("podman", ID, "web", config, status, pid)], [])
    assert ask(ID[:5])[0] == ask("web")[0]


NOT_BELIEVED: dict[str, tuple[object, str]] = {
    "no list": (container(), "returns no id and name"),
    "nothing": ([], "returns no id and name"),
    "two": ([container(), container()], "returns no id and name"),
    "no id": ([container(Id="web")], "returns no id and name"),
    "a path as its id": ([container(Id="../" * 20)], "returns no id and name"),
    "a name that is none": ([container(Name="\x1b[2Jweb")], "returns no id and name"),
    "another one": ([container(Name="other")], "returns another container, other"),
    "another id": ([container(Id="cd" * 32, Name="other")], "returns another container, other"),
    "another's config": ([container(OCIConfigPath="/etc/shadow")], "belong to web: /etc/shadow"),
    "a relative config": ([container(OCIConfigPath=CONFIG[1:])], f"belong to web: {CONFIG[1:]}"),
    "a way round": (
        [container(OCIConfigPath=f"/{ID}/../../x/config.json")],
        f"belong to web: /{ID}/../../x/config.json",
    ),
}


@pytest.mark.parametrize("case", NOT_BELIEVED)
def test_an_answer_that_is_not_believed(programs: Programs, case: str) -> None:
    document, said = NOT_BELIEVED[case]
    programs.answering("podman", document)
    found, [remark] = ask("web")
    assert (found, remark.startswith("podman "), remark.endswith(said)) == ([], True, True), remark


NOT_ANSWERED = {
    "prints no JSON": ("echo Hello", "returns something other than JSON"),
    "prints nothing": ("exit 0", "returns something other than JSON"),
    "twice the same member": ("""echo '[{"Id":"a","Id":"b"}]'""", "returns something other than JSON"),
    "fails": ("echo 'cannot connect' >&2; echo more >&2; exit 125", "fails: cannot connect"),
    "warns and fails": (
        "echo 'time=now level=warning msg=cgroups' >&2; echo 'Error: no storage' >&2; exit 125",
        "fails: Error: no storage",
    ),
    "fails in silence": ("exit 3", "fails with exit code 3"),
    "prints without end": ("exec yes", "returns more than a megabyte"),
    "complains without end": ("exec yes >&2", "returns more than a megabyte"),
    "hangs": ("exec sleep 1000", "does not answer within 1 seconds"),
    "leaves a child that hangs": ("sleep 1000 & exit 0", "does not answer within 1 seconds"),
    "hangs, and prints nothing more": ("exec >&- 2>&-; exec sleep 1000", "does not answer within 1 seconds"),
    "is killed": ("kill -9 $$", "fails with exit code -9"),
}


@pytest.mark.parametrize("case", NOT_ANSWERED)
def test_a_program_that_does_not_answer(programs: Programs, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script, said = NOT_ANSWERED[case]
    if "within" in said:
        monkeypatch.setattr(answers, "SECONDS", 1.0)
    held = f"{programs.folder}/held"
    os.mkfifo(held)
    reading = os.open(held, os.O_RDONLY | os.O_NONBLOCK)
    programs.add("podman", f"exec 9>{held}\n{script}")
    assert ask("web") == ([], [f"podman {said}"])
    # None of them is left, or it would hold the other end.
    watched = select.poll()
    watched.register(reading, 0)
    assert watched.poll(support.TIMEOUT * 1000) == [(reading, select.POLLHUP)]
    os.close(reading)


def test_podman_is_not_asked_where_it_has_no_container(programs: Programs) -> None:
    """It would make its storage, and mount it."""
    programs.answering("podman", [container()])
    assert ask("web")[0] != []
    for folder in ("another/userdata", "another", ""):
        (programs.folder / "storage/overlay-containers" / folder).rmdir()
        assert ask("web") == ([], [])


def test_who_is_not_there_or_knows_nobody_is_no_trouble(programs: Programs) -> None:
    assert ask("web") == ([], [])
    programs.add("podman", 'echo "Error: inspecting object: no such container web" >&2; exit 125')
    assert ask("web") == ([], [])
    (programs.folder / "podman").write_text("#!/no/such/interpreter\n")
    assert ask("web") == ([], ["podman cannot be started: No such file or directory"])


@pytest.mark.parametrize("word", ["", "-x", "--all", "a b", "a\nb", "\x1b[2J", "ä", "a:b", "."])
def test_what_is_no_name_is_not_asked_for(programs: Programs, word: str) -> None:
    programs.add("podman", f"touch {programs.folder}/asked; exit 1")
    assert ask(word) == ([], [])
    assert not (programs.folder / "asked").exists()


def test_only_this_machine_is_asked(programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = {
        **{"DOCKER_HOST": "tcp://x", "DOCKER_CONTEXT": "far", "DOCKER_CONFIG": "/x", "CONTAINER_HOST": "ssh://x"},
        **{"CONTAINER_CONNECTION": "far", "LD_PRELOAD": "", "PATH": "/x", "LANG": "de_DE", "HOME": "/home/x"},
        **{"CONTAINERS_STORAGE_CONF": "/x/storage.conf", "_CONTAINERS_ROOTLESS_UID": "1000", "SSH_AUTH_SOCK": "/x"},
    }
    for key, text in elsewhere.items():
        monkeypatch.setenv(key, text)
    for name in ("podman", "docker"):
        programs.add(
            name, f'/usr/bin/env > {programs.folder}/{name}.env; echo "$@" > {programs.folder}/{name}.words; pwd'
        )
    with socket.socket(socket.AF_UNIX) as listening:
        # As docker has one: without it nobody is asked.
        assert [remark.split()[0] for remark in ask("web")[1]] == ["podman"]
        listening.bind(f"{programs.folder}/docker.sock")
        assert [remark.split()[0] for remark in ask("web")[1]] == ["podman", "docker"]
    question = "inspect --type container -- web\n"
    assert (programs.folder / "podman.words").read_text() == f"--remote=false {question}"
    assert (programs.folder / "docker.words").read_text() == f"--host unix://{programs.folder}/docker.sock {question}"
    for name, kept in (("podman", {"HOME", "CONTAINERS_STORAGE_CONF", "_CONTAINERS_ROOTLESS_UID"}), ("docker", set())):
        told = dict(line.split("=", 1) for line in (programs.folder / f"{name}.env").read_text().splitlines())
        given = {key for key in told if told[key] == elsewhere.get(key)}
        assert (given, told["LC_ALL"], told["PATH"] == "/x") == (kept, "C", False)
