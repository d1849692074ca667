# SPDX-License-Identifier: Apache-2.0
"""Containers of podman by name, by id and by OCIConfigPath, in each state: what explain answers, with which code."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.podman import LIMITS, OPTIONS, ROOTLESS_LIMITS, configured, isolated
from oci_bind_hook.commands.engines.cdi_file import Devices
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.commands.engines.registration import CDI_KIND

from .test_podman_rootless import Shell
from .test_rootless import Rootless, give

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAST_START = "config.json is the one of the last start: podman writes a new one at the next start"
NO_POSTSTOP = "config.json: /hooks: poststop is not registered: mount points and state files would stay"


class Told:
    """What one explain said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.err = err
        self.report: Any = json.loads(out) if out else None

    @property
    def problems(self) -> list[tuple[str, int]]:
        return [(problem["message"], problem["exit"]) for problem in self.report["problems"]]

    def ours(self, source: str) -> list[tuple[str | None, bool | None]]:
        """Where the binds of a source lead to, and whether they are there now."""
        return [(mount["resolved"], mount["now"]) for mount in self.report["mounts"] if mount["source"] == source]


class Desk:
    """podman with a storage of its own and an image, and the hook in a hooks.d folder or as a CDI device."""

    def __init__(self, folder: Path, launcher: str, driver: str) -> None:
        self.folder = folder
        self.launcher = launcher
        self.source = str(folder / "source")
        (folder / "source").mkdir()
        self.environment = configured(folder)
        for name, old, new in (
            ("storage.conf", '"vfs"', f'"{driver}"'),
            ("containers.conf", "[engine]\n", f'[engine]\nhooks_dir = ["{folder}/hooks.d"]\n'),
        ):
            text = (folder / name).read_text()
            assert old in text
            (folder / name).write_text(text.replace(old, new))
        rootfs = support.busybox_rootfs(folder / "rootfs")
        subprocess.run(["tar", "-C", rootfs, "-cf", folder / "image.tar", "."], check=True)
        (folder / "hooks.d").mkdir()
        self.lines = [
            # An overlay cannot be on another one, which may be below all tests.
            f"mkdir {folder}/storage; mount -t tmpfs tmpfs {folder}/storage",
            f"podman import -q {folder}/image.tar image >/dev/null",
        ]

    @property
    def words(self) -> list[str]:
        return ["--mount", f"src={self.source},dst=/absolute/models", "--root", f"{self.folder}/state"]

    def explain(self, name: str, word: str, *options: str) -> None:
        self._ask(name, "explain", word, *options)

    def check(self, name: str, word: str) -> None:
        self._ask(name, "install --check", word, f"--hooks-dir={self.folder}/hooks.d")

    def _ask(self, name: str, asked: str, word: str, *options: str) -> None:
        command = f"{shlex.quote(self.launcher)} {asked} {word} {shlex.join(options)} --format=json"
        to = shlex.quote(f"{self.folder}/{name}")
        self.lines.append(f"code=0; {command} >{to}.out 2>{to}.err || code=$?; echo $code >{to}.code")

    def run(self) -> None:
        done = isolated("\n".join(self.lines), self.environment, self.folder)
        assert done.returncode == 0, done.stderr

    def told(self, name: str) -> Told:
        code, out, err = ((self.folder / f"{name}.{kind}").read_text() for kind in ("code", "out", "err"))
        return Told(int(code), out, err)


CREATE = f"podman create --name %s {' '.join(LIMITS)} %s image %s >/dev/null"


