# SPDX-License-Identifier: Apache-2.0
"""The attack corpus, T: state files that somebody else put there, and tear-down in a rootfs that has changed since."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.corpus import fails, gone, look, no_process_left, plant, prepare, refused, succeeds
from helpers.world import call, fail, faults, mount, mounted, state

if TYPE_CHECKING:
    from collections.abc import Callable

    from helpers.world import World

RECORD = dict[str, Any]


def set_up(world: World, *destinations: str) -> RECORD:
    """Binds by hand, and the record of it."""
    succeeds(call(world, "prestart", *mount(world, *destinations), stdin=state(world)))
    return record(world)


def record(world: World) -> RECORD:
    found = json.loads((world.state / "c1.json").read_text())
    assert isinstance(found, dict)
    return found


def poststop(world: World, *, before: tuple[str, ...] = (), **members: str) -> subprocess.CompletedProcess[str]:
    return call(world, "poststop", stdin=state(world, **{"status": "stopped", **members}), before=before)


def command(*words: str) -> None:
    subprocess.run(words, check=True)


@pytest.mark.parametrize("kind", ["link", "fifo", "folder", "hard link", "of others", "readable", "huge"])
@pytest.mark.parametrize("stage", ["prestart", "poststop"])
def test_T01_a_state_file_that_is_not_ours_is_refused(world: World, kind: str, stage: str) -> None:
    outside = prepare(world)
    path = world.state / "c1.json"
    if kind == "link":
        path.symlink_to(f"{outside}/secret")
    elif kind == "fifo":
        os.mkfifo(path, 0o600)
    elif kind == "folder":
        path.mkdir(0o700)
    elif kind == "hard link":
        path.hardlink_to(f"{outside}/secret")
    else:
        path.touch(0o644 if kind == "readable" else 0o600)
        os.chown(path, 1 if kind == "of others" else 0, 0)
        os.truncate(path, (17 << 20) if kind == "huge" else 0)
    text = state(world, status="stopped") if stage == "poststop" else state(world)
    says = "cannot be read" if kind in ("link", "huge") else "is not a valid state file"
    refused(world, *mount(world, "/a"), code=74, says=says, stage=stage, stdin=text, dry=stage == "prestart")


@pytest.mark.parametrize("kind", ["link", "group", "world", "owner", "file"])
def test_T01_a_state_folder_that_others_can_write_is_refused(world: World, kind: str) -> None:
    outside = prepare(world)
    if kind in ("link", "file"):
        world.state.rmdir()
        world.state.symlink_to(f"{outside}/etc") if kind == "link" else world.state.touch()
    else:
        world.state.chmod({"group": 0o770, "world": 0o777}.get(kind, 0o700))
        os.chown(world.state, 1 if kind == "owner" else 0, 0)
    refused(world, *mount(world, "/a"), code=74)


# Who may change a folder above, by owner and mode, and whether the state folder in it is taken.
ABOVE = {
    "root's": (0, 0o755, True),
    "of others": (1, 0o755, False),
    "open to all": (0, 0o777, False),
    "sticky": (0, 0o1777, True),
    "of others, sticky": (1, 0o1777, False),
}


@pytest.mark.parametrize("how", ["as it is", "by a link"])
@pytest.mark.parametrize("kind", ABOVE)
def test_T01_a_state_folder_that_others_can_move_away_is_refused(world: World, kind: str, how: str) -> None:
    """With all that is above it: poststop would find nothing there, and call it done."""
    owner, mode, is_taken = ABOVE[kind]
    above = world.path / "above"
    (above / "ours/state").mkdir(parents=True, mode=0o755)
    os.chown(above, owner, 0)
    above.chmod(mode)
    (above / "ours/state").chmod(0o700)
    world.state = above / "ours/state"
    if how == "by a link":
        (world.path / "link").symlink_to(above / "ours")
        world.state = world.path / "link/state"
    prepare(world)
    if is_taken:
        done = call(world, "prestart", *mount(world, "/a"), stdin=state(world))
        assert (done.returncode, done.stderr) == (0, "")
        assert poststop(world).returncode == 0
    else:
        refused(world, *mount(world, "/a"), code=74, says="users other than uid 0 can rename the state folder")


@pytest.mark.parametrize("kind", ABOVE)
def test_T01_a_log_goes_through_no_link_that_others_can_plant(world: World, kind: str) -> None:
    owner, mode, _ = ABOVE[kind]
    prepare(world)
    victim = world.path / "victim"
    victim.write_text("as it is\n")
    folder = world.path / "logs"
    folder.mkdir()
    (folder / "log").symlink_to(victim)
    os.chown(folder / "log", 1, 1, follow_symlinks=False)
    os.chown(folder, owner, 0)
    folder.chmod(mode)
    done = call(world, "prestart", *mount(world, "/a"), "--log", str(folder / "log"), stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")
    # In a folder that is root's alone the link is as good as root's.
    assert (victim.read_text() == "as it is\n") == (kind != "root's")
    assert poststop(world).returncode == 0


def test_a_log_may_be_stderr(world: World) -> None:
    prepare(world)
    done = call(world, "prestart", *mount(world, "/a"), "--log", "/dev/stderr", stdin=state(world))
    assert (done.returncode, "binds attached" in done.stderr) == (0, True)
    assert poststop(world).returncode == 0


@pytest.mark.parametrize("name", ["c1.new", "c1.json.lock", "c1.lock"])
@pytest.mark.parametrize("kind", ["link", "dangling", "hard link"])
def test_T01_names_beside_the_state_file_are_not_followed(world: World, name: str, kind: str) -> None:
    outside = prepare(world)
    before = look(world)
    if kind == "hard link":
        (world.state / name).hardlink_to(f"{outside}/secret")
    else:
        (world.state / name).symlink_to(f"{outside}/{'secret' if kind == 'link' else 'new'}")
    done = call(world, "prestart", *mount(world, "/a"), stdin=state(world))
    assert done.returncode == (74 if name == "c1.lock" and kind != "hard link" else 0), done.stderr
    assert look(world)["outside"] == before["outside"]
    assert mounted(world) == (["/a"] if done.returncode == 0 else [])


@pytest.mark.parametrize("kind", ["final", "parent"])
def test_T02_T03_a_mount_of_the_host_that_a_link_leads_to_stays(world: World, kind: str) -> None:
    outside = prepare(world)
    command("mount", "-t", "tmpfs", "host", f"{outside}/etc")
    before = support.mounts()
    set_up(world, "/p/etc")
    if kind == "parent":
        os.rename(f"{world.rootfs}/p", f"{world.rootfs}/p2")
        os.symlink(outside, f"{world.rootfs}/p")
        assert mounted(world) == ["/p2/etc"]
    else:
        command("umount", f"{world.rootfs}/p/etc")
        os.rmdir(f"{world.rootfs}/p/etc")
        os.symlink(f"{outside}/etc", f"{world.rootfs}/p/etc")
    there = support.tree(outside)
    succeeds(poststop(world))
    assert support.mounts() == before
    assert support.tree(outside) == there
    assert support.records(world.state) == []


def test_T04_a_mount_point_that_the_container_took_away_is_gone(world: World) -> None:
    outside = prepare(world)
    command("mount", "-t", "tmpfs", "host", f"{outside}/etc")
    with support.RuntimeNamespace("runc") as namespace:
        before = support.mounts()
        assert call(world, "prestart", *mount(world, "/a"), stdin=state(world)).returncode == 0
        # In another namespace, where nothing is mounted on it, it can be removed: the kernel then detaches ours.
        assert namespace.run("rmdir", f"{world.rootfs}/a").returncode == 0
        assert mounted(world) == []
        os.symlink(f"{outside}/etc", f"{world.rootfs}/a")
        there = support.tree(outside)
        done = poststop(world)
        assert (done.returncode, done.stderr) == (0, "")
        assert support.mounts() == before
    assert support.tree(outside) == there
    assert os.readlink(f"{world.rootfs}/a") == f"{outside}/etc"
    assert support.records(world.state) == []


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_T05_a_mount_of_the_host_at_the_same_path_is_not_ours(world: World, runtime: str) -> None:
    prepare(world)
    os.mkdir(f"{world.rootfs}/a")
    bundle = world.bundle("true", "createRuntime", *mount(world, "/a"))
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        assert namespace.run("mount", "-t", "tmpfs", "host", f"{world.rootfs}/a").returncode == 0
        there = support.mounts(namespace.holder.pid)
        namespace.delete("c1", "--force")
        assert support.mounts(namespace.holder.pid) == there
    assert support.records(world.state) == []


def test_T06_a_mount_that_got_the_number_of_ours_is_not_ours(world: World) -> None:
    prepare(world)
    found = set_up(world, "/a")
    ours = found["mounts"][0]["attached"][0]
    command("umount", f"{world.rootfs}/a")
    command("mount", "--bind", str(world.source), f"{world.rootfs}/a")
    (line,) = [line for line in support.mounts() if line.split(" ")[4] == f"{world.rootfs}/a"]
    # Whatever number the kernel gave it: the record now says the same.
    ours["id"] = int(line.split(" ")[0])
    (world.state / "c1.json").write_text(json.dumps(found))
    done = poststop(world)
    fails(done, 71, f"something else is mounted on it: if nothing uses that, run umount {world.rootfs}/a")
    assert mounted(world) == ["/a"]
    assert support.records(world.state) == ["c1.json"]
    command("umount", f"{world.rootfs}/a")
    succeeds(poststop(world))
    assert not os.path.exists(f"{world.rootfs}/a")


def test_T07_mounts_below_a_shared_source_survive_the_tear_down(world: World) -> None:
    prepare(world)
    (world.source / "sub").mkdir()
    command("mount", "--bind", str(world.source), str(world.source))
    command("mount", "--make-shared", str(world.source))
    command("mount", "-t", "tmpfs", "host", str(world.source / "sub"))
    for words in ("", ",bind-propagation=rshared", ",bind-propagation=rslave"):
        before = look(world)
        arguments = mount(world, "/a", options=words)
        succeeds(call(world, "prestart", *arguments, stdin=state(world)))
        assert mounted(world) == ["/a", "/a/sub"]
        gone(world, before)


@pytest.mark.parametrize("where", ["/a", "/a/inside"])
def test_T08_what_somebody_stacked_on_our_bind_is_theirs(world: World, where: str) -> None:
    prepare(world)
    (world.source / "inside").mkdir()
    before = look(world)
    set_up(world, "/a")
    command("mount", "-t", "tmpfs", "theirs", world.rootfs + where)
    there = look(world)
    fails(poststop(world), 71)
    assert support.mounts() == there["mounts"]
    assert support.records(world.state) == ["c1.json"]
    command("umount", world.rootfs + where)
    gone(world, before)


def test_T09_only_what_was_made_is_removed(world: World) -> None:
    outside = prepare(world)
    plant(world, {"/old/a": None})
    words = [*mount(world, "/old/a", "/full/x", "/linked", "/other"), "--mount", f"src={world.file},dst=/etc/passwd"]
    words += ["--mount", f"src={world.file},dst=/file"]
    succeeds(call(world, "prestart", *words, stdin=state(world)))
    for path in reversed(mounted(world)):
        command("umount", world.rootfs + path)
    (world.path / "bundle/rootfs/full/theirs").write_text("kept")
    os.rmdir(f"{world.rootfs}/linked")
    os.symlink(f"{outside}/etc", f"{world.rootfs}/linked")
    os.rename(f"{world.rootfs}/other", f"{world.rootfs}/moved")
    os.mkdir(f"{world.rootfs}/other")
    (world.path / "bundle/rootfs/file").write_text("theirs")
    there = support.tree(world.path)
    done = poststop(world)
    assert (done.returncode, done.stderr) == (0, "")
    assert not os.path.lexists(f"{world.rootfs}/full/x")
    there = {name: entry for name, entry in there.items() if not name.startswith(("bundle/rootfs/full/x", "state/"))}
    assert support.tree(world.path) == there


def _many(found: RECORD) -> object:
    return {**found, "uses": [{"in": 0, "name": f"{number:07}"} for number in range(1_000_000)]}


def _mount(found: RECORD, **members: object) -> object:
    return {**found, "mounts": [{**found["mounts"][0], **members}]}


def _made(found: RECORD, **members: object) -> object:
    return {**found, "made": [{**found["made"][0], **members}]}


def _used(found: RECORD, **members: object) -> object:
    return {**found, "uses": [{**found["uses"][0], **members}]}


TAMPERED: dict[str, Callable[[RECORD], object]] = {
    "made ..": lambda found: _used(found, name=".."),
    "made above": lambda found: _used(found, name="../../outside/etc"),
    "made the root": lambda found: _made(found, at=0),
    "made nothing": lambda found: _used(found, name=""),
    "made absolute": lambda found: _used(found, name="/etc"),
    "made dots inside": lambda found: _used(found, name="a/../etc"),
    "made what does not exist": lambda found: _made(found, at=1000),
    "made in itself": lambda found: _used(found, **{"in": 1}),
    "made no escape": lambda found: _used(found, name="\\x2e."),
    "resolved above": lambda found: _mount(found, resolved="/../../outside"),
    "resolved relative": lambda found: _mount(found, resolved="a"),
    "other id": lambda found: {**found, "id": "c2"},
    "bad id": lambda found: {**found, "id": "../c1"},
    "other version": lambda found: {**found, "version": 3},
    "earlier version": lambda found: {**found, "version": 1},
    "no version": lambda found: {name: value for name, value in found.items() if name != "version"},
    "another member": lambda found: {**found, "evil": 1},
    "a list": lambda found: [found],
    "millions": _many,
    "kind": lambda found: _made(found, kind="socket"),
    "phase": lambda found: {**found, "phase": "never"},
    "relative rootfs": lambda found: {**found, "rootfs": {**found["rootfs"], "path": "rootfs"}},
    "namespace": lambda found: {**found, "namespace": {"kind": "host", "inode": 1}},
    "true as inode": lambda found: {**found, "namespace": {**found["namespace"], "inode": True}},
}


@pytest.mark.parametrize("how", TAMPERED)
def test_T10_a_record_that_was_tampered_with_is_refused_as_a_whole(world: World, how: str) -> None:
    prepare(world)
    found = set_up(world, "/a")
    (world.state / "c1.json").write_text(json.dumps(TAMPERED[how](found)))
    there = look(world)
    fails(poststop(world), 74)
    assert look(world) == there


def test_T10_a_record_that_was_tampered_with_is_not_continued(world: World) -> None:
    prepare(world)
    found = set_up(world, "/a")
    (world.state / "c1.json").write_text(json.dumps(_used(found, name="..")))
    refused(world, *mount(world, "/b"), code=74)


def test_T10_a_record_of_another_bundle_is_left_alone(world: World) -> None:
    prepare(world)
    set_up(world, "/a")
    (world.path / "other").mkdir()
    there = look(world)
    succeeds(poststop(world, bundle=str(world.path / "other")))
    assert look(world) == there


@pytest.mark.parametrize(
    ("name", "number"),
    faults(
        *(("mkdirat", 1), ("fsync", 1), ("fsync", 2), ("fsync", 3), ("move_mount", 1), ("move_mount", 2)),
        ("renameat", 2),
    ),
)
def test_T11_a_kill_at_any_point_is_undone_by_poststop(world: World, name: str, number: int) -> None:
    prepare(world)
    before = look(world)
    killer = fail(name, number, "signal=KILL")
    done = call(world, "prestart", *mount(world, "/k/a", "/k/b"), stdin=state(world), before=killer)
    assert done.returncode == -9
    gone(world, before)


def test_T11_after_another_boot_only_mount_points_are_left_to_remove(world: World) -> None:
    prepare(world)
    before = look(world)
    found = set_up(world, "/a/b")
    command("umount", f"{world.rootfs}/a/b")
    (world.state / "c1.json").write_text(json.dumps({**found, "boot": "0" * 8 + found["boot"][8:]}))
    command("mount", "-t", "tmpfs", "unrelated", f"{world.rootfs}/etc")
    there = support.mounts()
    succeeds(poststop(world))
    assert support.mounts() == there
    command("umount", f"{world.rootfs}/etc")
    assert look(world) == before


@pytest.mark.parametrize("error", ["EINVAL", "EBUSY", "EPERM"])
def test_T12_what_cannot_be_unmounted_stays_recorded(world: World, error: str) -> None:
    prepare(world)
    before = look(world)
    set_up(world, "/a")
    there = look(world)
    done = poststop(world, before=fail("umount2", 1, f"error={error}"))
    fails(done, 71, "/a")
    assert support.mounts() == there["mounts"]
    assert support.records(world.state) == ["c1.json"]
    gone(world, before)


def test_T13_poststop_without_a_set_up_or_twice_is_done(world: World) -> None:
    prepare(world)
    before = look(world)
    gone(world, before)
    set_up(world, "/a/b")
    gone(world, before)
    gone(world, before)


@pytest.mark.kernel(5, 12)
def test_T13_poststop_after_a_set_up_that_failed_is_done(world: World) -> None:
    prepare(world)
    before = look(world)
    done = call(world, "prestart", *mount(world, "/a", "/b"), stdin=state(world), before=fail("move_mount", 2))
    fails(done, 71)
    assert look(world) == before
    gone(world, before)


def test_T14_a_bundle_that_is_gone_is_not_needed(world: World) -> None:
    prepare(world)
    kept = support.busybox_rootfs(world.path / "kept")
    support.bundle(world.path / "bundle", ["true"], rootfs=kept)
    before = (support.tree(kept), support.mounts())
    set_up(world, "/a/b")
    assert os.path.samefile(f"{kept}/a/b", world.source)
    shutil.rmtree(world.path / "bundle")
    succeeds(poststop(world))
    assert (support.tree(kept), support.mounts()) == before
    assert support.records(world.state) == []


def test_T15_a_dry_run_of_a_tear_down_changes_nothing(world: World) -> None:
    prepare(world)
    set_up(world, "/a/b")
    there = look(world)
    done = call(world, "poststop", "--dry-run", "--format=json", stdin=state(world, status="stopped"))
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr, report["remove"]) == (0, "", ["/a/b", "/a"])
    assert look(world) == there
    no_process_left()


@pytest.mark.parametrize("words", [["prestart"], ["createRuntime"], []])
def test_T15_a_dry_run_blocks_nowhere_and_makes_nothing(world: World, words: list[str]) -> None:
    prepare(world)
    world.state.rmdir()
    os.mkfifo(world.path / "fifo")
    os.mkfifo(f"{world.rootfs}/fifo")
    before = look(world)
    log = ["--log", str(world.path / "log")]
    asked = ["--mount", f"src={world.path}/fifo,dst=/fifo", "--mount", f"src={world.path}/fifo,dst=/new/fifo"]
    bundle = str(world.path / "bundle")
    done = call(world, *words, "--dry-run", "--bundle", bundle, *log, *asked, stdin="")
    assert (done.returncode, done.stderr) == (0, "")
    assert look(world) == before
