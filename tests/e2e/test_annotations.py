# SPDX-License-Identifier: Apache-2.0
"""Binds that annotations ask for: only where the administrator said so, and only of what they allow."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.world import call, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

KEY = "io.github.oci-bind-hook.mount."


def prepare(world: World, annotations: dict[str, str], **members: Any) -> None:
    """A bundle whose annotations are, by NAME, these; SOURCE stands for the source of the world."""
    texts = {f"{KEY}{name}": text.replace("SOURCE", str(world.source)) for name, text in annotations.items()}
    support.bundle(world.path / "bundle", ["true"], annotations={"org.example": "x", **texts}, **members)


def allowed(*sources: object) -> list[str]:
    return ["--allow-annotations", *(f"--allow-source={source}" for source in sources)]


def by_hand(world: World, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(world, "prestart", *arguments, stdin=state(world))


def refused(world: World, *arguments: str) -> tuple[int, str]:
    """The exit code of a call that changes nothing, and its line without container and stage. A dry-run agrees."""
    before = world.snapshot()
    done = by_hand(world, *arguments)
    assert world.snapshot() == before
    planned = by_hand(world, *arguments, "--dry-run", "--format", "json")
    assert world.snapshot() == before
    assert planned.returncode == done.returncode
    assert json.loads(planned.stdout)["problems"][0]["where"] in done.stderr
    return done.returncode, done.stderr.removeprefix("oci-bind-hook: c1 prestart: ").rstrip("\n")


@pytest.mark.parametrize("which", ["neither", "annotations", "source"])
def test_without_both_permissions_they_do_not_count(world: World, which: str) -> None:
    prepare(world, {"good": "src=SOURCE,dst=/a", "bad name!": "nonsense", "relative": "src=x,dst=/b"})
    words = {"neither": [], "annotations": allowed(), "source": [f"--allow-source={world.path}"]}[which]
    before = world.snapshot()
    done = by_hand(world, *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert world.snapshot() == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_with_both_they_do(world: World, runtime: str) -> None:
    bundle = world.bundle(
        "cat /climb/a/word; touch /real/a/new 2>/dev/null || echo read-only; cat /one",
        "createRuntime",
        *allowed(world.path / "absent", world.path),
        annotations={f"{KEY}a": f"src={world.source},dst=/climb/a,ro", f"{KEY}b": f"src={world.file},dst=/one"},
    )
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert done.stdout == "hello from the host\nread-only\none file\n", done.stderr
    assert world.snapshot() == before


def test_they_come_last_in_the_order_of_their_names(world: World) -> None:
    texts = {name: f"src=SOURCE,dst=/{name}" for name in ("b", "_", "a", "B-1", "a1")}
    prepare(world, texts, mounts=[support.bind(world.source, "/config")])
    words = [*allowed(world.path), "--mount", f"src={world.source},dst=/z"]
    done = by_hand(world, *words, "--dry-run", "--format", "json")
    origins = [each["origin"] for each in json.loads(done.stdout)["mounts"]]
    names = ["B-1", "_", "a", "a1", "b"]
    expected = ["config.json#/mounts/2", "--mount 1", *(f"config.json#/annotations/{KEY}{name}" for name in names)]
    assert origins == expected
    before = world.snapshot()
    assert by_hand(world, *words).returncode == 0
    assert mounted(world) == sorted(f"/{name}" for name in ("config", "z", *names))
    order = [line.split(" ")[4][len(world.rootfs) + 1 :] for line in support.mounts() if world.rootfs in line]
    assert order == ["config", "z", *names]
    # A second call finds them mounted.
    assert by_hand(world, *words).returncode == 0
    assert len(mounted(world)) == 7
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before


# -- sources -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def srv(world: World) -> str:
    """A folder whose ``a`` the administrator allows, with neighbours, and links that lead there and out."""
    srv = world.path / "srv"
    for name in ("a/in", "ab"):
        (srv / name).mkdir(parents=True)
    (srv / "ab/file").write_text("x")
    links = {"a/out": "../ab", "a/absolute": str(srv / "ab"), "a/self": "in", "to-a": "a", "ab/back": "../a/in"}
    links |= {"a/up": "..", "a/root": "/"}
    links |= {"a/hanging": "../absent", "ab/loop": "loop"}
    for name, target in links.items():
        (srv / name).symlink_to(target)
    return os.fspath(srv)


INSIDE = ["a", "a/", "a//in", "a/./in", "a/self"]
# What is there, and what is not, must be told in the same words.
OUTSIDE = {
    "beside": ("ab", "absent"),
    "below what is beside": ("ab/back", "ab/absent"),
    "above": (".", "absent/deep"),
    "dots": ("a/../ab", "a/../absent"),
    "dots that come back": ("ab/../a/in", "absent/../a/in"),
    "dots inside": ("a/in/../in", "a/in/../absent"),
    "dots after a link": ("a/out/..", "a/out/../absent"),
    "link": ("a/out", "a/hanging"),
    # Where it leads in the end does not matter: the way there would tell what is outside.
    "out and back": ("a/out/back", "a/out/absent/back"),
    "below a link": ("a/out/file", "a/out/absent"),
    "below a file": ("a/out/file", "a/out/file/absent"),
    "link, slash": ("a/out/", "a/out/absent/"),
    "absolute link": ("a/absolute", "a/absolute/absent"),
    "link to it": ("to-a/in", "to-a/absent"),
    "to what is above": ("a/up", "a/up/absent"),
    "to the root": ("a/root", "a/root/absent"),
    "loop": ("ab/loop", "a/out/loop"),
}


@pytest.mark.parametrize("source", INSIDE)
@pytest.mark.parametrize("prefix", ["a", "to-a", "a/in/.."])
def test_source_that_is_allowed(world: World, srv: str, source: str, prefix: str) -> None:
    prepare(world, {"x": f"src={srv}/{source},dst=/x"})
    done = by_hand(world, *allowed(f"{srv}/{prefix}"))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounted(world) == ["/x"]


def test_a_folder_may_be_allowed_by_a_link(world: World, srv: str) -> None:
    prepare(world, {"x": f"src={srv}/to-a/in,dst=/x", "y": f"src={srv}/a/in,dst=/y"})
    done = by_hand(world, *allowed(f"{srv}/to-a"))
    assert (done.returncode, done.stderr) == (0, "")
    assert mounted(world) == ["/x", "/y"]


@pytest.mark.parametrize("optional", ["", ",optional"])
@pytest.mark.parametrize("sources", OUTSIDE.values(), ids=OUTSIDE)
def test_source_that_is_not_allowed(world: World, srv: str, sources: tuple[str, str], optional: str) -> None:
    for source in sources:
        path = f"{srv}/{source}"
        prepare(world, {"x": f"src={path},dst=/x{optional}"})
        assert refused(world, *allowed(f"{srv}/a")) == (
            77,
            f"config.json: /annotations/{KEY}x: the source {path} is not below any --allow-source "
            "(after following links)",
        )


def test_through_the_root_of_another_namespace_nothing_is_told(world: World, srv: str) -> None:
    """A magic link of procfs leads to another mount namespace, where every path looks like one that is allowed."""
    os.makedirs(f"{srv}/a/deep")
    held = subprocess.Popen(
        ["unshare", "--user", "--mount", "sh", "-c", "echo; exec cat"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        user=65534,
        group=65534,
    )
    assert held.stdout is not None
    assert held.stdin is not None
    with held:
        assert held.stdout.readline() == b"\n"  # it is in its namespaces
        os.symlink(f"/proc/{held.pid}/root/{srv}/a", f"{srv}/a/there")
        os.symlink(f"/proc/{held.pid}/root", f"{srv}/a/all")
        lines = set()
        for source in ("there/deep", "there/in", "there/absent", "all/etc/shadow", "all/etc/absent", "all"):
            prepare(world, {"x": f"src={srv}/a/{source},dst=/x,optional"})
            code, line = refused(world, *allowed(f"{srv}/a"))
            lines.add((code, line.replace(f"{srv}/a/{source}", "SOURCE")))
            prepare(world, {"x": f"type=glob,src={srv}/a/{source}*,dst=/x,optional"})
            code, line = refused(world, *allowed(f"{srv}/a"))
            lines.add((code, line.replace(f"{srv}/a/{source}*", "SOURCE")))
        held.stdin.close()
    place = f"config.json: /annotations/{KEY}x"
    assert lines == {(77, f"{place}: the source SOURCE is not below any --allow-source (after following links)")}


# How somebody else can put another folder in the place of the one that is allowed: what they may change, by its mode
# and owner, in /srv/open/a. Each is named as what can be changed.
CHANGEABLE = {
    "the folder above": ("open", 0o777, 0, "open"),
    "the folder above, for a group": ("open", 0o775, 0, "open"),
    "one further up": (".", 0o777, 0, "."),
    "whose it is": ("open", 0o755, 1234, "open"),
    "a sticky folder, where it is theirs": ("open", 0o1777, 0, "open"),
}


@pytest.mark.parametrize("way", ["open/a", "link/a", "elsewhere"])
@pytest.mark.parametrize(("name", "mode", "owner", "named"), CHANGEABLE.values(), ids=CHANGEABLE)
def test_a_folder_that_others_can_exchange_cannot_be_allowed(
    world: World, srv: str, way: str, name: str, mode: int, owner: int, named: str
) -> None:
    top = os.path.join(srv, "top")
    os.makedirs(f"{top}/open/a/in")
    os.symlink("open", f"{top}/link")
    os.symlink(f"{top}/open/a", f"{top}/elsewhere")
    os.chown(f"{top}/open/a", 1234, -1)
    os.chown(f"{top}/{name}", owner, -1)
    os.chmod(f"{top}/{name}", mode)
    prepare(world, {"x": f"src={top}/{way}/in,dst=/x"})
    path = os.path.normpath(f"{top}/{named}")
    assert refused(world, *allowed(f"{top}/{way}")) == (
        77,
        f"--allow-source: other users can replace {top}/{way}, because they can write {path} "
        "(use a folder whose parent folders only root or you can write)",
    )
    # It does not matter to a container that asks for nothing.
    prepare(world, {})
    assert by_hand(world, *allowed(f"{top}/{way}")).returncode == 0


def test_a_folder_that_is_somebodys_own_can_be_allowed(world: World, srv: str) -> None:
    """Only what is above it counts: what they put into it is what was allowed."""
    os.chown(f"{srv}/a", 1234, -1)
    os.chmod(f"{srv}/a", 0o777)
    prepare(world, {"x": f"src={srv}/a/in,dst=/x"})
    assert by_hand(world, *allowed(f"{srv}/a")).returncode == 0
    assert mounted(world) == ["/x"]


def test_a_link_in_a_place_that_others_can_change_cannot_be_allowed(world: World, srv: str) -> None:
    os.mkdir(f"{srv}/open", 0o777)
    os.chmod(f"{srv}/open", 0o777)
    os.symlink(f"{srv}/a", f"{srv}/open/a")
    prepare(world, {"x": f"src={srv}/open/a/in,dst=/x"})
    code, line = refused(world, *allowed(f"{srv}/open/a"))
    assert (code, line.partition(", because they can write ")[2].partition(" (")[0]) == (77, f"{srv}/open")


def test_the_administrators_own_sources_need_no_permission(world: World, srv: str) -> None:
    prepare(world, {})
    words = ["--mount", f"src={srv}/ab,dst=/x", "--mount", f"src={srv}/a/../ab,dst=/y"]
    assert by_hand(world, *words, *allowed(f"{srv}/a")).returncode == 0


@pytest.mark.parametrize("source", ["a/absent", "a/in/absent/deep", "a/self/absent"])
def test_inside_what_is_missing_is_missing(world: World, srv: str, source: str) -> None:
    prepare(world, {"x": f"src={srv}/{source},dst=/x"})
    code, line = refused(world, *allowed(f"{srv}/a"))
    assert (code, line.endswith(f"the source {srv}/{source} cannot be opened: No such file or directory")) == (66, True)
    prepare(world, {"x": f"src={srv}/{source},dst=/x,optional"})
    assert by_hand(world, *allowed(f"{srv}/a")).returncode == 0
    assert mounted(world) == []


def test_all_is_allowed_below_the_root(world: World) -> None:
    prepare(world, {"x": "src=SOURCE,dst=/x"})
    assert by_hand(world, *allowed("/")).returncode == 0
    assert mounted(world) == ["/x"]


@pytest.mark.parametrize(
    "pattern",
    [
        *("a/*", "a/[ho]*", "a/ou[t]", "a/hangin[g]"),
        *("a/*/file", "a/*/absent", "a/out/*", "a/out/absent*", "a/out/fil[e]/x"),
        *("*", "absent*", "a[b]/*", "[a]/in", "a/../a/*", "a/in/../*", "to-a/*"),
    ],
)
def test_each_match_of_a_pattern_must_be_allowed(world: World, srv: str, pattern: str) -> None:
    """And each folder that has to be looked into for one, whether anything is found in it or not."""
    prepare(world, {"x": f"type=glob,src={srv}/{pattern},dst=/x,optional"})
    source = f"{srv}/{pattern}"
    assert refused(world, *allowed(f"{srv}/a")) == (
        77,
        f"config.json: /annotations/{KEY}x: the source {source} is not below any --allow-source "
        "(after following links)",
    )


def test_matches_in_an_annotation_stay_in_the_patterns_folder(world: World, srv: str) -> None:
    """Another folder that is allowed is another tenant's, and is not to be had by a link that one of them plants."""
    os.symlink("../a/in", f"{srv}/ab/link")
    words = allowed(f"{srv}/a", f"{srv}/ab")
    prepare(world, {"x": f"type=glob,src={srv}/ab/l[i]nk,dst=/x"})
    place = f"config.json: /annotations/{KEY}x"
    assert refused(world, *words) == (77, f"{place}: {srv}/ab/link leads out of {srv}/ab")
    prepare(world, {"x": f"type=glob,src={srv}/ab/l[i]nk,dst=/x,follow-links"})
    assert refused(world, *words) == (77, f'{place}: an annotation may not set "follow-links"')
    prepare(world, {"x": f"src={srv}/ab/link,dst=/x"})
    assert by_hand(world, *words).returncode == 0


