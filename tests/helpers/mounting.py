# SPDX-License-Identifier: Apache-2.0
"""What the mount tests share: literal trees, mount(2), and a bench on which requests become mounts and go again.

The bench calls the hook's own modules in the order in which the hook does, but without a runtime: the test's mount
namespace plays the container's.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from typing import TYPE_CHECKING, cast

from helpers import support
from oci_bind_hook.kernel import linux
from oci_bind_hook.kernel.mountinfo import MountInfo, MountTable
from oci_bind_hook.kernel.namespace import Namespace
from oci_bind_hook.kernel.proc import Proc, boot_id
from oci_bind_hook.mounting import apply, undo
from oci_bind_hook.mounting.config_mounts import is_runtimes
from oci_bind_hook.mounting.plan import Planner
from oci_bind_hook.mounting.sources import Staged, clone_sources, open_sources
from oci_bind_hook.record import document
from oci_bind_hook.record.state_file import now
from oci_bind_hook.requests.request import DEFAULT_PROPAGATION, Request
from oci_bind_hook.rootfs.identity import identify_path
from oci_bind_hook.rootfs.mount_points import Rootfs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from oci_bind_hook.mounting.plan import Plan
    from oci_bind_hook.record.state_file import MadeRecord, MountRecord, NamespaceKind, Record

    Remarks = list[str]
    Tree = Mapping[str, "bytes | str | Tree"]

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 0x20
MS_NOATIME = 0x400
MS_BIND = 0x1000
MS_MOVE = 0x2000
MS_REC = 0x4000
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
CLONE_NEWNS = 0x20000
CLONE_NEWPID = 0x20000000

_libc = ctypes.CDLL(None, use_errno=True)


def plant(folder: str | os.PathLike[str], tree: Tree) -> str:
    """Make ``tree`` below ``folder``, which need not exist, and return its path.

    A mapping is a folder, bytes are the content of a file, and text is where a link leads.
    """
    os.makedirs(folder, exist_ok=True)
    for name, what in tree.items():
        path = os.path.join(folder, name)
        if isinstance(what, str):
            os.symlink(what, path)
        elif isinstance(what, bytes):
            with open(path, "wb") as file:
                file.write(what)
        else:
            plant(path, what)
    return os.fspath(folder)


def mount(source: str, target: str, kind: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2)."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    if _libc.mount(texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3]) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def dead_fuse(target: str) -> int:
    """Mounts a FUSE on ``target`` that nobody ever answers for, until the fd that this returns is closed."""
    os.makedirs(target, exist_ok=True)
    fd = os.open("/dev/fuse", os.O_RDWR)
    mount("nobody", target, "fuse", data=f"fd={fd},rootmode=40000,user_id=0,group_id=0")
    return fd


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    if _libc.umount2(os.fsencode(target), flags) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    """A bind mount as mount(2) makes it."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))


def remount(target: str, flags: int) -> None:
    """Gives the mount at ``target`` exactly these MS_* attributes."""
    mount("", target, flags=MS_REMOUNT | MS_BIND | flags)


def propagate(target: str, flags: int) -> None:
    """Makes the mount at ``target`` MS_SHARED, MS_PRIVATE or MS_UNBINDABLE."""
    mount("", target, flags=flags)


def tmpfs(target: str, data: str | None = None) -> str:
    """Mounts an empty tmpfs on ``target``, which need not exist, and returns ``target``."""
    os.makedirs(target, exist_ok=True)
    mount("tmpfs", target, "tmpfs", data=data)
    return target


def anew(make: Callable[[], str], number: int) -> str:
    """What ``make`` mounts, and returns the place of, when the device number ``number`` is not free.

    The kernel gives the lowest that is free, and others on the machine mount and unmount at the same time.
    """
    while os.stat(path := make()).st_dev == number:
        umount(path)
        tmpfs(f"{path}-extra")
    return path


def ext4(target: str) -> str:
    """Mounts an empty ext4 on ``target``, which need not exist, and returns it. The loop device goes with it."""
    os.makedirs(target, exist_ok=True)
    with tempfile.NamedTemporaryFile() as image:
        os.truncate(image.name, 4 << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "nodiscard", image.name], check=True)
        subprocess.run(["mount", "-o", "loop", image.name, target], check=True)
    os.rmdir(f"{target}/lost+found")
    return target


def mappable(target: str) -> str:
    """The same, of a kind that can be id-mapped: a tmpfs can since Linux 6.3."""
    return (tmpfs if linux.version() >= (6, 3) else ext4)(target)


def overlay(target: str, *, lower: str) -> str:
    """Mounts an overlay of the folder ``lower``, without an upper layer, and returns ``target``."""
    for folder in (target, empty := f"{target}.empty"):
        os.makedirs(folder, exist_ok=True)
    mount("overlay", target, "overlay", data=f"lowerdir={empty}:{lower}")
    return target


