# SPDX-License-Identifier: Apache-2.0
"""Collects the requests of config.json, ``--mount`` arguments and annotations, in the order of mounting.

It never accesses the file system.
"""

from __future__ import annotations

from ..documents.strictjson import step
from ..errors import EscapeError, HookError, RequestError
from .mount_field import parse_mount
from .request import NOFOLLOW, IdMap, Request

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..documents.oci import Config, IdMappings, Mount
    from .request import Opener

ANNOTATION = "io.github.oci-bind-hook.mount."
_NAME = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_LONGEST_NAME = 24
_MOST_RUNS = 340

# The author of an annotation is not trusted: it may restrict what the administrator allows, but not extend it.
_LESS = ("ro", "nosuid", "nodev", "noexec", "nosymfollow", "noatime", "relatime", "nodiratime")
_TIGHTENING = frozenset(
    (
        *("bind", "rbind", "private", "rprivate", "slave", "rslave", "unbindable", "runbindable"),
        *_LESS,
        *(f"r{word}" for word in _LESS),
    )
)


def requests(
    config: Config,
    arguments: Sequence[str],
    allowed: Opener | None = None,
    refused: Callable[[HookError], None] | None = None,
) -> list[Request]:
    """All requested mounts, in the order of mounting: those of config.json, ``--mount`` arguments, annotations.

    This includes mounts of config.json that are not binds, because a later destination may be below them. Annotations
    count only with ``allowed``, which opens their sources. Raises UsageError for a malformed argument and RequestError
    for an invalid request; if given, ``refused`` is called with each error instead, and the request is omitted.
    """
    found = []

    def take(make: Callable[..., Request], *facts: object) -> None:
        try:
            found.append(make(*facts))
        except HookError as problem:
            if refused is None:
                raise
            refused(problem)

    for mount in config.mounts:
        take(_from_mount, mount, config)
    for number, text in enumerate(arguments, 1):
        take(_from_argument, text, number, config)
    for key in sorted(config.annotations) if allowed is not None else ():
        if key.startswith(ANNOTATION):
            take(_from_annotation, key, config, allowed)
    return found


def read_only_root(rootfs: str) -> Request:
    """The bind of the rootfs on itself that implements ``root.readonly`` if no runtime does."""
    return Request("config.json#/root", "config.json: /root", rootfs, "/", ("rbind", "ro"), origin_kind="root")


def _from_argument(text: str, number: int, config: Config) -> Request:
    place = f"--mount {number}"
    return _completed(parse_mount(text, place, place), config)


def _from_mount(mount: Mount, config: Config) -> Request:
    origin, place = f"config.json#/mounts/{mount.index}", f"config.json: /mounts/{mount.index}"
    is_bind = mount.type == "bind" or not {"bind", "rbind"}.isdisjoint(mount.options)
    if not is_bind or "remount" in mount.options:
        request = Request(origin, place, mount.source or "", mount.destination, (), origin_kind="mounts")
        request.type = "remount" if "remount" in mount.options else mount.type or "none"
        request.nofollow = NOFOLLOW in mount.options
        return request
    if not mount.source:
        raise RequestError("a bind requires a source", where=f"{place}/source")
    idmap = None
    if mount.uid_mappings:
        idmap = IdMap(mount.uid_mappings, mount.gid_mappings, recursive=False)
    request = Request(origin, place, mount.source, mount.destination, mount.options, origin_kind="mounts", idmap=idmap)
    if {"bind", "rbind"}.isdisjoint(mount.options):
        request.warnings.append(
            'the type is "bind", but the options contain neither bind nor rbind: runtimes reject this'
        )
    if not mount.destination.startswith("/"):
        request.warnings.append(
            "the destination is relative, which runtime-spec deprecates; it is read as relative to /"
        )
    return _completed(request, config)


def _from_annotation(key: str, config: Config, allowed: Opener) -> Request:
    name = key[len(ANNOTATION) :]
    pointer = f"/annotations{step(key)}"
    place = f"config.json: {pointer}"
    if not name or len(name) > _LONGEST_NAME or not _NAME.issuperset(name):
        raise RequestError(
            f'"{name}" is not a valid name for a bind',
            where=place,
            hint=f"use 1 to {_LONGEST_NAME} letters, digits, _ and -",
        )
    request = parse_mount(config.annotations[key], f"config.json#{pointer}", place, "annotation")
    for word in request.options:
        if word not in _TIGHTENING:
            raise EscapeError(f'an annotation may not set "{word}"', where=place)
    if request.follow_links:
        raise EscapeError('an annotation may not set "follow-links"', where=place)
    request.opener = allowed
    return _completed(request, config)


def _completed(request: Request, config: Config) -> Request:
    """Completes an id map without ids from the container's user namespace. Raises RequestError if there is none."""
    idmap = request.idmap
    if idmap is not None and idmap.uids is None:
        joined = config.namespaces.get("user")
        if joined and not config.uid_mappings and not config.gid_mappings:
            request.idmap = IdMap(None, None, recursive=idmap.recursive, namespace=joined)
        elif config.uid_mappings and config.gid_mappings:
            request.idmap = IdMap(config.uid_mappings, config.gid_mappings, recursive=idmap.recursive)
        else:
            raise RequestError(
                "idmap has no ids, and the container has no user namespace to take them from",
                where=request.at("options"),
                hint="for example idmap=uids=0-1000-1;gids=0-1000-1",
            )
    for mappings in (request.idmap.uids, request.idmap.gids) if request.idmap is not None else ():
        _check_runs(mappings or (), request.at("options"))
    return request


def _check_runs(mappings: IdMappings, where: str) -> None:
    """Checks what the kernel requires of an id map, user_namespaces(7). Raises RequestError."""
    if len(mappings) > _MOST_RUNS:
        raise RequestError(f"the id map has {len(mappings)} ranges, and the limit is {_MOST_RUNS}", where=where)
    for side in (0, 1):
        end, last = 0, ""
        for run in sorted(mappings, key=lambda run: run[side]):
            text = "-".join(map(str, run))
            if run[side] < end:
                raise RequestError(f"the ranges of ids {last} and {text} overlap", where=where)
            end, last = run[side] + run[2], text
