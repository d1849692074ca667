# SPDX-License-Identifier: Apache-2.0
"""Binds that are wanted only sometimes, or for each match of a pattern: optional, when-exists, glob."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.fuse import Fuse
from helpers.world import call, mounted, state

if TYPE_CHECKING:
    from helpers.world import World


def plan(world: World, *specs: str) -> tuple[int, list[tuple[str, str, str, list[str]]], list[str]]:
    """What a dry-run says: the exit code, action source destination and warnings of each bind, and problems."""
    words = [word for spec in specs for word in ("--mount", spec)]
    before = world.snapshot()
    done = call(world, "prestart", *words, "--dry-run", "--format", "json", stdin=state(world))
    assert world.snapshot() == before
    document = json.loads(done.stdout)
    mounts = [(each["action"], each["source"], each["destination"], each["warnings"]) for each in document["mounts"]]
    return done.returncode, mounts, [problem["message"] for problem in document["problems"]]


def run(world: World, *specs: str) -> tuple[int, str, list[str]]:
    """What a real run says and mounts. Poststop leaves nothing of it."""
    words = [word for spec in specs for word in ("--mount", spec)]
    before = world.snapshot()
    done = call(world, "prestart", *words, stdin=state(world))
    found = mounted(world)
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before
    return done.returncode, done.stderr.removeprefix("oci-bind-hook: c1 prestart: "), found


@pytest.fixture(autouse=True)
def bundle(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])


# -- optional ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["/absent", "FILE/below"], ids=["absent", "below-a-file"])
def test_an_optional_source_may_be_absent(world: World, source: str) -> None:
    source = source.replace("FILE", str(world.file))
    specs = [f"src={source},dst=/a,optional", f"src={world.source},dst=/b,optional"]
    skipped = ("skipped", source, "/a", ["the source is optional and does not exist"])
    assert plan(world, *specs) == (0, [skipped, ("mount", str(world.source), "/b", [])], [])
    assert run(world, *specs) == (0, "", ["/b"])


def test_optional_excuses_nothing_else(world: World) -> None:
    os.symlink("loop", world.path / "loop")
    code, line, found = run(world, f"src={world.path}/loop,dst=/a,optional")
    assert (code, found) == (66, [])
    assert "Too many levels of symbolic links" in line
    assert run(world, "src=/absent,dst=/a,optional=false")[0] == 66


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_container_starts_without_what_is_optional(world: World, runtime: str) -> None:
    specs = ["src=/absent,dst=/new/a,optional", f"src={world.source},dst=/b,when-exists=/absent"]
    words = [word for spec in specs for word in ("--mount", spec)]
    bundle = world.bundle("ls -d /new /b; true", "createRuntime", *words)
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert world.snapshot() == before


# -- when-exists -------------------------------------------------------------------------------------------------------

# FOLDERS and LINKS of the rootfs, tests/helpers/support.py
THERE = ["/real", "/", "/bin/busybox", "/absolute", "/climb", "/data/link", "/data/../etc/passwd", "/../../etc"]
ABSENT = ["/absent", "/dangling", "/real/absent", "/bin/absent/..x"]


@pytest.mark.parametrize("path", THERE)
def test_when_it_exists(world: World, path: str) -> None:
    spec = f"src={world.source},dst=/new,when-exists={path}"
    assert plan(world, spec) == (0, [("mount", str(world.source), "/new", [])], [])
    assert run(world, spec) == (0, "", ["/new"])


@pytest.mark.parametrize("path", ABSENT)
@pytest.mark.parametrize("source", ["SOURCE", "/absent"])
def test_when_it_does_not_exist(world: World, path: str, source: str) -> None:
    source = source.replace("SOURCE", str(world.source))
    spec = f"src={source},dst=/new,when-exists={path}"
    skipped = ("skipped", source, "/new", [f"{path} does not exist in the container"])
    assert plan(world, spec) == (0, [skipped], [])
    assert run(world, spec) == (0, "", [])


def test_a_pattern_without_a_match_is_an_error_only_where_the_condition_is_met(world: World) -> None:
    """In the plan and in the run, as for another source that does not exist."""
    os.symlink("loop", world.path / "loop")
    for pattern, said in ((f"{world.path}/*.no", "nothing matches "), (f"{world.path}/loop/*", "cannot be opened")):
        for destination in ("/new", "/new/*"):
            spec = f"glob,src={pattern},dst={destination},when-exists="
            absent, there = f"{spec}/absent", f"{spec}/real"
            good = f"src={world.source},dst=/b"
            skipped = ("skipped", pattern, destination, ["/absent does not exist in the container"])
            assert plan(world, absent, good) == (0, [skipped, ("mount", str(world.source), "/b", [])], [])
            assert run(world, absent, good) == (0, "", ["/b"])
            code, _, problems = plan(world, there, good)
            assert (code, len(problems)) == (66, 1)
            assert said in problems[0]
            code, line, found = run(world, there, good)
            assert (code, found) == (66, [])
            assert problems[0] in line


def test_a_link_of_the_image_does_not_look_at_the_host(world: World) -> None:
    os.symlink(world.source, f"{world.rootfs}/out")
    os.symlink("../../../../../../../../etc/hostname", f"{world.rootfs}/up")
    assert os.path.exists("/etc/hostname")
    for path in ("/out", "/up", "/out/word"):
        assert run(world, f"src={world.source},dst=/new,when-exists={path}") == (0, "", [])


def test_a_bind_planned_before_makes_it_exist(world: World) -> None:
    first = f"src={world.source},dst=/new"
    second = f"src={world.file},dst=/two,when-exists=/new/word"
    assert run(world, first, second) == (0, "", ["/new", "/two"])
    assert run(world, second, first) == (0, "", ["/new"])


# -- glob --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def many(world: World) -> str:
    """A folder with things of one pattern."""
    many = world.path / "many"
    for name in ("b.d", "a.d", "c.d/.hidden"):
        (many / name).mkdir(parents=True)
    (many / "1.d").write_text("a file\n")
    (many / ".h.d").write_text("not matched\n")
    (many / "l.d").symlink_to("a.d")
    return os.fspath(many)


@pytest.mark.parametrize("how", ["type=glob", "glob", "type=bind,glob=true"])
@pytest.mark.parametrize("destination", ["/new", "/new/", "/absolute/x"])
def test_each_match_goes_below_the_destination_in_order(world: World, many: str, how: str, destination: str) -> None:
    spec = f"{how},src={many}/*.d,dst={destination},ro"
    names = ["1.d", "a.d", "b.d", "c.d", "l.d"]
    warnings = ["the container has CAP_SYS_ADMIN and can make the bind writable again"]
    expected = [("mount", f"{many}/{name}", f"{destination.rstrip('/')}/{name}", warnings) for name in names]
    assert plan(world, spec) == (0, expected, [])
    real = destination.rstrip("/").replace("/absolute", "/real")
    assert run(world, spec) == (0, "", [f"{real}/{name}" for name in names])


def test_nothing_matches(world: World, many: str) -> None:
    spec = f"type=glob,src={many}/*.x,dst=/new"
    message = f"nothing matches {many}/*.x"
    assert plan(world, spec) == (66, [], [message])
    assert run(world, spec) == (66, f"--mount 1: {message} (to allow this, set optional)\n", [])
    assert run(world, f"{spec},optional") == (0, "", [])


def test_two_matches_of_one_name(world: World, many: str) -> None:
    os.makedirs(f"{many}/c.d/a.d")
    os.makedirs(f"{many}/b.d/a.d")
    code, line, found = run(world, f"type=glob,src={many}/[bc].d/*,dst=/new")
    assert (code, found) == (78, [])
    assert line == (
        f"--mount 1: {many}/b.d/a.d and {many}/c.d/a.d would both be bound on /new/a.d (use one * in dst for each * in "
        "src to keep them apart)\n"
    )
    for pattern, destination in (("*/a.d", "/new/"), ("*.d/a.d", "/new"), ("*/a*", "/new")):
        code, line, found = run(world, f"type=glob,src={many}/{pattern},dst={destination}")
        assert (code, found) == (78, [])
        assert line == (
            f"--mount 1: {many}/b.d/a.d and {many}/c.d/a.d would both be bound on /new/a.d (use "
            f"dst=/new/{pattern} to keep them apart)\n"
        )
        spec = f"type=glob,src={many}/{pattern},dst=/new/{pattern}"
        assert run(world, spec) == (0, "", ["/new/b.d/a.d", "/new/c.d/a.d"])
    code, line, found = run(world, f"type=glob,src={many}/[bc].d/a*,dst=/new/*")
    assert line == (
        f"--mount 1: {many}/b.d/a.d and {many}/c.d/a.d would both be bound on /new/.d (use one * in dst for each * in "
        "src to keep them apart)\n"
    )


def test_a_match_on_a_destination_that_another_argument_has(world: World, many: str) -> None:
    code, line, found = run(world, f"type=glob,src={many}/a*,dst=/new", f"src={world.source},dst=/new/a.d")
    assert (code, found) == (78, [])
    assert line == f"--mount 2: /new/a.d is already the destination of --mount 1, for {many}/a.d\n"


# -- stars in the destination ------------------------------------------------------------------------------------------


def test_each_match_keeps_its_part(world: World) -> None:
    """As podman-hpc's modules have it: /opt/cray/*/lib64:/opt/cray/*/lib64, and a part of a name."""
    cray = world.path / "cray"
    for name in ("mpich/8.1/lib64", "libfabric/1.15/lib64/libfabric", "pe/lib64"):
        (cray / name).mkdir(parents=True)
    for name in ("cxi0", "cxi1", "other"):
        (cray / name).write_text("a device, nearly\n")
    tables = {
        ("*/*/lib64", "/opt/cray/*/*/lib64"): ["libfabric/1.15/lib64", "mpich/8.1/lib64"],
        ("libfabric/*/lib64/libfabric", "/opt/cray/libfabric/*/lib64/libfabric"): ["libfabric/1.15/lib64/libfabric"],
        ("cxi*", "/opt/cray/cxi*"): ["cxi0", "cxi1"],
    }
    for (source, destination), found in tables.items():
        spec = f"type=glob,src={cray}/{source},dst={destination}"
        assert run(world, spec) == (0, "", [f"/opt/cray/{name}" for name in found])
        code, mounts, problems = plan(world, spec)
        assert (code, problems) == (0, [])
        assert [mount[:3] for mount in mounts] == [("mount", f"{cray}/{name}", f"/opt/cray/{name}") for name in found]


