# SPDX-License-Identifier: Apache-2.0
"""Finds containers by id, in the folders of runtimes and engines and in the state files of this hook.

Only folders of this user and of the machine are searched, never an engine's database. Files in them give the path of
the bundle and the first process.
"""

from __future__ import annotations

import glob
import json
import os
import tomllib
from typing import TYPE_CHECKING, Any, NamedTuple

from ...documents.bundle import read_regular
from ...documents.strictjson import documents
from ...errors import HookError
from ...kernel import files
from ...kernel.proc import Proc, boot_id
from ...options import DEFAULT_ROOT, Options, state_folder
from ...record.folder import StateFolder
from ...record.state_file import is_live
from ..upkeep.folders import at, of
from .meant import CONFIG
from .registered import members, texts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Below /run or $XDG_RUNTIME_DIR: bundles of containerd, including the containerd of docker and that of k3s.
_BUNDLES = tuple(
    f"{each}/io.containerd.runtime.v*/*" for each in ("containerd", "docker/containerd/daemon", "k3s/containerd")
)
# Below the same: state folders of runtimes, whose files name the bundle. Docker and containerd have one per namespace.
_STATES = ("runc", "crun", "youki", "docker/runtime-*/*", "containerd/runc/*")


class Container(NamedTuple):
    """A container of this machine: its id, its bundle, and ``known_by``, what it was found by.

    ``bundle`` is "" if the engine has none now. ``pid`` is the first process, None if it has ended or is not known.
    ``root`` is the state folder with the container's record. ``name`` and ``status`` are the engine's words.
    """

    id: str
    bundle: str
    known_by: str
    pid: int | None = None
    root: str | None = None
    name: str = ""
    status: str = ""

    @property
    def has_config(self) -> bool:
        """Whether its config.json exists, as far as this user can see."""
        return bool(self.bundle) and os.path.lexists(f"{self.bundle}/{CONFIG}")

    def notes(self) -> Iterator[str]:
        """Yields what is known of the container and not in the bundle."""
        if self.name:
            yield f"{self.known_by} knows the container as {self.name}, status: {self.status or 'unknown'}"
        else:
            yield f"the container is known by: {self.known_by}"

    def ended(self) -> bytes:
        """Returns the state that a runtime passes to poststop, as JSON."""
        state = {"ociVersion": "1.0.2", "id": self.id, "status": "stopped", "bundle": self.bundle or "/"}
        return json.dumps(state).encode()

    def line(self) -> str:
        """Returns one line that distinguishes the container from others."""
        return f"{self.id}, {self.known_by}: {self.bundle or 'without a bundle'}"


def find(word: str, root: str | None = None) -> list[Container]:
    """Returns the containers with the id ``word`` or, if there is none, those whose id begins with it.

    ``root`` is the only state folder to search; without it, the default one and the registered ones are searched.
    """
    found: dict[tuple[str, object], Container] = {}
    for each in (*_recorded(word, root), *_of_engines(word), *_of_runtimes(word)):
        key = (each.id, _object(each.bundle))
        known = found.setdefault(key, each)
        found[key] = known._replace(
            known_by=", ".join(dict.fromkeys([*known.known_by.split(", "), each.known_by])),
            pid=known.pid or each.pid,
            root=known.root or each.root,
        )
    exact = [each for each in found.values() if each.id == word]
    return exact or list(found.values())


def is_at(container: Container, bundle: str) -> bool:
    """Whether the container has this bundle, under any path."""
    return bool(container.bundle) and _object(container.bundle) == _object(bundle)


def bundle_of_process(pid: int | None, container: str) -> str:
    """Returns the bundle of the container whose first process is ``pid``, "" if it is not known.

    The parent of that process is containerd's shim. Its current folder is the bundle, wherever the engine keeps it.
    """
    proc = Proc()
    try:
        path = proc.folder_of(proc.parent(pid)) if pid is not None else ""
    except OSError:
        return ""
    return path if os.path.basename(path) == container and os.path.lexists(f"{path}/{CONFIG}") else ""


def _object(path: str) -> object:
    """Returns a key that is the same for all paths of one folder."""
    try:
        stat = os.stat(path)
    except OSError:
        return path
    return stat.st_dev, stat.st_ino


def _recorded(word: str, root: str | None) -> Iterator[Container]:
    """Yields the containers with a state file of this hook, as far as this user can read them."""
    proc = Proc()
    for one in of(at(root or None)):
        path = state_folder(one, proc)
        try:
            folder = StateFolder.open(path, create=False)
            names = [name for name in folder.names() if name.startswith(word)] if folder else []
        except HookError:
            continue
        for name in names:
            try:
                record = folder.load(name) if folder else None
            except HookError:
                continue  # the command list reports it
            if record is not None:
                init = record["init"]
                pid = init["pid"] if init and is_live(record, proc, boot_id()) else None
                yield Container(name, record["bundle"]["path"], f"recorded in {path}", pid, path)