def table(process: int | str = "self") -> list[MountInfo]:
    """The mounts that a process sees."""
    return list(MountTable("\n".join(support.mounts(process))))


def show(*paths: str) -> None:
    """Lets everybody come to ``paths``, here: a folder above them that is closed makes room for an open one.

    That shows nothing but the paths themselves.
    """
    held = {path: os.open(path, os.O_PATH) for path in paths}
    for path in paths:
        names = path.split("/")
        for above in ("/".join(names[:depth]) for depth in range(2, len(names))):
            if os.path.isdir(above) and not os.stat(above).st_mode & 1:
                tmpfs(above, "mode=755")
    for path, fd in held.items():
        # The tmpfs of another path may be above this one, too.
        if not os.path.exists(path) or not os.path.samestat(os.stat(path), os.fstat(fd)):
            os.makedirs(path)
            bind(f"/proc/self/fd/{fd}", path, recursive=True)
        os.close(fd)


def mount_points(below: str) -> list[str]:
    """Where mounts stand below a folder, as paths relative to it, sorted; twice where two are stacked."""
    return sorted(info.mount_point[len(below) :] for info in table() if info.mount_point.startswith(below + "/"))


def line(path: str) -> MountInfo:
    """The line of mountinfo of the topmost mount at ``path``."""
    return [info for info in table() if info.mount_point == path][-1]


def tags(path: str) -> list[str]:
    """The propagation of the mount at ``path``: the optional fields of mountinfo without their numbers."""
    fields = next(fields for fields in map(str.split, support.mounts()) if fields[4] == path)
    return [tag.partition(":")[0] for tag in fields[6 : fields.index("-", 6)]]


def fds() -> set[str]:
    """The numbers of all open fds of this process."""
    # The listing's own fd is among the names, and closed by now.
    return {number for number in os.listdir("/proc/self/fd") if os.path.lexists(f"/proc/self/fd/{number}")}


def request(source: str, destination: str, *options: str, config: bool = False) -> Request:
    """One bind, of config.json or of the command line."""
    place = "config.json: /mounts/0" if config else "--mount 1"
    origin = "config.json#/mounts/0" if config else "--mount 1"
    options = ("bind", DEFAULT_PROPAGATION, *options)
    return Request(origin, place, source, destination, options, origin_kind="mounts" if config else "argument")


def asked(destination: str, kind: str = "tmpfs") -> Request:
    """A mount of config.json that only the runtime makes."""
    found = request(kind, destination, config=True)
    found.type = kind
    return found