def test_a_folder_is_read_once_for_each_name_of_a_pattern(world: World, srv: str) -> None:
    """Links to the folder itself would else make as many matches as there are ways through them."""
    os.mkdir(f"{srv}/a/many")
    for name in "abcdefgh":
        os.symlink(".", f"{srv}/a/many/{name}")
    prepare(world, {"x": f"type=glob,src={srv}/a/many/*/*/*/*/*/*/*/*,dst=/x"})
    assert by_hand(world, *allowed(f"{srv}/a")).returncode == 0
    assert mounted(world) == [f"/x/{name}" for name in "abcdefgh"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["1.x", "in", "self"]),
        (".*", [".h"]),
        ("*/", ["in", "self"]),
        ("i*/", ["in"]),
        ("[i]n/../*", []),
        ("*/f", ["f"]),
        ("./in//f", ["f"]),
        ("in/./?", ["f"]),
        ("in/g", []),
        ("1.x/*", []),
        ("absent/*", []),
    ],
)
def test_what_a_pattern_in_an_annotation_matches(world: World, srv: str, pattern: str, expected: list[str]) -> None:
    plain = f"{srv}/plain [folder]"
    os.makedirs(f"{plain}/in")
    os.makedirs(f"{plain}/.h")
    for name in ("1.x", "in/f"):
        with open(f"{plain}/{name}", "w"):
            pass
    os.symlink("in", f"{plain}/self")
    written = plain.replace("[", "[[]")
    prepare(world, {"x": f"type=glob,src={written}/{pattern},dst=/x,optional"})
    done = by_hand(world, *allowed(plain))
    assert (done.returncode, mounted(world)) == (77 if ".." in pattern else 0, [f"/x/{name}" for name in expected])


