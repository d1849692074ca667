# SPDX-License-Identifier: Apache-2.0
"""The process that a hook is to enter, where it is not to be seen or has ended."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import prctl
import pytest

from helpers.mounting import ended_well, forked, mount
from oci_bind_hook.documents.oci import State
from oci_bind_hook.errors import UnavailableError
from oci_bind_hook.kernel.proc import Proc
from oci_bind_hook.lifecycle.stage import Place

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def process() -> Iterator[int]:
    pid = forked(signal.pause)
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def refused(pid: int) -> UnavailableError:
    """What is said where the state names ``pid``."""
    state = State({"ociVersion": "1.0.2", "id": "c1", "status": "created", "bundle": "/b", "pid": pid})
    place = Place("createRuntime", state, Proc())
    bundle: Any = None  # nothing of it is read before the process is opened
    with pytest.raises(UnavailableError) as told:
        place.choose(bundle)
    return told.value


@pytest.mark.parametrize("hide", ["noaccess", "invisible"])
def test_a_process_that_procfs_hides_is_not_said_to_have_ended(process: int, hide: str) -> None:
    mount("proc", "/proc", "proc", data=f"hidepid={hide}")

    def ask() -> None:
        os.setgroups([])
        os.setresgid(1000, 1000, 1000)
        os.setresuid(1000, 1000, 1000)
        # As a process is that this user has started: before Linux 5.14 it could not read its own fdinfo otherwise.
        prctl.set_dumpable(1)
        said = f"/proc hides the container's process {process} from this user, as with hidepid"
        assert str(refused(process)) == f"{said} (mount /proc without hidepid where the runtime runs)"

    assert ended_well(forked(ask))


def test_of_a_process_that_has_ended_it_is_said_who_may_know_why() -> None:
    zombie = forked(lambda: None)
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    said = str(refused(zombie))
    os.waitpid(zombie, 0)
    assert said.startswith(
        f"the container's process {zombie} has ended (see the runtime's log and the messages of other hooks"
    )
