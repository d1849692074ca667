# SPDX-License-Identifier: Apache-2.0
"""Somebody renames in the rootfs while the hook works there: nothing outside is ever touched, nothing is left.

Each test counts its runs, and how many of them the rival really got in the way of: a race that nobody ran shows
nothing.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from helpers import world as worlds
from helpers.mounting import Bench, plant, request
from helpers.rival import Rival, exchange
from helpers.world import call, state
from oci_bind_hook.errors import HookError, LeftoverError
from oci_bind_hook.mounting import undo
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from helpers.mounting import Tree
    from helpers.world import World
    from oci_bind_hook.record.state_file import Record
    from oci_bind_hook.requests.request import Request

    Note = Callable[[str, object], None]

# What README promises for a run that somebody gets in the way of.
CODES = {0, os.EX_NOINPUT, os.EX_UNAVAILABLE, os.EX_OSERR, os.EX_IOERR, os.EX_NOPERM, os.EX_CONFIG}
SPOILT = CODES - {0}

OUTSIDE: Tree = {"in": {}, "word": b"", "keep": {"it": b"as it is\n"}}
FOLDER: Tree = {"in": {}, "word": b"", "full": {"of": b"things\n"}}

# What stands in the rootfs, and the two names in it that change places.
SWAPS: dict[str, tuple[Tree, str, str]] = {
    "folder and link out": ({"a": FOLDER, "evil": "../outside"}, "a", "evil"),
    "folder and absolute link out": ({"a": FOLDER, "evil": "{path}/outside"}, "a", "evil"),
    "folder and file": ({"a": FOLDER, "evil": b"evil\n"}, "a", "evil"),
    "folder and folder": ({"a": FOLDER, "evil": FOLDER}, "a", "evil"),
    "last name and link out": ({"a": {**FOLDER, "evil": "../../outside/in"}}, "a/in", "a/evil"),
    "file and link out": ({"a": {**FOLDER, "evil": "../../outside/word"}}, "a/word", "a/evil"),
    "what is just made and link out": ({"a": FOLDER, "evil": "../outside/in"}, "a/new", "evil"),
    "what is made in it and link out": ({"a": FOLDER, "evil": "../../outside/in"}, "a/new/deep", "evil"),
}


def numbers(short: int, long: int) -> pytest.MarkDecorator:
    """How many ``runs``: in every test run, and with ``-m long``."""
    forms = [pytest.param(short, id=f"{short}"), pytest.param(long, id=f"{long}", marks=pytest.mark.long)]
    return pytest.mark.parametrize("runs", forms)


@contextlib.contextmanager
def closed_afterwards() -> Iterator[None]:
    """The hook leaves its fds to the end of its process; here it runs many times in one."""
    before = mounting.fds()
    try:
        yield
    finally:
        for number in mounting.fds() - before:
            with contextlib.suppress(OSError):
                os.close(int(number))


class Race:
    """A bench with a tree beside the rootfs that nothing may touch, and the books kept of the runs.

    ``is_ambiguous`` tells that a path without links can mean two folders, depending on the moment.
    """

    def __init__(self, bench: Bench, tree: Tree, *, is_ambiguous: bool = False) -> None:
        self.bench = bench
        self.is_ambiguous = is_ambiguous
        self.tree = {
            name: what.format(path=bench.path) if isinstance(what, str) else what for name, what in tree.items()
        }
        self.outside = plant(f"{bench.path}/outside", OUTSIDE)
        # Where a tear-down would come to that goes by the path on which it has mounted.
        mounting.tmpfs(f"{self.outside}/in")
        mounting.bind(bench.file, f"{self.outside}/word")
        self.replant()
        self.pristine = support.tree(bench.rootfs)
        self.untouched = support.tree(self.outside), support.tree(bench.source), support.tree(bench.file)
        self.mounts = support.mounts()
        self.counts: collections.Counter[str] = collections.Counter()
        self.codes: collections.Counter[int] = collections.Counter()
        self.paths: collections.Counter[str] = collections.Counter()

    def replant(self) -> None:
        """The rootfs as it was, whatever the rival has made of it."""
        shutil.rmtree(self.bench.rootfs)
        plant(self.bench.rootfs, self.tree)

    def set_up(self, requests: Sequence[Request]) -> tuple[int, Record, Rootfs | None]:
        """One set-up in the order of the hook: the exit code, the record, and the rootfs as it was opened."""
        record, rootfs = self.bench.record(), None
        try:
            plan = self.bench.plan(*requests)
            rootfs = plan.rootfs
            if plan.problems:
                self.bench.staged.__exit__()
                return plan.problems[0].exit_code, record, rootfs
            self.bench.carry_out(plan, record, lambda: None)
        except HookError as problem:
            return problem.exit_code, record, rootfs
        return 0, record, rootfs

    def new_mounts(self) -> list[str]:
        return [line for line in support.mounts() if line not in self.mounts]

    def check(self, *insides: str) -> None:
        """Nothing outside was touched, no mount is gone, and none stands anywhere but in the rootfs."""
        assert [line for line in self.mounts if line not in support.mounts()] == []
        now = support.tree(self.outside), support.tree(self.bench.source), support.tree(self.bench.file)
        assert now == self.untouched
        for line in self.new_mounts():
            at = line.split(" ")[4]
            assert any(at.startswith(f"{inside}/") for inside in insides or [self.bench.rootfs]), line

    def note(self, note: Note, swaps: int) -> None:
        """What a reader of the report wants to know."""
        books = {**self.counts, "swaps": swaps, "codes": dict(sorted(self.codes.items())), "paths": dict(self.paths)}
        note("race", books)
        print(books)


def undone(race: Race, record: Record, rootfs: Rootfs | None) -> bool:
    """One tear-down. False where something could not be reached, which stays in the record then."""
    try:
        undo.undo(record, race.bench.proc, rootfs, lambda _: False, here=True)
    except LeftoverError:
        return False
    return True


def one_run(race: Race, rival: Rival, requests: Sequence[Request], *, storm: bool) -> None:
    """One set-up with the rival at work, and one tear-down, with it at work only if it is a ``storm``."""
    before = rival.swaps
    with rival.at_work():
        code, record, _ = race.set_up(requests)
    race.counts["runs"] += 1
    race.counts["runs met"] += rival.swaps > before + 1
    race.codes[code] += 1
    assert code in CODES
    race.check()
    assert len(race.new_mounts()) == len(record["mounts"])
    assert code or len(record["mounts"]) == len(requests)
    race.counts["rolled back later"] += code != 0 and record["mounts"] != []
    table = {info.id: info for info in mounting.table()}
    for mount in record["mounts"]:
        race.paths[mount["resolved"]] += 1
        assert code or "ro" in table[mount["attached"][0]["id"] or 0].options
    if storm:
        before = rival.swaps
        with rival.at_work():
            if not undone(race, record, Rootfs(race.bench.rootfs)):
                race.counts["out of reach at first"] += 1
        race.counts["tear-downs met"] += rival.swaps > before + 1
        race.check()
    assert undone(race, record, Rootfs(race.bench.rootfs)), "the rival pauses, and still it is out of reach"
    assert race.new_mounts() == []
    assert record["mounts"] == []
    race.check()
    if now := {item for item in support.tree(race.bench.rootfs).items() if item not in race.pristine.items()}:
        # Mount points that were made, and carried away by a rename before they were removed.
        assert storm or code != 0 or race.is_ambiguous
        assert all(str(entry[0]).startswith(("d", "l")) or entry[3] == 0 for _, entry in now)
        race.counts["left in the rootfs"] += 1
        race.replant()


@numbers(25, 1500)
@pytest.mark.parametrize("older", ["this", "before 5.12"])
@pytest.mark.parametrize("swap", SWAPS)
def test_R01_R03_R04_R06_renamed_while_it_works(
    tmp_path: Path, record_property: Note, swap: str, older: str, runs: int
) -> None:
    """Anywhere between the first look and the last umount: in the walk, while mount points are made, and after.

    One bind as well as all four: each one more makes it rarer that a set-up never meets the wrong one of the two names.
    """
    kernels.play(older)
    bench = Bench(tmp_path)
    tree, one, other = SWAPS[swap]
    race = Race(bench, tree, is_ambiguous=swap == "folder and folder")
    requests = [
        request(bench.source, "/a/in", "ro"),
        request(bench.file, "/a/word", "ro"),
        request(bench.source, "/a/in/../full", "ro"),
        request(bench.source, "/a/new/deep", "ro"),
    ]
    with Rival(bench.inside(f"/{one}"), bench.inside(f"/{other}")) as rival:
        for number in range(runs):
            with closed_afterwards():
                one_run(race, rival, requests[number // 2 % len(requests) :], storm=number % 2 == 0)
        race.note(record_property, rival.swaps)
        assert race.counts["runs met"]
        assert race.counts["tear-downs met"]
        assert race.codes[0]
        # It has made a difference.
        assert len(race.paths) > len(requests) or len(race.codes) > 1 or race.counts["left in the rootfs"]
        # Nobody in the way: it succeeds, and nothing is left.
        with closed_afterwards():
            code, record, rootfs = race.set_up(requests)
            assert code == 0
            assert undone(race, record, rootfs)
        assert support.tree(bench.rootfs) == race.pristine
        assert race.new_mounts() == []


# -- at one moment, known beforehand ---------------------------------------------------------------------------------


class Barrier:
    """Saves no record, but does something at the ``number``-th time that it would be saved.

    The first is after all is resolved, the second after all mount points are made; then things are attached.
    """

    def __init__(self, number: int, action: Callable[[], object]) -> None:
        self.left = number
        self.action = action

    def __call__(self) -> None:
        self.left -= 1
        if not self.left:
            self.action()


@pytest.mark.parametrize("moment", [1, 2], ids=["resolved", "made"])
@pytest.mark.parametrize("older", ["this", "before 5.12"])
@pytest.mark.parametrize("swap", ["folder and link out", "folder and file", "folder and folder"])
def test_R02_swapped_before_it_is_attached(tmp_path: Path, swap: str, older: str, moment: int) -> None:
    """The mount lands in the very folder that was found, whatever its name is by then, and is taken down there."""
    kernels.play(older)
    bench = Bench(tmp_path)
    tree, one, other = SWAPS[swap]
    race = Race(bench, tree)
    record = bench.record()
    plan = bench.plan(request(bench.source, "/a/in", "ro"), request(bench.source, "/a/new/deep", "ro"))
    names = bench.inside(f"/{one}"), bench.inside(f"/{other}")
    bench.carry_out(plan, record, Barrier(moment, lambda: exchange(*names)))
    race.check()
    assert mounting.mount_points(bench.rootfs) == ["/evil/in", "/evil/new/deep"]
    assert undone(race, record, Rootfs(bench.rootfs))
    assert race.new_mounts() == []
    race.check()


@pytest.mark.parametrize("older", ["this", "before 5.12"])
@pytest.mark.parametrize("swap", ["last name and link out", "file and link out"])
def test_R02_a_mount_point_is_swapped_before_it_is_attached(tmp_path: Path, swap: str, older: str) -> None:
    kernels.play(older)
    bench = Bench(tmp_path)
    tree, one, other = SWAPS[swap]
    race = Race(bench, tree)
    record = bench.record()
    plan = bench.plan(request(bench.source if one == "a/in" else bench.file, f"/{one}", "ro"))
    names = bench.inside(f"/{one}"), bench.inside(f"/{other}")
    bench.carry_out(plan, record, Barrier(1, lambda: exchange(*names)))
    race.check()
    assert mounting.mount_points(bench.rootfs) == [f"/{other}"]
    assert undone(race, record, Rootfs(bench.rootfs))
    assert race.new_mounts() == []
    race.check()


@pytest.mark.parametrize("older", ["this", "before 5.12"])
def test_R06_the_folder_is_moved_out_of_the_rootfs(tmp_path: Path, older: str) -> None:
    """Who can move it out had it before. The mount goes with it, and is found there by its id."""
    kernels.play(older)
    bench = Bench(tmp_path)
    race = Race(bench, {"a": FOLDER})
    record, away = bench.record(), f"{bench.path}/away"
    plan = bench.plan(request(bench.source, "/a/in", "ro"))
    bench.carry_out(plan, record, Barrier(1, lambda: os.rename(bench.inside("/a"), away)))
    race.check(away)
    assert mounting.mount_points(away) == ["/in"]
    assert undone(race, record, Rootfs(bench.rootfs))
    assert race.new_mounts() == []
    assert support.tree(bench.rootfs).keys() == {"."}


@pytest.mark.parametrize("older", ["this", "before 5.12"])
def test_R06_the_mount_point_is_removed(tmp_path: Path, older: str) -> None:
    kernels.play(older)
    bench = Bench(tmp_path)
    race = Race(bench, {"a": FOLDER})
    record = bench.record()
    plan = bench.plan(request(bench.source, "/a/new", "ro"), request(bench.source, "/a/in", "ro"))
    with pytest.raises(HookError) as caught:
        bench.carry_out(plan, record, Barrier(2, lambda: os.rmdir(bench.inside("/a/in"))))
    assert (caught.value.exit_code, str(caught.value).count("\n")) == (os.EX_OSERR, 0)
    assert (race.new_mounts(), record["mounts"], record["made"]) == ([], [], [])
    os.mkdir(bench.inside("/a/in"))
    race.check()
    assert support.tree(bench.rootfs) == race.pristine


@pytest.mark.usefixtures("kernel")
def test_R06_what_was_renamed_and_cannot_be_reached_stays_recorded(tmp_path: Path) -> None:
    """It was attached to what is held; where another mount hides it, nobody but the next call can take it down."""
    bench = Bench(tmp_path)
    race = Race(bench, {"a": FOLDER})
    record, renamed = bench.record(), bench.inside("/renamed")

    def rename_and_hide() -> None:
        os.rename(bench.inside("/a"), renamed)
        mounting.tmpfs(renamed)

    plan = bench.plan(request(bench.source, "/a/in", "ro"))
    bench.carry_out(plan, record, Barrier(2, rename_and_hide))
    assert not undone(race, record, Rootfs(bench.rootfs))
    assert len(record["mounts"]) == 1
    mounting.umount(renamed, mounting.MNT_DETACH)
    if record["mounts"][0]["attached"][0]["unique"] is None:
        # Where ids are used again a mount is known by its place, too.
        assert not undone(race, record, Rootfs(bench.rootfs))
        os.rename(renamed, bench.inside("/a"))
    assert undone(race, record, Rootfs(bench.rootfs))
    assert race.new_mounts() == []
    race.check()


@numbers(25, 1500)
@pytest.mark.parametrize("older", ["this", "before 5.12"])
def test_R06_moved_out_and_back_while_it_is_torn_down(
    tmp_path: Path, record_property: Note, older: str, runs: int
) -> None:
    kernels.play(older)
    bench = Bench(tmp_path)
    race = Race(bench, {"a": FOLDER})
    away = plant(f"{bench.path}/away", {"a": FOLDER})
    requests = [request(bench.source, "/a/in", "ro"), request(bench.file, "/a/word", "ro")]
    with Rival(bench.inside("/a"), f"{away}/a") as rival:
        for _ in range(runs):
            with closed_afterwards():
                code, record, rootfs = race.set_up(requests)
                assert code == 0
                before = rival.swaps
                with rival.at_work():
                    race.counts["undone"] += undone(race, record, rootfs)
                race.counts["runs met"] += rival.swaps > before + 1
                race.check(bench.rootfs, away)
                assert undone(race, record, rootfs)
                assert race.new_mounts() == []
        race.note(record_property, rival.swaps)
    assert race.counts["runs met"]
    assert race.counts["undone"]
    assert support.tree(bench.rootfs) == race.pristine


@numbers(25, 1500)
def test_R05_renames_elsewhere_disturb_nobody(tmp_path: Path, record_property: Note, runs: int) -> None:
    """The kernel's own walk gives up when anything is renamed anywhere (EAGAIN). Ours goes on."""
    bench = Bench(tmp_path)
    race = Race(bench, {"a": FOLDER, "proc": {}})
    elsewhere = plant(f"{bench.path}/elsewhere", {"one": {}, "other": {}})
    mounting.mount("proc", bench.inside("/proc"), "proc")
    race.mounts, race.pristine = support.mounts(), {}
    paths = ["/a/../a/in", "/proc/self/../../a/full", "/a/new/../../a/new/deep"]
    requests = [request(bench.source, path) for path in paths]
    with Rival(f"{elsewhere}/one", f"{elsewhere}/other") as rival:
        for _ in range(runs):
            with closed_afterwards():
                before = rival.swaps
                with rival.at_work():
                    code, record, rootfs = race.set_up(requests)
                    assert code == 0
                    assert undone(race, record, rootfs)
                race.counts["runs met"] += rival.swaps > before + 1
                race.check()
                assert race.new_mounts() == []
        race.note(record_property, rival.swaps)
    assert race.counts["runs met"]


