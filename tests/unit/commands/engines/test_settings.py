# SPDX-License-Identifier: Apache-2.0
"""What a wrapper needs in daemon.json and config.toml: added, told, and taken away again."""

from __future__ import annotations

import errno
import json
import os
import stat
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oci_bind_hook import cli
from oci_bind_hook.commands.engines import doctor, runtimes
from oci_bind_hook.commands.engines.settings import Containerd, Docker, Settings
from oci_bind_hook.documents import oci
from oci_bind_hook.errors import DataError, KernelError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from oci_bind_hook.commands.engines.written import Change

# As Debian's containerd 1.6 comes.
DEBIAN = """\
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
      conf_dir = "/etc/cni/net.d"
"""
KUBEADM = """\
version = 3
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
  runtime_type = 'io.containerd.runc.v2'
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
    SystemdCgroup = true # as kubelet
"""
LATEST = KUBEADM.replace("version = 3", "version = 4")


class TestDocker:
    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("", {"runtimes": {"bind": {"path": "/w"}}}),
            ("{}", {"runtimes": {"bind": {"path": "/w"}}}),
            (
                '{"debug": true, "data-root": "/é"}',
                {"debug": True, "data-root": "/é", "runtimes": {"bind": {"path": "/w"}}},
            ),
            ('{"runtimes": {"a": {"path": "b"}}}', {"runtimes": {"a": {"path": "b"}, "bind": {"path": "/w"}}}),
        ],
    )
    def test_it_is_added_and_taken_away(self, before: str, after: object) -> None:
        docker = Docker("daemon.json", "bind", "/w")
        added = docker.added(before)
        assert json.loads(added) == after
        assert docker.added(added) == added
        # A file without "runtimes" would let docker keep those that it knows over a reload.
        assert json.loads(docker.removed(added)) == {"runtimes": {}, **json.loads(before or "{}")}

    @pytest.mark.parametrize("text", ["{", "[]", '{"runtimes": []}', '{"a": 1, "a": 2}'])
    def test_what_is_no_valid_file_is_not_changed(self, text: str) -> None:
        with pytest.raises(DataError):
            Docker("daemon.json", "bind", "/w").added(text)

    def test_the_runtime_of_another_stays(self) -> None:
        docker = Docker("daemon.json", "bind", "/w")
        text = '{"runtimes": {"bind": {"path": "/other"}}}'
        with pytest.raises(UnavailableError, match='has another runtime "bind"'):
            docker.added(text)
        assert docker.removed(text) == text


