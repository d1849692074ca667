# SPDX-License-Identifier: Apache-2.0
"""A source that is replaced by rename while it is bound: the container keeps the old one, and that is told."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.fuse import Fuse
from helpers.world import call, mount, state
from oci_bind_hook.commands.upkeep import listing
from oci_bind_hook.documents import oci
from oci_bind_hook.options import parse

if TYPE_CHECKING:
    from helpers.world import World

ELSEWHERE = "mounted, but the source path now leads to another file"


def shown(world: World) -> dict[str, str | None]:
    """What `show` says that the source of each bind is now, by destination."""
    done = call(world, "show", "c1", "--format", "json", stdin="")
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert oci.violations(document, "records") == []
    return {bind["resolved"]: bind["source_now"] for bind in document["records"][0]["mounts"]}


def planned(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    report = json.loads(done.stdout)
    assert oci.violations(report, "plan") == []
    assert isinstance(report, dict)
    return report


def replace(path: str, text: str) -> None:
    """As editors and package managers do it."""
    with open(f"{path}.new", "w") as file:
        file.write(text)
    os.rename(f"{path}.new", path)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_file_that_is_renamed_over_under_a_container_that_runs(world: World, runtime: str) -> None:
    names = ("kept", "written", "replaced", "removed")
    for name in names:
        (world.source / name).write_text("old\n")
    words = [word for name in names for word in ("--mount", f"src={world.source}/{name},dst=/etc/{name}")]
    bundle = world.bundle("exec sleep 1000", "createRuntime", *words, *mount(world, "/folder"))
    options = [*world.root_option(), "--dry-run", "--bundle", bundle]
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        assert namespace.start("c1").returncode == 0
        assert shown(world) == dict.fromkeys(["/etc/" + name for name in names] + ["/folder"], "same")
        (world.source / "written").write_text("new\n")
        replace(str(world.source / "replaced"), "new\n")
        (world.source / "removed").unlink()
        assert namespace.execute("c1", "cat", *[f"/etc/{name}" for name in names]).stdout == "old\nnew\nold\nold\n"
        now = shown(world)
        text = call(world, "show", "c1", stdin="").stdout
        listed = json.loads(call(world, "list", "--format", "json", stdin="").stdout)["records"][0]["mounts"]
        report = planned(namespace.run(world.launcher, *options, "--format=json"))
        told = namespace.run(world.launcher, *options).stdout
        namespace.stop("c1")
    expected = {"/etc/kept": "same", "/etc/written": "same", "/etc/replaced": "another", "/etc/removed": "gone"}
    assert now == {**expected, "/folder": "same"}
    assert f"\n{ELSEWHERE}: {world.source}/replaced on /etc/replaced\n" in text
    assert f"\nmounted, but the source path no longer exists: {world.source}/removed on /etc/removed\n" in text
    assert f"\nmounted: {world.source}/written on /etc/written\n" in text
    assert {bind["source_now"] for bind in listed} == {None}
    binds = {bind["resolved"]: (bind["now"], bind["source_now"]) for bind in report["mounts"]}
    assert {path: binds[path] for path in now} == {path: (True, word) for path, word in now.items()}
    nows = [line for line in told.splitlines() if line.startswith("  now ")]
    assert nows.count(f"  now      {ELSEWHERE}") == 1
    assert nows.count("  now      mounted, but the source path no longer exists") == 1
    assert nows.count("  now      mounted") == 3


def test_a_folder_and_a_link_that_lead_elsewhere_now(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    folder, link = world.path / "folder", world.path / "link"
    folder.mkdir()
    link.symlink_to(world.source)
    words = ("--mount", f"src={folder},dst=/a", "--mount", f"src={link},dst=/b")
    assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
    folder.rename(world.path / "old")
    folder.mkdir()
    link.unlink()
    link.symlink_to(folder)
    assert shown(world) == {"/a": "another", "/b": "another"}
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0


def test_a_silent_server_keeps_nobody_waiting_and_hides_nothing_of_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    support.bundle(world.path / "bundle", ["true"])
    with Fuse(str(world.path / "fuse")) as fuse:
        words = ("--mount", f"src={fuse.path}/word,dst=/etc/a", "--mount", f"src={world.file},dst=/etc/b")
        assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
        replace(str(world.file), "another\n")
        assert shown(world) == {"/etc/a": "same", "/etc/b": "another"}
        fuse.silence("LOOKUP")
        fuse.hurry(monkeypatch)
        _, [entry] = listing.look(parse(world.root_option())[0], ["c1"])
        assert [bind["source_now"] for bind in entry.mounts] == [None, "another"]
        fuse.end()
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0


def test_a_dry_run_notes_files_and_nothing_else(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    other = world.path / "other"
    other.write_text("x\n")

    def notes(*words: str) -> list[str]:
        done = call(world, "prestart", *words, "--dry-run", "--format=json", stdin=state(world))
        return [text for text in planned(done)["notes"] if "rename" in text]

    one, two = f"src={world.file},dst=/etc/a", f"src={other},dst=/etc/b"
    said = "the container keeps the old file if this one is replaced by rename; to follow the change, bind its folder"
    assert notes("--mount", one) == [f"--mount 1: {said}"]
    assert notes(*mount(world, "/x"), "--mount", one, "--mount", two) == [f"--mount 2, --mount 3: {said}"]
    assert notes("--mount", f"type=glob,src={world.path}/[ao]*,dst=/x") == [f"--mount 1: {said}"]
    assert notes(*mount(world, "/x"), "--mount", "src=/dev/null,dst=/etc/null") == []
