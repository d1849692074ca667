# SPDX-License-Identifier: Apache-2.0
"""A tmpfs below the rootfs: the container's own, where mount points may be made, or one that the host mounted there."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from helpers import support
from helpers.world import mount

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

    from helpers.world import World

STAGES = ("createRuntime", "createContainer")
OWN = {"destination": "/own", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"]}


def run_over_host_tmpfs(world: World, runtime: str, bundle: str) -> subprocess.CompletedProcess[str]:
    """Runs a container where the host has mounted a tmpfs on the rootfs's /data, in which nothing must be created."""
    with support.RuntimeNamespace(runtime) as namespace:
        assert namespace.run("mount", "-t", "tmpfs", "host", f"{world.rootfs}/data").returncode == 0
        done = namespace.run_container(bundle, "c1")
        assert namespace.run("ls", f"{world.rootfs}/data").stdout == ""
    return done


def check_refused(world: World, runtime: str, bundle: str) -> None:
    """No mount point is created in that tmpfs, and nothing else changes."""
    before = world.snapshot()
    assert run_over_host_tmpfs(world, runtime, bundle).returncode != 0
    assert "and it would be inside another mount" in (world.path / "log").read_text()
    assert world.snapshot() == before


def share(namespace: support.RuntimeNamespace, volume: Path, *names: str) -> None:
    """Makes a tmpfs of the host with these folders at ``volume``, and all mounts shared, as systemd does."""
    for words in (
        ("mount", "-t", "tmpfs", "volume", str(volume)),
        ("mkdir", *(f"{volume}/{name}" for name in names)),
        ("mount", "--make-rshared", "/"),
    ):
        assert namespace.run(*words).returncode == 0


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_nothing_is_made_in_a_tmpfs_of_the_host(world: World, runtime: str, stage: str) -> None:
    bundle = world.bundle("true", stage, *mount(world, "/data/new"), "--log", str(world.path / "log"))
    check_refused(world, runtime, bundle)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_a_tmpfs_of_config_json_over_one_of_the_host_is_the_containers_own(
    world: World, runtime: str, stage: str
) -> None:
    mounts = [{**OWN, "destination": "/link/../data/."}]
    bundle = world.bundle("cat /data/new/word", stage, *mount(world, "/data/new"), mounts=mounts)
    os.symlink("real", f"{world.rootfs}/link")
    before = world.snapshot()
    done = run_over_host_tmpfs(world, runtime, bundle)
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
    assert world.snapshot() == before


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_nor_in_one_that_config_json_binds_where_it_asked_for_a_tmpfs(world: World, runtime: str, stage: str) -> None:
    """By its destination alone it is the container's own. What lies there in the end is the host's."""
    mounts = [OWN, support.bind(f"{world.rootfs}/data", "/own")]
    words = [*mount(world, "/own/new"), "--log", str(world.path / "log")]
    bundle = world.bundle("true", stage, *words, mounts=mounts)
    os.mkdir(f"{world.rootfs}/own")
    check_refused(world, runtime, bundle)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_the_tmpfs_that_config_json_asks_for_through_a_link_is_the_containers_own(
    world: World, runtime: str, stage: str
) -> None:
    mounts = [{**OWN, "destination": "/absolute/deep"}]
    words = mount(world, "/real/deep/er/new")
    bundle = world.bundle("cat /real/deep/er/new/word", stage, *words, mounts=mounts)
    os.mkdir(f"{world.rootfs}/real/deep")
    before = world.snapshot()
    done = support.run_container(runtime, bundle, "c1")
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
    assert world.snapshot() == before


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_nor_where_a_link_leads_to_a_tmpfs_of_the_host_instead_of_the_one_of_config_json(
    world: World, runtime: str, stage: str
) -> None:
    """The runtime mounts the tmpfs on /own/t. Then a volume, which other containers write, covers it with a link."""
    volume = world.path / "volume"
    volume.mkdir()
    (volume / "t").symlink_to("/data")
    mounts = [{**OWN, "destination": "/own/t"}, support.bind(volume, "/own")]
    words = [*mount(world, "/data/new"), "--log", str(world.path / "log")]
    bundle = world.bundle("true", stage, *words, mounts=mounts)
    os.makedirs(f"{world.rootfs}/own/t")
    check_refused(world, runtime, bundle)


