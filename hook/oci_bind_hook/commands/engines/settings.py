# SPDX-License-Identifier: Apache-2.0
"""The files in which docker and containerd name their runtimes: adds and removes what a wrapper needs."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import tomllib
from typing import TYPE_CHECKING, Any

from ...documents.bundle import read_regular
from ...documents.strictjson import MAX_BYTES, documents
from ...errors import DataError, HookError, UnavailableError
from .runtimes import RUNTIMES_PATH
from .written import AS_ROOT, denied, existing, is_taken, read, remove, write_all

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .written import Change

DAEMON_JSON = "/etc/docker/daemon.json"
CONFIG_TOML = "/etc/containerd/config.toml"
PROGRAMS = ("/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")

_DEFAULT = "NAME: containerd provides runc by default only if no runtime is configured"
# The name of containerd's CRI plugin, which has the runtimes, by the version of config.toml.
_CRI = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}
_TYPE = "io.containerd.runc.v2"
_CRI_NAMES = ("cri", *_CRI.values())  # as in disabled_plugins


class Settings:
    """An engine's file, and the runtime ``name`` in it, whose program is the wrapper ``path``.

    ``annotations`` are the keys of annotations that give a container the hook. ``engine``, ``file`` and ``restart``
    (the command that makes the engine read the file again) are for messages.
    """

    engine = ""
    restart = ""
    # What ``removed`` leaves of a file that ``apply`` created, if the engine needs no such file.
    made = ""
    # A regular expression for the runtime NAME as the file's default, and the same in words.
    default = ("", "")

    def __init__(self, file: str, name: str, path: str, annotations: Sequence[str] = ()) -> None:
        self.file = file
        self.name = name
        self.path = path
        self.annotations = list(annotations)

    @property
    def is_installed(self) -> bool:
        """Whether the engine's program is on this machine."""
        return bool(installed(self.program))

    @property
    def why_unused(self) -> str:
        """Why the engine does not use its file, "" if it does."""
        return "" if self.is_installed else f"{self.engine} is not installed"

    @property
    def program(self) -> str:
        """The name of the daemon's program."""
        return self.engine

    def text(self) -> str:
        """Returns the file's content, "" if missing. Raises UnavailableError unless it is a regular file, DataError."""
        if not os.path.lexists(self.file):
            return ""
        if not is_taken(self.file):
            raise UnavailableError(
                "is a link, or not a regular file", where=self.file, hint="add the runtime where this file is generated"
            )
        try:
            data = read_regular(self.file)
            if len(data) > MAX_BYTES:
                raise DataError(self.file, [("", "is too large")])
            return data.decode()
        except UnicodeDecodeError as error:
            raise DataError(self.file, [("", f"is not UTF-8 at byte offset {error.start}")]) from None

    def apply(self) -> list[Change]:
        """Adds the runtime. Returns what was written, including a copy of the original file. Raises HookError."""
        with self._locked():
            return self._write(self.added(self.text()))

    def withdraw(self) -> list[Change]:
        """Removes what ``apply`` added, unless it has been changed. Raises HookError.

        With the last wrapper, also removes a file that ``apply`` created, and the copy if the rest is as it was.
        """
        with self._locked():
            text = self.text()
            left = self.removed(text)
            if left == text or _wrappers_in(left):
                return self._write(left)
            if not is_taken(self._copy):
                return [remove(self.file)] if left == self.made else self._write(left)
            first = read(self._copy, -1)
            if self.meaning(left) != self.meaning(first):
                return self._write(left)
            return [*self._write(first if self.forgets(first) else left), remove(self._copy)]

    def check(self) -> None:
        """Raises HookError if ``apply`` would fail, before anything is written."""
        self.added(self.text())
        folder = existing(os.path.dirname(self.file))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise UnavailableError(f"{folder} is not writable", where=self.file, hint=AS_ROOT)

    @property
    def _copy(self) -> str:
        """The path of the copy: the file before the first wrapper was added."""
        return f"{self.file}.before-oci-bind-hook"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Locks the file's folder against other calls of install, since each rewrites the whole file. KernelError."""
        folder = os.path.dirname(self.file)
        try:
            os.makedirs(folder, exist_ok=True)
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as reason:
            raise denied("open", folder, reason, AS_ROOT) from reason
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, text: str) -> list[Change]:
        before = self.text()
        if text == before:
            return []
        known = os.lstat(self.file) if os.path.lexists(self.file) else None
        mode = stat.S_IMODE(known.st_mode) if known is not None else 0o644
        # The copy is of the file before the first wrapper: a later copy would contain wrappers. An existing copy is of
        # an earlier installation.
        is_first = bool(_wrappers_in(text)) and not _wrappers_in(before)
        copies = {self._copy: (mode, before)} if before and is_first else {}
        changes = write_all({**copies, self.file: (mode, text)})
        if is_first and not before and is_taken(self._copy):
            changes.append(remove(self._copy))
        if known is not None:
            for path in (*copies, self.file):
                os.chown(path, known.st_uid, known.st_gid)
        return changes

    def snippet(self) -> str:
        """Returns what to add to the file by hand. Raises HookError."""
        raise NotImplementedError

    def added(self, text: str) -> str:
        """Returns ``text`` with the runtime. Raises DataError for invalid text, UnavailableError for a taken name."""
        raise NotImplementedError

    def removed(self, text: str) -> str:
        """Returns ``text`` without the runtime, unchanged if it has none or another of this name. Raises HookError."""
        raise NotImplementedError

    def meaning(self, text: str) -> object:
        """Returns the meaning of ``text``, independent of its layout. Raises HookError."""
        raise NotImplementedError

    def forgets(self, _text: str) -> bool:
        """Whether the engine forgets the runtime after ``restart`` with this text. Raises HookError."""
        return True

    def why_needed(self) -> str:
        """Returns why the engine would not start, or not start containers, without the runtime, "" if it would."""
        # By a pattern, so that it works for a link and for a file that only the engine can parse.
        pattern, words = self.default
        is_default = re.search(pattern.replace("NAME", re.escape(self.name)), as_it_is(self.file)) is not None
        return f"{self.file} has {words.replace('NAME', self.name)}" if is_default else ""

    def names_it(self) -> bool:
        """Whether the file names the wrapper, no matter who wrote it or whether it is valid."""
        return self.path in _wrappers_in(as_it_is(self.file))