@pytest.mark.parametrize("driver", ["vfs", "overlay"])
def test_each_state_of_a_container(tmp_path: Path, launcher: str, driver: str) -> None:
    desk = Desk(tmp_path, launcher, driver)
    install(str(tmp_path / "prefix"), (), desk.words, hooks_dir=f"{tmp_path}/hooks.d")
    lines = desk.lines
    lines.append(CREATE % ("web", "", "sleep 1000"))
    desk.explain("created", "web")
    desk.explain("created, by id", "$(podman ps -aq)")
    desk.check("created, checked", "web")
    lines.append("podman init web")
    desk.explain("initialized", "web")
    lines.append("podman start web")
    desk.explain("running", "web")
    desk.explain("by the beginning of its id", "$(podman ps -q --filter name=web)")
    desk.check("checked", "web")
    desk.check("checked by the beginning of its id", "$(podman ps -q --filter name=web)")
    desk.explain("by its id", "$(podman inspect --format '{{.Id}}' web)")
    desk.explain("by its file", "$(podman inspect --format '{{.OCIConfigPath}}' web)")
    lines.append("podman kill web; podman wait web || true")
    desk.explain("ended", "web")
    desk.explain("ended, with another fault", "web", "--mount=src=/absent,dst=/x", "--mount=src=/gone,dst=/y,optional")
    lines.append("podman mount web >/dev/null")
    desk.explain("mounted", "web")
    lines.append(f"podman umount web; mv {desk.source} {desk.source}.away; ! podman start web 2>/dev/null")
    desk.explain("refused", "web")
    lines.append(f"mv {desk.source}.away {desk.source}; " + CREATE % ("bad", "", "nosuchprogram"))
    lines.append("! podman start bad 2>/dev/null")
    desk.explain("failed", "bad")
    lines.append(f"rm {tmp_path}/hooks.d/*; " + CREATE % ("other", "", "true") + "; podman start --attach other")
    desk.explain("not registered", "other")
    lines.append("podman rm -fa >/dev/null")
    desk.explain("removed", "web")
    desk.run()

    for name in ("created", "created, by id", "created, checked"):
        told = desk.told(name)
        assert (told.code, told.report) == (66, None)
        assert "because it was never started (run `podman init " in told.err
    assert "run `podman init web`, which writes it and runs the hooks" in desk.told("created").err
    for name in ("checked", "checked by the beginning of its id"):
        told = desk.told(name)
        [hook] = told.report["hooks"]
        assert (told.code, told.err, hook["matches"], hook["because"]) == (0, "", True, "always"), name
        assert told.report["bundle"].endswith("/userdata")
    for name in ("initialized", "running", "by the beginning of its id", "by its id", "by its file"):
        told = desk.told(name)
        assert (told.code, told.err, told.problems) == (0, "", []), name
        assert told.ours(desk.source) == [("/real/models", True)]
        assert (told.report["running"]["recorded"], NO_POSTSTOP in told.report["warnings"]) == (True, False)
    assert "podman knows the container as web, status: running" in desk.told("running").report["notes"]
    assert len({desk.told(name).report["id"] for name in ("running", "by its id")}) == 1

    # The copies of vfs are there all the time. An overlay is not, and that is no fault of the bundle.
    unmounted = [] if driver == "vfs" else [69]
    target = "/real/models" if driver == "vfs" else None
    told = desk.told("ended")
    assert (told.code, [code for _, code in told.problems]) == (*(unmounted or [0]), unmounted)
    assert told.ours(desk.source) == [(target, None)]
    assert "podman knows the container as web, status: exited with 137" in told.report["notes"]
    for name in ("running", "ended", "mounted"):
        assert (LAST_START in desk.told(name).report["notes"]) == (name != "running"), name
    told = desk.told("ended, with another fault")
    assert (told.code, [code for _, code in told.problems]) == (66, [66, *unmounted])
    assert "(and " not in told.report["verdict"]
    assert told.problems[0][0] == "the source /absent cannot be opened: No such file or directory"
    if driver == "overlay":
        problem = told.report["problems"][-1]
        assert "merged is not mounted now, so the hook cannot resolve the destinations" in problem["message"]
        assert problem["hint"] == "podman mounts it before it calls the hook; `podman mount web` does it now"
    assert (desk.told("mounted").code, desk.told("mounted").ours(desk.source)) == (0, [("/real/models", None)])
    told = desk.told("refused")
    assert (told.code, told.problems[0][0]) == (
        66,
        f"the source {desk.source} cannot be opened: No such file or directory",
    )
    told = desk.told("failed")
    assert (told.code, [code for _, code in told.problems]) == (*(unmounted or [os.EX_CANTCREAT]), unmounted)
    assert "podman knows the container as bad, status: created: its last start failed" in told.report["notes"]
    told = desk.told("not registered")
    assert (told.code, told.problems, told.report["registered"]) == (0, [], [])
    told = desk.told("removed")
    assert (told.code, 'the container "web" is not known' in told.err) == (66, True)
    assert (
        "; for a podman with --root, pass the path that its `inspect --format '{{.OCIConfigPath}}'` prints" in told.err
    )


