# SPDX-License-Identifier: Apache-2.0
"""A failure finds its reader under crun too, which throws away what hooks print: in systemd's journal."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from helpers import mounting, support
from helpers.world import mount
from oci_bind_hook.log import JOURNAL_SOCKET

if TYPE_CHECKING:
    from helpers.world import World


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_failure_inside_is_told_to_the_journal_and_a_success_is_not(runtime: str, world: World) -> None:
    mounting.tmpfs("/run", "mode=755")
    os.makedirs(os.path.dirname(JOURNAL_SOCKET))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(JOURNAL_SOCKET)
        good = world.bundle("true", "createRuntime", *mount(world, "/a"))
        assert support.run_container(runtime, good, "c1").returncode == 0
        # The container's namespace has been entered before this is met.
        wrong = world.bundle("true", "createRuntime", *mount(world, "/etc/passwd"))
        assert support.run_container(runtime, wrong, "c2").returncode != 0
        journal.settimeout(0)
        told = dict(line.split("=", 1) for line in journal.recv(1 << 16).decode().splitlines())
        with pytest.raises(BlockingIOError):
            journal.recv(1)
    message = told.pop("MESSAGE")
    assert message == "c2 createRuntime: --mount 1: the source is a folder, but /etc/passwd is a file"
    assert told == {
        "PRIORITY": "3",
        "SYSLOG_FACILITY": "3",
        "SYSLOG_IDENTIFIER": "oci-bind-hook",
        "CONTAINER_ID": "c2",
        "STAGE": "createRuntime",
    }
