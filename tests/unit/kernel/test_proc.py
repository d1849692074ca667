# SPDX-License-Identifier: Apache-2.0
"""What procfs tells, read from the real one, and from lines as the kernel writes them."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys

import pytest

from oci_bind_hook.kernel import files
from oci_bind_hook.kernel.mountinfo import MountInfo, MountTable
from oci_bind_hook.kernel.proc import Proc, boot_id, outside, read_text

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
36 22 0:31 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:5 master:7 propagate_from:2 - cgroup2 cgroup2 ro
99 22 0:44 /sub\040dir /mnt/a\040b\011c\012d\134e\043f rw,relatime - tmpfs - rw
98 99 0:44 /deleted//deleted /mnt/x ro master:9 - tmpfs a\040-\040b rw
100 98 254:1048575 / /mnt/x/y rw unbindable - fuse.sshfs  ro,user_id=0
101 22 0:45 / /ro relatime,ro,nosuid - tmpfs tmpfs rw
"""


def fields(info: MountInfo) -> tuple[object, ...]:
    return (info.id, info.parent, info.dev, info.root, info.mount_point, info.shared, info.type, info.source)


def test_mountinfo() -> None:
    assert [fields(info) for info in MountTable(TABLE)] == [
        (22, 1, os.makedev(254, 0), "/", "/", 1, "ext4", "/dev/vda"),
        (36, 22, os.makedev(0, 31), "/", "/sys/fs/cgroup", 5, "cgroup2", "cgroup2"),
        (99, 22, os.makedev(0, 44), "/sub dir", "/mnt/a b\tc\nd\\e#f", None, "tmpfs", "-"),
        (98, 99, os.makedev(0, 44), "/deleted//deleted", "/mnt/x", None, "tmpfs", "a - b"),
        (100, 98, os.makedev(254, 1048575), "/", "/mnt/x/y", None, "fuse.sshfs", ""),
        (101, 22, os.makedev(0, 45), "/", "/ro", None, "tmpfs", "tmpfs"),
    ]


ID_MAP = "         0       1000          1\n         1     100000      65536\n"


@pytest.mark.parametrize(
    ("id_map", "inside", "around"),
    [
        (ID_MAP, 0, 1000),
        (ID_MAP, 1, 100000),
        (ID_MAP, 65534, 165533),
        (ID_MAP, 65536, 165535),
        (ID_MAP, 65537, 65537),
        ("0 1000 1\n", 65534, 65534),
        ("0 0 4294967295\n", 4294967294, 4294967294),
        ("", 0, 0),
    ],
)
def test_ids_as_the_user_namespace_around_has_them(id_map: str, inside: int, around: int) -> None:
    assert outside(inside, id_map) == around


def test_on_the_machine_itself_nobody_is_called_otherwise() -> None:
    proc = Proc()
    stat = files.statx(proc.fd)
    assert proc.uid_outside(os.geteuid()) == os.geteuid()
    assert proc.owner_outside(stat) == (stat.uid, stat.gid)


def test_only_the_mounts_own_attribute_makes_it_read_only() -> None:
    assert [info.id for info in MountTable(TABLE) if "ro" in info.options] == [98, 101]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("", ""),
        ("/plain", "/plain"),
        (r"\040", " "),
        (r"a\134040b", r"a\040b"),
        (r"\134\134", "\\\\"),
        (r"\0400", " 0"),
        ("\udcff\\011\xe9", "\udcff\t\xe9"),
    ],
)
def test_unescape(field: str, text: str) -> None:
    assert files.unescape(field) == text


@pytest.mark.parametrize(
    ("top", "below"), [(22, {36, 99, 98, 100, 101}), (99, {98, 100}), (100, set()), (7, set())], ids=str
)
def test_the_mounts_below_another(top: int, below: set[int]) -> None:
    # In whichever order the kernel lists them.
    for text in (TABLE, "\n".join(reversed(TABLE.splitlines()))):
        found = list(MountTable(text).below(top))
        assert {info.id for info in found} == below
        seen = {top}
        for info in found:
            assert info.parent in seen
            seen.add(info.id)


