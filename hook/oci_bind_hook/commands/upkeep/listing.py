# SPDX-License-Identifier: Apache-2.0
"""What is recorded, compared with processes, the mount table and the rootfs.

Changes nothing and takes no lock, so any user who may read the state folder can call it at any time.
"""

from __future__ import annotations

import errno
import json

from ...documents.acceptor import head
from ...errors import HookError, LeftoverError, MissingError, RecordError
from ...kernel import asking, linux
from ...kernel.proc import Proc, boot_id, quoted
from ...lifecycle.claims import Claims
from ...lifecycle.reach import Removal, find_rootfs, is_in_this_namespace, listen, silent_hint, why_silent
from ...lifecycle.tear_down import foreign
from ...lifecycle.witness import Witness
from ...log import one_line
from ...mounting.undo import difference
from ...options import Options, state_folder
from ...record.folder import StateFolder
from ...record.held import Users, peek
from ...record.state_file import is_of_another_user
from ...rootfs.identity import primary
from ..explain.by_name import recorded
from ..json_text import json_text
from . import folders
from .folders import Folder, problem_member
from .replaced import sources_now
from .requested_by import Requesters

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Literal

    from ...lifecycle.witness import Has
    from ...record.state_file import MadeRecord, Record, RootfsRecord
    from ...rootfs.mount_points import Rootfs

    Status = Literal["alive", "dead", "unknown", "leftover", "unreadable"]
    Standing = Literal["there", "covered", "gone", "changed", "unseen"]

_MOUNTED = {True: "mounted", False: "gone", None: "unseen"}


class Entry:
    """What is known of one container, with the members of schemas/records.json.

    ``status`` is "alive", "dead", "unknown", "leftover" (a run was killed before it recorded anything) or "unreadable",
    with its ``problem``. ``reason`` explains the status, ``advice`` says what to do. ``busy``: a run is using the
    container now, or its rootfs does not answer; then ``silent`` says why.
    """

    def __init__(self, container: str, folder: str, record: Record | None, *, busy: bool) -> None:
        self.id = container
        self.folder = folder
        self.record = record
        self.status: Status = "leftover"
        self.reason = "a run was killed before it recorded anything"
        self.advice = ""
        self.busy = busy
        self.is_foreign = False  # recorded in another user namespace
        self.silent = ""
        self.files: list[str] = []
        self.mounts: list[dict[str, object]] = []
        self.made: list[dict[str, object]] = []
        self.problem: HookError | None = None

    @property
    def is_over(self) -> bool:
        """Whether there is something to undo, and no run is using the container."""
        return self.problem is None and self.status in ("dead", "leftover") and not self.busy

    @property
    def rootfs(self) -> RootfsRecord | None:
        """The rootfs in its record, None without a record."""
        return self.record["rootfs"] if self.record is not None else None

    def document(self) -> dict[str, object]:
        """Returns the entry as JSON. Without a record, the members that come from it are null."""
        found: dict[str, object] = {
            "id": self.id,
            "folder": self.folder,
            **{name: getattr(self, name) for name in ("status", "reason", "advice", "busy", "files", "mounts", "made")},
            **dict.fromkeys(("phase", "created", "stage", "bundle", "rootfs", "namespace", "init")),
        }
        found["files"] = [one_line(name) for name in self.files]
        if record := self.record:
            found.update({name: record[name] for name in ("phase", "created", "stage", "init")})
            found["namespace"] = {name: record["namespace"][name] for name in ("kind", "inode")}
            found.update({name: record[name]["path"] for name in ("bundle", "rootfs")})
        return {**found, **problem_member(self.problem)}


