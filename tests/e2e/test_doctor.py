# SPDX-License-Identifier: Apache-2.0
"""What is said of kernels that lack something, and of users who may do less."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from helpers import kernels, mounting, support
from oci_bind_hook.commands.engines.doctor import FEATURES
from oci_bind_hook.commands.engines.install import import_folders
from oci_bind_hook.kernel import linux

if TYPE_CHECKING:
    from helpers.world import World


def test_the_features_are_those_of_the_kernel_that_runs() -> None:
    release = tuple(map(int, platform.release().split("-")[0].split(".")[:2]))
    since = {"pidfd": (5, 3), "openat2": (5, 6), "statx mnt_id": (5, 8), "mount_setattr": (5, 12), "statmount": (6, 8)}
    there = linux.features()
    assert there.keys() == FEATURES.keys()
    assert {name: there[name] for name in since} == {name: release >= first for name, first in since.items()}


UID = 1000
LACKS = {
    "before 5.12": {"mount_setattr", "idmapped mounts"},
    "filtered": {"open_tree", "move_mount", "mount_setattr", "idmapped mounts", "openat2"},
}
NEVER_DENIED = {"filtered": {"move_mount"}}  # which says EPERM to whoever lacks the right, too


def doctor(world: World, *before: str) -> tuple[int, dict[str, str]]:
    """The exit code, and what is said of each thing, by its name."""
    done = subprocess.run([*before, world.launcher, "doctor"], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    lines = [line[8:].split(":")[0] + "\n" + line for line in done.stdout.splitlines()]
    return done.returncode, dict(line.split("\n") for line in lines)


@pytest.mark.parametrize("name", LACKS)
def test_what_an_older_kernel_lacks_is_named_and_no_failure(name: str, world: World) -> None:
    code, before = doctor(world)
    kernels.play(name)
    again, found = doctor(world)
    assert again == code
    lost = {each for each in found if found[each] != before[each]}
    assert lost == LACKS[name] - NEVER_DENIED.get(name, set())
    assert all(found[each].startswith("without ") and len(found[each].split(": ")) > 1 for each in lost)


def test_without_a_capability_of_root_it_says_what_fails(world: World) -> None:
    code, found = doctor(world, "setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin")
    assert code == os.EX_UNAVAILABLE
    assert found["CAP_SYS_ADMIN"].startswith("MISSING CAP_SYS_ADMIN: setns(2)")


def test_an_ordinary_user_gets_the_rights_from_the_runtime_and_needs_a_folder(world: World) -> None:
    mounting.tmpfs("/run", "mode=755")
    mounting.show(sys.base_prefix, *import_folders(), str(Path(world.launcher).parents[3]))
    code, found = doctor(world, *support.as_user(UID))
    assert (code, found["state folder"]) == (
        os.EX_UNAVAILABLE,
        f"MISSING state folder: /run/user/{UID}/oci-bind-hook is not there, and /run cannot be written:"
        " nothing can be recorded, and so nothing is mounted",
    )
    os.makedirs(f"/run/user/{UID}")
    os.chown(f"/run/user/{UID}", UID, UID)
    code, found = doctor(world, *support.as_user(UID))
    assert (code, found["CAP_SYS_ADMIN"]) == (
        os.EX_OK,
        "without CAP_SYS_ADMIN: in a rootless container, at createContainer, the runtime gives it",
    )
    where = f"/run/user/{UID}/oci-bind-hook is made at first use, on tmpfs (gone after a restart of the machine)"
    assert found["state folder"] == f"ok      state folder: {where}"