@numbers(25, 1500)
@pytest.mark.parametrize("older", ["this", "before 5.12"])
def test_R07_two_roots_change_places(tmp_path: Path, record_property: Note, older: str, runs: int) -> None:
    """One of them is opened, and everything happens in that one."""
    kernels.play(older)
    bench = Bench(tmp_path)
    race = Race(bench, {"a": FOLDER})
    second = plant(f"{bench.path}/rootfs2", {"a": FOLDER})
    requests = [request(bench.source, "/a/in", "ro"), request(bench.source, "/a/new/deep", "ro")]
    with Rival(bench.rootfs, second) as rival:
        for number in range(10 * runs):
            if number >= runs and len(race.paths) == 2:
                break
            with closed_afterwards():
                before = rival.swaps
                with rival.at_work():
                    code, record, rootfs = race.set_up(requests)
                race.counts["runs met"] += rival.swaps > before + 1
                # By mount(2) a new mount that moves all the time may be out of reach.
                assert code in ({0} if older == "this" else {0, os.EX_OSERR})
                race.check(bench.rootfs, second)
                where = {line.split(" ")[4].split("/a/")[0] for line in race.new_mounts()}
                assert len(where) == 1 or (code and not where)
                race.paths.update(map(os.path.basename, where))
                with rival.at_work():
                    undone(race, record, rootfs)
                assert undone(race, record, rootfs)
                assert race.new_mounts() == []
                assert support.tree(bench.rootfs) == support.tree(second) == race.pristine
        race.note(record_property, rival.swaps)
    assert race.counts["runs met"]
    assert race.paths.keys() == {"rootfs", "rootfs2"}


