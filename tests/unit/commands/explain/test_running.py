# SPDX-License-Identifier: Apache-2.0
"""Which binds of a running container its record is about."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from oci_bind_hook.commands.explain.running import Running
from oci_bind_hook.kernel.proc import Proc
from oci_bind_hook.mounting.plan import Bind
from oci_bind_hook.requests.mount_field import parse_mount

if TYPE_CHECKING:
    from oci_bind_hook.record.state_file import Record

IDMAP = "idmap=uids=0-1000-1;gids=0-1000-1"


def recorded(*texts: str) -> Record:
    """A record of binds that are gone."""
    gone = {"id": None, "unique": None, "root": "/", "source": "/dev/none", "type": "none"}
    mounts = [
        {
            "origin": "argument",
            "by": f"--mount {number}",
            "requested": parse_mount(text, "o", "p").as_mount(),
            "resolved": "/b",
            "source": {"dev": 0, "ino": 0},
            "attached": [gone],
        }
        for number, text in enumerate(texts, 1)
    ]
    rootfs, namespace = {"path": "/rootfs"}, {"kind": "container", "inode": Proc().mount_namespace()}
    return cast("Record", {"init": None, "rootfs": rootfs, "namespace": namespace, "mounts": mounts})


ASKED = {
    "the same": (IDMAP, True),
    "the same, if it is there": (f"{IDMAP},optional,when-exists=/x", True),
    "another id map": ("idmap=uids=0-2000-1;gids=0-1000-1", False),
    "the id map of the container": ("idmap", False),
    "no id map": ("ro=false", False),
    "read-only": (f"{IDMAP},ro", False),
}


@pytest.mark.parametrize(("words", "is_known"), ASKED.values(), ids=ASKED)
def test_a_bind_is_recognised_by_all_that_makes_it_this_one(words: str, is_known: bool) -> None:
    running = Running("c1", recorded(f"src=/a,dst=/b,{IDMAP}"), None, Proc())
    source: Any = None
    running.has(Bind(parse_mount(f"src=/a,dst=/b,{words}", "--mount 1", "--mount 1"), source), "/rootfs")
    others = list(running.others())
    told = "/a on /b, requested by --mount 1, is recorded for the running container, but is not in this plan"
    assert others == ([] if is_known else [told])


class Target:
    """A destination that every container has, and this machine as well."""

    path = "/proc"


@pytest.mark.parametrize(("is_here", "now"), [(True, False), (False, None)], ids=["here", "elsewhere"])
def test_without_a_process_what_is_mounted_here_is_not_the_containers(is_here: bool, now: bool | None) -> None:
    record, source = recorded(), cast("Any", None)
    record["namespace"]["inode"] += not is_here
    running = Running("c1", record, None, Proc())
    bind = Bind(parse_mount("src=/a,dst=/proc", "--mount 1", "--mount 1"), source)
    bind.target = cast("Any", Target())
    assert (running.has(bind, "/rootfs"), running.has(bind, "")) == (now, None if now is None else True)
    assert running.facts()["visible"] == is_here
