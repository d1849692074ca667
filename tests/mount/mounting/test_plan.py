# SPDX-License-Identifier: Apache-2.0
"""Requests that build on each other: each sees the mounts planned before it, in the plan and in the kernel alike."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.mounting import MS_PRIVATE, MS_SHARED, Bench, asked, bind, plant, propagate, request, tmpfs
from oci_bind_hook.commands.explain.facts import describe
from oci_bind_hook.errors import EscapeError, MissingError, RequestError, UnavailableError
from oci_bind_hook.kernel import linux
from oci_bind_hook.rootfs.mount_points import Rootfs
from oci_bind_hook.rootfs.walk import Cover

if TYPE_CHECKING:
    from oci_bind_hook.mounting.plan import Plan
    from oci_bind_hook.record.state_file import MountRecord
    from oci_bind_hook.requests.request import Request


EMPTY: MountRecord = {
    "origin": "argument",
    "by": "--mount 1",
    "requested": {},
    "resolved": "/",
    "source": {"dev": 1, "ino": 1},
    "attached": [],
}


def created(plan: Plan) -> list[list[tuple[str, str]]]:
    """What each bind of a plan makes: path and kind."""
    return [[(point.path, "folder" if point.directory else "file") for point in bind.create] for bind in plan.binds]


def resolved(plan: Plan) -> list[str]:
    return [bind.target.path if bind.target else "" for bind in plan.binds]


def content(bench: Bench, path: str) -> str:
    with open(bench.inside(path), encoding="utf-8") as file:
        return file.read()


@pytest.fixture
def vol(bench: Bench) -> str:
    """A source with things to mount on, and links that a container has left in it."""
    tree: mounting.Tree = {"in": {"deep": {}}, "file": b"vol\n", "x": "/etc", "y": "in", "z": "../mnt"}
    return plant(f"{bench.path}/vol", tree)


# Destinations below /mnt once the vol is mounted there, and where they lead.
BELOW = [
    ("/mnt/in", "/mnt/in"),
    ("/mnt/in/deep", "/mnt/in/deep"),
    ("/mnt/y/deep", "/mnt/in/deep"),
    ("/mnt/x", "/etc"),
    ("/mnt/x/y", "/etc/y"),
    ("/mnt/in/../in/deep/..", "/mnt/in"),
    ("/mnt/../etc", "/etc"),
    ("/mnt/in/../../etc/new", "/etc/new"),
    ("/mnt/z/in", "/mnt/in"),
    ("/etc/../mnt/./in", "/mnt/in"),
]


@pytest.mark.parametrize(("destination", "path"), BELOW, ids=[row[0] for row in BELOW])
@pytest.mark.parametrize("assumed", [False, True], ids=["real", "dry"])
def test_a_destination_inside_a_planned_mount(
    bench: Bench, vol: str, destination: str, path: str, assumed: bool
) -> None:
    plan = bench.plan(request(vol, "/mnt"), request(bench.source, destination), assumed=assumed)
    assert plan.problems == []
    assert resolved(plan) == ["/mnt", path]
    if not assumed:
        bench.attach(plan)
        assert content(bench, f"{path}/word") == "hello\n"
        assert content(bench, "/mnt/file") == "vol\n"
        assert mounting.mount_points(bench.rootfs) == sorted(["/mnt", path])


def test_the_vol_is_not_seen_before_it_is_planned(bench: Bench, vol: str) -> None:
    plan = bench.plan(request(bench.source, "/mnt/x/y"), request(vol, "/mnt"))
    assert resolved(plan) == ["/mnt/x/y", "/mnt"]


def test_a_mount_point_below_one_that_must_be_made_itself(bench: Bench, vol: str) -> None:
    plan = bench.plan(request(vol, "/new/vol"), request(bench.source, "/new/vol/in"), request(vol, "/new/vol/in/sub"))
    assert created(plan) == [[("/new", "folder"), ("/new/vol", "folder")], [], []]
    bench.attach(plan)
    assert mounting.mount_points(bench.rootfs) == ["/new/vol", "/new/vol/in", "/new/vol/in/sub"]
    assert content(bench, "/new/vol/in/sub/file") == "vol\n"
    assert os.listdir(f"{vol}/in") == ["deep"]


def test_a_name_missing_in_a_planned_mount_is_not_made(bench: Bench, vol: str) -> None:
    plan = bench.plan(request(vol, "/new"), request(bench.source, "/new/in/none"), request(bench.source, "/new/in"))
    problem = plan.binds[1].problem
    assert isinstance(problem, RequestError)
    assert str(problem) == (
        "--mount 1: the mount point /new/in/none does not exist, and it would be inside another mount,"
        f" the one on /new (create {vol}/in/none on the host, in the source of --mount 1)"
    )
    assert [bind.problem for bind in plan.binds[::2]] == [None, None]


def test_one_source_at_two_places_and_a_third_bind_inside_one(bench: Bench) -> None:
    os.mkdir(bench.inside("/two"))
    plan = bench.plan(request(bench.source, "/mnt"), request(bench.source, "/two"), request(bench.file, "/two/word"))
    bench.attach(plan)
    assert content(bench, "/two/word") == "one\n"
    assert content(bench, "/mnt/word") == "hello\n"
    assert mounting.mount_points(bench.rootfs) == ["/mnt", "/two", "/two/word"]


def test_the_same_holds_where_nothing_is_cloned(bench: Bench, vol: str) -> None:
    os.mkdir(bench.inside("/two"))
    requests = [request(bench.source, "/mnt"), request(bench.source, "/two"), request(vol, "/two/sub")]
    below = [request(bench.source, "/two/sub/in"), request(bench.source, "/mnt/sub/in")]
    plan = bench.plan(*requests, *below, assumed=True)
    # Of the two subs only one is covered by the vol.
    assert [bind.problem is None for bind in plan.binds] == [True, True, True, True, False]
    assert "the mount point /mnt/sub/in does not exist" in str(plan.problems[0])


def test_binds_stacked_on_one_mount_point(bench: Bench, vol: str) -> None:
    bench.kind = "runtime"
    requests = [request(vol, "/new/mnt", config=True), request(bench.source, "/new/mnt"), request(vol, "/new/mnt/sub")]
    plan = bench.plan(*requests)
    assert created(plan) == [[("/new", "folder"), ("/new/mnt", "folder")], [], []]
    record = bench.attach(plan)
    assert mounting.mount_points(bench.rootfs) == ["/new/mnt", "/new/mnt", "/new/mnt/sub"]
    assert content(bench, "/new/mnt/word") == "hello\n"
    bench.undo(record)
    assert mounting.mount_points(bench.rootfs) == []
    assert not os.path.exists(bench.inside("/new"))


def test_files_stacked(bench: Bench) -> None:
    bench.kind = "runtime"
    names = [f"{bench.path}/{number}" for number in range(3)]
    for name in names:
        with open(name, "w", encoding="utf-8") as file:
            file.write(name)
    bench.mount(*(request(name, "/etc/new", config=True) for name in names))
    assert content(bench, "/etc/new") == names[-1]
    assert mounting.mount_points(bench.rootfs) == ["/etc/new"] * 3


@pytest.mark.parametrize("assumed", [False, True], ids=["real", "dry"])
@pytest.mark.parametrize("destination", ["/new/mnt", "/new/./mnt/in/..", "/new/../to-new"])
def test_a_second_argument_for_one_destination_is_refused(
    bench: Bench, vol: str, destination: str, assumed: bool
) -> None:
    os.symlink("new/mnt", bench.inside("/to-new"))
    plan = bench.plan(request(vol, "/new/mnt"), request(bench.source, destination), assumed=assumed)
    link = "; the link /to-new leads there" if "to-new" in destination else ""
    assert [bind.problem and str(bind.problem) for bind in plan.binds] == [
        *(None, f"--mount 1: /new/mnt is already the destination of --mount 1{link}")
    ]


NAMED = {
    "procfs": ("/b/self", "/proc/self is on procfs, where only a few files may be covered, as in runc; the link /b"),
    "through two links": (
        "/a/x",
        "/proc/x is on procfs, where only a few files may be covered, as in runc; the link /b",
    ),
    "sysfs": ("/c", "/sys/block is on sysfs, where binds are not allowed; the link /c"),
    "the root": ("/up", "the destination is the rootfs itself; the link /up"),
    "a file": ("/word", "the source is a folder, but /file is a file; the link /word"),
    "in a mount": (
        "/in",
        "the mount point /mnt/new does not exist, and it would be inside another mount, the one on /mnt",
    ),
}


@pytest.mark.parametrize(("destination", "problem"), NAMED.values(), ids=NAMED)
def test_the_problem_of_a_destination_names_the_link_to_it(bench: Bench, destination: str, problem: str) -> None:
    links: mounting.Tree = {"a": "b", "b": "proc", "c": "sys/block", "up": ".", "word": "file", "in": "mnt/new"}
    plant(bench.rootfs, links)
    plan = bench.plan(request(bench.source, "/mnt"), request(bench.source, destination))
    said = problem if "the link " in problem else f"{problem}; the link {destination}"
    assert str(plan.problems[0]).startswith(f"--mount 1: {said} leads there"), plan.problems


def test_the_problem_of_a_source_names_no_link(bench: Bench) -> None:
    os.symlink("mnt", bench.inside("/link"))
    (problem,) = bench.plan(request(f"{bench.path}/gone", "/link")).problems
    assert "the link" not in str(problem)


def test_names_need_not_be_utf8(bench: Bench) -> None:
    """They are recorded in escapes, record.document."""
    os.symlink("\udcff/a", bench.inside("/link"))
    os.rename(bench.source, f"{bench.source}\udcfe")
    record = bench.mount(request(f"{bench.source}\udcfe", "/link"), request(bench.file, "/etc/\udcf6"))
    assert content(bench, "/\udcff/a/word") == "hello\n"
    assert [mount["resolved"] for mount in bench.saved[-1]["mounts"]] == ["/\udcff/a", "/etc/\udcf6"]
    bench.undo(bench.saved[-1])
    assert record["mounts"]
    assert (mounting.mount_points(bench.rootfs), os.path.exists(bench.inside("/\udcff"))) == ([], False)


def test_a_hard_link_of_a_mount_point_is_another_one(bench: Bench) -> None:
    os.link(bench.inside("/etc/passwd"), bench.inside("/etc/shadow"))
    bench.mount(request(bench.file, "/etc/passwd"), request(f"{bench.source}/word", "/etc/shadow"))
    assert content(bench, "/etc/passwd") == "one\n"
    assert content(bench, "/etc/shadow") == "hello\n"
    assert mounting.mount_points(bench.rootfs) == ["/etc/passwd", "/etc/shadow"]


def test_missing_parents_are_made_once(bench: Bench) -> None:
    os.symlink("/absent/place", bench.inside("/dangling"))
    plan = bench.plan(
        request(bench.source, "/new/a/b"),
        request(bench.source, "/new/a/c/../d"),
        request(bench.file, "/new/e"),
        request(bench.source, "/dangling"),
        request(bench.source, "/dangling/../other"),
        request(bench.file, "/dangling/word"),
    )
    assert created(plan) == [
        [("/new", "folder"), ("/new/a", "folder"), ("/new/a/b", "folder")],
        [("/new/a/d", "folder")],
        [("/new/e", "file")],
        [("/absent", "folder"), ("/absent/place", "folder")],
        [("/absent/other", "folder")],
        [],
    ]
    record = bench.attach(plan)
    assert [made["path"] for made in record["made"]] == [
        *("/new", "/new/a", "/new/a/b", "/new/a/d", "/new/e", "/absent", "/absent/place", "/absent/other")
    ]
    assert content(bench, "/absent/place/word") == "one\n"
    assert os.readlink(bench.inside("/dangling")) == "/absent/place"


def test_all_that_the_mounts_stand_on_is_used(bench: Bench, vol: str) -> None:
    plan = bench.plan(request(vol, "/mnt"), request(bench.source, "/mnt/x/new"), request(bench.source, "/mnt/in/deep"))
    # What is inside the vol is not the rootfs's.
    assert plan.uses == {"/mnt", "/etc", "/etc/new"}


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_planned_file_is_no_folder_and_the_other_way_round(bench: Bench, kind: str) -> None:
    first = bench.file if kind == "file" else bench.source
    second, below = (bench.source, "") if kind == "file" else (bench.file, "")
    plan = bench.plan(request(first, "/new"), request(second, f"/new{below}"))
    assert [type(problem) for problem in plan.problems] == [RequestError]
    plan = bench.plan(request(bench.file, "/new"), request(bench.source, "/new/x"))
    assert str(plan.problems[0]) == "--mount 1: /new is not a folder (the destination is below it)"


# -- what the runtime has already mounted ------------------------------------------------------------------------------


def actions(plan: Plan) -> list[str]:
    return [bind.action for bind in plan.binds]


def test_what_config_json_asks_for_and_is_there_is_left_alone(bench: Bench) -> None:
    bind(bench.source, bench.inside("/mnt"))
    plan = bench.plan(request(bench.source, "/mnt", config=True), request(bench.source, "/mnt"))
    assert actions(plan) == ["present", "mount"]
    assert plan.binds[0].warnings == ["a later mount on /mnt hides it"]


def test_a_stranger_in_the_place_is_the_runtimes(bench: Bench) -> None:
    tmpfs(bench.inside("/mnt"))
    plan = bench.plan(request(bench.source, "/mnt", config=True))
    assert actions(plan) == ["present"]
    assert plan.binds[0].warnings == []
    bench.kind = "runtime"
    assert actions(bench.plan(request(bench.source, "/mnt", config=True))) == ["mount"]


def test_what_is_recorded_is_left_alone(bench: Bench) -> None:
    record = bench.mount(request(bench.source, "/new"))
    requests = [request(bench.source, "/new"), request(bench.source, "/new", "ro"), request(bench.source, "/other")]
    plan = bench.plan(*requests, recorded=record["mounts"])
    assert actions(plan) == ["present", "mount", "mount"]
    assert created(plan) == [[], [], [("/other", "folder")]]


def test_what_is_recorded_is_known_by_a_relative_destination_too(bench: Bench) -> None:
    bench.kind = "runtime"
    record = bench.mount(request(bench.source, "mnt", config=True))
    [again] = bench.plan(request(bench.source, "mnt", config=True), recorded=record["mounts"]).binds
    assert (again.action, again.by) == ("present", "hook")


def test_a_bind_that_a_later_mount_hides_is_left_alone(bench: Bench) -> None:
    tmpfs(bench.inside("/mnt"))
    later = mounting.request(bench.source, "/mnt", config=True)
    plan = bench.plan(request(bench.source, "/mnt/in", config=True), later)
    assert actions(plan) == ["present", "present"]
    assert created(plan) == [[], []]
    assert plan.binds[0].warnings == ["a later mount on /mnt hides it"]


def test_a_tmpfs_that_the_runtime_will_make_is_known_to_a_dry_run(bench: Bench) -> None:
    plan = bench.plan(asked("/mnt"), request(bench.source, "/mnt/new"), request(bench.file, "/mnt"), assumed=True)
    points = [(point.path, point.filesystem) for bind in plan.binds for point in bind.create]
    assert points == [("/mnt/new", "tmpfs")]
    assert [str(problem) for problem in plan.problems] == ["--mount 1: the source is a file, but /mnt is a folder"]
    assert plan.uses == {"/mnt"}


def test_two_unseen_mounts_are_two_places(bench: Bench) -> None:
    rootfs = Rootfs(bench.rootfs)
    for name in ("/mnt", "/etc"):
        rootfs.asked.add(cover := Cover("tmpfs"))
        rootfs.cover(rootfs.resolve(name), cover)
    first = rootfs.resolve("/mnt/same")
    rootfs.reserve(first, Cover("tmpfs"), directory=True)
    assert rootfs.resolve("/mnt/same").missing == []
    assert [step.name for step in rootfs.resolve("/etc/same").missing] == ["same"]


# -- what cannot be done -----------------------------------------------------------------------------------------------


def test_a_missing_source_is_named_by_its_place(bench: Bench) -> None:
    bench.kind = "runtime"
    plan = bench.plan(request("/absent", "/mnt"), request("/absent", "/mnt", config=True), request(bench.file, "/file"))
    assert [type(problem) for problem in plan.problems] == [MissingError, MissingError]
    assert [str(problem) for problem in plan.problems] == [
        "--mount 1: the source /absent cannot be opened: No such file or directory",
        "config.json: /mounts/0/source: the source /absent cannot be opened: No such file or directory",
    ]


def test_a_relative_source_is_the_bundles(bench: Bench) -> None:
    bench.mount(request("source", "/mnt"))
    assert content(bench, "/mnt/word") == "hello\n"


def shared_vol(bench: Bench) -> Request:
    """A bind that shares its mounts with its source."""
    vol = tmpfs(f"{bench.path}/shared")
    os.mkdir(f"{vol}/in")
    propagate(vol, MS_SHARED)
    return request(vol, "/mnt", "rshared")


@pytest.mark.parametrize("planned", [False, True], ids=["mounted", "planned"])
def test_a_destination_shared_with_others_is_refused(bench: Bench, planned: bool) -> None:
    vol = shared_vol(bench)
    requests = [request(bench.source, "/mnt/in")]
    if planned:
        requests.insert(0, vol)
    else:
        bench.mount(vol)
    with pytest.raises(EscapeError, match="shared with the host: the bind would appear on"):
        raise bench.plan(*requests).problems[0]
    plan = bench.plan(*requests, allow_shared=True)
    assert plan.problems == []
    assert plan.binds[-1].warnings == [
        "/mnt/in is below a shared mount: the bind also appears in other mount namespaces"
    ]
    bench.kind = "runtime"
    assert bench.plan(*requests).problems == []
    propagate(f"{bench.path}/shared", MS_PRIVATE)
    if planned:
        assert bench.plan(*requests).binds[-1].warnings == []


def test_more_binds_than_files_may_be_open_are_refused_before_any_change(bench: Bench) -> None:
    import resource

    limit = 100 + max(int(fd) for fd in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    requests = [request(bench.source, f"/new{number}") for number in range(limit // 3)]
    with pytest.raises(UnavailableError, match=f"{limit // 3} binds need more than {limit} open files"):
        bench.plan(*requests)
    assert linux.raise_open_files() == limit


def test_the_description_of_a_plan(bench: Bench) -> None:
    os.symlink("/absent/place", bench.inside("/dangling"))
    plan = bench.plan(request(bench.source, "/dangling", "ro", "nosuid", "noatime"), assumed=True)
    (described,) = describe(plan)
    found = described.pop("found")
    assert isinstance(found, dict)
    assert (found["path"], found["kind"], found["submounts"]) == (bench.source, "folder", [])
    assert [described] == [
        {
            "origin": "--mount 1",
            "source": bench.source,
            "source_links": [],
            "destination": "/dangling",
            "resolved": "/absent/place",
            "links": [{"at": "/dangling", "to": "/absent/place"}],
            "create": [{"path": "/absent", "kind": "directory"}, {"path": "/absent/place", "kind": "directory"}],
            "asked": ["bind", "noatime", "nosuid", "ro", "rprivate"],
            "attributes": ["ro", "nosuid", "noatime"],
            "kept": [],
            "propagation": "rprivate",
            "idmap": None,
            "action": "mount",
            "by": "hook",
            "hides": [],
            "now": None,
            "source_now": None,
            "warnings": [],
        }
    ]


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize("kind", ["config", "argument", "recorded"])
def test_twice_the_binds_take_twice_the_work(bench: Bench, kind: str) -> None:
    bench.kind = "runtime"

    def planned(count: int) -> int:
        requests = [request(bench.source, f"/d{number}/x", config=kind == "config") for number in range(count)]
        recorded: list[MountRecord] = []
        if kind == "recorded":
            recorded = [{**EMPTY, "requested": one.as_mount(), "resolved": one.destination} for one in requests]
        return support.calls(lambda: bench.plan(*requests, recorded=recorded))

    planned(1)
    assert planned(200) < 2.2 * planned(100)


def test_what_is_recorded_is_known_by_a_destination_without_its_slash(bench: Bench) -> None:
    bench.kind = "runtime"
    one = request(bench.source, "mnt", config=True)
    record: MountRecord = {**EMPTY, "requested": one.as_mount(), "resolved": "/mnt"}
    [bind] = bench.plan(one, recorded=[record]).binds
    assert (bind.action, bind.by) == ("present", "hook")


def test_every_bind_before_a_mount_that_cannot_be_looked_for_says_so(bench: Bench) -> None:
    """It may hide them. One after it cannot be hidden by it. The container starts without the hook: with it, too."""
    os.close(mounting.dead_fuse(bench.inside("/dead")))
    tmpfs(bench.inside("/mnt"))
    names = ("/a", "/b", "/dead/x", "/c", "/mnt")
    plan = bench.plan(*(request(bench.source, name, config=True) for name in names))
    assert (plan.problems, actions(plan)) == ([], ["left"] * 4 + ["present"])
    said = [" ".join(bind.warnings) for bind in plan.binds]
    assert ["Transport endpoint is not connected" in each for each in said] == [True, True, True, False, False]
    assert said[3] == "left to the runtime: nothing is mounted on /c"


def test_a_source_of_the_runtime_is_not_touched(bench: Bench) -> None:
    """Nor need it be there: the runtime may have mounted it, and renamed it since."""
    tmpfs(bench.inside("/mnt"))
    plan = bench.plan(request("/absent", "/mnt", config=True), request("/absent", "/etc", config=True))
    assert (plan.problems, actions(plan)) == ([], ["present", "left"])
    bench.attach(plan)
    assert mounting.mount_points(bench.rootfs) == ["/mnt"]


@pytest.mark.parametrize("kind", ["bind", "proc"])
def test_a_runtime_that_has_mounted_nothing_called_too_early(bench: Bench, kind: str) -> None:
    one = request(bench.source, "/mnt", config=True) if kind == "bind" else mounting.asked("/mnt", kind)
    with pytest.raises(UnavailableError, match=r"no mount of config\.json is visible in the container's mount"):
        bench.plan(one, request(bench.source, "/etc"))
