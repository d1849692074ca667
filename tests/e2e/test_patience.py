# SPDX-License-Identifier: Apache-2.0
"""What a run and a dry-run say where somebody does not answer: whom they wait for, and the dry-run all else as well."""

from __future__ import annotations

import json
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest

from helpers import mounting, support
from helpers.autofs import Automount
from helpers.fuse import SECONDS, Fuse
from helpers.world import Container, launch, mount

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from helpers.world import World

HINT = "a real run waits until the server answers or ends, or until the runtime's timeout kills the hook"


@pytest.fixture
def bundle(world: World) -> Path:
    support.bundle(world.path / "bundle", ["true"])
    return world.path / "bundle"


def bind(source: str, destination: str, *fields: str) -> list[str]:
    return ["--mount", ",".join((f"src={source}", f"dst={destination}", *fields))]


def begin(world: World, bundle: Path | str, *arguments: str, stage: str = "createRuntime") -> subprocess.Popen[str]:
    words = ("--dry-run", "--format=json", "--bundle", str(bundle))
    return launch(world, stage, *words, *arguments, stdin="")


def end(process: subprocess.Popen[str]) -> tuple[int, dict[str, Any], str]:
    """The exit code of a dry-run, its document, and what it said meanwhile."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, json.loads(out), err


def dry_run(world: World, bundle: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    return end(begin(world, bundle, *arguments))


@pytest.mark.parametrize("kind", ["GETATTR", pytest.param("LOOKUP", marks=pytest.mark.long)])
def test_a_silent_source_is_named_and_all_else_is_said(world: World, bundle: Path, kind: str) -> None:
    """One wait for all binds of one server, whatever condition may leave them out; and a missing source beside them."""
    with Fuse(f"{world.path}/fuse") as fuse:
        fuse.silence(kind)
        code, document, err = dry_run(
            world,
            bundle,
            *mount(world, "/a"),
            *bind(f"{fuse.path}/word", "/etc/b", "optional"),
            *bind("/absent", "/c"),
            *bind(f"{fuse.path}/folder", "/d", "when-exists=/no"),
            *bind(f"{fuse.path}/*", "/e", "glob"),
        )
    assert code == os.EX_NOINPUT
    # As a real run meets them: patterns are looked up first, and who is missing is passed over at first.
    (pattern, word, folder, missing) = document["problems"]
    why = f" cannot be inspected: {fuse.path} (fuse) does not answer; process "
    for problem, number, subject in ((pattern, 5, "pattern"), (word, 2, "source"), (folder, 4, "source")):
        path = fuse.path + {5: "/*", 2: "/word", 4: "/folder"}[number]
        assert problem["message"].startswith(f"the {subject} {path}{why}")
        assert (problem["where"], problem["hint"], problem["exit"]) == (f"--mount {number}", HINT, os.EX_NOINPUT)
    assert missing["message"] == "the source /absent cannot be opened: No such file or directory"
    first = next(each for each in document["mounts"] if each["origin"] == "--mount 1")
    assert (first["action"], first["resolved"], first["found"]["kind"]) == ("mount", "/a", "folder")
    assert err == f"oci-bind-hook: waiting for the pattern {fuse.path}/*\n"


@pytest.mark.parametrize("words", [["--mount", "x"], ["--strict"]], ids=["problems", "violations"])
def test_a_child_gives_the_same_answer(world: World, words: list[str]) -> None:
    """There is one where a file system is mounted that may be silent, wherever that is."""
    bundle = world.path / "bundle"
    support.bundle(bundle, ["true"], mounts=[support.bind(world.source, "/data")], readonly=True, env=("no variable",))
    binds = [*mount(world, "/a", "/proc/x"), *bind("/absent", "/b"), *bind(f"{world.source}/*", "/c", "glob"), *words]
    alone = begin(world, bundle, *binds).communicate(timeout=SECONDS)
    with Fuse(f"{world.path}/fuse"):
        beside = begin(world, bundle, *binds).communicate(timeout=SECONDS)
    assert beside == alone
    assert json.loads(alone[0])["problems"] != []


def test_a_silent_one_of_several_entries_leaves_the_others_alone(world: World) -> None:
    """Each has a first --mount of its own, and the verdict is that of the first that fails, at whatever step."""
    with Fuse(f"{world.path}/fuse") as fuse:
        fuse.silence("GETATTR")
        entries = [
            world.hook(*mount(world, "/proc")),
            world.hook(*bind(f"{fuse.path}/*", "/b", "glob")),
            world.hook(*bind(f"{world.source}/*", "/c", "glob")),
        ]
        bundle = world.path / "bundle"
        support.bundle(bundle, ["true"], hooks={"createRuntime": entries, "poststop": entries})
        code, document, _ = dry_run(world, bundle)
    place = "config.json: /hooks/createRuntime"
    assert code == os.EX_NOPERM
    assert [(problem["where"], problem["exit"]) for problem in document["problems"]] == [
        (f"{place}/0: --mount 1", os.EX_NOPERM),
        (f"{place}/1: --mount 1", os.EX_NOINPUT),
    ]
    assert [each["resolved"] for each in document["mounts"] if each["origin"] == f"{place}/2: --mount 1"] == ["/c/word"]


def test_one_is_found_through_a_link_and_beside_another(world: World, bundle: Path) -> None:
    """Of a link it is not known beforehand where it leads."""
    with Fuse(f"{world.path}/one") as one, Fuse(f"{world.path}/two") as two:
        one.silence("GETATTR")
        two.silence("GETATTR")
        os.symlink(one.path, f"{world.path}/link")
        binds = [*bind(f"{world.path}/link", "/a"), *bind(two.path, "/b"), *mount(world, "/c")]
        code, document, err = dry_run(world, bundle, *binds)
    assert code == os.EX_NOINPUT
    assert [problem["where"] for problem in document["problems"]] == ["--mount 1", "--mount 2"]
    assert f"the source {world.path}/link of --mount 1 does not answer" in document["problems"][0]["message"]
    assert f"{two.path} (fuse) does not answer" in document["problems"][1]["message"]
    assert document["mounts"][-1]["resolved"] == "/c"
    assert err.splitlines() == [
        f"oci-bind-hook: waiting for the source {world.path}/link of --mount 1",
        f"oci-bind-hook: waiting for the source {two.path} of --mount 2",
    ]


@pytest.mark.parametrize("kind", ["STATFS", "OPEN", "OPENDIR"])
def test_what_a_real_run_does_not_ask_is_not_waited_for(world: World, bundle: Path, kind: str) -> None:
    with Fuse(f"{world.path}/fuse") as fuse:
        mounting.remount(fuse.path, mounting.MS_BIND | mounting.MS_RDONLY | mounting.MS_NOEXEC)
        fuse.silence(kind)
        code, document, err = dry_run(world, bundle, *bind(fuse.path, "/a"), *bind(f"{fuse.path}/word", "/etc/b"))
    assert (code, document["problems"], err) == (0, [], "")
    assert [set(each["kept"]) >= {"ro", "noexec"} for each in document["mounts"][-2:]] == [True, True]


def test_a_silent_source_of_the_runtime_is_its_own_affair(world: World) -> None:
    with Fuse(f"{world.path}/fuse") as fuse:
        bundle = world.path / "bundle"
        support.bundle(bundle, ["true"], mounts=[support.bind(fuse.path, "/data")])
        fuse.silence("GETATTR")
        code, document, err = dry_run(world, bundle, *mount(world, "/a"))
    assert (code, document["problems"]) == (0, [])
    theirs = next(each for each in document["mounts"] if each["origin"] == "config.json#/mounts/2")
    [warning] = theirs["warnings"]
    assert (theirs["action"], theirs["found"]) == ("left", None)
    assert warning.startswith(f"the source {fuse.path} cannot be inspected: {fuse.path} (fuse) does not answer")
    assert warning.endswith(": the runtime waits for that as well")
    assert err == f"oci-bind-hook: waiting for the source {fuse.path} of config.json#/mounts/2\n"


def test_where_more_than_a_source_is_silent(world: World, bundle: Path) -> None:
    """The bundle; its rootfs, which hides no problem of a source; a folder deep in one that answers."""
    missing = bind("/absent", "/b")
    with (
        Fuse(f"{world.path}/fuse", {"rootfs": {"etc": {}}, "bundle": {}}) as fuse,
        Fuse(f"{world.rootfs}/deep", {"folder": {"below": {}}}) as deep,
    ):
        support.bundle(world.path / "one", ["true"], rootfs=f"{fuse.path}/rootfs")
        for each in (fuse, deep):
            each.silence("LOOKUP")
        silent = [
            begin(world, f"{fuse.path}/bundle", *missing),
            begin(world, world.path / "one", *missing),
            begin(world, bundle, *mount(world, "/deep/folder/below/a"), *missing, stage="prestart"),
        ]
        (of_bundle, of_rootfs, of_folder) = ended = [end(process) for process in silent]
    assert [code for code, _, _ in ended] == [os.EX_NOINPUT] * 3
    why = f"cannot be inspected: {fuse.path} (fuse) does not answer; process "
    [problem] = of_bundle[1]["problems"]
    assert (problem["message"].startswith(f"the bundle {fuse.path}/bundle {why}"), problem["hint"]) == (True, HINT)
    assert of_bundle[2] == f"oci-bind-hook: waiting for the bundle {fuse.path}/bundle\n"
    rootfs, source = of_rootfs[1]["problems"]
    assert (rootfs["message"].startswith(f"the rootfs {fuse.path}/rootfs {why}"), rootfs["hint"]) == (True, HINT)
    assert source["message"] == "the source /absent cannot be opened: No such file or directory"
    assert of_rootfs[2] == f"oci-bind-hook: waiting for the rootfs {fuse.path}/rootfs\n"
    problem, source = of_folder[1]["problems"]
    assert source["message"] == "the source /absent cannot be opened: No such file or directory"
    assert (
        f"the rootfs {world.rootfs}, or a source that a destination leads into, does not answer" in problem["message"]
    )


def test_what_a_real_run_does_not_look_for_is_no_problem(world: World) -> None:
    """The programs of the container: only the warnings on them need a look."""
    bundle = world.path / "bundle"
    support.bundle(bundle, ["true"], env=["PATH=/slow/bin:/bin"])
    with Fuse(f"{world.rootfs}/slow", {"bin": {}}) as fuse:
        fuse.silence("LOOKUP")
        code, document, _ = end(begin(world, bundle, *mount(world, "/a"), stage="prestart"))
    assert (code, document["problems"], document["mounts"][-1]["resolved"]) == (0, [], "/a")
    program = f"a program in the rootfs {world.rootfs} does not answer"
    note = f"the hook does not know whether a bind covers programs of the container: {program}"
    assert note in [each.partition("; process")[0] for each in document["notes"]]


def test_an_automount_that_nobody_serves(world: World, bundle: Path) -> None:
    with Automount(f"{world.path}/auto") as automount:
        os.kill(automount.pid, signal.SIGSTOP)
        code, document, _ = dry_run(world, bundle, *bind(f"{automount.path}/word", "/etc/a"), *mount(world, "/b"))
    assert code == os.EX_NOINPUT
    [problem] = document["problems"]
    assert f"{automount.path} (autofs) does not answer" in problem["message"]
    assert document["mounts"][-1]["resolved"] == "/b"


@pytest.mark.parametrize("words", [(), ("type=glob",)], ids=["plain", "pattern"])
@pytest.mark.parametrize("how", ["--log", "--debug"])
def test_the_log_of_a_run_ends_with_whom_it_waits_for(world: World, how: str, words: tuple[str, ...]) -> None:
    log = f"{world.path}/log"
    with Fuse(f"{world.path}/fuse") as fuse:
        fuse.silence("OPENDIR" if words else "GETATTR")
        one = Container(world, "one")
        source = f"{fuse.path}/*" if words else fuse.path
        log_words = [how, log] if how == "--log" else [how]
        start = one.launch(*mount(world, "/a"), *bind(source, "/b", *words), *log_words)
        fuse.await_stuck()
        if how == "--log":
            with open(log, encoding="utf-8") as file:
                last = file.readlines()[-1]
            assert f'msg="--mount 2: opening {source}"' in last
        fuse.end()
        err = start.communicate(timeout=SECONDS)[1]
        assert how == "--log" or f": --mount 2: opening {source}\n" in err
        one.end()
