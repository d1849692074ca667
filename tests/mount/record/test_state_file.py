# SPDX-License-Identifier: Apache-2.0
"""Which containers live still, as their state files tell, and that state files of every version can be read."""

from __future__ import annotations

import ctypes
import json
import os
import platform
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers.mounting import ended_well, forked, mount, named
from oci_bind_hook.kernel.proc import Proc, boot_id
from oci_bind_hook.lifecycle.claims import Claims
from oci_bind_hook.lifecycle.witness import Witness
from oci_bind_hook.record import document
from oci_bind_hook.record.state_file import is_live, is_of_another_user

if TYPE_CHECKING:
    from oci_bind_hook.record.state_file import Record


def process() -> int:
    """A process that lives until it is killed."""
    return forked(signal.pause)


def without_first_thread() -> int:
    """A process that lives by its second thread alone, until it is killed."""

    def act() -> None:
        threading.Thread(target=signal.pause).start()
        # pthread_exit(3) would end more than the thread, with Python's help.
        ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)

    pid = forked(act)
    while " (zombie)" not in Path(f"/proc/{pid}/status").read_text():
        os.sched_yield()
    return pid


def init(pid: int, start: int | None, first: int | None = None) -> dict[str, int | None]:
    return {"pid": pid, "start": start, "first": first}


def test_a_container_lives_as_long_as_its_first_process_in_the_same_boot(record: Record) -> None:
    proc, boot = Proc(), boot_id()
    living, zombie, reaped, threads = process(), process(), process(), without_first_thread()
    start = {pid: proc.start_time(pid) for pid in (living, zombie, reaped, threads)}
    for pid in (zombie, reaped):
        os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    os.waitpid(reaped, 0)
    records = {
        "living": named(record, "c2", init=init(living, start[living])),
        "thread": named(record, "c2", init=init(threads, start[threads])),
        "without-init": named(record, "c2"),
        "zombie": named(record, "c2", init=init(zombie, start[zombie])),
        "reaped": named(record, "c2", init=init(reaped, start[reaped])),
        "same-pid-again": named(record, "c2", init=init(living, 1)),
        "reaped-here": named(record, "c2", init=init(reaped, start[reaped], proc.first_start())),
        "reaped-elsewhere": named(record, "c2", init=init(reaped, start[reaped], -1)),
        "other-boot": named(record, "c2", boot="0" * 8 + "-0000" * 3 + "-" + "0" * 12),
    }
    unseen = ["without-init", "reaped-elsewhere"]
    assert [name for name, one in records.items() if is_live(one, proc, boot)] == ["living", "thread", *unseen]
    for pid in (living, threads):
        os.kill(pid, signal.SIGKILL)
        assert ended_well(pid) is False
    assert [name for name, one in records.items() if is_live(one, proc, boot)] == unseen


@pytest.mark.parametrize("hide", ["noaccess", "invisible"])
def test_where_process_1_is_hidden_a_pid_namespace_is_as_good_as_another(hide: str) -> None:
    assert Proc().first_start() is not None
    mount("proc", "/proc", "proc", data=f"hidepid={hide}")

    def ask() -> None:
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        assert Proc().first_start() is None

    assert ended_well(forked(ask))


@pytest.mark.parametrize("hide", ["noaccess", "invisible"])
def test_a_first_process_that_is_hidden_may_live(record: Record, hide: str) -> None:
    """As one of a subordinate uid is, where an ordinary user calls gc: what it does not show was taken for ended."""
    living, reaped = process(), process()
    os.kill(reaped, signal.SIGKILL)
    os.waitpid(reaped, 0)
    mount("proc", "/proc", "proc", data=f"hidepid={hide}")

    def ask() -> None:
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        proc, boot = Proc(), boot_id()
        lives = {pid: named(record, "c2", boot=boot, init=init(pid, 1)) for pid in (living, reaped)}
        assert [is_live(one, proc, boot) for one in lives.values()] == [True, False]
        judged = [Witness(proc, Claims(lambda: ([], []), proc)).judge(one) for one in lives.values()]
        assert [life for life, _ in judged] == ["unknown", "dead"]
        assert f"procfs hides process {living}" in judged[0][1]
        assert [proc.has_ended(pid, 1, 0) for pid in lives] == [False, True]

    assert ended_well(forked(ask))
    os.kill(living, signal.SIGKILL)


WRITTEN = Path(__file__).resolve().parents[2] / "data/state-files"


@pytest.mark.parametrize("path", sorted(WRITTEN.iterdir()), ids=lambda path: path.stem)
def test_what_an_earlier_version_wrote_can_be_read(path: Path) -> None:
    """Each version of the state file has one here that was written by a real run, and stays."""
    assert json.loads(path.read_bytes())["version"] == int(path.stem)
    record = document.read(path.read_bytes(), str(path))
    assert [mount["resolved"] for mount in record["mounts"]] == ["/conf", "/etc/new/deep", "/file"]
    assert [made["path"] for made in record["made"]] == ["/conf", "/etc/new", "/etc/new/deep", "/file"]


def test_what_root_of_podman_made_is_not_an_ordinary_users_in_version_1_either() -> None:
    """It has no user namespace: outside of podman's gc took what it made for a stranger's, and forgot it."""
    old = document.read((WRITTEN / "1.json").read_bytes(), "1.json")
    here = Proc().user_namespace()
    assert old["user"]["uids"] == []
    assert not is_of_another_user(old, here)
    assert {made["identity"]["uid"] for made in old["made"] if made["identity"]} == {0}

    def ask() -> None:
        os.setresuid(1000, 1000, 1000)
        assert is_of_another_user(old, here)
        for made in old["made"]:
            if made["identity"] is not None:
                made["identity"]["uid"] = 1000
        assert not is_of_another_user(old, here)

    assert ended_well(forked(ask))