def test_a_part_that_is_not_utf8_and_one_with_a_star(world: World, many: str) -> None:
    for name in (b"\xff.e", b"*.e", b"[*].e"):
        os.makedirs(os.fsencode(many) + b"/" + name + b"/lib")
    before = world.snapshot()
    words = ("--mount", f"type=glob,src={many}/*.e/lib,dst=/new/*/[*]/lib")
    assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
    there = [os.fsencode(path).decode(errors="surrogateescape") for path in mounted(world)]
    assert there == ["/new/*/*/lib", "/new/[*]/*/lib", "/new/\udcff/*/lib"]
    shown = call(world, "show", "c1", stdin="").stdout
    assert f"mounted: {many}/\\xff.e/lib on /new/\\xff/*/lib" in shown
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.parametrize("name", ["x", "x.", "x.."])
@pytest.mark.parametrize("destination", ["/new/*", "/new/*/etc", "/*"])
def test_a_planted_name_chooses_no_other_folder(world: World, many: str, name: str, destination: str) -> None:
    os.makedirs(f"{many}/{name}")
    code, line, found = run(world, f"type=glob,src={many}/x*,dst={destination}")
    assert (code, found) == (78, [])
    assert line == (f"--mount 1: {many}/{name} would make a name in {destination} empty, . or .. (change src or dst)\n")


