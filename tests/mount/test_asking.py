# SPDX-License-Identifier: Apache-2.0
"""A child asks, and the parent waits no longer than it wants to."""

from __future__ import annotations

import errno
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from helpers import mounting
from helpers.fuse import KINDS, Fuse
from oci_bind_hook.kernel import asking, files, linux
from oci_bind_hook.kernel.proc import Proc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SHORT = 0.2  # for what certainly does not come


def test_the_answer_comes_back() -> None:
    told = [1, "text \udcff", None, {"a": [True, 2.5]}, "long " * 100_000]
    outcome = asking.ask(lambda: told)
    assert (outcome.answer, outcome.error, outcome.is_silent, outcome.left) == (told, None, False, None)


def test_an_error_comes_back_with_what_it_says(tmp_path: Path) -> None:
    outcome = asking.ask(lambda: os.listdir(tmp_path / "absent"))
    assert outcome.answer is None
    assert isinstance(outcome.error, FileNotFoundError)
    assert (outcome.error.errno, outcome.error.filename) == (errno.ENOENT, f"{tmp_path}/absent")
    assert (outcome.is_silent, outcome.left) == (False, None)


def test_a_bug_is_no_answer() -> None:
    with pytest.raises(RuntimeError, match=r"^ValueError: invalid literal"):
        asking.ask(lambda: int("x"))


def test_the_child_holds_what_it_is_given_and_nothing_else(tmp_path: Path) -> None:
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    given = os.open(tmp_path, os.O_PATH)

    def held() -> list[tuple[int, str]]:
        return [(int(fd), os.readlink(f"/proc/self/fd/{fd}")) for fd in sorted(mounting.fds(), key=int)]

    found = asking.ask(held, fds=[given]).answer
    assert [link for fd, link in found if fd < 3] == ["/dev/null"] * 3
    assert [link for fd, link in found if fd > 2 and "answer" not in link and link != "/dev/null"] == [str(tmp_path)]
    os.close(lock)


def test_of_whom_somebody_kills_nothing_is_known() -> None:
    outcome = asking.ask(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert (outcome.answer, outcome.is_silent, outcome.left) == (None, True, None)


def test_who_can_be_killed_is_not_left_behind() -> None:
    start = time.monotonic()
    outcome = asking.ask(signal.pause, SHORT)
    assert SHORT <= time.monotonic() - start
    assert outcome.is_silent
    if outcome.left is not None:  # on a very slow machine
        os.waitpid(outcome.left, 0)
    with pytest.raises(ChildProcessError):
        os.wait()


def test_it_is_waited_for_longer_as_long_as_that_is_wanted() -> None:
    read, write = os.pipe()
    asked: list[int] = []

    def goes_on(_: int) -> bool:
        asked.append(1)
        if len(asked) == 2:
            os.write(write, b".")
        return True

    assert asking.ask(lambda: len(os.read(read, 9)), 0.05, fds=[read], goes_on=goes_on).answer == 1
    assert len(asked) >= 2
    left = [True, True, False]
    outcome = asking.ask(signal.pause, 0.01, goes_on=lambda _: left.pop(0))
    assert (outcome.is_silent, left) == (True, [])
    if outcome.left is not None:  # on a very slow machine
        os.waitpid(outcome.left, 0)
    os.close(read)
    os.close(write)


def test_who_cannot_be_killed_is_left_behind_and_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Fuse(str(tmp_path / "fuse")) as fuse:
        fuse.silence("GETATTR")
        fuse.hurry(monkeypatch)
        outcome = asking.ask(lambda: os.stat(fuse.path).st_size)
        assert outcome.is_silent
        assert outcome.left is not None
        assert os.waitpid(outcome.left, os.WNOHANG) == (0, 0)
        fuse.end()
        assert os.waitpid(outcome.left, 0) == (outcome.left, signal.SIGKILL)


def test_who_ignores_children_is_told_the_answer() -> None:
    """As a runtime may have started the hook."""

    def deaf() -> None:
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        for number in range(20):
            assert asking.ask(lambda number=number: number).answer == number  # type: ignore[misc]

    assert mounting.ended_well(mounting.forked(deaf))


def test_nobody_asks_after_imports_were_sealed() -> None:
    def sealed() -> None:
        linux.seal_imports()
        with pytest.raises(AssertionError):
            asking.ask(lambda: 1)

    assert mounting.ended_well(mounting.forked(sealed))


# What is known of the root of a mount without a word from who serves it.
QUIET: dict[str, Callable[[int], object]] = {
    "the id": files.mount_id,
    "the unique id": files.unique_mount_id,
    "what it is": lambda fd: files.statx(fd, ask=False),
    "where it is": lambda fd: os.readlink(f"/proc/self/fd/{fd}"),
    "a clone": lambda fd: linux.open_tree(fd, clone=True, recursive=True),
    "attributes": lambda fd: linux.mount_setattr(
        linux.open_tree(fd, clone=True), recursive=True, attr_set=linux.MOUNT_ATTR_RDONLY, propagation=linux.MS_PRIVATE
    ),
    "detaching": lambda fd: Proc().umount(fd),
}


@pytest.mark.kernel(5, 12)
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_known_without_asking(tmp_path: Path, kind: str) -> None:
    with Fuse(str(tmp_path / "fuse")) as fuse:
        fuse.silence(kind)
        for name, look in QUIET.items():

            def question(look: Callable[[int], object] = look) -> None:
                look(os.open(fuse.path, os.O_PATH | os.O_NOFOLLOW))

            outcome = asking.ask(question, 10)
            assert (outcome.is_silent, outcome.error) == (False, None), name
        assert fuse.asked() == {}


def test_the_id_alone_is_the_same_id(tmp_path: Path, kernel: str) -> None:
    del kernel
    for path in ("/", "/proc", os.fspath(tmp_path), mounting.tmpfs(f"{tmp_path}/mount")):
        fd = os.open(path, os.O_PATH)
        assert files.mount_id(fd) == files.statx(fd).mnt_id == mounting_id(fd)


def mounting_id(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
