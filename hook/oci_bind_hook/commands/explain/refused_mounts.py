# SPDX-License-Identifier: Apache-2.0
"""What runtimes refuse of config.json's own mounts, in the order in which they mount."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from ...errors import HookError, RequestError
from ...mounting.config_mounts import below_rootfs
from ...requests.request import NOFOLLOW, WORDS, nearest
from ...rootfs.walk import Cover
from .facts import attributes_of
from .refusals import CRUN, RUNC

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...documents.bundle import Bundle
    from ...documents.oci import Mount
    from ...mounting.plan import Plan
    from ...mounting.sources import Source
    from ...rootfs.walk import Root, Target
    from .refusals import Refusals

_BINDS = {"bind", "rbind"}
# With these options, some versions do not simply mount on the destination.
_OTHER_WAYS = {"copy-symlink", "src-nofollow"}
_FOLDERS = frozenset("cgroup cgroup2 devpts mqueue overlay proc ramfs sysfs tmpfs".split())
_ON_NO_LINK = ("proc", "sysfs")
# Files of procfs that runc allows to be covered, in any version, and folders that contain such files.
_OPEN_IN_PROC = frozenset("cpuinfo diskstats loadavg meminfo slabinfo stat swaps uptime".split())
_PART_OPEN_IN_PROC = ("net", "sys")
# The options of these file systems, as of Linux 6.18. They refuse any other.
_DATA = {
    "devpts": frozenset("gid max mode newinstance ptmxmode uid".split()),
    "mqueue": frozenset[str](),
    "proc": frozenset("gid hidepid pidns subset".split()),
    "sysfs": frozenset[str](),
    "tmpfs": frozenset(
        "casefold gid grpquota grpquota_block_hardlimit grpquota_inode_hardlimit huge inode32 inode64 mode mpol "
        "nr_blocks nr_inodes noswap quota size strict_encoding uid usrquota usrquota_block_hardlimit "
        "usrquota_inode_hardlimit".split()
    ),
}
# Options that a runtime does not pass to the file system, in any version.
_RUNTIMES_WORDS = frozenset(
    # Security modules handle their own options before the file system does: mount(8), "context=".
    "context defcontext fscontext rootcontext seclabel smackfsdef smackfsfloor smackfshat smackfsroot smackfstransmute "
    "acl async copy-symlink copyup defaults dest-nofollow dirsync idmap iversion lazytime loud mand noacl "
    "noiversion nolazytime nomand nosymfollow relabel remount ridmap silent src-nofollow sync tmpcopyup "
    "nonewprivs".split()
)
_EMPTY = "empty"  # the type of a cover for an empty file system
_MEANT = {"readonly": "ro", "read-only": "ro", "readwrite": "rw", "read-write": "rw", "recursive": "rbind"}


class Covers(NamedTuple):
    """The mounts that later steps need: those with noexec, and those that are read-only."""

    noexec: set[Cover]
    readonly: set[Cover]


def judge(found: Refusals, bundle: Bundle, root: Root, sources: Mapping[str, Source]) -> Covers | None:
    """Checks each mount, and covers its destination in ``root`` for later mounts. ``sources`` has sources by origin.

    Returns None if the place of a mount is not known: then nothing more can be concluded about the rootfs.
    """
    covers = Covers(set(), set())
    is_known, has_proc = True, False
    for mount in bundle.config.mounts:
        if "remount" in mount.options:
            continue
        if below_rootfs(bundle.rootfs, mount.destination) or not _OTHER_WAYS.isdisjoint(mount.options):
            is_known = False
            continue
        source = sources.get(f"config.json#/mounts/{mount.index}")
        is_bind = not _BINDS.isdisjoint(mount.options)
        _judge_words(found, mount, is_bind=is_bind)
        if is_bind:
            _judge_source(found, mount, source)
        target = _judge_destination(found, mount, root, source if is_bind else None, covers)
        if target is None or target.path == "/":
            is_known = False
            continue
        has_proc = has_proc or target.path == "/proc"
        cover = _cover(mount, target, source, is_bind=is_bind)
        root.cover(target, cover)
        target.close()
        if "noexec" in mount.options:
            covers.noexec.add(cover)
        if is_bind and "ro" in mount.options:
            covers.readonly.add(cover)
    if not is_known:
        return None
    if not has_proc:
        found.add("/mounts", "nothing is mounted on /proc, which runc needs", by=RUNC)
    return covers


def cover_by_hook(plan: Plan, root: Root, covers: Covers | None) -> None:
    """Covers in ``root`` what the hook binds, after the runtime's mounts. Adds binds with noexec to ``covers``."""
    for bind in plan.binds:
        request = bind.request
        if request.is_from_mounts or request.is_root or bind.action == "skipped" or bind.source.error is not None:
            continue
        try:
            target = root.resolve(request.destination, nofollow=request.nofollow)
        except HookError:
            continue
        cover = Cover("bind", (bind.source.fd, bind.source.stat))
        root.cover(target, cover)
        target.close()
        if covers is not None and "noexec" in attributes_of(bind.source):
            covers.noexec.add(cover)