def test_without_glob_a_star_is_a_name_and_it_is_said_where_it_is_not_there(world: World, many: str) -> None:
    absent = f"src={many}/*/lib,dst=/new"
    code, line, found = run(world, absent)
    assert (code, found) == (66, [])
    assert line.endswith("No such file or directory (to use * as a pattern, set type=glob)\n")
    skipped = plan(world, f"{absent},optional")[1][0]
    assert skipped[3] == ["the source is optional and does not exist: to use * as a pattern, set type=glob"]
    spec = f"src={world.source},dst=/new/*/x"
    warning = "the * in /new/*/x is a literal star; with type=glob it would stand for a match"
    assert plan(world, spec)[1][0][3] == [warning]
    assert run(world, spec) == (0, "", ["/new/*/x"])
    os.makedirs(f"{many}/*/lib")
    os.makedirs(f"{world.rootfs}/new/*/x")
    spec = f"src={many}/*/lib,dst=/new/*/x"
    assert plan(world, spec)[1] == [("mount", f"{many}/*/lib", "/new/*/x", [])]
    assert run(world, spec) == (0, "", ["/new/*/x"])


def test_a_second_call_takes_what_has_come_since(world: World, many: str) -> None:
    words = ["--mount", f"type=glob,src={many}/*.d,dst=/new"]
    before = world.snapshot()
    assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
    os.mkdir(f"{many}/z.d")
    assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
    assert mounted(world) == [f"/new/{name}.d" for name in "1abclz"]
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