class TestContainerd:
    @pytest.mark.parametrize("before", ["", DEBIAN, KUBEADM, LATEST], ids=["none", "Debian", "kubeadm", "2.3"])
    def test_it_is_added_and_taken_away(self, before: str) -> None:
        containerd = Containerd("config.toml", "bind", "/w", ["org.example/bind"])
        added = containerd.added(before)
        document = tomllib.loads(added)
        plugin = "io.containerd.cri.v1.runtime" if before in (KUBEADM, LATEST) else "io.containerd.grpc.v1.cri"
        options = {"BinaryName": "/w", **({"SystemdCgroup": True} if before in (KUBEADM, LATEST) else {})}
        assert document["plugins"][plugin]["containerd"]["runtimes"]["bind"] == {
            "runtime_type": "io.containerd.runc.v2",
            "pod_annotations": ["org.example/bind"],
            "container_annotations": ["org.example/bind"],
            "options": options,
        }
        assert added.startswith(before)
        assert containerd.added(added) == added
        assert tomllib.loads(containerd.removed(added)) == tomllib.loads(before or "version = 2")

    def test_runc_stays_where_no_runtime_was_named(self) -> None:
        """The CRI plugin does not load if the default runtime is not among those that are named."""
        one, two = (Containerd("config.toml", name, f"/{name}") for name in ("one", "two"))
        added = two.added(one.added(DEBIAN))
        runtimes = tomllib.loads(added)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
        assert list(runtimes) == ["runc", "one", "two"]
        left = one.removed(added)
        runtimes = tomllib.loads(left)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
        assert list(runtimes) == ["runc", "two"]
        assert two.removed(left) == DEBIAN

    def test_other_annotations_take_the_place_of_those_before(self) -> None:
        one = Containerd("config.toml", "bind", "/w", ["a"]).added(DEBIAN)
        two = Containerd("config.toml", "bind", "/w", ["b"])
        assert two.added(one) == two.added(DEBIAN)
        assert two.added(two.added(one)) == two.added(one)

    def test_it_goes_where_runc_has_been_changed_since(self) -> None:
        containerd = Containerd("config.toml", "bind", "/w")
        added = containerd.added(KUBEADM).replace("SystemdCgroup = true #", "SystemdCgroup = false #")
        assert containerd.removed(added).rstrip() == KUBEADM.replace("true #", "false #").rstrip()

    @pytest.mark.parametrize("more", ["    NoPivotRoot = true\n", "    [x.y]\n"])
    def test_a_table_that_somebody_has_added_to_stays(self, more: str) -> None:
        containerd = Containerd("config.toml", "bind", "/w")
        added = containerd.added(KUBEADM) + more
        left = containerd.removed(added)
        known = tomllib.loads(added)["plugins"]["io.containerd.cri.v1.runtime"]["containerd"]["runtimes"]
        if "NoPivotRoot" in known["bind"]["options"]:
            assert left == added
        else:
            assert tomllib.loads(left) == {**tomllib.loads(KUBEADM), "x": {"y": {}}}

    def test_without_an_annotation_none_is_handed_on(self) -> None:
        assert "annotations" not in Containerd("config.toml", "bind", "/w").added(DEBIAN)

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("version = ", "is not valid TOML"),
            (
                "disabled_plugins = []\n",
                "has version 1; only 2, 3 and 4 are supported [(]`containerd config migrate > NEW",
            ),
            ("version = 5\n", "has version 5; only 2, 3 and 4 are supported$"),
            (
                'version = 2\n[plugins]\n"io.containerd.grpc.v1.cri" = {a = 1}\n',
                "has tables in a form to which no table can be appended",
            ),
            (
                'version = 2\n[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.bind]\nruntime_type = "x"\n',
                'has another runtime "bind"',
            ),
        ],
    )
    def test_what_it_cannot_be_added_to_is_told(self, text: str, error: str) -> None:
        with pytest.raises((DataError, UnavailableError), match=error):
            Containerd("config.toml", "bind", "/w").added(text)


class Machine:
    """A machine with docker and containerd, whose files are below a folder; and the command line."""

    def __init__(self, folder: Path, programs: Path) -> None:
        self.folder = folder
        self.daemon, self.toml = folder / "daemon.json", folder / "config.toml"
        self.programs = programs
        for name in ("dockerd", "containerd", "runc", "runsc"):
            self.program(name)

    def program(self, name: str) -> Path:
        path = self.programs / name
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
        return path

    def install(self, *words: str) -> int:
        where = ("--prefix", str(self.folder), "--oci-runtime", str(self.programs / "runc"))
        return cli.main(["install", "--runtime", "bind", *where, *words, "--", "--mount", "src=/,dst=/a"])

    def uninstall(self, *words: str) -> int:
        return cli.main(["uninstall", "--prefix", str(self.folder), *words])


@pytest.fixture
def machine(tmp_path: Path, no_engines: Path) -> Machine:
    return Machine(tmp_path, no_engines)


