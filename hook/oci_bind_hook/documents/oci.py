# SPDX-License-Identifier: Apache-2.0
"""Validated documents as typed objects: ``State`` and ``Config`` of runtime-spec.

This module does not interpret the values, such as which options exist or where a path leads.

Loaded by every start of a container: import nothing. The judge, and jsonschema with it, is imported when needed.
"""

from __future__ import annotations

from ..errors import DataError
from .acceptor import ADDRESS, Acceptor, schema

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    IdMappings = tuple[tuple[int, int, int], ...]

_acceptor = Acceptor(schema)


def violations(document: object, name: str) -> list[tuple[str, str]]:
    """Every place where ``document`` breaks the bundled schema ``name`` ("state", "plan", ...), sorted and unique.

    Returns pairs of JSON pointer (RFC 6901; a missing member has the pointer it would have) and message. ``true`` and
    ``1.0`` are not integers. No schema is fetched from a network. "config" covers all of config.json, "config-used" the
    part that ``config`` reads.
    """
    if _acceptor.accepts(document, ADDRESS + name):
        return []
    from . import judge

    return judge.violations(document, name)


def state(document: object) -> State:
    """The state of a container (runtime-spec runtime.md, State). Raises DataError if it breaks the schema."""
    return State(_valid(document, "state", "state"))


def config(document: object, name: str = "config.json") -> Config:
    """The part of a config that the hook uses (runtime-spec config.md). Raises DataError for ``name`` if it is invalid.

    ``config_violations`` validates the rest of the document.
    """
    return Config(_valid(document, "config-used", name))


def config_violations(document: object) -> list[tuple[str, str]]:
    """Every place where a config breaks runtime-spec, also where the hook does not use it, as from ``violations``."""
    return violations(document, "config")


def _valid(document: object, schema: str, name: str) -> dict[str, Any]:
    found = violations(document, schema)
    if found:
        raise DataError(name, found)
    assert isinstance(document, dict)
    return document


class State:
    """The container's state (runtime-spec runtime.md, State), from a valid document.

    ``pid`` is None if missing. Otherwise it is unchanged, also 0 and -1: its meaning depends on runtime and stage.
    """

    __slots__ = ("annotations", "bundle", "id", "oci_version", "pid", "status")

    def __init__(self, document: dict[str, Any]) -> None:
        self.oci_version: str = document["ociVersion"]
        self.id: str = document["id"]
        self.status: str = document["status"]
        self.pid: int | None = document.get("pid")
        self.bundle: str = document["bundle"]
        self.annotations: dict[str, str] = document.get("annotations", {})


class Mount:
    """Mount number ``index`` of the config (runtime-spec config.md, Mounts), from a valid document.

    Missing members are None; missing ``options`` are empty. A mapping is (container id, host id, size).
    """

    __slots__ = ("destination", "gid_mappings", "index", "options", "source", "type", "uid_mappings")

    def __init__(self, index: int, document: dict[str, Any]) -> None:
        self.index = index
        self.destination: str = document["destination"]
        self.source: str | None = document.get("source")
        self.type: str | None = document.get("type")
        self.options: tuple[str, ...] = tuple(document.get("options", ()))
        self.uid_mappings = _id_mappings(document.get("uidMappings"))
        self.gid_mappings = _id_mappings(document.get("gidMappings"))


class Config:
    """The part of config.json that the hook uses (runtime-spec config.md, config-linux.md), from a valid document.

    ``namespaces`` maps each type to the path of the namespace to join, or to None for a new one; as in runc, an empty
    path means a new one. The mappings are those of the container's user namespace, None if it has none. ``is_admin``:
    processes can have CAP_SYS_ADMIN. ``rootfs_propagation`` is "" if it is missing.
    """

    __slots__ = (
        *("annotations", "gid_mappings", "is_admin", "mounts", "namespaces", "root_path", "root_readonly"),
        *("rootfs_propagation", "uid_mappings"),
    )

    def __init__(self, document: dict[str, Any]) -> None:
        linux = document.get("linux", {})
        self.root_path: str = document["root"]["path"]
        self.root_readonly: bool = document["root"].get("readonly", False)
        self.mounts = tuple(Mount(index, mount) for index, mount in enumerate(document.get("mounts", ())))
        self.annotations: dict[str, str] = document.get("annotations", {})
        namespaces = linux.get("namespaces", ())
        self.namespaces: dict[str, str | None] = {each["type"]: each.get("path") or None for each in namespaces}
        self.rootfs_propagation: str = linux.get("rootfsPropagation", "")
        self.uid_mappings = _id_mappings(linux.get("uidMappings"))
        self.gid_mappings = _id_mappings(linux.get("gidMappings"))
        self.is_admin = _gives("CAP_SYS_ADMIN", document.get("process"))


def _gives(capability: str, process: object) -> bool:
    """Whether the member ``process`` gives a capability in any set. It is not validated, so it may have any type."""
    sets = process.get("capabilities") if isinstance(process, dict) else None
    # Also in the bounding set: a process of uid 0 gets all of it at the next execve(2), capabilities(7).
    return isinstance(sets, dict) and any(isinstance(names, list) and capability in names for names in sets.values())


def _id_mappings(document: list[dict[str, int]] | None) -> IdMappings | None:
    if document is None:
        return None
    return tuple((run["containerID"], run["hostID"], run["size"]) for run in document)
