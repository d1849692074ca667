# SPDX-License-Identifier: Apache-2.0
"""Id-mapped binds: whom a container sees as the owner, what cannot be mapped, and that the helper never stays."""

from __future__ import annotations

import ctypes
import os
import signal
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from helpers.world import call, fail, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

CLONE_NEWUSER = 0x10000000
PR_SET_CHILD_SUBREAPER = 36
MAP = "uids=1000-0-1#1001-5-1;gids=2000-0-1#2001-6-1"
OWNERS = "stat -c %u:%g /data/own /data/other /data/unmapped /data/sub/own"
RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)


@pytest.fixture
def volume(world: World) -> str:
    """A source with a mount below it, whose files belong to several people."""
    volume = mounting.mappable(f"{world.path}/volume")
    mounting.mappable(f"{volume}/sub")
    owners = {"own": (1000, 2000), "other": (1001, 2001), "unmapped": (7, 7), "sub/own": (1000, 2000)}
    for name, (uid, gid) in owners.items():
        with open(f"{volume}/{name}", "wb"):
            os.chown(f"{volume}/{name}", uid, gid)
    return volume


def owners(runtime: str, bundle: str) -> list[str]:
    done = support.run_container(runtime, bundle, "c1")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.kernel(5, 12)
@RUNTIMES
@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ("rbind", ["1000:2000", "1001:2001", "7:7", "1000:2000"]),
        (f"idmap={MAP}", ["0:0", "5:6", "65534:65534", "1000:2000"]),
        (f"ridmap={MAP}", ["0:0", "5:6", "65534:65534", "0:0"]),
    ],
    ids=["none", "idmap", "ridmap"],
)
@pytest.mark.parametrize("more", ["", ",ro", ",rro,rnoexec"])
def test_owners_are_those_of_the_map(
    world: World, volume: str, runtime: str, options: str, seen: list[str], more: str
) -> None:
    touch = "; for each in own sub/own; do touch -c /data/$each 2>/dev/null && echo written; done; true"
    bundle = world.bundle(OWNERS + touch, "createRuntime", "--mount", f"src={volume},dst=/data,{options}{more}")
    before = world.snapshot()
    written = {"": 2, ",ro": 1, ",rro,rnoexec": 0}[more]
    assert owners(runtime, bundle) == seen + ["written"] * written
    assert world.snapshot() == before


@pytest.mark.kernel(5, 12)
@RUNTIMES
def test_what_is_made_in_it_belongs_to_the_owner_in_the_source(world: World, volume: str, runtime: str) -> None:
    os.chown(volume, 1000, 2000)
    mount = f"src={volume},dst=/data,idmap={MAP}"
    owners(runtime, world.bundle("echo new > /data/new", "createRuntime", "--mount", mount))
    status = os.stat(f"{volume}/new")
    assert (status.st_uid, status.st_gid) == (1000, 2000)


USERS = [{"containerID": 0, "hostID": 0, "size": 1000}, {"containerID": 1000, "hostID": 101000, "size": 10}]
GROUPS = [{"containerID": 0, "hostID": 0, "size": 2000}, {"containerID": 2000, "hostID": 202000, "size": 10}]


@pytest.mark.kernel(5, 12)
@RUNTIMES
@pytest.mark.parametrize(
    ("options", "seen"),
    [
        ("rbind", ["65534:65534", "65534:65534", "7:7", "65534:65534"]),
        ("idmap", ["1000:2000", "1001:2001", "7:7", "65534:65534"]),
        ("ridmap", ["1000:2000", "1001:2001", "7:7", "1000:2000"]),
    ],
)
def test_without_ids_the_map_is_that_of_the_container(
    world: World, volume: str, runtime: str, options: str, seen: list[str]
) -> None:
    bundle = world.bundle(
        OWNERS,
        "createRuntime",
        "--mount",
        f"src={volume},dst=/data,{options}",
        namespaces=(*support.NAMESPACES, "user"),
        linux={"uidMappings": USERS, "gidMappings": GROUPS},
    )
    assert owners(runtime, bundle) == seen


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize("options", ["idmap", "ridmap"])
def test_without_ids_the_map_is_that_of_the_namespace_to_be_joined(world: World, volume: str, options: str) -> None:
    """crun takes a path for a user namespace without ids beside it; runc before 1.2 does not."""
    joined = mapped_namespace()
    bundle = world.bundle(
        OWNERS,
        "createRuntime",
        "--mount",
        f"src={volume},dst=/data,{options}",
        namespaces=(*support.NAMESPACES, "user"),
        linux={
            "namespaces": [{"type": kind} for kind in support.NAMESPACES] + [{"type": "user", "path": joined}],
            "uidMappings": None,
            "gidMappings": None,
        },
    )
    seen = ["1000:2000", "1001:2001", "7:7", "1000:2000" if options == "ridmap" else "65534:65534"]
    assert owners("crun", bundle) == seen


