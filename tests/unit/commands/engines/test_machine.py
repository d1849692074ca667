# SPDX-License-Identifier: Apache-2.0
"""What each engine lacks to call the hook, by its version, its settings and what is registered."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands.engines import machine, runtimes

if TYPE_CHECKING:
    from pathlib import Path

HOOKS_D = "install --prefix /usr -- --mount ..."
CDI = "install --cdi NAME -- --mount ..."
RUNTIME = "install --runtime NAME --apply -- --mount ..."
SETTINGS = {"runtime": "/usr/bin/runc", "hooks": {"poststop": [{"path": "/l", "args": ["x"]}]}, "annotations": {}}
ENABLED = 'version = 2\n[plugins."io.containerd.grpc.v1.cri"]\nenable_cdi = true\n'


@pytest.mark.parametrize(
    ("name", "version", "settings", "kinds", "command"),
    [
        ("podman", "podman version 5.8.6", "", [], HOOKS_D),
        ("podman", "podman version 5.8.6", "", ["hooks.d"], ""),
        ("podman", "podman version 4.3.1", "", ["CDI"], ""),
        ("crio", "crio version 1.37.0", "", ["runtime"], HOOKS_D),
        ("docker", "Docker version 28.5.2+dfsg3, build 1", "", [], CDI),
        ("docker", "Docker version 28.5.2+dfsg3, build 1", "", ["CDI"], ""),
        ("docker", "Docker version 28.1.0, build 1", "", ["CDI"], RUNTIME),
        ("docker", "Docker version 27.0.1, build 1", '{"features": {"cdi": true}}', ["CDI"], ""),
        ("docker", "Docker version 20.10.24+dfsg1, build 1", '{"features": {"cdi": true}}', ["CDI"], RUNTIME),
        ("docker", "Docker version 20.10.24", '{"runtimes": {"x": {"path": "/other"}, "y": 1}}', [], RUNTIME),
        ("docker", "Docker version 20.10.24", '{"runtimes": {"x": {"path": "WRAPPER"}}}', [], ""),
        ("docker", "", "{", [], RUNTIME),
        ("containerd", "containerd github.com/containerd/containerd 1.6.20~ds1", "", ["hooks.d", "CDI"], RUNTIME),
        ("containerd", "containerd github.com/containerd/containerd/v2 2.1.9~ds1", "", ["CDI"], ""),
        ("containerd", "containerd github.com/containerd/containerd v1.7.24", "", ["CDI"], RUNTIME),
        ("containerd", "containerd github.com/containerd/containerd v1.7.24", ENABLED, ["CDI"], ""),
        (
            "containerd",
            "containerd x 1.6.20",
            '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.a.options]\nBinaryName = "WRAPPER"\n',
            [],
            "",
        ),
        ("containerd", "containerd x 1.6.20", '[plugins]\n"io.containerd.grpc.v1.cri" = 1\n', [], RUNTIME),
    ],
)
def test_the_command_that_is_missing(
    tmp_path: Path, name: str, version: str, settings: str, kinds: list[str], command: str
) -> None:
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f"#!/bin/sh\n{runtimes.MARK}\nobh_settings='{json.dumps(SETTINGS)}'\n\n")
    file = tmp_path / ("daemon.json" if name == "docker" else "config.toml")
    file.write_text(settings.replace("WRAPPER", str(wrapper)))
    assert machine.missing(name, version, kinds) == command  # type: ignore[arg-type]
    # Through a link, as the engine reads it.
    file.symlink_to(file.rename(tmp_path / "elsewhere"))
    assert machine.missing(name, version, kinds) == command  # type: ignore[arg-type]


def test_doctor_says_it_for_each_engine(no_engines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, said in (("dockerd", "Docker version 20.10.24"), ("podman", "podman version 5")):
        path = no_engines / name
        path.write_text(f"#!/bin/sh\necho {said}\n")
        path.chmod(0o755)
    cli.main(["doctor", "--format", "json"])
    findings = {each["name"]: each for each in json.loads(capfd.readouterr().out)["findings"]}
    assert findings["docker"]["detail"] == f"{no_engines}/dockerd, Docker version 20.10.24"
    assert findings["docker"]["without"].endswith(f": oci-bind-hook {RUNTIME}")
    assert not findings["docker"]["needed"]
    assert "podman" in findings


def test_install_names_the_engines_that_do_not_read_it(
    no_engines: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("dockerd", "containerd", "podman"):
        (no_engines / name).write_text("")
        (no_engines / name).chmod(0o755)
    assert cli.main(["install", "--prefix", str(tmp_path)]) == os.EX_OK
    said = capfd.readouterr().err
    for name, first in (("docker", "28.2"), ("containerd", "2.0")):
        advice = f"for it install --cdi NAME (from {first}) or install --runtime NAME --apply"
        assert f"warning: {name} reads no hooks.d: {advice}" in said


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("podman", "containers.conf", '[engine]\nhooks_dir = ["{folder}"]\n'),
        ("crio", "10-hook.conf", '[crio.runtime]\nhooks_dir = ["/other", "{folder}"]\n'),
    ],
)
def test_a_folder_that_an_engines_settings_name_is_looked_into(
    no_engines: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    file: str,
    text: str,
) -> None:
    folder = tmp_path / "hooks.d"
    (tmp_path / "conf").mkdir()
    monkeypatch.setitem(machine.FILES, name, (f"{tmp_path}/conf/*.conf",))
    program = no_engines / machine.PROGRAMS[name]
    program.write_text("#!/bin/sh\necho version 5.0\n")
    program.chmod(0o755)
    assert cli.main(["install", "--prefix", str(tmp_path), "--hooks-dir", str(folder)]) == os.EX_OK
    there = []
    for settings in ("= broken", "[engine]\nhooks_dir = 1\n[crio]\nruntime = 1\n", text.format(folder=folder)):
        (tmp_path / "conf" / file).write_text(settings)
        capfd.readouterr()
        cli.main(["doctor", "--format", "json"])
        [found] = [each for each in json.loads(capfd.readouterr().out)["findings"] if each["name"] == name]
        there.append(found["there"])
    assert there == [False, False, True]
