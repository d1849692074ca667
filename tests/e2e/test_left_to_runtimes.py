# SPDX-License-Identifier: Apache-2.0
"""Entries of config.json with which runtimes do more or less than bind, or do not agree: the hook leaves them alone."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.world import Container, call, finish, mount, mounted, state

if TYPE_CHECKING:
    from helpers.world import World

RUNTIMES = pytest.mark.parametrize("runtime", support.RUNTIMES)
# Each option, and what is said of it. Its destination and its source are links in these tests.
OTHERWISE = {
    "copy-symlink": "copies a link and mounts nothing",
    "src-nofollow": "binds a link itself",
    "idmap=uids=0-1000-1;gids=0-1000-1": "maps owners in crun's syntax",
    "ridmap=uids=0-1000-1": "maps owners in crun's syntax",
}


def without_namespace(world: World, *mounts: dict[str, Any]) -> None:
    """A bundle whose container has no mount namespace: config.json's binds are the hook's as well."""
    support.bundle(world.path / "bundle", ["true"], mounts=mounts, namespaces=("pid",))


def plan(world: World, *arguments: str) -> dict[str, Any]:
    """The dry-run's document for the bundle of the world."""
    words = ["--dry-run", "--bundle", str(world.path / "bundle"), "--format=json", *arguments]
    document: dict[str, Any] = json.loads(call(world, "prestart", *words, stdin="").stdout)
    return document


@pytest.mark.parametrize("option", OTHERWISE)
def test_an_option_that_has_something_else_done_than_a_bind(world: World, option: str) -> None:
    """As crun from 1.10 on has left it: the link is there, with the text that it has on the host."""
    link = f"{world.path}/link"
    for each in (link, f"{world.rootfs}/copied"):
        os.symlink(world.source, each)
    before = world.snapshot()
    without_namespace(world, support.bind(link, "/copied", option))
    log = f"{world.path}/log"
    done = call(world, "prestart", "--log", log, *mount(world, "/data"), stdin=state(world))
    assert (done.returncode, mounted(world)) == (0, ["/data"]), done.stderr
    with open(log, encoding="utf-8") as file:
        assert f'option \\"{option}\\" {OTHERWISE[option]}; only the runtime can do that' in file.read()
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert world.snapshot() == before
    left, bound = plan(world, *mount(world, "/data"))["mounts"]
    assert (left["action"], left["by"], bound["action"]) == ("left", "runtime", "mount")
    assert [f'option "{option}" {OTHERWISE[option]}; only the runtime can do that'] == left["warnings"]


def test_a_runtime_that_copies_a_link_has_mounted_nothing_there(world: World) -> None:
    """And so it may be that nothing of config.json is mounted, and yet nothing is amiss."""
    os.symlink(world.source, f"{world.rootfs}/copied")
    one = Container(world, "one")
    support.bundle(one.bundle, ["true"], rootfs=world.rootfs, mounts=[support.bind("/link", "/copied", "copy-symlink")])
    with open(f"{one.bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    del config["mounts"][:2]
    with open(f"{one.bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    finish(one.launch(*mount(world, "/new")))
    assert one.mounted() == ["/new"]
    one.end()
    one.tear_down()


BELOW = "starts with the path of the rootfs, a prefix that only runc removes; the hook leaves this bind to the runtime"


@RUNTIMES
@pytest.mark.parametrize("namespaces", [("pid",), support.NAMESPACES], ids=["none", "its own"])
def test_a_destination_that_begins_with_the_path_of_the_rootfs(
    world: World, runtime: str, namespaces: tuple[str, ...]
) -> None:
    """runc binds on /data, crun on that path inside; the hook on neither."""
    literal = f"{world.rootfs}/data"
    os.makedirs(world.rootfs + literal)
    word = "/data/word" if runtime == "runc" else f"{literal}/word"
    log = f"{world.path}/log"
    script = f"cat {word}; grep -c {world.source} /proc/self/mountinfo"
    own = [support.bind(world.source, literal)]
    arguments = ["--log", log, "--mount", f"src={world.file},dst=/etc/new"]
    bundle = world.bundle(script, "createRuntime", *arguments, mounts=own, namespaces=namespaces)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n1\n"), done.stderr
    with open(log, encoding="utf-8") as file:
        assert BELOW in file.read()
    left, _ = plan(world, *arguments)["mounts"]
    assert (left["action"], left["warnings"]) == ("left", [f"the destination {BELOW}"])


@RUNTIMES
def test_such_a_mount_alone_is_no_sign_of_a_runtime_that_has_not_begun(world: World, runtime: str) -> None:
    kind = "proc" if runtime == "runc" else "tmpfs"  # each wants, or refuses, what the other does not
    literal = f"{world.rootfs}/proc"
    bundle = world.bundle("cat /new/word", "createRuntime", *mount(world, "/new"))
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    config["mounts"] = [{"destination": literal, "type": kind, "source": kind}]
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr


def test_a_mount_of_ours_to_such_a_place_is_made_and_asked_about(world: World) -> None:
    without_namespace(world)
    (bound,) = plan(world, *mount(world, f"{world.rootfs}/./new"))["mounts"]
    assert (bound["action"], bound["resolved"]) == ("mount", f"{world.rootfs}/new")
    assert bound["warnings"] == ["the destination starts with the path of the rootfs; if you mean /new, use that"]


@pytest.mark.parametrize("kind", ["mount", "pid"])
def test_an_empty_path_of_a_namespace_is_none(world: World, kind: str) -> None:
    """As runc takes it. crun refuses it by itself."""
    bundle = world.bundle("cat /new/word", "createRuntime", *mount(world, "/new"))
    with open(f"{bundle}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    [namespace] = [each for each in config["linux"]["namespaces"] if each["type"] == kind]
    namespace["path"] = ""
    with open(f"{bundle}/config.json", "w", encoding="utf-8") as file:
        json.dump(config, file)
    done = support.run_container("runc", bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
