# SPDX-License-Identifier: Apache-2.0
"""attach and detach: a bind into a container that runs, and out of it again."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
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
            bound += f"attach 2: bound {world.file} on /new/file (rbind rprivate), created /new, created /new/file\n"
            assert (done.returncode, done.stdout) == (0, bound), done.stderr
            gc = f"oci-bind-hook gc --root {world.state}"
            is_told = f"config.json registers no poststop: run {gc} after the container" in done.stderr
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
        if how == "with the hook":
            # The record of a start is kept as long as the container runs.
            assert hook("detach", "--all").stdout.count("detached ") == 3
            refused(hook("detach", "--all"), os.EX_NOINPUT, 'no bind is recorded for the container "c1"')
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


def test_a_record_of_the_start_stays_as_long_as_the_container(world: World, container: Running) -> None:
    """It tells by its id which container it is, also when nothing is bound any more, or could not be."""
    assert container.attach(*spec(world, "/new/one")).returncode == 0
    path = world.state / "c1.json"
    path.write_text(path.read_text().replace('"stage":"attach"', '"stage":"createRuntime"'))
    assert run(world, "detach", "c1", "--all").returncode == 0
    assert recorded(world)["mounts"] == []
    words = [*spec(world, "/new/one"), *spec(world, "/new/two")]
    assert run(world, "attach", "c1", *words, before=fail_second_attach()).returncode == os.EX_OSERR
    assert run(world, "attach", "c1", *words).returncode == 0
    end(container)
    assert os.listdir(world.state) == []


def test_what_is_there_already_and_what_would_cover_it(world: World, container: Running) -> None:
    assert container.attach(*spec(world, "/data")).returncode == 0
    done = container.attach(*spec(world, "/data"))
    assert (done.returncode, done.stdout) == (0, "attach 2: already mounted on /data\n")
    assert container.points() == ["/data"]
    done = container.attach(*spec(world, "/climb/../data", ",nosuid"))
    assert done.returncode == os.EX_CONFIG
    assert "/data is already the destination of attach 1 in an earlier call of the hook" in done.stderr
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
    show = f"oci-bind-hook show c1 --root {world.state} lists the recorded binds"
    refused(container.detach("/etc"), os.EX_NOINPUT, f"no bind on /etc is recorded ({show})")
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
    told = "could not undo /data: another process mounted something on /data in the container: unmount it first"
    assert (done.returncode, told in done.stderr) == (os.EX_OSERR, True), done.stderr
    assert container.points() == ["/data", "/data"]
    container.do(lambda: mounting.umount("/data"))
    assert container.detach("/data").returncode == 0
    assert container.points() == []
    assert world.snapshot() == before


def test_a_bind_below_another_is_named_and_goes_first(world: World, container: Running) -> None:
    before = world.snapshot()
    os.mkdir(world.source / "in")
    assert container.attach(*spec(world, "/data")).returncode == 0
    assert container.attach("--mount", f"src={world.file},dst=/data/word").returncode == 0
    assert container.attach(*spec(world, "/data/in")).returncode == 0
    told = "could not undo /data: the bind on /data/word is below it (detach that bind first, or use --all)\n"
    refused(container.detach("/data"), os.EX_OSERR, told)
    assert container.points() == ["/data", "/data/in", "/data/word"]
    # The last of the three calls is refused: had the outer one been first, both others would be gone with it.
    last = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=umount2", "-e", "inject=umount2:error=EBUSY:when=3"]
    refused(container.detach("--all", before=last), os.EX_OSERR, "could not undo the bind on /data: ")
    assert container.points() == ["/data"]
    assert [mount["resolved"] for mount in recorded(world)["mounts"]] == ["/data"]
    assert container.detach("/data").returncode == 0
    os.rmdir(world.source / "in")
    assert world.snapshot() == before


def test_what_the_container_did_in_between_is_said(world: World, container: Running) -> None:
    # What is attached is not there when it is looked at, as if it had been unmounted in between.
    unmounted = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=move_mount", "-e", "inject=move_mount:retval=0"]
    told = "the bind on /data has just been unmounted (run the command again)"
    refused(container.attach(*spec(world, "/data"), before=unmounted), os.EX_UNAVAILABLE, told)
    assert os.listdir(world.state) == []


def test_binds_that_the_first_process_has_left_behind(world: World) -> None:
    with Running(world) as container:
        assert container.attach(*spec(world, "/new/one")).returncode == 0
        container.unshare()
        told = "another mount namespace (its first process has since changed its namespace: the earlier binds stay"
        refused(container.attach(*spec(world, "/new/two")), os.EX_IOERR, told)
        refused(container.detach("--all"), os.EX_IOERR, told)
        assert len(recorded(world)["mounts"]) == 1
    end(container)
    assert os.listdir(world.state) == []


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
        assert "has CAP_SYS_ADMIN, and can make the bind writable again (" in done.stderr
        done = container.attach(*spec(world, "/data", ",ro"), "--force")
        assert (done.returncode, container.points()) == (0, ["/data"])
        assert "warning: attach 1: the container has CAP_SYS_ADMIN" in done.stderr


def refused(done: subprocess.CompletedProcess[str], code: int, *texts: str) -> None:
    """A call that has failed with this code, and told so in one line."""
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (code, "", 1), done
    assert [text for text in texts if text not in done.stderr] == [], done.stderr


@contextlib.contextmanager
def thread() -> Iterator[tuple[int, int]]:
    """A thread of this process: the id of the process, and its own."""
    is_over = threading.Event()
    running = threading.Thread(target=is_over.wait)
    running.start()
    try:
        yield os.getpid(), running.native_id or 0
    finally:
        is_over.set()
        running.join()


def test_what_is_no_container_of_its_own_is_refused(world: World, container: Running) -> None:
    words = spec(world, "/data")
    named = ["--bundle", container.bundle, "--pid"]
    refused(run(world, "attach", "c1", *named, str(os.getpid()), *words), os.EX_UNAVAILABLE, "in this mount namespace")
    process = subprocess.Popen(["true"])
    process.wait()
    refused(run(world, "attach", "c1", *named, str(process.pid), *words), os.EX_UNAVAILABLE, "has ended (if the")
    refused(run(world, "attach", "nobody", *words), os.EX_NOINPUT, 'the container "nobody" is not known')
    told = "no running containers with the first process 1 are known"
    refused(run(world, "attach", "--pid", "1", *words), os.EX_NOINPUT, told)
    refused(run(world, "attach", "--pid", "x", *words), os.EX_USAGE, "not a process id")
    with thread() as (pid, number):
        told = f"--pid: {number} is a thread of the process {pid} (pass --pid {pid})"
        for more in ([], ["c1", "--bundle", container.bundle]):
            refused(run(world, "attach", *more, "--pid", str(number), *words), os.EX_USAGE, told)
    refused(run(world, "attach", "", *words), os.EX_USAGE, "attach: the name of the container is empty")
    refused(run(world, "detach", "c1", ""), os.EX_USAGE, 'DESTINATION: "" is not an absolute path')
    refused(run(world, "attach", *words), os.EX_USAGE, "pass CONTAINER")
    refused(run(world, "attach", "c1"), os.EX_USAGE, "--mount is required")
    refused(run(world, "detach", "c1"), os.EX_USAGE, "pass CONTAINER", "DESTINATION or --all")
    refused(run(world, "attach", "../c1", *named, str(container.pid), *words), os.EX_DATAERR, "/id")
    assert (container.points(), os.listdir(world.state)) == ([], [])


def test_no_option_is_passed_over(world: World) -> None:
    words = {"attach": ["c1", *spec(world, "/data")], "detach": ["c1", "/data"]}
    start = [["--allow-annotations"], ["--allow-source", "/srv"]]
    others = {
        "attach": [*start, ["--keep-mountpoints"]],
        "detach": [*start, ["--mount", "x"], ["--dry-run"], ["--strict"], ["--allow-shared"], ["--force"]],
    }
    for name in words:
        for option in others[name]:
            done = run(world, name, *words[name], *option)
            refused(done, os.EX_USAGE, f"{option[0]}: {name} does not take it")
    refused(run(world, "attach", *words["attach"], "--all"), os.EX_USAGE, "--all: this option requires --dry-run")
    refused(run(world, "attach", "c1", "--", "--help"), os.EX_USAGE, "--: unknown command or option")
    told = '--forc: unknown command or option (did you mean "--force"?'
    refused(run(world, "attach", "c1", "--forc"), os.EX_USAGE, told)


def test_another_root_than_its_bundle_names_is_refused(world: World, container: Running) -> None:
    told = "the root of the container is not the rootfs"
    other = support.bundle(world.path / "other", ["true"])
    words = ["attach", "c1", "--bundle", other, "--pid", str(container.pid), *spec(world, "/data")]
    refused(run(world, *words), os.EX_UNAVAILABLE, f"{told} {other}/rootfs")
    done = run(world, *words, "--dry-run")
    assert (done.returncode, f"{told} {other}/rootfs" in done.stdout) == (os.EX_UNAVAILABLE, True), done
    assert container.attach(*spec(world, "/data"), "--dry-run").returncode == 0
    container.do(lambda: mounting.tmpfs("/"))  # seen by who enters the namespace, and by nobody else in it
    refused(container.attach(*spec(world, "/data")), os.EX_UNAVAILABLE, told)
    done = container.attach(*spec(world, "/data"), "--dry-run")
    assert (done.returncode, told in done.stdout) == (os.EX_UNAVAILABLE, True), done


def test_what_ended_or_began_anew_under_its_id(world: World) -> None:
    before = world.snapshot()
    with Running(world) as first:
        assert first.attach(*spec(world, "/new")).returncode == 0
    refused(run(world, "attach", "c1", *spec(world, "/data")), os.EX_UNAVAILABLE, 'the container "c1" does not run')
    with Running(world) as second:
        assert second.attach(*spec(world, "/data")).returncode == 0
        assert (second.points(), os.path.exists(f"{world.rootfs}/new")) == (["/data"], False)
    end(second)
    second_bundle = world.path / "bundle-c1"
    assert second_bundle.exists()
    assert world.snapshot() == before


@pytest.mark.parametrize("call_name", ["open_tree", "statx"])
def test_a_kernel_that_lacks_what_it_takes_is_refused(world: World, container: Running, call_name: str) -> None:
    kernels.refuse(call_name)
    refused(container.attach(*spec(world, "/data")), os.EX_UNAVAILABLE, "the mount API of Linux 5.12")


def test_without_the_rights_the_way_is_told(world: World, container: Running) -> None:
    less = ("setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    for before in (less, ("unshare", "--user", "--map-root-user")):
        done = container.attach(*spec(world, "/data"), before=before)
        refused(done, os.EX_UNAVAILABLE, "podman unshare oci-bind-hook")


def test_nothing_is_looked_up_in_what_the_container_serves(world: World, container: Running) -> None:
    """A server that says hello and no more would keep whoever asks it, beyond signals."""
    before = world.snapshot()
    server = os.open("/dev/fuse", os.O_RDWR)

    def serve() -> None:
        mounting.mount("nobody", "/data", "fuse", data=f"fd={server},rootmode=40000,user_id=0,group_id=0")
        mounting.mount("over", "/tmp", "overlay", data="lowerdir=/real:/etc")

    container.do(serve)
    told = "the fuse file system on /data is on the path, and may never answer"
    for place in ("/data", "/data/in", "/data/in/deep"):
        refused(container.attach(*spec(world, place)), os.EX_UNAVAILABLE, told)
    refused(container.attach(*spec(world, "/tmp/in")), os.EX_UNAVAILABLE, "the overlay file system on /tmp")
    refused(container.attach(*spec(world, "/proc/1/map_files/x")), os.EX_NOPERM, "/proc is on procfs")
    # A bind that it moves below such a one is told, and stays recorded.
    assert container.attach(*spec(world, "/real/in")).returncode == 0

    def move() -> None:
        mounting.tmpfs("/etc")
        os.mkdir("/etc/in")
        mounting.mount("/real/in", "/etc/in", None, 0x2000)  # MS_MOVE
        mounting.mount("nobody", "/etc", "fuse", data=f"fd={other},rootmode=40000,user_id=0,group_id=0")

    other = os.open("/dev/fuse", os.O_RDWR)
    third = os.open("/dev/fuse", os.O_RDWR)
    container.do(move)
    refused(
        container.detach("/real/in"),
        os.EX_OSERR,
        "the fuse file system on /etc is on the path",
        "; poststop or gc tries again after",
    )
    # Nor is a mount point looked for in one.
    assert container.attach(*spec(world, "/new/place")).returncode == 0

    def cover() -> None:
        mounting.umount("/new/place")
        mounting.mount("nobody", "/new", "fuse", data=f"fd={third},rootmode=40000,user_id=0,group_id=0")

    container.do(cover)
    refused(container.detach("/new/place"), os.EX_OSERR, "could not undo /new/place: the fuse file system on /new")
    for number in (server, other, third):
        os.close(number)
    end(container)
    assert world.snapshot() == before


def test_it_gives_up_what_a_start_gives_up(world: World, container: Running) -> None:
    trace = world.path / "trace"
    traced = ("strace", "-f", "-qq", "-o", str(trace), "-e", "trace=capset,setns,move_mount,umount2,openat")
    for act in (container.attach(*spec(world, "/new"), before=traced), container.detach("/new", before=traced)):
        assert act.returncode == 0
        lines = trace.read_text().splitlines()
        at = next(number for number, line in enumerate(lines) if "setns(" in line)
        assert [sum("capset(" in line for line in part) for part in (lines[:at], lines[at:])] == [1, 1]
        # Nothing is opened by a path but the root, and nothing of Python.
        opened = [line for line in lines[at:] if re.search(r'openat\(AT_FDCWD[^,]*, "(?!/",)', line)]
        assert opened == []


def test_list_show_and_explain_tell_of_it(world: World, container: Running) -> None:
    assert container.attach(*spec(world, "/real/new")).returncode == 0
    shown = run(world, "show", "c1").stdout
    at = r"attach 1 at (\d{4}-\d\d-\d\d )?\d\d:\d\d, \d+ s ago, "
    assert re.search(rf"mounted: \S+ on /real/new\n  requested by {at}destination", shown)
    assert re.search(r"^stage +attach$", shown, re.MULTILINE)
    [record] = json.loads(run(world, "list", "--format", "json").stdout)["records"]
    [mount] = record["mounts"]
    assert (mount["origin"], mount["time"] > 1_700_000_000, mount["state"]) == ("attach 1", True, "mounted")
    told = run(world, "explain", container.bundle).stdout
    assert re.search(rf"requested by {at}is mounted", told)
    told = run(world, "explain", container.bundle, "--format", "json").stdout
    assert re.search(r"requested by attach 1 at \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ, is mounted", told)


def test_the_dry_run_changes_nothing_and_knows_the_end(world: World) -> None:
    with Running(world, is_admin=True) as container:
        before = world.snapshot()
        done = container.attach(*spec(world, "/new/place"), "--dry-run")
        assert (done.returncode, "/new/place" in done.stdout) == (0, True), done.stderr
        done = container.attach(*spec(world, "/absent/place", ",ro"), "--dry-run", "--format", "json")
        plan = json.loads(done.stdout)
        assert (done.returncode, plan["stage"], plan["mounts"][0]["origin"]) == (os.EX_NOPERM, "attach", "--mount 1")
        assert "CAP_SYS_ADMIN" in plan["problems"][0]["message"]
        done = container.attach(*spec(world, "/absent/place", ",ro"), "--dry-run", "--format", "tree", "--force")
        assert done.returncode == 0
        assert world.snapshot() == before
        assert container.points() == []


def test_a_container_whose_first_process_is_a_zombie_does_not_run(world: World, container: Running) -> None:
    assert container.attach(*spec(world, "/data")).returncode == 0
    os.kill(container.pid, signal.SIGKILL)
    os.waitid(os.P_PID, container.pid, os.WEXITED | os.WNOWAIT)
    done = run(world, "explain", "c1", "--format=json")
    assert (done.returncode, done.stderr, json.loads(done.stdout)["running"]) == (0, "", None)
    for named, why in (["c1"], "does not run"), (container.named, f"the container's process {container.pid} has ended"):
        refused(run(world, "attach", *named, *spec(world, "/x")), os.EX_UNAVAILABLE, why)
        done = run(world, "attach", *named, *spec(world, "/x"), "--dry-run", "--format=json")
        plan = json.loads(done.stdout)
        assert (done.returncode, done.stderr, plan["running"]) == (os.EX_UNAVAILABLE, "", None)
        [problem] = plan["problems"]
        assert why in problem["message"]
    assert run(world, "list").stdout.split("\n")[1].split()[:2] == ["c1", "dead"]
    assert run(world, "gc").returncode == 0
    assert os.listdir(world.state) == []


def test_the_dry_run_knows_what_the_container_has(world: World, container: Running) -> None:
    assert container.attach(*spec(world, "/new/one")).returncode == 0
    # What is bound already is no concern of a plan that only adds to it.
    for place, action in (("/new/two", "mount"), ("/new/one", "present")):
        done = container.attach(*spec(world, place), "--dry-run", "--format", "json")
        plan = json.loads(done.stdout)
        assert (done.returncode, plan["mounts"][0]["action"], plan["warnings"]) == (0, action, []), place
    other = ["--mount", f"src={world.rootfs}/etc,dst=/new/one"]
    for words in ([], ["--dry-run"]):
        done = container.attach(*other, *words)
        assert done.returncode == os.EX_CONFIG, done
        assert "/new/one is already the destination of attach 1 in an earlier call" in done.stdout + done.stderr
    end(container)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_by_its_id_it_is_the_one_that_runs_now(world: World, runtime: str) -> None:
    """A container that is started anew under its id has the record of its earlier start, if nobody called poststop."""
    bundle = without_admin(support.bundle(world.path / "bundle", ["/bin/sleep", "1000"]))
    before = world.snapshot()
    with support.RuntimeNamespace(runtime) as namespace:

        def hook(*words: str) -> subprocess.CompletedProcess[str]:
            return namespace.run(world.launcher, *words, *world.root_option())

        # Where a runtime is looked for that was called without --root.
        folder = f"/run/{runtime}"
        make = f"mount -t tmpfs none /run && mkdir {folder} && mount --bind {namespace.root} {folder}"
        assert namespace.run("sh", "-c", make).returncode == 0
        gc = f"oci-bind-hook gc --root {world.state}"
        anew = f"since it was restarted ({gc} undoes"
        for number, told in enumerate(("nothing is recorded for a container", anew, anew)):
            assert namespace.create(bundle, "c1").returncode == 0
            assert namespace.start("c1").returncode == 0
            refused(hook("detach", "c1", "--all"), os.EX_NOINPUT, told)
            if number == 2:  # gc does not take the one that runs for the one that is recorded
                assert hook("gc").returncode == 0
                assert (os.listdir(world.state), os.path.exists(f"{world.rootfs}/new")) == ([], False)
                refused(hook("detach", "c1", "--all"), os.EX_NOINPUT, "nothing is recorded for a container")
            done = hook("attach", "c1", *spec(world, "/new"))
            assert (done.returncode, done.stdout.count(" on /new ")) == (0, 1), done.stderr
            assert namespace.execute("c1", "cat", "/new/word").stdout == "hello from the host\n"
            assert namespace.stop("c1").returncode == 0
        done = hook("attach", "c1", *spec(world, "/new"))
        refused(done, os.EX_UNAVAILABLE, f'the container "c1" does not run ({gc} undoes')
    assert run(world, "gc").returncode == 0
    assert world.snapshot() == before


def test_it_ends_before_it_is_entered(world: World, container: Running) -> None:
    assert container.attach(*spec(world, "/real")).returncode == 0
    ended = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=setns", "-e", "inject=setns:error=ESRCH"]
    told = f"the container's process {container.pid} has ended (if the container was restarted, try again)"
    refused(container.attach(*spec(world, "/data"), before=ended), os.EX_UNAVAILABLE, told)
    refused(container.detach("--all", before=ended), os.EX_UNAVAILABLE, told)
    assert container.points() == ["/real"]
    assert len(recorded(world)["mounts"]) == 1


def test_another_process_than_the_first_is_refused(world: World) -> None:
    """The container would be taken for dead at the end of that one, and what is bound in it be undone."""
    bundle = without_admin(support.bundle(world.path / "bundle", ["/bin/sleep", "1000"]))
    with support.RuntimeNamespace("runc") as namespace:
        assert namespace.create(bundle, "c1").returncode == 0
        assert namespace.start("c1").returncode == 0
        pid_file = str(world.path / "pid")
        done = namespace.call("exec", "--detach", "--pid-file", pid_file, "c1", "/bin/sleep", "1000")
        assert done.returncode == 0, done.stderr

        def attach(pid: str) -> subprocess.CompletedProcess[str]:
            words = ["c1", "--bundle", bundle, "--pid", pid, *spec(world, "/new")]
            return namespace.run(world.launcher, "attach", *words, *world.root_option())

        with open(pid_file, encoding="utf-8") as file:
            other = file.read()
        refused(attach(other), os.EX_UNAVAILABLE, f"the process {other} is not the container's first process (")
        assert attach(str(namespace.state("c1")["pid"])).returncode == 0
        assert namespace.stop("c1").returncode == 0
    assert run(world, "gc").returncode == 0


def test_what_detach_cannot_undo_is_named_as_in_the_container(world: World) -> None:
    with Running(world) as container:
        spec = [f"--mount=src={world.source},dst=/{place}" for place in ("one/deep/a", "two/b")]
        assert container.attach(*spec).returncode == 0
        container.do(lambda: mounting.umount("/two/b"))
        container.do(lambda: mounting.tmpfs("/two/b"))
        with open(f"{world.rootfs}/one/deep/theirs", "w"):
            pass
        done = container.detach("--all")
        assert done.returncode == 71
        assert "warning: /one/deep is kept: it is not empty\n" in done.stderr
        told = "could not undo /two/b: something else is mounted on it: if nothing uses that, run umount /two/b in the"
        assert f"{told} container (" in done.stderr
        container.do(lambda: mounting.umount("/two/b"))