# -- the installed launcher ------------------------------------------------------------------------------------------


class Launches:
    """Runs of the launcher, and what becomes of the world around them."""

    def __init__(self, world: World, tree: Tree) -> None:
        self.world = world
        plant(world.rootfs, tree)
        self.outside = plant(world.path / "bundle/outside", OUTSIDE)
        support.bundle(world.path / "bundle", ["true"])
        self.before = world.snapshot()
        self.untouched = support.tree(self.outside)
        self.codes: collections.Counter[int] = collections.Counter()
        self.stderr = ""

    def call(self, stage: str, *arguments: str) -> int:
        """One run: its exit code, which is a documented one, with one line where it is not 0."""
        status = "stopped" if stage == "poststop" else "creating"
        done = call(self.world, stage, *arguments, stdin=state(self.world, status=status))
        self.codes[done.returncode] += 1
        assert done.returncode in CODES, done.stderr
        self.stderr = done.stderr
        lines = done.stderr.splitlines()
        assert [line.startswith("oci-bind-hook: c1 ") for line in lines] == [True] * (done.returncode != 0), lines
        assert support.tree(self.outside) == self.untouched
        return done.returncode

    def new_mounts(self) -> list[str]:
        known = self.before["mounts"]
        assert isinstance(known, list)
        return [line for line in support.mounts() if line not in known]


