# SPDX-License-Identifier: Apache-2.0
"""What ``optional`` forgives: that nothing is there. Whatever may hide something that is there is an error.

The same holds for a source, for a part of one (``subpath``), and for a pattern; and for run and dry-run.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.autofs import Automount
from helpers.fuse import Fuse
from helpers.world import call, mounted, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from helpers.world import World

    Case = Callable[[str], AbstractContextManager[str]]

# In a user namespace of its own, which knows root only: what another user closes is closed.
NESTED = ("unshare", "--user", "--map-root-user", "--mount")
OTHER = 1000


def links(name: str, **texts: str) -> Case:
    """A case of links in the folder: what stands in it under ``name`` counts."""

    @contextlib.contextmanager
    def made(folder: str) -> Iterator[str]:
        for each, text in texts.items():
            os.symlink(text, f"{folder}/{each}")
        yield name

    return made


@contextlib.contextmanager
def nothing(_: str) -> Iterator[str]:
    yield "absent"


@contextlib.contextmanager
def below_a_file(folder: str) -> Iterator[str]:
    mounting.plant(folder, {"file": b""})
    yield "file/below"


@contextlib.contextmanager
def deleted(folder: str) -> Iterator[str]:
    """A bind of a folder that was removed since."""
    for name in ("place", "origin"):
        os.mkdir(f"{folder}/{name}")
    mounting.bind(f"{folder}/origin", f"{folder}/place")
    os.rmdir(f"{folder}/origin")
    yield "place"


@contextlib.contextmanager
def no_key(folder: str) -> Iterator[str]:
    """What automount(8) knows nothing of."""
    with Automount(f"{folder}/auto", exists=False):
        yield "auto"


def fails(error: int) -> Case:
    """A file system that fails."""

    @contextlib.contextmanager
    def made(folder: str) -> Iterator[str]:
        with Fuse(f"{folder}/fuse") as fuse:
            fuse.refuse("LOOKUP", error)
            yield "fuse/folder"

    return made


@contextlib.contextmanager
def dead(folder: str) -> Iterator[str]:
    with Fuse(f"{folder}/fuse") as fuse:
        fuse.end()
        yield "fuse/folder"


@contextlib.contextmanager
def of_another(folder: str) -> Iterator[str]:
    """A FUSE that lets in only who mounted it."""
    with Fuse(f"{folder}/fuse", user=OTHER):
        yield "fuse/folder"


@contextlib.contextmanager
def closed(folder: str) -> Iterator[str]:
    """A folder of mode 000 of somebody else."""
    os.mkdir(f"{folder}/closed", 0)
    os.chown(f"{folder}/closed", OTHER, OTHER)
    yield "closed/below"


FORGIVEN: dict[str, Case] = {
    "nothing": nothing,
    "below a file": below_a_file,
    "dangling, first step": links("first/a/b", first="gone"),
    "dangling, middle step": links("way/middle/b", way=".", middle="gone/x"),
    "dangling, last step": links("last", last="gone"),
    "dangling, by a link": links("last", last="other", other="gone"),
    "deleted": deleted,
    "no key": no_key,
}
ERRORS: dict[str, tuple[Case, int]] = {
    "EIO": (fails(errno.EIO), errno.EIO),
    "ESTALE": (fails(errno.ESTALE), errno.ESTALE),
    "EACCES of the server": (fails(errno.EACCES), errno.EACCES),
    "EACCES, FUSE of another": (of_another, errno.EACCES),
    "EACCES, mode 000": (closed, errno.EACCES),
    "ENOTCONN": (dead, errno.ENOTCONN),
    "ELOOP": (links("loop", loop="loop"), errno.ELOOP),
    "ELOOP, two": (links("one/below", one="two", two="one"), errno.ELOOP),
}
FORMS = {
    "source": "src={folder}/{name},dst=/data",
    "subpath": "src={folder},subpath={name},dst=/data",
    "pattern": "type=glob,src={folder}/{name}/*,dst=/data",
}
COMMANDS = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@pytest.fixture
def folder(world: World) -> str:
    support.bundle(world.path / "bundle", ["true"])
    os.mkdir(f"{world.path}/folder")
    return f"{world.path}/folder"


def both(world: World, spec: str, *, nested: bool = False) -> tuple[int, str]:
    """Exit code and sentence of the run, with which the dry-run agrees. Nothing is changed by either."""
    before = world.snapshot()
    place = NESTED if nested else ()
    done = call(world, "prestart", "--mount", spec, stdin=state(world), before=place)
    plan = call(world, "prestart", "--dry-run", "--mount", spec, stdin=state(world), before=place)
    assert plan.returncode == done.returncode, plan.stdout
    sentence = done.stderr.removeprefix("oci-bind-hook: c1 prestart: ").rstrip("\n")
    assert sentence.partition(" (")[0] in " ".join(plan.stdout.split())
    assert world.snapshot() == before
    return done.returncode, sentence


@COMMANDS
@pytest.mark.parametrize("case", FORGIVEN.values(), ids=FORGIVEN)
def test_what_is_not_there_is_forgiven(world: World, folder: str, case: Case, form: str) -> None:
    with case(folder) as name:
        spec = form.format(folder=folder, name=name)
        assert both(world, f"{spec},optional") == (0, "")
        assert both(world, spec)[0] == os.EX_NOINPUT


@COMMANDS
@pytest.mark.parametrize(("case", "number"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_looked_at_is_not_forgiven(
    world: World, folder: str, case: Case, number: int, form: str
) -> None:
    with case(folder) as name:
        spec = form.format(folder=folder, name=name)
        said = [both(world, f"{spec}{optional}", nested=case is closed) for optional in ("", ",optional")]
        assert [code for code, _ in said] == [os.EX_NOINPUT] * 2
        assert all(f" cannot be opened: {os.strerror(number)}" in line for _, line in said), said


@pytest.mark.parametrize("text", ["loop", "gone"])
def test_a_match_that_leads_nowhere(world: World, folder: str, text: str) -> None:
    os.symlink(text, f"{folder}/loop")
    code, line = both(world, f"type=glob,src={folder}/*,dst=/data,optional")
    assert code == (0 if text == "gone" else os.EX_NOINPUT), line


def test_a_pattern_passes_over_a_loop_beside_what_matches(world: World, folder: str) -> None:
    mounting.plant(folder, {"a": {"x": b""}, "loop": "loop"})
    spec = f"type=glob,src={folder}/*/x,dst=/data,optional"
    assert call(world, "prestart", "--mount", spec, stdin=state(world)).returncode == 0
    assert mounted(world) == ["/data/x"]
    os.unlink(f"{folder}/a/x")
    assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
    assert both(world, spec)[0] == os.EX_NOINPUT