def mapped_namespace() -> str:
    """The path of a user namespace that maps ids as USERS and GROUPS say; it ends with the test."""
    ready, tell_ready = os.pipe()
    child = os.fork()
    if child == 0:
        assert ctypes.CDLL(None).unshare(CLONE_NEWUSER) == 0
        os.write(tell_ready, b"x")
        signal.pause()
    os.read(ready, 1)
    for name, runs in (("uid_map", USERS), ("gid_map", GROUPS)):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write("".join(f"{run['containerID']} {run['hostID']} {run['size']}\n" for run in runs))
    return f"/proc/{child}/ns/user"


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/absent", (66, "the user namespace /absent of the container cannot be opened: No such file or directory")),
        ("/proc/self/ns/mnt", (78, "/proc/self/ns/mnt is not a user namespace")),
        ("/dev/null", (78, "/dev/null is not a user namespace")),
    ],
)
def test_a_namespace_to_be_joined_that_is_none(world: World, volume: str, path: str, answer: tuple[int, str]) -> None:
    namespaces = [{"type": "user", "path": path}]
    support.bundle(world.path / "bundle", ["true"], linux={"namespaces": namespaces})
    done = call(world, "prestart", "--mount", f"src={volume},dst=/data,idmap", stdin=state(world))
    assert (done.returncode, done.stderr) == (answer[0], f"oci-bind-hook: c1 prestart: --mount 1: {answer[1]}\n")
    assert mounted(world) == []