@numbers(5, 300)
@pytest.mark.parametrize("older", ["this", "before 5.12"])
@pytest.mark.parametrize("swap", ["folder and link out", "folder and file"])
def test_R01_R03_R06_the_launcher(world: World, record_property: Note, swap: str, older: str, runs: int) -> None:
    kernels.play(older)
    tree, one, other = SWAPS[swap]
    launches = Launches(world, tree)
    wanted = worlds.mount(world, "/a/in", "/a/new/deep", "/a/in/../full", options=",ro")
    with Rival(f"{world.rootfs}/{one}", f"{world.rootfs}/{other}") as rival:
        met = 0
        for _ in range(runs):
            before = rival.swaps
            with rival.at_work():
                code = launches.call("prestart", *wanted)
            met += rival.swaps > before + 1
            assert all(line.split(" ")[4].startswith(f"{world.rootfs}/") for line in launches.new_mounts())
            # By mount(2) a mount that moves all the time may be out of reach: then poststop takes it down.
            assert (
                len(launches.new_mounts()) == (3 if code == 0 else 0) or "it stays in the state file" in launches.stderr
            )
            with rival.at_work():
                launches.call("poststop")
            assert launches.call("poststop") == 0
            assert launches.new_mounts() == []
            assert support.records(world.state) == []
        record_property("race", {"swaps": rival.swaps, "met": met, "codes": dict(launches.codes)})
        print(rival.swaps, met, launches.codes)
        assert met
        for name in tree:
            path = f"{world.rootfs}/{name}"
            shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        shutil.rmtree(f"{world.rootfs}/outside", ignore_errors=True)
        plant(world.rootfs, tree)
        assert launches.call("prestart", *wanted) == launches.call("poststop") == 0
    assert world.snapshot() == launches.before


