# SPDX-License-Identifier: Apache-2.0
"""Each row of the option table by what it does to somebody who uses the mount: at its top and at a mount below it."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from helpers import support
from helpers.mounting import (
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_SHARED,
    Bench,
    propagate,
    remount,
    request,
    tags,
    tmpfs,
)

pytestmark = pytest.mark.usefixtures("kernel")

if TYPE_CHECKING:
    from collections.abc import Callable

MS_NOSYMFOLLOW = 0x100
MS_NODIRATIME = 0x800
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
HOUR = 3600
NOBODY = 65534


@pytest.fixture
def volume(bench: Bench) -> str:
    """A source that is a mount with a mount below it; both hold what attributes forbid to use."""
    volume = tmpfs(f"{bench.path}/volume")
    for folder in (volume, tmpfs(f"{volume}/sub")):
        os.mkdir(f"{folder}/folder")
        os.mknod(f"{folder}/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        os.symlink("file", f"{folder}/link")
        shutil.copy("/usr/bin/id", f"{folder}/id")
        os.chmod(f"{folder}/id", 0o4755)
        with open(f"{folder}/file", "wb") as file:
            file.write(b"text\n")
    return volume


# -- what somebody who uses a mount meets ------------------------------------------------------------------------------


def outcome(action: Callable[[], object]) -> str:
    """ "done", or the name of the error."""
    try:
        action()
    except OSError as reason:
        return errno.errorcode[reason.errno or 0]
    return "done"


def write(folder: str) -> str:
    return outcome(lambda: os.close(os.open(f"{folder}/file", os.O_WRONLY)))


def execute(folder: str) -> str:
    return outcome(lambda: subprocess.run([f"{folder}/id"], check=True, stdout=subprocess.DEVNULL))


def open_device(folder: str) -> str:
    return outcome(lambda: os.close(os.open(f"{folder}/null", os.O_RDONLY)))


def follow(folder: str) -> str:
    return outcome(lambda: os.close(os.open(f"{folder}/link", os.O_RDONLY)))


def become(folder: str) -> str:
    """Who a set-user-ID program of root is when nobody runs it."""
    # By fd, because nobody may not walk there.
    fd = os.open(f"{folder}/id", os.O_PATH)
    program = [f"/proc/self/fd/{fd}", "-u"]
    done = subprocess.run(program, user=NOBODY, group=NOBODY, pass_fds=[fd], check=True, capture_output=True, text=True)
    os.close(fd)
    return "root" if done.stdout == "0\n" else "nobody"


def is_touched(path: str, accessed: float) -> bool:
    """Whether reading changes an access time that is ``accessed``."""
    os.utime(path, (accessed, time.time() - 2 * HOUR))
    before = os.stat(path).st_atime_ns
    if os.path.isdir(path):
        os.listdir(path)
    else:
        with open(path, "rb") as file:
            file.read()
    return os.stat(path).st_atime_ns != before


def read_file(folder: str) -> str:
    """ "always", "never", or "once" for an access time that changes only if it is older than the file's other times."""
    touched = [is_touched(f"{folder}/file", time.time() + hours * HOUR) for hours in (1, -1)]
    return {(True, True): "always", (False, True): "once", (False, False): "never"}[touched[0], touched[1]]


def read_folder(folder: str) -> str:
    return "always" if is_touched(f"{folder}/folder", time.time() + HOUR) else "never"


class Row(NamedTuple):
    """A use of a mount, and what comes of it with the source's own MS_* attributes and with the option."""

    use: Callable[[str], str]
    source: int
    before: str
    after: str


TABLE = {
    "ro": Row(write, 0, "done", "EROFS"),
    "rw": Row(write, MS_RDONLY, "EROFS", "done"),
    "noexec": Row(execute, 0, "done", "EACCES"),
    "exec": Row(execute, MS_NOEXEC, "EACCES", "done"),
    "nosuid": Row(become, 0, "root", "nobody"),
    "suid": Row(become, MS_NOSUID, "nobody", "root"),
    "nodev": Row(open_device, 0, "done", "EACCES"),
    "dev": Row(open_device, MS_NODEV, "EACCES", "done"),
    "nosymfollow": Row(follow, 0, "done", "ELOOP"),
    "symfollow": Row(follow, MS_NOSYMFOLLOW, "ELOOP", "done"),
    "noatime": Row(read_file, MS_STRICTATIME, "always", "never"),
    "atime": Row(read_file, MS_NOATIME, "never", "once"),
    "relatime": Row(read_file, MS_STRICTATIME, "always", "once"),
    "norelatime": Row(read_file, MS_NOATIME, "never", "once"),
    "strictatime": Row(read_file, MS_NOATIME, "never", "always"),
    "nostrictatime": Row(read_file, MS_STRICTATIME, "always", "once"),
    "nodiratime": Row(read_folder, MS_STRICTATIME, "always", "never"),
    "diratime": Row(read_folder, MS_STRICTATIME | MS_NODIRATIME, "never", "always"),
}
DEEP = pytest.mark.parametrize("deep", [False, True], ids=["top", "deep"])


