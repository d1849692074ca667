# SPDX-License-Identifier: Apache-2.0
"""A systemd timer and its service, which run ``gc`` for containers without a call of poststop.

Root's are units of the system, an ordinary user's are units of that user (systemd.unit(5)). Both are recognised by the
first line of the service, and belong to the launcher that the service calls.
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

# gc must not slow down containers.
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
# What it does not finish stays recorded for the next run.
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
    """The units in ``folder``: the paths of the ``service`` and the ``timer``, and ``words``, the service's command.

    ``words`` is empty if the service does not exist or install did not write it. ``launcher`` and ``root`` are parts of
    it: the program that runs ``gc``, and its ``--root``.
    """

    def __init__(self, folder: str | None = None) -> None:
        self.is_system = is_system()
        self.folder = os.path.abspath(_default_folder(is_system=self.is_system) if folder is None else folder)
        self.service = os.path.join(self.folder, SERVICE)
        self.timer = os.path.join(self.folder, TIMER)
        self._wanted = os.path.join(self.folder, "timers.target.wants", TIMER)
        self.look()

    def look(self) -> None:
        """Reads the existing service."""
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
        """Whether both units exist and install wrote the service."""
        return bool(self.launcher) and os.path.isfile(self.timer)

    @property
    def is_enabled(self) -> bool:
        """Whether the timer is enabled, as by ``systemctl enable``: by a link in the same folder."""
        return os.path.lexists(self._wanted)

    @property
    def enabling(self) -> str:
        """The command that makes systemd read the units and start the timer, now and at each boot."""
        return f"{self._systemctl} daemon-reload && {self._systemctl} enable --now {TIMER}"

    @property
    def forgetting(self) -> str:
        """The command to run after the units have been removed."""
        return f"{self._systemctl} stop {TIMER}; {self._systemctl} daemon-reload"

    @property
    def _systemctl(self) -> str:
        return "systemctl" if self.is_system else "systemctl --user"

    def contents(self, launcher: str, root: str | None) -> dict[str, str]:
        """Returns the texts of both units by path. UnavailableError for a foreign file, or a path invalid in a unit."""
        for path in (self.service, self.timer):
            if is_taken(path) and read(path).split("\n", 1)[0] != MARK:
                raise UnavailableError("was not written by install", where=path, hint="move the file")
        words = [launcher, "gc", *([] if root is None else ["--root", root])]
        if not self.is_system and (podman := which("podman")):
            # The owners of the leftovers are ids of podman's user namespace.
            words = [podman, "unshare", *words]
        return {self.service: _SERVICE.format(mark=MARK, command=_command(words)), self.timer: _TIMER.format(mark=MARK)}

    def write(self, contents: dict[str, str]) -> list[Change]:
        """Writes both units. Returns their paths with what was done to each. Raises KernelError."""
        changes = write_all({path: (0o644, text) for path, text in contents.items()})
        self.look()
        return changes

    def remove(self, *, even_if_used: bool = False) -> list[Change]:
        """Removes both units, and the link that enables the timer, if the launcher is gone. Returns the removed paths.

        An existing launcher means that registrations still use the timer, which is then only removed ``even_if_used``.
        Raises KernelError.
        """
        if not self.launcher or (os.path.lexists(self.launcher) and not even_if_used):
            return []
        removed = []
        for path in (self._wanted, self.timer, self.service):
            is_ours = os.path.islink(path) if path == self._wanted else read(path).split("\n", 1)[0] == MARK
            if is_ours:
                removed.append(remove(path))
        self.look()
        return removed

    def warnings(self, roots: Sequence[str | None]) -> list[str]:
        """Returns what is wrong with the units if the hook is registered with these ``--root``."""
        if not self.launcher:
            return []
        if not os.path.isfile(self.launcher):
            return [f"{self.launcher}, which it calls, does not exist: run install with --gc-timer again"]
        found = []
        if not os.path.isfile(self.timer):
            found.append(f"{self.timer} does not exist: run install with --gc-timer again")
        elif not self.is_enabled:
            found.append(f"the timer is not enabled: {self.enabling}")
        # Without --root, gc handles all registered state folders; with it, only that one.
        for other in (root for root in roots if self.root is not None and root != self.root):
            said = f"calls gc {_with(self.root)}, but the hook is registered {_with(other)}"
            found.append(f"{said}: for a gc of all registered folders, run install --gc-timer without --root")
        return found


def which(name: str) -> str:
    """Returns the program ``name`` in PATH, "" if none. Relative folders in PATH, such as ".", do not count."""
    paths = (os.path.join(folder, name) for folder in os.get_exec_path() if folder.startswith("/"))
    return next((path for path in paths if os.path.isfile(path) and os.access(path, os.X_OK)), "")


def _with(root: str | None) -> str:
    return "without --root" if root is None else f"with --root {root}"


def is_system() -> bool:
    """Whether this is the machine's root. As for records, root in podman's user namespace is an ordinary user."""
    try:
        return Proc().uid_outside(os.geteuid()) == 0
    except HookError:
        return os.geteuid() == 0


def _default_folder(*, is_system: bool) -> str:
    if is_system:
        return SYSTEM_FOLDER
    return os.path.join(user_settings(), "systemd/user")


def user_settings() -> str:
    """Returns the folder of an ordinary user's settings."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    return home if home.startswith("/") else os.path.expanduser("~/.config")


def _root(words: list[str]) -> str | None:
    try:
        return parse(words)[0].root
    except HookError:  # the file has been edited
        return None


# -- the command line in ExecStart=, systemd.service(5), "Command lines" -----------------------------------------------


def _command(words: Sequence[str]) -> str:
    """Returns a command line for a unit. Raises UnavailableError for a word that it cannot contain."""
    for number, word in enumerate(words):
        # systemd allows neither quotes nor backslashes in the path of a program, even escaped.
        if not word.isprintable() or (number == 0 and re.search(r"""["'\\]""", word)):
            raise UnavailableError("a unit cannot contain this path", where=ascii(word))
    escaped = [word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for word in words]
    # systemd expands variables in all words but the first.
    escaped = [*escaped[:1], *(word.replace("$", "$$") for word in escaped[1:])]
    return " ".join(f'"{word}"' if re.search(r"[^\w/.:=@%+,-]", word) else word for word in escaped)


def _words(line: str) -> list[str]:
    """Returns the words of a command line that ``_command`` wrote."""
    found = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', line)
    words = [re.sub(r"\\(.)", r"\1", quoted) or plain for quoted, plain in found]
    words = [word.replace("%%", "%") for word in words]
    return [*words[:1], *(word.replace("$$", "$") for word in words[1:])]
