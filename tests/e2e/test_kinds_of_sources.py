# SPDX-License-Identifier: Apache-2.0
"""Each kind of source with each form of a bind: what the run does and says, and what the dry-run foresees."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from helpers import mounting, support
from helpers.autofs import Automount
from helpers.fuse import Fuse
from helpers.world import call, mounted, state

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from helpers.world import World

DOCUMENT = Path(__file__).parents[2] / "docs/SOURCES.md"

# What each form of a bind is written as.
FORMS = {
    "plain": "src={source},dst=/new/plain",
    "ro": "src={source},dst=/new/ro,ro",
    "rro": "src={source},dst=/new/rro,rro",
    "bind-nonrecursive": "src={source},dst=/new/one,bind-nonrecursive",
    "when-exists": "src={source},dst=/new/when,when-exists=/bin",
    "optional": "src={source},dst=/new/optional,optional",
    "glob": "type=glob,src={pattern},dst=/new/glob",
    "glob, optional": "type=glob,src={pattern},dst=/new/each,optional",
}


class Kind(NamedTuple):
    """A kind of source. ``make`` has one at the path it is given, as a context manager that ends it.

    ``below`` is what is named inside of it, ``said`` is the sentence, "" if it is bound.
    ``optional`` leaves it out, if ``is_missing``. ``glob`` is the sentence for a pattern if it is another one;
    ``is_unnamed``: a pattern cannot even look the name up.
    """

    text: str
    make: Callable[[str], contextlib.AbstractContextManager[object]]
    below: str = ""
    said: str = ""
    is_missing: bool = False
    glob: str | None = None
    is_unnamed: bool = False

    @property
    def code(self) -> int:
        return os.EX_NOINPUT if self.said else 0


@contextlib.contextmanager
def plain(path: str) -> Iterator[None]:
    os.mkdir(path)
    Path(path, "word").write_text("here\n", encoding="ascii")
    yield


@contextlib.contextmanager
def file(path: str) -> Iterator[None]:
    Path(path).write_text("here\n", encoding="ascii")
    yield


@contextlib.contextmanager
def fifo(path: str) -> Iterator[None]:
    os.mkfifo(path)
    yield


@contextlib.contextmanager
def ext4(path: str) -> Iterator[None]:
    mounting.ext4(path)
    yield
    mounting.umount(path)


@contextlib.contextmanager
def overlay(path: str) -> Iterator[None]:
    mounting.overlay(path, lower="/etc")
    yield
    mounting.umount(path)


@contextlib.contextmanager
def subvolume(path: str) -> Iterator[None]:
    """The kernel gives each one a device number of its own."""
    image = f"{os.path.dirname(path)}.image"
    Path(image).touch()
    os.truncate(image, 110 << 20)
    os.mkdir(path)
    for command in (
        ("mkfs.btrfs", "--quiet", image),
        ("mount", "-o", "loop", image, path),
        ("btrfs", "--quiet", "subvolume", "create", f"{path}/volume"),
        ("umount", path),
        ("mount", "-o", "loop,subvol=volume", image, path),
    ):
        subprocess.run(command, check=True)
    yield
    mounting.umount(path)


@contextlib.contextmanager
def dead(path: str) -> Iterator[None]:
    with Fuse(path) as server:
        server.end()
        yield
    mounting.umount(path)


@contextlib.contextmanager
def fuse(path: str, user: int | None = None, error: int = 0) -> Iterator[None]:
    with Fuse(path, user=user) as server:
        if error:
            server.refuse("LOOKUP", error)
        yield
    mounting.umount(path)


@contextlib.contextmanager
def automount(path: str, keys: tuple[str, ...] | None = None, **members: bool) -> Iterator[None]:
    with Automount(path, keys=keys, **members):
        yield


@contextlib.contextmanager
def deleted(path: str, *, is_file: bool) -> Iterator[None]:
    origin = f"{os.path.dirname(path)}.origin"
    with (file if is_file else plain)(path), (file if is_file else plain)(origin):
        mounting.bind(origin, path)
        if is_file:
            os.unlink(origin)
        else:
            os.unlink(f"{origin}/word")
            os.rmdir(origin)
        yield
        mounting.umount(path)


@contextlib.contextmanager
def link(path: str, to: str) -> Iterator[None]:
    os.symlink(to, path)
    yield


NOT_THERE = "(sources are looked up on the host)"
CANNOT = "the source PATH cannot be opened: "
NOTHING = "nothing matches PATTERN (to allow this, set optional)"
KINDS = [
    Kind("a folder", plain),
    Kind("a file", file),
    Kind("a FIFO", fifo),
    Kind("ext4 on a loop device", ext4),
    Kind("an overlay", overlay),
    Kind("a subvolume of btrfs", subvolume),
    Kind("FUSE without birth times", fuse),
    Kind("a file on FUSE", fuse, "/word"),
    Kind(
        "FUSE whose server has ended",
        dead,
        "",
        f"{CANNOT}Transport endpoint is not connected (the server of this FUSE mount has ended: unmount it"
        " and mount it again)",
        is_unnamed=True,
    ),
    Kind(
        "FUSE that only the user who mounted it may access",
        lambda path: fuse(path, user=1000),
        "",
        f"{CANNOT}Permission denied (PATH is on fuse, which only the user who mounted it may access: "
        "mount it with allow_root or"
        " allow_other)",
        is_unnamed=True,
    ),
    Kind(
        "FUSE whose disk fails",
        lambda path: fuse(path, error=errno.EIO),
        "/word",
        f"{CANNOT}Input/output error (the disk or its server reports an error: see dmesg(1))",
        is_unnamed=True,
    ),
    Kind(
        "a network file that its server has replaced",
        lambda path: fuse(path, error=errno.ESTALE),
        "/word",
        f"{CANNOT}Stale file handle (the server has replaced the file, as on NFS: mount it again on the host)",
        is_unnamed=True,
    ),
    Kind("an automount point of a direct map", automount),
    Kind(
        "the same, with nothing to mount",
        lambda path: automount(path, exists=False),
        "",
        f"{CANNOT}No such file or directory",
        is_missing=True,
    ),
    Kind("an automount point of an indirect map", lambda path: automount(path, ("key",)), "/key"),
    Kind("a file below it", lambda path: automount(path, ("key",)), "/key/word"),
    Kind(
        "a key that is not in an indirect map",
        lambda path: automount(path, ("key",)),
        "/other",
        f"{CANNOT}No such file or directory",
        is_missing=True,
        glob=NOTHING,
    ),
    Kind("an automount point of a browsable map", lambda path: automount(path, ("key",), is_browsable=True), "/key"),
    Kind(
        "a mounted file that was deleted",
        lambda path: deleted(path, is_file=True),
        "",
        "the source PATH was deleted",
        is_missing=True,
    ),
    Kind(
        "a mounted folder that was deleted",
        lambda path: deleted(path, is_file=False),
        "",
        "the source PATH was deleted",
        is_missing=True,
    ),
    Kind(
        "a dangling link",
        lambda path: link(path, "gone"),
        "",
        f"the source PATH is a link to gone, which does not exist {NOT_THERE}",
        is_missing=True,
    ),
    Kind(
        "a path through a dangling link",
        lambda path: link(path, "gone"),
        "/below",
        f"the source PATH leads through the link ABOVE to gone, which does not exist {NOT_THERE}",
        is_missing=True,
        glob=NOTHING,
    ),
    Kind(
        "a path through a file",
        file,
        "/below",
        f"{CANNOT}Not a directory (a component of the path is not a folder)",
        is_missing=True,
        glob=NOTHING,
    ),
    Kind(
        "a link to itself",
        lambda path: link(path, "it"),
        "",
        f"{CANNOT}Too many levels of symbolic links (the path contains too many symbolic links, or a loop of them)",
    ),
]


def _expected(kind: Kind, form: str) -> str:
    """The sentence for a bind, "" if it is made or left out."""
    if kind.is_missing and "optional" in form:
        return ""
    if kind.glob is not None and "glob" in form:
        return kind.glob
    return kind.said.removeprefix("the source ") if kind.is_unnamed and "glob" in form else kind.said


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.text.replace(" ", "-"))
def test_a_kind(kind: Kind, world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    os.mkdir(world.path / "place")
    above, pattern = f"{world.path}/place/it", f"{world.path}/place/[i]t"
    source = above + kind.below
    words = {form: text.format(source=source, pattern=pattern + kind.below) for form, text in FORMS.items()}

    def said(line: str) -> str:
        line = " ".join(line.split()).removeprefix("oci-bind-hook: c1 prestart: ")
        for path, name in ((source, "PATH"), (above, "ABOVE"), (pattern + kind.below, "PATTERN")):
            line = line.replace(path, name)
        return line

    with kind.make(above):
        asked = [word for text in words.values() for word in ("--mount", text)]
        before = support.tree(world.rootfs)
        # The dry-run first: an automount point that was mounted once is a mount like others.
        dry = call(world, "prestart", "--dry-run", *asked, stdin=state(world))
        foreseen = said(dry.stdout)
        assert dry.returncode == kind.code, dry.stdout
        for number, (form, text) in enumerate(words.items(), 1):
            expected = _expected(kind, form)
            assert not expected or f"--mount {number}: {expected.partition(' (')[0]}" in foreseen
            if kind.code:
                done = call(world, "prestart", "--mount", text, stdin=state(world))
                assert said(done.stderr) == (f"--mount 1: {expected}" if expected else "")
                assert done.returncode == (kind.code if expected else 0)
        if not kind.code:
            done = call(world, "prestart", *asked, stdin=state(world))
            assert (done.returncode, done.stderr) == (0, "")
            name = os.path.basename(source)
            places = [re.sub(r".*,dst=([^,]+).*", r"\1", text) for text in words.values()]
            assert mounted(world) == sorted(
                f"{place}/{name}" if place[5:] in ("glob", "each") else place for place in places
            )
        assert call(world, "poststop", stdin=state(world, status="stopped")).returncode == 0
        assert (mounted(world), support.tree(world.rootfs)) == ([], before)


def rows() -> list[str]:
    """The table of the document: what is bound, what is refused, and what is said."""
    found = []
    for kind in KINDS:
        happens = "bound" if not kind.code else f"refused, {kind.code}" + "; skipped with `optional`" * kind.is_missing
        words = kind.said.replace("ABOVE", "PATH" if not kind.below else "/its/beginning").replace("PATH", "/the/path")
        found.append(f"| {kind.text} | {happens} | {words} |")
    return found


def test_the_document_has_what_was_seen() -> None:
    lines = DOCUMENT.read_text(encoding="utf-8").splitlines()
    first = lines.index("| source | result | message |") + 2
    assert lines[first : first + len(KINDS)] == rows()
