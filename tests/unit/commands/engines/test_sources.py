# SPDX-License-Identifier: Apache-2.0
"""Sources of registrations that cannot be bound now: what install, install --check and doctor say of them."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands.engines import cdi, doctor, hooks_d, machine
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from pathlib import Path

STOP = "containers for which it is registered do not start"
MEND = "(create or mount it, or install again with another source)"
LOST = "cannot be opened: No such file or directory"


class Registered:
    """A registration below the folder of a test, and what the commands say of it."""

    def __init__(self, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.path, self.hooks, self.capfd = path, path / "hooks.d", capfd
        self.file = self.hooks / "oci-bind-hook.json"

    def run(self, *words: str) -> int:
        code = cli.main([*words])
        self.out, self.err = (text.replace(f"{self.path}/", "") for text in self.capfd.readouterr())
        return code

    def install(self, *words: str) -> list[str]:
        """The warnings about the arguments of the hook."""
        assert self.run("install", f"--prefix={self.path}", f"--hooks-dir={self.hooks}", *words) == os.EX_OK
        start = "oci-bind-hook: warning: --"
        return [line.removeprefix(start[:-2]) for line in self.err.splitlines() if line.startswith(start)]

    def check(self) -> tuple[int, list[str]]:
        """The exit code of install --check, and its problems and warnings."""
        code = self.run("install", "--check", f"--hooks-dir={self.hooks}")
        return code, [line for line in self.out.splitlines() if line.startswith(("problem: ", "warning: "))]


@pytest.fixture
def registered(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Registered:
    monkeypatch.setattr(hooks_d, "FOLDERS", (str(tmp_path / "hooks.d"),))
    monkeypatch.setattr(cdi, "FOLDERS", (str(tmp_path / "cdi"),))
    for name in ("file", "a.x"):
        (tmp_path / name).write_text("")
    for name, target in (("dangling", "nowhere"), ("loop", "loop")):
        (tmp_path / name).symlink_to(target)
    return Registered(tmp_path, capfd)


# The fields besides dst, what is said, and whether no container starts.
SOURCES: dict[str, tuple[str, str, bool]] = {
    "there": ("src=PATH/file", "", False),
    "absent": ("src=PATH/no", f"the source no {LOST} {MEND}: {STOP}", True),
    "optional": ("src=PATH/no,optional", "", False),
    "a link": (
        "src=PATH/dangling",
        f"the source dangling is a link to nowhere, which does not exist (sources are looked up on the host): {STOP}",
        True,
    ),
    "optional and broken": (
        "src=PATH/loop,optional",
        "the source loop cannot be opened: Too many levels of symbolic links "
        f"(the path contains too many symbolic links, or a loop of them): {STOP}",
        True,
    ),
    "below a file": (
        "src=PATH/file/x",
        f"the source file/x cannot be opened: Not a directory (a component of the path is not a folder): {STOP}",
        True,
    ),
    "a subpath": ("src=PATH,subpath=no", f"the source no {LOST} {MEND}: {STOP}", True),
    "conditional": (
        "src=PATH/no,when-exists=/opt",
        f"the source no {LOST}; containers in which /opt exists do not start {MEND}",
        False,
    ),
    "a pattern": ("type=glob,src=PATH/*.x", "", False),
    "a pattern of nothing": (
        "type=glob,src=PATH/*.y",
        f"nothing matches *.y (to allow this, set optional): {STOP}",
        True,
    ),
    "a conditional pattern": (
        "type=glob,src=PATH/*.y,when-exists=/opt",
        "nothing matches *.y; containers in which /opt exists do not start (to allow this, set optional)",
        False,
    ),
    "an optional pattern": ("type=glob,src=PATH/*.y,optional", "", False),
    "ids of the container": ("src=PATH/file,idmap", "", False),
}


@pytest.mark.parametrize(("fields", "said", "is_fatal"), SOURCES.values(), ids=SOURCES)
def test_a_source(fields: str, said: str, is_fatal: bool, registered: Registered) -> None:
    spec = fields.replace("PATH", str(registered.path)) + ",dst=/d"
    place = "--mount 2: "
    words = ("--mount", "src=/,dst=/a", "--mount", spec)
    assert registered.install("--", *words) == ([f"{place}{said}"] if said else [])
    kind = "problem" if is_fatal else "warning"
    told = [f"{kind}: hooks.d/oci-bind-hook.json: {place}{said}"] if said else []
    assert registered.check() == (os.EX_DATAERR if is_fatal else os.EX_OK, told)


def test_doctor_names_source_and_registration_before_what_says_less(registered: Registered) -> None:
    registered.install("--name=m", "--", "--mount", f"src={registered.path}/no,dst=/a")
    assert registered.run("doctor") == os.EX_UNAVAILABLE
    lines = registered.out.splitlines()
    what = f"--mount 1 of hooks.d/oci-bind-hook-m.json: the source no {LOST} {MEND}: {STOP}"
    assert f"MISSING {what}" in lines
    first = next(line for line in lines if line.startswith("MISSING ") and "hooks.d" in line)
    assert first == f"MISSING {what}"
    assert "MISSING hooks.d hooks.d: files: 1, problems: 1: `install --check` has the details" in lines


def test_doctor_also_inspects_what_only_the_settings_of_an_engine_name(
    registered: Registered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered.install("--", "--mount", f"src={registered.path}/no,dst=/a")
    monkeypatch.setattr(hooks_d, "FOLDERS", (str(tmp_path / "other"),))
    settings = tmp_path / "containers.conf"
    for text, number in (("", 0), (f'[engine]\nhooks_dir = ["{registered.hooks}"]\n', 1)):
        settings.write_text(text)
        monkeypatch.setitem(machine.FILES, "podman", (str(settings),))
        registered.run("doctor")
        assert registered.out.count(f"MISSING --mount 1 of hooks.d/oci-bind-hook.json: the source no {LOST}") == number


def test_doctor_goes_on_where_only_some_containers_fail(registered: Registered) -> None:
    registered.install("--", "--mount", f"src={registered.path}/no,dst=/a,when-exists=/opt")
    registered.run("doctor")
    [line] = [line for line in registered.out.splitlines() if "--mount 1 of" in line]
    assert line.startswith("to do   --mount 1 of hooks.d/oci-bind-hook.json: the source no ")
    [one] = [each for each in doctor.examine() if each.name.startswith("--mount 1 of")]
    assert (one.is_problem, one.advice) == (False, "oci-bind-hook install --check")


def test_a_folder_for_annotations(registered: Registered) -> None:
    words = ("--allow-annotations", "--allow-source", str(registered.path), "--allow-source", f"{registered.path}/no")
    text = "containers with an annotation that requests a bind from there do not start"
    said = f"--allow-source: the source no {LOST}; {text} {MEND}"
    assert said in registered.install("--", *words)
    assert registered.check() == (os.EX_OK, [f"warning: hooks.d/oci-bind-hook.json: {said}"])


def test_a_folder_for_annotations_that_other_users_can_replace(registered: Registered) -> None:
    folder = registered.path / "open" / "folder"
    folder.mkdir(parents=True)
    registered.install("--", "--allow-annotations", "--allow-source", str(folder))
    assert registered.check() == (os.EX_OK, [])
    folder.parent.chmod(0o777)
    said = (
        "--allow-source: other users can replace open/folder, because they can write open; containers with an "
        "annotation that requests a bind from there do not start "
        "(use a folder whose parent folders only root or you can write)"
    )
    assert registered.check() == (os.EX_OK, [f"warning: hooks.d/oci-bind-hook.json: {said}"])


def test_a_device_and_a_registration_that_mounts_nothing(registered: Registered) -> None:
    words = ("--", "--mount", f"src={registered.path}/no,dst=/a")
    where = (f"--prefix={registered.path}", f"--cdi-dir={registered.path}/cdi")
    assert registered.run("install", *where, "--cdi=a,b", *words) == os.EX_OK
    assert registered.err.count(f"--mount 1: the source no {LOST} {MEND}: containers that request it do not") == 1
    registered.install("--stages=poststop", *words)
    code, told = registered.check()
    assert code == os.EX_DATAERR
    assert told[:2] == [
        f"problem: cdi/oci-bind-hook-{name}.json: --mount 1: the source no {LOST} {MEND}: "
        "containers that request it do not start"
        for name in "ab"
    ]
    assert not any(line.startswith("problem: hooks.d") for line in told)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--mount", "dst=/x"],
            "--mount 1: the source is missing (for example type=bind,src=/on/host,dst=/in/container)",
        ),
        (["--mont=x"], '--mont: unknown command or option (did you mean "--mount"? see --help)'),
        (["--root"], "--root: the value is missing (install again)"),
    ],
)
def test_arguments_that_were_edited(words: list[str], said: str, registered: Registered) -> None:
    registered.install()
    document = json.loads(registered.file.read_text())
    document["hook"]["args"][1:] = words
    registered.file.write_text(json.dumps(document))
    assert registered.check() == (os.EX_DATAERR, [f"problem: hooks.d/oci-bind-hook.json: {said}: {STOP}"])


def test_in_json(registered: Registered) -> None:
    registered.install("--", "--mount", f"src={registered.path}/no,dst=/a")
    assert registered.run("install", "--check", "--format=json", f"--hooks-dir={registered.hooks}") == os.EX_DATAERR
    document = json.loads(registered.out)
    assert oci.violations(document, "hooks-check") == []
    assert document["problems"] == [
        {
            "path": "hooks.d/oci-bind-hook.json",
            "pointer": "",
            "message": f"--mount 1: the source no {LOST} {MEND}",
            "effect": "fails",
        }
    ]
