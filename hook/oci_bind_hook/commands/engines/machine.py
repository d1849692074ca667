# SPDX-License-Identifier: Apache-2.0
"""The engines on this machine: which registrations each of them reads, and the command that is still needed."""

from __future__ import annotations

import glob
import json
import os
import re
import stat
import tomllib
from typing import TYPE_CHECKING, Any

from ... import log
from ...documents.strictjson import documents
from ...errors import DataError
from . import cdi, hooks_d, registration, runtimes, settings
from .launcher import LAUNCHER_PATH, prefix_of, runs_this
from .registration import HOOKS_FOLDERS, HOOKS_PATH, PREFIXES
from .runtimes import settings_of
from .timer import is_system, user_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from .registration import Kind, Registration

# The first versions that read CDI by default, and the first that do if their settings enable it.
_CDI = {"docker": ((28, 2), (25, 0)), "containerd": ((2, 0), (1, 7))}
# Engines that read hooks.d, and CDI in all versions that are still in use.
_HOOKS_D = ("podman", "crio")
# Their configuration files in reading order, and the tables in them that name folders.
FILES = {
    "podman": (
        *("/usr/share/containers/containers.conf", "/etc/containers/containers.conf"),
        "/etc/containers/containers.conf.d/*.conf",
    ),
    "crio": ("/etc/crio/crio.conf", "/etc/crio/crio.conf.d/*.conf"),
}
_TABLES = {"podman": ("engine",), "crio": ("crio", "runtime")}
# What they are called in texts, and the file in which root sets something.
_SET_IN = {"podman": ("podman", "/etc/containers/containers.conf"), "crio": ("CRI-O", "/etc/crio/crio.conf")}
PROGRAMS = {"docker": "dockerd", "containerd": "containerd", "podman": "podman", "crio": "crio"}


def syslog() -> str:
    """Returns the socket of the journal or of syslog that the hook sends failures to, "" if neither exists."""
    return next((path for path in (log.JOURNAL_SOCKET, log.SYSLOG_SOCKET) if _is_socket(path)), "")


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def programs() -> Iterator[tuple[str, str]]:
    """Yields the installed engines, each with the path of its program."""
    for name, program in PROGRAMS.items():
        if path := settings.installed(program):
            yield name, path


def serves_docker(name: str) -> bool:
    """Whether an engine is containerd as docker's packages install it: without its CRI plugin."""
    return is_without_cri(name) and bool(settings.installed(PROGRAMS["docker"]))


def is_without_cri(name: str) -> bool:
    """Whether an engine is containerd with its CRI plugin disabled, so that it reads no runtimes from its settings."""
    return name == "containerd" and settings.disables_cri(_settings(name))


def without_hooks_d() -> Iterator[str]:
    """Yields warnings for the installed engines that do not read hooks.d, with what they read."""
    for name, _ in programs():
        if name not in _HOOKS_D and not serves_docker(name):
            first = ".".join(map(str, _CDI[name][0]))
            yield f"{name} does not read hooks.d: use install --cdi NAME (from {first}) or {_by_runtime(name)}"


def folders(name: str, *, is_of_root: bool | None = None) -> tuple[list[str], list[str]]:
    """Returns the hooks.d folders and the CDI folders in the settings of an engine.

    ``is_of_root``: in those of root's engine, not in those of this user's, which is the default.
    """
    is_of_root = is_system() if is_of_root is None else is_of_root
    hooks: list[str] = []
    devices: list[str] = []
    if name in _HOOKS_D:
        for _, table in _tables(name, is_of_root=is_of_root):
            # With its slash at the end, a folder would be another one than that of the same name without.
            hooks = [os.path.normpath(path) for path in _texts(table, "hooks_dir") if path] or hooks
            devices = _texts(table, "cdi_spec_dirs") or devices
    elif name == "docker":
        devices = _texts(_settings(name), "cdi-spec-dirs")
    else:
        devices = [path for table in _plugins(_settings(name)) for path in _texts(table, "cdi_spec_dirs")]
    return hooks, devices


