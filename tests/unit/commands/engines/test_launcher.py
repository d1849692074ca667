# SPDX-License-Identifier: Apache-2.0
"""The launcher: what it can be made of, and that it starts, isolated, with everything that the hook needs."""

from __future__ import annotations

import inspect
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import oci_bind_hook
from helpers import support
from oci_bind_hook import cli as real_cli
from oci_bind_hook.commands.engines import launcher as launchers
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKAGE = os.path.dirname(os.path.abspath(oci_bind_hook.__file__))


def run(launcher: str | Path, *arguments: str, closed: Sequence[int] = ()) -> subprocess.CompletedProcess[str]:
    """Start a launcher from a folder and an environment that try to be imported from."""
    redirections = " ".join(f"{fd}>&-" for fd in closed)
    return subprocess.run(
        ["sh", "-c", f'cd /; exec "$@" {redirections}', "sh", launcher, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": support.PATH, "PYTHONPATH": "/tmp", "PYTHONSTARTUP": "/dev/null", "PYTHONHOME": "/tmp"},
    )


def launcher_for(folder: Path, cli: str | None) -> Path:
    """A launcher for a copy of the package whose ``cli`` module is this source text, or is missing.

    What calls the ``main`` of such a text is the real thing.
    """
    package = folder / "site" / "oci_bind_hook"
    shutil.copytree(PACKAGE, package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "cli.py").unlink(missing_ok=True)
    if cli is not None and "def main(argv)" in cli:
        cli = f"from __future__ import annotations\nimport posix, sys\n{cli}\n{inspect.getsource(real_cli.console)}"
    if cli is not None:
        (package / "cli.py").write_text(cli)
    folders = [str(package.parent) if one == os.path.dirname(PACKAGE) else one for one in launchers.import_folders()]
    launcher = folder / "launcher"
    launcher.write_text(launchers.launcher_text(sys.executable, folders))
    launcher.chmod(0o755)
    return launcher


@pytest.mark.parametrize("interpreter", ["/opt/my python/python3", "/opt/python3\t", "/opt/a\nb/python3", " /python3"])
def test_an_interpreter_that_no_shebang_can_name_is_refused(interpreter: str) -> None:
    with pytest.raises(UnavailableError, match=r"^interpreter '.*': "):
        launchers.launcher_text(interpreter, [])


@pytest.mark.parametrize("interpreter", ["", "python3", "bin/python3"])
def test_an_interpreter_that_is_not_absolute_is_refused(interpreter: str) -> None:
    with pytest.raises(UnavailableError, match=r"its path is not absolute$"):
        launchers.launcher_text(interpreter, [])


def test_the_first_line_has_at_most_127_bytes() -> None:
    longest = "/" + "p" * (127 - len("#!/ -IS"))
    assert len(launchers.launcher_text(longest, []).splitlines()[0]) == 127
    with pytest.raises(UnavailableError, match=r"too long"):
        launchers.launcher_text(longest + "p", [])
    with pytest.raises(UnavailableError, match=r"too long"):
        launchers.launcher_text(longest[:-1] + "ä", [])


def test_every_folder_that_holds_a_dependency_of_a_dependency_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {
        "a/jsonschema": ["Else.Where>=1", "never_there; python_version < '3'", "unasked; extra == 'format'"],
        "b/else_where": ["jsonschema"],
        "c/unasked": [],
    }
    for place, requirements in installed.items():
        folder, name = place.split("/")
        information = tmp_path / folder / f"{name}-99.dist-info"
        information.mkdir(parents=True)
        lines = ["Metadata-Version: 2.1", f"Name: {name}", "Version: 99"]
        lines += [f"Requires-Dist: {requirement}" for requirement in requirements]
        (information / "METADATA").write_text("\n".join(lines))
        monkeypatch.syspath_prepend(str(tmp_path / folder))
    folders = launchers.import_folders()
    assert folders[:3] == [os.path.dirname(PACKAGE), str(tmp_path / "a"), str(tmp_path / "b")]
    assert str(tmp_path / "c") not in folders


def test_the_launcher_imports_from_the_standard_library_first_and_from_no_relative_folder(tmp_path: Path) -> None:
    launcher = launcher_for(tmp_path, "import sys\ndef main(argv):\n    print(*sys.path, sep='\\n')\n    return 0\n")
    path = run(launcher).stdout.splitlines()
    standard = path.index(os.path.dirname(os.__file__))
    assert standard < path.index(str(tmp_path / "site"))
    assert all(os.path.isabs(folder) for folder in path)
    assert "/tmp" not in path
    assert os.path.dirname(os.path.abspath(launcher)) not in path
    assert len(set(path)) == len(path)


def test_the_launcher_finds_the_dependencies_and_writes_no_byte_code(tmp_path: Path) -> None:
    launcher = launcher_for(tmp_path, "import jsonschema, prctl, site\ndef main(argv):\n    return 0\n")
    done = run(launcher)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "site/oci_bind_hook/__pycache__").exists()


def test_the_launcher_is_isolated(tmp_path: Path) -> None:
    facts = "print(sys.flags.isolated, sys.flags.no_site, 'site' in sys.modules, argv)"
    launcher = launcher_for(tmp_path, f"import sys\ndef main(argv):\n    {facts}\n    return 5\n")
    done = run(launcher, "poststop", "--debug")
    assert done.stdout == "1 1 False ['poststop', '--debug']\n"
    assert done.returncode == 5


