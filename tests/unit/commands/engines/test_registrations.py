# SPDX-License-Identifier: Apache-2.0
"""Several registrations of this hook, in hooks.d and in CDI: written, listed and removed by the commands."""

from __future__ import annotations

import json
import os
import shlex
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import cdi
from oci_bind_hook.commands.engines.launcher import LAUNCHER_PATH
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from pathlib import Path


class Machine:
    """Folders of a test in the place of the machine's, and what commands print."""

    def __init__(self, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.path, self.cdi, self.hooks = path, path / "cdi", path / "hooks.d"
        self.launcher = path / LAUNCHER_PATH
        self.capfd = capfd

    def run(self, command: str, *words: str, code: int = os.EX_OK) -> list[str]:
        """Lines on stdout, with paths below the folder of the test shortened. Those of folders are in ``folders``."""
        self.capfd.readouterr()
        own = [*words[: words.index("--")]] if "--" in words else [*words]
        where = [*(["--cdi-dir", str(self.cdi)] if "--cdi" in own else ["--hooks-dir", str(self.hooks)])]
        where += [] if "--list" in own else ["--prefix", str(self.path)]
        assert cli.main([command, *where, *words]) == code
        out, self.err = (text.replace(f"{self.path}/", "") for text in self.capfd.readouterr())
        lines = out.splitlines()
        self.folders = [line for line in lines if line.endswith("/")]
        return [line for line in lines if line not in self.folders]

    def listed(self) -> list[dict[str, Any]]:
        words = ["install", "--list", "--hooks-dir", str(self.hooks), "--cdi-dir", str(self.cdi)]
        assert cli.main([*words, "--format=json"]) == os.EX_OK
        document = json.loads(self.capfd.readouterr().out)
        assert oci.violations(document, "registrations") == []
        return list(document["registrations"])


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Machine:
    found = Machine(tmp_path, capfd)
    monkeypatch.setattr(cdi, "FOLDERS", (str(found.cdi),))
    return found


def test_each_name_is_a_registration_of_its_own(machine: Machine) -> None:
    assert machine.run("install", "--name", "mpi", "--", "--debug") == [
        f"wrote {LAUNCHER_PATH}",
        "wrote hooks.d/oci-bind-hook-mpi.json",
    ]
    assert machine.run("install", "--", "--strict") == [
        f"unchanged {LAUNCHER_PATH}",
        "wrote hooks.d/oci-bind-hook.json",
    ]
    machine.run("install", "--cdi", "gpu,all")
    assert [(one["kind"], one["name"]) for one in machine.listed()] == [
        ("hooks.d", None),
        ("hooks.d", "mpi"),
        ("CDI", "all"),
        ("CDI", "gpu"),
    ]
    told = machine.run("uninstall")
    assert told == ["removed hooks.d/oci-bind-hook.json"]
    assert f"{LAUNCHER_PATH} is still used by hooks.d/oci-bind-hook-mpi.json, cdi/" in machine.err
    assert machine.run("uninstall", "--cdi", "all") == ["removed cdi/oci-bind-hook-all.json"]
    assert machine.run("uninstall", "--name", "mpi") == ["removed hooks.d/oci-bind-hook-mpi.json"]
    assert f"warning: {LAUNCHER_PATH} is still used by cdi/oci-bind-hook-gpu.json\n" in machine.err
    assert machine.run("uninstall", "--cdi", "gpu") == [
        "removed cdi/oci-bind-hook-gpu.json",
        f"removed {LAUNCHER_PATH}",
    ]
    assert machine.listed() == []


@pytest.mark.parametrize("binds", [["--mount", "src=/,dst=/b"], ["--allow-annotations", "--allow-source", "/"]])
@pytest.mark.parametrize("where", [["--annotation", "a=b"], ["--name", "m"], ["--cdi", "m"]])
def test_binds_are_not_replaced_by_a_registration_without_binds(
    where: list[str], binds: list[str], machine: Machine
) -> None:
    """As where install is repeated because the Python of the launcher was moved."""
    machine.run("install", *where, "--", *binds)
    before = support.tree(machine.path)
    again = [] if where[0] == "--annotation" else where
    for words in ([], ["--", "--debug"]):
        machine.run("install", *again, *words, code=os.EX_USAGE)
        assert "registers binds, which this install would remove because it has no --mount (to keep" in machine.err
        kept = shlex.join(["--stages", "createRuntime,poststop", "--", *binds])
        assert f"{kept}; to remove them, run uninstall first)\n" in machine.err
        assert support.tree(machine.path) == before
    machine.run("install", *where, "--", *binds)
    assert support.tree(machine.path) == before


def test_nothing_is_replaced_in_silence(machine: Machine) -> None:
    words = ("--annotation", "a.b=c d", "--command", "^x", "--has-bind-mounts", "--stages", "prestart,poststop")
    machine.run("install", *words, "--", "--mount", "src=/a b,dst=/b")
    assert machine.run("install", "--", "--mount", "src=/,dst=/c") == [
        f"unchanged {LAUNCHER_PATH}",
        "replaced hooks.d/oci-bind-hook.json, which registered --annotation 'a.b=c d' --command '^x' --has-bind-mounts "
        "--stages prestart,poststop -- --mount 'src=/a b,dst=/b'",
    ]
    machine.run("install", "--cdi", "gpu", "--env", "A=1", "--", "--debug")
    assert machine.run("install", "--cdi", "gpu") == [
        f"unchanged {LAUNCHER_PATH}",
        "replaced cdi/oci-bind-hook-gpu.json, which registered --cdi gpu --env A=1 --stages createRuntime,poststop -- "
        "--debug",
    ]
    machine.launcher.chmod(0o700)
    assert machine.run("install", "--", "--mount", "src=/,dst=/d")[0] == f"replaced {LAUNCHER_PATH}"


@pytest.mark.parametrize("name", ["", ".", "-a", "a-", "a/b", "../x", "a b", "a:b", "ä", "a" * 64, "a\n"])
def test_names_that_cannot_be_used(name: str, machine: Machine) -> None:
    for words in (("--name", name), ("--cdi", name), ("--cdi", f"good,{name}")):
        assert machine.run("install", *words, code=os.EX_USAGE) == []
        assert machine.err.startswith(f"oci-bind-hook: {words[0]}: ")
        assert "is not a valid name (use 1 to 63 letters and digits, with - _ and . in between)" in machine.err
    assert not machine.launcher.exists()


@pytest.mark.parametrize("name", ["0", "a", "A.b_c-9", "a" * 63])
def test_names_that_can_be_used(name: str, machine: Machine) -> None:
    machine.run("install", "--name", name)
    machine.run("install", "--cdi", name)
    assert [one["name"] for one in machine.listed()] == [name, name]


def test_what_is_listed(machine: Machine) -> None:
    machine.run("install", "--name", "x", "--annotation", "a=b", "--", "--mount", "src=/a,dst=/b")
    machine.run("install", "--cdi", "y", "--env", "LD_LIBRARY_PATH=/z", "--stages", "prestart")
    (machine.hooks / "other.json").write_text('{"version": "1.0.0", "hook": {"path": "/bin/true"}, "stages": []}')
    own = {"version": "1.0.0", "hook": {"path": "/opt/oci-bind-hook"}, "when": {"always": True}, "stages": ["poststop"]}
    (machine.hooks / "own.json").write_text(json.dumps(own))
    words = ["install", "--list", "--hooks-dir", str(machine.hooks), "--cdi-dir", str(machine.cdi)]
    machine.capfd.readouterr()
    assert cli.main(words) == os.EX_OK
    assert machine.capfd.readouterr().out.replace(f"{machine.path}/", "") == (
        "hooks.d own.json: hooks.d/own.json\n"
        "  calls      /opt/oci-bind-hook\n"
        "  at         poststop\n"
        "  for        --always\n"
        "  gives it   nothing\n"
        "hooks.d x: hooks.d/oci-bind-hook-x.json\n"
        f"  calls      {LAUNCHER_PATH}\n"
        "  at         createRuntime, poststop\n"
        "  for        --annotation a=b\n"
        "  gives it   --mount src=/a,dst=/b\n"
        "CDI oci-bind-hook.github.io/bind=y: cdi/oci-bind-hook-y.json\n"
        f"  calls      {LAUNCHER_PATH}\n"
        "  at         prestart\n"
        "  sets       LD_LIBRARY_PATH=/z\n"
        "  gives it   nothing\n"
    )
    assert [one["conditions"] for one in machine.listed()] == [["--always"], ["--annotation a=b"], []]


def test_nothing_to_list(machine: Machine) -> None:
    assert machine.run("install", "--list") == ["nothing registers this hook"]


@pytest.mark.parametrize(("name", "text"), [("x.yaml", "path: {}"), ("x.json", "[" * 100_000 + '"{}')])
def test_a_launcher_that_anything_names_stays(name: str, text: str, machine: Machine) -> None:
    """Also where nothing else can be read of the file."""
    machine.run("install")
    (machine.hooks / name).write_text(text.format(machine.launcher))
    machine.cdi.mkdir()
    (machine.cdi / name).write_text(text.format(machine.launcher))
    assert machine.run("uninstall") == ["removed hooks.d/oci-bind-hook.json"]
    assert f"warning: {LAUNCHER_PATH} is still used by hooks.d/{name}, cdi/{name}\n" in machine.err
    machine.run("uninstall", code=os.EX_NOINPUT)
    assert f"is still used by hooks.d/{name}, cdi/{name})\n" in machine.err
    (machine.hooks / name).unlink()
    (machine.cdi / name).unlink()
    assert machine.run("uninstall") == [f"removed {LAUNCHER_PATH}"]


def test_folders_of_ones_own_are_looked_at_where_they_are_named(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cdi, "FOLDERS", ())
    machine.run("install")
    machine.run("install", "--cdi", "a")
    hooks, devices = ["--hooks-dir", str(machine.hooks)], ["--cdi-dir", str(machine.cdi)]
    assert machine.run("uninstall", *devices) == ["removed hooks.d/oci-bind-hook.json"]
    assert f"warning: {LAUNCHER_PATH} is still used by cdi/oci-bind-hook-a.json\n" in machine.err
    machine.run("install")
    assert machine.run("uninstall", "--cdi", "a", *hooks) == ["removed cdi/oci-bind-hook-a.json"]
    assert f"warning: {LAUNCHER_PATH} is still used by hooks.d/oci-bind-hook.json\n" in machine.err


@pytest.mark.parametrize("kind", ["hooks.d", "CDI"])
def test_a_failure_leaves_all_as_it_was(kind: str, machine: Machine) -> None:
    words = ("--name", "b") if kind == "hooks.d" else ("--cdi", "a,b")
    folder = machine.hooks if kind == "hooks.d" else machine.cdi
    (folder / "oci-bind-hook-b.json").mkdir(parents=True)
    before = support.tree(folder)
    assert machine.run("install", *words, code=os.EX_OSERR) == []
    assert (machine.launcher.exists(), support.tree(folder)) == (False, before)
    # Nor is what was there before another.
    machine.run("install", "--cdi", "a", "--", "--debug")
    before = support.tree(machine.path)
    assert machine.run("install", *words, code=os.EX_OSERR) == []
    assert support.tree(machine.path) == before


@pytest.mark.parametrize("kind", ["hooks.d", "CDI"])
def test_a_named_file_of_somebody_else_is_not_replaced(kind: str, machine: Machine) -> None:
    words = ("--name", "b") if kind == "hooks.d" else ("--cdi", "b")
    folder = machine.hooks if kind == "hooks.d" else machine.cdi
    folder.mkdir()
    (folder / "oci-bind-hook-b.json").write_text("{}")
    machine.run("install", *words, code=os.EX_UNAVAILABLE)
    assert "oci-bind-hook-b.json: was not written by install" in machine.err
    assert (machine.launcher.exists(), (folder / "oci-bind-hook-b.json").read_text()) == (False, "{}")


# CDI


def test_a_device_is_one_file(machine: Machine) -> None:
    words = ("--cdi", "a", "--env", "A=1", "--env", "B=", "--", "--mount", "src=/,dst=/b")
    assert machine.run("install", *words) == [f"wrote {LAUNCHER_PATH}", "wrote cdi/oci-bind-hook-a.json"]
    entry = {
        "path": str(machine.launcher),
        "args": ["oci-bind-hook", "--mount", "src=/,dst=/b"],
        "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
        "timeout": 30,
    }
    hooks = [{"hookName": stage, **entry} for stage in ("createRuntime", "poststop")]
    assert json.loads((machine.cdi / "oci-bind-hook-a.json").read_text()) == {
        "cdiVersion": "0.5.0",
        "kind": "oci-bind-hook.github.io/bind",
        "devices": [{"name": "a", "containerEdits": {"env": ["A=1", "B="], "hooks": hooks}}],
    }
    assert support.tree(machine.cdi)["oci-bind-hook-a.json"][0] == "-rw-r--r--"
    for engine in ("docker", "podman"):
        line = f"oci-bind-hook: to use it: {engine} run --device oci-bind-hook.github.io/bind=a ...\n"
        assert line in machine.err
    assert not machine.hooks.exists()


def test_variables_and_devices_that_surprise_are_told(machine: Machine) -> None:
    machine.run("install", "--cdi", "a", "--env", "LD_LIBRARY_PATH=/x", "--env", "B=1")
    told = "warning: cdi/oci-bind-hook-a.json: sets LD_LIBRARY_PATH, which replaces the image's value\n"
    assert (told in machine.err, machine.err.count("cdi/oci-bind-hook-a.json: ")) == (True, 1)
    machine.run("install", "--cdi", "b", "--env", "B=2")
    both = "oci-bind-hook.github.io/bind=b and oci-bind-hook.github.io/bind=a"
    told = f"sets B to a different value than cdi/oci-bind-hook-a.json: a container with {both} gets one value\n"
    assert f"warning: cdi/oci-bind-hook-b.json: {told}" in machine.err
    (machine.cdi / "other.json").write_text((machine.cdi / "oci-bind-hook-b.json").read_text())
    machine.run("install", "--cdi", "b", "--stages", "createRuntime")
    told = "oci-bind-hook.github.io/bind=b is also in cdi/other.json, so engines ignore it\n"
    assert f"warning: cdi/oci-bind-hook-b.json: {told}" in machine.err
    told = "has no poststop: created mount points and the state file stay\n"
    assert f"warning: cdi/oci-bind-hook-b.json: {told}" in machine.err


def test_all_are_removed_at_once(machine: Machine) -> None:
    machine.run("install")
    machine.run("install", "--name", "b", "--", "--root", str(machine.path / "state"))
    machine.run("install", "--cdi", "c,d")
    other = {"version": "1.0.0", "hook": {"path": "/opt/oci-bind-hook", "args": ["oci-bind-hook"]}, "stages": []}
    (machine.hooks / "oci-bind-hook-other.json").write_text(json.dumps(other))
    (machine.path / "state").mkdir(mode=0o700)
    (machine.path / "state/c.json").write_text("{}")
    for option in ("--name", "--cdi"):
        machine.run("uninstall", "--all", option, "b", code=os.EX_USAGE)
    names = ("hooks.d/oci-bind-hook", "hooks.d/oci-bind-hook-b", "cdi/oci-bind-hook-c", "cdi/oci-bind-hook-d")
    removed = [*(f"removed {name}.json" for name in names), f"removed {LAUNCHER_PATH}"]
    assert machine.run("uninstall", "--all") == removed
    assert machine.folders == [f"removed {each}/" for each in ("libexec/oci/hooks.d", "libexec/oci", "libexec", "cdi")]
    assert "warning: state has records of c, for which poststop is no longer called" in machine.err
    assert os.listdir(machine.hooks) == ["oci-bind-hook-other.json"]
    assert machine.run("uninstall", "--all") == []


NOT_FOR_CDI = "this option is for hooks.d; a CDI device applies to containers that request it by --device"
REFUSED = {
    "name": (["--cdi", "a", "--name", "b"], f"--name: {NOT_FOR_CDI}"),
    "annotation": (["--cdi", "a", "--annotation", "b=c"], f"--annotation: {NOT_FOR_CDI}"),
    "command": (["--cdi", "a", "--command", "b"], f"--command: {NOT_FOR_CDI}"),
    "bind mounts": (["--cdi", "a", "--has-bind-mounts"], f"--has-bind-mounts: {NOT_FOR_CDI}"),
    "always": (["--cdi", "a", "--always"], f"--always: {NOT_FOR_CDI}"),
    "hooks.d folder": (["--cdi", "a", "--hooks-dir", "/x"], f"--hooks-dir: {NOT_FOR_CDI}"),
    "CDI folder": (["--cdi-dir", "/x"], "--cdi-dir: this option requires --cdi"),
    "env": (["--env", "A=1"], "--env: this option requires --cdi"),
    "env without a value": (["--cdi", "a", "--env", "A"], "--env: 'A' is not KEY=VALUE"),
    "env without a name": (["--cdi", "a", "--env", "=A"], "--env: '=A' is not KEY=VALUE"),
    "env twice": (["--cdi", "a", "--env", "A=1", "--env", "A=2"], "--env: A is set twice"),
    "a mount without --": (
        ["--cdi", "a", "--mount", "src=/a,dst=/b"],
        "--mount: this is an option of the hook (put -- before --mount and the other options of the hook)",
    ),
    "a stage": (["--cdi", "a", "--stages", "poststart"], "--stages: 'poststart' is not a stage"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_makes_no_sense_with_cdi_or_without(case: str, machine: Machine) -> None:
    words, expected = REFUSED[case]
    assert machine.run("install", *words, code=os.EX_USAGE) == []
    assert machine.err.startswith(f"oci-bind-hook: {expected}")
    assert not machine.launcher.exists()


# What is said of an installation that cannot do what it should


@pytest.mark.parametrize(("words", "is_told"), [([], True), (["--mount", "src=/,dst=/a"], False)])
@pytest.mark.parametrize("where", [[], ["--cdi", "a"]])
def test_a_registration_that_binds_nothing_is_told(
    where: list[str], words: list[str], is_told: bool, machine: Machine
) -> None:
    machine.run("install", *where, "--", *words)
    assert ("warning: the hook has no --mount, so it binds nothing" in machine.err) is is_told


@pytest.mark.parametrize(
    ("pattern", "is_told"),
    [
        ("$x", True),
        ("^a^b", True),
        (r"a\bb", True),
        (r"[^\x00-\x{10ffff}]", True),
        ("(?m)a$^b", True),
        ("x^|y$z", True),
        ("(x^)+", True),
        ("(x^)*", False),
        ("x^|y$", False),
        ("(?m)a$\n^b", False),
        ("^$", False),
        (r"^/usr/bin/\w+$", False),
        (r"a\Bb", False),
        ("[^\\x00-\u20ab\u20ad-\\x{10ffff}]", False),
        (r"\pN^", False),  # not known here
    ],
)
def test_a_command_that_nothing_matches_is_told(pattern: str, is_told: bool, machine: Machine) -> None:
    machine.run("install", "--command", pattern)
    text = f'oci-bind-hook: warning: --command "{pattern}" matches no command at all\n'
    assert (text.replace("\n", "\\n", text.count("\n") - 1) in machine.err) == is_told
