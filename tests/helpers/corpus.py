# SPDX-License-Identifier: Apache-2.0
"""What holds after every case of the attack corpus, whatever it was: nothing outside the rootfs has changed.

A case is asked twice, by a dry-run and for real, of the installed launcher: both must come to the same verdict, and the
dry-run must change nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from helpers import support
from helpers.world import call, mounted, state
from oci_bind_hook.documents import oci

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Sequence

    from helpers.world import World

PR_SET_CHILD_SUBREAPER = 36
UNTOUCHED = "what must never change"


def prepare(world: World, *mounts: dict[str, Any], **members: Any) -> str:
    """A bundle for the rootfs of ``world``, and beside it a folder for images to aim at, whose path is returned."""
    outside = world.path / "outside"
    (outside / "etc").mkdir(parents=True)
    (outside / "secret").write_text(UNTOUCHED)
    support.bundle(world.path / "bundle", ["true"], mounts=mounts, **members)
    # What the hook would start and leave behind would become a child of this test.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    return str(outside)


def plant(world: World, tree: dict[str, str | None]) -> None:
    """Things of the image: links to a text, and folders where there is None."""
    for path, target in tree.items():
        name = world.rootfs + path
        if os.path.islink(name) or (target is not None and os.path.isdir(name)):
            os.unlink(name) if os.path.islink(name) else os.rmdir(name)
        os.makedirs(name if target is None else os.path.dirname(name), exist_ok=True)
        if target is not None:
            os.symlink(target, name)


def _entries(folder: str, *without: str) -> dict[str, object]:
    """What is in a folder, each with all below it; what is another file system there is left out, as is procfs."""
    found: dict[str, object] = {}
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if path not in without and os.lstat(path).st_dev == os.lstat(folder).st_dev:
            found[path] = os.readlink(path) if os.path.islink(path) else support.tree(path)
    return found


def outside(world: World) -> dict[str, object]:
    """Everything of ``world`` that is not in its rootfs, but for the state folder."""
    bundle = str(world.path / "bundle")
    found = _entries(str(world.path), bundle, world.rootfs, str(world.state))
    return found if world.rootfs == bundle else found | _entries(bundle, world.rootfs)


def look(world: World) -> dict[str, object]:
    """All that a call which is refused, and a dry-run, must leave as it is."""
    is_real = world.state.is_dir() and not world.state.is_symlink()
    return {
        "outside": outside(world),
        "rootfs": _entries(world.rootfs),
        "state": support.tree(world.state) if is_real else os.path.lexists(world.state),
        "mounts": support.mounts(),
    }


def _elsewhere(world: World) -> list[str]:
    """The mount table without what is mounted in the rootfs."""
    return [line for line in support.mounts() if not line.split(" ")[4].startswith(f"{world.rootfs}/")]


def no_process_left() -> None:
    """The hook starts nothing, so that nothing can outlive it."""
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def planned(
    world: World, *arguments: str, stage: str = "prestart", stdin: str | None = None, before: Sequence[str] = ()
) -> tuple[int, list[str]]:
    """The verdict of a dry-run, T15: its exit code, and where it says that binds would lead."""
    unchanged = look(world)
    words = [stage, "--dry-run", "--format=json", *arguments]
    done = call(world, *words, stdin=state(world) if stdin is None else stdin, before=tuple(before))
    assert look(world) == unchanged
    no_process_left()
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert oci.violations(report, "plan") == []
    return done.returncode, [str(bind["resolved"]) for bind in report["mounts"]]


def fails(done: subprocess.CompletedProcess[str], code: int, says: str = "") -> None:
    """A failure as it is promised: the exit code, and one line that tells why."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.startswith("oci-bind-hook: ")
    assert done.stderr.endswith("\n")
    assert done.stderr[:-1].isprintable(), repr(done.stderr)
    assert says in done.stderr


def refused(
    world: World,
    *arguments: str,
    code: int,
    says: str = "",
    stage: str = "prestart",
    stdin: str | None = None,
    before: Sequence[str] = (),
    dry: bool = True,
) -> None:
    """The case is refused and nothing at all has changed; the dry-run says so too."""
    unchanged = look(world)
    text = state(world) if stdin is None else stdin
    if dry:
        assert planned(world, *arguments, stage=stage, stdin=text, before=before)[0] == code
    done = call(world, *([stage] if stage else []), *arguments, stdin=text, before=tuple(before))
    fails(done, code, says)
    assert look(world) == unchanged
    no_process_left()


def succeeds(done: subprocess.CompletedProcess[str]) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    no_process_left()


def lands(
    world: World,
    *arguments: str,
    at: Sequence[str],
    stdin: str | None = None,
    before: Sequence[str] = (),
    dry: bool = True,
    check: Callable[[], object] = lambda: None,
) -> None:
    """The binds are in these places of the rootfs and nowhere else, and poststop leaves no trace of them.

    ``check`` is called while they are there.
    """
    untouched, elsewhere = look(world), _elsewhere(world)
    if dry:
        assert planned(world, *arguments, stdin=stdin) == (0, list(at))
    there = mounted(world)
    text = state(world) if stdin is None else stdin
    succeeds(call(world, "prestart", *arguments, stdin=text, before=tuple(before)))
    assert mounted(world) == sorted([*there, *at])
    assert outside(world) == untouched["outside"]
    assert _elsewhere(world) == elsewhere
    check()
    gone(world, untouched)


def options(world: World, path: str) -> set[str]:
    """The attributes of the mount on a path of the rootfs."""
    (words,) = (line.split(" ")[5] for line in support.mounts() if line.split(" ")[4] == world.rootfs + path)
    return set(words.split(","))


def gone(world: World, untouched: dict[str, object], container: str = "c1") -> None:
    """Poststop is silent, and leaves everything as it was."""
    succeeds(call(world, "poststop", stdin=state(world, container, status="stopped")))
    assert look(world) == untouched
