# SPDX-License-Identifier: Apache-2.0
"""What is given to people, made and installed as they do: the source, the wheel, a Debian package and a single file."""

from __future__ import annotations

import email
import glob
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.podman import configured, covered, isolated

if TYPE_CHECKING:
    from collections.abc import Mapping

PROJECT = Path(__file__).resolve().parents[2]
WRAPPER = "/usr/local/libexec/oci/runtimes.d/oci-bind-hook-b"
DEFAULT_RUNTIME = f'{{"runtimes": {{"b": {{"path": "{WRAPPER}"}}}}, "default-runtime": "b"}}'
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def pythons() -> dict[str, str]:
    """The Pythons of this machine that the hook is for, each version once: this one, and what lies in known places."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}": sys.executable}
    for minor in range(11, 20):
        name = f"python3.{minor}"
        for path in (
            f"/usr/bin/{name}",
            *sorted(glob.glob(os.path.expanduser(f"~/.pyenv/versions/3.{minor}.*/bin/{name}"))),
        ):
            if os.path.exists(path) and os.path.exists(headers(path)):
                found.setdefault(f"3.{minor}", path)
    return found


def headers(python: str) -> str:
    """What python-prctl is built with; empty for a Python that does not work."""
    script = "import sysconfig; print(sysconfig.get_path('include') + '/Python.h')"
    return subprocess.run([python, "-IS", "-c", script], capture_output=True, text=True, check=False).stdout.strip()


def run(*words: object, folder: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, cwd=folder, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def project(folder: Path) -> Path:
    """A copy of the project, as if it had been cloned, to build in."""
    folder.mkdir()
    script = 'tar -C "$1" --exclude="./.?*" --exclude=__pycache__ --exclude="*.egg-info" -c . | tar -C "$2" -x'
    run("sh", "-c", script, "sh", PROJECT, folder)
    for name, text in ((".git/HEAD", COMMIT), (".ci/run", "#!/bin/sh\n")):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text(text)
    return folder


def binds(launcher: str, folder: Path) -> bool:
    """Whether a container of crun has what the hook is told to bind, and nothing is left of it."""
    (folder / "source").mkdir(parents=True)
    (folder / "source/word").write_text("hello\n")
    arguments = ["--mount", f"src={folder}/source,dst=/new,ro", "--root", f"{folder}/state"]
    hook = {"path": launcher, "args": ["oci-bind-hook", *arguments], "env": ["PATH=/usr/bin"]}
    bundle = support.bundle(
        folder / "b", ["/bin/cat", "/new/word"], hooks={"createRuntime": [hook], "poststop": [hook]}
    )
    done = support.run_container("crun", bundle, "c1")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout == "hello\n" and not os.path.exists(f"{folder}/b/rootfs/new")


@pytest.fixture
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source and the wheel, the one made of the other: by the first test that asks, each being a process."""
    folder = tmp_path_factory.getbasetemp() / "dist"
    if not list(folder.glob("*.whl")):
        folder.mkdir(exist_ok=True)
        run(sys.executable, "-m", "build", "-q", "-o", folder, project(folder / "project"))
    return folder


def test_the_source_has_all_that_is_needed(dist: Path) -> None:
    [path] = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = {
        os.path.relpath(os.path.join(folder, name), dist / "project")
        for folder, _, files in os.walk(dist / "project")
        for name in files
    }
    beside = {name for name in tracked if name.startswith((".git", "hook/oci_bind_hook.egg-info", "build/"))}
    assert sorted(tracked - names - beside) == []
    assert "hook/oci_bind_hook/schemas/state.json" in names
    assert [name for name in names if name.endswith((".pyc", "~"))] == []


def test_the_metadata_says_who_made_it_under_which_licence_and_for_which_pythons(dist: Path) -> None:
    [wheel] = dist.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        told = email.message_from_bytes(archive.read(name))
    assert (told["Author"], told["License-Expression"]) == ("the oci-bind-hook contributors", "Apache-2.0")
    assert (told["Requires-Python"], told["Description-Content-Type"]) == (">=3.11", "text/markdown")
    named = [each.rpartition(" :: ")[2] for each in told.get_all("Classifier", ()) if " :: Python :: 3." in each]
    # The matrix: each has run all tests.
    tables = (PROJECT / "docs/RUNTIMES.md").read_text()
    assert named == sorted(set(re.findall(r"^\| runc \S+, crun \S+ \|.*\| (3\.\d+) \|$", tables, re.MULTILINE)))