def is_unknown(target: Target) -> bool:
    """Whether a walk ended in a file system that is not mounted yet, so that what it did not find may exist there."""
    cover = target.missing[0].cover if target.missing else None
    return cover is not None and cover.held is None and cover.type != _EMPTY


def _cover(mount: Mount, target: Target, source: Source | None, *, is_bind: bool) -> Cover:
    """Returns the cover that a mount puts on its destination."""
    if is_bind:
        is_held = source is not None and source.error is None
        return Cover("bind", (source.fd, source.stat) if source is not None and is_held else None)
    # A new tmpfs is empty, except that runtimes create devices in /dev.
    is_empty = mount.type == "tmpfs" and "tmpcopyup" not in mount.options and target.path != "/dev"
    return Cover(_EMPTY if is_empty else mount.type or "")


def _judge_words(found: Refusals, mount: Mount, *, is_bind: bool) -> None:
    """Checks type and options."""
    at = f"/mounts/{mount.index}"
    kind = mount.type or ""
    if not is_bind:
        if kind in ("", "none", *_BINDS):
            said = f'the type is "{kind}"' if kind else "the type is missing"
            hint = 'a bind needs the option "bind" or "rbind"'
            found.add(f"{at}/options", f"{said}, and no option is bind or rbind: runtimes refuse this", hint)
        elif _is_unknown_type(kind):
            text = f'the kernel has no file system "{kind}" now, and refuses it unless a module provides it'
            found.warn(f"{at}/type", text)
    for word in mount.options:
        key = word.partition("=")[0]
        if not key or key in WORDS or key in _RUNTIMES_WORDS:
            continue
        hint = f'did you mean "{_MEANT[key.lower()]}"?' if key.lower() in _MEANT else nearest(key.lower(), WORDS)
        if not is_bind:
            if kind in _DATA and key not in _DATA[kind]:
                found.add(f"{at}/options", f'"{word}" is not an option of {kind}, which rejects unknown options', hint)
        else:
            advice = f": {hint}" if hint else ""
            found.warn(f"{at}/options", f'"{word}" has no effect on a bind, and runc 1.3 refuses it{advice}')


def _is_unknown_type(kind: str) -> bool:
    try:
        with open("/proc/filesystems", encoding="utf-8") as file:
            return kind.partition(".")[0] not in (line.split()[-1] for line in file if line.strip())
    except OSError:
        return False


def _judge_source(found: Refusals, mount: Mount, source: Source | None) -> None:
    at = f"/mounts/{mount.index}/source"
    if source is not None and source.is_missing and _is_certain(source):
        found.add_missing(at, source.path, f"{source.path} does not exist")


def _is_certain(source: Source) -> bool:
    """Whether a source is missing for the runtime too, not only for the hook."""
    reason = source.error.__cause__ if source.error is not None else None
    return isinstance(reason, OSError) and reason.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