def test_our_own_mounts_are_those_that_statx_tells_of() -> None:
    root = os.open("/", os.O_PATH)
    stat = files.statx(root)
    os.close(root)
    [info] = [info for info in Proc().mounts() if info.id == stat.mnt_id]
    assert (info.mount_point, info.dev) == ("/", stat.dev)


def test_ourselves() -> None:
    proc = Proc()
    assert proc.pids()[-1] == os.getpid()
    assert proc.parent() == os.getppid()
    assert proc.mount_namespace() == os.stat("/proc/self/ns/mnt").st_ino
    assert len(boot_id()) == 36
    assert boot_id() == boot_id()


def read_all(path: str) -> str:
    fd = os.open(path, os.O_RDONLY)
    try:
        return read_text(fd)
    finally:
        os.close(fd)


def test_text_is_read_whole_and_as_file_names_are() -> None:
    fd = os.memfd_create("text")
    data = b"\xff" + "\xe9".encode() * 100_000
    os.write(fd, data)
    os.lseek(fd, 0, os.SEEK_SET)
    assert os.fsencode(read_text(fd)) == data
    assert read_text(fd) == ""
    os.close(fd)


def child(name: str = "sleeper") -> int:
    """A process that is called ``name`` and lives until it is killed."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        with open("/proc/self/comm", "w", encoding="utf-8") as comm:
            comm.write(name)
        os.write(tell, b"!")
        signal.pause()
        os._exit(0)
    assert os.read(told, 1) == b"!"
    os.close(told)
    os.close(tell)
    return pid


@pytest.mark.parametrize("name", ["plain", "a) (b", ") R 1 (", "Z) Z 1 2", "))))"])
def test_the_start_of_a_process_until_it_is_dead(name: str) -> None:
    proc = Proc()
    pid = child(name)
    try:
        start = proc.start_time(pid)
        # In clock ticks since boot, where /proc/uptime has seconds.
        ticks = os.sysconf("SC_CLK_TCK")
        now = round(float(read_all("/proc/uptime").split()[0]) * ticks)
        assert start is not None
        assert now - 60 * ticks < start <= now
        assert proc.start_time(pid) == start
        assert start >= (proc.start_time(os.getpid()) or 0) > 0
        assert f"({name})" in read_all(f"/proc/{pid}/stat")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert read_all(f"/proc/{pid}/stat").rpartition(")")[2].split()[0] == "Z"
    assert (proc.start_time(pid), [*proc.mounts_of(pid)]) == (None, [])
    os.waitpid(pid, 0)
    assert (proc.start_time(pid), [*proc.mounts_of(pid)]) == (None, [])


def test_the_pid_behind_a_pidfd_until_it_is_gone() -> None:
    proc = Proc()
    pid = child()
    pidfd = os.pidfd_open(pid)
    try:
        assert proc.pid_of(pidfd) == pid
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert proc.pid_of(pidfd) == -1
    os.close(pidfd)


def test_what_a_process_was_started_with() -> None:
    words = ["-c", "print(flush=True); input()", "a b", "", "\udcff"]
    with subprocess.Popen([sys.executable, *words], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # before, execve(2) may not have come so far
        assert Proc().arguments(process.pid) == [sys.executable, *words]
        process.communicate(b"\n")
    with pytest.raises(FileNotFoundError):
        Proc().arguments(process.pid)


@pytest.mark.parametrize("root", [None, "/run/a-b_c.d", "/srv/it's here", "/srv/é", "/srv/a\nb", "/srv/$HOME"])
def test_commands_repeat_the_root_as_a_shell_reads_it(root: str | None) -> None:
    expected = ["oci-bind-hook", "gc", *([] if root is None else ["--root", root])]
    command = Proc(root).program("gc")
    assert shlex.split(command) == expected
    assert ("'" in command) == (root not in (None, "/run/a-b_c.d"))