def test_patterns_inside(world: World, srv: str) -> None:
    prepare(world, {"x": f"type=glob,src={srv}/a/absent*,dst=/x"})
    code, line = refused(world, *allowed(f"{srv}/a"))
    assert (code, line) == (
        66,
        f"config.json: /annotations/{KEY}x: nothing matches {srv}/a/absent* (to allow this, set optional)",
    )
    prepare(world, {"x": f"type=glob,src={srv}/a/[is]*,dst=/x"})
    assert by_hand(world, *allowed(f"{srv}/a")).returncode == 0
    assert mounted(world) == ["/x/in", "/x/self"]


def test_each_match_keeps_its_part(world: World, srv: str) -> None:
    plain = f"{srv}/plain [*]"
    for name in ("a.1", "b.2", ".h"):
        os.makedirs(f"{plain}/{name}/lib")
    written = plain.replace("[", "[[]").replace("*", "[*]")
    prepare(world, {"x": f"type=glob,src={written}//*.*/./lib,dst=/*/x-*/[*]"})
    assert by_hand(world, *allowed(plain)).returncode == 0
    assert mounted(world) == ["/a/x-1/*", "/b/x-2/*"]


def test_two_matches_of_one_name_and_more_stars_than_there_are(world: World, srv: str) -> None:
    place = f"config.json: /annotations/{KEY}x"
    for name in ("a", "b"):
        os.makedirs(f"{srv}/a/in/{name}/lib")
    first, second = (f"{srv}/a/in/{name}/lib" for name in ("a", "b"))
    prepare(world, {"x": f"type=glob,src={srv}/a/in/*/lib,dst=/x"})
    told = f"{place}: {first} and {second} would both be bound on /x/lib (use dst=/x/*/lib to keep them apart)"
    assert refused(world, *allowed(f"{srv}/a")) == (78, told)
    prepare(world, {"x": f"type=glob,src={srv}/a/in/*/lib,dst=/x/*/*"})
    code, line = refused(world, *allowed(f"{srv}/a"))
    assert (code, "the destination has 2 * but the source has 1" in line) == (78, True)
    prepare(world, {"x": f"src={srv}/a/in/*/lib,dst=/x"})
    code, line = refused(world, *allowed(f"{srv}/a"))
    assert (code, line.endswith("No such file or directory (to use * as a pattern, set type=glob)")) == (66, True)


