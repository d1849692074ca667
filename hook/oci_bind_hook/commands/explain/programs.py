# SPDX-License-Identifier: Apache-2.0
"""Which binds cover what the container runs: its program, the interpreters, and the links to them.

The walk of a real run resolves all paths in the rootfs without the binds. A bind covers a path if its destination is
that path or a folder above. What cannot be resolved or read is skipped, since it is not known to run.
"""

from __future__ import annotations

import os
import stat as modes
import struct
from typing import TYPE_CHECKING, NamedTuple

from ...errors import HookError
from ...kernel.linux import decode_path
from ...log import few
from ...rootfs.walk import Root
from .registered import members, texts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from ...mounting.plan import Bind, Plan
    from ...rootfs.walk import Target

# The PATH that crun uses if config.json sets none.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HEAD = 4096  # bytes: more than an ELF header with its segment table, or the first line of a script
_LINE = 256  # bytes of a script that the kernel reads, BINPRM_BUF_SIZE
_MOST_STEPS = 8  # the kernel follows four interpreters; env(1) adds to them
_MOST_LINKS = 10_000
_PT_INTERP = 3  # elf(5)
_TEXT = bytes([*b"\t\n\f\r", *range(0x20, 0x7F), *range(0x80, 0x100)])  # bytes that a UTF-8 text may have


class _Needed(NamedTuple):
    """A ``path`` that a program needs to start as it is, and ``what`` is there."""

    path: str
    what: str


def warnings(plan: Plan, document: object) -> dict[Bind, list[str]]:
    """Returns warnings for each bind of the hook that covers a program of the container with this config.json."""
    found: dict[Bind, list[str]] = {}
    binds = [bind for bind in plan.binds if bind.action == "mount" and not bind.request.is_root]
    if not binds:
        return found
    image = _Image(Root(plan.rootfs.fd), members(members(document).get("process")))
    needed = image.needed()
    for bind in binds:
        if bind.target is not None:
            below = bind.target.path.rstrip("/") + "/"
            covered = [f"covers {each.path}, {each.what}" for each in needed if f"{each.path}/".startswith(below)]
            found[bind] = [*covered[:1], *image.names_of(bind.target)]
    return found


class _Image:
    def __init__(self, root: Root, process: dict[str, Any]) -> None:
        self._root = root
        self._args = texts(process.get("args"))
        self._cwd = process["cwd"] if isinstance(process.get("cwd"), str) else "/"
        env = dict(text.partition("=")[::2] for text in texts(process.get("env")))
        self._path = env.get("PATH", PATH)
        self._names: list[tuple[str, str]] | None = None

    def needed(self) -> list[_Needed]:
        """Returns the program and its interpreters, and then the links on the way to them."""
        places, links = [], []
        names = [(name, "the program of process.args") for name in self._args[:1]]
        for _ in range(_MOST_STEPS):
            if not names:
                break
            name, what = names.pop(0)
            target = self._look_up(name)
            if target is None:
                continue
            places.append(_Needed(target.path, what))
            links += [_Needed(at, f"a link that leads to {what}") for at, _ in target.links]
            names[:0] = [(name, f"the interpreter of {target.path}") for name in interpreters(target)]
            target.close()
        return [*places, *links]

    def _look_up(self, name: str) -> Target | None:
        """Returns the program that a name refers to, as execvp(3) finds it, or None."""
        for folder in [""] if "/" in name else self._path.split(":"):
            target = self._resolve(os.path.join("/", self._cwd, folder, name))
            if target is None:
                continue
            stat = target.last.stat
            if stat is not None and modes.S_ISREG(stat.mode) and stat.mode & 0o111:
                return target
            target.close()
        return None

    def _resolve(self, path: str) -> Target | None:
        try:
            return self._root.resolve(path)
        except (HookError, ValueError):  # ValueError: a NUL, which no file name can have
            return None

    def names_of(self, target: Target) -> Iterator[str]:
        """Warns about a file that other programs are links to, as in images with busybox."""
        last = target.last
        if not last.exists or last.folder or last.is_link:
            return
        own = {at for at, _ in target.links}
        names = [name for name, path in self._links() if path == target.path and name not in own]
        if len(names) < 2:
            return
        hint = ": with the field nofollow, the bind is on the link alone" if own else ""
        yield f"covers {target.path}, which {few(names)} are links to{hint}"

    def _links(self) -> list[tuple[str, str]]:
        """Returns the links in the folders of programs as pairs of paths: the link, and where it leads."""
        if self._names is None:
            self._names = [*self._find_links()]
        return self._names

    def _find_links(self) -> Iterator[tuple[str, str]]:
        left = _MOST_LINKS
        seen = set()
        for folder in dict.fromkeys([*self._path.split(":"), *PATH.split(":")]):
            target = self._resolve(os.path.join("/", self._cwd, folder))
            if target is None:
                continue
            names = [] if target.missing or target.path in seen else _link_names(target)
            seen.add(target.path)
            target.close()
            for name in names[:left]:
                path = f"{target.path.rstrip('/')}/{name}"
                end = self._resolve(path)
                if end is not None:
                    end.close()
                    yield path, end.path
            left -= len(names)
            if left <= 0:
                return


