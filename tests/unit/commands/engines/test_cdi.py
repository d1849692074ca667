# SPDX-License-Identifier: Apache-2.0
"""CDI folders as engines read them, and what is said of them. tests/e2e/test_podman_cdi.py asks podman the same."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import cdi_tables as tables
from helpers.cdi_tables import HOOK, device, document, hook, write
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import cdi, check, problems
from oci_bind_hook.commands.engines.cdi_file import Devices
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from pathlib import Path


WHY = "the hook's env is missing or empty: some runtimes"
YAML = """\
cdiVersion: "0.5.0"
kind: example.com/models
devices:
- name: all
  containerEdits:
    hooks:
    - hookName: createContainer
      path: /usr/libexec/oci/hooks.d/oci-bind-hook
"""


def told(*folders: Path) -> list[tuple[str, str, str]]:
    """The problems with these folders: pointer, effect and message."""
    found = problems.of_cdi_folders(cdi.read(map(str, folders)))
    return [(each.pointer, each.effect, each.message) for each in found]


def used(*folders: Path) -> list[str]:
    """The devices that engines know, each with the name of its file."""
    known = cdi.devices_of(cdi.read(map(str, folders)))
    return [f"{each.qualified} {os.path.basename(each.file.path)}" for each in known if each.is_used]


# As engines do

CASES = {**tables.AGREED, **tables.NEWER, **tables.FATAL}


@pytest.mark.parametrize("case", CASES)
def test_a_file(case: str, tmp_path: Path) -> None:
    what, expected = CASES[case]
    refusal = cdi.File(str(write(tmp_path, "x.json", what))).refusal
    assert (None if refusal is None else (refusal.pointer, refusal.message)) == expected
    assert (refusal is not None and refusal.is_fatal) == (case in tables.FATAL)


def test_a_schema_and_engines_agree_on_what_is_wrong() -> None:
    """But for what SPEC.md forbids and engines take, and for versions and emptiness, which the schema does not see."""
    lenient = {"names in other letter case", "null for absent", "a colon in the name"}
    counted = {name for name, (_, expected) in tables.NEWER.items() if expected and " requires " in expected[1]}
    counted.add("no edits")
    for case, (what, expected) in CASES.items():
        is_valid = oci.violations(what, "cdi") == []
        assert is_valid == ((expected is None or case in counted) and case not in lenient), case


@pytest.mark.parametrize("name", ["x.yml", "x.json.bak", "json"])
def test_files_of_other_names_do_not_count(name: str, tmp_path: Path) -> None:
    write(tmp_path, name, document(hook()))
    (tmp_path / "folder.json").mkdir()
    assert used(tmp_path, tmp_path / "absent") == []


def test_a_later_folder_goes_first_and_one_folder_must_not_disagree(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    write(one, "a.json", document(devices=[device("x"), device("y"), device("z")]))
    write(two, "b.json", document(devices=[device("y")]))
    names = [f"example.com/models={each}" for each in ("x a.json", "y b.json", "z a.json")]
    assert used(one, two) == names
    # A device in which two files of one folder conflict is in no folder.
    write(one, "c.json", document(devices=[device("y")]))
    assert used(one, two) == [names[0], names[2]]


# What is wrong


def test_what_others_wrote_is_judged_only_where_engines_do(tmp_path: Path) -> None:
    write(tmp_path, "a.json", document({"hooks": [{"hookName": "poststart", "path": "/absent"}]}, cdiVersion="1.0.0"))
    write(tmp_path, "b.json", document(kind="example.com/other", devices=[device("a:b")]))
    assert told(tmp_path) == []
    write(tmp_path, "c.json", document(cdiVersion="9"))
    [found] = [each.line() for each in problems.of_cdi_folders(cdi.read([str(tmp_path)]))]
    assert found == (
        f'problem: {tmp_path}/c.json: /cdiVersion: is "9", but engines accept 0.3.0 to 1.1.0: engines skip this '
        "file, and containers that request its devices do not start"
    )
    write(tmp_path, "c.json", document(kind="example.com/m"))
    [found] = [each.line() for each in problems.of_cdi_folders(cdi.read([str(tmp_path)]))]
    assert found.endswith(": the engine crashes when it reads this file")


POSTSTOP = "has no poststop: created mount points and the state file stay"
PLACE = "/devices/0/containerEdits/hooks"
PROGRAM: dict[str, tuple[dict[str, Any], list[tuple[str, str, str]]]] = {
    "no poststop": ({}, [(PLACE, "warns", POSTSTOP)]),
    "another stage": (
        {"hookName": "poststart"},
        [
            (
                f"{PLACE}/0/hookName",
                "fails",
                "at poststart the hook can neither mount nor unmount anything",
            ),
            (PLACE, "warns", POSTSTOP),
        ],
    ),
    "only poststop": ({"hookName": "poststop"}, [(PLACE, "warns", "has only poststop: nothing is mounted")]),
    "no timeout": (
        {"timeout": None},
        [
            (f"{PLACE}/0/timeout", "warns", "is missing: if the hook hangs, its container waits"),
            (PLACE, "warns", POSTSTOP),
        ],
    ),
    "relative": (
        {"path": "bin/oci-bind-hook"},
        [(f"{PLACE}/0/path", "fails", '"bin/oci-bind-hook" is not an absolute path'), (PLACE, "warns", POSTSTOP)],
    ),
    "absent": (
        {"path": "/absent/oci-bind-hook"},
        [
            (f"{PLACE}/0/path", "fails", "/absent/oci-bind-hook does not exist: run install again"),
            (PLACE, "warns", POSTSTOP),
        ],
    ),
}


@pytest.mark.parametrize("case", PROGRAM)
def test_what_is_wrong_with_ours(case: str, tmp_path: Path) -> None:
    members, expected = PROGRAM[case]
    launcher = tmp_path / "oci-bind-hook"
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    write(tmp_path / "cdi", "x.json", document(hook(**{"path": str(launcher), **members})))
    assert told(tmp_path / "cdi") == expected
    if case == "no poststop":
        launcher.chmod(0o644)
        fails = (f"{PLACE}/0/path", "fails", f"{launcher} is not executable")
        assert told(tmp_path / "cdi") == [fails, *expected]


def test_devices_of_ours_that_others_have_as_well(tmp_path: Path) -> None:
    one, two = tmp_path / "1", tmp_path / "2"
    ours = document(hook(path="/bin/oci-bind-hook"))
    write(one, "a.json", ours)
    write(two, "b.json", document())
    (_, _, text) = next(each for each in told(one, two) if each[0] == "/devices/0/name")
    assert text == f"example.com/models=d0 is replaced by that of {two}/b.json"
    write(one, "c.json", document())
    [(effect, text)] = [each[1:] for each in told(one, two) if each[0] == "/devices/0/name"]
    assert (effect, text) == ("fails", f"example.com/models=d0 is also in {one}/c.json, so engines ignore it")


def test_a_later_version_of_ours_is_a_warning(tmp_path: Path) -> None:
    write(tmp_path, "x.json", document(hook(), cdiVersion="0.6.0"))
    assert ("/cdiVersion", "warns", 'is "0.6.0", but podman 4 accepts at most 0.5.0') in told(tmp_path)


def test_variables_of_the_container(tmp_path: Path) -> None:
    for number, env in enumerate((["LD_LIBRARY_PATH=/x", "A=1", "PATHS=x"], ["A=1", "B=2", "PATH=/x"], ["B=3"])):
        edits = {"env": env, "hooks": [{**HOOK, "path": "/absent"}, HOOK]}
        write(tmp_path, f"{number}.json", document(edits, kind=f"example.com/k{number}"))
    found = [(os.path.basename(each.path), each.message) for each in problems.of_cdi_folders(cdi.read([str(tmp_path)]))]
    other = "example.com/k1=d0 and example.com/k2=d0"
    assert [each for each in found if "sets" in each[1]] == [
        ("0.json", "sets LD_LIBRARY_PATH, which replaces the image's value"),
        ("1.json", "sets PATH, which replaces the image's value"),
        (
            "1.json",
            f"sets B to a different value than {tmp_path}/2.json: a container with {other} gets one value",
        ),
        (
            "2.json",
            f"sets B to a different value than {tmp_path}/1.json: a container with example.com/k2=d0 and "
            "example.com/k1=d0 gets one value",
        ),
    ]


# An environment of its own

ENV: dict[str, tuple[str, object, list[tuple[str, bool]]]] = {
    "of a device": (
        "x.json",
        document({"env": ["A=1"]}, {"hooks": [HOOK, {**HOOK, "env": []}]}),
        [("/devices/1/containerEdits/hooks/1/env", True)],
    ),
    "of all": (
        "x.json",
        document(containerEdits={"hooks": [{**HOOK, "env": []}]}),
        [("/containerEdits/hooks/0/env", True)],
    ),
    "with an env": ("x.json", document(hook()), []),
    "by its name": (
        "x.json",
        document(hook(path="/opt/x", args=["oci-bind-hook"], env=None)),
        [(f"{PLACE}/0/env", True)],
    ),
    "another hook": ("x.json", document(hook(path="/x", args=["x", "oci-bind-hook"], env=None)), []),
    "YAML without any env": ("x.yaml", YAML, [("", True)]),
    "YAML with one": ("x.yaml", YAML + "      env: [A=1]\n", [("", False)]),
    "YAML with one in quotes": ("x.yaml", YAML + '      "env" : [A=1]\n', [("", False)]),
    "YAML with one of another case": ("x.yaml", YAML + "      ENV: [A=1]\n", [("", False)]),
    "YAML of others": ("x.yaml", YAML.replace("oci-bind-hook", "nvidia-ctk"), []),
    "YAML of another name": ("x.yml", YAML, []),
    "JSON as YAML": ("x.yaml", json.dumps(document(hook(env=None))), [(f"{PLACE}/0/env", True)]),
    "too deep": ("x.json", "[" * 100_000 + '"oci-bind-hook"', [("", True)]),
}


@pytest.mark.parametrize("case", ENV)
def test_the_env_of_the_hook(case: str, tmp_path: Path) -> None:
    name, text, expected = ENV[case]
    write(tmp_path, name, text)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "bytes.json").write_bytes(b"other\xff")
    found = [(pointer, effect == "exposes") for pointer, effect, text in told(tmp_path) if " env" in text]
    assert found == expected


@pytest.mark.parametrize(("env", "code"), [("", os.EX_DATAERR), ("      env: [A=1]\n", os.EX_OK)])
def test_install_check_and_doctor_tell_it(
    env: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cdi, "FOLDERS", (str(tmp_path),))
    (tmp_path / "x.yaml").write_text(YAML + env)
    words = ["install", "--check", "--hooks-dir", str(tmp_path / "absent")]
    assert cli.main(words) == code
    assert f"{tmp_path}/x.yaml: " in capfd.readouterr().out
    assert cli.main([*words, "--format=json"]) == code
    assert oci.violations(document := json.loads(capfd.readouterr().out), "hooks-check") == []
    assert [one["effect"] for one in document["problems"]] == ["warns" if env else "exposes"]
    cli.main(["doctor"])
    out = capfd.readouterr().out
    assert (f"\nMISSING registration: {tmp_path}/x.yaml: {WHY}" in out) == (not env)
    told = "MISSING" if not env else "ok     "
    counts = "problems: 0, warnings: 1" if env else "problems: 1"
    assert f"\n{told} CDI {tmp_path}: files: 1, {counts}, not checked (YAML): 1" in out
    unknown = f"\nwithout registration: {tmp_path}/x.yaml may register it, but doctor does not read YAML"
    assert (unknown in out) == bool(env)


# What install writes


@pytest.mark.parametrize("env", [[], ["LD_LIBRARY_PATH=/a:/b", "EMPTY="]], ids=["no env", "env"])
def test_what_install_writes_is_valid(env: list[str], tmp_path: Path) -> None:
    [text] = Devices(["models"], str(tmp_path), env).texts("/l", ["createRuntime", "poststop"], ["--debug"])
    assert oci.violations(json.loads(text), "cdi") == []
    file = cdi.File(str(write(tmp_path, "x.json", text)))
    assert (file.refusal, file.faults, [each.qualified for each in file.ours]) == (
        None,
        [],
        ["oci-bind-hook.github.io/bind=models"],
    )


def test_what_yaml_reads_otherwise_is_escaped(tmp_path: Path) -> None:
    """Engines read JSON as YAML: there a line ends at U+0085 and U+2028, and there are no pairs of surrogates."""
    odd = "src=/\x85\u2028\u2029\x7f\ufeff\U0001f600,dst=/x"
    [text] = Devices(["models"], str(tmp_path)).texts("/l", ["poststop"], [odd])
    assert json.loads(text)["devices"][0]["containerEdits"]["hooks"][0]["args"][1] == odd
    assert all(each.isprintable() for each in text.split("\n"))
    assert "\\ud8" not in text


# For a bundle


def registered_by(entry: dict[str, Any], bundle: Path) -> str:
    """The path of a config.json into which an engine has put this hook of CDI."""
    own = {name: value for name, value in entry.items() if name != "hookName"}
    config = {"ociVersion": "1.0.2", "root": {"path": "x"}, "hooks": {entry["hookName"]: [own]}}
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(config))
    return str(bundle)


def test_a_container_that_cdi_started_is_called(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    entry = {**HOOK, "args": ["oci-bind-hook", "--debug"]}
    write(tmp_path / "cdi", "a.json", document({"hooks": [entry]}, {"hooks": [{**entry, "args": ["oci-bind-hook"]}]}))
    bundle = registered_by(entry, tmp_path / "bundle")
    folders = ["--hooks-dir", str(tmp_path / "absent"), "--cdi-dir", str(tmp_path / "cdi")]
    cli.main(["install", "--check", *folders, bundle])
    lines = capfd.readouterr().out.splitlines()
    of_file = f"of {tmp_path}/cdi/a.json"
    assert lines[-3:] == [
        f"device example.com/models=d0 {of_file} is called at createContainer: config.json has its hooks",
        f"device example.com/models=d1 {of_file} is not called: config.json does not have its hooks",
        f"hook {HOOK['path']} is called at createContainer: config.json registers it, for the CDI device "
        "example.com/models=d0 (/hooks/createContainer/0)",
    ]
    found = json.loads(check.as_json(check.Check([], bundle, [str(tmp_path / "cdi")])))
    assert oci.violations(found, "hooks-check") == []
    assert [each["matches"] for each in found["devices"]] == [True, False]
    assert [each["pointer"] for each in found["registered"]] == ["/hooks/createContainer/0"]


def test_a_config_json_that_registers_the_hook_itself_counts(tmp_path: Path) -> None:
    bundle = registered_by({**HOOK, "env": []}, tmp_path / "bundle")
    found = check.Check([], f"{bundle}/config.json", [])
    assert [(each.path, each.pointer, each.effect) for each in found.problems] == [
        (f"{bundle}/config.json", "/hooks/createContainer/0/path", "fails"),
        (f"{bundle}/config.json", "/hooks/createContainer/0/env", "exposes"),
    ]
    assert found.problems[0].message == f"{HOOK['path']} does not exist: run install again"
    assert found.is_broken
    # Only poststop: the container starts.
    file = tmp_path / "bundle/config.json"
    file.write_text(json.dumps({"hooks": {"poststop": [HOOK]}}))
    assert not check.Check([], str(file), []).is_broken
    assert check.as_text(found).splitlines()[-1].endswith(": config.json registers it (/hooks/createContainer/0)")


def test_without_a_bundle_devices_are_shown_with_their_stages(tmp_path: Path) -> None:
    write(tmp_path, "a.json", document(hook()))
    found = check.Check([], None, [str(tmp_path)])
    line = f"device example.com/models=d0 of {tmp_path}/a.json is for createContainer"
    assert line in check.as_text(found).splitlines()