@pytest.mark.parametrize("how", ["from the host", "to the host"])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_nor_in_one_that_propagates(world: World, runtime: str, stage: str, how: str) -> None:
    """For a container in a user namespace, crun makes a volume a slave of the host's, or its peer."""
    volume = world.path / "volume"
    (volume / "t").mkdir(parents=True)
    options = ["private"] if how == "to the host" else []
    entries = [support.bind(volume, "/own", *([] if options else ["rslave"])), {**OWN, "destination": "/own/z"}]
    entries[1]["options"] = [*OWN["options"], *options]
    words = [*mount(world, "/own/z/new"), "--log", str(world.path / "log")]
    bundle = world.bundle("true", stage, *words, mounts=entries, namespaces=(*support.NAMESPACES, "user"))
    os.mkdir(f"{world.rootfs}/own")
    world.path.chmod(0o755)
    if how == "from the host":
        # After the runtime's mounts, another container puts a link in the volume, and the host mounts a tmpfs.
        script = f"cat > /dev/null; mv {volume}/z {volume}/old; ln -s t {volume}/z; mount -t tmpfs host {volume}/t"
        change = {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"]}
        config = json.loads((world.path / "bundle/config.json").read_text())
        config["hooks"]["createRuntime"] = [change, *config["hooks"].get("createRuntime", [])]
        (world.path / "bundle/config.json").write_text(json.dumps(config))
    with support.RuntimeNamespace(runtime) as namespace:
        share(namespace, volume, "t", "z")
        done = namespace.run_container(bundle, "c1")
        names = namespace.run("sh", "-c", f"ls {volume}/t {volume}/z").stdout
    assert "new" not in names.split(), (names, done.stderr)
    if how == "from the host":
        assert done.returncode != 0
        assert "and it would be inside another mount" in (world.path / "log").read_text()


@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_it_may_have_a_peer_group_that_only_the_container_has(world: World, runtime: str) -> None:
    """Below a volume that is shared in the container, and after the container has made its root shared."""
    volume = world.path / "volume"
    (volume / "t").mkdir(parents=True)
    mounts = [support.bind(volume, "/real", "rshared"), {**OWN, "destination": "/real/t"}, OWN]
    words = [*mount(world, "/real/t/new"), "--log", str(world.path / "log")]
    bundle = world.bundle("exec sleep 1000", "createRuntime", *words, mounts=mounts)
    os.mkdir(f"{world.rootfs}/own")
    with support.RuntimeNamespace(runtime) as namespace:
        share(namespace, volume, "t")
        created = namespace.create(bundle, "c1")
        assert created.returncode == 0, created.stderr
        assert namespace.start("c1").returncode == 0
        assert namespace.execute("c1", "busybox", "mount", "--make-rshared", "/").returncode == 0
        spec = f"src={world.source},dst=/own/new"
        done = namespace.run(world.launcher, "attach", "c1", "--mount", spec, *world.root_option())
        assert done.returncode == 0, done.stderr
        assert namespace.execute("c1", "cat", "/real/t/new/word", "/own/new/word").stdout.count("hello") == 2
        assert namespace.run("ls", f"{volume}/t").stdout == ""
        namespace.delete("c1", "--force")


@pytest.mark.parametrize("option", ["", "rslave"])
@pytest.mark.parametrize("runtime", support.RUNTIMES)
def test_it_may_be_below_a_volume_whose_propagation_shows_elsewhere(world: World, runtime: str, option: str) -> None:
    """Under runc a volume of a host with systemd is a slave of the host, and so are the copies of the host's mounts."""
    volume = world.path / "volume"
    (volume / "t").mkdir(parents=True)
    bind = support.bind(volume, "/own", *([option] if option else []))
    mounts = [bind, {**OWN, "destination": "/own/t"}]
    bundle = world.bundle("cat /own/t/new/word", "createContainer", *mount(world, "/own/t/new"), mounts=mounts)
    os.mkdir(f"{world.rootfs}/own")
    with support.RuntimeNamespace(runtime) as namespace:
        share(namespace, volume, "t")
        done = namespace.run_container(bundle, "c1")
        assert namespace.run("ls", f"{volume}/t").stdout == ""
    assert (done.returncode, done.stdout) == (0, "hello from the host\n"), done.stderr