def _link_names(folder: Target) -> list[str]:
    """Returns the names of the links in a folder, sorted."""
    try:
        fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder.anchor.fd)
    except OSError:
        return []
    try:
        with os.scandir(fd) as entries:
            return sorted(entry.name for entry in entries if entry.is_symlink())
    except OSError:
        return []
    finally:
        os.close(fd)


def interpreters(program: Target) -> list[str]:
    """Returns the paths of a program's interpreters, by its first line or its ELF header; [] if it needs none."""
    head = _head(program)
    if not head.startswith(b"#!"):
        found = _elf_interpreter(head, program)
        return [decode_path(found)] if found else []
    words = decode_path(head[2:_LINE].partition(b"\n")[0]).split()
    if not words or words[0].rpartition("/")[2] != "env":
        return words[:1]
    return [words[0], *[word for word in words[1:] if word[:1] != "-" and "=" not in word][:1]]


def is_text(program: Target) -> bool:
    """Whether a program is a text without an interpreter in its first line. The kernel does not run such a script."""
    head = _head(program)
    return bool(head) and not head.startswith(b"#!") and not head.translate(None, _TEXT)


def same_machine(program: Target) -> bool:
    """Whether a program is no ELF file or one for this processor. Others may be emulated."""
    head = _head(program)
    if head[:4] != b"\x7fELF":
        return True
    with open("/proc/self/exe", "rb") as file:
        own = file.read(20)
    return (head[4:6], head[18:20]) == (own[4:6], own[18:20])  # class, byte order, e_machine of elf(5)


def _head(target: Target, size: int = _HEAD, offset: int = 0) -> bytes:
    """Returns ``size`` bytes of a regular file at ``offset``, b"" if it cannot be read."""
    try:
        fd = os.open(f"/proc/self/fd/{target.anchor.fd}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return os.pread(fd, size, offset)
    except (OSError, OverflowError):
        return b""
    finally:
        os.close(fd)


def _elf_interpreter(head: bytes, target: Target) -> bytes:
    """Returns the path in the segment PT_INTERP, elf(5); b"" if there is none."""
    order = {1: "<", 2: ">"}.get(head[5]) if head[:4] == b"\x7fELF" and len(head) >= 64 else None
    if order is None:
        return b""
    is_64 = head[4] == 2
    table = struct.unpack_from(f"{order}Q" if is_64 else f"{order}I", head, 32 if is_64 else 28)[0]
    size, count = struct.unpack_from(f"{order}2H", head, 54 if is_64 else 42)
    # The format reads p_type, p_offset and p_filesz.
    form, needs = (f"{order}I4xQ16xQ", 40) if is_64 else (f"{order}2I8xI", 20)
    segments = _head(target, min(size * count, 1 << 16), table)
    for at in range(0, len(segments) - needs + 1, max(size, needs)):
        kind, offset, length = struct.unpack_from(form, segments, at)
        if kind == _PT_INTERP:
            return _head(target, min(length, _HEAD), offset).partition(b"\0")[0]
    return b""