def _judge_destination(
    found: Refusals, mount: Mount, root: Root, source: Source | None, covers: Covers
) -> Target | None:
    """Checks the destination of a mount. Returns its place, None if that is not known."""
    at = f"/mounts/{mount.index}/destination"
    destination = mount.destination
    nofollow = NOFOLLOW in mount.options
    try:
        target = root.resolve(destination, nofollow=nofollow)
    except RequestError as problem:
        found.add(at, problem.problem, problem.hint)
        return None
    except (HookError, ValueError):
        return None
    is_folder = source is None or source.error is not None or source.is_folder
    is_sure_of_kind = mount.type in _FOLDERS if source is None else source.error is None
    last = target.last
    if target.path == "/":
        found.warn(at, f"{destination} is the root itself: crun before 1.28 refuses this, and runc usually does")
    elif is_unknown(target):
        _judge_in_proc(found, at, target, is_bind=source is not None)
    elif last.exists and not last.is_link and is_sure_of_kind and is_folder != last.folder:
        what = f"{mount.type} needs one" if source is None else f"the source is {_kind(folder=is_folder)}"
        found.add(at, f"{target.path} is {_kind(folder=last.folder)}, but {what}")
    elif mount.type in _ON_NO_LINK and source is None and is_on_link(root, destination):
        found.add(at, f"{destination} is a link, and no runtime mounts {mount.type} on a link")
    elif not last.exists and (dangling := dangling_link(root, target)) is not None:
        if is_sure_of_kind and (is_folder or dangling != target.links[-1][0] or not _ends_with(destination, dangling)):
            text = f"the link {dangling} leads to a path that does not exist"
            found.add(at, text, "create it, or use the path itself", by=CRUN)
    elif target.missing and target.anchor.cover in covers.readonly:
        found.add(at, f"{target.path} does not exist, and it would be in a read-only bind", by=RUNC)
    if source is not None and last.exists and source.error is None:
        _judge_on_proc(found, at, target, source)
    return target


def _judge_in_proc(found: Refusals, at: str, target: Target, *, is_bind: bool) -> None:
    """Checks a path below /proc: a missing one cannot be created, and runc allows few to be covered."""
    names = target.path.split("/")[1:]
    cover = target.missing[0].cover
    if names[0] != "proc" or cover is None or cover.type != "proc":
        return
    if not names[1].isdigit() and not os.path.lexists(f"/proc/{names[1]}"):
        found.add(at, f"procfs has no {names[1]}, and nothing can be created in procfs")
    elif is_bind and names[1] not in _OPEN_IN_PROC and (names[1] not in _PART_OPEN_IN_PROC or len(names) == 2):
        found.add(at, f"{target.path} is inside /proc, where runc refuses mounts", by=RUNC)


def _judge_on_proc(found: Refusals, at: str, target: Target, source: Source) -> None:
    if target.path == "/proc" and source.info is not None and source.info.type != "proc":
        found.add(at, "something other than procfs would be on /proc, which runc refuses", by=RUNC)


def is_on_link(root: Root, path: str) -> bool:
    """Whether a path names a symbolic link."""
    try:
        target = root.resolve(path.rstrip("/"), nofollow=True)
    except (HookError, ValueError):
        return False
    target.close()
    return target.last.is_link


def dangling_link(root: Root, target: Target) -> str | None:
    """Returns the first dangling link on the way to a ``target``, None if there is none."""
    for at, _ in target.links:
        try:
            end = root.resolve(at)
        except (HookError, ValueError):
            continue
        end.close()
        if end.missing and not is_unknown(end):
            return at
    return None


def _ends_with(destination: str, link: str) -> bool:
    """Whether a link is the last name of a destination, so that nothing is resolved beyond it."""
    return destination.rstrip("/").rpartition("/")[2] == link.rpartition("/")[2]


def _kind(*, folder: bool) -> str:
    return "a folder" if folder else "not a folder"
