# SPDX-License-Identifier: Apache-2.0
"""SELinux: the labels that config.json names and that sources have, and what the policy of this machine says of them.

Facts of a dry-run only. No run of the hook looks at a label, and none changes one: docs/SELINUX.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .registered import members

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = "/sys/fs/selinux"  # where selinuxfs is mounted if the kernel has SELinux, and it is on
_XATTR = "security.selinux"  # xattr(7)
_PERMISSIVE = 1  # of the flags that "access" answers: the domain is permissive, SELINUX_AVD_FLAGS_PERMISSIVE
_READING = ("getattr", "open", "read")
# By the kind of a source: its class in policies, and what takes to read it and to write to it.
_CLASSES: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "folder": ("dir", (*_READING, "search"), ("add_name", "remove_name", "write")),
    "file": ("file", _READING, ("write",)),
    "block device": ("blk_file", _READING, ("write",)),
    "character device": ("chr_file", _READING, ("write",)),
    "fifo": ("fifo_file", _READING, ("write",)),
    "socket": ("sock_file", ("getattr", "write"), ()),  # connect(2) asks for write, also where a mount is read-only
}


def label_of(path: str) -> str | None:
    """The label of the file at ``path``, links followed; None where it has none, or this user may not ask for it."""
    try:
        value = os.getxattr(path, _XATTR)
    except OSError:
        return None
    return os.fsdecode(value.removesuffix(b"\0")) or None


class Labels:
    """The labels that a config.json names, and the policy of the kernel, asked by selinuxfs in ``folder``.

    ``process`` is process.selinuxLabel and ``mount`` is linux.mountLabel, each None where there is none. ``document``
    is not judged, so it may be anything.
    """

    def __init__(self, document: object, folder: str = FOLDER) -> None:
        self._folder = folder
        self.process = _text(members(members(document).get("process")).get("selinuxLabel"))
        self.mount = _text(members(members(document).get("linux")).get("mountLabel"))

    def facts(self) -> dict[str, object]:
        """The member "selinux" of schemas/plan.json."""
        return {"process": self.process, "mount": self.mount, "mode": self.mode()}

    def mode(self) -> str | None:
        """What this machine does with what its policy denies: "enforcing" or "permissive"; None without SELinux."""
        try:
            return "enforcing" if int(self._read("enforce")) else "permissive"
        except (OSError, ValueError):
            return None

    def denied(self, label: str, kind: str, *, writable: bool) -> list[str]:
        """What the policy does not let the container's processes do to a source, of these permissions of its class.

        ``kind`` is that of "found" in schemas/plan.json. Empty if it lets them, and if nobody can tell: without
        process.selinuxLabel, without SELinux, with labels that this policy does not know, or in a permissive domain.
        """
        name, reading, writing = _CLASSES[kind]
        if self.process is None:
            return []
        try:
            allowed, is_permissive = self._ask(self.process, label, int(self._read(f"class/{name}/index")))
            wanted = [*reading, *(writing if writable else ())]
            bits = {each: 1 << (int(self._read(f"class/{name}/perms/{each}")) - 1) for each in wanted}
        except (OSError, ValueError):
            return []
        return [] if is_permissive else sorted(each for each, bit in bits.items() if not allowed & bit)

    def warnings(self, label: str | None, kind: str, *, writable: bool) -> list[str]:
        """The same as a warning, for a source of this ``label``."""
        denied = self.denied(label, kind, writable=writable) if label is not None else []
        if not denied:
            return []
        logged = ", which is only logged while SELinux is permissive" if self.mode() == "permissive" else ""
        return [
            f"SELinux denies {self.process} access to {label}: {', '.join(denied)}{logged} (relabel the source:"
            " the hook does not)"
        ]

    def _ask(self, subject: str, target: str, number: int) -> tuple[int, bool]:
        """The permissions, as bits, of a process on a file of the class ``number``, and whether they bind nobody.

        One write(2) and one read(2) on the file "access", as security_compute_av(3) makes them. OSError, ValueError.
        """
        fd = os.open(f"{self._folder}/access", os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(fd, os.fsencode(f"{subject} {target} {number}"))
            allowed, _, _, _, _, flags = os.read(fd, 4096).split()
        finally:
            os.close(fd)
        return int(allowed, 16), bool(int(flags, 16) & _PERMISSIVE)

    def _read(self, name: str) -> str:
        with open(f"{self._folder}/{name}", encoding="ascii") as file:
            return file.read()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
