# SPDX-License-Identifier: Apache-2.0
"""Where nothing can be written, nothing is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from oci_bind_hook.errors import UnavailableError
from oci_bind_hook.record.unrecorded import Unrecorded

if TYPE_CHECKING:
    from oci_bind_hook.record.state_file import Record


def test_where_nothing_can_be_written_nothing_is_recorded(path: str, record: Record) -> None:
    folder = Unrecorded(UnavailableError("nothing can be written", hint="write elsewhere"))
    assert str(folder.why_unrecorded()) == "nothing can be written (write elsewhere)"
    with folder.lock_id("c1"), folder.lock_rootfs(record["rootfs"]) as held:
        held.save(record)
        assert folder.load("c1") is None
        users = held.users(record["rootfs"], record["boot"])
        assert (users.records, users.unread, held.holds(record["rootfs"])) == ({}, [], True)
        held.remove("c1")
        folder.remove("c1")
    assert not os.path.exists(path)