# -- destinations ------------------------------------------------------------------------------------------------------

COVERS, INSIDE_OF = "would cover", "is inside"
# Where --mount binds, where an annotation asks to, where that leads, how it would change what --mount binds, and which
# link the message names.
REPLACED = {
    "the same": ("/real/a", "/real/a", "/real/a", COVERS, ""),
    "the same by a link": ("/real/a", "/climb/a/", "/real/a", COVERS, "/climb"),
    "the same, where --mount names a link": ("/absolute/new", "/real/new", "/real/new", COVERS, ""),
    "the same, not there yet": ("/new/deep", "/new//./deep", "/new/deep", COVERS, ""),
    "the folder above": ("/real/a", "/real", "/real", COVERS, ""),
    "the folder above by a link": ("/real/a", "/absolute", "/real", COVERS, "/absolute"),
    "one far above, not there yet": ("/new/deep/er", "/new", "/new", COVERS, ""),
    "a folder inside": ("/real/a", "/real/a/sub", "/real/a/sub", INSIDE_OF, ""),
    "a file inside": ("/real/a", "/climb/a/word", "/real/a/word", INSIDE_OF, "/climb"),
    "by a link in what is bound": ("/real/a", "/real/a/back/word", "/real/a/word", INSIDE_OF, "/real/a/back"),
    "something inside that does not exist": ("/new", "/new/absent/x", "/new/absent/x", INSIDE_OF, ""),
}


