# SPDX-License-Identifier: Apache-2.0
"""attach and detach: a bind into a container that runs, and out of it again."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.running import Running, run, without_admin
from helpers.world import Container

if TYPE_CHECKING:
    from collections.abc import Iterator

    from helpers.world import World

pytestmark = pytest.mark.kernel(5, 12)

# A process of the container that ran before: it tells what it sees, and when.
WATCH = """
see() { until [ "$(cat /data/word 2>&1)" "$@" ]; do sleep 0.01; done; echo seen >> /real/seen; }
see = "hello from the host"; see != "hello from the host"; see = "hello from the host"
exec sleep 1000
"""


def await_lines(path: str, count: int) -> None:
    """Waits until a file has so many lines."""
    watch = ["sh", "-c", f'until [ "$(cat "$1" 2>/dev/null | wc -l)" = {count} ]; do sleep 0.01; done', "sh", path]
    subprocess.run(watch, check=True, timeout=support.TIMEOUT)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("how", ["with the hook", "without"])
def test_a_process_that_ran_before_sees_it_come_and_go(world: World, runtime: str, how: str) -> None:
    if how == "without":
        bundle = support.bundle(world.path / "bundle", ["/bin/sh", "-c", WATCH])
    else:
        bundle = world.bundle(WATCH, "createRuntime", "--mount", f"src={world.file},dst=/etc/start")
    without_admin(bundle)
    before = world.snapshot()
    seen = f"{world.rootfs}/real/seen"
    spec = ["--mount", f"src={world.source},dst=/data,ro", "--mount", f"src={world.file},dst=/new/file"]
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        assert namespace.start("c1").returncode == 0

        def hook(*words: str) -> subprocess.CompletedProcess[str]:
            more = ["--bundle", bundle, "--pid", str(namespace.state("c1")["pid"])] if how == "without" else []
            return namespace.run(world.launcher, words[0], "c1", *more, *words[1:], *world.root_option())

        for number in (1, 3):
            done = hook("attach", *spec)
            bound = f"attach 1: bound {world.source} on /data (rbind ro rprivate)\n"
            bound += f"attach 2: bound {world.file} on /new/file (rbind rprivate), made /new, made /new/file\n"
            assert (done.returncode, done.stdout) == (0, bound), done.stderr
            is_told = "nobody calls poststop for c1: after its end oci-bind-hook gc" in done.stderr
            assert (is_told, done.stderr == "") == (how == "without", how != "without"), done.stderr
            await_lines(seen, number)
            assert "Read-only" in namespace.execute("c1", "touch", "/data/new").stderr
            assert namespace.execute("c1", "cat", "/new/file").stdout == "one file\n"
            if number == 1:
                done = hook("detach", "/data")
                assert (done.returncode, done.stdout) == (0, f"detached {world.source} from /data\n"), done.stderr
                await_lines(seen, 2)
                assert hook("detach", "/new/file").returncode == 0
                assert not os.path.exists(f"{world.rootfs}/new")
        assert namespace.stop("c1").returncode == 0
    if how == "without":
        assert run(world, "gc").returncode == 0
    os.unlink(seen)
    assert world.snapshot() == before


@pytest.fixture
def container(world: World) -> Iterator[Running]:
    with Running(world) as container:
        yield container


def end(container: Running) -> None:
    """The container ends, and gc undoes what is recorded of it."""
    container.end()
    done = run(container.world, "gc")
    assert done.returncode == 0, done.stderr


def spec(world: World, destination: str, options: str = "") -> list[str]:
    return ["--mount", f"src={world.source},dst={destination}{options}"]


def recorded(world: World, name: str = "c1") -> dict[str, list[dict[str, object]]]:
    record = json.loads((world.state / f"{name}.json").read_text())
    assert isinstance(record, dict)
    return record


def test_all_or_nothing(world: World, container: Running) -> None:
    before, points = world.snapshot(), container.points()
    done = container.attach(*spec(world, "/new/one"), *spec(world, "/proc/1/fd"))
    assert (done.returncode, done.stdout) == (os.EX_NOPERM, "")
    done = container.attach(*spec(world, "/new/one"), *spec(world, "/new/two"), before=fail_second_attach())
    assert (done.returncode, done.stdout) == (os.EX_OSERR, ""), done
    assert (world.snapshot(), container.points()) == (before, points)


def fail_second_attach() -> list[str]:
    inject = "inject=move_mount:error=EIO:when=3"
    return ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=move_mount", "-e", inject]


def test_what_is_there_already_and_what_would_cover_it(world: World, container: Running) -> None:
    assert container.attach(*spec(world, "/data")).returncode == 0
    done = container.attach(*spec(world, "/data"))
    assert (done.returncode, done.stdout) == (0, "attach 2: left alone, /data is mounted already\n")
    assert container.points() == ["/data"]
    done = container.attach(*spec(world, "/climb/../data", ",nosuid"))
    assert done.returncode == os.EX_CONFIG
    assert "/data is the destination of attach 1 already" in done.stderr
    assert container.attach(*spec(world, "/absolute/new")).returncode == 0
    assert [mount["by"] for mount in recorded(world)["mounts"]] == ["attach 1", "attach 2"]
    end(container)
    assert os.listdir(world.state) == []
    assert os.listdir(f"{world.rootfs}/real") == []


def test_a_mount_point_is_made_where_a_start_would_make_it(world: World, container: Running) -> None:
    container.do(lambda: mounting.tmpfs("/tmp"))  # nobody asked for this one
    for place, code in (("/dev/new/one", 0), ("/tmp/new", os.EX_CONFIG), ("/real/new", 0), ("/sys/x", os.EX_NOPERM)):
        assert container.attach(*spec(world, place)).returncode == code, place
    assert container.points() == ["/dev/new/one", "/real/new", "/tmp"]
    assert [made["filesystem"] for made in recorded(world)["made"]] == ["tmpfs", "tmpfs", "rootfs"]


def test_detach_takes_what_is_recorded_and_nothing_else(world: World, container: Running) -> None:
    words = [*spec(world, "/new/deep/one"), *spec(world, "/new/deep/two"), *spec(world, "/real/three")]
    assert container.attach(*words).returncode == 0
    container.do(lambda: mounting.bind("/bin", "/etc"))
    assert container.detach("/etc").returncode == os.EX_NOINPUT
    assert container.detach("/new/deep/one").returncode == 0
    assert os.listdir(f"{world.rootfs}/new/deep") == ["two"]
    done = container.detach("--all")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("detached ") == 2
    assert (container.points(), os.path.exists(f"{world.rootfs}/new")) == (["/etc"], False)
    assert os.listdir(world.state) == []


def test_what_somebody_mounted_on_it_is_told(world: World, container: Running) -> None:
    before = world.snapshot()
    assert container.attach(*spec(world, "/data")).returncode == 0
    container.do(lambda: mounting.tmpfs("/data"))
    done = container.detach("/data")
    told = "could not undo /data: somebody mounted something else on /data, which must be unmounted first"
    assert (done.returncode, told in done.stderr) == (os.EX_OSERR, True), done.stderr
    assert container.points() == ["/data", "/data"]
    container.do(lambda: mounting.umount("/data"))
    assert container.detach("/data").returncode == 0
    assert container.points() == []
    assert world.snapshot() == before


def test_a_bind_that_was_moved_or_unmounted_inside(world: World, container: Running) -> None:
    assert container.attach(*spec(world, "/data"), *spec(world, "/real")).returncode == 0

    def move() -> None:
        mounting.mount("/data", "/etc", None, 0x2000)  # MS_MOVE
        mounting.umount("/real")

    container.do(move)
    assert container.points() == ["/etc"]
    assert container.detach("--all").returncode == 0
    assert container.points() == []


def test_a_neighbour_on_the_rootfs_keeps_what_it_uses(world: World, container: Running) -> None:
    before = world.snapshot()
    neighbour = Container(world, "n")
    assert container.attach(*spec(world, "/new/both")).returncode == 0
    neighbour.set_up("/new/both")
    assert container.detach("--all").returncode == 0
    assert neighbour.mounted() == ["/new/both"]
    neighbour.end()
    neighbour.tear_down()
    assert world.snapshot() == before


def test_a_container_that_is_admin_gets_no_read_only_bind(world: World) -> None:
    with Running(world, is_admin=True) as container:
        done = container.attach(*spec(world, "/data", ",ro"))
        assert (done.returncode, container.points()) == (os.EX_NOPERM, [])
        assert "has CAP_SYS_ADMIN: it can make the bind writable again (" in done.stderr
        done = container.attach(*spec(world, "/data", ",ro"), "--force")
        assert (done.returncode, container.points()) == (0, ["/data"])
        assert "warning: attach 1: the container has CAP_SYS_ADMIN" in done.stderr
