# SPDX-License-Identifier: Apache-2.0
"""What each engine lacks to call the hook, by its version, its settings and what is registered."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands.engines import machine, runtimes
from oci_bind_hook.commands.upkeep import folders

if TYPE_CHECKING:
    from pathlib import Path

HOOKS_D = "install --prefix /usr -- --mount ..."
CDI = "install --cdi NAME -- --mount ..."
RUNTIME = "install --runtime NAME --apply -- --mount ..."
SETTINGS = {"runtime": "/usr/bin/runc", "hooks": {"poststop": [{"path": "/l", "args": ["x"]}]}, "annotations": {}}
WITHOUT_CRI = 'disabled_plugins = ["restart", "cri"]\n'
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
        ("containerd", "containerd x 1.7.24", WITHOUT_CRI, [], "install --runtime NAME -- --mount ..."),
        ("containerd", "containerd x 1.7.24", WITHOUT_CRI, ["runtime"], ""),
        ("containerd", "containerd x/v2 2.1.0", WITHOUT_CRI, [], CDI),
        ("containerd", "containerd x/v2 2.1.0", WITHOUT_CRI, ["CDI"], ""),
        ("containerd", "containerd x 1.7.24", 'disabled_plugins = ["restart"]\n', [], RUNTIME),
        ("containerd", "containerd x 1.7.24", 'disabled_plugins = "cri"\n', [], RUNTIME),
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


DEVICE = "run --device oci-bind-hook.github.io/bind=x ..."


@pytest.mark.parametrize(
    ("version", "settings", "said"),
    [
        ("20.10.24", "", "Docker version 20.10.24 does not read CDI here: use install --runtime NAME --apply"),
        ("28.1.1", "", "Docker version 28.1.1 does not read CDI here: use install --runtime NAME --apply"),
        ("28.1.1", '{"features": {"cdi": true}}', f"to use it: docker {DEVICE}"),
        ("28.5.2", "", f"to use it: docker {DEVICE}"),
        ("", "", f"to use it: docker {DEVICE}"),
    ],
)
def test_install_does_not_name_a_docker_that_knows_no_cdi(
    tmp_path: Path, no_engines: Path, capfd: pytest.CaptureFixture[str], version: str, settings: str, said: str
) -> None:
    (no_engines / "dockerd").write_text(f"#!/bin/sh\necho Docker version {version}\n" if version else "#!/bin/sh\n")
    (no_engines / "dockerd").chmod(0o755)
    (tmp_path / "daemon.json").write_text(settings)
    words = ["--prefix", str(tmp_path), "--cdi", "x", "--cdi-dir", str(tmp_path / "cdi")]
    assert cli.main(["install", *words, "--", "--mount", "src=/,dst=/a"]) == 0
    told = [line.removeprefix("oci-bind-hook: ") for line in capfd.readouterr().err.splitlines()]
    assert [line for line in told if " --device " in line or "CDI here" in line] == [
        said,
        f"to use it: podman {DEVICE}",
    ]


def test_a_base_spec_of_containerd_registers_the_hook(
    tmp_path: Path, no_engines: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hook = {"path": "/l/oci-bind-hook", "args": ["oci-bind-hook", "--root", "/srv/state"], "env": ["A=b"]}
    spec = tmp_path / "spec.json"
    (tmp_path / "config.toml").write_text(
        f'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.bound]\nbase_runtime_spec = "{spec}"\n'
    )
    assert machine.base_specs() == []
    for document in ("{", "{}", '{"hooks": {"prestart": [{"path": "/other"}]}}'):
        spec.write_text(document)
        assert machine.base_specs() == []
    assert machine.missing("containerd", "containerd x 1.6.20", []) == RUNTIME
    spec.write_text(json.dumps({"hooks": {"createRuntime": [hook], "poststop": [hook]}}))
    [one] = machine.base_specs()
    assert (one.kind, one.name, one.path, one.launcher) == ("base spec", "bound", str(spec), "/l/oci-bind-hook")
    assert (one.stages, one.arguments, one.is_written) == (
        ["createRuntime", "poststop"],
        ["--root", "/srv/state"],
        False,
    )
    assert machine.missing("containerd", "containerd x 1.6.20", []) == ""
    assert "/srv/state" in folders.registered()
    assert cli.main(["install", "--list"]) == 0
    assert f"base spec bound: {spec}\n" in capfd.readouterr().out
    (no_engines / "containerd").write_text("#!/bin/sh\necho containerd x 1.6.20\n")
    (no_engines / "containerd").chmod(0o755)
    cli.main(["doctor"])
    out = capfd.readouterr().out
    assert f"ok      containerd: {no_engines}/containerd, containerd x 1.6.20\n" in out
    assert "MISSING launcher /l/oci-bind-hook: /l/oci-bind-hook does not exist" in out


def test_an_ordinary_users_settings_of_podman_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    hooks = tmp_path / "share/containers/oci/hooks.d"
    (tmp_path / "containers").mkdir()
    (tmp_path / "containers/containers.conf").write_text(f'[engine]\nhooks_dir = ["{hooks}"]\n')
    monkeypatch.setattr(machine, "is_system", lambda: True)
    assert machine.folders("podman") == ([], [])
    assert cli.main(["install", "--prefix", str(tmp_path), "--", "--mount", "src=/,dst=/a"]) == 0
    unread = f"warning: podman and CRI-O read {hooks} only if their hooks_dir contains it"
    setting = f'["/usr/share/containers/oci/hooks.d", "{hooks}"] below [engine] in /etc/containers/containers.conf'
    assert f"{unread}: for podman, set hooks_dir = {setting}\n" in capfd.readouterr().err
    monkeypatch.setattr(machine, "is_system", lambda: False)
    assert machine.folders("podman") == ([str(hooks)], [])
    assert machine.to_read("/h") == (
        f'for podman, set hooks_dir = ["{hooks}", "/h"] below [engine] in {tmp_path}/containers/containers.conf'
    )
    assert cli.main(["install", "--prefix", str(tmp_path), "--", "--mount", "src=/,dst=/a"]) == 0
    assert unread not in capfd.readouterr().err
    cli.main(["install", "--check"])
    out = capfd.readouterr().out
    assert f"hook {hooks}/oci-bind-hook.json is for createRuntime, poststop\n" in out
    assert f"folder {hooks}: engines read it only" not in out


def test_doctor_says_it_for_each_engine(no_engines: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, said in (("dockerd", "Docker version 20.10.24"), ("podman", "podman version 5")):
        path = no_engines / name
        path.write_text(f"#!/bin/sh\necho {said}\n")
        path.chmod(0o755)
    cli.main(["doctor", "--format", "json"])
    findings = {each["name"]: each for each in json.loads(capfd.readouterr().out)["findings"]}
    assert findings["docker"]["detail"] == f"{no_engines}/dockerd, Docker version 20.10.24"
    assert findings["docker"]["without"].endswith(f": run oci-bind-hook {RUNTIME}")
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
        advice = f"use install --cdi NAME (from {first}) or install --runtime NAME --apply"
        assert f"warning: {name} does not read hooks.d: {advice}" in said


def test_containerd_without_cri_only_serves_docker_where_that_is_installed(
    no_engines: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (no_engines / "containerd").write_text("#!/bin/sh\necho containerd x 1.7.24\n")
    (no_engines / "containerd").chmod(0o755)
    (tmp_path / "config.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')

    def said() -> tuple[list[str], bool]:
        """What doctor says of containerd, and whether install warns that containerd does not read hooks.d."""
        capfd.readouterr()
        cli.main(["doctor"])
        examined = [line for line in capfd.readouterr().out.splitlines() if line[8:].startswith("containerd: ")]
        assert cli.main(["install", "--prefix", str(tmp_path)]) == os.EX_OK
        by = "use install --cdi NAME (from 2.0) or install --runtime NAME\n"
        return examined, f"warning: containerd does not read hooks.d: {by}" in capfd.readouterr().err

    detail = f"containerd: {no_engines}/containerd, containerd x 1.7.24"
    missing = "it does not call the hook yet: run oci-bind-hook install --runtime NAME -- --mount ..."
    assert said() == ([f"to do   {detail}: {missing}"], True)
    (no_engines / "dockerd").write_text("#!/bin/sh\necho Docker version 20.10.24\n")
    (no_engines / "dockerd").chmod(0o755)
    assert said() == ([f"ok      {detail}, without its CRI plugin: it only runs containers of docker"], False)


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


def test_a_registration_that_no_engine_reads_is_named(
    no_engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    conf, users = tmp_path / "containers.conf", tmp_path / "home"
    monkeypatch.setattr(machine, "PREFIXES", (str(tmp_path),))
    monkeypatch.setitem(machine.FILES, "podman", (str(conf),))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(users))
    monkeypatch.setattr(machine, "is_system", lambda: True)
    folder = tmp_path / "share/containers/oci/hooks.d"
    path = f"{folder}/oci-bind-hook.json"
    # With a log, so that doctor does not also name it where there is no syslog.
    words = ["--mount", "src=/,dst=/a", "--log", "/x"]
    assert cli.main(["install", "--prefix", str(tmp_path), "--", *words]) == os.EX_OK

    def said() -> tuple[list[str], list[str], str | None]:
        """Lines of install --check and doctor with the file in them, and the member of install --list."""
        capfd.readouterr()
        assert cli.main(["install", "--check"]) == os.EX_OK
        checked = [line for line in capfd.readouterr().out.splitlines() if path in line]
        cli.main(["doctor"])
        examined = [line for line in capfd.readouterr().out.splitlines() if path in line]
        assert cli.main(["install", "--list", "--format", "json"]) == os.EX_OK
        [one] = json.loads(capfd.readouterr().out)["registrations"]
        return checked, examined, one["unread"]

    assert said() == ([], [], None)  # no engine is installed
    podman = no_engines / "podman"
    podman.write_text("#!/bin/sh\necho podman version 5\n")
    podman.chmod(0o755)
    setting = f'hooks_dir = ["/usr/share/containers/oci/hooks.d", "{folder}"] below [engine] in '
    file, why = "/etc/containers/containers.conf", ""
    for is_root in (True, False):
        monkeypatch.setattr(machine, "is_system", lambda is_root=is_root: is_root)
        file = file if is_root else f"{users}/containers/containers.conf"
        why = f"podman and CRI-O read {folder} only if their hooks_dir contains it: for podman, set {setting}{file}"
        warning, finding = f"warning: {path}: no engine reads this file: {why}", f"hooks.d file {path}: no engine reads"
        assert said() == ([warning], [f"to do   {finding} it: {why}"], why)
    assert cli.main(["install", "--list"]) == os.EX_OK
    assert f"hooks.d without a name: {path}\n  read by    no engine: {why}\n  calls " in capfd.readouterr().out
    # An ordinary user has no CRI-O, and root may have both.
    (no_engines / "crio").write_text("#!/bin/sh\n")
    (no_engines / "crio").chmod(0o755)
    assert machine.to_read(str(folder)) == f"for podman, set {setting}{file}"
    monkeypatch.setattr(machine, "is_system", lambda: True)
    default = f"for CRI-O, set {setting.replace('[engine]', '[crio.runtime]')}/etc/crio/crio.conf"
    assert machine.to_read(str(folder)).endswith(f"; {default}")
    # The last file that has the setting decides, so it is the one to change.
    files = [tmp_path / "crio.conf", tmp_path / "drop-in.conf", tmp_path / "last.conf"]
    for file_of_crio, text in zip(files, ('hooks_dir = ["/first"]', 'hooks_dir = ["/own"]', ""), strict=True):
        file_of_crio.write_text(f"[crio.runtime]\n{text}\n")
    monkeypatch.setitem(machine.FILES, "crio", (*map(str, files),))
    crio = f'hooks_dir = ["/own", "{folder}"] below [crio.runtime] in {files[1]}'
    both = f"for podman, set {setting}/etc/containers/containers.conf; for CRI-O, set {crio}"
    assert machine.to_read(str(folder)) == both
    podman.unlink()
    assert machine.to_read(str(folder)) == f"for CRI-O, set {crio}"
    cli.main(["doctor"])
    assert f"works here. First: for CRI-O, set {crio}\n" in capfd.readouterr().out
    # An ordinary user of a machine that has only CRI-O cannot do it, but learns what is missing.
    monkeypatch.setattr(machine, "is_system", lambda: False)
    assert machine.to_read(str(folder)) == f"for CRI-O, set {crio}"
    monkeypatch.setattr(machine, "is_system", lambda: True)
    # Advice that was followed is not repeated.
    files[1].write_text(f"[crio.runtime]\n{crio.partition(' below ')[0]}\n")
    assert machine.why_unread(str(folder)) == ""
    files[1].write_text("")
    (no_engines / "crio").unlink()
    podman.write_text("#!/bin/sh\necho podman version 5\n")
    podman.chmod(0o755)
    monkeypatch.setattr(machine, "is_system", lambda: False)
    cli.main(["doctor", "--format", "json"])
    findings = {each["name"]: each for each in json.loads(capfd.readouterr().out)["findings"]}
    assert (findings["registration"]["there"], findings["podman"]["there"]) == (False, False)
    assert findings["podman"]["without"].endswith(", because it does not read the file in hooks.d above")
    # Root's podman reads it, and this user's does not: it is in use.
    conf.write_text(f'[engine]\nhooks_dir = ["{folder}/"]\n')
    (users / "containers").mkdir(parents=True)
    (users / "containers/containers.conf").write_text('[engine]\nhooks_dir = ["/other"]\n')
    assert said() == ([], [], None)
    monkeypatch.setattr(machine, "is_system", lambda: True)
    called = f"hook {path} is for createRuntime, poststop"
    assert said() == ([called], [f"ok      registration: {path}"], None)
    # The folder is checked as well.
    (folder / "broken.json").write_text("{")
    cli.main(["doctor"])
    assert f"MISSING hooks.d {folder}: files: 2, problems: 1: `install --check` has" in capfd.readouterr().out
