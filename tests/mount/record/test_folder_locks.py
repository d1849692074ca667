# SPDX-License-Identifier: Apache-2.0
"""Locks between processes: who holds one is alone, and whoever was killed holds none."""

from __future__ import annotations

import errno
import os
import posix
import signal
import stat
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.mounting import ended_well, fds, forked, tmpfs
from oci_bind_hook.errors import RecordError
from oci_bind_hook.record.folder import StateFolder
from oci_bind_hook.record.indexes import Indexes
from oci_bind_hook.record.lock import Index
from oci_bind_hook.rootfs.identity import keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from oci_bind_hook.record.held import HeldRootfs
    from oci_bind_hook.record.lock import Lock
    from oci_bind_hook.record.state_file import Record


@pytest.mark.parametrize("kind", ["id", "rootfs"])
def test_who_holds_a_lock_is_alone(folder: StateFolder, path: str, record: Record, tmp_path: Path, kind: str) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    at = record["rootfs"]

    def count() -> None:
        for _ in range(60):
            with folder.lock_id("c1") if kind == "id" else folder.lock_rootfs(at):
                number = int(counter.read_text())
                os.sched_yield()
                counter.write_text(str(number + 1))

    children = [forked(count) for _ in range(4)]
    assert [ended_well(child) for child in children] == [True] * 4
    assert counter.read_text() == "240"
    assert os.listdir(path) == []


@pytest.mark.parametrize("kind", ["id", "rootfs"])
def test_a_lock_that_could_not_be_looked_at_is_not_held(
    folder: StateFolder, record: Record, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def take() -> Lock | HeldRootfs:
        return folder.lock_id("c1", wait=False) if kind == "id" else folder.lock_rootfs(record["rootfs"], wait=False)

    def fstat(_: int) -> os.stat_result:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = fds()
    with monkeypatch.context() as patched:
        patched.setattr(posix, "fstat", fstat)
        with pytest.raises(RecordError, match="cannot be locked: Input/output error"):
            take()
    with take():
        pass
    assert len(fds()) <= len(before) + 1  # the folder of the lists


def hold(folder: StateFolder) -> tuple[int, int]:
    """A child that holds the lock of "c1" until it reads a byte; its pid, and where to write the byte."""
    told, tell = os.pipe()
    ask, answer = os.pipe()

    def holder() -> None:
        with folder.lock_id("c1"):
            os.write(tell, b"!")
            os.read(ask, 1)

    child = forked(holder)
    assert os.read(told, 1) == b"!"
    return child, answer


def test_who_has_waited_for_a_lock_that_is_gone_takes_the_one_that_is_there(folder: StateFolder, path: str) -> None:
    first, go = hold(folder)
    # Kept open, so that its number is not given to the next one.
    old = os.open(f"{path}/c1.lock", os.O_RDONLY)
    told, tell = os.pipe()

    def wait() -> None:
        with folder.lock_id("c1"):
            os.write(tell, str(os.stat(f"{path}/c1.lock").st_ino).encode())

    second = forked(wait)
    support.await_flock(second)
    os.write(go, b"!")
    assert ended_well(first)
    assert ended_well(second)
    assert int(os.read(told, 100)) != os.fstat(old).st_ino
    assert os.fstat(old).st_nlink == 0
    assert os.listdir(path) == []


def test_who_does_not_want_to_wait_is_told(folder: StateFolder, path: str) -> None:
    child, go = hold(folder)
    held = fds()
    with pytest.raises(RecordError, match=r"c1\.lock cannot be locked") as refused:
        folder.lock_id("c1", wait=False)
    assert isinstance(refused.value.__cause__, BlockingIOError)
    assert (folder.is_locked("c1"), folder.is_locked("c2"), fds()) == (True, False, held)
    os.write(go, b"!")
    assert ended_well(child)
    assert not folder.is_locked("c1")
    with folder.lock_id("c1", wait=False):
        assert os.listdir(path) == ["c1.lock"]
    assert os.listdir(path) == []


def test_who_waits_for_a_stopped_holder_is_told_who_that_is(
    folder: StateFolder, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("oci_bind_hook.record.folder.LOCK_SECONDS", 0.05)
    child, go = hold(folder)
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED)
    held, handler = fds(), signal.getsignal(signal.SIGALRM)
    deadline = signal.getitimer(signal.ITIMER_REAL)[0]  # of the test itself
    with pytest.raises(RecordError) as refused:
        folder.lock_id("c1")
    said = f"{path}/c1.lock cannot be locked: process {child} has kept it locked for over 0 seconds"
    assert refused.value.problem == said
    assert (refused.value.exit_code, fds(), signal.getsignal(signal.SIGALRM)) == (os.EX_IOERR, held, handler)
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= deadline
    os.kill(child, signal.SIGCONT)
    os.write(go, b"!")
    assert ended_well(child)
    with folder.lock_id("c1"):
        pass


def test_who_waits_while_others_take_turns_is_not_told_to_kill_one(
    folder: StateFolder, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a crowd the last of them has held it for a moment only."""
    monkeypatch.setattr("oci_bind_hook.record.folder.LOCK_SECONDS", 0.05)
    child, go = hold(folder)
    turns = iter([child + 1, child])
    monkeypatch.setattr("oci_bind_hook.kernel.locks._holder", lambda _: next(turns))
    with pytest.raises(RecordError) as refused:
        folder.lock_id("c1")
    assert (
        refused.value.problem
        == f"{path}/c1.lock cannot be locked: other processes have kept it locked in turn for over 0 seconds"
    )
    assert "kill" not in refused.value.hint
    os.write(go, b"!")
    assert ended_well(child)


def test_all_names_of_a_rootfs_are_waited_for_no_longer_than_one(
    folder: StateFolder, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rootfs is locked by its numbers and by its path, an overlay by those of its upper folder."""
    seen: list[float] = []
    real = Indexes.lock

    def lock(self: Indexes, key: str, seconds: float) -> Index:
        seen.append(seconds)
        index = real(self, key, seconds)
        index.seconds_left -= 3
        return index

    monkeypatch.setattr(Indexes, "lock", lock)
    first = record["rootfs"]
    with folder.lock_rootfs(first, {**first, "ino": first["ino"] + 1}):
        assert seen == [10, 7, 4]


def test_who_waits_long_enough_has_the_lock(folder: StateFolder, path: str) -> None:
    """Though signals come all the time, and SIGALRM was blocked."""
    first, go = hold(folder)

    def wait() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM])
        signal.signal(signal.SIGUSR1, lambda *_: None)
        with folder.lock_id("c1"):
            pass

    second = forked(wait)
    support.await_flock(second)
    for _ in range(5):
        os.kill(second, signal.SIGUSR1)
        support.await_flock(second)
    os.write(go, b"!")
    assert ended_well(first)
    assert ended_well(second)
    assert os.listdir(path) == []


