# SPDX-License-Identifier: Apache-2.0
"""``install --check``: what is wrong with hooks.d files, which hooks a container gets, and how it is printed."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import hooks_d_tables as tables
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import check, install
from oci_bind_hook.commands.engines.problems import is_anchored
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from pathlib import Path


def problems(folder: Path) -> list[tuple[str, str, str]]:
    return [(each.pointer, each.effect, each.message) for each in check.Check([str(folder)]).problems]


PROBLEMS: dict[str, tuple[dict[str, Any], tuple[str, str, str] | None]] = {
    "none": ({}, None),
    "absent": ({"hook": {"path": "/no"}}, ("/hook/path", "skips", "/no does not exist")),
    "relative": ({"hook": {"path": "."}}, ("/hook/path", "fails", '"." is not an absolute path')),
    "folder": ({"hook": {"path": "/etc"}}, ("/hook/path", "fails", "/etc is not a file")),
    "data": ({"hook": {"path": "/etc/passwd"}}, ("/hook/path", "fails", "/etc/passwd is not executable")),
    "no path": ({"hook": {"path": None}}, ("/hook/path", "refuses", "is missing")),
    "no env": (
        {"hook": {"env": None}},
        ("/hook/env", "warns", "is missing: some runtimes pass the image's variables to the hook"),
    ),
    "empty env": (
        {"hook": {"env": []}},
        ("/hook/env", "warns", "is missing: some runtimes pass the image's variables to the hook"),
    ),
    "no timeout": (
        {"hook": {"timeout": None}},
        ("/hook/timeout", "warns", "is missing: if the hook hangs, its container waits"),
    ),
    "timeout 0": ({"hook": {"timeout": 0}}, ("/hook/timeout", "warns", "must be at least 1, not 0")),
    "variable": ({"hook": {"env": ["A"]}}, ("/hook/env/0", "warns", 'must be NAME=VALUE, not "A"')),
    "no stage": ({"stages": []}, ("/stages", "warns", "is empty: the hook is never called")),
    "unknown stage": ({"stages": ["x"]}, ("/stages/0", "refuses", '"x" is not a stage')),
    "precreate": (
        {"stages": ["precreate"]},
        ("/stages/0", "warns", 'only podman accepts "precreate": CRI-O starts no container'),
    ),
    "expression": (
        {"when": {"commands": ["a", "("]}},
        ("/when/commands/1", "refuses", '"(" is not a regular expression of Go: a ) is missing'),
    ),
    "value's expression": (
        {"when": {"annotations": {"^a/b~$": "*"}}},
        ("/when/annotations/^a~1b~0$", "refuses", '"*" is not a regular expression of Go: * has nothing to repeat'),
    ),
    "not anchored": (
        {"when": {"annotations": {"a\\$": "^b$"}}},
        (
            "/when/annotations/a\\$",
            "warns",
            '"a\\$" is not anchored: it matches every name that contains it (add ^ and $)',
        ),
    ),
    "unknown condition": ({"when": {"always": True, "x": 1}}, ("/when/x", "warns", "is not a known member")),
    "no condition": (
        {"when": {}},
        ("/when/always", "warns", "is missing, and required unless annotations, commands or hasBindMounts is present"),
    ),
    "letter case": (
        {"Stages": ["prestart"]},
        (
            "/Stages",
            "warns",
            'must be spelled "stages": some runtimes accept it as it is, others ignore it',
        ),
    ),
    "version": ({"version": "2"}, ("/version", "refuses", 'is "2", but engines accept 1.0.0 and 0.1.0')),
}


@pytest.mark.parametrize(("changes", "problem"), PROBLEMS.values(), ids=PROBLEMS)
def test_problem(changes: dict[str, Any], problem: tuple[str, str, str] | None, tmp_path: Path, probe: Path) -> None:
    folder = tables.write(tmp_path / "hooks.d", {"a.json": tables.current(probe, "a", **changes)})
    assert problems(folder) == ([problem] if problem else [])


def test_the_old_version_is_a_warning_and_its_members_are_judged(tmp_path: Path, probe: Path) -> None:
    folder = tables.write(tmp_path / "hooks.d", {"a.json": tables.old(probe, "a")})
    told = "has version 0.1.0, which gives the hook neither env nor timeout and matches annotations of any name"
    assert problems(folder) == [("", "warns", told)]
    (folder / "a.json").write_text(json.dumps(tables.old(probe, "a", hook="/etc/passwd", cmds=["("])))
    assert problems(folder) == [("/cmds/0", "refuses", '"(" is not a regular expression of Go: a ) is missing')]
    (folder / "a.json").write_text(json.dumps(tables.old(probe, "a", hook="/etc/passwd")))
    assert problems(folder)[0] == ("/hook", "fails", "/etc/passwd is not executable")


@pytest.mark.parametrize("name", ["oci-bind-hook", "renamed"])
@pytest.mark.parametrize("env", [None, []], ids=["none", "empty"])
def test_this_hook_without_an_environment_of_its_own_is_a_problem(env: object, name: str, tmp_path: Path) -> None:
    launcher, _ = install.install(str(tmp_path / "prefix"), hooks_dir=str(tmp_path / "hooks.d"))
    os.rename(launcher, os.path.join(os.path.dirname(launcher), name))
    document = json.loads((tmp_path / "hooks.d/oci-bind-hook.json").read_text())
    document["hook"] |= {"env": env, "args": ["x"], "path": os.path.join(os.path.dirname(launcher), name)}
    (tmp_path / "hooks.d/oci-bind-hook.json").write_text(json.dumps(document))
    [(pointer, effect, message)] = problems(tmp_path / "hooks.d")
    assert (pointer, effect) == ("/hook/env", "exposes")
    assert message.startswith("the hook's env is missing or empty: some runtimes then pass the image's variables")
    mended = 'set one variable, such as "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"], as `install` does'
    assert message.endswith(f"({mended})")
    assert cli.main(["install", "--check", "--hooks-dir", str(tmp_path / "hooks.d")]) == os.EX_DATAERR


def test_this_hook_in_the_old_version_is_a_problem(tmp_path: Path) -> None:
    launcher, _ = install.install(str(tmp_path / "prefix"))
    folder = tables.write(tmp_path / "hooks.d", {"a.json": tables.old(launcher, "a")})
    assert problems(folder)[0][:2] == ("/version", "exposes")


def test_the_worst_comes_first_and_what_is_hidden_is_told(tmp_path: Path, probe: Path) -> None:
    files = {
        "a.json": tables.current(probe, "a", hook={"env": None}),
        "b.json": tables.current(probe, "b", hook={"path": "/etc"}),
        "c.json": tables.current(probe, "c", stages=["x"]),
    }
    folder = tables.write(tmp_path / "hooks.d", files)
    assert [effect for _, effect, _ in problems(folder)] == ["refuses", "fails", "warns"]
    (folder / "a.json").write_text(json.dumps(tables.current(probe, "a", hook={"path": "/no"})))
    (hidden,) = [message for _, _, message in problems(folder) if message.startswith('"x"')]
    assert hidden == '"x" is not a stage (once a.json is repaired, this file can keep all containers from starting)'


def test_what_readers_of_json_disagree_about_is_a_warning(tmp_path: Path, probe: Path) -> None:
    folder = tables.write(tmp_path / "hooks.d", tables.cases(probe)["a name twice"][0])
    told = "appears twice; runtimes disagree about which one applies"
    assert problems(folder) == [("/when", "warns", told)]


def test_ours_without_poststop_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "hooks.d"
    install.install(str(tmp_path / "p"), ["createRuntime"], hooks_dir=str(folder))
    text = "has no poststop: created mount points and the state file stay"
    assert problems(folder) == [("/stages", "warns", text)]
    install.install(str(tmp_path / "p"), hooks_dir=str(folder))
    assert problems(folder) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("^a$", True), (r"\Aa\z", True), ("a$", False), ("^a", False), (r"^a\$", False), ("", False)],
)
def test_anchored(pattern: str, expected: bool) -> None:
    assert is_anchored(pattern) == expected


@pytest.fixture
def folder(tmp_path: Path, probe: Path) -> Path:
    files = {
        "a.json": tables.current(probe, "a"),
        "b.json": tables.current(probe, "b", when={"commands": ["x"]}),
        "c.json": tables.current(probe, "c", hook={"path": "/no"}),
        "d.json": tables.current(probe, "d", stages=["createRuntime", "poststop"]),
    }
    tables.write(tmp_path / "over", {"a.json": tables.current(probe, "over", when={r"annotations": {r"^\pN$": ""}})})
    (tmp_path / "config.json").write_text(json.dumps(tables.CONFIG))
    return tables.write(tmp_path / "hooks.d", files)


def run(capfd: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = cli.main(["install", "--check", *map(str, words)])
    printed, told = capfd.readouterr()
    assert told == ""
    return code, printed


def test_text(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    over = tmp_path / "over"
    words = ("--hooks-dir", folder, f"--hooks-dir={over}", "--hooks-dir", tmp_path / "no", tmp_path)
    code, printed = run(capfd, *words)
    assert code == 65
    assert printed.splitlines() == [
        f"problem: {folder}/c.json: /hook/path: /no does not exist: podman and CRI-O skip this file",
        f"folder {folder}: engines read it only if their hooks_dir lists it",
        f"folder {over}: engines read it only if their hooks_dir lists it",
        f"folder {tmp_path}/no does not exist",
        f"hook {folder}/a.json is not called: it is replaced by {over}/a.json",
        f'hook {over}/a.json may be called: "^\\pN$": the Unicode class \\p cannot be checked here',
        f"hook {folder}/b.json is not called: the command /bin/true matches none of its commands",
        f"hook {folder}/c.json is not called: engines do not read it: /hook/path: /no does not exist",
        f"hook {folder}/d.json is called at createRuntime, poststop: always",
    ]


def test_text_without_a_bundle(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (folder / "c.json").unlink()
    code, printed = run(capfd, "--hooks-dir", folder)
    assert (code, printed.splitlines()) == (
        0,
        [
            f"folder {folder}: engines read it only if their hooks_dir lists it",
            f"hook {folder}/a.json is for createRuntime",
            f"hook {folder}/b.json is for createRuntime",
            f"hook {folder}/d.json is for createRuntime, poststop",
        ],
    )


def test_a_hook_without_stages_is_called_for_nobody(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    probe = tables.write_probe(tmp_path)
    folder = tables.write(tmp_path / "hooks.d", {"a.json": tables.current(probe, "a", stages=[])})
    (tmp_path / "config.json").write_text(json.dumps(tables.CONFIG))
    for words in ([], [tmp_path]):
        code, printed = run(capfd, "--hooks-dir", folder, *words)
        assert (code, printed.splitlines()[-1]) == (0, f"hook {folder}/a.json is not called: it has no stages")


def test_json(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, printed = run(capfd, "--format=json", "--hooks-dir", folder, tmp_path / "config.json")
    document = json.loads(printed)
    assert oci.violations(document, "hooks-check") == []
    assert (code, document["bundle"]) == (65, str(tmp_path / "config.json"))
    assert [(os.path.basename(each["path"]), each["used"], each["matches"]) for each in document["hooks"]] == [
        ("a.json", True, True),
        ("b.json", True, False),
        ("c.json", False, False),
        ("d.json", True, True),
    ]


def test_a_folder_that_is_refused_is_named(tmp_path: Path, probe: Path, capfd: pytest.CaptureFixture[str]) -> None:
    tables.write(tmp_path / "1", {"a.json": tables.current(probe, "a", stages=["x\n"])})
    tables.write(tmp_path / "2", {})
    (tmp_path / "3").write_text("")
    code, printed = run(capfd, *[word for name in "123" for word in ("--hooks-dir", tmp_path / name)])
    assert (code, printed.splitlines()) == (
        65,
        [
            f'problem: {tmp_path}/1/a.json: /stages/0: "x\\x0a" is not a stage: podman and CRI-O start no container',
            f"problem: {tmp_path}/3: it cannot be read: Not a directory: podman and CRI-O start no container",
            f'folder {tmp_path}/1 is refused because of a.json: /stages/0: "x\\x0a" is not a stage',
            f"folder {tmp_path}/2 has no file that ends in .json",
            f"folder {tmp_path}/3 has no file that ends in .json",
            f'hook {tmp_path}/1/a.json is not called: engines do not read it: /stages/0: "x\\x0a" is not a stage',
        ],
    )


def test_a_bundle_that_is_not_there_is_exit_66(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["install", "--check", str(tmp_path)]) == os.EX_NOINPUT
    assert capfd.readouterr().err.endswith("config.json cannot be opened: No such file or directory\n")
