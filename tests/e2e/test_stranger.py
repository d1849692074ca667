# SPDX-License-Identifier: Apache-2.0
"""A stranger's way: what the README says, typed word by word; and ways to get it wrong, each told what is wrong."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.podman import Podman, configured, covered, isolated

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).resolve().parents[2]
COMMAND = os.path.join(os.path.dirname(sys.executable), "oci-bind-hook")


class Stranger(Podman):
    """Somebody with podman, a folder to bind, and the installed command."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.source = folder / "models"
        self.source.mkdir()
        (self.source / "word").write_text("hello\n")
        self.hooks = folder / "hooks.d"
        self.registration = self.hooks / "oci-bind-hook.json"
        self.launcher = folder / "prefix/libexec/oci/hooks.d/oci-bind-hook"
        self.destination = Path(self.rootfs) / "data/models"
        self.log = folder / "log"

    def hook(self, *words: object) -> str:
        """What the command prints, and its exit code."""
        done = subprocess.run([COMMAND, *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
        return f"{done.stdout}{done.stderr}(exit code: {done.returncode})"

    def install(self, *options: object, mount: str = "") -> str:
        own = ("--prefix", self.folder / "prefix", "--hooks-dir", self.hooks, *options)
        given = ("--mount", f"src={self.source},dst=/data/models{mount}", "--root", self.folder / "state")
        return self.hook("install", *own, "--", *given, "--log", self.log)

    def check(self, *words: object) -> str:
        return self.hook("install", "--check", "--hooks-dir", self.hooks, *words)

    def start(self, *options: str, prepare: str = "") -> str:
        """What a container, podman and the hook's log say."""
        done = self.run([str(self.hooks)], "/bin/cat", "/data/models/word", options=options, prepare=prepare)
        log = self.log.read_text() if self.log.exists() else ""
        return f"{done.stdout}{done.stderr}{log}"


@pytest.fixture
def stranger(tmp_path: Path) -> Stranger:
    one = Stranger(tmp_path)
    assert one.install().endswith("(exit code: 0)")
    return one


def source_missing(one: Stranger) -> str:
    shutil.rmtree(one.source)
    return one.start()


def not_executable(one: Stranger) -> str:
    one.launcher.chmod(0o644)
    assert "error executing hook" in one.start()
    return one.check()


def python_moved(one: Stranger) -> str:
    moved, count = re.subn(r"\A#!\S+ ", "#!/opt/moved/bin/python3 ", one.launcher.read_text())
    assert count == 1
    one.launcher.write_text(moved)
    assert "error executing hook" in one.start()
    return one.check()


def package_moved(one: Stranger) -> str:
    one.launcher.write_text(re.sub(r"^sys.path \+= .*", "", one.launcher.read_text(), flags=re.MULTILINE))
    done = subprocess.run([one.launcher], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return f"{one.start()}{done.stderr}"


def folder_not_read(one: Stranger) -> str:
    assert "can't open" in one.run([], "/bin/cat", "/data/models/word").stderr
    return f"{one.install()}{one.check()}"


def annotation_missing(one: Stranger) -> str:
    one.install("--annotation", "models=yes")
    assert "can't open" in one.start()
    bundle = support.bundle(one.folder / "bundle", ["/bin/true"], rootfs=one.rootfs, annotations={"models": "no"})
    return one.check(bundle)


def broken_neighbour(one: Stranger) -> str:
    (one.hooks / "another.json").write_text('{"version": "1.0.0"')
    assert "hello" not in one.start()
    return one.check()


def env_missing(one: Stranger) -> str:
    one.registration.write_text(re.sub(r'"env": \[[^]]*\],', "", one.registration.read_text()))
    return one.check()


def poststop_missing(one: Stranger) -> str:
    one.install("--stages", "createRuntime")
    assert "hello" in one.start()
    told = f"{one.check()}\n{one.hook('list', '--root', one.folder / 'state')}"
    assert one.destination.exists()
    # podman's pids are those of a namespace that is gone, by which gc takes nobody for dead: it says what to call.
    advice = re.search(r"^  if it has ended: (echo '.*' \| )oci-bind-hook (poststop .*)$", told, re.MULTILINE)
    assert advice is not None, told
    subprocess.run(f"{advice[1]}{COMMAND} {advice[2]}", shell=True, check=True)
    assert not one.destination.exists()
    return told


def read_only_image(one: Stranger) -> str:
    one.install("--stages", "createContainer,poststop")
    assert "hello" in one.start()  # and podman has made what it needs
    one.log.unlink()
    image = f"{one.folder}/image"
    prepare = (
        f"mkdir {image} && mount -t tmpfs image {image} && cp -a {one.rootfs}/. {image} && mkdir -p {image}/var/tmp && "
    )
    one.rootfs = image
    return one.start("--read-only", prepare=f"{prepare} mount -o remount,ro {image};")


def destination_is_a_file(one: Stranger) -> str:
    one.destination.touch()
    return one.start()


def misspelt(one: Stranger) -> str:
    return one.install(mount=",readonl")


def shared_destination(one: Stranger) -> str:
    (one.folder / "volume/models").mkdir(parents=True)
    volume = f"{one.folder}/volume"
    prepare = f"mount --bind {volume} {volume}; mount --make-shared {volume};"
    return one.start(f"--volume={volume}:/data:rshared", prepare=prepare)


# What each of them is told: words that lead to the cause.
BREAKS: dict[Callable[[Stranger], str], tuple[str, ...]] = {
    source_missing: (
        r"exit code: 66\)",
        r"--mount 1: the source \S+/models cannot be opened: No such file or directory",
    ),
    not_executable: (r"/hook/path: \S+/oci-bind-hook is not executable", r"exit code: 65\)"),
    python_moved: (
        r"/opt/moved/bin/python3, the interpreter in the first line of .*, does not exist: run install again",
        r"exit code: 65\)",
    ),
    package_moved: (r"exit code: 70\)", r"the installation is broken: ModuleNotFoundError: .*oci_bind_hook"),
    folder_not_read: (
        r"read \S+/hooks.d only if their hooks_dir contains it",
        r"hooks.d: engines read it only if their hooks_dir lists it",
    ),
    annotation_missing: (r"is not called: .*models", r"exit code: 0\)"),
    broken_neighbour: (r"^problem: \S+/another.json: .*start no container", r"exit code: 65\)"),
    env_missing: (
        r"/hook/env: the hook's env is missing or empty: some runtimes then pass the image's variables",
        r"set one variable, such as \"env\": \[\"PATH=.*\"\], as `install` does",
        r"exit code: 65\)",
    ),
    poststop_missing: (
        r"/stages: has no poststop: created mount points .* stay",
        r"its first process \d+ is in a pid namespace .*\n +if it has ended: echo '.*' \| oci-bind-hook poststop",
    ),
    read_only_image: (r"exit code: 71\)", r"--mount 1: .*/data/models.*Read-only file system"),
    destination_is_a_file: (r"exit code: 78\)", r"--mount 1: the source is a folder, but /data/models is a file"),
    misspelt: (r'"readonl" is not known \(did you mean "readonly"\?\)', r"exit code: 78\)"),
    shared_destination: (
        r"exit code: 77\)",
        r"/data/models is below a mount that is shared with the host.*--allow-shared",
    ),
}


@pytest.mark.parametrize("broken", BREAKS, ids=lambda each: each.__name__)
def test_what_is_said_leads_to_the_cause(broken: Callable[[Stranger], str], stranger: Stranger) -> None:
    told = broken(stranger)
    assert [text for text in BREAKS[broken] if not re.search(text, told, re.MULTILINE)] == [], told


def blocks(heading: str) -> list[list[str]]:
    """The indented blocks of a section of the README, as lines."""
    readme = (PROJECT / "README.md").read_text(encoding="utf-8")
    [text] = re.findall(rf"^## {re.escape(heading)}\n(.*?)^## ", readme, re.MULTILINE | re.DOTALL)
    found = re.findall(r"(?:^(?:    .*)?\n)+", text, re.MULTILINE)
    return [[line[4:] for line in each.splitlines() if line] for each in found if each.strip()]


def test_the_readme_works_as_it_is_written(tmp_path: Path) -> None:
    (install, *lines), afterwards, *_ = blocks("Quick start")
    packages = install.removeprefix("apt-get update && apt-get install ").split()
    shown = ["dpkg-query", "-W", "-f", "${db:Status-Status}\n", *packages]
    states = subprocess.run(shown, capture_output=True, text=True, check=True).stdout.split()
    assert states == ["installed"] * len(packages)
    for name in ("hook", "schemas"):
        shutil.copytree(PROJECT / name, tmp_path / name, symlinks=True)
    for name in ("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml"):
        shutil.copy(PROJECT / name, tmp_path / name)
    rootfs = support.busybox_rootfs(tmp_path / "rootfs")
    # The folders that the commands write to are this test's own; the rest of the machine shows through.
    prepare = f"{covered(tmp_path / 'over', '/usr', '/opt', '/srv')} tar -C {rootfs} -c . | podman import -q - busybox"
    script = "\n".join([prepare, "set -x", *lines, "echo then", *afterwards])
    done = isolated(script, {**configured(tmp_path), "TMPDIR": "/tmp"}, tmp_path)
    first, _, then = done.stdout.partition("\nthen\n")
    assert first.splitlines()[-1] == "hello from the host", done.stderr
    assert "kernel" in then, done.stderr
    assert "hook /usr/share/containers/oci/hooks.d/oci-bind-hook.json is for createRuntime, poststop" in then
    # Below them stand the folders that are empty then, which depends on what else this machine has there.
    files = "/usr/share/containers/oci/hooks.d/oci-bind-hook.json\nremoved /usr/libexec/oci/hooks.d/oci-bind-hook\n"
    assert f"removed {files}" in then, then
    assert done.returncode == 0, done.stderr


def test_what_the_readme_does_for_mpi_is_so(tmp_path: Path) -> None:
    shown, *_ = blocks("What `-v` cannot do")
    typed = [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
    prepare = covered(tmp_path / "over", "/usr", "/opt")
    for image in ("solver", "tools"):
        rootfs = support.busybox_rootfs(tmp_path / image)
        library = Path(rootfs, "usr/lib")
        library.mkdir(parents=True, exist_ok=True)
        (library / "os-release").touch()
        if image == "solver":
            (library / "mpi").symlink_to("/opt/vendor/mpi-4.1/lib")
            Path(rootfs, "opt/vendor/mpi-4.1/lib").mkdir(parents=True)
            Path(rootfs, "opt/vendor/mpi-4.1/lib/libmpi.so").write_text("of the image\n")
        prepare += f"tar -C {rootfs} -c . | podman import -q - {image}; "
    prepare += (
        "mkdir -p /opt/mpi/lib; for one in libmpi.so libmpi_cxx.so; do echo built by the site >/opt/mpi/lib/$one; done"
    )
    script = [f"{prepare}; echo then", *(f"echo {shlex.quote(f'$ {line}')}; {line}" for line in typed)]
    path = f"{os.path.dirname(COMMAND)}:{os.environ['PATH']}"
    done = isolated("\n".join(script), {**configured(tmp_path), "TMPDIR": "/tmp", "PATH": path}, tmp_path)
    assert done.stdout.partition("\nthen\n")[2].splitlines() == shown, done.stderr
    assert done.returncode == 0
