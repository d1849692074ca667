# SPDX-License-Identifier: Apache-2.0
"""CDI files: those that register this hook without an environment of its own are found."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands.engines import cdi
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    from pathlib import Path

HOOK = {"hookName": "createContainer", "path": "/usr/libexec/oci/hooks.d/oci-bind-hook"}
YAML = """\
cdiVersion: "0.6.0"
kind: example.com/models
devices:
- name: all
  containerEdits:
    hooks:
    - hookName: createContainer
      path: /usr/libexec/oci/hooks.d/oci-bind-hook
"""


def edits(*hooks: dict[str, Any]) -> dict[str, Any]:
    return {"containerEdits": {"hooks": list(hooks)}}


FILES: dict[str, tuple[str, str, list[tuple[str, bool]]]] = {
    "of a device": (
        "x.json",
        json.dumps({"devices": [edits(), edits({**HOOK, "env": ["A=1"]}, HOOK)]}),
        [("/devices/1/containerEdits/hooks/1/env", True)],
    ),
    "of all": ("x.json", json.dumps(edits({**HOOK, "env": []})), [("/containerEdits/hooks/0/env", True)]),
    "with an env": ("x.json", json.dumps(edits({**HOOK, "env": ["A=1"]})), []),
    "by its name": (
        "x.json",
        json.dumps(edits({"path": "/opt/x", "args": ["oci-bind-hook"]})),
        [("/containerEdits/hooks/0/env", True)],
    ),
    "another hook": ("x.json", json.dumps(edits({"path": "/x", "args": ["x", "oci-bind-hook"]})), []),
    "of odd shape": ("x.json", json.dumps({"devices": ["oci-bind-hook", edits(), {"containerEdits": 1}]}), []),
    "no object": ("x.json", '["oci-bind-hook"]', []),
    "YAML without any env": ("x.yaml", YAML, [("", True)]),
    "YAML with one": ("x.yaml", YAML + "      env: [A=1]\n", [("", False)]),
    "YAML of others": ("x.yaml", YAML.replace("oci-bind-hook", "nvidia-ctk"), []),
    "of another name": ("x.yml", YAML, []),
    "too deep": ("x.json", "[" * 100_000 + '"oci-bind-hook"', [("", True)]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file(case: str, tmp_path: Path) -> None:
    name, text, expected = FILES[case]
    (tmp_path / name).write_text(text)
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "bytes.json").write_bytes(b"oci-bind-hook\xff")
    found = list(cdi.without_env([str(tmp_path), str(tmp_path / "absent")]))
    assert found == [(str(tmp_path / name), *each) for each in expected]


@pytest.mark.parametrize(("env", "code"), [("", os.EX_DATAERR), ("      env: [A=1]\n", os.EX_OK)])
def test_install_check_and_doctor_tell_it(
    env: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cdi, "FOLDERS", (str(tmp_path),))
    (tmp_path / "x.yaml").write_text(YAML + env)
    (tmp_path / "hooks.d").mkdir()
    words = ["install", "--check", "--hooks-dir", str(tmp_path / "hooks.d")]
    assert cli.main(words) == code
    out = capfd.readouterr().out
    start = "warning" if env else "problem"
    said = cdi.UNKNOWN if env else "the hook's env is missing or empty: some runtimes"
    assert out.startswith(f"{start}: {tmp_path}/x.yaml: {said}")
    assert cli.main([*words, "--format=json"]) == code
    assert oci.violations(document := json.loads(capfd.readouterr().out), "hooks-check") == []
    assert [one["effect"] for one in document["problems"]] == ["warns" if env else "exposes"]
    cli.main(["doctor"])
    told = f"\nMISSING registration: {tmp_path}/x.yaml: the hook's env is missing or empty: some runtimes"
    assert (told in capfd.readouterr().out) == (not env)