@numbers(6, 300)
def test_R07_two_roots_and_the_launcher(world: World, record_property: Note, runs: int) -> None:
    """Either root, or none: 69 where it saw one and then the other, 74 where it has begun in the other one."""
    launches = Launches(world, {"a": FOLDER})
    second = str(world.path / "bundle/rootfs2")
    shutil.copytree(world.rootfs, second, symlinks=True)
    launches.before = world.snapshot()
    pristine = support.tree(second)
    wanted = worlds.mount(world, "/a/in", "/a/new/deep", options=",ro")
    with Rival(world.rootfs, second) as rival:
        for _ in range(runs):
            with rival.at_work():
                code = launches.call("prestart", *wanted)
            points = [line.split(" ")[4] for line in launches.new_mounts()]
            assert len(points) == (2 if code == 0 else 0)
            assert len({point.split("/a/")[0] for point in points}) == (code == 0)
            assert all(point.startswith((f"{world.rootfs}/", f"{second}/")) for point in points)
            is_other = False
            if code == 0:
                known = json.loads((world.state / "c1.json").read_text())["rootfs"]["ino"]
                is_other = known == os.stat(second).st_ino
            if is_other:
                exchange(world.rootfs, second)
            assert launches.call("poststop") == 0
            if is_other:
                exchange(world.rootfs, second)
            assert world.snapshot() == launches.before
            assert support.tree(second) == pristine
        record_property("race", {"swaps": rival.swaps, "codes": dict(launches.codes)})
        print(rival.swaps, launches.codes)
        assert rival.swaps > 2 * runs


