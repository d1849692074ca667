# SPDX-License-Identifier: Apache-2.0
"""What cannot be inspected is not gone: its record stays, one line says why, and it is undone when it can be."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
from typing import TYPE_CHECKING, Any

import pytest

from helpers import kernels, mounting, support
from helpers.world import World, call, fail, mount, mounted, state
from oci_bind_hook.kernel.proc import Proc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

NOT_NOW = ["EIO", "ENOMEM", "EMFILE", "ENFILE", "ESTALE", "EACCES", "ENOTCONN", "ELOOP"]
BOOT = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def set_up(world: World) -> World:
    """A container in this namespace with mount points made for it, whose binds and first process are gone."""
    support.bundle(world.path / "bundle", ["true"])
    assert call(world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world)).returncode == 0
    for path in ("/c", "/a/b"):
        mounting.umount(f"{world.rootfs}{path}", mounting.MNT_DETACH)
    change(world, init={"pid": 1, "start": 1, "first": None})
    return world


def change(world: World, **members: Any) -> None:
    path = world.state / "c1.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}, separators=(",", ":")))


def poststop(world: World, *before: str, container: str = "c1") -> CompletedProcess[str]:
    return call(world, "poststop", stdin=state(world, container, "stopped"), before=before)


def refuse(world: World, error: str, *, path: str | None = None) -> list[str]:
    """The command in which the opening of one path is refused, where it is opened as a whole."""
    inject = ["-e", "trace=openat,open", "-e", f"inject=openat:error={error}"]
    return ["strace", "-qq", "-o", "/dev/null", "-P", path or world.rootfs, *inject]


ADVICE = r"it stays in the state file; .*run oci-bind-hook gc"


def kept(world: World, done: CompletedProcess[str], why: str) -> None:
    """A tear-down that ended in one line and left the record as it was."""
    assert (done.returncode, done.stderr.count("\n")) == (os.EX_OSERR, 1), done
    assert why in done.stderr
    assert re.search(ADVICE, done.stderr), done.stderr
    record = json.loads((world.state / "c1.json").read_text())
    assert support.made_paths(record) == ["/a", "/a/b", "/c"]


def undone(world: World, done: CompletedProcess[str]) -> None:
    assert (done.returncode, done.stderr) == (0, "")
    assert (os.listdir(world.state), mounted(world)) == ([], [])
    assert not {"a", "c"} & set(os.listdir(world.rootfs))


@pytest.mark.parametrize("command", ["poststop", "gc"])
@pytest.mark.parametrize("error", NOT_NOW)
def test_a_rootfs_that_cannot_be_opened_is_not_gone(set_up: World, error: str, command: str) -> None:
    strace = refuse(set_up, error)
    why = os.strerror(getattr(errno, error))
    if command == "poststop":
        kept(set_up, poststop(set_up, *strace), why)
        planned = call(set_up, "--dry-run", stdin=state(set_up, status="stopped"), before=tuple(strace))
        assert (planned.returncode, why in planned.stdout) == (os.EX_OSERR, True)
        assert re.search(ADVICE, " ".join(planned.stdout.split())), planned.stdout
    else:
        done = call(set_up, "gc", "--format", "json", stdin="", before=tuple(strace))
        [entry] = json.loads(done.stdout)["records"]
        assert (done.returncode, entry["action"], entry["remove"]) == (os.EX_OSERR, "failed", [])
        assert why in entry["problem"]["message"]
    shown = call(set_up, "show", "c1", "--format", "json", stdin="", before=tuple(strace))
    states = {(made["state"], why in made["reason"]) for made in json.loads(shown.stdout)["records"][0]["made"]}
    assert states == {("unseen", True)}
    undone(set_up, poststop(set_up))


@pytest.mark.parametrize("error", NOT_NOW)
def test_binds_are_undone_even_if_the_rootfs_cannot_be_opened(world: World, error: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    assert call(world, "prestart", *mount(world, "/data"), stdin=state(world)).returncode == 0
    done = poststop(world, *refuse(world, error))
    assert (done.returncode, done.stderr, mounted(world), os.listdir(world.state)) == (0, "", [], [])


def test_a_file_system_that_is_not_mounted_now_is_not_gone(world: World, tmp_path: Path) -> None:
    """Neither where its folder is empty meanwhile, nor where another file system has its place."""
    disk = tmp_path / "disk"
    mounting.tmpfs(str(disk))
    mounting.bind(str(disk), mounting.plant(tmp_path / "aside", {}))
    rootfs = support.busybox_rootfs(disk / "rootfs")
    support.bundle(world.path / "bundle", ["true"], rootfs=rootfs)
    assert call(world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world)).returncode == 0
    for path in ("/c", "/a/b"):
        mounting.umount(f"{rootfs}{path}", mounting.MNT_DETACH)
    mounting.umount(str(disk))
    kept(world, poststop(world), "cannot be opened: No such file or directory")
    mounting.plant(disk / "rootfs", {})
    kept(world, poststop(world), f"{rootfs} is now another file system")
    mounting.bind(str(tmp_path / "aside"), str(disk))
    assert poststop(world).returncode == 0
    assert (os.listdir(world.state), {"a", "c"} & set(os.listdir(rootfs))) == ([], set())


def overlay(world: World, tmp_path: Path) -> str:
    """A rootfs on overlayfs; its place."""
    for name in ("upper", "work", "merged"):
        (tmp_path / name).mkdir()
    merged = str(tmp_path / "merged")
    mount_overlay(world, tmp_path)
    return merged


def mount_overlay(world: World, tmp_path: Path) -> None:
    options = f"lowerdir={world.rootfs},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    mounting.mount("overlay", f"{tmp_path}/merged", "overlay", data=options)


@pytest.mark.parametrize("boot", [None, BOOT], ids=["this boot", "another boot"])
def test_an_overlay_that_is_not_mounted_now_is_not_gone(world: World, tmp_path: Path, boot: str | None) -> None:
    merged = overlay(world, tmp_path)
    support.bundle(world.path / "bundle", ["true"], rootfs=merged)
    assert call(world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world)).returncode == 0
    for path in ("/c", "/a/b"):
        mounting.umount(f"{merged}{path}", mounting.MNT_DETACH)
    if boot:
        change(world, boot=boot)
    mounting.umount(merged)
    kept(world, poststop(world), f"the rootfs {merged} is not mounted in this mount namespace")
    mount_overlay(world, tmp_path)
    assert poststop(world).returncode == 0
    assert (os.listdir(world.state), os.listdir(f"{tmp_path}/upper")) == ([], [])


def test_where_mount_points_are_to_stay_nothing_is_kept_for_them(set_up: World) -> None:
    done = call(
        set_up,
        "poststop",
        "--keep-mountpoints",
        stdin=state(set_up, status="stopped"),
        before=tuple(refuse(set_up, "EIO")),
    )
    assert (done.returncode, done.stderr, os.listdir(set_up.state)) == (0, "", [])


def test_a_device_that_another_boot_has_numbered_anew_is_the_same(set_up: World) -> None:
    record = json.loads((set_up.state / "c1.json").read_text())
    dev = record["rootfs"]["dev"] + 1
    for made in record["made"]:
        made["identity"]["dev"] = dev
    above = [{**folder, "dev": folder["dev"] + 1} for folder in record["rootfs"]["above"]]
    change(set_up, rootfs={**record["rootfs"], "dev": dev, "above": above}, made=record["made"])
    kept(set_up, poststop(set_up), f"{set_up.rootfs} is now another file system")
    change(set_up, boot=BOOT)
    undone(set_up, poststop(set_up))


# What can hide a rootfs for real, each with the way to show it again.
def die(world: World) -> Callable[[], None]:
    """A FUSE whose server has ended."""
    os.close(mounting.dead_fuse(world.rootfs))
    return lambda: mounting.umount(world.rootfs)


def unmount(world: World) -> Callable[[], None]:
    top = str(world.path / "bundle")
    mounting.bind(top, mounting.plant(world.path / "aside", {}))
    mounting.umount(top)
    return lambda: mounting.bind(str(world.path / "aside"), top)


def renumber(world: World) -> Callable[[], None]:
    """The same file system mounted anew, with another device number: the old one is still in use."""
    top = str(world.path / "bundle")
    before = os.stat(world.rootfs).st_dev
    mounting.bind(top, mounting.plant(world.path / "aside", {}))
    mounting.umount(top)
    layer(world)
    assert os.stat(world.rootfs).st_dev != before
    # Only another start of the machine can have done so by itself.
    return lambda: change(world, boot=BOOT)


def layer(world: World) -> None:
    """Mounts the bundle: a folder in an overlay is known by its device number."""
    names = [mounting.plant(world.path / name, {}) for name in ("lower", "upper", "work")]
    options = "lowerdir={},upperdir={},workdir={}".format(*names)
    mounting.mount("overlay", str(world.path / "bundle"), "overlay", data=options)


@pytest.mark.parametrize("how", [die, unmount, renumber])
def test_what_is_hidden_for_real_is_not_gone(world: World, how: Callable[[World], Callable[[], None]]) -> None:
    layer(world)
    support.busybox_rootfs(world.path / "bundle/rootfs")
    support.bundle(world.path / "bundle", ["true"])
    assert call(world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world)).returncode == 0
    for path in ("/c", "/a/b"):
        mounting.umount(f"{world.rootfs}{path}", mounting.MNT_DETACH)
    change(world, init={"pid": 1, "start": 1, "first": None})
    show_again = how(world)
    kept(world, poststop(world), world.rootfs)
    done = call(world, "gc", "--format", "json", stdin="")
    [entry] = json.loads(done.stdout)["records"]
    assert (done.returncode, entry["action"], entry["remove"]) == (os.EX_OSERR, "failed", [])
    assert world.rootfs in entry["problem"]["message"]
    for command in (["list"], ["show", "c1"]):
        told = call(world, *command, "--format", "json", stdin="")
        [entry] = json.loads(told.stdout)["records"]
        assert {(made["state"], world.rootfs in made["reason"]) for made in entry["made"]} == {("unseen", True)}
    show_again()
    undone(world, poststop(world))


def refuse_look(error: str, path: str, *calls: str) -> list[str]:
    """The command in which each of these calls on one path, or on an fd of it, is refused."""
    inject = [word for one in calls for word in ("-e", f"inject={one}:error={error}")]
    return ["strace", "-qq", "-o", "/dev/null", "-P", path, "-e", f"trace={','.join(calls)}", *inject]


def test_a_first_process_that_cannot_be_looked_at_has_not_ended(set_up: World) -> None:
    """Its container would be undone while it runs."""
    start = Proc().start_time(os.getpid())
    change(set_up, init={"pid": os.getpid(), "start": start, "first": None})
    before = set_up.snapshot()
    done = poststop(set_up, *fail("pidfd_open", 1, "error=EMFILE"))
    assert (done.returncode, done.stderr.count("\n")) == (os.EX_OSERR, 1), done
    assert f"/proc/{os.getpid()}: Too many open files" in done.stderr
    assert set_up.snapshot() == before


def test_a_bundle_that_cannot_be_looked_at_is_not_another_one(set_up: World) -> None:
    link = set_up.path / "link"
    link.symlink_to("bundle")
    text = state(set_up, status="stopped", bundle=str(link))
    done = call(set_up, "poststop", stdin=text, before=tuple(refuse_look("EIO", str(link), "newfstatat")))
    assert done.returncode == os.EX_OSERR
    assert f"{link}: Input/output error" in done.stderr
    undone(set_up, call(set_up, "poststop", stdin=text))


def test_a_state_file_that_cannot_be_read_now_is_not_to_be_moved_away(set_up: World) -> None:
    path = f"{set_up.state}/c1.json"
    done = poststop(set_up, *refuse_look("EIO", path, "read"))
    assert done.returncode == os.EX_IOERR
    assert f"the state file {path} cannot be read: Input/output error (the disk" in done.stderr
    assert "move the file" not in done.stderr
    undone(set_up, poststop(set_up))


def test_an_upper_folder_that_cannot_be_looked_at_is_not_unknown(world: World, tmp_path: Path) -> None:
    """Without it the rootfs would not be that of its neighbours, once it was mounted anew."""
    merged = overlay(world, tmp_path)
    support.bundle(world.path / "bundle", ["true"], rootfs=merged)
    strace = tuple(refuse_look("EIO", f"{tmp_path}/upper", "newfstatat"))
    arguments = ("prestart", *mount(world, "/a"))
    done = call(world, *arguments, stdin=state(world), before=strace)
    assert (done.returncode, os.listdir(world.state)) == (os.EX_NOINPUT, []), done
    assert call(world, *arguments, stdin=state(world)).returncode == 0
    mounting.umount(f"{merged}/a", mounting.MNT_DETACH)
    for error in ("EIO", "EACCES"):
        done = poststop(world, *refuse_look(error, f"{tmp_path}/upper", "newfstatat"))
        assert (done.returncode, "it stays in the state file" in done.stderr) == (os.EX_OSERR, True), done
    assert poststop(world).returncode == 0
    assert (os.listdir(world.state), os.listdir(f"{tmp_path}/upper")) == ([], [])


def test_a_mount_point_that_cannot_be_opened_is_told_of_with_the_reason(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    assert call(world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world)).returncode == 0
    done = poststop(world, *refuse(world, "EMFILE", path=f"{world.rootfs}/c"))
    assert done.returncode == os.EX_OSERR
    assert "could not undo the bind on /c: Too many open files, raise RLIMIT_NOFILE" in done.stderr
    assert mounted(world) == ["/c"]
    undone(world, poststop(world))


@pytest.mark.kernel(6, 8)
def test_a_mount_that_the_kernel_does_not_tell_of_is_not_gone(world: World) -> None:
    """statmount(2) is the only call of a look that strace cannot refuse."""
    support.bundle(world.path / "bundle", ["true"])
    assert call(world, "prestart", *mount(world, "/data"), stdin=state(world)).returncode == 0
    change(world, init={"pid": 1, "start": 1, "first": None})
    before = world.snapshot()
    kernels.refuse("statmount", error=errno.ENOMEM)
    for done in (poststop(world), *(call(world, command, stdin="") for command in ("list", "gc"))):
        assert (done.returncode, done.stderr.count("\n"), done.stdout) == (os.EX_OSERR, 1, ""), done
        assert f"{world.rootfs}/data: Cannot allocate memory, the kernel or the cgroup" in done.stderr
    assert world.snapshot() == before


def test_a_neighbour_that_cannot_be_read_may_have_made_what_the_runtime_mounted_on(set_up: World) -> None:
    """The container is recorded, so that it is handed what the neighbour would remove.

    The runtime's bind is of another source: before Linux 6.8 it may get the number of the neighbour's that is gone.
    """
    other = set_up.path / "other"
    other.mkdir()
    bind = {"type": "bind", "source": str(other), "destination": "/a/b", "options": ["rbind", "rprivate"]}
    support.bundle(set_up.path / "bundle", ["true"], mounts=[bind])
    mounting.bind(str(other), f"{set_up.rootfs}/a/b")
    strace = refuse_look("EIO", f"{set_up.state}/c1.json", "read")
    done = call(set_up, "prestart", stdin=state(set_up, "c2"), before=tuple(strace))
    assert (done.returncode, done.stderr) == (0, "")
    record = json.loads((set_up.state / "c2.json").read_text())
    assert (record["mounts"], record["made"]) == ([], [])
    assert poststop(set_up).returncode == 0
    record = json.loads((set_up.state / "c2.json").read_text())
    assert support.made_paths(record) == ["/a", "/a/b"]
    mounting.umount(f"{set_up.rootfs}/a/b")
    undone(set_up, poststop(set_up, container="c2"))


def test_what_is_collected_besides_cannot_fail_a_poststop(set_up: World) -> None:
    """It judges the neighbours by the list of all processes."""
    assert call(set_up, "prestart", *mount(set_up, "/a/b"), stdin=state(set_up, "c2")).returncode == 0
    done = poststop(set_up, *refuse_look("EIO", "/proc", "getdents64"))
    assert (done.returncode, done.stderr) == (0, "")
    assert not (set_up.state / "c1.json").exists()
    assert poststop(set_up, container="c2").returncode == 0
    undone(set_up, poststop(set_up))


def remove(world: World) -> None:
    shutil.rmtree(world.rootfs)


def remove_with_the_bundle(world: World) -> None:
    shutil.rmtree(world.path / "bundle")


def replace(world: World) -> None:
    os.rename(world.rootfs, f"{world.rootfs}.old")
    os.mkdir(world.rootfs)


@pytest.mark.parametrize("boot", [None, BOOT], ids=["this boot", "another boot"])
@pytest.mark.parametrize("how", [remove, remove_with_the_bundle, replace])
def test_what_was_removed_or_replaced_is_gone(set_up: World, how: Callable[[World], None], boot: str | None) -> None:
    if boot:
        change(set_up, boot=boot)
    how(set_up)
    done = poststop(set_up)
    assert (done.returncode, done.stderr, os.listdir(set_up.state)) == (0, "", [])


def test_the_next_container_of_the_id_starts_all_the_same(set_up: World) -> None:
    """Its mount points may be others, or the same, which are there then and not made."""
    done = call(set_up, "prestart", *mount(set_up, "/data"), stdin=state(set_up), before=tuple(refuse_once(set_up)))
    assert (done.returncode, done.stderr, mounted(set_up)) == (0, "", ["/data"])
    assert poststop(set_up).returncode == 0
    assert os.path.isdir(f"{set_up.rootfs}/a/b")


def refuse_once(world: World) -> list[str]:
    """The rootfs is opened first to undo what an earlier container left, and then for the set-up."""
    return [*refuse(world, "EIO")[:-1], "inject=openat:error=EIO:when=1"]


def test_what_a_neighbour_that_cannot_be_read_may_use_is_kept(set_up: World) -> None:
    """Its binds would vanish with the mount points, in whatever namespace they are."""
    text = state(set_up, "c2")
    assert call(set_up, "prestart", *mount(set_up, "/a/b"), stdin=text).returncode == 0
    file = set_up.state / "c2.json"
    good = file.read_text()
    for bad in ("", good[:-20]):
        file.write_text(bad)
        kept(set_up, poststop(set_up), str(file))
    file.write_text(good)
    kept(set_up, poststop(set_up, *refuse_look("EIO", str(file), "read")), f"{file} cannot be read: Input/output error")
    assert mounted(set_up) == ["/a/b"]
    assert poststop(set_up).returncode == 0
    assert mounted(set_up) == ["/a/b"], "handed over"
    assert poststop(set_up, container="c2").returncode == 0
    undone(set_up, poststop(set_up))


def test_without_birth_times_a_killed_run_is_undone_too(world: World) -> None:
    kernels.play("before 4.11")
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    killed = call(
        world, "prestart", *mount(world, "/a/b", "/c"), stdin=state(world), before=fail("renameat", 2, "signal=KILL")
    )
    assert killed.returncode == -signal.SIGKILL, killed
    assert {"a", "c"} <= set(os.listdir(world.rootfs))
    assert poststop(world).returncode == 0
    assert world.snapshot() == before


def test_a_way_that_is_deeper_than_the_files_that_may_be_open(world: World) -> None:
    """The folders on the way stay open, for which the soft limit is raised."""
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    assert call(world, "prestart", *mount(world, "/x" * 200), stdin=state(world)).returncode == 0
    done = poststop(world, "prlimit", "--nofile=64:4096")
    assert (done.returncode, done.stderr) == (0, "")
    assert world.snapshot() == before
