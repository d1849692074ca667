# SPDX-License-Identifier: Apache-2.0
"""Each field of --mount does at attach what it does at a start, by the mount tables of two containers."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.running import without_admin

if TYPE_CHECKING:
    from helpers.world import World

pytestmark = pytest.mark.kernel(5, 12)

# For each folder below /f the fields of the bind there.
FIELDS = {
    "plain": "src={source}",
    "attributes": "src={source}/sub,ro,nosuid,nodev,noexec,noatime",
    "rro": "src={source},rro",
    "alone": "src={source},bind-recursive=disabled",
    "subpath": "src={source},subpath=sub",
    "map": "src={source},idmap=uids=0-1000-1;gids=0-1000-1",
    "optional": "src={source},optional",
    "absent": "src={source}/absent,optional",
    "when": "src={source},when-exists=/etc",
    "when-not": "src={source},when-exists=/absent",
    "nofollow": "src={source},nofollow",
    "pattern": "type=glob,src={source}/w*",
    "slave": "src={source},bind-propagation=rslave",
    "shared": "src={source},bind-propagation=rshared",
    "unbindable": "src={source},bind-propagation=unbindable",
}
PROPAGATION = re.compile("shared|master|unbindable")


def below_f(pid: int) -> list[list[str]]:
    """The mounts of a process below /f: root, mount point, options, propagation and so on, without numbers."""
    lines = [re.sub(r" (shared|master):\d+", r" \1", line).split(" ")[3:] for line in support.mounts(pid)]
    return sorted(line for line in lines if line[1].startswith("/f/"))


def without_propagation(table: list[list[str]]) -> list[list[str]]:
    return [[word for word in line if not PROPAGATION.fullmatch(word)] for line in table]


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_each_field_does_what_it_does_at_a_start(world: World, runtime: str) -> None:
    source = world.source
    (source / "sub").mkdir()
    words = [
        word for name, fields in FIELDS.items() for word in ("--mount", f"{fields.format(source=source)},dst=/f/{name}")
    ]
    tables, owners = [], []
    with support.RuntimeNamespace(runtime) as namespace:
        share = 'mount --bind "$1" "$1" && mount --make-shared "$1" && mount -t tmpfs -o mode=755 none "$1/sub"'
        assert namespace.run("sh", "-c", share, "sh", str(source)).returncode == 0
        for name, at_start in (("c1", words), ("c2", [])):
            hooks = {stage: [world.hook(stage, *at_start)] for stage in ("createRuntime", "poststop")}
            bundle = without_admin(support.bundle(world.path / name, ["/bin/sleep", "1000"], hooks=hooks))
            assert namespace.create(bundle, name).returncode == 0
            assert namespace.start(name).returncode == 0
            pid = namespace.state(name)["pid"]

            def hook(*given: str, named: tuple[str, ...] = ("--bundle", bundle, "--pid", str(pid))) -> str:
                done = namespace.run(world.launcher, *given[:2], *named, *given[2:], *world.root_option())
                assert (done.returncode, done.stderr) == (0, ""), done
                return done.stdout

            said = [] if at_start else hook("attach", name, *words).splitlines()
            tables.append(below_f(pid))
            owners.append(namespace.execute(name, "stat", "-c", "%u", "/f/map/word").stdout)
            if not at_start:
                assert [line for line in said if "skipped" in line] == [
                    "attach 8: skipped, the source is optional and does not exist",
                    "attach 10: skipped, /absent does not exist in the container",
                ]
                assert hook("detach", name, "--all").count("detached ") == len(FIELDS) - 2
                assert (below_f(pid), os.path.exists(f"{bundle}/rootfs/f")) == ([], False)
            assert namespace.stop(name).returncode == 0
    start, attached = tables
    assert without_propagation(start) == without_propagation(attached)
    assert owners == ["1000\n", "1000\n"]
    # crun makes all mounts private after its hooks. No runtime changes what is attached.
    assert runtime == "crun" or start == attached
    asked = {line[1]: line[3] for line in attached if PROPAGATION.fullmatch(line[3])}
    wanted = {"/f/slave": "master", "/f/shared": "shared", "/f/unbindable": "unbindable"}
    assert {place: asked.get(place) for place in wanted} == wanted
