# SPDX-License-Identifier: Apache-2.0
"""A broken hook is named by doctor, and turned off by the commands of docs/ENGINES.md, which need no Python."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from oci_bind_hook import cli
from oci_bind_hook.commands.engines import launcher
from oci_bind_hook.commands.engines.install import install
from oci_bind_hook.commands.engines.wrapper_file import Wrapper

if TYPE_CHECKING:
    from helpers.world import World

PAGE = Path(__file__).resolve().parents[2] / "docs/ENGINES.md"
PREFIX = "    prefix=/usr/local\n"
# The indented blocks of the page: for the launcher, and for wrappers.
COMMANDS = [
    PREFIX * (PREFIX not in block) + block
    for block in re.findall(r"\n\n((?:    .+\n)+)\n", PAGE.read_text(encoding="utf-8"))
    if "/oci-bind-hook" in block
]


def turn_off(world: World) -> None:
    """The commands of the page, for a prefix of the test, in a shell that finds no Python."""
    for command in COMMANDS:
        if "runtimes.d" not in command or (world.path / "p/libexec/oci/runtimes.d").is_dir():
            script = command.replace(PREFIX, f"prefix={world.path}/p\n")
            subprocess.run(["/bin/sh", "-ec", script], env={"PATH": str(tools(world))}, check=True)


def tools(world: World) -> Path:
    folder = world.path / "tools"
    if not folder.exists():
        folder.mkdir()
        for name in ("sed", "grep", "mkdir", "chmod"):
            (folder / name).symlink_to(f"/bin/{name}")
    return folder


def delete_python(path: str) -> None:
    """What the launcher or the wrapper was written for has gone."""
    file = Path(path)
    file.write_text(file.read_text().replace(sys.executable, "/deleted/bin/python"))


def options(world: World) -> list[str]:
    return ["--mount", f"src={world.source},dst=/new", *world.root_option()]


def test_the_page_has_a_command_for_each_file() -> None:
    assert ["hooks.d" in each for each in COMMANDS] == [True, False]
    assert ["runtimes.d" in each for each in COMMANDS] == [False, True]


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_the_launcher_is_turned_off_and_repaired_by_install(world: World, runtime: str) -> None:
    path, _ = install(str(world.path / "p"), (), options(world))
    hook = {"path": path, "args": ["oci-bind-hook", *options(world)], "env": ["PATH=/usr/bin:/bin"]}
    hooks = {"createRuntime": [hook], "poststop": [hook]}
    bundle = support.bundle(world.path / "bundle", ["sh", "-c", "cat /new/word; echo runs"], hooks=hooks)

    def runs() -> str:
        return support.run_container(runtime, bundle, "c1").stdout

    assert runs() == "hello from the host\nruns\n"
    delete_python(path)
    assert "runs" not in runs()
    assert launcher.fault(path).startswith("/deleted/bin/python, the interpreter in the first line of ")
    turn_off(world)
    assert runs() == "runs\n"
    turned_off = f"{path} has been turned off, and binds nothing: run install again"
    assert launcher.fault(path) == turned_off
    shutil.rmtree(world.path / "p/libexec")
    assert "runs" not in runs()
    turn_off(world)
    assert runs() == "runs\n"
    assert launcher.fault(path) == turned_off
    assert install(str(world.path / "p"), (), options(world))[0].action == "replaced"
    assert launcher.fault(path) == ""
    assert runs() == "hello from the host\nruns\n"


def delete_package(path: str) -> None:
    file = Path(path)
    file.write_text(re.sub(r"(?m)^sys.path \+= .*$", "sys.path += ['/deleted']", file.read_text()))


FAULTS = {
    "python": (delete_python, "needs /deleted/bin/python: it does not exist"),
    "package": (delete_package, "requires the package in /deleted, which was removed; install it, then run install"),
    "mode": (lambda path: Path(path).chmod(0o644), "is not executable"),
    "file": (lambda path: Path(path).unlink(), "does not exist"),
}


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_explain_foresees_that_a_broken_launcher_keeps_the_container_from_starting(
    world: World, runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    def explained(bundle: str) -> tuple[int, list[str], list[str]]:
        capfd.readouterr()
        code = cli.main(["explain", bundle, "--format=json"])
        found = json.loads(capfd.readouterr().out)
        refused = [f"{each['where']}: {each['message']} ({each['hint']})" for each in found["runtime"]]
        return code, refused, [each for each in found["warnings"] if "poststop" in each or "turned off" in each]

    where = "config.json: /hooks/createRuntime/0/path"
    advice = (
        "run install again; until then, the section Break glass in docs/ENGINES.md says how containers start without it"
    )
    for name, (harm, said) in FAULTS.items():
        path, _ = install(str(world.path / name), (), options(world))
        hook = {"path": path, "args": ["oci-bind-hook", *options(world)], "env": ["PATH=/usr/bin:/bin"]}
        hooks = {"createRuntime": [hook], "poststop": [hook]}
        bundle = support.bundle(world.path / f"bundle-{name}", ["echo", "runs"], hooks=hooks)
        assert explained(bundle) == (0, [], [])
        harm(path)
        code, [refused], [warning] = explained(bundle)
        if name == "file":
            assert warning == f"config.json: /hooks/poststop/0/path: {path} does not exist: run install again"
        assert code == 73
        assert refused.startswith(f"{where}: {path} {said}")
        assert refused.endswith(f" ({advice})")
        assert warning.startswith("config.json: /hooks/poststop/0/path: ")
        assert support.run_container(runtime, bundle, name).stdout == ""


def explained(capfd: pytest.CaptureFixture[str], bundle: str, how: str = "json", *words: str) -> str:
    capfd.readouterr()
    assert cli.main(["explain", bundle, f"--format={how}", *words]) == 0
    return capfd.readouterr().out


def test_explain_says_that_nothing_is_bound_if_the_launcher_is_turned_off(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    path, _ = install(str(world.path / "p"), (), options(world))
    bundle = ""
    # Neither a source that does not exist nor invalid options make a hook fail that does nothing.
    for words in (options(world), ["--mount", "src=/absent,dst=/new"], ["--mont"], ["createContainer"]):
        hook = {"path": path, "args": ["oci-bind-hook", *words], "env": ["PATH=/usr/bin:/bin"]}
        bundle = support.bundle(world.path / "bundle", ["true"], hooks={"createRuntime": [hook], "poststop": [hook]})
        turn_off(world)
        said = f"{path} has been turned off, and binds nothing: run install again"
        so = "nothing would be bound: the launcher is turned off"
        text = explained(capfd, bundle, "text")
        assert f"warning    config.json: /hooks/createRuntime/0/path: {said}\n" in text
        assert f"so         {so}\n" in text
        assert "\nbind" not in text
        tree = explained(capfd, bundle, "tree")
        assert tree.endswith(f"\n{so}\n")
        assert "new" not in tree
        report = json.loads(explained(capfd, bundle))
        assert (report["verdict"], report["stage"]) == (so, "createRuntime")
        assert report["mounts"] == []
    # Options of the command line are not those of the hook that is turned off.
    asked = json.loads(explained(capfd, bundle, "json", "--mount", f"src={world.source},dst=/etc"))
    assert asked["verdict"].startswith("ready: 1 bind; ")


def test_explain_plans_the_entry_whose_launcher_is_not_turned_off(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks = []
    for name in ("p", "other"):
        path, _ = install(str(world.path / name), (), options(world))
        words = ["--mount", f"src={world.source},dst=/{name}", *world.root_option()]
        hooks.append({"path": path, "args": ["oci-bind-hook", *words], "env": ["PATH=/usr/bin:/bin"]})
    turn_off(world)
    bundle = support.bundle(world.path / "bundle", ["true"], hooks={"createRuntime": hooks, "poststop": hooks})
    report = json.loads(explained(capfd, bundle))
    assert [mount["resolved"] for mount in report["mounts"]] == ["/other"]
    assert report["options"] == "config.json: /hooks/createRuntime/1"
    assert report["verdict"] == "ready: 1 bind, 1 folder to create; 2 warnings"


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_binds_from_before_the_launcher_was_turned_off_are_named(
    world: World, runtime: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path, _ = install(str(world.path / "p"), (), options(world))
    hook = {"path": path, "args": ["oci-bind-hook", *options(world)], "env": ["PATH=/usr/bin:/bin"]}
    hooks = {"createRuntime": [hook], "poststop": [hook]}
    bundle = support.bundle(world.path / "bundle", ["sleep", "1000"], hooks=hooks)
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        turn_off(world)
        report = json.loads(explained(capfd, bundle))
        namespace.stop("c1")
    assert report["running"]["id"] == "c1"
    (warning,) = [text for text in report["warnings"] if "not in this plan" in text]
    assert warning.startswith(f"{world.source} on /new, requested by --mount 1")
    assert report["verdict"] == "nothing would be bound: the launcher is turned off"


def test_the_launcher_that_is_turned_off_reads_the_state(world: World) -> None:
    """Otherwise crun fails where the hook has ended before it writes."""
    path, _ = install(str(world.path / "p"), (), options(world))
    turn_off(world)
    hook = subprocess.Popen([path], stdin=subprocess.PIPE, env={})
    assert hook.stdin is not None
    with hook.stdin:
        hook.stdin.write(b"x" * 1_000_000)  # more than a pipe takes
    assert hook.wait() == 0


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_wrapper_is_turned_off_and_removed(world: World, runtime: str, capfd: pytest.CaptureFixture[str]) -> None:
    prefix = str(world.path / "p")
    wrapper = Wrapper("bind", prefix, shutil.which(runtime))
    _, path = install(prefix, (), options(world), instead=wrapper)
    bundle = support.bundle(world.path / "bundle", ["echo", "runs"])
    delete_python(path)
    with support.RuntimeNamespace(runtime) as namespace:
        namespace.runtime = path
        assert namespace.run_container(bundle, "c1").stdout == ""
        turn_off(world)
        assert namespace.run_container(bundle, "c2").stdout == "runs\n"
    assert cli.main(["uninstall", "--all", "--prefix", prefix]) == 0
    assert f"removed {path}\n" in capfd.readouterr().out
    assert not Path(prefix, "libexec").exists()


def test_install_check_says_what_a_launcher_does_that_was_turned_off(
    world: World, capfd: pytest.CaptureFixture[str]
) -> None:
    hooks = str(world.path / "hooks.d")
    path, _ = install(str(world.path / "p"), (), options(world), hooks_dir=hooks)
    turn_off(world)
    capfd.readouterr()
    assert cli.main(["install", "--check", "--hooks-dir", hooks]) == 65
    told = f"{path} has been turned off, and binds nothing: run install again"
    assert f"{told}: containers for which it is registered start without the binds\n" in capfd.readouterr().out


@pytest.mark.parametrize(("name", "part"), [("jsonschema", "jsonschema"), ("python-prctl", "prctl.py")])
def test_a_dependency_that_was_removed_is_named(world: World, name: str, part: str) -> None:
    path, _ = install(str(world.path / "p"), (), options(world))
    folder = mounting.plant(world.path / "site", {"oci_bind_hook": {}, "jsonschema": {}, "prctl.py": b""})
    file = Path(path)
    file.write_text(re.sub(r"^sys.path \+= .*$", f"sys.path += ['{folder}']", file.read_text(), flags=re.MULTILINE))
    assert launcher.fault(path) == ""
    Path(folder, part).rename(world.path / "removed")
    told = f"{path} requires the package {name}, which was removed; install it, then run install again"
    assert launcher.fault(path) == told


def test_a_package_that_was_removed_is_named(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """As by `pip uninstall`, which leaves the interpreter."""
    hooks = "/etc/containers/oci/hooks.d"
    mounting.tmpfs("/etc/containers")
    path, _ = install(str(world.path / "p"), (), options(world), hooks_dir=hooks)
    file = Path(path)
    file.write_text(re.sub(r"^sys\.path \+= .*$", "sys.path += ['/gone']", file.read_text(), flags=re.MULTILINE))
    told = f"{path} requires the package in /gone, which was removed; install it, then run install again"
    capfd.readouterr()
    assert cli.main(["doctor"]) == 69
    removal = f"oci-bind-hook uninstall --all --prefix {world.path / 'p'}"
    assert f"MISSING launcher {path}: {told}, or {removal}\n" in capfd.readouterr().out
    assert cli.main(["install", "--check", "--hooks-dir", hooks]) == 65
    assert f"{told}: containers for which it is registered do not start\n" in capfd.readouterr().out
    file.unlink()
    cli.main(["doctor"])
    out = capfd.readouterr().out
    told = f"MISSING launcher {path}: {path} does not exist: run install again, or {removal}; "
    assert f"{told}until then podman and CRI-O start containers without the binds\n" in out
    assert "does not call the hook yet: run oci-bind-hook install --prefix" not in out
    cli.main(["install", "--check", "--hooks-dir", hooks])
    told = "does not exist: podman and CRI-O skip this file, and start containers without the binds\n"
    assert told in capfd.readouterr().out