class Registry:
    """A state folder, and the facts of this machine to compare with. Raises RecordError if the folder is unusable."""

    def __init__(self, options: Options) -> None:
        self.proc = Proc(options.root)
        self.boot = boot_id()
        self.path = state_folder(options, self.proc)
        self.folder = StateFolder.open(self.path, create=False)
        self.command = "list"  # the command that shows a live container of another user namespace
        self._here = self.proc.user_namespace()
        self._users: dict[tuple[int, int], Users] = {}
        self._silent: dict[frozenset[int], str] = {}  # sets of mounts that did not answer, and why
        self.look_around()

    def look_around(self) -> None:
        """Reads the mount table again, and which process is in which mount namespace."""
        self.witness = Witness(self.proc, Claims(self.folder.everyone if self.folder else lambda: ([], []), self.proc))
        self._silence = listen(self.witness.table, self._silent)

    def names(self) -> list[str]:
        """Returns the containers that have any file in the folder."""
        return list(self.folder.names() if self.folder else ())

    def entry(self, container: str, *, locked: bool = False) -> Entry | None:
        """Returns what is known of a container, None if its files are gone. ``locked``: the caller has its lock."""
        if self.folder is None or not (files := self.folder.files(container)):
            return None
        busy = not locked and self.folder.is_locked(container)
        try:
            record = self.folder.load(container)
        except RecordError as problem:
            entry = Entry(container, self.path, None, busy=busy)
            entry.status, entry.reason, entry.problem = "unreadable", problem.problem, problem
            entry.advice = problem.hint
        else:
            entry = Entry(container, self.path, record, busy=busy)
            if record is not None:
                self._compare(entry, record)
            elif busy:
                entry.status, entry.reason = "unknown", "a run has just begun"
            else:
                entry.advice = self.proc.command("gc")
        entry.files = files
        return entry

    def _compare(self, entry: Entry, record: Record) -> None:
        entry.is_foreign = is_of_another_user(record, self._here)
        entry.status, entry.reason = self.witness.judge(record)
        if entry.is_foreign and entry.status == "alive":
            entry.reason += "; its binds are visible only in the user namespace in which it was recorded"
        elif entry.is_foreign:
            entry.status, entry.reason = "unknown", "it was recorded in another user namespace"
        has: Has = (lambda _: None) if entry.is_foreign else self.witness.look(record)
        for mount in record["mounts"]:
            requested = mount["requested"]
            entry.mounts.append(
                {
                    "origin": mount["by"],
                    "time": mount.get("time"),
                    **{name: requested[name] for name in ("source", "subpath") if name in requested},
                    "destination": requested["destination"],
                    "resolved": mount["resolved"],
                    "state": _MOUNTED[has(mount)],
                    "source_now": None,
                    "registration": None,
                }
            )
        if not entry.is_foreign:
            entry.silent = why_silent(record, self.proc, self.boot, lambda: self._silence, asking.SECONDS)
        entry.busy = entry.busy or bool(entry.silent)
        unseen = "it is in another user namespace" if entry.is_foreign else entry.silent
        entry.made = self._standings(record, unseen)
        self._advise(entry, record)

    def look_at_sources(self, entry: Entry) -> None:
        """Sets ``source_now`` of the mounted binds: what their source paths lead to."""
        if entry.record is None:
            return
        pairs = [*zip(entry.mounts, entry.record["mounts"], strict=True)]
        pairs = [(shown, mount) for shown, mount in pairs if shown["state"] == "mounted"]
        found = sources_now([mount for _, mount in pairs], entry.record["bundle"]["path"], self.witness.table)
        for (shown, _), now in zip(pairs, found, strict=True):
            shown["source_now"] = now

    def _advise(self, entry: Entry, record: Record) -> None:
        missing = [mount for mount in entry.mounts if mount["state"] == "gone"]
        if entry.silent:
            entry.reason += f"; its rootfs cannot be inspected: {entry.silent}"
            entry.advice = silent_hint(self.proc)
        elif entry.busy:
            entry.reason += "; a run of the hook works on it now"
        elif entry.is_foreign:
            command = self.command if entry.status == "alive" else "gc"
            entry.advice = foreign(record, self.proc, command).hint
        elif entry.status == "dead":
            entry.advice = self.proc.command("gc")
        elif entry.status == "unknown":
            state = {"ociVersion": "1.0.2", "id": entry.id, "status": "stopped", "bundle": record["bundle"]["path"]}
            poststop = self.proc.command("poststop")
            entry.advice = f"if it has ended: echo {quoted(json.dumps(state))} | {poststop}"
        elif record["phase"] != "done":
            entry.reason += f'; a run of the hook was killed in the phase "{record["phase"]}"'
            entry.advice = f"stop the container: poststop, or {self.proc.command('gc')}, then undoes the rest"
        elif missing:
            entry.reason += f"; no longer mounted: {len(missing)} of {len(entry.mounts)} binds"
            entry.advice = "another process unmounted them: restart the container"

    def _standings(self, record: Record, unseen: str) -> list[dict[str, object]]:
        """Returns the state of each created mount point: "there", "covered" by a mount, "gone", "changed" or "unseen".

        ``unseen`` is why they must not be inspected, "" if they may be.
        """
        here = is_in_this_namespace(record, self.proc, self.boot)
        rootfs = None
        try:
            found = find_rootfs(record, self.proc) if record["made"] and not unseen else None
            rootfs = found[0] if found else None
        except LeftoverError as problem:
            unseen = problem.problem
        standings: list[dict[str, object]] = []
        for made in record["made"]:
            state, reason = ("unseen", unseen) if unseen else _state(record, made, rootfs, here=here)
            where = {"path": made["path"], "kind": made["kind"], "filesystem": made["filesystem"]}
            standings.append({**where, "state": state, "reason": reason})
        if rootfs is not None:
            rootfs.close()
        return standings

    def users(self, record: Record) -> Users:
        """Returns the containers on the same rootfs, as of the first call for that rootfs."""
        if self.folder is None:
            return Users(())
        with Removal(record, self.proc) as removal:
            at = primary(removal.now)
            if at not in self._users:
                self._users[at] = peek(self.folder, removal.now, self.boot)
        return self._users[at]

    def heir(self, path: str, container: str, users: Users) -> Record | None:
        """Returns the live container that takes over what ``container`` created at ``path``, None without one."""
        return users.heir(path, container, self.lives)

    def lives(self, record: Record) -> bool:
        """Whether the container of a record may still be alive."""
        return self.witness.judge(record)[0] != "dead"


