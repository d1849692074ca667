# SPDX-License-Identifier: Apache-2.0
"""Sources that must not lead out of a folder, while the folder and what is in it are exchanged."""

from __future__ import annotations

import errno
import os
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as some

from helpers.mounting import ended_well, fds, forked, plant, tmpfs
from helpers.properties import examples
from helpers.rival import Rival
from oci_bind_hook.errors import EscapeError
from oci_bind_hook.kernel import files, linux
from oci_bind_hook.mounting.confined import Allowed, Walk, open_beneath
from oci_bind_hook.mounting.patterns import matches
from oci_bind_hook.requests.mount_field import parse_mount

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.mounting import Tree
    from oci_bind_hook.requests.request import Request


@pytest.fixture
def top(tmp_path: Path) -> str:
    plant(
        tmp_path,
        {
            "allowed": {"file": b"inside", "deep": {"file": b"inside"}, "link": "deep/file"},
            "outside": {"file": b"outside", "deep": {"file": b"outside"}},
        },
    )
    return os.fspath(tmp_path)


def asked(source: str, allowed: Allowed | None = None, *, fields: str = "") -> Request:
    request = parse_mount(f"src={source},dst=/x{fields}", "--mount 1", "--mount 1")
    request.opener = allowed
    return request


def read(request: Request) -> bytes:
    """What is in the source, by its opener."""
    assert request.opener is not None
    fd = request.opener.open(request)
    try:
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            return file.read()
    finally:
        os.close(fd)


def test_the_allowed_folder_is_opened_once(top: str) -> None:
    allowed = Allowed([f"{top}/allowed"])
    assert read(asked(f"{top}/allowed/file", allowed)) == b"inside"
    os.rename(f"{top}/allowed", f"{top}/moved")
    os.symlink("outside", f"{top}/allowed")
    for name in ("file", "deep/file", "link"):
        assert read(asked(f"{top}/allowed/{name}", allowed)) == b"inside"


def test_the_folder_of_a_pattern_is_opened_once(top: str) -> None:
    found = matches(asked(f"{top}/allowed/*/file", fields=",type=glob"))
    os.rename(f"{top}/allowed", f"{top}/moved")
    os.symlink("outside", f"{top}/allowed")
    assert [read(each) for each in found] == [b"inside"]


@pytest.mark.parametrize("opener", ["allowed", "pattern"])
def test_what_is_exchanged_for_a_link_is_not_followed(top: str, opener: str) -> None:
    os.symlink("../outside/deep", f"{top}/allowed/other")
    source = f"{top}/allowed/deep/file"
    request = asked(source, Allowed([f"{top}/allowed"]))
    if opener == "pattern":
        [request] = matches(asked(f"{top}/allowed/d*/file", fields=",type=glob"))
    found = set()
    with Rival(f"{top}/allowed/deep", f"{top}/allowed/other") as rival, rival.at_work():
        for _ in range(300):
            try:
                found.add(read(request))
            except EscapeError as refusal:
                found.add(refusal.problem.encode())
    told = f"the source {source} is not below any --allow-source"
    if opener == "pattern":
        told = f"{source} leads out of {top}/allowed"
    assert found <= {b"inside", told.encode()}


def test_no_fd_stays_open(top: str) -> None:
    allowed = Allowed([f"{top}/allowed"])
    read(asked(f"{top}/allowed/link", allowed))
    before = fds()
    os.symlink("../outside/file", f"{top}/allowed/out")
    for name in ("link", "deep/file", "file"):
        read(asked(f"{top}/allowed/{name}", allowed))
    for name in ("out", "absent", "deep/absent", "file/x", "deep/../../outside"):
        with pytest.raises((EscapeError, OSError)):
            read(asked(f"{top}/allowed/{name}", allowed))
    assert fds() == before