class Docker(Settings):
    """docker's daemon.json, dockerd(8)."""

    engine = "docker"
    program = "dockerd"
    # SIGHUP: dockerd reads its runtimes again, and containers continue.
    restart = "systemctl reload docker"
    default = (
        r'"default-runtime"\s*:\s*"NAME"',
        '"default-runtime": "NAME", so docker does not start without this runtime',
    )

    def snippet(self) -> str:
        """See ``Settings.snippet``."""
        return json.dumps({"runtimes": {self.name: {"path": self.path}}}, indent=2)

    def _document(self, text: str) -> dict[str, Any]:
        document = documents(text.encode(errors="surrogateescape"), self.file)[0] if text.strip() else {}
        if not isinstance(document, dict) or not isinstance(document.get("runtimes", {}), dict):
            where = "/runtimes" if isinstance(document, dict) else ""
            raise DataError(self.file, [(where, "is not an object")])
        return document

    def added(self, text: str) -> str:
        """See ``Settings.added``."""
        document = self._document(text)
        runtimes = document.setdefault("runtimes", {})
        known = runtimes.get(self.name)
        if known == {"path": self.path}:
            return text
        if known is not None:
            raise UnavailableError(f'has another runtime "{self.name}"', where=self.file, hint="choose another name")
        runtimes[self.name] = {"path": self.path}
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    def meaning(self, text: str) -> object:
        """See ``Settings.meaning``."""
        document = self._document(text)
        return {key: value for key, value in document.items() if key != "runtimes" or value}

    def forgets(self, _text: str) -> bool:
        """See ``Settings.forgets``."""
        return "runtimes" in self._document(_text)

    def removed(self, text: str) -> str:
        """See ``Settings.removed``."""
        document = self._document(text)
        runtimes = document.get("runtimes", {})
        if runtimes.get(self.name) != {"path": self.path}:
            return text
        # Leaves an empty "runtimes": without this member, a reload keeps the runtimes that docker knows.
        del runtimes[self.name]
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


