# SPDX-License-Identifier: Apache-2.0
"""The attack corpus, P: images whose files lead a destination astray. Every case is dry-run too (T15)."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, support
from helpers.corpus import lands, look, plant, prepare, refused
from helpers.world import mount, state
from oci_bind_hook.kernel import linux

if TYPE_CHECKING:
    from helpers.world import World

KERNELS = pytest.mark.parametrize("kernel", ["this", "before 4.11"])
UP = "../" * 40
ALLOW = "--allow-annotations"
KEY = "io.github.oci-bind-hook.mount.a"


def one_file(world: World, destination: str) -> list[str]:
    return ["--mount", f"src={world.file},dst={destination}"]


def test_P01_an_absolute_link_starts_at_the_root_of_the_container(world: World) -> None:
    outside = prepare(world)
    plant(world, {"/conf": outside})
    lands(world, *mount(world, "/conf/x"), at=[f"{outside}/x"])


def test_P02_a_link_that_climbs_stays_inside(world: World) -> None:
    outside = prepare(world)
    plant(world, {"/rel": UP + outside[1:]})
    lands(world, *mount(world, "/rel/x"), at=[f"{outside}/x"])


def test_P03_dots_stop_at_the_root(world: World) -> None:
    outside = prepare(world)
    lands(world, *mount(world, f"/{UP}etc/x", f"/{UP}{outside[1:]}/y"), at=["/etc/x", f"{outside}/y"])
    refused(world, *mount(world, "/a/../../.."), code=77)


@pytest.mark.parametrize("path", ["rootfs", "rootfs/", "./rootfs", "."])
def test_P04_a_neighbour_whose_name_begins_alike_is_not_the_rootfs(world: World, path: str) -> None:
    prepare(world)
    config = world.path / "bundle/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "root": {"path": path}}))
    if path == ".":
        world.rootfs = str(world.path / "bundle")
    evil = f"{world.rootfs}-evil"
    os.makedirs(f"{evil}/secret")
    name = os.path.basename(evil)
    plant(world, {"/sib": f"../{name}"})
    lands(world, *mount(world, "/sib/secret", "/sib/x"), at=[f"/{name}/secret", f"/{name}/x"])


LOOPS: dict[str, dict[str, str | None]] = {
    "to itself": {"/l": "l"},
    "of two": {"/l": "m", "/m": "l"},
    "absolute": {"/l": "/l"},
    "of four": {"/l": "a/m", "/a/m": "../n", "/n": "/o", "/o": "./l"},
}


@pytest.mark.parametrize("kind", LOOPS)
def test_P05_links_in_a_loop_are_given_up(world: World, kind: str) -> None:
    prepare(world)
    plant(world, LOOPS[kind])
    refused(world, *mount(world, "/l"), code=78, says="40 links")
    refused(world, *mount(world, "/l/x"), code=78, says="40 links", dry=False)


@KERNELS
def test_P06_a_chain_of_links_is_as_long_as_the_kernel_allows(world: World, kernel: str) -> None:
    prepare(world)
    plant(world, {"/c0": None, **{f"/c{number}": f"c{number - 1}" for number in range(1, 257)}})
    root = os.open(world.rootfs, os.O_PATH)
    os.close(linux.openat2(root, "c40", flags=os.O_PATH, resolve=linux.RESOLVE_IN_ROOT))
    with pytest.raises(OSError, match="Too many levels"):
        linux.openat2(root, "c41", flags=os.O_PATH, resolve=linux.RESOLVE_IN_ROOT)
    os.close(root)
    kernels.play(kernel)
    lands(world, *mount(world, "/c40"), at=["/c0"])
    for number in (41, 254, 255, 256):
        refused(world, *mount(world, f"/c{number}"), code=78, says="40 links", dry=number == 41)


def test_P07_links_that_double_at_each_level_end_quickly(world: World) -> None:
    prepare(world)
    plant(world, {"/l0": ".", **{f"/l{level}": f"l{level - 1}/l{level - 1}" for level in range(1, 31)}})
    refused(world, *mount(world, "/l30"), code=78, says="40 links")


def test_P08_dots_after_a_link_are_those_of_where_it_leads(world: World) -> None:
    prepare(world)
    plant(world, {"/lx": "etc/x", "/etc/x": None, "/etc/y": None, "/y": None})
    lands(world, *mount(world, "/lx/../y"), at=["/etc/y"])


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_P09_what_a_dangling_link_names_is_made_inside(world: World, kind: str) -> None:
    outside = prepare(world)
    plant(world, {"/etc/hosts": f"{outside}/new"})
    words = one_file(world, "/etc/hosts") if kind == "file" else mount(world, "/etc/hosts")
    lands(world, *words, at=[f"{outside}/new"])


def test_P10_a_relative_link_is_relative_to_its_own_folder(world: World) -> None:
    prepare(world)
    plant(world, {"/a/b": "c"})
    lands(world, *mount(world, "/a/b"), at=["/a/c"])


@pytest.mark.parametrize("path", ["/etc/passwd/x", "/etc/passwd/..", "/etc/passwd/", "/etc/passwd/."])
def test_P11_a_file_is_no_folder(world: World, path: str) -> None:
    prepare(world)
    refused(world, *mount(world, path), code=78, says="/etc/passwd")
    refused(world, *one_file(world, path), code=78, says="/etc/passwd", dry=False)


@KERNELS
def test_P12_dots_after_what_is_missing_step_back_by_name(world: World, kernel: str) -> None:
    prepare(world)
    kernels.play(kernel)
    lands(world, *mount(world, "/missing/../etc/x"), at=["/etc/x"])


@KERNELS
@pytest.mark.parametrize(
    "path", ["/proc/self/root/etc", "/proc/self/cwd", "/proc/self/fd/0/x", "/proc/thread-self/root", "/sneak/etc"]
)
def test_P13_magic_links_are_not_followed(world: World, kernel: str, path: str) -> None:
    prepare(world)
    plant(world, {"/sneak": "/proc/self/root"})
    subprocess.run(["mount", "-t", "proc", "proc", f"{world.rootfs}/proc"], check=True)
    kernels.play(kernel)
    refused(world, *mount(world, path), code=77)


PSEUDO = [
    *("/proc", "/proc/self/attr/exec", "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/uptime/"),
    *("/sys", "/sys/kernel", "/sys/fs/cgroup", "/sys/kernel/uevent_helper", "/etc/../sys/x", "/absent/../proc/1/mem"),
]


@pytest.mark.parametrize("is_mounted", [True, False], ids=["mounted", "empty"])
def test_P14_procfs_and_sysfs_are_not_covered(world: World, *, is_mounted: bool) -> None:
    prepare(world)
    for name, kind in (("proc", "proc"), ("sys", "sysfs")) if is_mounted else ():
        subprocess.run(["mount", "-t", kind, kind, f"{world.rootfs}/{name}"], check=True)
    for path in PSEUDO:
        is_folder = not is_mounted or os.path.isdir(f"{world.rootfs}{path}")
        words = mount(world, path) if is_folder else one_file(world, path)
        refused(world, *words, code=78 if path.endswith("/") and is_mounted else 77, dry=path in PSEUDO[1::4])


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("path", ["/proc/self", "/proc/self/environ", "/proc/thread-self/x", "/etc/mtab"])
def test_P14_procfs_of_another_pid_namespace_is_not_covered(world: World, path: str, runtime: str) -> None:
    """Its own links have no text for a process that is not in that pid namespace, as a hook at createRuntime is not."""
    os.symlink("../proc/self/mounts", f"{world.rootfs}/etc/mtab")
    log = f"{world.path}/log"
    bundle = world.bundle("true", "createRuntime", "--mount", f"src={world.file},dst={path}", "--log", log)
    before = support.tree(world.rootfs)
    done = support.run_container(runtime, bundle, "c1")
    assert done.returncode != 0
    place = path.replace("/etc/mtab", "/proc/self/mounts")
    link = "; the link /etc/mtab leads there" if path == "/etc/mtab" else ""
    with open(log, encoding="utf-8") as file:
        assert f"{place} is on procfs, where only a few files may be covered, as in runc{link} (" in file.read()
    assert support.tree(world.rootfs) == before


def test_P14_files_of_procfs_that_runc_lets_be_hidden_can_be(world: World) -> None:
    prepare(world)
    subprocess.run(["mount", "-t", "proc", "proc", f"{world.rootfs}/proc"], check=True)
    lands(world, *one_file(world, "/proc/uptime"), at=["/proc/uptime"])


@pytest.mark.parametrize("name", ["proc", "sys"])
@pytest.mark.parametrize("path", ["", "/self/attr/exec", "/../proc/x"])
def test_P15_a_proc_that_is_a_link_is_not_followed(world: World, name: str, path: str) -> None:
    prepare(world)
    plant(world, {"/bad/self/attr": None, f"/{name}": "/bad"})
    refused(world, *mount(world, f"/{name}{path}"), code=77)


@pytest.mark.parametrize("target", ["absolute", "climbing"])
def test_P16_a_dev_that_is_a_link_fills_nothing_outside(world: World, target: str) -> None:
    outside = prepare(world)
    plant(world, {"/dev": outside if target == "absolute" else UP + outside[1:], f"{outside}/kept": None})
    lands(world, *one_file(world, "/dev/foo"), *mount(world, "/dev/kept"), at=[f"{outside}/foo", f"{outside}/kept"])


@pytest.mark.parametrize("target", ["/proc/sysrq-trigger", "/dev/full", "OUTSIDE/secret", "../../../outside/secret"])
def test_P17_a_source_in_the_image_that_is_a_link_out_of_it(world: World, target: str) -> None:
    outside = prepare(world, annotations={KEY: f"src={world.rootfs}/dev/null,dst=/got"})
    plant(world, {"/dev/null": target.replace("OUTSIDE", outside)})
    refused(world, ALLOW, f"--allow-source={world.rootfs}", code=77, says="--allow-source")


@pytest.mark.parametrize("target", ["/", "/etc", "../outside", "../../outside/etc", "."])
def test_P18_a_source_in_a_writable_tree_leads_nowhere_else(world: World, target: str) -> None:
    source = f"{world.source}/link{'/../../outside' if target == '.' else ''}"
    prepare(world, annotations={KEY: f"src={source},dst=/got"})
    os.symlink(target, f"{world.source}/link")
    refused(world, ALLOW, f"--allow-source={world.source}", code=77, says="--allow-source")
    plant(world, {"/x": "/"})
    support.bundle(world.path / "bundle", ["true"], annotations={KEY: f"src={world.rootfs}/x,dst=/got"})
    refused(world, ALLOW, f"--allow-source={world.rootfs}", code=77, says="--allow-source", dry=False)


@pytest.mark.parametrize(
    ("path", "code"),
    [("/", 77), ("", 65), (".", 77), ("//", 77), ("/..", 77), ("/slash", 77), ("/dots", 77), ("/absent/..", 77)],
)
def test_P19_the_root_itself_is_not_covered(world: World, path: str, code: int) -> None:
    prepare(world, support.bind(world.source, path))
    plant(world, {"/slash": "/", "/dots": "etc/../.."})
    refused(world, code=code)
    support.bundle(world.path / "bundle", ["true"])
    refused(world, *mount(world, path), code={"": 64, ".": 78}.get(path, 77), dry=False)


def test_P20_a_destination_in_a_volume_is_looked_up_after_that_volume(world: World) -> None:
    outside = prepare(world)
    os.symlink(outside, world.source / "x")
    os.symlink("/", world.source / "root")
    lands(world, *mount(world, "/vol", "/vol/x/y"), at=["/vol", f"{outside}/y"])
    refused(world, *mount(world, "/vol", "/vol/root"), code=77)


@pytest.mark.parametrize("place", ["destination", "source", "root", "annotation", "id", "bundle"])
def test_P21_a_nul_ends_no_path(world: World, place: str) -> None:
    evil = f"{world.source}\0/../etc"
    bind = {"destination": "/a", "source": str(world.source), "type": "bind", "options": ["bind"]}
    if place in bind:
        bind[place] = evil
    prepare(world, bind, annotations={KEY: f"src={evil if place == 'annotation' else world.source},dst=/b"})
    if place == "root":
        config = world.path / "bundle/config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "root": {"path": "rootfs\0/../.."}}))
    stdin = state(world, **({place: f"{world.path}/bundle\0x"} if place in ("id", "bundle") else {}))
    refused(world, ALLOW, f"--allow-source={world.path}", code=65, stdin=stdin)


@pytest.mark.parametrize("half", ["\\udcff", "\\ud800", "\\udc2f"])
@pytest.mark.parametrize("place", ["destination", "source", "id"])
def test_P22_half_a_surrogate_pair_is_no_character(world: World, half: str, place: str) -> None:
    odd = {place: "HALF"}
    prepare(world, support.bind(f"{world.source}{odd.get('source', '')}", f"/a{odd.get('destination', '')}"))
    config = world.path / "bundle/config.json"
    config.write_text(config.read_text().replace("HALF", half))
    stdin = state(world).replace('"c1"', f'"c1{half}"') if place == "id" else state(world)
    refused(world, code=65, stdin=stdin)


def test_P22_bytes_that_are_no_text(world: World) -> None:
    prepare(world)
    os.symlink(b"b\xff", os.fsencode(world.rootfs) + b"/link")
    lands(world, *mount(world, "/a\udcff", "/link"), at=["/a\udcff", "/b\udcff"], dry=False)


def test_P23_names_and_paths_end_where_the_kernel_ends_them(world: World) -> None:
    prepare(world)
    lands(world, *mount(world, f"/{'x' * 255}"), at=[f"/{'x' * 255}"])
    refused(world, *mount(world, f"/{'x' * 256}"), code=78)
    refused(world, *mount(world, "/etc/../" + "ä" * 128), code=78, dry=False)
    longest = ("/" + "y" * 199) * 21
    lands(world, *mount(world, longest[: 4095 - len(world.rootfs)]), at=[longest[: 4095 - len(world.rootfs)]])
    refused(world, *mount(world, longest[: 4096 - len(world.rootfs)]), code=78)
    for length in (4095, 4096, 100_000):
        refused(world, *mount(world, ("/z" * 50_000)[:length]), code=78, dry=length == 100_000)


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize("stage", ["createRuntime", "createContainer"])
def test_P01_to_P20_in_a_real_container(world: World, runtime: str, stage: str) -> None:
    outside = prepare(world)
    plant(world, {"/conf": outside, "/rel": UP + outside[1:], "/etc/hosts": f"{outside}/etc/hosts", "/in/b": "c"})
    os.symlink(outside, world.source / "x")
    paths = [f"{outside}/p01", f"{outside}/p02", "/etc/p03", "/in/c", "/vol", f"{outside}/p20"]
    asked = ["/conf/p01", "/rel/p02", f"/{UP}etc/p03", "/in/b", "/vol", "/vol/x/p20"]
    script = f"cat {outside}/etc/hosts; " + "; ".join(f"cat {path}/word" for path in paths)
    words = [*mount(world, *asked), *one_file(world, "/etc/hosts")]
    bundle = world.bundle(script, stage, *words)
    before = look(world)
    done = support.run_container(runtime, bundle, "c1")
    assert done.stdout == "one file\n" + "hello from the host\n" * len(paths), done.stderr
    assert look(world) == before


@pytest.mark.parametrize("runtime", support.RUNTIMES)
@pytest.mark.parametrize(
    ("stage", "path"),
    [("createRuntime", "/proc/self/root/etc"), ("createContainer", "/sneak"), ("createContainer", "/slash")],
)
def test_P13_to_P19_in_a_real_container(world: World, runtime: str, stage: str, path: str) -> None:
    prepare(world)
    plant(world, {"/sneak": "/proc/1/cwd", "/slash": "etc/../.."})
    bundle = world.bundle("echo started", stage, *mount(world, "/first", path), "--log", str(world.path / "log"))
    (world.path / "log").touch()
    before = look(world)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode != 0, done.stdout) == (True, "")
    assert (world.path / "log").read_text().count("level=") >= 1
    os.truncate(world.path / "log", 0)
    assert look(world) == before