def test_without_apply_it_is_told_and_nothing_is_changed(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert machine.install("--annotation", "org.example/bind=yes") == 0
    told = capfd.readouterr()
    assert not machine.daemon.exists()
    assert not machine.toml.exists()
    assert f"# Add this to {machine.daemon}, or let --apply do it. Then: systemctl reload docker\n" in told.out
    assert f"# Add this to {machine.toml}, or let --apply do it. Then: systemctl restart containerd\n" in told.out
    assert '  pod_annotations = ["org.example/bind"]\n' in told.out
    assert "to use it: docker run --runtime bind ..." in told.err


def test_one_engine_alone_is_told(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert machine.install("--apply", "--engine", "podman") == os.EX_USAGE
    assert "--engine: podman has no file that lists runtimes (known: docker, containerd)" in capfd.readouterr().err
    assert machine.install("--engine", "containerd") == 0
    assert str(machine.daemon) not in capfd.readouterr().out
    assert machine.install("--apply", "--engine", "containerd") == 0
    assert (machine.daemon.exists(), machine.toml.exists()) == (False, True)
    (machine.programs / "dockerd").unlink()
    assert machine.install("--apply", "--engine", "docker") == os.EX_UNAVAILABLE
    assert "--apply: docker is not installed (without --apply, install writes the wrapper" in capfd.readouterr().err


def test_with_apply_it_is_written_beside_a_copy_and_goes_again(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    machine.daemon.write_text('{"debug": true}')
    machine.daemon.chmod(0o600)
    machine.toml.write_text(DEBIAN)
    assert machine.install("--apply") == 0
    told = capfd.readouterr()
    assert f"replaced {machine.daemon}\n" in told.out
    assert "to activate it in docker: systemctl reload docker" in told.err
    assert "to activate it in containerd: systemctl restart containerd" in told.err
    assert (machine.folder / "daemon.json.before-oci-bind-hook").read_text() == '{"debug": true}'
    assert stat.S_IMODE(machine.daemon.stat().st_mode) == 0o600
    wrapper = machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind"
    assert json.loads(machine.daemon.read_text())["runtimes"] == {"bind": {"path": str(wrapper)}}
    assert machine.install("--apply") == 0
    assert machine.uninstall("--all", "--apply") == 0
    assert json.loads(machine.daemon.read_text()) == {"debug": True, "runtimes": {}}
    assert machine.toml.read_text() == DEBIAN
    assert not wrapper.exists()
    assert list(machine.folder.glob("*.before-oci-bind-hook")) == []


def test_a_file_that_apply_has_made_goes_or_says_that_no_runtime_is_left(machine: Machine) -> None:
    assert machine.install("--apply") == 0
    assert machine.install("--annotation", "a=b", "--apply") == 0
    assert machine.uninstall("--runtime", "bind", "--apply") == 0
    # No copy: nothing was there before the first of ours.
    assert sorted(path.name for path in machine.folder.iterdir() if path.is_file()) == ["daemon.json"]
    assert json.loads(machine.daemon.read_text()) == {"runtimes": {}}


def test_the_copy_is_of_what_was_there_before_the_first_of_ours(machine: Machine) -> None:
    copy = machine.folder / "daemon.json.before-oci-bind-hook"
    copy.write_text("of an installation that has gone")
    machine.daemon.write_text('{"a":   1}')
    assert machine.install("--apply") == 0
    assert copy.read_text() == '{"a":   1}'
    # What somebody changes in between is neither lost nor taken for what was there before.
    document = json.loads(machine.daemon.read_text())
    machine.daemon.write_text(json.dumps({**document, "b": 2}))
    assert machine.install("--annotation", "a=b", "--apply") == 0
    assert machine.uninstall("--runtime", "bind", "--apply") == 0
    assert copy.read_text() == '{"a":   1}'
    assert json.loads(machine.daemon.read_text()) == {"a": 1, "b": 2, "runtimes": {}}
    machine.daemon.unlink()
    assert machine.install("--apply") == 0
    assert not copy.exists()


def test_the_layout_comes_back_where_docker_forgets_the_runtime_by_it(machine: Machine) -> None:
    text = '{"runtimes":   {"kata": {"path": "/kata"}}}'
    machine.daemon.write_text(text)
    assert machine.install("--apply") == 0
    assert machine.uninstall("--runtime", "bind", "--apply") == 0
    assert machine.daemon.read_text() == text


def as_user(machine: Machine, call: Callable[[], int]) -> int:
    """The exit code of a call by an ordinary user, once it has been made by root: some modules may be only root's."""
    base, top = machine.programs.parent, Path(tempfile.gettempdir())
    for folder in (
        machine.folder,
        machine.programs,
        base,
        *(each for each in base.parents if each.is_relative_to(top) and each != top),
    ):
        folder.chmod(0o755)
    if not (pid := os.fork()):
        code = os.EX_SOFTWARE
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = call()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_an_ordinary_user_is_told_to_be_root(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert machine.install() == 0
    wrapper = machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind"
    calls = (lambda: machine.install("--annotation", "a=b"), lambda: machine.uninstall("--runtime", "bind"))
    for call in calls:
        capfd.readouterr()
        assert as_user(machine, call) == os.EX_OSERR
        told = capfd.readouterr().err
        assert "Permission denied (run it as root, or with folders of your own: --prefix ~/.local, " in told
        assert "security module" not in told
    assert wrapper.exists()


def test_a_prefix_of_ones_own_does_not_open_the_files_of_engines(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    """All or nothing: what engines' folders refuse is known before the first file is written."""
    assert machine.install() == 0
    own = machine.folder / "own"
    own.mkdir()
    os.chown(own, 65534, 65534)
    capfd.readouterr()
    assert as_user(machine, lambda: machine.install("--apply", "--prefix", str(own))) == os.EX_UNAVAILABLE
    said = f"{machine.daemon}: {machine.folder} is not writable (run it as root)\n"
    assert capfd.readouterr().err == f"oci-bind-hook: {said}"
    assert list(own.iterdir()) == []


def test_a_removed_runtime_that_is_still_named_is_told(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert machine.install("--apply") == 0
    assert machine.uninstall("--runtime", "bind") == 0
    told = capfd.readouterr().err
    assert f'{machine.daemon} still has the runtime "bind": remove it there' in told
    assert f'{machine.toml} still has the runtime "bind": remove it there' in told
    assert "running containers of a removed runtime can no longer be stopped through it" in told


def test_the_runtime_that_docker_starts_everything_with_stays(
    machine: Machine, capfd: pytest.CaptureFixture[str]
) -> None:
    assert machine.install("--apply") == 0
    document = json.loads(machine.daemon.read_text())
    machine.daemon.write_text(json.dumps({**document, "default-runtime": "bind"}))
    assert machine.uninstall("--runtime", "bind", "--apply") == os.EX_UNAVAILABLE
    assert '"default-runtime": "bind", so docker does not start without this runtime' in capfd.readouterr().err
    assert (machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind").exists()
    assert (machine.folder / "libexec/oci/hooks.d/oci-bind-hook").exists()


@pytest.mark.parametrize("line", ['default_runtime_name = "bind"', "'default_runtime_name'='bind' # ours"])
def test_the_runtime_that_containerd_starts_all_pods_with_stays(
    machine: Machine, capfd: pytest.CaptureFixture[str], line: str
) -> None:
    table = '[plugins."io.containerd.grpc.v1.cri".containerd]'
    machine.toml.write_text(f"version = 2\n{table}\n{line}\n")
    assert machine.install("--apply") == 0
    assert machine.uninstall("--all", "--apply") == os.EX_UNAVAILABLE
    assert 'default_runtime_name = "bind", so containerd starts no pod without this runtime' in capfd.readouterr().err
    assert (machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind").exists()
    machine.toml.write_text(machine.toml.read_text().replace(line, f"# {line}"))
    assert machine.uninstall("--all", "--apply") == 0


def test_what_cannot_be_applied_leaves_nothing(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    machine.daemon.symlink_to("elsewhere.json")
    assert machine.install("--apply") == os.EX_UNAVAILABLE
    assert f"{machine.daemon}: is a link, or not a regular file" in capfd.readouterr().err
    assert not (machine.folder / "libexec").exists()


@pytest.mark.parametrize("engine", [Docker, Containerd])
def test_what_stands_after_a_failure_is_told_and_taken_away(
    machine: Machine, engine: type[Settings], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.toml.write_text(DEBIAN)

    def fail(_: Settings) -> list[Change]:
        raise KernelError("write", "the file", OSError(errno.ENOSPC, "No space left on device"))

    with monkeypatch.context() as patch:
        patch.setattr(engine, "apply", fail)
        assert machine.install("--apply") == os.EX_OSERR
    wrapper = machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind"
    stands = [str(wrapper), *([str(machine.daemon)] if engine is Containerd else [])]
    told = capfd.readouterr().err
    assert (
        f"done so far: {' and '.join(stands)}; to remove it, run uninstall --prefix {machine.folder} --runtime bind "
        in told
    )
    assert [path for path in (str(wrapper), str(machine.daemon)) if os.path.exists(path)] == stands
    assert machine.install("--apply") == 0
    assert str(wrapper) in machine.toml.read_text()
    assert machine.uninstall("--runtime", "bind", "--apply") == 0
    assert (machine.toml.read_text(), json.loads(machine.daemon.read_text())) == (DEBIAN, {"runtimes": {}})


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--oci-runtime", "runc"], 64, '--oci-runtime: "runc" is not an absolute path'),
        (["--oci-runtime", "/absent"], 69, "--oci-runtime: /absent is not an executable file"),
        (["--oci-runtime", "{programs}/runsc"], 69, "no hook can mount into the sandbox of runsc"),
        (["--runtime", "runc"], 64, 'engines already have a runtime "runc"'),
        (["--runtime", "a b"], 64, '"a b" is not a valid name'),
        (["--command", "x"], 64, "--command: this option is for hooks.d; a runtime applies to all containers"),
        (["--name", "x"], 64, "--name: this option is for hooks.d"),
        (["--env", "A=b"], 64, "--env: this option requires --cdi"),
        (["--annotation", "x"], 64, '"x" is not KEY=VALUE'),
    ],
)
def test_what_makes_no_sense_is_refused(
    machine: Machine, capfd: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert machine.install(*(word.format(programs=machine.programs) for word in words)) == code
    assert said in capfd.readouterr().err
    assert not (machine.folder / "libexec").exists()


def test_what_somebody_has_changed_is_told_and_stays(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    machine.toml.write_text(DEBIAN)
    assert machine.install("--apply") == 0
    changed = f"{machine.toml.read_text()}    NoPivotRoot = true\n"
    machine.toml.write_text(changed)
    broken = machine.daemon.read_text().rstrip().removesuffix("}")
    machine.daemon.write_text(broken)
    capfd.readouterr()
    assert machine.uninstall("--runtime", "bind", "--apply") == 0
    told = capfd.readouterr().err
    assert machine.toml.read_text() == changed
    assert machine.daemon.read_text() == broken
    assert f'{machine.toml} still has the runtime "bind": remove it there' in told
    assert f"warning: {machine.daemon}: " in told


def test_docker_alone_where_containerd_has_no_cri(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    """As docker's own packages bring containerd's file."""
    machine.toml.write_text('disabled_plugins = ["cri"]\n')
    assert machine.install("--apply") == 0
    assert "containerd" not in capfd.readouterr().err
    assert machine.toml.read_text() == 'disabled_plugins = ["cri"]\n'
    assert "bind" in json.loads(machine.daemon.read_text())["runtimes"]
    (machine.programs / "dockerd").unlink()
    assert machine.install("--apply") == os.EX_UNAVAILABLE
    without_cri = f"containerd's CRI plugin is disabled in {machine.toml}"
    assert f"--apply: docker is not installed; {without_cri}\n" in capfd.readouterr().err
    assert machine.install("--apply", "--engine", "containerd") == os.EX_UNAVAILABLE
    assert f"--apply: {without_cri}\n" in capfd.readouterr().err
    # What is not used is not shown either.
    assert machine.install() == 0
    assert str(machine.toml) not in capfd.readouterr().out


@pytest.mark.parametrize("name", ["daemon", "toml"])
def test_a_file_that_is_not_utf8_stays(machine: Machine, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    file: Path = getattr(machine, name)
    data = b"version = 2 # \xff\r\n" if name == "toml" else b'{"a": "\xff"}'
    file.write_bytes(data)
    assert machine.install("--apply") == os.EX_DATAERR
    assert "is not UTF-8 at byte offset" in capfd.readouterr().err
    assert file.read_bytes() == data


class TestCheck:
    def check(self, machine: Machine, capfd: pytest.CaptureFixture[str]) -> tuple[int, str]:
        capfd.readouterr()
        code = cli.main(["install", "--check", "--prefix", str(machine.folder)])
        return code, capfd.readouterr().out

    def test_it_is_good_as_it_was_written(self, machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
        assert machine.install("--apply") == 0
        code, told = self.check(machine, capfd)
        assert (code, "problem: " in told) == (0, False)
        wrapper = f"{machine.folder}/libexec/oci/runtimes.d/oci-bind-hook-bind"
        called = f"runtime {wrapper} adds the hook at createRuntime, poststop, and calls {machine.programs}/runc; "
        assert f"{called}named by {machine.daemon}, {machine.toml}\n" in told
        assert cli.main(["install", "--check", "--prefix", str(machine.folder), "--format", "json"]) == 0
        document = json.loads(capfd.readouterr().out)
        assert oci.violations(document, "hooks-check") == []
        assert document["runtimes"] == [
            {
                "path": wrapper,
                "runtime": f"{machine.programs}/runc",
                "stages": ["createRuntime", "poststop"],
                "named": [str(machine.daemon), str(machine.toml)],
            }
        ]

    @pytest.mark.parametrize(
        ("gone", "said"),
        [
            ("{programs}/runc", "{programs}/runc does not exist"),
            (
                "libexec/oci/hooks.d/oci-bind-hook",
                "{folder}/libexec/oci/hooks.d/oci-bind-hook does not exist: run install again",
            ),
            (
                "libexec/oci/runtimes.d/oci-bind-hook-bind",
                "names the runtime {folder}/libexec/oci/runtimes.d/oci-bind-hook-bind, which does not exist",
            ),
        ],
    )
    def test_what_is_gone_is_told(
        self, machine: Machine, gone: str, said: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert machine.install("--apply") == 0
        (machine.folder / gone.format(programs=machine.programs)).unlink()
        said = said.format(folder=machine.folder, programs=machine.programs)
        code, told = self.check(machine, capfd)
        assert code == os.EX_DATAERR
        assert f"{said}: containers for which it is registered do not start\n" in told
        monkeypatch.setattr(runtimes, "FOLDERS", (f"{machine.folder}/libexec/oci/runtimes.d",))
        found = [each for each in doctor.examine() if each.name.startswith("runtimes in /")]
        assert any(each.is_problem and said in each.without for each in found)

    def test_a_runtime_that_has_become_a_wrapper_would_call_itself_for_ever(
        self, machine: Machine, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert machine.install() == 0
        runc = machine.programs / "runc"
        runc.write_text((machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind").read_text())
        code, told = self.check(machine, capfd)
        assert (code, f"{runc}, the runtime behind it, is a wrapper as well" in told) == (os.EX_DATAERR, True)

    @pytest.mark.parametrize("settings", ["[]", "{}", '{"runtime": 1, "hooks": {}, "annotations": {}}', "'", "x"])
    def test_a_wrapper_that_somebody_has_edited_is_none(self, tmp_path: Path, settings: str) -> None:
        file = tmp_path / "oci-bind-hook-x"
        file.write_text(f"#!/bin/sh\n{runtimes.MARK}\nobh_settings={settings}\n\n")
        assert runtimes.settings_of(str(file)) is None


def test_a_wrapper_wraps_no_wrapper(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert machine.install() == 0
    wrapper = machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind"
    for name in ("bind", "two"):
        assert machine.install("--runtime", name, "--oci-runtime", str(wrapper)) == os.EX_USAGE
        assert "is a wrapper as well" in capfd.readouterr().err


def test_it_is_listed_and_replaced_with_a_word(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    assert machine.install("--annotation", "a=b") == 0
    capfd.readouterr()
    assert cli.main(["install", "--list", "--prefix", str(machine.folder)]) == 0
    told = capfd.readouterr().out
    assert told.startswith("runtime bind: ")
    assert f"  wraps      {machine.programs}/runc\n" in told
    assert "  for        --annotation a=b\n" in told
    assert machine.install() == 0
    told = capfd.readouterr().out
    assert f"which registered --runtime bind --oci-runtime {machine.programs}/runc --annotation a=b --stages" in told


def test_a_file_of_any_size_keeps_every_byte(machine: Machine) -> None:
    """What was there is in the copy, as its owner left it: of the first, whatever is installed afterwards."""
    before = DEBIAN.encode().replace(b"\n", b"\r\n") + b"# a comment\r\n" * 100_000 + b'root = "/r"\r\n'
    before = b'root = "/r"\r\n' + before.replace(b'root = "/r"\r\n', b"")
    machine.toml.write_bytes(before)
    os.chown(machine.toml, 1234, 4321)
    assert machine.install("--apply") == 0
    assert machine.install("--annotation", "a=b", "--apply") == 0
    copy = machine.folder / "config.toml.before-oci-bind-hook"
    assert copy.read_bytes() == before
    assert machine.toml.read_bytes().startswith(before.rstrip())
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (copy, machine.toml)} == {(1234, 4321)}


@pytest.mark.parametrize("how", ["a link", "a byte order mark"])
def test_the_default_of_a_file_that_is_not_ours_to_change_stays_as_well(
    machine: Machine, capfd: pytest.CaptureFixture[str], how: str
) -> None:
    assert machine.install() == 0
    text = json.dumps({"default-runtime": "bind"})
    if how == "a link":
        (machine.folder / "elsewhere.json").write_text(text)
        machine.daemon.symlink_to("elsewhere.json")
    else:
        machine.daemon.write_text(f"\ufeff{text}")
    assert machine.uninstall("--runtime", "bind") == os.EX_UNAVAILABLE
    assert '"default-runtime": "bind", so docker does not start without this runtime' in capfd.readouterr().err
    assert (machine.folder / "libexec/oci/runtimes.d/oci-bind-hook-bind").exists()


def test_several_at_once_lose_nothing(machine: Machine) -> None:
    machine.toml.write_text(DEBIAN)
    names = [f"r{number}" for number in range(4)]
    runtimes_of = [
        [Docker(str(machine.daemon), name, f"/{name}"), Containerd(str(machine.toml), name, f"/{name}")]
        for name in names
    ]
    pids = []
    for each in runtimes_of:
        if not (pid := os.fork()):
            for one in each:
                one.apply()
            os._exit(0)
        pids.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
    assert sorted(json.loads(machine.daemon.read_text())["runtimes"]) == names
    assert all(f'BinaryName = "/{name}"' in machine.toml.read_text() for name in names)


def test_what_an_uninstall_has_left_goes_with_the_next(machine: Machine) -> None:
    assert machine.install("--apply") == 0
    assert machine.uninstall("--runtime", "bind") == 0
    assert machine.uninstall("--runtime", "bind", "--apply") == 0
    assert "oci-bind-hook-bind" not in machine.daemon.read_text()
    assert not machine.toml.exists()
    assert machine.uninstall("--runtime", "bind", "--apply") == os.EX_NOINPUT


def test_more_than_a_process_can_be_given_is_refused(machine: Machine, capfd: pytest.CaptureFixture[str]) -> None:
    many = [word for number in range(1500) for word in ("--mount", f"src=/srv/models/{number},dst=/models/{number}")]
    words = [
        "install",
        "--runtime",
        "bind",
        "--prefix",
        str(machine.folder),
        "--oci-runtime",
        f"{machine.programs}/runc",
    ]
    assert cli.main([*words, "--", *many]) == os.EX_UNAVAILABLE
    assert "an argument of a process is limited to 131072 (use patterns as sources)" in capfd.readouterr().err
    assert not (machine.folder / "libexec").exists()


@pytest.mark.parametrize("text", ["version = []\n", "a = " + "[" * 100_000])
def test_odd_toml_is_refused_in_one_line(machine: Machine, capfd: pytest.CaptureFixture[str], text: str) -> None:
    machine.toml.write_text(text)
    assert machine.install("--apply") == os.EX_DATAERR
    assert capfd.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("stages", ["", "createContainer,poststop"])
def test_a_wrapper_of_an_ordinary_user_is_for_createcontainer(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], stages: str
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert machine.install(*(["--stages", stages] if stages else [])) == 0
    told = "the hook can bind only at createContainer: add --stages createContainer,poststop\n"
    assert (told in capfd.readouterr().err) == (not stages)