@pytest.mark.kernel(5, 12)
def test_a_bind_of_the_config_by_hand(world: World, volume: str) -> None:
    """Where the hook makes config.json's own binds, it maps ids as that says."""
    ids = [{"containerID": 1000, "hostID": 3, "size": 1}, {"containerID": 2000, "hostID": 4, "size": 1}]
    entry = {**support.bind(volume, "/data"), "uidMappings": ids, "gidMappings": ids}
    support.bundle(world.path / "bundle", ["true"], mounts=[entry])
    before = world.snapshot()
    done = call(world, "prestart", stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")
    status = os.stat(f"{world.rootfs}/data/own")
    assert (status.st_uid, status.st_gid) == (3, 4)
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


# -- what cannot be mapped ---------------------------------------------------------------------------------------------


def refused(world: World, mount: str, **more: tuple[str, ...]) -> tuple[int, str]:
    """The exit code of a call by hand that is refused, and its line without container and stage."""
    support.bundle(world.path / "bundle", ["true"])
    before = world.snapshot()
    done = call(world, "prestart", "--mount", mount, stdin=state(world), **more)
    assert world.snapshot() == before
    return done.returncode, done.stderr.removeprefix("oci-bind-hook: c1 prestart: ")


def foreseen(world: World, mount: str) -> tuple[int, str]:
    """The same of a dry-run."""
    before = world.snapshot()
    done = call(world, "prestart", "--mount", mount, "--dry-run", stdin=state(world))
    assert world.snapshot() == before
    assert "not found here" not in done.stdout
    return done.returncode, done.stdout.partition("problem    ")[2].partition("\n")[0] + "\n"


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize(("source", "kind"), [("/proc", "proc"), ("/sys", "sysfs"), ("/dev/pts", "devpts")])
def test_a_file_system_that_cannot_be_mapped_is_named(world: World, source: str, kind: str) -> None:
    mount = f"src={source},dst=/data,bind,idmap={MAP}"
    problem = f"--mount 1: the {kind} file system of {source} cannot be id-mapped\n"
    assert refused(world, mount) == (69, problem)
    assert foreseen(world, mount) == (69, problem)


@pytest.mark.kernel(5, 12)
def test_one_that_this_kernel_cannot_map_is_foreseen(world: World) -> None:
    """Which can be mapped depends on the kernel: it is asked, on a copy that nobody sees."""
    source = mounting.overlay(f"{world.path}/merged", lower=str(world.source))
    mount = f"src={source},dst=/data,bind,idmap={MAP}"
    answer = (69, f"--mount 1: the overlay file system of {source} cannot be id-mapped\n")
    assert refused(world, mount) == answer
    assert foreseen(world, mount) == answer


@pytest.mark.parametrize("name", ["before 5.12", "before 4.11"])
def test_without_the_mount_api_it_is_foreseen_that_nothing_can_be_mapped(world: World, name: str) -> None:
    kernels.play(name)
    mount = f"src={world.source},dst=/data,bind,idmap={MAP}"
    answer = (69, "--mount 1: this kernel cannot map the owners of a mount\n")
    assert refused(world, mount) == answer
    assert foreseen(world, mount) == answer


@pytest.mark.kernel(5, 12)
def test_one_below_that_cannot_be_mapped_is_named(world: World, volume: str) -> None:
    mounting.mount("proc", f"{volume}/sub", "proc")
    mount = f"src={volume},dst=/data,ridmap={MAP}"
    answer = refused(world, mount)
    kinds = ", ".join(sorted(["proc", mounting.line(volume).type]))
    assert answer == (69, f"--mount 1: one of the {kinds} file systems of {volume} cannot be id-mapped\n")
    assert foreseen(world, mount) == answer
    support.bundle(world.path / "bundle", ["true"])
    done = call(world, "prestart", "--mount", f"src={volume},dst=/data,idmap={MAP}", stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")


def test_runs_that_overlap_are_refused_before_the_kernel_does(world: World, volume: str) -> None:
    for idmap in ("uids=0-0-5#4-9-1;gids=0-0-1", "uids=0-0-1;gids=0-0-5#4-9-1"):
        answer = refused(world, f"src={volume},dst=/data,idmap={idmap}")
        assert answer == (78, "--mount 1: the ranges of ids 0-0-5 and 4-9-1 overlap\n")
    answer = refused(world, f"src={volume},dst=/data,idmap=uids=0-5-1#1-0-6;gids=0-0-1")
    assert answer == (78, "--mount 1: the ranges of ids 1-0-6 and 0-5-1 overlap\n")
    many = "#".join(f"{number}-{number}-1" for number in range(341))
    answer = refused(world, f"src={volume},dst=/data,idmap=uids=0-0-1;gids={many}")
    assert answer == (78, "--mount 1: the id map has 341 ranges, and the limit is 340\n")


@pytest.mark.kernel(5, 12)
def test_one_that_is_mapped_already_says_so(world: World, volume: str) -> None:
    support.bundle(world.path / "bundle", ["true"])
    os.mkdir(f"{world.rootfs}/data/two")
    done = call(world, "prestart", "--mount", f"src={volume},dst=/data,idmap={MAP}", stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")
    done = call(
        world, "prestart", "--mount", f"src={world.rootfs}/data,dst=/real,idmap={MAP}", stdin=state(world, "c2")
    )
    assert done.returncode == 71
    assert foreseen(world, f"src={world.rootfs}/data,dst=/real,idmap={MAP}")[0] == 71
    assert done.stderr.endswith(
        "Operation not permitted (it is already id-mapped, or belongs to another user namespace)\n"
    )
    assert mounted(world) == ["/data", "/data/sub"]


# -- the process that makes the user namespace -------------------------------------------------------------------------


def orphans() -> list[int]:
    """What the hook left behind, waited for until it has ended."""
    left = []
    while True:
        try:
            left.append(os.waitpid(-1, 0)[0])
        except ChildProcessError:
            return left


# Without -f: the child writes, too, but only to us.
BAD_MAP = ("strace", "-qq", "-o", "/dev/null", "-e", "trace=write", "-e", "inject=write:error=EINVAL:when=1")
ENDS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "good": (f"idmap={MAP}", (), 0),
    "bad map": (f"idmap={MAP}", BAD_MAP, 71),
    "no user namespace": (f"idmap={MAP}", fail("unshare", 1, "error=ENOSPC"), 71),
    "no pidfd": (f"idmap={MAP}", fail("pidfd_open", 1), 71),
    "not mapped": (f"idmap={MAP}", fail("mount_setattr", 1, "error=EINVAL"), 69),
}


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize("end", ENDS)
def test_no_process_is_left(world: World, volume: str, end: str) -> None:
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    options, before, code = ENDS[end]
    support.bundle(world.path / "bundle", ["true"])
    done = call(world, "prestart", "--mount", f"src={volume},dst=/data,{options}", stdin=state(world), before=before)
    assert done.returncode == code, done.stderr
    assert orphans() == []


@pytest.mark.kernel(5, 12)
def test_it_ends_with_the_hook(world: World, volume: str) -> None:
    """Killed while the child waits for its map: the test's time would be up if it went on waiting."""
    assert ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    support.bundle(world.path / "bundle", ["true"])
    killer = fail("pidfd_open", 1, "signal=KILL")
    words = ("prestart", "--mount", f"src={volume},dst=/data,idmap={MAP}")
    done = call(world, *words, stdin=state(world), before=killer)
    assert done.returncode in (-9, 137)
    # It had the lock of the container's id as well, and has let go of it.
    assert call(world, *words, stdin=state(world)).returncode == 0
    orphans()
