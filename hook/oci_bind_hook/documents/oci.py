# SPDX-License-Identifier: Apache-2.0
"""From documents to validated, typed ``State`` and ``Config``.

What the values *mean* (which options exist, whether a path is sane) is beyond the scope of this module.
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
    """Every place where ``document`` breaks the bundled schema ``name`` ("config", "plan", ...), sorted, none twice.

    A place is a JSON pointer (RFC 6901; a missing member is pointed to as if it were there) and a message of one
    line. Numbers are strict: ``true`` and ``1.0`` are no integers. Nothing is ever fetched.
    "config" is the whole of config.json, "config-used" what ``config`` judges.
    """
    if _acceptor.accepts(document, ADDRESS + name):
        return []
    from . import judge

    return judge.violations(document, name)


def state(document: object) -> State:
    """The state a runtime sent (runtime-spec runtime.md, State); DataError if it breaks the schema."""
    return State(_valid(document, "state", "state"))


def config(document: object, name: str = "config.json") -> Config:
    """What the hook uses of a config (runtime-spec config.md); DataError with ``name`` if that breaks the schema.

    What it does not use is not looked at: that is for ``config_violations``.
    """
    return Config(_valid(document, "config-used", name))


def config_violations(document: object) -> list[tuple[str, str]]:
    """Every place where a config breaks runtime-spec, whether the hook uses it or not; as ``violations`` gives them."""
    return violations(document, "config")


def _valid(document: object, schema: str, name: str) -> dict[str, Any]:
    found = violations(document, schema)
    if found:
        raise DataError(name, found)
    assert isinstance(document, dict)
    return document


class State:
    """The container's state (runtime-spec runtime.md, State), from a valid document.

    ``pid`` is as given, 0 and -1 too, or None: what it is good for depends on the runtime and the stage.
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
    """One of the config's mounts (runtime-spec config.md, Mounts) and its place among them, from a valid document.

    What was not given is None, but for ``options``. A mapping is (id in the container, id on the host, how many).
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
    """What the hook uses of config.json (runtime-spec config.md, config-linux.md), from a valid document.

    ``namespaces`` gives the path to join, or None for a new one, by type. The mappings are those of the container's
    user namespace, or None.
    """

    __slots__ = ("annotations", "gid_mappings", "mounts", "namespaces", "root_path", "root_readonly", "uid_mappings")

    def __init__(self, document: dict[str, Any]) -> None:
        linux = document.get("linux", {})
        self.root_path: str = document["root"]["path"]
        self.root_readonly: bool = document["root"].get("readonly", False)
        self.mounts = tuple(Mount(index, mount) for index, mount in enumerate(document.get("mounts", ())))
        self.annotations: dict[str, str] = document.get("annotations", {})
        namespaces = linux.get("namespaces", ())
        self.namespaces: dict[str, str | None] = {each["type"]: each.get("path") for each in namespaces}
        self.uid_mappings = _id_mappings(linux.get("uidMappings"))
        self.gid_mappings = _id_mappings(linux.get("gidMappings"))


def _id_mappings(document: list[dict[str, int]] | None) -> IdMappings | None:
    if document is None:
        return None
    return tuple((run["containerID"], run["hostID"], run["size"]) for run in document)
