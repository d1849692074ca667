# SPDX-License-Identifier: Apache-2.0
"""The walk: what a destination means inside a hostile rootfs, measured against the kernel's own openat2(2)."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from helpers import kernels
from helpers.hostile_rootfs import LONG
from helpers.mounting import Bench, fds, plant
from helpers.properties import examples
from oci_bind_hook.errors import EscapeError, HookError, KernelError, MissingError, RequestError
from oci_bind_hook.kernel import files, linux
from oci_bind_hook.rootfs.mount_points import Rootfs
from oci_bind_hook.rootfs.walk import Target

if TYPE_CHECKING:
    from pathlib import Path

    from helpers.mounting import Tree


# destination, where it leads, how many links are followed, what is missing of it.
FOUND = [
    ("/etc", "/etc", 0),
    ("etc/passwd", "/etc/passwd", 0),
    ("//etc//.//passwd", "/etc/passwd", 0),
    ("/etc/", "/etc", 0),
    ("/../../etc/x/../y", "/etc/y", 0),
    ("/absolute", "/real", 1),
    ("/absolute/", "/real", 1),
    ("/absolute/conf/.", "/real/conf", 1),
    ("/absolute/../etc", "/etc", 1),
    ("/relative", "/real/conf", 1),
    ("/climbing/conf", "/real/conf", 1),
    ("/back", "/real", 1),
    ("/folder-slash", "/real", 1),
    ("/folder-slash/", "/real", 1),
    ("/to-file", "/file", 1),
    ("/lx/../y", "/etc/y", 1),
    ("/a/climbing/y", "/etc/y", 1),
    ("/a/../climbing/../lx/..", "/etc", 2),
    (f"/{LONG}", f"/{LONG}", 0),
    ("/\udcff\udcfe/caf\xe9", "/\udcff\udcfe/caf\xe9", 0),
    ("/non-utf8", "/\udcff\udcfe/caf\xe9", 1),
    ("/chain40", "/real", 40),
    ("/root/root-dot/etc", "/etc", 2),
    ("/bomb4/etc", "/etc", 31),
    ("/", "/", 0),
    ("//", "/", 0),
    (".", "/", 0),
    ("/..", "/", 0),
    ("/a/../../..", "/", 0),
    ("/root", "/", 1),
    ("/root-dot/..", "/", 1),
    ("/root-above", "/", 1),
]

MISSING = [
    ("/new", "/new", 0, ["new"]),
    ("/new/", "/new", 0, ["new"]),
    ("/etc/new/deep/er", "/etc/new/deep/er", 0, ["new", "deep", "er"]),
    ("/new/deep/../other", "/new/other", 0, ["new", "other"]),
    ("/new/../../other", "/other", 0, ["other"]),
    ("/missing/../etc/x", "/etc/x", 0, []),
    ("/missing/..", "/", 0, []),
    ("/missing/../absolute/new", "/real/new", 1, ["new"]),
    ("/dangling", "/absent/place", 1, ["absent", "place"]),
    ("/dangling/in", "/absent/place/in", 1, ["absent", "place", "in"]),
    ("/dangling/../in", "/absent/in", 1, ["absent", "in"]),
    ("/a/dangling", "/a/c/d", 1, ["c", "d"]),
    ("/absent-and-back/conf", "/real/conf", 1, []),
    (f"/new/{LONG}", f"/new/{LONG}", 0, ["new", LONG]),
    ("", "/", 0, []),
]

LOOPS = ["/self", "/self/..", "/two", "/two/x", "/a/self", "/hop1", "/hop1/x", "/chain41", "/chain40/../to-file"]
REFUSED = [
    *((name, errno.ELOOP, "leads through more than 40 links") for name in (*LOOPS, "/bomb5", "/bomb30", "/bomb30/..")),
    ("/file/", errno.ENOTDIR, "/file is not a folder"),
    ("/file/.", errno.ENOTDIR, "/file is not a folder"),
    ("/file/..", errno.ENOTDIR, "/file is not a folder"),
    ("/etc/passwd/x", errno.ENOTDIR, "/etc/passwd is not a folder"),
    ("/file-slash", errno.ENOTDIR, "/file is not a folder"),
    ("/to-file/", errno.ENOTDIR, "/file is not a folder; the link /to-file leads there"),
    ("/to-file/../etc", errno.ENOTDIR, "/file is not a folder; the link /to-file leads there"),
    (f"/{LONG}n", errno.ENAMETOOLONG, "is longer than 255 bytes"),
    (f"/etc/{LONG[1:]}\xe9", errno.ENAMETOOLONG, "is longer than 255 bytes"),
]


def kernel(rootfs: Rootfs, destination: str, flags: int = 0) -> int:
    """What the kernel finds at ``destination`` inside the root, an fd. OSError."""
    resolve = linux.RESOLVE_IN_ROOT | linux.RESOLVE_NO_MAGICLINKS
    while True:
        try:
            return linux.openat2(rootfs.fd, destination, flags=os.O_PATH | flags, resolve=resolve)
        except BlockingIOError:
            pass  # somebody on this machine renamed or mounted something: openat2(2) asks to try again


def same(one: int, two: int) -> bool:
    first, second = files.statx(one), files.statx(two)
    return (first.mnt_id, first.dev, first.ino) == (second.mnt_id, second.dev, second.ino)


def held(target: Target) -> int:
    assert target.anchor.fd is not None
    return target.anchor.fd


def outcome(target: Target) -> tuple[str, int, list[str]]:
    return target.path, len(target.links), [step.name for step in target.missing]


@pytest.mark.parametrize(("destination", "path", "links"), FOUND, ids=[repr(row[0])[:30] for row in FOUND])
def test_what_exists_is_what_the_kernel_finds(golden: Rootfs, destination: str, path: str, links: int) -> None:
    target = golden.resolve(destination)
    assert outcome(target) == (path, links, [])
    assert same(held(target), kernel(golden, destination))


@pytest.mark.parametrize(
    ("destination", "path", "links", "missing"), MISSING, ids=[repr(row[0])[:30] for row in MISSING]
)
def test_what_is_missing_is_named(golden: Rootfs, destination: str, path: str, links: int, missing: list[str]) -> None:
    target = golden.resolve(destination)
    assert outcome(target) == (path, links, missing)
    with pytest.raises(FileNotFoundError):
        kernel(golden, destination)


@pytest.mark.parametrize(("destination", "number", "problem"), REFUSED, ids=[repr(row[0])[:30] for row in REFUSED])
def test_what_leads_nowhere_is_refused_as_by_the_kernel(
    golden: Rootfs, destination: str, number: int, problem: str
) -> None:
    with pytest.raises(RequestError, match=problem):
        golden.resolve(destination)
    with pytest.raises(OSError, match=os.strerror(number)) as refused:
        kernel(golden, destination)
    assert refused.value.errno == number


def kernel_elsewhere(rootfs: Rootfs, destinations: list[str]) -> list[tuple[int, int, int]]:
    """What the kernel finds, device and inode, or its errno: asked by another process, before it has to be older."""
    with tempfile.TemporaryFile() as answers:
        child = os.fork()
        if child == 0:
            try:
                answers.write(pickle.dumps([_answer(rootfs, destination) for destination in destinations]))
                answers.flush()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        answers.seek(0)
        found: list[tuple[int, int, int]] = pickle.load(answers)
    return found


def _answer(rootfs: Rootfs, destination: str) -> tuple[int, int, int]:
    try:
        fd = kernel(rootfs, destination)
    except OSError as reason:
        return 0, 0, reason.errno or -1
    status = os.fstat(fd)
    os.close(fd)
    return status.st_dev, status.st_ino, 0


# Each alone and all together: what a walk does without it.
LACKING = [("statx",), ("openat2",), ("statmount",), tuple(kernels.NUMBERS)]


@pytest.mark.parametrize("calls", LACKING, ids="+".join)
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM], ids=["ENOSYS", "EPERM"])
def test_without_newer_calls_the_answers_are_the_kernels_too(
    golden: Rootfs, calls: tuple[str, ...], error: int
) -> None:
    destinations = [row[0] for table in (FOUND, MISSING, REFUSED) for row in table]
    expected = kernel_elsewhere(golden, destinations)
    kernels.refuse(*calls, error=error)
    rootfs = Rootfs(golden.path)
    for row in FOUND:
        target = rootfs.resolve(row[0])
        status = os.fstat(held(target))
        assert outcome(target) == (*row[1:], [])
        assert (status.st_dev, status.st_ino, 0) == expected[destinations.index(row[0])], row
    for missing in MISSING:
        assert outcome(rootfs.resolve(missing[0])) == missing[1:]
        assert expected[destinations.index(missing[0])][2] == errno.ENOENT
    for destination, number, problem in REFUSED:
        with pytest.raises(RequestError, match=problem):
            rootfs.resolve(destination)
        assert expected[destinations.index(destination)][2] == number


# destination, where it leads if the last link is not followed, and what that is.
NOT_FOLLOWED = [
    ("/absolute", "/absolute", "l"),
    ("/a/climbing", "/a/climbing", "l"),
    ("/lx/../../absolute", "/absolute", "l"),
    ("/absolute/../relative", "/relative", "l"),
    ("/dangling", "/dangling", "l"),
    ("/to-file", "/to-file", "l"),
    ("/absolute/", "/real", "d"),
    ("/absolute/.", "/real", "d"),
    ("/absolute/conf", "/real/conf", "d"),
    ("/root/etc", "/etc", "d"),
    ("/etc/passwd", "/etc/passwd", "-"),
]


@pytest.mark.parametrize(("destination", "path", "kind"), NOT_FOLLOWED, ids=[row[0] for row in NOT_FOLLOWED])
def test_the_last_link_is_not_followed_where_that_is_asked(
    golden: Rootfs, destination: str, path: str, kind: str
) -> None:
    target = golden.resolve(destination, nofollow=True)
    assert (target.path, target.missing, target.last.is_link) == (path, [], kind == "l")
    assert same(held(target), kernel(golden, destination, os.O_NOFOLLOW))


def test_links_are_told_where_they_stand_and_as_they_are_written(golden: Rootfs) -> None:
    target = golden.resolve("/a/../climbing/../lx/../../dangling")
    assert target.links == [("/climbing", "../../../../real"), ("/lx", "etc/x"), ("/dangling", "/absent/place")]


@pytest.mark.parametrize(
    ("destination", "as_folder"),
    [("/etc", False), ("/etc/", True), ("/etc/.", True), ("/etc/..", True), ("/folder-slash", True), ("/new/", True)],
)
def test_a_trailing_slash_asks_for_a_folder(golden: Rootfs, destination: str, as_folder: bool) -> None:
    assert golden.resolve(destination).as_folder is as_folder


def test_a_path_may_be_longer_than_the_kernel_takes_but_not_without_end(golden: Rootfs) -> None:
    deep = "/d" * 2048
    assert len(golden.resolve(deep).missing) == 2048
    assert golden.resolve(deep + "/.." * 3000 + "/etc").path == "/etc"
    assert golden.resolve("/absolute" + "/.." + deep).path == deep
    for longer in (deep + "/d", "/dd" + "/d" * 2047, "/é" + "/d" * 2047):
        with pytest.raises(RequestError, match=r"to a path of more than 4096 bytes$"):
            golden.resolve(longer)


def test_names_pile_up_over_many_links_only_so_far(tmp_path: Path) -> None:
    tail = "/a" * 2000
    tree: Tree = {f"l{n}": f"l{n + 1}{tail}" for n in range(39)}
    rootfs = Rootfs(plant(tmp_path / "rootfs", tree))
    with pytest.raises(RequestError, match=r"^/l0 leads to a path of more than 4096 bytes; the link /l\d+ leads there"):
        rootfs.resolve("/l0")


# -- any tree --------------------------------------------------------------------------------------------------------

NAMES = ("a", "b", "c", "d")
WORDS = some.sampled_from((*NAMES, *NAMES, "..", ".", ""))
PATHS = some.builds(
    lambda absolute, words: ("/" if absolute else "") + "/".join(words),
    some.booleans(),
    some.lists(WORDS, min_size=1, max_size=6),
)
LEAVES = some.one_of(some.just(b""), PATHS.filter(bool))
TREES = some.recursive(
    some.dictionaries(some.sampled_from(NAMES), LEAVES, max_size=4),
    lambda trees: some.dictionaries(some.sampled_from(NAMES), some.one_of(LEAVES, trees), max_size=4),
    max_leaves=12,
)


@examples(400)
@given(tree=TREES, destinations=some.lists(PATHS, min_size=1, max_size=8))
@example(tree={"a": "b/../..", "b": {"c": "/a/d", "d": "../../d"}, "d": b""}, destinations=["/b/c", "a/b/d/", "b/d"])
def test_in_any_tree_the_answer_is_the_kernels_and_inside(tree: Tree, destinations: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rootfs = Rootfs(plant(f"{folder}/rootfs", tree))
        for destination in destinations:
            compare(rootfs, destination)
        os.close(rootfs.fd)


@pytest.mark.parametrize("calls", [("statx",), tuple(kernels.NUMBERS)], ids=["without statx", "without any"])
def test_in_any_tree_an_older_kernel_gives_the_same_answers(calls: tuple[str, ...]) -> None:
    """Another process, which was there before, plants the trees and asks the kernel."""
    orders, order = os.pipe()
    answers, answer = os.pipe()
    oracle = os.fork()
    if oracle == 0:
        os.close(order)
        try:
            _answer_orders(orders, answer)
        finally:
            os._exit(0)
    kernels.refuse(*calls)

    @examples(150)
    @given(tree=TREES, destinations=some.lists(PATHS, min_size=1, max_size=8))
    @example(tree={"a": "b/../..", "b": {"c": "/a/d", "d": "../../d"}, "d": b""}, destinations=["/b/c", "b/d"])
    @example(tree={"a": "a", "b": "c", "c": "/b"}, destinations=["a", "b/..", "/c/"])
    def same_answers(tree: Tree, destinations: list[str]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            rootfs = Rootfs(plant(f"{folder}/rootfs", tree))
            os.write(order, json.dumps([rootfs.path, destinations]).encode() + b"\n")
            expected = json.loads(os.read(answers, 1 << 16))
            for destination, (dev, ino, number) in zip(destinations, expected, strict=True):
                try:
                    target = rootfs.resolve(destination)
                except RequestError:
                    assert number in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)
                    continue
                assert number in (0, errno.ENOENT)
                status = os.fstat(held(target))
                inside = os.readlink(f"/proc/self/fd/{held(target)}")
                assert (inside + "/").startswith(rootfs.path + "/")
                if number == 0:
                    assert (status.st_dev, status.st_ino, target.missing) == (dev, ino, [])
                target.close()
            os.close(rootfs.fd)

    same_answers()
    os.close(order)
    os.waitpid(oracle, 0)


def _answer_orders(orders: int, answer: int) -> None:
    with open(orders, encoding="utf-8") as lines:
        for line in lines:
            path, destinations = json.loads(line)
            rootfs = Rootfs(path)
            os.write(answer, json.dumps([_answer(rootfs, destination) for destination in destinations]).encode())
            os.close(rootfs.fd)


def compare(rootfs: Rootfs, destination: str) -> None:
    try:
        expected = kernel(rootfs, destination)
    except OSError as reason:
        expected, number = -1, reason.errno
    else:
        number = 0
    try:
        target = rootfs.resolve(destination)
    except RequestError:
        # A name steps back over what is missing, and may find there what the kernel never comes to.
        assert number in (errno.ELOOP, errno.ENOTDIR, errno.ENOENT)
        return
    inside = os.readlink(f"/proc/self/fd/{held(target)}")
    assert (inside + "/").startswith(rootfs.path + "/")
    assert number in (0, errno.ENOENT)
    if number == 0:
        assert target.missing == []
        assert same(held(target), expected)
        assert inside == (rootfs.path + target.path).rstrip("/")
        os.close(expected)
    if len(target.steps) - len(target.missing) > 1:
        os.close(held(target))


# -- procfs, sysfs and what may not be covered -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "destination",
    ["root", "root/etc", "cwd", "cwd/..", "exe", "fd/0", "fd/0/x", "ns/mnt", "../../to-proc/etc", "task/../root"],
)
def test_a_magic_link_is_never_followed(with_proc: Rootfs, destination: str) -> None:
    destination = f"/proc/self/{destination}"
    with pytest.raises(EscapeError, match="is a magic link of procfs"):
        with_proc.resolve(destination)
    with pytest.raises(OSError, match="symbolic links") as refused:
        kernel(with_proc, destination)
    assert refused.value.errno == errno.ELOOP


@pytest.mark.parametrize("destination", ["/proc/self", "/proc/mounts", "/proc/thread-self/fd", "/elsewhere/self/fd/.."])
def test_an_ordinary_link_of_procfs_is_followed(with_proc: Rootfs, destination: str) -> None:
    target = with_proc.resolve(destination)
    assert target.path.startswith((f"/proc/{os.getpid()}", f"/elsewhere/{os.getpid()}"))
    assert same(held(target), kernel(with_proc, destination))


# -- the handle --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["absent", "a-file", "to-file"])
def test_a_rootfs_must_be_a_folder(tmp_path: Path, path: str) -> None:
    plant(tmp_path, {"a-file": b"", "to-file": "a-file"})
    with pytest.raises(MissingError, match=r"the rootfs .* cannot be opened"):
        Rootfs(f"{tmp_path}/{path}")


def test_the_hosts_root_is_no_rootfs(tmp_path: Path) -> None:
    plant(tmp_path, {"link": "/"})
    for path in ("/", "/..", f"{tmp_path}/link"):
        with pytest.raises(EscapeError, match="is the root folder of the host"):
            Rootfs(path)


DESTINATIONS = [row[0] for table in (FOUND, MISSING, REFUSED) for row in table]


def test_no_walk_leaks_an_fd(with_proc: Rootfs) -> None:
    for destination in (*DESTINATIONS, "/proc/self/root/x", "/proc/self/fd", "/proc/nothing/x", "/elsewhere/.."):
        before = fds()
        try:
            target = with_proc.resolve(destination)
        except HookError:
            assert fds() == before, destination
            continue
        if target.anchor is not target.steps[0]:
            # The last that exists is held on purpose.
            target.anchor.close()
        assert fds() == before, destination


def test_a_folder_that_may_not_be_searched_is_an_error_that_names_it(bench: Bench) -> None:
    os.chmod(bench.inside("/etc"), 0)
    os.chmod(bench.path, 0o755)
    rootfs = Rootfs(bench.rootfs)
    before = fds()
    os.seteuid(65534)
    with pytest.raises(KernelError, match="openat /etc/passwd: Permission denied"):
        rootfs.resolve("/etc/passwd")
    os.seteuid(0)
    assert fds() == before