REGISTERED: Mapping[str, tuple[tuple[str, ...], bool, bool]] = {
    # By which stages, whether as a device, and whether nobody calls poststop.
    "hooks.d": (("createRuntime", "poststop"), False, False),
    "a device": (("createRuntime", "poststop"), True, False),
    "a device without poststop": (("createRuntime",), True, True),
    "hooks.d without poststop": (("createRuntime",), False, True),
}


@pytest.mark.parametrize("case", REGISTERED)
def test_poststop_is_missed_where_nobody_calls_it(tmp_path: Path, launcher: str, case: str) -> None:
    stages, is_device, is_missing = REGISTERED[case]
    desk = Desk(tmp_path, launcher, "vfs")
    # In folders that podman reads by itself: what it was told by --hooks-dir, nobody else knows.
    (tmp_path / "hooks.d").rmdir()
    text = (tmp_path / "containers.conf").read_text()
    (tmp_path / "containers.conf").write_text(
        "".join(line + "\n" for line in text.splitlines() if "hooks_dir" not in line)
    )
    folder = "/run/cdi" if is_device else "/usr/share/containers/oci/hooks.d"
    desk.lines.append("mkdir -p /run/cdi; mount -t tmpfs tmpfs /usr/share/containers")
    desk.lines.append(f"mkdir -p {folder}; cp {tmp_path}/registered/* {folder}/")
    registered = f"{tmp_path}/registered"
    where: dict[str, Any] = {"instead": Devices(["models"], registered, ())} if is_device else {"hooks_dir": registered}
    install(str(tmp_path / "prefix"), stages, desk.words, **where)
    device = f"--device={CDI_KIND}=models" if is_device else ""
    desk.lines.append(CREATE % ("web", device, "true"))
    desk.lines.append("podman start --attach web")
    desk.explain("web", "web")
    desk.lines.append("podman rm -fa >/dev/null")
    desk.run()
    told = desk.told("web")
    assert (told.code, told.ours(desk.source)) == (0, [("/real/models", None)]), told.err
    assert (NO_POSTSTOP in told.report["warnings"]) == is_missing
    # Its own registration leaves something behind, or nothing, and that is what was said.
    left = [name for name in (tmp_path / "state").iterdir() if name.suffix == ".json"]
    assert bool(left) == is_missing


VISIBLE = "runs; its binds are visible only in the user namespace in which it was recorded"