@pytest.mark.parametrize(("bound", "asked", "leads", "how", "link"), REPLACED.values(), ids=REPLACED)
def test_what_the_administrator_binds_is_not_replaced(
    world: World, bound: str, asked: str, leads: str, how: str, link: str
) -> None:
    (world.source / "sub").mkdir()
    (world.source / "back").symlink_to("/real/a")
    source = world.file if asked.endswith("word") else world.source
    prepare(world, {"x": f"src={source},dst={asked},ro"})
    words = [*allowed(world.path), "--mount", f"src={world.source},dst={bound}"]
    may_not = "annotations must not do this" if how == COVERS else "annotations must not change this"
    line = f"config.json: /annotations/{KEY}x: {leads} {how} "
    end = f"{may_not}; the link {link} leads there" if link else may_not
    code, told = refused(world, *words)
    assert (code, told[: len(line)], told[-len(end) :]) == (77, line, end)
    # Nor in a later call, which does not ask for the administrator's binds again.
    prepare(world, {})
    assert by_hand(world, *words).returncode == 0
    before = mounted(world)
    prepare(world, {"x": f"src={source},dst={asked},ro"})
    done = by_hand(world, *allowed(world.path))
    assert (done.returncode, told in done.stderr, mounted(world)) == (77, True, before)