def _tables(name: str, *, is_of_root: bool) -> Iterator[tuple[str, object]]:
    """Yields the files in which an engine's settings name folders, each with the table that does, in reading order.

    podman reads those of an ordinary user last, containers.conf(5).
    """
    patterns = [*FILES[name]]
    if name == "podman" and not is_of_root:
        home = user_settings()
        patterns += [f"{home}/containers/containers.conf", f"{home}/containers/containers.conf.d/*.conf"]
    for path in (path for pattern in patterns for path in sorted(glob.glob(pattern))):
        yield path, _at(_toml(path), *_TABLES[name])


def to_read(folder: str) -> str:
    """Returns what makes the engines here that read hooks.d read ``folder``, too: for each, a setting and its file.

    Without any, those of podman.
    """
    names = [name for name, _ in programs() if name in _SET_IN]
    if not names or ("podman" in names and not is_system()):
        names = ["podman"]  # an ordinary user changes only their own settings
    return "; ".join(f"for {_SET_IN[name][0]}, set {_setting(name, folder)}" for name in names)


def _setting(name: str, folder: str) -> str:
    """Returns the setting that makes an engine read ``folder``, too, and its file: the last that has it now."""
    file = _SET_IN[name][1]
    if name == "podman" and not is_system():
        file = f"{user_settings()}/containers/containers.conf"
    for path, table in _tables(name, is_of_root=is_system()):
        own = name != "podman" or is_system() or path.startswith(f"{user_settings()}/")
        file = path if own and _texts(table, "hooks_dir") else file
    listed = folders(name)[0] or [hooks_d.FOLDERS[0]]  # the setting replaces the default
    text = json.dumps([*listed, folder], ensure_ascii=False)
    return f"hooks_dir = {text} below [{'.'.join(_TABLES[name])}] in {file}"


def is_for_all_users(folder: str) -> bool:
    """Whether other users' engines call the hook if this user registers it in ``folder``: root, or where all read."""
    hooks, devices = folders("podman", is_of_root=True)
    return is_system() or folder in (hooks_d.FOLDERS[0], *cdi.FOLDERS, *hooks, *devices)


def why_unread(folder: str) -> str:
    """Returns why no engine, root's or this user's, reads a hooks.d folder, and what to do; "" if one reads it."""
    known = [hooks_d.FOLDERS[0], *named()[0], *folders("podman", is_of_root=True)[0]]
    if folder in known:
        return ""
    return f"podman and CRI-O read {folder} only if their hooks_dir contains it: {to_read(folder)}"


def unread(found: Iterable[Registration]) -> dict[str, str]:
    """Returns the files of those registrations in hooks.d that no installed engine reads, each with ``why_unread``."""
    if not any(name in _HOOKS_D for name, _ in programs()):
        return {}
    paths = [one.path for one in found if one.kind == "hooks.d"]
    reasons = {folder: why_unread(folder) for folder in map(os.path.dirname, paths)}
    return {path: why for path in paths if (why := reasons[os.path.dirname(path)])}


def named() -> tuple[list[str], list[str]]:
    """Returns the hooks.d folders and the CDI folders in the settings of all engines."""
    found = [folders(name) for name in PROGRAMS]
    return [path for hooks, _ in found for path in hooks], [path for _, devices in found for path in devices]


def searched() -> tuple[list[str], list[str]]:
    """Returns the hooks.d folders and the CDI folders that engines read by default or by their settings, each once."""
    hooks, devices = named()
    return list(dict.fromkeys([*hooks_d.FOLDERS, *hooks])), list(dict.fromkeys([*cdi.FOLDERS, *devices]))


def places() -> tuple[list[str], list[str], list[str]]:
    """Returns all folders of hooks.d, CDI and wrappers that the engines here read or that install writes to."""
    hooks, devices = named()
    own = [os.path.expanduser(prefix) for prefix in PREFIXES]
    hooks = [*HOOKS_FOLDERS, *(os.path.join(prefix, HOOKS_PATH) for prefix in own), *hooks]
    wrappers = [os.path.dirname(path) for name in _CDI for path in _runtimes(name)]
    wrappers = [*runtimes.FOLDERS, *(os.path.join(prefix, runtimes.RUNTIMES_PATH) for prefix in own), *wrappers]
    return list(dict.fromkeys(hooks)), [*cdi.FOLDERS, *devices], list(dict.fromkeys(wrappers))


