# SPDX-License-Identifier: Apache-2.0
"""A plan in the form of schemas/plan.json: the facts and warnings of each bind.

Inspects only the fds that the plan has open, and the links on the way to each source.
"""

from __future__ import annotations

import os
import stat as modes

from ...errors import EscapeError
from ...kernel.mountinfo import first_that_may_wait
from ...log import few
from ...mounting.confined import Walk
from . import recognise
from .patience import Mute
from .selinux import label_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ...mounting.plan import Bind, Plan
    from ...mounting.sources import Source
    from ...record.state_file import MountRecord
    from ...requests.request import IdMap, Request
    from .hiding import Hidden
    from .selinux import Labels

_KINDS = {
    modes.S_IFDIR: "folder",
    modes.S_IFREG: "file",
    modes.S_IFBLK: "block device",
    modes.S_IFCHR: "character device",
    modes.S_IFIFO: "fifo",
    modes.S_IFSOCK: "socket",
}
# Attributes of a mount as bits of f_flag, statvfs(3).
_STATVFS = {"ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8, "nodiratime": 0x800, "nosymfollow": 0x2000}
_STATVFS_ATIMES = {"noatime": 0x400, "relatime": 0x1000}
_ATIMES = ("noatime", "relatime", "strictatime")
_RENAMED = (modes.S_IFREG, modes.S_IFSOCK)  # kinds of file that programs often replace by rename(2)


def describe(
    plan: Plan,
    *,
    writable_root: bool = True,
    covering: Mapping[Bind, Sequence[str]] | None = None,
    hidden: Mapping[Bind, Sequence[Hidden]] | None = None,
    before: Callable[[Request, str], None] = lambda *_: None,
    labels: Labels | None = None,
) -> list[dict[str, object]]:
    """The binds of a plan. ``writable_root``: the container may write to its rootfs. ``covering``: more warnings.
    ``hidden``: what the binds hide. ``labels``: the labels in config.json.

    ``before`` is called before the links to the source of each bind are inspected.
    """
    paths = {bind: plan.namespace.proc.path_of(bind.source.fd) for bind in plan.binds if bind.source.is_open}
    attributes = {bind: attributes_of(bind.source) for bind in plan.binds}
    table = plan.namespace.proc.mounts()
    open_to = {plan.rootfs.path: "the rootfs"} if writable_root else {}
    for bind, path in paths.items():
        if bind.action != "skipped" and not bind.request.is_root and "ro" not in attributes[bind]:
            open_to.setdefault(path, f"the writable bind on {bind.request.destination}")
    described = []
    for bind in plan.binds:
        found_at = paths.get(bind)
        warnings = [*bind.warnings, *(covering or {}).get(bind, ())]
        if found_at is not None and bind.action == "mount" and not bind.request.is_root:
            warnings += [
                f"the source is below {open_to[each]}: the container can replace it"
                for each in _above(found_at)
                if each in open_to
            ][:1]
        found = _found(bind.source, found_at)
        before(bind.request, bind.source.path)
        # A real run does not read labels, so a file system that may not answer is not queried.
        if found is not None and found_at is not None and first_that_may_wait(table, found_at) is None:
            found["label"] = label = label_of(f"/proc/self/fd/{bind.source.fd}")
            is_writable = "ro" not in attributes[bind]
            if labels and bind.action != "skipped":  # the last warning of a skipped bind is the reason
                warnings += labels.warnings(label, str(found["kind"]), writable=is_writable)
        now = {"now": None, "source_now": None}
        hides = [*(hidden or {}).get(bind, ())]
        described.append(
            {**_describe(bind, attributes[bind]), "found": found, "hides": hides, **now, "warnings": warnings}
        )
    return described


def own_mounts(
    requests: Sequence[Request], order: Sequence[tuple[Request, str, Bind | None]] = ()
) -> list[dict[str, object]]:
    """Returns the mounts of config.json that are not binds, with their resolved paths if ``order`` has them."""
    paths = {request: path for request, path, _ in order}
    return [
        {
            "destination": request.destination,
            "resolved": paths.get(request),
            "type": request.type,
            "source": request.source or None,
        }
        for request in requests
        if not request.is_bind
    ]


def replaced_by_rename(plan: Plan) -> list[str]:
    """Returns a note on the files of a plan, because most programs replace a file by rename; [] without a file."""
    files = [bind for bind in plan.to_mount if bind.source.is_open and modes.S_IFMT(bind.source.stat.mode) in _RENAMED]
    origins = [*dict.fromkeys(bind.request.origin for bind in files)]
    if not origins:
        return []
    return [
        f"{few(origins)}: the container keeps the old file if this one is replaced by rename; to follow "
        "the change, bind its folder"
    ]


def _describe(bind: Bind, attributes: list[str]) -> dict[str, object]:
    request, source, target = bind.request, bind.source, bind.target
    return {
        "origin": request.origin,
        "source": source.above,
        **({} if request.subpath is None else {"subpath": request.subpath}),
        **({} if request.pattern is None else {"pattern": request.pattern.source}),
        **({} if request.when_exists is None else {"when_exists": request.when_exists}),
        "source_links": [] if request.is_root or isinstance(request.opener, Mute) else _links_to(source),
        "destination": request.destination,
        "resolved": target.path if target else None,
        "links": [{"at": at, "to": to} for at, to in target.links] if target else [],
        "create": [{"path": p.path, "kind": "directory" if p.directory else "file"} for p in bind.create],
        "asked": list(request.options),
        "attributes": attributes,
        "kept": _kept(request, attributes),
        "propagation": request.propagation,
        "idmap": _ids(request.idmap) if request.idmap else None,
        "action": bind.action,
        "by": bind.by,
    }


def attributes_of(source: Source) -> list[str]:
    """Returns all attributes that a mount of the source will have, in a fixed order. Raises OSError."""
    flags = _flags(source) if source.error is None else 0
    wanted = {**source.request.deep, **source.request.top}
    words = [word for word, bit in _STATVFS.items() if wanted.get(word, bool(flags & bit))]
    kept = next((word for word, bit in _STATVFS_ATIMES.items() if flags & bit), "")
    atime = str(wanted.get("atime", kept))
    return [*words, atime] if atime else words


def _flags(source: Source) -> int:
    """The attributes of the source's mount as bits of statvfs(3), if possible without querying its file system."""
    info = source.info
    if info is None:
        return os.fstatvfs(source.fd).f_flag
    bits = {**_STATVFS, **_STATVFS_ATIMES}
    options = {*info.options, *(word for word in info.super_options.split(",") if word == "ro")}
    return sum(bit for word, bit in bits.items() if word in options)


def _kept(request: Request, attributes: list[str]) -> list[str]:
    """Returns the attributes that the request does not set. They are kept from the source."""
    asked = {**request.deep, **request.top}
    return [word for word in attributes if ("atime" if word in _ATIMES else word) not in asked]


def _ids(idmap: IdMap) -> dict[str, object]:
    def runs(mappings: object) -> list[str]:
        return ["-".join(map(str, run)) for run in mappings] if isinstance(mappings, tuple) else []

    return {"uids": runs(idmap.uids), "gids": runs(idmap.gids), "namespace": idmap.namespace}


def _found(source: Source, path: str | None) -> dict[str, object] | None:
    """Returns the facts about what exists at a source path, None if nothing does."""
    if path is None:
        return None
    stat, info = source.stat, source.info
    kind = _KINDS.get(modes.S_IFMT(stat.mode), "file")
    number = os.fstat(source.fd).st_rdev if "device" in kind else None
    return {
        "path": path,
        "kind": kind,
        "number": None if number is None else f"{os.major(number)}:{os.minor(number)}",
        "filesystem": info.type if info else None,
        "device": f"{os.major(stat.dev)}:{os.minor(stat.dev)}",
        "from": info.source if info else None,
        "mount": info.mount_point if info else None,
        "owner": f"{stat.uid}:{stat.gid}",
        "mode": f"{modes.S_IMODE(stat.mode):04o}",
        "label": None,
        "known": recognise.source(path) or recognise.source(source.path),
        "submounts": [below for below, _ in source.visible],
    }


def _links_to(source: Source) -> list[dict[str, str]]:
    """Returns the links on the way to a source. Anyone who can change one of them decides what is bound."""
    with Walk() as walk:
        try:
            walk.go(source.above)
            if source.request.subpath is not None:
                walk.go(source.request.subpath, beneath=True)
        except (OSError, EscapeError):
            pass  # returns the links up to the failure, since one of them may cause it
        # A loop follows the same link forty times.
        return [{"at": at, "to": to} for at, to in dict.fromkeys(walk.links)]


def holds_anything(folder: str) -> bool | None:
    """Whether a folder has any entry. None if it does not exist or this user may not read it."""
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return None


def _above(path: str) -> Iterator[str]:
    """Yields every folder above a path, its parent first."""
    while path != "/":
        path = os.path.dirname(path)
        yield path


def undone(mount: MountRecord, *, here: bool) -> dict[str, object]:
    """Returns a recorded bind as poststop sees it. ``here``: it is still mounted."""
    requested = mount["requested"]
    options = requested["options"]
    assert isinstance(options, list)
    return {
        "origin": mount["by"],
        **{name: requested[name] for name in ("source", "subpath") if name in requested},
        "source_links": [],
        "destination": requested["destination"],
        "resolved": mount["resolved"],
        "links": [],
        "create": [],
        "asked": options,
        "attributes": [],
        "kept": [],
        "propagation": options[-1],
        "idmap": None,
        "action": "unmount" if here else "gone",
        "by": "hook",
        "found": None,
        "hides": [],
        "now": here,
        "source_now": None,
        "warnings": [],
    }
