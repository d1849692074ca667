# SPDX-License-Identifier: Apache-2.0
"""Numbers of mounts and of mount namespaces that the kernel has given to the next one, as before Linux 6.8 and 6.11."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from helpers.mounting import Bench, bind, forked, line, mount_points, named, request, table, unshare
from oci_bind_hook.kernel.proc import boot_id
from oci_bind_hook.lifecycle.claims import Claims
from oci_bind_hook.lifecycle.reach import is_here
from oci_bind_hook.lifecycle.witness import Witness
from oci_bind_hook.mounting.mounted import DoubtError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from oci_bind_hook.kernel.mountinfo import MountInfo
    from oci_bind_hook.record.state_file import InitRecord, MountRecord, Record

DEAD: InitRecord = {"pid": 1, "start": 1, "first": None}  # process 1 has started earlier, or later


def alive(bench: Bench) -> InitRecord:
    """A first process that lives: this one."""
    start = bench.proc.start_time(os.getpid())
    assert start is not None
    return {"pid": os.getpid(), "start": start, "first": None}


def recorded(bench: Bench, init: InitRecord | None = DEAD) -> Record:
    """A bind on /mnt as an older kernel has it recorded: without what is never used again."""
    record = bench.mount(request(bench.source, "/mnt"))
    record["init"] = init
    record["namespace"]["unique"] = None
    for each in record["mounts"][0]["attached"]:
        each["unique"] = None
    return record


def claimed(
    bench: Bench,
    record: Record,
    others: Sequence[Record],
    info: MountInfo | None = None,
    unread: Sequence[tuple[int, str]] = (),
) -> bool:
    claims = Claims(lambda: (others, unread), bench.proc)
    return claims.against(record)(line(bench.inside("/mnt")) if info is None else info)


def test_the_living_come_first_and_then_the_later(bench: Bench) -> None:
    mine = recorded(bench)
    later = named(mine, "other", created=mine["created"] + 1)
    earlier = named(mine, "other", created=mine["created"] - 1)
    assert claimed(bench, mine, [mine, later])
    assert not claimed(bench, later, [mine, later])
    assert not claimed(bench, mine, [mine, earlier])
    assert claimed(bench, mine, [named(earlier, "other", init=alive(bench))])


def test_a_claim_is_to_a_number_at_a_place(bench: Bench) -> None:
    mine = recorded(bench)
    later = named(mine, "other", created=mine["created"] + 1)
    assert not claimed(bench, mine, [named(later, "other", boot="another")])
    assert not claimed(bench, mine, [named(later, "other", namespace={**mine["namespace"], "inode": 1})])
    assert not claimed(bench, mine, [named(later, "other", mounts=[{**mine["mounts"][0], "resolved": "/etc"}])])
    elsewhere = f"{bench.path}/elsewhere"
    os.mkdir(elsewhere)
    bind(bench.source, elsewhere)
    assert not claimed(bench, mine, [later], line(elsewhere))


def test_a_claim_is_to_what_is_mounted_below_it_too(bench: Bench) -> None:
    mine = recorded(bench)
    top, below = {**mine["mounts"][0]["attached"][0], "id": 1 << 30}, mine["mounts"][0]["attached"][0]
    mount: MountRecord = {**mine["mounts"][0], "resolved": "/", "attached": [top, below]}  # type: ignore[list-item]
    assert claimed(bench, mine, [named(mine, "other", created=mine["created"] + 1, mounts=[mount])])


def test_a_later_record_that_cannot_be_read_may_claim_anything(bench: Bench) -> None:
    mine = recorded(bench)
    assert not claimed(bench, mine, [], unread=[(mine["created"] - 1, "c2 cannot be read")])
    with pytest.raises(DoubtError, match="/mnt may now belong to another container: c2 cannot be read"):
        claimed(bench, mine, [], unread=[(mine["created"] + 1, "c2 cannot be read")])


def test_neighbours_may_be_newer_than_what_was_read_of_all(bench: Bench) -> None:
    mine = recorded(bench)
    later = named(mine, "other", created=mine["created"] + 1)
    claims = Claims(lambda: ([mine], ()), bench.proc)
    assert not claims.against(mine)(line(bench.inside("/mnt")))
    assert claims.against(mine, [later])(line(bench.inside("/mnt")))


# -- a namespace with the number of another ----------------------------------------------------------------------------


def test_nothing_is_unmounted_in_a_namespace_that_has_the_number_of_a_dead_container(bench: Bench) -> None:
    record = recorded(bench)
    with pytest.raises(DoubtError, match="it has the same number, and a mount like the bind on /mnt"):
        is_here(record, bench.proc, boot_id())
    assert mount_points(bench.rootfs) == ["/mnt"]
    assert is_here(record, bench.proc, boot_id(), lambda _: True) is False
    record["mounts"][0]["attached"][0]["id"] = 1 << 30
    assert is_here(record, bench.proc, boot_id()) is False


def test_while_the_first_process_lives_the_namespace_is_the_same(bench: Bench) -> None:
    assert is_here(recorded(bench, alive(bench)), bench.proc, boot_id()) is True


@pytest.mark.kernel(6, 8)
def test_the_unique_id_of_a_mount_tells_its_namespace(bench: Bench) -> None:
    record = bench.mount(request(bench.source, "/mnt"))
    record["init"], record["namespace"]["unique"] = DEAD, None
    assert is_here(record, bench.proc, boot_id()) is True


@pytest.mark.kernel(6, 11)
def test_the_unique_id_of_a_namespace_decides(bench: Bench) -> None:
    record = recorded(bench)
    known = bench.proc.mount_namespace_id()
    assert known is not None
    record["namespace"]["unique"] = known
    assert is_here(record, bench.proc, boot_id()) is True
    record["namespace"]["unique"] = known + 1
    assert is_here(record, bench.proc, boot_id()) is False


def judged(bench: Bench, record: Record, others: Sequence[Record] = ()) -> tuple[str, list[bool | None]]:
    witness = Witness(bench.proc, Claims(lambda: (others, ()), bench.proc))
    return witness.judge(record)[0], [*map(witness.look(record), record["mounts"])]


def test_a_dead_container_does_not_live_on_in_the_next_one_of_the_same_numbers(bench: Bench) -> None:
    ready, tell = os.pipe()

    def live() -> None:
        unshare()
        bind(bench.source, bench.inside("/mnt"))
        os.write(tell, b"x")
        signal.pause()

    child = forked(live)
    os.read(ready, 1)
    inode = os.stat(f"/proc/{child}/ns/mnt").st_ino
    info = [each for each in table(child) if each.mount_point == bench.inside("/mnt")][-1]
    start = bench.proc.start_time(child)
    assert start is not None
    dead = recorded(bench)
    dead["namespace"]["inode"] = inode
    dead["mounts"][0]["attached"][0]["id"] = info.id
    # Nobody says that the other is another: it may be the same, and is kept.
    assert judged(bench, dead) == ("unknown", [True])
    next_one = named(dead, "c2", created=dead["created"] + 1, init={"pid": child, "start": start, "first": None})
    assert judged(bench, dead, [dead, next_one]) == ("dead", [False])
    assert judged(bench, next_one, [dead, next_one]) == ("alive", [True])
    elsewhere = named(dead, "c1", mounts=[{**dead["mounts"][0], "resolved": "/etc"}])
    assert judged(bench, elsewhere) == ("dead", [False])
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
