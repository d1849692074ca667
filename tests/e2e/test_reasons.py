# SPDX-License-Identifier: Apache-2.0
"""Each row of the table of reasons, as a person gets to see it: the kernel's refusal of a call, and what helps.

strace answers in place of the kernel, so that a full disk, a lost server and a reached limit are there when they are
asked for.
"""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from helpers import kernels, support
from helpers.world import state
from oci_bind_hook.kernel import errnos

if TYPE_CHECKING:
    from collections.abc import Sequence

    from helpers.world import World


class Way(NamedTuple):
    """How a call is reached: which one of the kernel's calls, by its number, of those that have to do with a path."""

    syscall: str
    when: int
    mount: str = "src={source},dst=/new"
    path: str = ""
    words: tuple[str, ...] = ("prestart",)
    is_classic: bool = False


MAP = ",idmap=uids=0-0-1;gids=0-0-1"
WAYS = {
    "openat": Way("openat", 1, path="{rootfs}"),
    "readlinkat": Way("readlinkat", 1, "src={source},dst=/absolute", path="{rootfs}/absolute"),
    "mkdirat": Way("mkdirat", 2),  # the first makes the folder of lists
    "mknodat": Way("mknodat", 1, "src={file},dst=/new", path="new"),
    "open_tree": Way("open_tree", 2),
    "mount_setattr": Way("mount_setattr", 2),
    "mount_setattr(idmap)": Way("mount_setattr", 2, "src={source},dst=/new" + MAP),
    "move_mount": Way("move_mount", 2),
    "unshare": Way("unshare", 1, "src={source},dst=/new" + MAP),
    "write(id map)": Way("write", 1, "src={source},dst=/new" + MAP),
    "mount(tmpfs)": Way("mount", 1, is_classic=True),
    "mount(MS_BIND)": Way("mount", 3, is_classic=True),
    "mount(MS_REMOUNT)": Way("mount", 4, "src={source},dst=/new,ro", is_classic=True),
    "mount(MS_MOVE)": Way("mount", 5, is_classic=True),
    "umount2": Way("umount2", 1, words=("poststop",)),
    "unlinkat": Way("unlinkat", 1, path="new", words=("poststop",)),
    "setns": Way("setns", 1, words=("createRuntime",)),
    "state": Way("flock", 1),
}
# What may be answered to any call is asked of one of them, where the rootfs is opened.
GENERAL = "openat"
# A start creates the file otherwise then: only attach says why not, test_attach.py.
WITHOUT_MKNOD = {("mknodat", errno.ENOSYS), ("mknodat", errno.EOPNOTSUPP)}
ROWS = sorted({*errnos.HINTS, *errnos.NEEDS} - {("openat", errno.EACCES)} - WITHOUT_MKNOD)


def refused(world: World, way: Way, error: int) -> str:
    """What is said on stderr of a hook whose call is answered with an errno."""
    names = {"source": str(world.source), "file": str(world.file), "rootfs": world.rootfs}
    trace = ["-P", way.path.format(**names)] if way.path else []
    inject = f"inject={way.syscall}:error={errno.errorcode[error]}:when={way.when}"
    # The child that carries an id map writes, too, but only to us.
    follow = [] if way.syscall == "write" else ["-f"]
    command = ["strace", *follow, "-qq", "-o", "/dev/null", *trace, "-e", f"trace={way.syscall}", "-e", inject]
    hook = [world.launcher, *way.words, "--root", str(world.state)]
    bind = [] if way.words == ("poststop",) else [f"--mount={way.mount.format(**names)}"]
    if way.is_classic:
        kernels.play("before 5.12")
    with subprocess.Popen(["unshare", "-m", "cat"], stdin=subprocess.PIPE) as holder:
        members: dict[str, Any] = {"pid": holder.pid} if way.syscall == "setns" else {}
        if way.words == ("poststop",):
            first = [world.launcher, "prestart", "--root", str(world.state), f"--mount=src={world.source},dst=/new"]
            done = call(first, state(world))
            assert (done.returncode, done.stderr) == (0, "")
            members["status"] = "stopped"
        done = call([*command, *hook, *bind], state(world, **members))
        assert holder.stdin is not None
        holder.stdin.close()
    assert done.returncode not in (0, 70), done.stderr
    return done.stderr


def call(command: Sequence[str], text: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(("name", "error"), ROWS, ids=[f"{name or 'any'}-{errno.errorcode[no]}" for name, no in ROWS])
def test_refusal_says_what_helps(world: World, name: str, error: int) -> None:
    support.bundle(world.path / "bundle", ["true"])
    line = refused(world, WAYS[name or GENERAL], error)
    expected = errnos.HINTS.get((name, error)) or errnos.HINTS["", error]
    assert line.count("\n") == 1
    # What is forbidden at this stage says why in its own words.
    is_stage = (name, error) in (("open_tree", errno.EPERM), ("setns", errno.EPERM))
    assert os.strerror(error) in line or is_stage
    assert expected in line