CONFIGS = ("another", "a pipe", "a link to a device", "a folder")
BINDS = [["/a/full", "/a/in"], ["/data", "/new", "/real"]]


def two_configs(world: World, other: str) -> tuple[str, str]:
    """config.json with the first of the ``BINDS``, and what is to be there instead of it; their paths."""
    config, rival = str(world.path / "bundle/config.json"), str(world.path / "bundle/rival.json")
    with open(config, encoding="utf-8") as file:
        document = json.load(file)
    for path, binds in zip((config, rival) if other == "another" else (config,), BINDS, strict=False):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({**document, "mounts": [support.bind(world.source, each, "ro") for each in binds]}, file)
    if other == "a pipe":
        os.mkfifo(rival)
    elif other == "a folder":
        os.mkdir(rival)
    elif other != "another":
        os.symlink("/dev/zero", rival)
    return config, rival


@numbers(4, 100)
@pytest.mark.parametrize("other", CONFIGS)
def test_R08_config_json_is_replaced(world: World, record_property: Note, other: str, runs: int) -> None:
    """It is opened once: what was judged is what is done."""
    launches = Launches(world, {"a": FOLDER})
    seen: collections.Counter[str] = collections.Counter()
    with Rival(*two_configs(world, other)) as rival:
        for _ in range(runs):
            with rival.at_work():
                code = launches.call("prestart")
            assert code in (0, os.EX_NOINPUT)
            points = worlds.mounted(world)
            assert points in (BINDS if code == 0 else [[]])
            seen[" ".join(points)] += 1
            assert launches.call("poststop") == 0
            assert world.snapshot() == launches.before
        record_property("race", {"swaps": rival.swaps, "seen": dict(seen)})
        print(rival.swaps, seen)
        assert rival.swaps > 2 * runs
        assert launches.call("prestart") == launches.call("poststop") == 0