@pytest.mark.parametrize("pattern", ["*.d", "*.d/sub"], ids=["name", "folder"])
def test_a_match_whose_name_is_not_utf8(world: World, many: str, pattern: str) -> None:
    os.makedirs(os.fsencode(many) + b"/\xff.d/sub")
    before = world.snapshot()
    words = ("--mount", f"type=glob,src={many}/{pattern},dst=/new")
    assert call(world, "prestart", *words, stdin=state(world)).returncode == 0
    name = {"*.d": "/new/\udcff.d", "*.d/sub": "/new/sub"}[pattern]
    assert name in [os.fsencode(path).decode(errors="surrogateescape") for path in mounted(world)]
    shown = call(world, "show", "c1", stdin="")
    assert (shown.returncode, f"{many}/\\xff.d" in shown.stdout) == (0, True)
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


def plant(world: World, many: str, links: dict[str, str]) -> None:
    """Links beside the things that a pattern matches; OUT stands for a folder elsewhere."""
    (world.path / "out/back").mkdir(parents=True)
    (world.path / "out/file").write_text("not for containers\n")
    (world.path / "out/in").symlink_to(many)
    for name, text in links.items():
        os.symlink(text.replace("OUT", str(world.path / "out")).replace("MANY", many), f"{many}/{name}")


PLANTED = {
    "absolute": "OUT/file",
    "relative": "../out/file",
    "a folder": "OUT",
    "the root": "/",
    "the folder above": "..",
    "by way of another": "l.d/../../out",
    "magic": "/proc/self/root",
    "of procfs": "/proc/self",
}


@pytest.mark.parametrize("text", PLANTED.values(), ids=PLANTED)
def test_a_link_that_leads_out_is_not_followed(world: World, many: str, text: str) -> None:
    """Who writes in the folder that a pattern looks into, as a container may, does not choose what else is bound."""
    plant(world, many, {"z.d": text})
    for name in ("*.d", "z.d", "[z].d"):
        spec = f"type=glob,src={many}/{name},dst=/new"
        code, line, found = run(world, spec)
        assert (code, found) == (77, [])
        assert line == f"--mount 1: {many}/z.d leads out of {many} (to allow this, set follow-links)\n"
        planned, _, problems = plan(world, spec)
        assert (planned, problems) == (77, [f"{many}/z.d leads out of {many}"])


