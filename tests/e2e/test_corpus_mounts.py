# SPDX-License-Identifier: Apache-2.0
"""The attack corpus, M: what a mount is when it can first be seen, where it is seen, and what a kernel refuses."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, support
from helpers.corpus import fails, gone, lands, look, options, prepare, refused, succeeds
from helpers.world import call, fail, mount, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

LESS = {"nosuid", "nodev", "noexec"}
# What follows is the hook's own command, and then what to look at: in a user and a mount namespace of an own.
IN_USER_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


def command(*words: str) -> None:
    subprocess.run(words, check=True)


def tmpfs(world: World, name: str, words: str = "rw") -> str:
    path = f"{world.source}/{name}" if name else str(world.source)
    os.makedirs(path, exist_ok=True)
    command("mount", "-t", "tmpfs", "-o", words, "host", path)
    return path


def cannot_write(path: str) -> None:
    with pytest.raises(OSError, match="Read-only") as caught:
        os.close(os.open(f"{path}/new", os.O_CREAT | os.O_WRONLY))
    assert caught.value.errno == errno.EROFS


@pytest.mark.parametrize("kernel", ["this", *kernels.OLDER])
@pytest.mark.parametrize("where", ["config", "argument"])
def test_M01_read_only_is_read_only(world: World, kernel: str, where: str) -> None:
    prepare(world, *([support.bind(world.source, "/a", "ro")] if where == "config" else []))
    kernels.play(kernel)

    def check() -> None:
        assert "ro" in options(world, "/a")
        cannot_write(f"{world.rootfs}/a")
        # The source itself is as it was.
        (world.source / "new").touch()
        (world.source / "new").unlink()

    words = mount(world, "/a", options=",ro") if where == "argument" else []
    lands(world, *words, at=["/a"], check=check, dry=False)


@pytest.mark.parametrize("kernel", ["this", *kernels.OLDER])
def test_M02_attributes_of_the_source_are_kept(world: World, kernel: str) -> None:
    prepare(world)
    tmpfs(world, "", "nosuid,nodev,noexec,noatime")
    kernels.play(kernel)

    def check() -> None:
        assert {*LESS, "noatime", "ro"} <= options(world, "/a")

    lands(world, *mount(world, "/a", options=",ro"), at=["/a"], check=check, dry=False)


def test_M03_attributes_that_a_user_namespace_locks_are_kept(world: World) -> None:
    prepare(world)
    tmpfs(world, "", "nosuid,nodev,noexec")
    os.mkdir(f"{world.rootfs}/a")
    before = look(world)
    look_after = f'"$@" || exit; grep " {world.rootfs}/a " /proc/self/mountinfo >&2'
    words = mount(world, "/a", options=",ro")
    done = call(world, "prestart", *words, stdin=state(world), before=(*IN_USER_NAMESPACE, look_after, "sh"))
    assert done.returncode == 0, done.stderr
    assert {*LESS, "ro"} <= set(done.stderr.split(" ")[5].split(","))
    assert support.mounts() == before["mounts"]
    gone(world, before)


@pytest.mark.parametrize(("word", "below"), [("ro", "rw"), ("rro", "ro")])
def test_M04_mounts_below_are_read_only_if_that_is_said(world: World, word: str, below: str) -> None:
    prepare(world)
    tmpfs(world, "sub")

    def check() -> None:
        assert "ro" in options(world, "/a")
        assert below in options(world, "/a/sub")
        cannot_write(f"{world.rootfs}/a")
        if below == "ro":
            cannot_write(f"{world.rootfs}/a/sub")

    lands(world, *mount(world, "/a", options=f",{word}"), at=["/a", "/a/sub"], check=check, dry=False)


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize("word", ["ro", "rro"])
def test_M05_at_the_instant_it_is_attached_it_has_all_its_attributes(world: World, word: str) -> None:
    """Killed at the first call after it was attached: nothing can have been mended since."""
    prepare(world)
    tmpfs(world, "sub")
    before = look(world)
    words = mount(world, "/a", options=f",{word},nosuid,nodev")
    # With no sleep in between: the first mount_setattr is a question, the second makes it so, the third is propagation.
    done = call(
        world, "prestart", *words, stdin=state(world), before=fail("mount_setattr", _last(world, words), "signal=KILL")
    )
    assert done.returncode == -9
    assert {word.removeprefix("r") if word == "rro" else word, "nosuid", "nodev"} <= options(world, "/a")
    assert ("ro" in options(world, "/a/sub")) == (word == "rro")
    gone(world, before)


CAPABLE = "the container has CAP_SYS_ADMIN and can make the bind writable again"


@pytest.mark.parametrize("namespaces", [support.NAMESPACES, (*support.NAMESPACES, "user")], ids=["host", "user"])
def test_M05_who_has_CAP_SYS_ADMIN_in_the_container_can_undo_it_and_is_warned_of(
    world: World, namespaces: tuple[str, ...]
) -> None:
    """The kernel locks attributes only where it copies a mount into another user namespace, mount_namespaces(7)."""
    script = "touch /a/new || echo refused; mount -o remount,rw,bind none /a && touch /a/new && echo writable"
    log = world.path / "log"
    words = [*mount(world, "/a", options=",ro"), "--log", str(log)]
    bundle = world.bundle(script, "createRuntime", *words, namespaces=namespaces)
    os.chmod(world.source, 0o777)
    planned = subprocess.run(
        [world.launcher, "--dry-run", "--bundle", bundle], capture_output=True, text=True, check=True
    )
    assert f"  warning  {CAPABLE}\n" in planned.stdout
    done = support.run_container("runc", bundle, "c1")
    assert done.stdout == "refused\nwritable\n", done.stderr
    assert f'level="warning" msg="--mount 1: {CAPABLE}"' in log.read_text()


@pytest.mark.parametrize("given", ["bounding", "effective", "permitted", "inheritable", "ambient", None])
def test_M05_the_warning_is_for_a_container_that_can(world: World, given: str | None) -> None:
    prepare(world)
    file = world.path / "bundle/config.json"
    config = json.loads(file.read_text())
    config["process"]["capabilities"] = {"bounding": ["CAP_CHOWN"], **({given: ["CAP_SYS_ADMIN"]} if given else {})}
    file.write_text(json.dumps(config))
    words = ["--dry-run", "--format", "json", *mount(world, "/a", "/b", options=",ro"), *mount(world, "/c")]
    done = call(world, "prestart", *words, *mount(world, "/d", options=",rro"), stdin=state(world))
    warned = [CAPABLE in each["warnings"] for each in json.loads(done.stdout)["mounts"] if each["by"] == "hook"]
    assert warned == [given is not None, given is not None, False, given is not None]


def _last(world: World, words: list[str]) -> int:
    """Which mount_setattr is the first after move_mount, as ``fail`` counts."""
    calls = world.path / "calls"
    traced = ("strace", "-f", "-qq", "-o", str(calls), "-e", "trace=mount_setattr,move_mount")
    succeeds(call(world, "prestart", *words, stdin=state(world), before=traced))
    succeeds(call(world, "poststop", stdin=state(world, status="stopped")))
    names = ["move_mount" if "move_mount(" in line else "mount_setattr" for line in calls.read_text().splitlines()]
    calls.unlink()
    last_attach = len(names) - 1 - names[::-1].index("move_mount")
    assert "mount_setattr" in names[last_attach:]
    return names[:last_attach].count("mount_setattr")


@pytest.mark.parametrize("kernel", ["this", *kernels.OLDER])
def test_M06_below_a_shared_mount_a_bind_is_private_all_the_same(world: World, kernel: str) -> None:
    prepare(world)
    tmpfs(world, "sub")
    command("mount", "--bind", world.rootfs, world.rootfs)
    command("mount", "--make-shared", world.rootfs)
    kernels.play(kernel)

    def check() -> None:
        lines = [line for line in support.mounts() if f"{world.rootfs}/a" in line]
        assert len(lines) == 2
        assert not any("shared:" in line or "master:" in line for line in lines)

    lands(world, *mount(world, "/a"), at=["/a", "/a/sub"], check=check, dry=False)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_M07_a_destination_in_a_shared_volume_is_refused(world: World, runtime: str, stage: str) -> None:
    prepare(world)
    volume = world.path / "volume"
    (volume / "inside").mkdir(parents=True)
    bundle = world.bundle(
        "true",
        stage,
        *mount(world, "/volume/inside"),
        mounts=[support.bind(volume, "/volume", "rshared")],
        linux={"rootfsPropagation": "shared"},
    )
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.run("mount", "--bind", str(volume), str(volume)).returncode == 0
        assert namespace.run("mount", "--make-shared", str(volume)).returncode == 0
        assert namespace.run_container(bundle, "c1").returncode != 0
        left = [line for line in support.mounts(namespace.holder.pid) if f"{volume}/inside" in line]
        assert left == []
    assert support.records(world.state) == []


def test_M08_mounts_that_a_user_namespace_locks_are_not_uncovered(world: World) -> None:
    prepare(world)
    tmpfs(world, "sub")
    os.mkdir(f"{world.rootfs}/a")
    words = mount(world, "/a", options=",bind-recursive=disabled")
    inside = (*IN_USER_NAMESPACE, 'exec "$@"', "sh")
    refused(world, *words, code=71, says="rbind", before=inside, dry=False)


def test_M09_called_twice_it_mounts_once(world: World) -> None:
    prepare(world)
    before = look(world)
    for destinations in (("/a", "/b"), ("/a", "/b"), ("/a", "/b", "/c")):
        succeeds(call(world, "prestart", *mount(world, *destinations), stdin=state(world)))
        assert mounted(world) == list(destinations)
    gone(world, before)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_M09_at_three_stages_it_mounts_once(world: World, runtime: str) -> None:
    prepare(world)
    words = mount(world, "/a")
    hooks = {stage: [world.hook(stage, *words)] for stage in ("prestart", "createRuntime", "createContainer")}
    hooks["poststop"] = [world.hook("poststop")]
    bundle = support.bundle(world.path / "bundle", ["grep", "-c", " /a ", "/proc/self/mountinfo"], hooks=hooks)
    before = look(world)
    done = support.run_container(runtime, bundle, "c1")
    assert done.stdout == "1\n", done.stderr
    assert look(world) == before


@pytest.mark.parametrize("name", ["open_tree", "move_mount", "mount_setattr", "openat2", "statx", "statmount"])
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_M10_a_call_that_a_filter_refuses_costs_no_safety(world: World, name: str, error: int) -> None:
    outside = prepare(world)
    os.symlink(outside, f"{world.rootfs}/out")
    before = look(world)
    kernels.refuse(name, error=error)
    done = call(world, "prestart", *mount(world, "/out/a", options=",ro"), stdin=state(world))
    if done.returncode:
        fails(done, done.returncode)
        assert done.returncode in (69, 71)
        assert look(world) == before
        return
    succeeds(done)
    assert mounted(world) == [f"{outside}/a"]
    cannot_write(f"{world.rootfs}{outside}/a")
    gone(world, before)


@pytest.mark.kernel(5, 12)
def test_M11_a_file_system_that_never_answers_is_left_to_the_timeout(world: World, mute: int) -> None:
    """The runtime kills the hook then, and poststop is not kept waiting."""
    prepare(world)
    arguments = [*mount(world, "/first", "/mute/x"), *world.root_option()]
    before = support.mounts()
    with tempfile.TemporaryFile("w+") as stdin:
        stdin.write(state(world))
        stdin.seek(0)
        with subprocess.Popen([world.launcher, "prestart", *arguments], stdin=stdin) as hook:
            assert support.is_readable(mute, support.TIMEOUT)  # what it waits for; read, it could not even be killed
            assert hook.poll() is None
            hook.kill()
    assert support.mounts() == before
    # All is resolved before anything is changed.
    assert not os.path.lexists(f"{world.rootfs}/first")
    succeeds(call(world, "poststop", stdin=state(world, status="stopped")))
    assert support.mounts() == before
    assert support.records(world.state) == []
