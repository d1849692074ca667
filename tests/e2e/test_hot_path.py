# SPDX-License-Identifier: Apache-2.0
"""What every container start waits for, in counts that do not depend on the machine: modules, system calls, memory."""

from __future__ import annotations

import collections
import os
import re
import subprocess
from typing import TYPE_CHECKING

from benchmark import peak_memory
from helpers import support
from helpers.running import Running
from helpers.world import World, mount, state

if TYPE_CHECKING:
    pass

# What may be loaded besides what a bare `python3 -I -S` loads, which is not the same in every version.
PYTHON = {
    *("__future__", "_stat", "stat"),
    *("_ctypes", "_json", "_prctl", "errno", "gc", "itertools"),
}
BOTH = (
    "cli errors log options"
    " documents documents.acceptor documents.bundle documents.oci documents.strictjson"
    " kernel kernel.errnos kernel.files kernel.linux kernel.mountinfo kernel.proc kernel.rights"
    " lifecycle"
    " mounting mounting.mounted mounting.undo"
    " record record.document record.folder record.held record.indexes record.lock record.state_file"
    " rootfs rootfs.identity rootfs.mount_points rootfs.walk"
)
OURS = {
    "prestart": f"{BOTH} kernel.namespace lifecycle.set_up lifecycle.stage lifecycle.start_record"
    " mounting.apply mounting.by_mount_api mounting.config_mounts mounting.plan mounting.sources"
    " requests requests.collect requests.mount_field requests.request rootfs.admit",
    "poststop": f"{BOTH} lifecycle.claims lifecycle.reach lifecycle.tear_down",
}
LOADED = re.compile(r"^import time: +\d+ \| +\d+ \| +(\S+)$", re.MULTILINE)


def interpreter(world: World) -> str:
    """The Python in the launcher's first line."""
    with open(world.launcher, encoding="utf-8") as file:
        return file.readline().removeprefix("#!").split()[0]


def loaded(world: World, *arguments: str, stdin: str) -> set[str]:
    """All modules that a run loads, and that a bare Python does not."""
    python = [interpreter(world), "-I", "-S", "-X", "importtime"]
    bare = subprocess.run([*python, "-c", "pass"], capture_output=True, text=True, check=True)
    command = [*python, world.launcher, *arguments, *world.root_option()]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=True)
    return set(LOADED.findall(done.stderr)) - set(LOADED.findall(bare.stderr))


def test_the_modules_of_a_good_run(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    for stage, status in (("prestart", "creating"), ("poststop", "stopped")):
        wanted = mount(world, "/data", "/new/place") if stage == "prestart" else []
        found = loaded(world, stage, *wanted, stdin=state(world, status=status))
        ours = {f"oci_bind_hook.{name}" for name in OURS[stage].split()} | {"oci_bind_hook"}
        assert {name for name in found if name.startswith("oci_bind_hook")} == ours, stage
        assert found - ours <= PYTHON, stage


def test_the_modules_of_attach_and_detach_by_id(world: World) -> None:
    """No more than a start or a poststop needs, and what is theirs alone: neither the commands' parser nor what finds
    a name.
    """
    ours = {"commands", "commands.running", "lifecycle.running", "rootfs.inside"}
    more = {
        "attach": {*OURS["prestart"].split(), "lifecycle.attach"},
        "detach": {
            *f"{BOTH} kernel.namespace lifecycle.claims lifecycle.detach lifecycle.reach lifecycle.stage".split(),
            "lifecycle.start_record",
        },
    }
    with Running(world) as container:
        assert container.attach(*mount(world, "/data")).returncode == 0
        for command, words in (("attach", mount(world, "/real")), ("detach", ["/real"])):
            found = loaded(world, command, "c1", *words, stdin="")
            wanted = {f"oci_bind_hook.{name}" for name in ours | more[command]} | {"oci_bind_hook"}
            assert {name for name in found if name.startswith("oci_bind_hook")} == wanted, command
            assert found - wanted <= PYTHON, command


def calls(world: World, *arguments: str, stdin: str) -> collections.Counter[str]:
    """How often a run makes each system call."""
    trace = world.path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), world.launcher, *arguments, *world.root_option()]
    subprocess.run(command, input=stdin, text=True, check=True)
    lines = trace.read_text().splitlines()
    # strace 6.1 does not know the first, and for the second the C library has two ways.
    names = {"syscall_0x1c9": "statmount", "fstat": "newfstatat"}
    return collections.Counter(
        names.get(match[1], match[1]) for line in lines if (match := re.match(r"\d+ +(\w+)\(", line))
    )


def prepare(world: World, count: int) -> list[str]:
    """Arguments for so many binds in folders that are there."""
    for number in range(count):
        os.makedirs(f"{world.rootfs}/real/{number}", exist_ok=True)
    return mount(world, *(f"/real/{number}" for number in range(count)), options=",ro")


# What each bind adds. The source is opened, told, cloned and given its attributes; the mount point is looked for;
# then one is attached to the other, and private again.
SET_UP = {
    **{"openat": 3, "close": 2, "readlinkat": 1, "statx": 5},
    **{"open_tree": 1, "mount_setattr": 3, "move_mount": 1},
}
# Found again by its id, made private, left to itself and told to be gone.
TEAR_DOWN = {
    **{"openat": 1, "close": 1, "statx": 2, "statmount": 2},
    **{"mount_setattr": 1, "fchdir": 1, "umount2": 1},
}
# Of memory and files: their number follows from sizes.
UNCOUNTED = {"brk", "mmap", "munmap", "mremap", "madvise", "read", "write"}


def test_system_calls_for_each_bind(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    counts = []
    for count in (10, 60):
        wanted = prepare(world, count)
        up = calls(world, "prestart", *wanted, stdin=state(world))
        down = calls(world, "poststop", stdin=state(world, status="stopped"))
        counts.append((up, down))
    (up, down), (more_up, more_down) = counts
    for fewer, more, table in ((up, more_up, SET_UP), (down, more_down, TEAR_DOWN)):
        each = {name: round((more[name] - fewer[name]) / 50, 1) for name in more if name not in UNCOUNTED}
        assert {name: number for name, number in each.items() if number} == table


def test_the_state_file_is_written_as_often_however_many_binds(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    for number, (wanted, writes) in enumerate(((prepare(world, 30), 2), (mount(world, "/new/1", "/new/2"), 3))):
        made = calls(world, "prestart", *wanted, stdin=state(world, f"c{number}"))
        assert made["rename"] + made["renameat"] + made["renameat2"] == writes


def test_memory(world: World) -> None:
    support.bundle(world.path / "bundle", ["true"])
    bare = peak_memory(interpreter(world), "-I", "-S", "-c", "pass")
    wanted = prepare(world, 10)
    assert peak_memory(world.launcher, "prestart", *wanted, *world.root_option(), stdin=state(world)) <= 1.5 * bare
    stopped = state(world, status="stopped")
    assert peak_memory(world.launcher, "poststop", *world.root_option(), stdin=stopped) <= 1.5 * bare
