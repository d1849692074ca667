# SPDX-License-Identifier: Apache-2.0
"""What docs/CI.md and schemas/README.md tell to run is run, as it stands there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from helpers.schema_tables import VALID

PROJECT = Path(__file__).resolve().parents[2]
CI = (PROJECT / "docs/CI.md").read_text(encoding="utf-8")
README = (PROJECT / "schemas/README.md").read_text(encoding="utf-8")
BLOCK = r"^```{}\n(.*?)^```"
GITHUB, SARIF, GITLAB = map(yaml.safe_load, re.findall(BLOCK.format("yaml"), CI, re.DOTALL | re.MULTILINE))
BAD = '{"ociVersion": "1.2.0",\n "root": {"path": "rootfs"},\n "process": {"cwd": 5}}'
MESSAGE = "/process/cwd{} must be of type string, not 5"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two bundles, of which one has an invalid config.json, and the program in a folder of PATH."""
    for name, text in (("bad", BAD), ("good", BAD.replace("5", '"/"'))):
        (tmp_path / "bundles" / name / "rootfs").mkdir(parents=True)
        (tmp_path / "bundles" / name / "config.json").write_text(text, encoding="utf-8")
    program = tmp_path / "bin/oci-bind-hook"
    program.parent.mkdir()
    hook = PROJECT / "hook"
    text = f"import sys; sys.path.insert(0, {str(hook)!r}); from oci_bind_hook.cli import console; console()\n"
    program.write_text(f"#!{sys.executable} -I\n{text}", encoding="utf-8")
    program.chmod(0o755)
    return tmp_path


def run(folder: Path, *command: str, stdin: str = "") -> tuple[int, str]:
    """The exit code of a command in the folder, and what it prints."""
    environment = {"PATH": f"{folder}/bin:{os.environ['PATH']}", "HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, input=stdin, stdout=subprocess.PIPE, text=True)
    return done.returncode, done.stdout


def step(steps: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(each for each in steps if each.get("name") == name)


def test_github_annotates_the_line(folder: Path) -> None:
    command = step(GITHUB["jobs"]["bundles"]["steps"], "Validate")["run"]
    place = "file=bundles/bad/config.json,line=3,col=14"
    assert run(folder, "bash", "-e", "-c", command) == (65, f"::error {place}::{MESSAGE.format(':')}\n")
    (folder / "bundles/bad/config.json").unlink()
    assert run(folder, "bash", "-e", "-c", command)[0] == 66


def test_github_gets_sarif_of_what_is_invalid(folder: Path) -> None:
    assert run(folder, "bash", "-e", "-c", step(SARIF, "Validate")["run"]) == (65, "")
    upload = step(SARIF, "Upload")
    assert upload["if"] == "${{ !cancelled() }}"  # though the step before has failed
    document = json.loads((folder / upload["with"]["sarif_file"]).read_text(encoding="utf-8"))
    [result] = document["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "bundles/bad/config.json"},
        "region": {"startLine": 3, "startColumn": 14},
    }


def test_gitlab_gets_a_report_of_code_quality(folder: Path) -> None:
    job = GITLAB["bundles"]
    (folder / "bundles/none").mkdir()
    code, printed = run(folder, "bash", "-e", "-o", "pipefail", "-c", "\n".join(job["script"]))
    assert (code, printed) == (65, "bundles/none/config.json cannot be opened: No such file or directory\n")
    [found] = json.loads((folder / job["artifacts"]["reports"]["codequality"]).read_text(encoding="utf-8"))
    assert found.pop("fingerprint")
    assert found == {
        "description": MESSAGE.format(""),
        "check_name": "oci-bind-hook",
        "severity": "major",
        "location": {"path": "bundles/bad/config.json", "lines": {"begin": 3}},
    }
    for bundle in ("bad", "none"):
        (folder / f"bundles/{bundle}").rename(folder / bundle)
    assert run(folder, "bash", "-e", "-c", "\n".join(job["script"]))[0] == 0


def test_explain_finds_what_validate_does_not_check(folder: Path) -> None:
    [loop] = re.findall(BLOCK.format("sh"), CI, re.DOTALL | re.MULTILINE)
    mount = {"destination": "data", "source": str(folder), "type": "bind", "options": ["bind", "nosuidd"]}
    words = ["oci-bind-hook", "--mount", "src=/tmp,dst=/x,roo"]
    hooks = {"prestart": [{"path": "/usr/bin/oci-bind-hook", "args": words, "env": ["A=b"]}]}
    config = {**json.loads(BAD.replace("5", '"/"')), "mounts": [mount], "hooks": hooks}
    (folder / "bundles/good/config.json").write_text(json.dumps(config), encoding="utf-8")
    assert run(folder, "oci-bind-hook", "validate", "bundles/good") == (0, "")
    _, printed = run(folder, "bash", "-c", loop)
    lines = [line for line in printed.splitlines() if line.startswith("bundles/good:")]
    for found in ('option "nosuidd" is not known', "the destination is relative", '"roo" is not known'):
        assert any(found in line for line in lines), found


# -- schemas/README.md -------------------------------------------------------------------------------------------------


def test_ten_lines_of_python_and_of_jq(folder: Path) -> None:
    [python] = re.findall(BLOCK.format("python"), README, re.DOTALL | re.MULTILINE)
    [shell] = re.findall(BLOCK.format("sh"), README, re.DOTALL | re.MULTILINE)
    (folder / "bundles/bad").rename(folder / "bundle")
    first, second = re.split(r"\n(?=oci-bind-hook validate)", shell)
    (folder / "source").mkdir()
    bind = {"destination": "/data", "source": str(folder / "source"), "type": "bind", "options": ["bind"]}
    config = json.loads(BAD.replace("5", '"/"')) | {"mounts": [bind]}
    (folder / "bundle/config.json").write_text(json.dumps(config), encoding="utf-8")
    _, plan = run(folder, "oci-bind-hook", "explain", "./bundle", "--format", "json")
    table = f"mount\t{folder}/source\t/data\n"
    assert run(folder, "bash", "-c", first) == (0, table)
    assert run(folder, sys.executable, "-c", python, stdin=plan) == (0, table)
    wrong = json.dumps({**json.loads(plan), "version": 2})
    assert run(folder, sys.executable, "-c", python, stdin=wrong) == (0, f"$.version 1 was expected\n{table}")
    record = VALID["state-file"]
    assert run(folder, sys.executable, "-c", python, stdin=json.dumps(record)) == (0, "")
    wrong = json.dumps({**record, "version": 9})
    assert run(folder, sys.executable, "-c", python, stdin=wrong)[1].startswith("$.version ")
    (folder / "bundle/config.json").write_text(BAD, encoding="utf-8")
    assert run(folder, "bash", "-c", second) == (
        0,
        f"::error file=bundle/config.json,line=3,col=14::{MESSAGE.format('')}\n",
    )
