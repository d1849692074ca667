# SPDX-License-Identifier: Apache-2.0
"""SELinux: the labels in config.json and those of sources, and what the policy of this machine allows.

Only for the dry-run. A real run neither reads nor changes a label: docs/SELINUX.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .registered import members

if TYPE_CHECKING:
    from collections.abc import Sequence

FOLDER = "/sys/fs/selinux"  # the mount point of selinuxfs if SELinux is on
_XATTR = "security.selinux"  # xattr(7)
_PERMISSIVE = 1  # SELINUX_AVD_FLAGS_PERMISSIVE: in the flags of "access", the domain is permissive
_READING = ("getattr", "open", "read")
# For each kind of source: its class in a policy, the permissions to read it, and those to write to it.
_CLASSES: dict[str, tuple[str, Sequence[str], Sequence[str]]] = {
    "folder": ("dir", (*_READING, "search"), ("add_name", "remove_name", "write")),
    "file": ("file", _READING, ("write",)),
    "block device": ("blk_file", _READING, ("write",)),
    "character device": ("chr_file", _READING, ("write",)),
    "fifo": ("fifo_file", _READING, ("write",)),
    "socket": ("sock_file", ("getattr", "write"), ()),  # connect(2) requires write, even on a read-only mount
}


def label_of(path: str) -> str | None:
    """Returns the label of the file at ``path``, links followed. None without one, or if this user may not read it."""
    try:
        value = os.getxattr(path, _XATTR)
    except OSError:
        return None
    return os.fsdecode(value.removesuffix(b"\0")) or None


class Labels:
    """The labels in a config.json, and the policy of the kernel, queried in selinuxfs at ``folder``.

    ``process`` is process.selinuxLabel and ``mount`` is linux.mountLabel, each None if missing. ``document`` may be
    invalid.
    """

    def __init__(self, document: object, folder: str = FOLDER) -> None:
        self._folder = folder
        self.process = _text(members(members(document).get("process")).get("selinuxLabel"))
        self.mount = _text(members(members(document).get("linux")).get("mountLabel"))

    def facts(self) -> dict[str, object]:
        """Returns the member "selinux" of schemas/plan.json."""
        return {"process": self.process, "mount": self.mount, "mode": self.mode()}

    def mode(self) -> str | None:
        """Returns the SELinux mode of this machine, "enforcing" or "permissive"; None without SELinux."""
        try:
            return "enforcing" if int(self._read("enforce")) else "permissive"
        except (OSError, ValueError):
            return None

    def denied(self, label: str, kind: str, *, writable: bool) -> list[str]:
        """Returns the permissions for a source, by its class, that the policy denies to the container's processes.

        ``kind`` is that of "found" in schemas/plan.json. Returns [] if all are allowed or that is not known: without
        process.selinuxLabel, without SELinux, with labels that this policy does not have, or in a permissive domain.
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
        """Returns the denied permissions as a warning, for a source with this ``label``."""
        denied = self.denied(label, kind, writable=writable) if label is not None else []
        if not denied:
            return []
        logged = ", which is only logged while SELinux is permissive" if self.mode() == "permissive" else ""
        return [
            f"SELinux denies {self.process} access to {label}: {', '.join(denied)}{logged} (relabel the source:"
            " the hook does not)"
        ]

    def _ask(self, subject: str, target: str, number: int) -> tuple[int, bool]:
        """Returns the permission bits of a process on a file of the class ``number``, and whether it is permissive.

        One write(2) and one read(2) of the file "access", as by security_compute_av(3). Raises OSError, ValueError.
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
