# SPDX-License-Identifier: Apache-2.0
"""The manual's walks for podman lead to the cause: their commands, as they stand there, by root and by a user."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import mounting, support
from helpers.podman import ISOLATED, UNIFIED, configured
from oci_bind_hook.commands.engines.launcher import import_folders

from .test_rootless import FOLDER, UID, give

PAGE = (Path(__file__).resolve().parents[2] / "hook/man/oci-bind-hook.8.md").read_text(encoding="utf-8")
HOOKS_D = "/usr/share/containers/oci/hooks.d"

OWN = {"/proc": "proc", "/sys": "sysfs", "/dev": "tmpfs", "/dev/pts": "devpts"}


def steps(title: str) -> list[str]:
    """The commands of a walk, one for each numbered step."""
    [walk] = re.findall(rf"^### {title}\n(.*?)^###", PAGE, re.DOTALL | re.MULTILINE)
    found = re.findall(r"^(\d)\. `(.+?)`", walk, re.MULTILINE)
    assert [number for number, _ in found] == re.findall(r"^(\d)\. ", walk, re.MULTILINE)
    return [command for _, command in found]


class Walker:
    """One who has podman, an image, and a registration for each container that names it in an annotation."""

    def __init__(self, folder: Path, launcher: str, user: int) -> None:
        self.folder, self.user = folder, user
        self.lines: list[str] = []
        # An overlay cannot be on another one, which may be below all tests.
        for path in ("/run", "/usr/share/containers", str(folder)):
            mounting.tmpfs(path, "mode=755")
        mounting.show(str(folder), sys.base_prefix, *import_folders(), str(Path(launcher).parents[3]))
        for name in ("source", "bin", "told"):
            (folder / name).mkdir()
        (folder / "bin/oci-bind-hook").symlink_to(launcher)
        for name, source in (("link", "source"), ("gone", "absent")):
            where = ["--prefix", str(folder / "prefix"), "--hooks-dir", HOOKS_D, "--name", name]
            asked = ["--annotation", f"for={name}", "--", "--mount", f"src={folder}/{source},dst=/dangling"]
            subprocess.run([launcher, "install", *where, *asked], check=True, capture_output=True)
        rootfs = support.busybox_rootfs(folder / "rootfs")
        subprocess.run(["tar", "-C", rootfs, "-cf", folder / "image.tar", "."], check=True)
        self.environment = {"HOME": str(folder), "PATH": f"{folder}/bin:{support.PATH}", **configured(folder)}
        if user:
            self._as_user()
        self.add("rest", "podman import -q image.tar image")

    def _as_user(self) -> None:
        self.environment["XDG_RUNTIME_DIR"] = str(FOLDER)
        conf, storage = self.folder / "containers.conf", self.folder / "storage.conf"
        conf.write_text(conf.read_text().replace("[containers]\n", '[containers]\ncgroups = "disabled"\n'))
        # One id is enough for it here: no package must be installed for more.
        ignored = '[storage.options.overlay]\nignore_chown_errors = "true"\n'
        storage.write_text(storage.read_text().replace('"/run/', f'"{FOLDER}/') + ignored)
        FOLDER.mkdir(parents=True)
        FOLDER.chmod(0o700)
        give(self.folder)
        give(FOLDER)

    def add(self, name: str, command: str, container: str = "web") -> None:
        """A command for a container. What it tells goes to the file of that name, its exit code last."""
        command = re.sub(r"\bweb\b", container, command)
        self.lines.append(f"{{ {command}; echo $?; }} >>'told/{name}' 2>&1")

    def walk(self) -> None:
        """Carry all out, in a pid namespace that takes all it leaves with it."""
        storage = self.folder / "storage.conf"
        storage.write_text(storage.read_text().replace('"vfs"', '"overlay"'))
        (self.folder / "walk.sh").write_text("\n".join(self.lines))
        settings = [f"{key}={value}" for key, value in self.environment.items()]
        words = [*support.as_user(self.user), "env", "-i", *settings, "sh", "walk.sh"]
        script = f"{UNIFIED}; cd {shlex.quote(str(self.folder))}; {shlex.join(words)}; exit $?"
        subprocess.run([*ISOLATED, "sh", "-c", script], check=True, timeout=support.TIMEOUT, stdin=subprocess.DEVNULL)

    def told(self, name: str) -> tuple[str, str]:
        """What a command told, and its exit code."""
        text, _, code = (self.folder / "told" / name).read_text().rstrip("\n").rpartition("\n")
        return text, code


@pytest.mark.parametrize("user", [0, UID])
def test_a_walk_leads_to_the_cause(tmp_path: Path, launcher: str, user: int) -> None:
    walker = Walker(tmp_path, launcher, user)
    explain, init, mount, check, run = steps("podman")
    if user:
        explain, init, mount, check = steps("podman, rootless")
    for name in ("link", "gone"):
        walker.add("rest", f"podman create --name {name} --annotation for={name} image true")
        walker.add("rest", f"podman start --attach {name}")
    walker.add("rest", "podman create --name other image sleep 1000")
    for name in ("link", "gone", "other"):
        walker.add(name, explain, name)
    walker.add("link, mounted", mount if user else f"{mount} && {explain}", "link")
    walker.add("other, init", init, "other")
    walker.add("other, again", explain, "other")
    walker.add("other, checked", check, "other")
    run = run.replace("IMAGE", "image true").replace("/tmp/", f"{tmp_path}/")
    walker.add("run", run.replace(" run ", " run --annotation for=gone "))
    walker.add("rest", "podman rm -fa -t 0")
    walker.walk()

    # The destination is a link to nothing: where it leads is seen where the rootfs is.
    text, code = walker.told("link")
    assert ("merged is not mounted now" in text, code) == (True, "69"), text
    text, code = walker.told("link, mounted")
    assert code == "0", text
    assert f"bind       {tmp_path}/source on /absent/place\n" in text
    assert "  link     /dangling -> /absent/place\n  create   folder /absent\n" in text
    # A source is missing: told by the first command, and by crun if it is asked to.
    cause = f"--mount 1: the source {tmp_path}/absent cannot be opened: No such file or directory"
    text, code = walker.told("gone")
    assert (text.splitlines()[0], code) == (f"problem    {cause}", "66")
    assert "so         the real run would exit with 66 and change nothing" in text.splitlines()
    text, _ = walker.told("run")
    assert ("(exit code: 66)" in text, cause in text) == (True, False)
    assert (tmp_path / "hook.err").read_text().endswith(f" createRuntime: {cause}\n")
    # No condition is met: the container was never started, then has no hook, and that is why.
    text, code = walker.told("other")
    assert ("because it was never started (run `podman init other`, which writes it" in text, code) == (True, "66"), (
        text
    )
    assert walker.told("other, init")[1] == "0"
    assert "registered not in config.json" in walker.told("other, again")[0].splitlines()
    text, code = walker.told("other, checked")
    lines = [line for line in text.splitlines() if line.startswith("hook ")]
    assert (lines, code) == (
        [
            f'hook {HOOKS_D}/oci-bind-hook-{name}.json is not called: no annotation has a name that matches "^for$"'
            for name in ("gone", "link")
        ],
        "65",  # because of the source that is missing
    )
    assert f"the source {tmp_path}/absent cannot be opened: No such file or directory" in text
    # It is the command that explain names.
    assert " applies to this container, run oci-bind-hook install --check /" in walker.told("other, again")[0]


def test_the_example_of_a_tree_is_what_is_printed(launcher: str) -> None:
    [example] = re.findall(r"^    \$ oci-bind-hook (explain \S+ --format tree .*(?:\n+    .*)+)", PAGE, re.MULTILINE)
    command, _, expected = example.replace(" \\\n       ", "").partition("\n")
    mounting.tmpfs("/srv", "mode=755")
    for name in ("models", "bundle/rootfs/bin", "bundle/rootfs/real"):
        Path("/srv", name).mkdir(parents=True)
    Path("/srv/bundle/rootfs/link").symlink_to("/real")
    program = Path("/srv/bundle/rootfs/bin/sh")
    program.write_bytes(b"\x7fELF")
    program.chmod(0o755)
    config = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/sh"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "rootfs"},
        "mounts": [{"destination": path, "type": kind, "source": kind} for path, kind in OWN.items()],
        "linux": {"namespaces": [{"type": "mount"}]},
    }
    Path("/srv/bundle/config.json").write_text(json.dumps(config))
    done = subprocess.run(
        [launcher, *shlex.split(command)],
        env={"PATH": support.PATH, "LC_ALL": "C"},
        capture_output=True,
        text=True,
        check=False,
        timeout=support.TIMEOUT,
    )
    assert (done.stdout, done.returncode, done.stderr) == (re.sub("^    ", "", expected + "\n", flags=re.M), 66, "")