def test_an_ordinary_user(tmp_path: Path, launcher: str) -> None:
    world = Rootless(tmp_path, launcher)
    image = str(world.path / "image.tar")
    subprocess.run(["tar", "-C", world.rootfs, "-cf", image, "."], check=True)
    words = ["--mount", f"src={world.source},dst=/new/place"]
    install(str(world.path / "prefix"), (), words, hooks_dir=f"{world.path}/hooks.d")
    give(world.path)
    storage = "--storage-opt=overlay.ignore_chown_errors=true"
    podman = ["podman", "--storage-driver=overlay", storage, *OPTIONS]
    explain = [launcher, "explain", "--format=json"]
    shell = Shell(world)
    shell.add("import", *podman, "import", "--quiet", image, "image")
    run = [*podman, f"--hooks-dir={world.path}/hooks.d", "run", "--detach", "--name=web", *ROOTLESS_LIMITS]
    shell.add("run", *run, "image", "sleep", "1000")
    shell.add("outside", *explain, "web")
    shell.add("inside", *podman, "unshare", *explain, "web")
    check = [launcher, "install", "--check", f"--hooks-dir={world.path}/hooks.d", "--format=json", "web"]
    shell.add("checked", *check)
    shell.add("checked, inside", *podman, "unshare", *check)
    shell.add("attach", launcher, "attach", "web", "--dry-run", "--format=json", *words)
    shell.add("list", launcher, "list")
    shell.add("show", "sh", "-c", f"{shlex.quote(launcher)} show $({shlex.join([*podman, 'ps', '-q'])})")
    shell.add("gc", launcher, "gc")
    shell.add("list, inside", *podman, "unshare", launcher, "list")
    shell.add("kill", *podman, "kill", "web")
    shell.add("wait", *podman, "wait", "web")
    shell.add("ended", *explain, "web")
    shell.add(
        "mounted",
        *podman,
        "unshare",
        "sh",
        "-c",
        f"{shlex.join([*podman, 'mount', 'web'])} >&2 && {shlex.join([*explain, 'web'])}",
    )
    # The hook has no XDG_RUNTIME_DIR, whoever asks, and the folder that it takes instead is a file.
    shell.lines.append(f"rm -r {world.state}; touch {world.state}")
    shell.add("refused", *podman, f"--hooks-dir={world.path}/hooks.d", "start", "--attach", "web")
    asked = (
        f"XDG_RUNTIME_DIR={world.path} {shlex.join(explain)} {world.path}/.local/share/containers/storage/*/*/userdata"
    )
    shell.add("refused, outside", "sh", "-c", asked)
    shell.add("refused, inside", *podman, "unshare", "sh", "-c", asked)
    shell.run()
    for name in ("import", "run", "kill"):
        assert shell.told(name)[0] == 0, shell.told(name)
    assert "exit code: 74" in shell.told("refused")[2]
    for name in ("refused, outside", "refused, inside"):
        told = Told(*shell.told(name))
        assert (told.code, told.problems[0]) == (
            74,
            (f"the state folder {world.state} cannot be opened: File exists", 74),
        ), name
    for name in ("checked", "checked, inside"):
        told = Told(*shell.told(name))
        [hook] = told.report["hooks"]
        assert (told.code, told.err, hook["matches"], hook["because"]) == (0, "", True, "always"), name
    hints = {
        "outside": "run podman unshare oci-bind-hook explain web",
        "ended": "podman mounts it before it calls the hook; "
        "`podman mount web`, in a shell of `podman unshare`, does it now",
    }
    for name, hint in hints.items():
        told = Told(*shell.told(name))
        assert told.code == 69, told.err
        [problem] = told.report["problems"]
        assert problem["hint"] == hint
        there = "merged is mounted only in another mount namespace, that of process "
        assert (there in problem["message"]) == (name == "outside")
        assert told.ours(str(world.source)) == [(None, None)]
    advice = [problem["hint"] for problem in Told(*shell.told("attach")).report["problems"]]
    assert "run podman unshare oci-bind-hook attach web --dry-run --mount ..." in advice, advice
    code, out, err = shell.told("show")
    assert (code, err, "  run podman unshare oci-bind-hook show " in out) == (0, "", True), out
    for name, now in (("inside", True), ("mounted", None)):
        told = Told(*shell.told(name))
        assert (told.code, told.problems, told.ours(str(world.source))) == (0, [], [("/new/place", now)]), told.err
    code, out, err = shell.told("list")
    assert (code, err, VISIBLE in out, "  run podman unshare oci-bind-hook list\n" in out) == (0, "", True, True), out
    assert re.search(r"  alive +[0-9]+ (?:s|min)  \? of 1  \? of 2  ", out), out
    code, out, err = shell.told("gc")
    assert (code, err, "  kept  its first process " in out, VISIBLE in out) == (0, "", True, True), out
    code, out, err = shell.told("list, inside")
    assert (code, err) == (0, "")
    assert re.search(r"  alive +[0-9]+ (?:s|min)  1 of 1  2 of 2  ", out), out