def _state(record: Record, made: MadeRecord, rootfs: Rootfs | None, *, here: bool) -> tuple[Standing, str]:
    on_tmpfs = made["filesystem"] == "tmpfs"
    if rootfs is None:
        return "gone", "the rootfs was removed or replaced"
    if on_tmpfs and not here:
        return "unseen", "it is on a tmpfs of the container's own"
    try:
        found = rootfs.find(made["path"], across=on_tmpfs)
    except OSError as reason:
        return "covered" if reason.errno == errno.EBUSY else "unseen", reason.strerror or ""
    if found is None:
        return "gone", ""
    try:
        if found.stat.mount_root or (found.stat.mnt_id != rootfs.stat.mnt_id and not on_tmpfs):
            return "covered", "something is mounted on it"
        stranger = difference(record, made, found.stat, rootfs)
        return ("changed", stranger) if stranger else ("there", "")
    finally:
        found.close()


def registries(options: Options, wanted: Sequence[str]) -> tuple[list[Folder], list[tuple[Registry, list[str]]]]:
    """Returns the state folders that ``options`` select, and for each usable one its containers, or those ``wanted``.

    ``wanted`` are words as for by_name.recorded. Raises UsageError for an ambiguous one, MissingError for an unknown
    one, and RecordError if that may be in an unusable folder, or if no folder is usable.
    """
    found, usable, problems = [], [], []
    for one in folders.of(options):
        try:
            registry = Registry(one)
            names = registry.names()
        except RecordError as problem:
            found.append(Folder(state_folder(one, Proc()), problem))
            problems.append(problem)
        else:
            found.append(Folder(registry.path, is_there=registry.folder is not None))
            usable.append((registry, names))
    known = {name for _, names in usable for name in names}
    if wanted:
        wanted = [recorded(word, known) for word in wanted]
        usable = [(registry, [name for name in wanted if name in names]) for registry, names in usable]
    missing = [name for name in wanted if name not in known]
    if problems and (missing or not usable):
        raise problems[0]
    if missing:
        where = " or ".join(each.path for each in found)
        raise MissingError(f'nothing is recorded for a container "{missing[0]}" in {where}')
    return found, usable


def look(options: Options, wanted: Sequence[str] = ()) -> tuple[list[Folder], list[Entry]]:
    """Returns the state folders, and an entry for each container in them, or for those ``wanted``. Raises HookError.

    Source paths are only inspected for ``wanted`` containers: those of all would be too many.
    """
    found, usable = registries(options, wanted)
    linux.raise_open_files()
    entries, requesters = [], Requesters()
    for registry, names in usable:
        registry.command = f"show {wanted[0]}" if wanted else registry.command
        for entry in filter(None, map(registry.entry, names)):
            entries.append(entry)
            for shown, mount in zip(entry.mounts, entry.record["mounts"] if entry.record else (), strict=True):
                shown["registration"] = requesters.path(mount)
            if wanted:
                registry.look_at_sources(entry)
    return found, entries


def as_json(found: Sequence[Folder], entries: Iterable[Entry]) -> str:
    """Returns all entries as one JSON document, schemas/records.json."""
    return json_text(
        {**head("records"), "folders": folders.documents(found), "records": [entry.document() for entry in entries]}
    )
