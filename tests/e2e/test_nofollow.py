# SPDX-License-Identifier: Apache-2.0
"""A bind on a link itself, in the place of what it says; and crun's words for links in config.json."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from helpers.world import Container, call, fail, finish, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)
NEWER = pytest.mark.kernel(5, 12)
LINKS = {"link": "passwd", "dangling": "nowhere/at/all", "out": "/", "loop": "loop"}


@pytest.fixture(autouse=True)
def links(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    for name, text in LINKS.items():
        os.symlink(text, f"{world.rootfs}/etc/{name}")


def run(world: World, *specs: str) -> tuple[int, str]:
    """What a run says; a dry-run ends alike."""
    words = [word for spec in specs for word in ("--mount", spec)]
    planned = call(world, "prestart", "--dry-run", *words, stdin=state(world)).returncode
    done = call(world, "prestart", *words, stdin=state(world))
    assert planned == done.returncode
    return done.returncode, done.stderr.removeprefix("oci-bind-hook: c1 prestart: ").rstrip("\n")


def poststop(world: World) -> None:
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0


def content(world: World, path: str) -> str:
    with open(f"{world.rootfs}{path}", encoding="ascii") as file:
        return file.read()


@NEWER
@pytest.mark.parametrize("field", ["nofollow", "dest-nofollow"])
@pytest.mark.parametrize("name", [*LINKS, "passwd", "new", "new/deep"])
def test_it_lands_on_the_link(world: World, name: str, field: str) -> None:
    """Whether it is one or not. A second call finds it, and the end leaves the link as it was."""
    before = world.snapshot()
    spec = f"src={world.file},dst=/etc/{name},{field}"
    for _ in range(2):
        assert run(world, spec) == (0, "")
        assert mounted(world) == [f"/etc/{name}"]
        assert content(world, f"/etc/{name}") == "one file\n"
    if name != "passwd":
        assert content(world, "/etc/passwd").startswith("root:")
    shown = call(world, "show", "c1", stdin="").stdout
    assert f"mounted: {world.file} on /etc/{name}\n" in shown
    poststop(world)
    assert world.snapshot() == before


@NEWER
def test_with_and_without_are_two_binds(world: World) -> None:
    before = world.snapshot()
    spec = f"src={world.file},dst=/etc/link"
    assert run(world, spec) == (0, "")
    assert run(world, f"{spec},nofollow") == (0, "")
    assert mounted(world) == ["/etc/link", "/etc/passwd"]
    # The link is covered by now: the same destination leads to what covers it.
    code, line = run(world, f"src={world.path}/bundle/config.json,dst=/etc/link")
    assert (code, "/etc/link is already the destination of --mount 1" in line) == (78, True), line
    assert mounted(world) == ["/etc/link", "/etc/passwd"]
    poststop(world)
    assert world.snapshot() == before


@NEWER
def test_a_later_destination_comes_to_what_covers_the_link(world: World) -> None:
    before = world.snapshot()
    specs = [f"src={world.file},dst=/etc/out,nofollow", f"src={world.source},dst=/etc/out/new"]
    code, line = run(world, *specs)
    assert (code, line) == (78, "--mount 2: /etc/out is not a folder (the destination is below it)")
    assert world.snapshot() == before
    code, line = run(world, specs[0], f"src={world.file},dst=/etc/out")
    assert (code, line) == (78, "--mount 2: /etc/out is already the destination of --mount 1")
    assert world.snapshot() == before


REFUSED = {
    "a folder on a link": (
        "src={source},dst=/etc/link,nofollow",
        78,
        "the source is a folder, but /etc/link is a link (only a file can be bound on a link)",
    ),
    "a slash": (
        "src={source},dst=/etc/link/,nofollow",
        78,
        'with "nofollow", the destination "/etc/link/" must end with a name (a trailing slash follows the link)',
    ),
    "procfs": (
        "src={file},dst=/host/proc/self,nofollow",
        77,
        "/host/proc/self is on procfs, where only a few files may be covered, as in runc",
    ),
    "/proc": ("src={file},dst=/proc,nofollow", 77, "/proc is on procfs, where only a few files may be covered, as in"),
    "/sys": ("src={file},dst=/sys,nofollow", 77, "/sys is on sysfs, where binds are not allowed"),
}


@pytest.mark.parametrize(("spec", "code", "line"), REFUSED.values(), ids=REFUSED)
def test_what_must_not_be_covered(world: World, spec: str, code: int, line: str) -> None:
    for name in ("proc", "sys"):
        if os.path.lexists(f"{world.rootfs}/{name}"):
            os.rmdir(f"{world.rootfs}/{name}")
        os.symlink("etc", f"{world.rootfs}/{name}")
    os.makedirs(f"{world.rootfs}/host/proc")
    mounting.bind("/proc", f"{world.rootfs}/host/proc")
    before = support.mounts()
    done = run(world, spec.format(source=world.source, file=world.file))
    assert (done[0], done[1].startswith(f"--mount 1: {line}")) == (code, True), done
    assert support.mounts() == before


def test_an_annotation_may_not_ask_for_it(world: World) -> None:
    """It would cover a link by which a bind of the administrator is reached."""
    annotations = {"io.github.oci-bind-hook.mount.a": f"src={world.file},dst=/etc/link,nofollow"}
    support.bundle(world.path / "bundle", ["true"], annotations=annotations)
    words = ["--allow-annotations", f"--allow-source={world.path}"]
    done = call(world, "prestart", *words, stdin=state(world))
    assert done.returncode == 77
    assert done.stderr.endswith(': an annotation may not set "nofollow"\n')


@pytest.mark.parametrize("kernel", ["before 5.12", "filtered"])
def test_without_the_mount_api_it_is_refused(world: World, kernel: str) -> None:
    before = world.snapshot()

    def older() -> None:
        kernels.play(kernel)
        spec = f"src={world.file},dst=/etc/link,nofollow"
        problem = "this kernel cannot bind on a link (nofollow requires the mount API of Linux 5.12)"
        assert run(world, spec) == (69, f"--mount 1: {problem}")

    assert mounting.ended_well(mounting.forked(older))
    assert world.snapshot() == before


@NEWER
def test_a_run_that_fails_after_it_undoes_it(world: World) -> None:
    before = world.snapshot()
    words = ["--mount", f"src={world.file},dst=/etc/dangling,nofollow", "--mount", f"src={world.source},dst=/new"]
    assert call(world, "prestart", *words, stdin=state(world), before=fail("move_mount", 2)).returncode == 71
    assert world.snapshot() == before


@NEWER
@RUNTIMES
@pytest.mark.parametrize("stage", ["prestart", "createRuntime", "createContainer"])
def test_a_container_sees_it_and_leaves_nothing(world: World, runtime: str, stage: str) -> None:
    words = [
        *("--mount", f"src={world.file},dst=/etc/dangling,nofollow,ro"),
        *("--mount", f"src={world.file},dst=/bin/true,nofollow"),
    ]
    bundle = world.bundle("cat /etc/dangling /bin/true; readlink /etc/dangling; readlink /bin/cat", stage, *words)
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert done.stdout == "one file\none file\nbusybox\n", done.stderr
    assert world.snapshot() == before


@NEWER
def test_two_containers_on_one_rootfs(world: World) -> None:
    before = support.tree(world.rootfs)
    specs = [f"src={world.file},dst={path},nofollow" for path in ("/etc/dangling", "/new/x")]
    words = [word for spec in specs for word in ("--mount", spec)]
    containers = [Container(world, name) for name in ("a", "b")]
    for each in containers:
        finish(each.launch(*words))
        assert each.mounted() == ["/etc/dangling", "/new/x"]
    first, second = containers
    first.end()
    first.tear_down()
    assert second.mounted() == ["/etc/dangling", "/new/x"]
    second.end()
    second.tear_down()
    assert support.tree(world.rootfs) == before


def test_a_dry_run_warns_of_a_bind_by_a_link_on_what_the_container_runs(world: World) -> None:
    """In an image made of busybox the bind of one program is the bind of all."""
    support.bundle(world.path / "bundle", ["sh", "-c", "true"])
    found = {}
    for options in ("", ",nofollow"):
        words = ("--dry-run", "--format", "json", "--mount", f"src={world.file},dst=/bin/cat{options}")
        done = call(world, "prestart", *words, stdin=state(world))
        assert done.returncode == 0
        found[options] = json.loads(done.stdout)["mounts"][-1]["warnings"]
    assert found[""][0] == "covers /bin/busybox, the program of process.args"
    assert found[""][1].startswith("covers /bin/busybox, which /bin/")
    assert found[""][1].endswith(" more are links to: with the field nofollow, the bind is on the link alone")
    assert found[",nofollow"] == []


# -- config.json -------------------------------------------------------------------------------------------------------


def logged(world: World) -> list[str]:
    """The lines of the log about config.json's binds."""
    with open(world.path / "log", encoding="utf-8") as file:
        return re.findall(r'config\.json#[^"]*', file.read())