class Containerd(Settings):
    """containerd's config.toml, of version 2, 3 or 4, for its CRI plugin."""

    engine = "containerd"
    restart = "systemctl restart containerd"
    made = "version = 2\n"
    default = (
        r"""(?m)^(?!\s*#).*\bdefault_runtime_name["']?\s*=\s*["']NAME["']""",
        'default_runtime_name = "NAME", so containerd starts no pod without this runtime',
    )

    @property
    def why_unused(self) -> str:
        """See ``Settings.why_unused``. The CRI plugin has the runtimes; docker's own package disables it."""
        try:
            document = self._document(as_it_is(self.file))
        except HookError:
            document = {}
        disabled = f"containerd's CRI plugin is disabled in {self.file}" if disables_cri(document) else ""
        return super().why_unused or disabled

    def snippet(self) -> str:
        """See ``Settings.snippet``."""
        try:
            document = self._document(as_it_is(self.file))
            return "\n".join([*self._default(document), *self._runtime(document)])
        except HookError:
            return "\n".join(self._runtime({"version": 2}))

    def added(self, text: str) -> str:
        """See ``Settings.added``."""
        document = self._document(text)
        wanted = self._wanted(document)
        known = self._runtimes(document).get(self.name)
        if known == wanted:
            return text
        if known is not None:
            left = self.removed(text)
            if left == text:
                hint = "choose another name, or change it by hand"
                raise UnavailableError(f'has another runtime "{self.name}"', where=self.file, hint=hint)
            return self.added(left)
        lines = self._runtime(document)
        new = f"{text.rstrip()}\n" if text.strip() else self.made
        if default := self._default(document):
            new += _block(_DEFAULT, default)
        new += _block(self.name, lines)
        try:
            is_there = self._runtimes(tomllib.loads(new)).get(self.name) == wanted
        except tomllib.TOMLDecodeError:
            is_there = False
        if not is_there:
            hint = "add the runtime by hand"
            raise UnavailableError("has tables in a form to which no table can be appended", where=self.file, hint=hint)
        return new

    def meaning(self, text: str) -> object:
        """See ``Settings.meaning``."""
        return self._document(text)

    def _wanted(self, document: dict[str, Any], like: str = "runc") -> object:
        """Returns the runtime's table as it should be."""
        version = f"version = {document.get('version', 1)}"
        return self._runtimes(tomllib.loads("\n".join([version, *self._runtime(document, like)])))[self.name]

    def removed(self, text: str) -> str:
        """See ``Settings.removed``."""
        document = self._document(text)
        known = self._runtimes(document).get(self.name) if document.get("version", 1) in _CRI else None
        if not isinstance(known, dict):
            return text
        # With the keys that it was written with: uninstall has no annotations, and runc's options may have changed.
        keys = known.get("pod_annotations")
        written = Containerd(self.file, self.name, self.path, keys if isinstance(keys, list) else [])
        if written._wanted(document, like=self.name) != known:
            return text
        text = text.replace(_block(self.name, written._runtime(document, like=self.name)), "", 1)
        default = self._default({"version": document["version"]})
        if self._runtimes(tomllib.loads(text)) == {"runc": {"runtime_type": _TYPE}}:
            text = text.replace(_block(_DEFAULT, default), "", 1)
        return text

    def _document(self, text: str) -> dict[str, Any]:
        try:
            found = tomllib.loads(text) if text.strip() else {"version": 2}
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise DataError(self.file, [("", f"is not valid TOML: {error}")]) from None
        if not isinstance(found.get("version", 1), int):
            raise DataError(self.file, [("/version", "is not a number")])
        return found

    def _plugin(self, document: dict[str, Any]) -> str:
        version = document.get("version", 1)
        if version not in _CRI:
            hint = "`containerd config migrate > NEW`, from containerd 2.0 on, writes a later version"
            known, last = ", ".join(map(str, [*_CRI][:-1])), max(_CRI)
            raise UnavailableError(
                f"has version {version}; only {known} and {last} are supported",
                where=self.file,
                hint=hint if version == 1 else "",
            )
        return _CRI[version]

    def _containerd(self, document: dict[str, Any]) -> dict[str, Any]:
        at: Any = document
        for key in ("plugins", self._plugin(document), "containerd"):
            at = at.get(key) if isinstance(at, dict) else None
        return at if isinstance(at, dict) else {}

    def _runtimes(self, document: dict[str, Any]) -> dict[str, Any]:
        found = self._containerd(document).get("runtimes")
        return found if isinstance(found, dict) else {}

    def _default(self, document: dict[str, Any]) -> list[str]:
        """Returns the table of runc, the default. Without it, the CRI plugin does not load once any runtime is named.

        Returns [] if the table exists or another runtime is the default.
        """
        if (
            "runc" in self._runtimes(document)
            or self._containerd(document).get("default_runtime_name", "runc") != "runc"
        ):
            return []
        table = f'plugins."{self._plugin(document)}".containerd.runtimes.runc'
        return [f"[{table}]", f'  runtime_type = "{_TYPE}"']

    def _runtime(self, document: dict[str, Any], like: str = "runc") -> list[str]:
        table = f'plugins."{self._plugin(document)}".containerd.runtimes."{self.name}"'
        keys = json.dumps(self.annotations)
        lines = [f"[{table}]", f'  runtime_type = "{_TYPE}"']
        lines += [f"  {kind}_annotations = {keys}" for kind in ("pod", "container") if self.annotations]
        lines += [f"  [{table}.options]", f"    BinaryName = {json.dumps(self.path)}"]
        # kubelet and all runtimes must use the same cgroup driver.
        other = self._runtimes(document).get(like)
        options = other.get("options") if isinstance(other, dict) else None
        if isinstance(options, dict) and options.get("SystemdCgroup") is True:
            lines.append("    SystemdCgroup = true")
        return lines


