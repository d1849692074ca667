# SPDX-License-Identifier: Apache-2.0
"""What is left of the propagation that a bind asks for when its container runs, by real mount events.

The manual has a table of it. Where a word has no effect, the run and the dry-run say what to set.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.world import call, state
from oci_bind_hook.requests.request import PROPAGATIONS

if TYPE_CHECKING:
    from helpers.world import World

PAGE = (Path(__file__).resolve().parents[2] / "hook/man/oci-bind-hook.8.md").read_text(encoding="utf-8")
WORDS = tuple(dict.fromkeys(word.removeprefix("r") for word in PROPAGATIONS if word != "rprivate"))[1:]
RUNC = tuple(
    map(int, subprocess.run(["runc", "--version"], capture_output=True, text=True).stdout.split()[2].split(".")[:2])
)

# What is mounted in each bind is the container's part. Its stdin and stdout are pipes: it says when it runs.
SCRIPT = """
echo runs; read -r go
for word in $(ls /b); do mount -t tmpfs tmpfs /b/$word/out; done
cat /proc/self/mountinfo; echo told; read -r end
"""


def is_what_is_asked(word: str, *, receives: bool, sends: bool, unbindable: bool) -> bool:
    """Whether a bind with these properties is what a word asks for, mount_namespaces(7)."""
    asked = {"private": (False, False), "slave": (True, False), "shared": (True, True), "unbindable": (False, False)}
    base = word.removeprefix("r") if word in PROPAGATIONS[1::2] else word
    return (receives, sends) == asked[base] and (unbindable or base != "unbindable")


def share_all() -> None:
    """Makes this test's private mount namespace look like a host that systemd has started: all is shared."""
    mounting.mount("", "/", flags=mounting.MS_SHARED | mounting.MS_REC)
    if os.path.ismount("/sys/fs/cgroup/unified"):  # crun refuses a machine with both versions
        mounting.umount("/sys/fs/cgroup/unified")


def words_of(folder: str) -> list[str]:
    """The arguments that bind a folder for each word of propagation."""
    found = []
    for word in PROPAGATIONS:
        for name in ("in", "out"):
            os.makedirs(f"{folder}/{word}/{name}")
        found += ["--mount", f"src={folder}/{word},dst=/b/{word},{word}"]
    return found