@pytest.mark.parametrize("version", pythons())
def test_the_wheel_works_where_it_is_installed(version: str, dist: Path, tmp_path: Path) -> None:
    [wheel] = dist.glob("*.whl")
    run(pythons()[version], "-m", "venv", "--without-pip", tmp_path / "venv")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", tmp_path / "venv/bin/python"]
    run(*pip, "install", "-q", wheel)
    command = tmp_path / "venv/bin/oci-bind-hook"
    told = run(command, "--version", folder=Path("/"))
    assert f"commit: {COMMIT}\nPython: {version}." in told
    launcher, _ = run(command, "install", "--prefix", tmp_path / "prefix").splitlines()
    assert binds(launcher.removeprefix("wrote "), tmp_path / "world")
    # What is wrong is worded by jsonschema.
    (tmp_path / "config.json").write_text('{"ociVersion": 1}')
    done = subprocess.run([command, "validate", tmp_path / "config.json"], capture_output=True, text=True, check=False)
    assert (done.returncode, "must be of type string" in done.stdout) == (65, True)
    share = tmp_path / "venv/share"
    assert {str(path.relative_to(share)) for path in share.rglob("*") if path.is_file()} == {
        "bash-completion/completions/oci-bind-hook",
        "fish/vendor_completions.d/oci-bind-hook.fish",
        "man/man5/oci-bind-hook-state-file.5",
        "man/man8/oci-bind-hook.8",
        "zsh/site-functions/_oci-bind-hook",
    }
    for page in share.glob("man/*/*"):
        done = subprocess.run(["groff", "-man", "-ww", "-Tascii", page], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
        assert re.search(r"oci-bind-hook.{0,20} - ", done.stdout)


def test_the_single_file_does_what_the_package_does(tmp_path: Path) -> None:
    file = tmp_path / "a file/oci-bind-hook.pyz"
    file.parent.mkdir()
    run(sys.executable, project(tmp_path / "project") / "hook/packages/onefile.py", file)
    for name in (file, file.parent):
        assert name.stat().st_mode & 0o555 == 0o555
    assert f"commit: {COMMIT}\n" in run(file, "--version", folder=Path("/"))
    assert "ok      python-prctl: " in run(file, "doctor")
    # It is a hook, and so is what it installs.
    assert binds(str(file), tmp_path / "one")
    launcher, _ = run(file, "install", "--prefix", tmp_path / "prefix").splitlines()
    assert binds(launcher.removeprefix("wrote "), tmp_path / "two")
    (tmp_path / "config.json").write_text('{"ociVersion": 1}')
    done = subprocess.run([file, "validate", tmp_path / "config.json"], capture_output=True, text=True, check=False)
    assert (done.returncode, "must be of type string" in done.stdout) == (65, True)
    for version, python in list(pythons().items())[1:]:
        done = subprocess.run([python, file, "--version"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (os.EX_UNAVAILABLE, "")
        assert re.fullmatch(rf"oci-bind-hook: this file is for Python [\d.]+, not for {version}\.\S+\n", done.stderr)


def test_the_debian_package_installs_works_and_goes(tmp_path: Path) -> None:
    run(project(tmp_path / "project") / "hook/packages/debian", tmp_path, env={**os.environ, "PATH": support.PATH})
    [package] = tmp_path.glob("*.deb")
    assert run("lintian", "--fail-on", "error", "--tag-display-limit", "0", "--no-cfg", package) == ""
    rootfs = support.busybox_rootfs(tmp_path / "rootfs")
    (tmp_path / "source").mkdir()
    (tmp_path / "source/word").write_text("hello\n")
    left = (
        "/usr/lib/oci-bind-hook /usr/bin/oci-bind-hook /usr/share/containers/oci/hooks.d/* /usr/libexec/oci/hooks.d/* "
        "/etc/cdi/oci-bind-hook* /opt/site"
    )
    # As in the recipe, where more follows.
    script = f"cd {PROJECT} && . hook/packages/common.sh && before_removal && echo true"
    (tmp_path / "preun").write_text(run("sh", "-c", script))
    lines = [
        covered(tmp_path / "over", "/usr", "/var", "/etc", "/opt"),
        f"dpkg -i {package} >&2",
        "dpkg --verify oci-bind-hook",
        "oci-bind-hook --version",
        "gzip -dc /usr/share/man/man8/oci-bind-hook.8.gz | groff -man -Tascii | head -n 1",
        f"oci-bind-hook install --prefix /usr -- --mount src={tmp_path}/source,dst=/new,ro >&2",
        f"podman run --rm --rootfs {rootfs} cat /new/word",
        f"bash -c 'echo {left}'",
        # Each registration goes with it.
        "oci-bind-hook install --prefix /usr --name other >&2",
        # Of any prefix, as long as a registration calls its launcher.
        "oci-bind-hook install --prefix /opt/site --cdi x >&2",
        # Without its default runtime docker would not start: neither dpkg nor rpm goes on then, and nothing has gone.
        "oci-bind-hook install --runtime b --oci-runtime /usr/bin/crun >&2",
        "mkdir -p /etc/docker",
        f"echo '{DEFAULT_RUNTIME}' >/etc/docker/daemon.json",
        # What is before it in PATH is another program.
        "printf '#!/bin/sh\\nexit 0\\n' >/usr/local/bin/oci-bind-hook && chmod 755 /usr/local/bin/oci-bind-hook",
        "export PATH=/usr/local/bin:$PATH",
        f"for each in 'dpkg -r oci-bind-hook' 'sh {tmp_path}/preun'; do if $each; then exit 1; fi >&2; done",
        "ls /opt/site/libexec/oci/hooks.d /etc/cdi/oci-bind-hook-x.json >&2",
        "rm /etc/docker/daemon.json",
        # What this package did not install stays, and does not keep it from going.
        "mkdir -p /usr/local/libexec/oci/hooks.d",
        "echo '#!/bin/sh' >/usr/local/libexec/oci/hooks.d/oci-bind-hook",
        "dpkg -r oci-bind-hook >&2",
        "cat /usr/local/libexec/oci/hooks.d/oci-bind-hook",
        f"bash -O nullglob -c 'for each in {left}; do [ ! -e $each ] || echo left: $each; done'",
    ]
    script = "\n".join(lines)
    done = isolated(script, {**configured(tmp_path), "PATH": support.PATH, "TMPDIR": "/tmp"}, tmp_path)
    version, commit, python, _, page, seen, there, foreign = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert (version, commit) == ("oci-bind-hook 0.2.0", f"commit: {COMMIT}")
    assert python.startswith("Python: 3.")
    assert page.startswith("OCI-BIND-HOOK(8)")
    assert (seen, foreign) == ("hello", "#!/bin/sh")
    assert there == left.replace("*", "oci-bind-hook.json", 1).replace("*", "oci-bind-hook", 1)