def test_beside_what_the_administrator_binds_they_may(world: World) -> None:
    prepare(world, {"a": "src=SOURCE,dst=/real/ab", "b": "src=SOURCE,dst=/real/c", "c": "src=SOURCE,dst=/real/c/sub"})
    (world.source / "sub").mkdir()
    specs = [f"src={world.source},dst=/real/a", f"src={world.path}/absent,dst=/real/c,optional"]
    words = [word for spec in specs for word in ("--mount", spec)]
    assert by_hand(world, *allowed(world.path), *words).returncode == 0
    assert mounted(world) == ["/real/a", "/real/ab", "/real/c", "/real/c/sub"]


def test_what_config_json_binds_they_may_cover(world: World) -> None:
    """Both are of one author, as far as the hook knows."""
    prepare(world, {"x": "src=SOURCE,dst=/real"}, mounts=[support.bind(world.source, "/real/a")])
    assert by_hand(world, *allowed(world.path)).returncode == 0
    assert mounted(world) == ["/real", "/real/a"]


# -- what is written in them -------------------------------------------------------------------------------------------

BAD = {
    "empty name": (
        "",
        "src=SOURCE,dst=/x",
        78,
        '"" is not a valid name for a bind (use 1 to 24 letters, digits, _ and -)',
    ),
    "long name": ("x" * 25, "src=SOURCE,dst=/x", 78, f'"{"x" * 25}" is not a valid name for a bind (use 1 to 24'),
    "dot": ("x.y", "src=SOURCE,dst=/x", 78, '"x.y" is not a valid name for a bind (use 1 to 24 letters'),
    "not ASCII": ("ä", "src=SOURCE,dst=/x", 78, '"ä" is not a valid name for a bind (use 1 to 24 letters'),
    "tilde and slash": ("~/", "src=SOURCE,dst=/x", 78, '"~/" is not a valid name for a bind (use 1 to 24 letters'),
    "no destination": ("x", "src=SOURCE", 64, "the destination is missing"),
    "empty": ("x", "", 64, 'the field "" has no name'),
    "value of a flag": ("x", "src=SOURCE,dst=/x,ro=maybe", 64, '"ro" must be true or false, not "maybe"'),
    "unknown word": ("x", "src=SOURCE,dst=/x,nosiud", 78, '"nosiud" is not known (did you mean "nosuid"?)'),
    "contradiction": ("x", "src=SOURCE,dst=/x,ro,rw", 78, '"rw" contradicts "ro"'),
    "relative": ("x", "src=source,dst=/x", 78, 'the source "source" is not an absolute path'),
    "rights added": ("x", "src=SOURCE,dst=/x,suid", 77, 'an annotation may not set "suid"'),
    "writable again": ("x", "src=SOURCE,dst=/x,rrw", 77, 'an annotation may not set "rrw"'),
    "shared with the host": ("x", "src=SOURCE,dst=/x,rshared", 77, 'an annotation may not set "rshared"'),
    "owners mapped": ("x", "src=SOURCE,dst=/x,idmap", 77, 'an annotation may not set "idmap"'),
    "absent": ("x", "src=SOURCE/absent,dst=/x", 66, "the source SOURCE/absent cannot be opened: No such file"),
    "the root": ("x", "src=SOURCE,dst=/", 77, "the destination is the rootfs itself"),
}
POINTERS = {"~/": "~0~1"}


@pytest.mark.parametrize(("name", "text", "code", "message"), BAD.values(), ids=BAD)
def test_one_that_is_wrong_refuses_the_container(world: World, name: str, text: str, code: int, message: str) -> None:
    prepare(world, {"_good": "src=SOURCE,dst=/good", name: text, "zgood": "src=SOURCE,dst=/zgood"})
    number, line = refused(world, *allowed(world.path))
    place = f"config.json: /annotations/{KEY}{POINTERS.get(name, name)}: "
    assert (number, line[: len(place)]) == (code, place)
    assert line[len(place) :].startswith(message.replace("SOURCE", str(world.source)))


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_refused_one_stops_a_real_container(world: World, runtime: str) -> None:
    texts = {f"{KEY}a": f"src={world.source},dst=/a", f"{KEY}b": "src=/etc,dst=/b"}
    bundle = world.bundle("echo started", "createRuntime", *allowed(world.path), annotations=texts)
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert done.returncode != 0
    assert "started" not in done.stdout
    if runtime == "runc":  # crun throws away what hooks say
        assert f"config.json: /annotations/{KEY}b: the source /etc" in done.stderr
    assert world.snapshot() == before
