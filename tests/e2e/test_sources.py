# SPDX-License-Identifier: Apache-2.0
"""Sources as they are in the field: what is bound, or what is said, by the run and by the dry-run."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.autofs import Automount
from helpers.fuse import Fuse
from helpers.world import call, mounted, state

if TYPE_CHECKING:
    from helpers.world import World


def prepare(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])


def said(world: World, source: str, options: str = "") -> tuple[int, str]:
    """Exit code and sentence for a bind of ``source`` on /data, which the dry-run has, too."""
    words = ("--mount", f"src={source},dst=/data{options}")
    done = call(world, "prestart", *words, stdin=state(world))
    plan = call(world, "prestart", "--dry-run", *words, stdin=state(world))
    sentence = done.stderr.removeprefix("oci-bind-hook: c1 prestart: ").rstrip("\n")
    assert plan.returncode == done.returncode
    assert sentence.partition(" (")[0] in " ".join(plan.stdout.split())
    return done.returncode, sentence


def bound(world: World, source: str, options: str = "") -> list[str]:
    """What is in /data with a bind of ``source`` on it; poststop leaves nothing of it."""
    before = support.mounts()
    done = call(world, "prestart", "--mount", f"src={source},dst=/data{options}", stdin=state(world))
    assert (done.returncode, done.stderr) == (0, "")
    found = sorted(os.listdir(f"{world.rootfs}/data")) if mounted(world) else []
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert len(support.mounts()) <= len(before) + 1  # an automount stays
    return found


@pytest.mark.parametrize("options", ["", ",ro", ",ro,bind-recursive=readonly", ",bind-nonrecursive", ",optional"])
def test_an_automount_point_is_mounted_as_for_any_other(world: World, options: str) -> None:
    prepare(world)
    with Automount(f"{world.path}/auto") as auto:
        assert bound(world, auto.path, options) == ["word"]


def test_an_automount_point_with_nothing_to_mount_is_missing(world: World) -> None:
    prepare(world)
    with Automount(f"{world.path}/auto", exists=False) as auto:
        assert said(world, auto.path) == (
            os.EX_NOINPUT,
            f"--mount 1: the source {auto.path} cannot be opened: No such file or directory",
        )
        assert bound(world, auto.path, ",optional") == []


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_was_deleted_is_missing(world: World, kind: str) -> None:
    """A bind of something that was removed since, as of a file that Kubernetes updates."""
    prepare(world)
    source, origin = f"{world.path}/place", f"{world.path}/origin"
    for path in (source, origin):
        if kind == "folder":
            os.mkdir(path)
        else:
            with open(path, "w", encoding="ascii"):
                pass
    mounting.bind(origin, source)
    if kind == "folder":
        os.rmdir(origin)
    else:
        os.unlink(origin)
    assert said(world, source) == (os.EX_NOINPUT, f"--mount 1: the source {source} was deleted")
    assert bound(world, source, ",optional") == []


@pytest.mark.parametrize(
    ("links", "source", "problem"),
    [
        ({"last": "gone"}, "last", "is a link to gone"),
        ({"last": "first", "first": "gone"}, "last", "leads through the link {path}/first to gone"),
        ({"way": "gone"}, "way/below", "leads through the link {path}/way to gone"),
    ],
    ids=["last step", "two links", "on the way"],
)
def test_a_link_that_dangles_is_named(world: World, links: dict[str, str], source: str, problem: str) -> None:
    prepare(world)
    for name, text in links.items():
        os.symlink(text, f"{world.path}/{name}")
    path = f"{world.path}/{source}"
    assert said(world, path) == (
        os.EX_NOINPUT,
        f"--mount 1: the source {path} {problem.format(path=world.path)}, which does not exist"
        " (sources are looked up on the host)",
    )
    assert bound(world, path, ",optional") == []


@pytest.mark.parametrize("below", ["", "/folder"])
@pytest.mark.parametrize("options", ["", ",optional"])
def test_a_fuse_that_lets_in_only_its_mounter_says_so(world: World, below: str, options: str) -> None:
    prepare(world)
    with Fuse(f"{world.path}/fuse", user=1000) as fuse:
        assert said(world, fuse.path + below, options) == (
            os.EX_NOINPUT,
            f"--mount 1: the source {fuse.path}{below} cannot be opened: Permission denied ({fuse.path} is on fuse,"
            " which only the user who mounted it may access: mount it with allow_root or allow_other)",
        )


def test_an_automount_point_below_a_source_is_taken_along_as_it_is(world: World) -> None:
    prepare(world)
    source = f"{world.path}/folder"
    with Automount(f"{source}/auto") as auto:
        assert bound(world, source) == ["auto"]
        assert [info.type for info in mounting.table() if info.mount_point == auto.path] == ["autofs"]