@pytest.mark.parametrize("other", CONFIGS)
def test_R08_config_json_is_replaced_once_it_is_open(world: World, other: str) -> None:
    """Stopped in the very call that opens it, the hook goes on with what it has opened."""
    launches = Launches(world, {"a": FOLDER})
    names = two_configs(world, other)
    trace = world.path / "trace"
    stop = ["strace", "-qq", "-o", str(trace), "-P", names[0], "-e", "trace=openat", "-e", "inject=openat:signal=STOP"]
    command = [*stop, world.launcher, "prestart", *world.root_option()]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True) as tracer:
        assert tracer.stdin is not None
        tracer.stdin.write(state(world))
        tracer.stdin.close()
        while "stopped by SIGSTOP" not in (trace.read_text() if trace.exists() else ""):
            assert tracer.poll() is None
        assert exchange(*names)
        (hook,) = support.children(tracer.pid)
        os.kill(hook, signal.SIGCONT)
    assert tracer.returncode == 0
    assert worlds.mounted(world) == BINDS[0]
    assert launches.call("poststop") == 0


@numbers(2, 60)
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_R01_R03_in_a_container(world: World, record_property: Note, runtime: str, stage: str, runs: int) -> None:
    tree, one, other = SWAPS["folder and link out"]
    launches = Launches(world, tree)
    bundle = world.bundle("true", stage, *worlds.mount(world, "/a/in", "/a/new/deep", options=",ro"))
    with Rival(f"{world.rootfs}/{one}", f"{world.rootfs}/{other}") as rival:
        for _ in range(runs):
            with rival.at_work():
                done = support.run_container(runtime, bundle, "c1")
            assert done.returncode == 0, done.stderr
            assert support.tree(launches.outside) == launches.untouched
            assert (launches.new_mounts(), os.listdir(world.state)) == ([], [])
        record_property("race", {"swaps": rival.swaps, "runs": runs})
        print(rival.swaps, runs)
        assert rival.swaps > 2 * runs