def test_what_a_killed_holder_has_left_is_taken_over(folder: StateFolder, path: str) -> None:
    first, _ = hold(folder)
    second = forked(lambda: folder.lock_id("c1").__exit__())
    support.await_flock(second)
    os.kill(first, signal.SIGKILL)
    assert not ended_well(first)
    assert ended_well(second)
    assert os.listdir(path) == []


def test_locks_of_different_things_do_not_wait_for_each_other(folder: StateFolder, path: str, record: Record) -> None:
    at = record["rootfs"]
    locks = keys(at)
    assert f"{at['dev']}:{at['ino']}" in locks
    with folder.lock_id("c1"), folder.lock_id("c2"), folder.lock_rootfs(at):
        assert sorted(os.listdir(path)) == ["c1.lock", "c2.lock", "rootfs"]
        assert {*os.listdir(f"{path}/rootfs")} == locks
        files = [f"{path}/c1.lock", *(f"{path}/rootfs/{name}" for name in locks)]
        assert {stat.S_IMODE(os.stat(file).st_mode) for file in files} == {0o600}
    assert os.listdir(path) == []


@pytest.mark.parametrize("plant", [os.mkdir, lambda name: os.symlink("victim", name)], ids=["folder", "link"])
def test_what_is_no_lock_file_is_an_error(folder: StateFolder, path: str, plant: Callable[[str], object]) -> None:
    plant(f"{path}/c1.lock")
    with pytest.raises(RecordError, match=r"/state/c1\.lock cannot be locked"):
        folder.lock_id("c1")
    assert os.listdir(path) == ["c1.lock"]


def test_sweeping_takes_only_locks_that_nobody_holds(folder: StateFolder, path: str) -> None:
    os.mkdir(f"{path}/rootfs")
    for name in ("c1.json", "c3.lock", "rootfs/1:2"):
        with open(f"{path}/{name}", "w", encoding="utf-8"):
            pass
    with folder.lock_id("c2"):
        assert ended_well(forked(folder.sweep))
        assert sorted(os.listdir(path)) == ["c1.json", "c2.lock", "rootfs"]
        assert ended_well(forked(lambda: folder.sweep(indexes=True)))
        assert sorted(os.listdir(path)) == ["c1.json", "c2.lock"]


def test_an_id_of_which_a_full_disk_takes_only_a_part_is_an_error(tmp_path: Path) -> None:
    """The container would be in no list, and a neighbour that ends would cut its binds."""
    fd = os.open(tmpfs(f"{tmp_path}/small", "size=4096"), os.O_RDONLY)
    ids = "".join(f"{number:0>199}\n" for number in range(20)) + "c" * 89 + "\n"
    (tmp_path / "small/1:2").write_text(ids)
    index = Index(fd, "1:2", 0)
    with pytest.raises(OSError, match="No space left on device"):
        index.add("d" * 20)
    index.discard("d" * 20)
    index.release()
    assert (tmp_path / "small/1:2").read_text() == ids
    os.close(fd)


def test_a_list_of_containers_is_swept_when_none_of_them_has_a_record(folder: StateFolder, path: str) -> None:
    os.mkdir(f"{path}/rootfs")
    with open(f"{path}/rootfs/1:2", "w", encoding="utf-8") as file:
        file.write("\nc1\n\nc2\n\nc")
    with open(f"{path}/c2.json", "w", encoding="utf-8"):
        pass
    folder.sweep(indexes=True)
    with open(f"{path}/rootfs/1:2", encoding="utf-8") as file:
        assert file.read() == "c2\n"
    os.unlink(f"{path}/c2.json")
    folder.sweep(indexes=True)
    assert os.listdir(path) == []