@DEEP
@pytest.mark.parametrize("option", TABLE)
def test_an_option_has_its_effect(bench: Bench, volume: str, option: str, *, deep: bool) -> None:
    use, source, before, after = TABLE[option]
    for folder in (volume, f"{volume}/sub"):
        remount(folder, source)
    bench.mount(request(volume, "/mnt", "rbind", f"r{option}" if deep else option))
    seen = [use(folder) for folder in (bench.inside("/mnt"), bench.inside("/mnt/sub"), volume, f"{volume}/sub")]
    assert seen == [after, after if deep else before, before, before]


# -- what mountinfo tells ----------------------------------------------------------------------------------------------

NOTHING = MS_RELATIME
EVERYTHING = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME | MS_NODIRATIME | MS_NOSYMFOLLOW

# Option -> attributes of the source, and the words of mountinfo that it takes away and brings.
CHANGES = {
    "ro": (NOTHING, "rw", "ro"),
    "rw": (EVERYTHING, "ro", "rw"),
    **{word: (NOTHING, "", word) for word in ("nosuid", "nodev", "noexec", "nodiratime", "nosymfollow")},
    **{word: (EVERYTHING, f"no{word}", "") for word in ("suid", "dev", "exec", "diratime", "symfollow")},
    "noatime": (NOTHING, "relatime", "noatime"),
    "strictatime": (EVERYTHING, "noatime", ""),
    **{word: (EVERYTHING, "noatime", "relatime") for word in ("relatime", "atime", "norelatime", "nostrictatime")},
}


def attributes(path: str) -> set[str]:
    """The attributes of the topmost mount at ``path``, in the words of mountinfo."""
    return set([fields[5] for fields in map(str.split, support.mounts()) if fields[4] == path][-1].split(","))


@DEEP
@pytest.mark.parametrize("option", CHANGES)
def test_an_option_changes_its_own_attribute_only(bench: Bench, volume: str, option: str, *, deep: bool) -> None:
    source, gone, come = CHANGES[option]
    for folder in (f"{volume}/sub", volume):
        remount(folder, source)
    before = attributes(volume)
    assert attributes(f"{volume}/sub") == before
    bench.mount(request(volume, "/mnt", "rbind", f"r{option}" if deep else option))
    after = (before - {gone}) | ({come} if come else set())
    assert after != before
    assert attributes(bench.inside("/mnt")) == after
    assert attributes(bench.inside("/mnt/sub")) == (after if deep else before)
    assert attributes(volume) == attributes(f"{volume}/sub") == before


@pytest.mark.parametrize("source", [NOTHING, EVERYTHING], ids=["nothing", "everything"])
def test_what_is_not_mentioned_is_kept(bench: Bench, volume: str, source: int) -> None:
    remount(f"{volume}/sub", EVERYTHING)
    remount(volume, source)
    bench.mount(request(volume, "/mnt", "rbind"))
    assert attributes(bench.inside("/mnt")) == attributes(volume)
    assert attributes(bench.inside("/mnt/sub")) == attributes(f"{volume}/sub")


# Word -> tags of the mount and of the one below it, where both have been shared.
PROPAGATIONS = {
    "private": ([], ["shared"]),
    "rprivate": ([], []),
    "slave": (["master"], ["shared"]),
    "rslave": (["master"], ["master"]),
    "shared": (["shared"], ["shared"]),
    "rshared": (["shared"], ["shared"]),
    "unbindable": (["unbindable"], ["shared"]),
    "runbindable": (["unbindable"], ["unbindable"]),
}


@pytest.mark.parametrize(("word", "expected"), PROPAGATIONS.items(), ids=PROPAGATIONS)
def test_propagation(bench: Bench, volume: str, word: str, expected: tuple[list[str], list[str]]) -> None:
    for folder in (volume, f"{volume}/sub"):
        propagate(folder, MS_SHARED)
    bench.mount(request(volume, "/mnt", "rbind", word))
    assert (tags(bench.inside("/mnt")), tags(bench.inside("/mnt/sub"))) == expected