@pytest.mark.parametrize("nested", [False, True])
def test_what_is_roots_is_safe_for_an_ordinary_user(*, nested: bool) -> None:
    """Also in a user namespace, where root of the host is not mapped and looks like nobody."""

    def look() -> None:
        os.setgroups([])
        os.setresgid(1234, 1234, 1234)
        os.setresuid(1234, 1234, 1234)
        if nested:
            linux.unshare_user()
            assert os.stat("/usr").st_uid == files.OVERFLOW_UID
        assert files.changeable("/usr/lib/absent") == ""
        assert files.changeable("/tmp/not there") == ""

    assert ended_well(forked(look))


def test_a_walk_tells_the_links_it_follows(top: str) -> None:
    os.symlink("one", f"{top}/outside/two")
    os.symlink(f"{top}/allowed/../allowed/link", f"{top}/outside/one")
    with Walk() as walk:
        walk.go(f"{top}/outside/two")
        assert walk.links == [
            (f"{top}/outside/two", "one"),
            (f"{top}/outside/one", f"{top}/allowed/../allowed/link"),
            (f"{top}/allowed/link", "deep/file"),
        ]
        assert "/".join(step.name for step in walk.steps) == f"{top}/allowed/deep/file"


@pytest.mark.parametrize("path", ["file/", "file/.", "file/..", "file/x", "link/", "absent", "deep/absent/.."])
def test_a_walk_fails_as_the_kernel_does(top: str, path: str) -> None:
    with pytest.raises((FileNotFoundError, NotADirectoryError)) as expected:
        os.stat(f"{top}/allowed/{path}")
    with Walk() as walk, pytest.raises((FileNotFoundError, NotADirectoryError)) as raised:
        walk.go(f"{top}/allowed/{path}")
    assert (raised.value.errno, raised.value.strerror) == (expected.value.errno, expected.value.strerror)


def test_a_walk_ends_after_as_many_links_as_the_kernel_follows(top: str) -> None:
    os.symlink("file", f"{top}/allowed/0")
    for number in range(1, 41):
        os.symlink(str(number - 1), f"{top}/allowed/{number}")
    with Walk() as walk:
        walk.go(f"{top}/allowed/39")
    with Walk() as walk, pytest.raises(OSError, match="symbolic links") as raised:
        walk.go(f"{top}/allowed/40")
    assert raised.value.errno == errno.ELOOP


def test_a_mount_over_a_folder_that_is_held_is_another_folder(top: str) -> None:
    """Only what was there when it was opened is allowed."""
    allowed = Allowed([f"{top}/allowed"])
    os.symlink(f"{top}/allowed/file", f"{top}/allowed/absolute")
    assert read(asked(f"{top}/allowed/absolute", allowed)) == b"inside"
    plant(tmpfs(f"{top}/allowed"), {"file": b"another"})
    assert read(asked(f"{top}/allowed/file", allowed)) == b"inside"
    with pytest.raises(EscapeError):
        read(asked(f"{top}/allowed/absolute", allowed))


# -- beneath a folder --------------------------------------------------------------------------------------------------

RESOLVE_BENEATH = 0x08  # openat2(2)

NAMES = some.sampled_from(("a", "b", "c"))
TEXTS = ("a", "b", ".", "..", "a/b", "../a", "a/..", "b/../..", "../../d/a", "/", "TOP", "TOP/a", "absent", "a/")
LEAVES = some.one_of(some.just(b""), some.sampled_from(TEXTS))
TREES = some.recursive(
    some.dictionaries(NAMES, LEAVES, max_size=3),
    lambda trees: some.dictionaries(NAMES, some.one_of(LEAVES, trees), min_size=1, max_size=3),
    max_leaves=8,
)
PATHS = some.lists(some.sampled_from(("a", "b", "c", ".", "")), min_size=1, max_size=4).map("/".join)


def rooted(tree: Tree, top: str) -> Tree:
    """The tree with absolute links into itself."""
    found: dict[str, bytes | str | Tree] = {}
    for name, what in tree.items():
        if isinstance(what, str):
            found[name] = what.replace("TOP", top)
        else:
            found[name] = what if isinstance(what, bytes) else rooted(what, top)
    return found


