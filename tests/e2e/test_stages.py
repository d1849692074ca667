# SPDX-License-Identifier: Apache-2.0
"""Binds at every create stage, under real runtimes: seen by the container, and gone without a trace after it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from helpers import support

if TYPE_CHECKING:
    from helpers.world import World

STAGES = ("prestart", "createRuntime", "createContainer")

# What the container tells: what it sees at each destination, and whether it can write there.
SCRIPT = """
cat /real/through/absolute/word /real/through/climb/word /absent/place/word /dev/inside/word /plain/word
cat /etc/one-file
touch /real/through/absolute/new 2>/dev/null && echo written
touch /plain/new 2>/dev/null && echo writable
touch /touched 2>/dev/null && echo root writable
cat /config/word
exit 0
"""


# At createContainer crun before 1.26 has made the root read-only already: only the mount API gets below it.
ROOTS = [
    pytest.param(
        *(runtime, stage, readonly),
        id=f"{runtime}-{stage}-{'readonly' if readonly else 'writable'}-root",
        marks=pytest.mark.kernel(5, 12) if readonly and (runtime, stage) == ("crun", "createContainer") else (),
    )
    for runtime in support.RUNTIMES
    for stage in STAGES
    for readonly in (False, True)
]


@pytest.mark.parametrize("named", [True, False], ids=["named", "told-from-state"])
@pytest.mark.parametrize(("runtime", "stage", "readonly"), ROOTS)
def test_container_gets_its_binds_and_leaves_nothing(
    world: World, runtime: str, stage: str, *, readonly: bool, named: bool
) -> None:
    folder = f"type=bind,src={world.source}"
    bundle = world.bundle(
        SCRIPT,
        stage,
        *("--mount", f"{folder},dst=/absolute/through/absolute,ro"),
        *("--mount", f"{folder},dst=/climb/through/climb,ro"),
        *("--mount", f"{folder},dst=/dangling,ro"),
        *("--mount", f"{folder},dst=/dev/inside,ro"),
        *("--mount", f"{folder},target=/plain,bind-propagation=rslave"),
        *("--mount", f"source={world.file},destination=/etc/one-file,readonly"),
        named=named,
        readonly=readonly,
        mounts=[support.bind(world.source, "/config")],
    )
    # What the runtime makes for its own mounts stays, with or without a hook.
    os.makedirs(f"{world.rootfs}/config")
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert done.returncode == 0, done.stderr
    seen = done.stdout.splitlines()
    assert seen[:5] == ["hello from the host"] * 5
    assert seen[5:] == ["one file", "writable", *([] if readonly else ["root writable"]), "hello from the host"]
    (world.source / "new").unlink()
    if not readonly:
        os.unlink(f"{world.rootfs}/touched")
    assert world.snapshot() == before
