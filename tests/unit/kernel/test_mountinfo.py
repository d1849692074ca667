# SPDX-License-Identifier: Apache-2.0
"""Which mounts may wait for a server that does not answer, and those on the way to a path."""

from __future__ import annotations

import pytest

from oci_bind_hook.kernel.mountinfo import MountTable, first_that_may_wait, may_wait
from oci_bind_hook.rootfs.identity import places


@pytest.mark.parametrize(
    "kind", ["fuse", "fuse.sshfs", "fuseblk", "nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "autofs", "afs", "virtiofs"]
)
def test_these_may_wait(kind: str) -> None:
    assert may_wait(kind)


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "tmpfs", "overlay", "proc", "sysfs", "nfsd", "fusectl", "zfs"]
)
def test_these_do_not(kind: str) -> None:
    assert not may_wait(kind)


TABLE = MountTable(
    "\n".join(
        [
            "1 1 8:1 / / rw - ext4 /dev/sda1 rw",
            "2 1 0:2 / /home rw - nfs4 server:/home rw",
            "3 1 0:3 / /run rw - tmpfs tmpfs rw",
            "4 3 0:4 / /run/merged rw - overlay overlay rw,lowerdir=/srv:/home/x/lower,upperdir=/run/u,workdir=/run/w",
            "5 3 0:5 / /run/colon rw - overlay overlay rw,lowerdir=/home\\134:/x:/srv,upperdir=/run/u,workdir=/run/w",
            "6 3 0:6 / /run/above rw - overlay overlay rw,lowerdir+=/srv,lowerdir+=/run/merged/x,upperdir=l/u",
            "7 3 0:7 / /run/itself rw - overlay overlay rw,lowerdir=/run/itself/lower",
            "8 2 8:1 /srv /home/local rw - ext4 /dev/sda1 rw",
            "9 3 0:9 / /run/a\\040b rw - fuse.x x rw",
        ]
    )
)


@pytest.mark.parametrize(
    ("path", "mount"),
    [
        ("/", None),
        ("/srv/a", None),
        ("/homes/a", None),
        ("/home", "/home"),
        ("/home/x/y", "/home"),
        ("/home/local/y", "/home"),  # the way leads through it
        ("/run/x", None),
        ("/run/merged/etc", "/home"),
        ("/run/colon/etc", None),
        ("/run/above", "/home"),
        ("/run/itself", None),
        ("/run/a b", "/run/a b"),
    ],
)
def test_on_the_way_to_a_path(path: str, mount: str | None) -> None:
    found = first_that_may_wait(TABLE, path)
    assert (found.mount_point if found else None) == mount


def test_a_place_below_layers_that_may_wait_is_left_out() -> None:
    table = MountTable(
        "\n".join(
            [
                "1 1 8:1 / / rw - ext4 /dev/sda1 rw",
                "2 1 0:2 / /home rw - nfs4 server:/home rw",
                "3 1 0:3 / /layered rw - overlay overlay rw,lowerdir=/srv:/home/x",
                "4 3 8:2 / /layered/disk rw - ext4 /dev/sdb1 rw",
                "5 1 8:2 / /disk rw - ext4 /dev/sdb1 rw",
                "6 1 8:2 /a /bound rw - ext4 /dev/sdb1 rw",
            ]
        )
    )
    assert [*places(table.at("/bound")[0], table)] == ["/disk/a"]