def base_specs() -> list[Registration]:
    """Returns the registrations in base specs that containerd's runtimes name, as far as they can be read."""
    found = []
    for plugin in _plugins(_settings("containerd")):
        runtimes_of_it = plugin.get("containerd", {}).get("runtimes")
        for name, table in runtimes_of_it.items() if isinstance(runtimes_of_it, dict) else ():
            path = _at(table, "base_runtime_spec")
            if isinstance(path, str) and (one := registration.of_base_spec(path, name)) is not None:
                found.append(one)
    return found


def everywhere() -> list[Registration]:
    """Returns all registrations of this hook on this machine, as far as they can be read."""
    return [*registration.find(*places()), *base_specs()]


def prefixes() -> list[str]:
    """Returns the prefixes below which a launcher runs this installation of the program, as far as they are known."""
    launchers = {os.path.join(os.path.expanduser(prefix), LAUNCHER_PATH) for prefix in PREFIXES}
    launchers.update(one.launcher for one in everywhere())
    return sorted(prefix for path in launchers if (prefix := prefix_of(path)) and runs_this(path))


def _texts(table: object, name: str) -> list[str]:
    found = table.get(name) if isinstance(table, dict) else None
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []


def _at(document: object, *keys: str) -> object:
    for key in keys:
        document = document.get(key) if isinstance(document, dict) else None
    return document


def missing(name: str, version: str, kinds: Iterable[Kind]) -> str:
    """Returns the command that makes the engine ``name`` call the hook, "" if it already does.

    ``version`` is what its program prints, ``kinds`` are the kinds of existing registrations.
    """
    if name in _HOOKS_D:
        return "" if {"hooks.d", "CDI"} & {*kinds} else "install --prefix /usr -- --mount ..."
    if serves_docker(name) or (is_without_cri(name) and "runtime" in kinds):
        return ""
    if any(settings_of(path) is not None for path in _runtimes(name)) or (name == "containerd" and base_specs()):
        return ""
    if knows_cdi(name, version):
        return "" if "CDI" in kinds else "install --cdi NAME -- --mount ..."
    return f"{_by_runtime(name)} -- --mount ..."


def _by_runtime(name: str) -> str:
    """Returns the command that adds a runtime. Without its CRI plugin, only `ctr run --runc-binary` calls it."""
    return "install --runtime NAME" if is_without_cri(name) else "install --runtime NAME --apply"


def knows_cdi(name: str, version: str) -> bool:
    """Whether an engine reads CDI, by the version that its program prints and by its settings."""
    if name not in _CDI:
        return True
    found = re.search(r"(\d+)\.(\d+)", version)
    number = (int(found[1]), int(found[2])) if found else (0, 0)
    by_default, if_enabled = _CDI[name]
    return number >= by_default or (number >= if_enabled and _enables_cdi(name))


def _runtimes(name: str) -> Iterator[str]:
    """Yields the programs that an engine's settings name as runtimes."""
    document = _settings(name)
    if name == "docker":
        tables = [document.get("runtimes")]
        key: tuple[str, ...] = ("path",)
    else:
        tables = [table.get("containerd", {}).get("runtimes") for table in _plugins(document)]
        key = ("options", "BinaryName")
    for table in tables:
        for runtime in table.values() if isinstance(table, dict) else ():
            if isinstance(path := _at(runtime, *key), str):
                yield path


def _enables_cdi(name: str) -> bool:
    document = _settings(name)
    if name == "docker":
        features = document.get("features")
        return isinstance(features, dict) and features.get("cdi") is True
    return any(table.get("enable_cdi") is True for table in _plugins(document))


def _plugins(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields the tables of containerd's CRI plugin, of any version."""
    plugins = document.get("plugins")
    for name, table in plugins.items() if isinstance(plugins, dict) else ():
        if "cri" in name and isinstance(table, dict) and isinstance(table.get("containerd", {}), dict):
            yield table


def _settings(name: str) -> dict[str, Any]:
    """Returns the settings of docker or containerd, {} if missing or invalid. The engine reports invalid ones."""
    if name == "containerd":
        return _toml(settings.CONFIG_TOML)
    text = settings.as_it_is(settings.DAEMON_JSON)
    try:
        found = documents(text.encode(errors="surrogateescape"), settings.DAEMON_JSON)[0] if text.strip() else {}
    except DataError:
        found = {}
    return found if isinstance(found, dict) else {}


def _toml(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(settings.as_it_is(path))
    except (tomllib.TOMLDecodeError, RecursionError):
        return {}