def beneath(fd: int, top: str, path: str) -> tuple[int, int, int] | int:
    """What is there by the walk: mount, device and inode, or the errno."""
    try:
        found = open_beneath(fd, top, path)
    except EscapeError:
        return errno.EXDEV
    except OSError as reason:
        return reason.errno or 0
    return identity(found)


def found_beside(rival: Rival, fd: int, top: str, path: str) -> set[int]:
    """What walks come to while a rival is at work: inodes and errnos."""
    found = set()
    with rival, rival.at_work():
        for _ in range(300):
            what = beneath(fd, top, path)
            found.add(what if isinstance(what, int) else what[2])
    return found


def identity(fd: int) -> tuple[int, int, int]:
    stat = files.statx(fd)
    os.close(fd)
    return stat.mnt_id, stat.dev, stat.ino


def by_kernel(fd: int, path: str) -> tuple[int, int, int] | int:
    """The same by openat2(2)."""
    flags = RESOLVE_BENEATH | linux.RESOLVE_NO_MAGICLINKS
    while True:
        try:
            return identity(linux.openat2(fd, path, flags=os.O_PATH, resolve=flags))
        except BlockingIOError:
            pass  # something was renamed on this machine
        except OSError as reason:
            return reason.errno or 0


@pytest.mark.kernel(5, 6)
@examples(200)
@given(tree=TREES, path=PATHS.filter(lambda path: path[:1] not in ("", "/")))
def test_beneath_a_folder_is_what_the_kernel_finds_there(tree: Tree, path: str) -> None:
    with tempfile.TemporaryDirectory() as above:
        top = f"{above}/d"
        plant(top, rooted(tree, top))
        fd = os.open(top, os.O_PATH)
        assert beneath(fd, top, path) == by_kernel(fd, path)
        os.close(fd)


def test_what_is_exchanged_for_a_link_does_not_lead_out(top: str) -> None:
    os.symlink("../outside/deep", f"{top}/allowed/other")
    fd = os.open(f"{top}/allowed", os.O_PATH)
    inside = os.stat(f"{top}/allowed/deep/file").st_ino
    found = found_beside(Rival(f"{top}/allowed/deep", f"{top}/allowed/other"), fd, f"{top}/allowed", "deep/file")
    assert found <= {inside, errno.EXDEV}
    os.close(fd)


def test_a_folder_that_is_moved_away_during_the_walk_is_no_way_out(top: str) -> None:
    """Its ``..`` is the folder that the walk came from, wherever it stands now."""
    plant(f"{top}/allowed/deep", {"in": {"up": "../../file"}})
    fd = os.open(f"{top}/allowed", os.O_PATH)
    inside = os.stat(f"{top}/allowed/file").st_ino
    os.mkdir(f"{top}/outside/in")
    found = found_beside(Rival(f"{top}/allowed/deep/in", f"{top}/outside/in"), fd, f"{top}/allowed", "deep/in/up")
    assert found <= {inside, errno.ENOENT}
    os.close(fd)


def test_no_fd_stays_open_beneath(top: str) -> None:
    fd = os.open(f"{top}/allowed", os.O_PATH)
    os.symlink("../outside", f"{top}/allowed/out")
    before = fds()
    for path in ("link", "deep/file", "out/file", "absent", "file/x", "."):
        beneath(fd, top, path)
    assert fds() == before
    os.close(fd)


def test_the_link_that_leads_out_is_the_one_that_says_it(top: str) -> None:
    """And not a later one, which was followed on its way."""
    plant(f"{top}/allowed", {"here": ".", "out": "here/../outside"})
    fd = os.open(f"{top}/allowed", os.O_PATH)
    with pytest.raises(EscapeError) as raised:
        open_beneath(fd, f"{top}/allowed", "out/file")
    folder = f"{top}/allowed"
    assert raised.value.problem == f"the link {folder}/out to here/../outside leads out of the source {folder}"
    os.close(fd)