class Bench:
    """A rootfs, a source beside it, and the way from requests to attached mounts and back."""

    def __init__(self, path: Path, *, kind: NamespaceKind = "container") -> None:
        self.path = os.fspath(path)
        self.kind = kind
        self.rootfs = plant(path / "rootfs", {"etc": {"passwd": b"root\n"}, "mnt": {}, "file": b""})
        self.source = plant(path / "source", {"word": b"hello\n", "sub": {}})
        self.file = os.fspath(path / "one file")
        (path / "one file").write_bytes(b"one\n")
        self.proc = Proc()
        self.saved: list[Record] = []
        self.staged = Staged((), str, lambda: None, self.proc)

    def own_tmpfs(self, path: str) -> str:
        """Mounts a tmpfs of the container: a runtime first binds the rootfs on itself."""
        if not self.proc.mounts().at(self.rootfs):
            bind(self.rootfs, self.rootfs)
        return tmpfs(self.inside(path))

    def plan(
        self,
        *requests: Request,
        unlock: bool = False,
        recorded: Sequence[MountRecord] = (),
        allow_shared: bool = False,
        assumed: bool = False,
    ) -> Plan:
        """The sources opened and, unless ``assumed``, cloned; every request resolved."""
        namespace = Namespace(self.proc, self.kind, assumed=assumed)
        ours = [each for each in requests if assumed or not is_runtimes(each, self.kind, self.rootfs)]
        sources = open_sources(ours, self.path, namespace)
        if not assumed:
            self.staged.end()  # of an earlier plan that was not carried out
            clone_sources(sources)
            self.staged = Staged(sources, self._make_staging, lambda: os.rmdir(f"{self.path}/staging"), self.proc)
            self.staged.__enter__()
        rootfs = Rootfs(self.rootfs, unlock=unlock, own_tmpfs=lambda at: namespace.is_own_tmpfs(at, self.rootfs))
        return Planner(rootfs, namespace, recorded, allow_shared=allow_shared).resolve(requests, sources)

    def record(self) -> Record:
        """An empty record of a container "c1" of this bench, begun now."""
        return {
            "id": "c1",
            "phase": "intent",
            "created": now(),
            "boot": boot_id(),
            "stage": "createContainer",
            "bundle": {"path": self.path, "dev": 1, "ino": 1},
            "rootfs": identify_path(self.rootfs, self.proc.mounts),
            "user": self.proc.user_namespace(),
            "namespace": {"kind": self.kind, "inode": self.proc.mount_namespace(), "unique": None},
            "init": None,
            "mounts": [],
            "uses": [],
            "made": [],
        }

    def attach(self, plan: Plan, record: Record | None = None, save: Callable[[], None] = lambda: None) -> Record:
        """Carries out a plan without problems. Each record saved is kept in ``saved``, as a reader would parse it."""
        assert plan.problems == []
        mine = self.record() if record is None else record

        def keep() -> None:
            self.saved.append(document.read(document.write(mine), "record"))
            save()

        self.carry_out(plan, mine, keep)
        return mine

    def carry_out(self, plan: Plan, record: Record, save: Callable[[], None]) -> None:
        """mounts.attach, and the end of what was made ready for it."""
        try:
            apply.carry_out(plan, record, save, self.staged.end)
        finally:
            self.staged.__exit__()

    def _make_staging(self) -> str:
        os.mkdir(f"{self.path}/staging")
        return f"{self.path}/staging"

    def mount(self, *requests: Request) -> Record:
        """All at once: plan and attach."""
        return self.attach(self.plan(*requests))

    def undo(
        self, record: Record, keep: Callable[[MadeRecord], bool] = lambda _: False, *, here: bool = True
    ) -> Remarks:
        """Takes down what a record says, with a rootfs opened anew. The remarks are without the path of the rootfs."""
        remarks = map(str, undo.undo(record, self.proc, Rootfs(self.rootfs), keep, here=here))
        return [remark.removeprefix(self.rootfs) for remark in remarks]

    def undo_in(self, rootfs: Rootfs | None, record: Record) -> Remarks:
        """The same with a given rootfs, or none."""
        return [*map(str, undo.undo(record, self.proc, rootfs, lambda _: False, here=True))]

    def descriptors(self) -> list[int]:
        """The fds of this process that lead below the folder of the bench."""
        links = {int(number): os.readlink(f"/proc/self/fd/{number}") for number in fds()}
        return [number for number, path in links.items() if path.startswith(self.path)]

    def inside(self, path: str) -> str:
        """A path of the container as the host finds it."""
        return self.rootfs + path


def forked(action: Callable[[], object]) -> int:
    """A child that does something and ends, with 1 if it failed; its pid."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:  # noqa: BLE001 - a forked child must not get back into the test
            os._exit(1)
        os._exit(0)
    return child


def ended_well(child: int) -> bool:
    """Waits for the end of a child, and tells whether nothing failed in it."""
    return os.waitpid(child, 0)[1] == 0


def unshare() -> None:
    """Moves this process into a mount namespace of its own, a private copy of this one, as a container's is."""
    assert _libc.unshare(CLONE_NEWNS) == 0
    propagate("/", MS_REC | MS_PRIVATE)


def unshare_pids() -> None:
    """The next child is process 1 of a pid namespace of its own, in which all later ones are."""
    assert _libc.unshare(CLONE_NEWPID) == 0


def enter(pid: int) -> None:
    """Moves this process into the mount namespace of another one, setns(2)."""
    fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    assert _libc.setns(fd, CLONE_NEWNS) == 0
    os.close(fd)


def elsewhere(action: Callable[[], object]) -> None:
    """Does something in a mount namespace of its own, as a container does."""

    def act() -> None:
        unshare()
        action()

    assert ended_well(forked(act))


def five(bench: Bench, third: str = "rprivate") -> list[Request]:
    """Binds for which four mount points must be made; ``third`` is the propagation of the third."""
    return [
        request(bench.source, "/new/one"),
        request(bench.file, "/new/two"),
        request(bench.source, "/new/three", third),
        request(bench.source, "/mnt"),
        request(bench.file, "/mnt/word"),
    ]


# Where the five are mounted, and what is made for them.
FIVE = ["/mnt", "/mnt/word", "/new/one", "/new/three", "/new/two"]
MADE = ["/new", "/new/one", "/new/two", "/new/three"]


def look(bench: Bench) -> dict[str, object]:
    """All that a set-up may change and a tear-down must give back."""
    return {
        "tree": support.tree(bench.rootfs),
        "mounts": mount_points(bench.path),
        "source": support.tree(bench.source),
    }


def named(record: Record, container: str, **members: object) -> Record:
    """The same record as another container's, with some members changed."""
    return cast("Record", {**record, "id": container, **members})