def _block(name: str, lines: Sequence[str]) -> str:
    return "\n".join(["", f"# Added by oci-bind-hook install --runtime {name}", *lines, ""])


def disables_cri(document: dict[str, Any]) -> bool:
    """Whether a config.toml disables containerd's CRI plugin."""
    disabled = document.get("disabled_plugins")
    return isinstance(disabled, list) and any(one in disabled for one in _CRI_NAMES)


def installed(program: str) -> str:
    """Returns the path of an engine's program on this machine, "" if it is not installed."""
    places = (f"{folder}/{program}" for folder in PROGRAMS)
    return next((path for path in places if os.access(path, os.X_OK)), "")


def as_it_is(file: str) -> str:
    """Returns an engine's file as engines read it, links followed; "" if it cannot be read. Changes nothing."""
    try:
        return read_regular(file).decode(errors="replace")
    except HookError:
        return ""


def _wrappers_in(text: str) -> list[str]:
    """Returns the wrappers that JSON or TOML names, as strings that need no escapes."""
    return re.findall(rf"""["'](/[^"'\\\n]*/{re.escape(RUNTIMES_PATH)}/oci-bind-hook-[^"'\\\n/]+)["']""", text)


def dangling() -> list[tuple[str, str]]:
    """Returns the engines' files that name a wrapper that does not exist, each with the wrapper's path."""
    files = {file: _wrappers_in(as_it_is(file)) for file in (DAEMON_JSON, CONFIG_TOML)}
    return [(file, path) for file, paths in files.items() for path in dict.fromkeys(paths) if not os.path.exists(path)]


def of(name: str, path: str, annotations: Sequence[str] = ()) -> list[Settings]:
    """Returns the files of the engines that call runtimes by name, for a wrapper."""
    return [Docker(DAEMON_JSON, name, path, annotations), Containerd(CONFIG_TOML, name, path, annotations)]
