# SPDX-License-Identifier: Apache-2.0
"""A systemd timer and its service, which run ``gc``: for containers after whose end nobody calls poststop.

Root's are units of the system, an ordinary user's are units of that user (systemd.unit(5)). Both are known by the first
line of the service, and belong to the launcher that it calls.
"""

from __future__ import annotations

import os
import re

from ...errors import HookError, UnavailableError
from ...kernel.proc import Proc
from ...options import parse
from .launcher import MARK, NAME
from .written import is_taken, read, remove, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .written import Change

SERVICE, TIMER = f"{NAME}-gc.service", f"{NAME}-gc.timer"
SYSTEM_FOLDER = "/etc/systemd/system"

# gc is never pressed for time, and containers are.
_SERVICE = """\
{mark}
# Add nothing that gives the service a mount namespace of its own, such as PrivateTmp=, PrivateMounts=, ProtectSystem=,
# ProtectHome=, ReadOnlyPaths=, RootDirectory= or DynamicUser=: gc would unmount the copies in there, forget the
# containers, and leave their mounts on the host.
[Unit]
Description=Undo the bind mounts that dead containers left behind

[Service]
Type=oneshot
ExecStart={command}
# What it has not finished is still recorded, and the next run goes on with it.
TimeoutStartSec=10min
Nice=10
IOSchedulingClass=idle
"""
_TIMER = """\
{mark}
[Unit]
Description=Look for the bind mounts that dead containers left behind

[Timer]
OnCalendar=hourly
RandomizedDelaySec=10min
Persistent=true

[Install]
WantedBy=timers.target
"""