BROKEN = {
    "a missing module": (None, "ModuleNotFoundError: No module named 'oci_bind_hook.cli'"),
    "a syntax error": ("def main(:\n", "SyntaxError: invalid syntax (cli.py, line 1)"),
    "a missing dependency": ("import jsonschema.no_such_module\n", "ModuleNotFoundError: No module named 'jsonschema."),
    "a missing name": ("mein = 1\n", "ImportError: cannot import name 'console' from 'oci_bind_hook.cli'"),
    "several lines": ("raise OSError('one\\ntwo\\udcff')\n", "OSError: one two\\udcff"),
    "an exit": ("raise SystemExit(0)\n", "SystemExit: 0"),
}


@pytest.mark.parametrize(("cli", "reason"), BROKEN.values(), ids=BROKEN)
def test_a_broken_installation_is_one_line_and_exit_70(cli: str | None, reason: str, tmp_path: Path) -> None:
    done = run(launcher_for(tmp_path, cli))
    assert done.returncode == 70
    assert done.stdout == ""
    assert done.stderr.startswith(f"oci-bind-hook: the installation is broken: {reason}")
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("\n")


def test_a_removed_package_is_one_line_and_exit_70(tmp_path: Path) -> None:
    launcher = launcher_for(tmp_path, "")
    shutil.rmtree(tmp_path / "site")
    # An editable install is not found either: -S reads no .pth file.
    done = run(launcher)
    assert (done.returncode, done.stderr) == (
        70,
        "oci-bind-hook: the installation is broken: ModuleNotFoundError: No module named 'oci_bind_hook'\n",
    )


@pytest.mark.parametrize("closed", [(2,), (0, 1, 2)])
def test_a_broken_installation_with_stderr_closed_is_exit_70(closed: tuple[int, ...], tmp_path: Path) -> None:
    done = run(launcher_for(tmp_path, None), closed=closed)
    assert (done.returncode, done.stdout, done.stderr) == (70, "", "")


def test_a_good_run_with_everything_closed_keeps_its_code(tmp_path: Path) -> None:
    assert run(launcher_for(tmp_path, "def main(argv):\n    return 3\n"), closed=(0, 1, 2)).returncode == 3


def test_output_that_cannot_be_written_is_exit_74(tmp_path: Path) -> None:
    launcher = launcher_for(tmp_path, "def main(argv):\n    print('plan')\n    return 0\n")
    with open("/dev/full", "w") as full:
        done = subprocess.run([launcher], stdout=full, stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (74, b"")


def test_the_installed_launcher_starts_the_hook(tmp_path: Path) -> None:
    launcher, _ = install(str(tmp_path))
    done = run(launcher, "--version")
    assert done.returncode == 0, done.stderr
    assert oci_bind_hook.__version__ in done.stdout


def test_a_virtual_environment_is_known_with_what_deletes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert launchers.home() == ("", "")
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    assert launchers.home() == (str(tmp_path), "rm -r")
    (tmp_path / "uv-receipt.toml").touch()
    assert launchers.home() == (str(tmp_path), "uv tool uninstall")
    (tmp_path / "pipx_metadata.json").touch()
    assert launchers.home() == (str(tmp_path), "pipx uninstall")


@pytest.mark.parametrize("line", ['["/a", "/b"]', "[1]", "{}", '"/a"', "[", "[[]]"])
def test_a_note_of_folders_that_somebody_has_edited_is_not_followed(line: str, tmp_path: Path) -> None:
    path = tmp_path / "launcher"
    path.write_text(
        f"#!/bin/sh\n{launchers.MARK}\n# Folders that it made, which uninstall removes if they are empty: {line}\n"
    )
    assert launchers.folders_made(str(path)) == (["/a", "/b"] if "/b" in line else [])
    path.write_text("#!/bin/sh\n# another\n")
    assert launchers.folders_made(str(path)) == launchers.folders_made(str(tmp_path / "none")) == []


def test_an_interpreter_that_is_no_path_does_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "hook"
    path.write_bytes(b"#!/usr/bin/pyth\0on3 -IS\n")
    path.chmod(0o755)
    assert launchers.fault(str(path)).startswith("/usr/bin/pyth\0on3, the interpreter in the first line of ")


def test_another_program_is_not_to_be_installed_again(tmp_path: Path) -> None:
    ours, other = tmp_path / "oci-bind-hook", tmp_path / "other"
    for path in (ours, other):
        path.write_text("#!/gone/python3\n")
        path.chmod(0o755)
    for path, step in ((ours, ": run install again"), (other, "")):
        problem = f"/gone/python3, the interpreter in the first line of {path}, does not exist"
        assert launchers.fault(str(path)) == problem + step


def test_a_pipe_is_no_launcher_and_nothing_is_read_from_it(tmp_path: Path) -> None:
    path = str(tmp_path / "hook")
    os.mkfifo(path, 0o755)
    fd = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    os.write(fd, b"#!/deleted/python\n")
    assert launchers.fault(path) == f"{path} is not a file"
    assert launchers.interpreter_of(path) == ""
    assert not launchers.is_launcher(path)
    assert os.read(fd, 100) == b"#!/deleted/python\n"
    os.close(fd)