def lost(world: World, runtime: str, bundle: str, folder: str) -> set[str]:
    """The words that do not hold in the container of a bundle. Raises AssertionError if it does not start."""
    command = [runtime, "--root", str(world.path / "runtime"), "run", "--bundle", bundle, "c1"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        assert container.stdout.readline() == "runs\n"
        for word in PROPAGATIONS:
            mounting.tmpfs(f"{folder}/{word}/in")
        print("go", file=container.stdin, flush=True)
        lines = list(itertools.takewhile("told\n".__ne__, container.stdout))
        seen_here = {info.mount_point for info in mounting.table()}
        print("end", file=container.stdin, flush=True)
    assert container.returncode == 0
    points = {fields[4]: fields for fields in map(str.split, lines)}
    return {
        word
        for word in PROPAGATIONS
        if not is_what_is_asked(
            word,
            receives=f"/b/{word}/in" in points,
            sends=f"{folder}/{word}/out" in seen_here,
            unbindable="unbindable" in points[f"/b/{word}"],
        )
    }


def warned(log: Path) -> dict[str, str]:
    """What the log of a real run warns of, by the word that the bind is asked for with."""
    found: dict[str, str] = {}
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["level"] == "warning" and (match := re.match(r"--mount (\d+): (\w+ .*)", entry["msg"])):
            found[PROPAGATIONS[int(match[1]) - 1]] = match[2]
    return found


def foreseen(world: World, stage: str, *arguments: str) -> dict[str, str]:
    """The warnings of a dry-run, as those of ``warned``."""
    done = call(world, stage, *arguments, "--dry-run", "--format", "json", "--bundle", f"{world.path}/bundle", stdin="")
    assert done.returncode == 0, done.stdout
    mounts = [mount for mount in json.loads(done.stdout)["mounts"] if mount["origin"].startswith("--mount")]
    told = {each["propagation"]: [text for text in each["warnings"] if "no effect" in text] for each in mounts}
    return {word: "\n".join(texts) for word, texts in told.items() if texts}


def table() -> dict[str, str]:
    """The manual's table: what does not hold, by linux.rootfsPropagation."""
    rows = re.findall(
        r"^\| (none|`\w+`) \| (.*) \|$", PAGE.partition("### Propagation")[2].partition("\n## ")[0], re.MULTILINE
    )
    return {word.strip("`").replace("none", ""): text for word, text in rows}


def in_the_manual(root: str, runtime: str, stage: str) -> set[str] | None:
    """What does not hold by the manual; None if the container does not start."""
    found: set[str] = set()
    for part in table()[root].split("; "):
        match = re.fullmatch(r"under (\w+)(?: from ([\d.]+) on)?(?: at (\w+))?: (.*)", part)
        if match is None:
            assert part == "nothing"
            continue
        by, since, at, what = match.groups()
        version = tuple(map(int, since.split("."))) if since else ()
        if by != runtime or at not in (None, stage) or (by == "runc" and RUNC < version):
            continue
        if what == "no container starts":
            return None
        found |= {word for word in PROPAGATIONS if f"`{word.removeprefix('r')}`" in what and word != "rprivate"}
    return found


def test_the_table_of_the_manual_has_a_row_for_each_word() -> None:
    assert list(table()) == ["", *PROPAGATIONS]


@pytest.mark.parametrize("root", ["", *PROPAGATIONS], ids=lambda root: root or "none")
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_what_holds_of_each_word_is_in_the_manual_and_what_does_not_is_said(
    world: World, runtime: str, stage: str, root: str
) -> None:
    share_all()
    folder = mounting.tmpfs(str(world.path / "volume"))
    arguments = words_of(folder)
    logging = ("--log", str(world.path / "log"), "--log-format", "json")
    bundle = world.bundle(SCRIPT, stage, *arguments, *logging, linux={"rootfsPropagation": root or None})
    expected = in_the_manual(root, runtime, stage)
    if expected is None:
        assert "invalid argument" in support.run_container(runtime, bundle, "c1").stderr.lower() or runtime == "crun"
        return
    before = foreseen(world, stage, *arguments)
    assert lost(world, runtime, bundle, folder) == expected
    said = warned(world.path / "log")
    newer = {"unbindable", "runbindable"} if (runtime, root) == ("runc", "rshared") and RUNC < (1, 4) else set()
    assert said.keys() - newer == expected
    assert {word for word, text in before.items() if runtime in text} - newer == expected
    # Whoever sets what is said gets what is asked.
    advised = {match[1] for text in said.values() if (match := re.search(r'config.json to "(\w+)"', text))}
    assert advised <= {"shared"}
    assert all("config.json to" in text or "register the hook for createRuntime" in text for text in said.values())


@pytest.mark.parametrize("stage", ["prestart", "createRuntime"])
def test_a_slave_under_crun_is_one_if_config_json_is_as_it_is_told(world: World, stage: str) -> None:
    share_all()
    folder = mounting.tmpfs(str(world.path / "volume"))
    words_of(folder)
    log = world.path / "log"
    arguments = ("--mount", f"src={folder}/rslave,dst=/b/rslave,rslave", "--log", str(log), "--log-format", "json")
    world.bundle("true", stage, *arguments)
    said = (
        "rslave has no effect under crun: all mounts become private after the hooks; set linux.rootfsPropagation of "
        'config.json to "rslave"'
    )
    assert foreseen(world, stage, *arguments) == {"rslave": said}
    support.run_container("crun", f"{world.path}/bundle", "c1")
    assert f"--mount 1: {said}" in log.read_text().replace('\\"', '"')
    log.unlink()
    script = "read -r go; cat /proc/self/mountinfo"
    bundle = world.bundle(script, stage, *arguments, linux={"rootfsPropagation": "rslave"})
    assert foreseen(world, stage, *arguments) == {}
    command = ["crun", "--root", str(world.path / "runtime"), "run", "--bundle", bundle, "c1"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, text=True) as container:
        assert container.stdin is not None
        assert container.stdout is not None
        print("go", file=container.stdin, flush=True)
        [line] = [line for line in container.stdout if " /b/rslave " in line]
    assert " master:" in line
    assert "no effect" not in log.read_text()


def test_a_private_source_gives_no_propagation_and_the_mount_to_change_is_told(world: World) -> None:
    share_all()
    folder = mounting.tmpfs(str(world.path / "volume"))
    mounting.mount("", folder, flags=mounting.MS_PRIVATE)
    support.bundle(world.path / "bundle", ["true"])
    arguments = ("--mount", f"src={folder},dst=/b,rslave", "--mount", f"src={folder},dst=/c,private")
    told = f"{folder}, which the source is on, is private; make it shared on the host with mount --make-shared"
    said = {"rslave": f"rslave has no effect: {told}"}
    log = world.path / "log"
    assert foreseen(world, "prestart", *arguments) == said
    done = call(world, "prestart", *arguments, "--log", str(log), "--log-format", "json", stdin=state(world))
    assert done.returncode == 0, done.stderr
    assert {word: text for word, text in warned(log).items() if "no effect" in text} == {"private": said["rslave"]}
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0


@pytest.mark.parametrize("root", ["", "rslave", "shared"], ids=lambda root: root or "none")
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_source_beside_the_rootfs_is_private_at_create_container(world: World, runtime: str, root: str) -> None:
    share_all()
    arguments = words_of(str(world.path / "volume"))
    logging = ("--log", str(world.path / "log"), "--log-format", "json")
    linux = {"rootfsPropagation": root or None}
    bundle = world.bundle(SCRIPT, "createContainer", *arguments, *logging, linux=linux)
    before = foreseen(world, "createContainer", *arguments)
    gone = lost(world, runtime, bundle, str(world.path / "volume"))
    assert gone >= {"shared", "rshared"}
    assert warned(world.path / "log").keys() == gone
    # runc before 1.2 leaves a slave as it is.
    maybe = {"slave", "rslave"} if (runtime, RUNC < (1, 2)) == ("runc", True) else set()
    assert {word for word, text in before.items() if runtime in text} - maybe == gone - maybe


LEAKS: list[tuple[str, str | None, dict[str, tuple[str, ...]]]] = [
    # What the host shares: a folder mounted below the rootfs, one that config.json binds, and a folder of the latter's;
    # and the runtimes under which it still does.
    ("createRuntime", None, {"/below": (), "/volume": ()}),
    ("createRuntime", "slave", {"/below": ("runc",), "/volume": support.RUNTIMES}),
    ("createContainer", None, {"/inside": support.RUNTIMES}),
]


@pytest.mark.parametrize(("stage", "word", "places"), LEAKS)
def test_a_destination_that_the_host_shares_is_foreseen(
    world: World, stage: str, word: str | None, places: dict[str, tuple[str, ...]]
) -> None:
    volume = world.path / "volume"
    below = Path(world.rootfs) / "below"
    for path in (below / "in", volume / "in", world.source / "in", world.path / "own/in"):
        path.mkdir(parents=True)
    for runtime in support.RUNTIMES:
        with support.RuntimeNamespace(runtime) as namespace:
            for source, on in ((world.path / "own", below), (volume, volume)):
                assert namespace.run("mount", "--bind", str(source), str(on)).returncode == 0
                assert namespace.run("mount", "--make-shared", str(on)).returncode == 0
            for place, leaking in places.items():
                bundle = world.bundle(
                    "true",
                    stage,
                    *("--mount", f"src={world.source},dst={place}/in"),
                    mounts=[
                        support.bind(volume, "/volume", "rshared"),
                        support.bind(world.source, "/inside", "rshared"),
                    ],
                    linux={"rootfsPropagation": word} if word else {},
                )
                done = namespace.run(world.launcher, "--dry-run", "--bundle", bundle, "--format=json")
                [mount] = [each for each in json.loads(done.stdout)["mounts"] if each["by"] == "hook"]
                assert done.returncode == (77 if leaking == support.RUNTIMES else 0), done.stdout
                assert any("under runc, " in each for each in mount["warnings"]) == (leaking == ("runc",))
                failed = namespace.run_container(bundle, "c1").returncode != 0
                assert failed == (runtime in leaking), (runtime, place)