def _of_engines(word: str) -> Iterator[Container]:
    """Yields the containers for which an engine has a folder that is the bundle."""
    for folder in _folders(f"{run}/{each}" for run in _runtime_folders() for each in _BUNDLES):
        for path in _beginning(folder, word):
            yield Container(os.path.basename(path), path, "containerd" if "/moby/" not in path else "docker")
    # CRI-O's bundle is in runroot, podman's in graphroot; both have a folder in each, but config.json only there.
    found: dict[str, Container] = {}
    for storage in _storages():
        for folder in _folders([f"{storage}/*-containers"]):
            for path in _beginning(folder, word):
                each = Container(os.path.basename(path), f"{path}/userdata", "podman or CRI-O")
                if os.path.isdir(each.bundle) and not (each.id in found and found[each.id].has_config):
                    found[each.id] = each
    yield from found.values()


def _of_runtimes(word: str) -> Iterator[Container]:
    """Yields the containers for which a runtime has a folder with a file that names the bundle."""
    proc = Proc()
    for folder in _folders(f"{run}/{each}" for run in _runtime_folders() for each in _STATES):
        for path in _beginning(folder, word):
            state = _read(f"{path}/state.json") or _read(f"{path}/status")
            # runc has the path in a label, "bundle=PATH".
            labels = texts(members(state.get("config")).get("labels"))
            labelled = [each.removeprefix("bundle=") for each in labels if each.startswith("bundle=")]
            bundle = next((each for each in (state.get("bundle"), *labelled) if isinstance(each, str)), "")
            if bundle.startswith("/"):
                yield Container(os.path.basename(path), files.clean_path(bundle), path, _pid(state, proc))


def _pid(state: dict[str, Any], proc: Proc) -> int | None:
    """The pid in a state of runc or crun, None if the process has ended. Its start time detects a reused pid."""
    for pid, start in (("init_process_pid", "init_process_start"), ("pid", "process-start-time")):
        number, begun = state.get(pid), state.get(start)
        if isinstance(number, int) and isinstance(begun, int) and number > 0 and proc.runs(number, begun):
            return number
    return None


def _read(path: str) -> dict[str, Any]:
    """Returns a runtime's state, {} if the file does not exist, cannot be read or is not an object."""
    try:
        return members(documents(read_regular(path), path)[0])
    except HookError:
        return {}


def _folders(patterns: Iterable[str]) -> Iterator[str]:
    for pattern in dict.fromkeys(patterns):
        yield from sorted(glob.glob(pattern))


def _beginning(folder: str, word: str) -> Iterator[str]:
    """Yields the folders in one whose names begin with ``word``; of an unreadable folder, only ``word`` itself."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        names = [word]
    for name in names:
        if name.startswith(word) and os.path.isdir(f"{folder}/{name}"):
            yield f"{folder}/{name}"


# -- locations -------------------------------------------------------------------------------------------------------


def _runtime_folders() -> list[str]:
    """Returns the folders for runtime state that a reboot clears: the machine's and this user's."""
    return list(dict.fromkeys([os.path.dirname(DEFAULT_ROOT), *_of_user()]))


def _of_user() -> list[str]:
    """Returns the runtime folder of an ordinary user, also of one who is root inside `podman unshare`."""
    folder = os.path.dirname(state_folder(Options(), Proc()))
    return [] if folder == os.path.dirname(DEFAULT_ROOT) else [folder]


def _storages() -> Iterator[str]:
    """Yields the folders of containers-storage.conf(5), each runroot before each graphroot."""
    home = os.path.expanduser("~")
    data = os.environ.get("XDG_DATA_HOME") or f"{home}/.local/share"
    settings = os.environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    named = os.environ.get("CONTAINERS_STORAGE_CONF", "")
    paths = ("/usr/share/containers", "/etc/containers", f"{settings}/containers")
    tables = [_table(path) for path in filter(None, (named, *(f"{path}/storage.conf" for path in paths)))]
    runs = [table.get("runroot") for table in tables]
    graphs = [table.get(name) for name in ("graphroot", "rootless_storage_path") for table in tables]
    runs += ["/run/containers/storage", *(f"{folder}/containers" for folder in _of_user())]
    graphs += ["/var/lib/containers/storage", f"{data}/containers/storage"]
    found = [os.path.expandvars(each) for each in (*runs, *graphs) if isinstance(each, str)]
    yield from dict.fromkeys(each for each in found if each.startswith("/"))


def has_stored() -> bool:
    """Whether podman or CRI-O has a container of this user, or one in a storage that the settings name."""
    return any(_folders(f"{storage}/*-containers/*/userdata" for storage in _storages()))


def _table(path: str) -> dict[str, Any]:
    try:
        return members(tomllib.loads(read_regular(path).decode()).get("storage"))
    except (HookError, ValueError, RecursionError):
        return {}