@RUNTIMES
def test_crun_s_word_is_left_to_the_runtime_and_seen_wherever_it_lands(world: World, runtime: str) -> None:
    """crun binds on the link, if it knows the word. A runtime that does not, as runc, follows it."""
    own = support.bind(world.file, "/etc/link", "dest-nofollow")
    words = ("--mount", f"src={world.source},dst=/new", "--log", f"{world.path}/log")
    bundle = world.bundle("cat /etc/link /new/word", "createRuntime", *words, mounts=[own])
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert done.stdout == "one file\nhello from the host\n", done.stderr
    assert not [line for line in logged(world) if "nothing is mounted" in line]
    assert any(": already mounted on /etc/" in line for line in logged(world))
    os.unlink(world.path / "log")
    assert world.snapshot() == before


@pytest.mark.parametrize("place", ["/etc/link", "/etc/passwd"])
def test_it_is_seen_on_the_link_and_on_what_that_leads_to(world: World, place: str) -> None:
    """As crun and runc do it, in the namespace that the runtime has made."""
    held = world.path / "held"
    mounting.plant(held, {})
    container = Container(world, "a")
    assert container.init.stdout is not None
    config = json.loads((world.path / "bundle-a/config.json").read_text())
    config["mounts"].append(support.bind(world.file, "/etc/link", "dest-nofollow"))
    (world.path / "bundle-a/config.json").write_text(json.dumps(config))

    def mount() -> None:
        mounting.enter(container.init.pid)
        fd = os.open(f"{world.rootfs}{place}", os.O_PATH | os.O_NOFOLLOW)
        mounting.bind(str(world.file), f"/proc/self/fd/{fd}")

    assert container.init.stdout.read(1) == b"\n"
    assert mounting.ended_well(mounting.forked(mount))
    text = state(world, "a", bundle=str(world.path / "bundle-a"), pid=container.init.pid)
    words = (f"--log={world.path}/log", "--mount", f"src={world.source},dst=/new")
    done = call(world, "createRuntime", *words, stdin=text)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line for line in logged(world) if "mounts/2" in line] == [
        f"config.json#/mounts/2: already mounted on {place}"
    ]
    container.end()
    container.tear_down()