class Timer:
    """The units in ``folder``: the paths of the ``service`` and the ``timer``, and what the service calls, ``words``.

    ``words`` is empty where the service is not there, or was not written by install. ``launcher`` and ``root`` are
    those of the words: the program that runs ``gc``, and its ``--root``.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.is_system = is_system()
        self.folder = os.path.abspath(_default_folder(is_system=self.is_system) if folder is None else folder)
        self.service = os.path.join(self.folder, SERVICE)
        self.timer = os.path.join(self.folder, TIMER)
        self._wanted = os.path.join(self.folder, "timers.target.wants", TIMER)
        self.look()

    def look(self) -> None:
        """Reads the service that is there now."""
        text = read(self.service)
        line = next((line for line in text.split("\n") if line.startswith("ExecStart=")), "")
        self.words = _words(line.partition("=")[2]) if text.split("\n", 1)[0] == MARK else []
        self.launcher, self.root = "", None
        if "gc" in self.words[1:]:
            at = self.words.index("gc", 1)
            self.launcher = self.words[at - 1]
            self.root = _root(self.words[at + 1 :])

    @property
    def is_there(self) -> bool:
        """Whether both units are there, and are of install."""
        return bool(self.launcher) and os.path.isfile(self.timer)

    @property
    def is_enabled(self) -> bool:
        """Whether the timer is enabled, as ``systemctl enable`` does it: by a link in the same folder."""
        return os.path.lexists(self._wanted)

    @property
    def enabling(self) -> str:
        """The command that makes systemd read the units and start the timer, now and at each boot."""
        return f"{self._systemctl} daemon-reload && {self._systemctl} enable --now {TIMER}"

    @property
    def forgetting(self) -> str:
        """The command for after the units have been removed."""
        return f"{self._systemctl} stop {TIMER}; {self._systemctl} daemon-reload"

    @property
    def _systemctl(self) -> str:
        return "systemctl" if self.is_system else "systemctl --user"

    def contents(self, launcher: str, root: str | None) -> dict[str, str]:
        """The texts of both units by their paths. UnavailableError for a foreign file, or a path no unit can name."""
        for path in (self.service, self.timer):
            if is_taken(path) and read(path).split("\n", 1)[0] != MARK:
                raise UnavailableError("was not written by install", where=path, hint="move the file")
        words = [launcher, "gc", *([] if root is None else ["--root", root])]
        if not self.is_system and (podman := which("podman")):
            # The owners of what is left are ids of podman's user namespace.
            words = [podman, "unshare", *words]
        return {self.service: _SERVICE.format(mark=MARK, command=_command(words)), self.timer: _TIMER.format(mark=MARK)}

    def write(self, contents: dict[str, str]) -> list[Change]:
        """Writes both units and returns their paths, with what was done to each. Raises KernelError."""
        changes = write_all({path: (0o644, text) for path, text in contents.items()})
        self.look()
        return changes

    def remove(self) -> list[Change]:
        """Removes both units, and the link that enables the timer, if the launcher has gone. KernelError.

        While it is there, others use it. Returns the paths that were removed.
        """
        if not self.launcher or os.path.lexists(self.launcher):
            return []
        removed = []
        for path in (self._wanted, self.timer, self.service):
            is_ours = os.path.islink(path) if path == self._wanted else read(path).split("\n", 1)[0] == MARK
            if is_ours:
                removed.append(remove(path))
        self.look()
        return removed

    def warnings(self, roots: Sequence[str | None]) -> list[str]:
        """What is wrong with the units, where the hook is registered with these ``--root``."""
        if not self.launcher:
            return []
        if not os.path.isfile(self.launcher):
            return [f"{self.launcher}, which it calls, does not exist: run install with --gc-timer again"]
        found = []
        if not os.path.isfile(self.timer):
            found.append(f"{self.timer} does not exist: run install with --gc-timer again")
        elif not self.is_enabled:
            found.append(f"is not enabled: {self.enabling}")
        # Without --root it knows all that are registered, and with one that alone.
        for other in (root for root in roots if self.root is not None and root != self.root):
            said = f"calls gc {_with(self.root)}, but the hook is registered {_with(other)}"
            found.append(f"{said}: run install with --gc-timer again")
        return found


def which(name: str) -> str:
    """The program ``name`` in a folder of PATH, "" if there is none. The folder that we are in never counts."""
    paths = (os.path.join(folder, name) for folder in os.get_exec_path() if folder.startswith("/"))
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def _with(root: str | None) -> str:
    return "without --root" if root is None else f"with --root {root}"


def is_system() -> bool:
    """Whether this is the machine's root. Root of podman's user namespace is an ordinary user, as for the records."""
    try:
        return Proc().uid_outside(os.geteuid()) == 0
    except HookError:
        return os.geteuid() == 0


def _default_folder(*, is_system: bool) -> str:
    if is_system:
        return SYSTEM_FOLDER
    return os.path.join(user_settings(), "systemd/user")


def user_settings() -> str:
    """Where an ordinary user has settings of their own."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return home if home.startswith("/") else os.path.expanduser("~/.config")


def _root(words: list[str]) -> str | None:
    try:
        return parse(words)[0].root
    except HookError:  # somebody has edited it
        return None


# -- the words of ExecStart=, systemd.service(5), "Command lines" ------------------------------------------------------


def _command(words: Sequence[str]) -> str:
    """A command line of a unit. UnavailableError for a word that cannot stand there."""
    for number, word in enumerate(words):
        # systemd takes neither quotes nor backslashes in the name of a program, however they are escaped.
        if not word.isprintable() or (number == 0 and re.search(r"""["'\\]""", word)):
            raise UnavailableError("a unit cannot contain this path", where=ascii(word))
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for word in words]
    # Variables are expanded in all words but the first.
    escaped = [*escaped[:1], *(word.replace("$", "$$") for word in escaped[1:])]
    return " ".join(f'"{word}"' if re.search(r"[^\w/.:=@%+,-]", word) else word for word in escaped)


def _words(line: str) -> list[str]:
    """The words of a command line as ``_command`` writes it."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    words = [re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in found]
    words = [word.replace("%%", "%") for word in words]
    return [*words[:1], *(word.replace("$$", "$") for word in words[1:])]