def test_a_dry_run_names_every_link_on_the_way(world: World, many: str) -> None:
    plant(world, many, {"z.d": "y", "y": "OUT", "hanging": "z.d/absent"})
    out = f"{world.path}/out"
    ways = {
        f"type=glob,src={many}/z*,dst=/new": [(f"{many}/z.d", "y"), (f"{many}/y", out)],
        f"src={many}/y/back,dst=/new": [(f"{many}/y", out)],
        f"src={many}/hanging/x,dst=/new": [(f"{many}/hanging", "z.d/absent"), (f"{many}/z.d", "y"), (f"{many}/y", out)],
        f"src={out}/in/l.d,dst=/new": [(f"{out}/in", many), (f"{many}/l.d", "a.d")],
        f"src={out}/in/1.d/x,dst=/new,optional": [(f"{out}/in", many)],
        f"src={out}/file,dst=/real": [],
    }
    for spec, links in ways.items():
        words = ["prestart", "--mount", spec, "--dry-run"]
        [mount] = json.loads(call(world, *words, "--format", "json", stdin=state(world)).stdout)["mounts"]
        assert mount["source_links"] == [{"at": at, "to": to} for at, to in links]
        shown = [f"  through  {at} -> {to}" for at, to in links if mount["action"] != "skipped"]
        text = call(world, *words, stdin=state(world)).stdout
        assert [line for line in text.splitlines() if line.startswith("  through")] == shown


def test_nor_one_on_the_way(world: World, many: str) -> None:
    plant(world, many, {"z.d": "OUT"})
    code, line, found = run(world, f"type=glob,src={many}/*.d/file,dst=/new")
    assert (code, found) == (77, [])
    assert line == f"--mount 1: {many}/z.d/file leads out of {many} (to allow this, set follow-links)\n"
    # One that nothing is found through does not matter: /usr/lib has such links everywhere.
    os.mkdir(f"{many}/c.d/shown")
    assert run(world, f"type=glob,src={many}/*.d/shown,dst=/new") == (0, "", ["/new/shown"])


def test_links_inside_are_followed_wherever_they_are(world: World, many: str) -> None:
    plant(world, many, {"y.d": "MANY/a.d", "z.d": "OUT/in/b.d", "x.d": "../many/l.d"})
    names = ["a.d", "b.d", "c.d", "l.d", "x.d", "y.d", "z.d"]
    assert run(world, f"type=glob,src={many}/[!1].d,dst=/new") == (0, "", [f"/new/{name}" for name in names])
    # The folder itself is what --mount names, links and all.
    os.symlink(many, world.path / "to-many")
    spec = f"type=glob,src={world.path}/to-many/[!1].d,dst=/again"
    assert run(world, spec)[:2] == (0, "")


def test_the_administrator_may_let_them_lead_out(world: World, many: str) -> None:
    plant(world, many, {"y.d": "OUT/file", "z.d": "/proc/self/exe"})
    spec = f"type=glob,src={many}/[yz].d,dst=/new,follow-links"
    assert run(world, spec) == (0, "", ["/new/y.d", "/new/z.d"])


def test_a_link_to_nothing_is_missing(world: World, many: str) -> None:
    plant(world, many, {"z.d": "OUT/absent"})
    code, line, found = run(world, f"type=glob,src={many}/z*,dst=/new")
    assert (code, found) == (66, [])
    assert line.startswith(
        f"--mount 1: the source {many}/z.d is a link to {world.path}/out/absent, which does not exist"
    )


def test_the_options_hold_for_each_match(world: World, many: str) -> None:
    done = call(world, "prestart", "--mount", f"glob,src={many}/[ab].d,dst=/new,ro,nosuid", stdin=state(world))
    assert done.returncode == 0
    for name in ("a.d", "b.d"):
        flags = os.statvfs(f"{world.rootfs}/new/{name}").f_flag
        assert flags & (os.ST_RDONLY | os.ST_NOSUID) == os.ST_RDONLY | os.ST_NOSUID


@pytest.mark.parametrize("optional", ["", ",optional"])
@pytest.mark.parametrize("pattern", ["fuse/*", "*/word", "fuse/[f]older/*"])
def test_a_folder_that_fails_has_no_answer(world: World, many: str, pattern: str, optional: str) -> None:
    """It is no folder without matches: perhaps it has them."""
    with Fuse(f"{many}/fuse") as fuse:
        fuse.end()
        code, line, found = run(world, f"type=glob,src={many}/{pattern},dst=/new{optional}")
    assert (code, found) == (66, [])
    assert f"{many}/fuse" in line
    assert "cannot be opened: Transport endpoint is not connected (the server of this FUSE mount has ended" in line