@NEWER
def test_it_is_honoured_where_no_runtime_mounts(world: World) -> None:
    own = support.bind(world.file, "/etc/link", "dest-nofollow")
    support.bundle(world.path / "bundle", ["true"], namespaces=["pid"], mounts=[own])
    before = world.snapshot()
    for _ in range(2):
        assert run(world) == (0, "")
        assert mounted(world) == ["/etc/link"]
    poststop(world)
    assert world.snapshot() == before


@pytest.mark.parametrize("word", ["copy-symlink", "src-nofollow"])
@pytest.mark.parametrize("namespaces", [["pid"], ["pid", "mount"]], ids=["none of its own", "one of its own"])
def test_what_only_crun_does_is_left_alone(world: World, word: str, namespaces: list[str]) -> None:
    """A copied link leads to whatever the image has there, and its source nowhere that the hook should bind."""
    os.symlink(world.source, world.path / "a link")
    os.symlink(world.source, f"{world.rootfs}/copied")  # by crun
    os.makedirs(f"{world.rootfs}{world.source}")
    support.bundle(
        world.path / "bundle",
        ["true"],
        namespaces=namespaces,
        mounts=[support.bind(world.path / "a link", "/copied", word)],
    )
    before = world.snapshot()
    what = {
        "copy-symlink": "copies a link and mounts nothing",
        "src-nofollow": "binds a link itself",
    }
    done = call(world, "prestart", "--dry-run", "--format", "json", stdin=state(world))
    last = json.loads(done.stdout)["mounts"][-1]
    warning = f'option "{word}" {what[word]}; only the runtime can do that'
    assert (done.returncode, last["action"], last["by"], last["warnings"]) == (0, "left", "runtime", [warning])
    assert call(world, "prestart", stdin=state(world)).returncode == 0
    assert mounted(world) == []
    poststop(world)
    assert world.snapshot() == before
