# SPDX-License-Identifier: Apache-2.0
"""Whether the requested propagation of a bind lasts until the container runs, and what to set if it does not.

It can be lost in two ways. The clone of a private mount has no peers and no master, so nothing propagates,
mount_namespaces(7). And a runtime sets the propagation of the container's root after all its hooks; a recursive word,
which begins with "r", also changes the binds of the hook. No stage that can mount comes later.

Loaded only for a bind that is not private, before setns(2).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..kernel.mountinfo import MountInfo
    from .sources import Source

_BECOME = {"private": "private", "slave": "slaves", "shared": "shared", "unbindable": "unbindable"}


class Runtimes:
    """What the runtimes ``names``, "runc" and "crun", do if config.json has ``word`` as linux.rootfsPropagation.

    ``is_inside``: at createContainer, where sources are opened in the container's mount namespace. ``ahead``: likewise,
    but before it exists, so that its mounts are predicted from the host's; the id of the mount with the rootfs, which
    the runtime makes private. ``has_users``: the container has a user namespace: shared mounts become slaves there.
    """

    def __init__(
        self,
        names: Sequence[str],
        word: str,
        *,
        is_inside: bool = False,
        ahead: int | None = None,
        has_users: bool = False,
    ) -> None:
        self.names = names
        self.word = word
        self.is_inside = is_inside
        self._ahead = ahead
        self._has_users = has_users

    def last(self, name: str) -> str:
        """The propagation that a runtime sets on all mounts after its hooks, "" if it changes only the root."""
        # crun: always, linux.c, libcrun_finalize_mounts. runc: since 1.4, and only if it is neither private nor slave,
        # rootfs_linux.go, prepareRootfs.
        word = (self.word or "rprivate") if name == "crun" else self.word
        if word[:1] != "r" or (name == "runc" and word in ("rprivate", "rslave")):
            return ""
        return word[1:]

    def kind_of(self, info: MountInfo, name: str) -> str:
        """The propagation, "shared", "slave" or "private", of a mount from which a source is cloned."""
        kind = "shared" if info.shared is not None else "slave" if info.is_propagated else "private"
        if self._ahead is None:
            return kind
        if info.id == self._ahead:
            return "private"  # runc before 1.2 keeps a slave
        kind = "slave" if kind == "shared" and self._has_users else kind
        first = self.word or ("rprivate" if name == "crun" else "rslave")
        if first[:1] != "r" and info.mount_point != "/":
            return kind
        if first in ("slave", "rslave"):
            return "slave" if kind == "shared" else kind
        return "shared" if first in ("shared", "rshared") and kind == "shared" else "private"


def remark(sources: Iterable[Source], runtimes: Runtimes) -> None:
    """Adds a warning to each source whose requested propagation will not take effect."""
    asked = [source for source in sources if source.info is not None and source.error is None]
    # One word for all binds. "shared" keeps every bind as it is, but until pivot_root(2) also the mounts of config.json
    # that do not set a propagation. So it is advised only if a bind needs it.
    advice = "shared" if any(_base(source) == "shared" for source in asked) else "rslave"
    for source in asked:
        word, base = source.request.propagation, _base(source)
        if by := [name for name in runtimes.names if not _lasts(base, runtimes.last(name))]:
            become = " or ".join(dict.fromkeys(_BECOME[runtimes.last(name)] for name in by))
            source.warnings.append(
                f"{word} has no effect under {_listed(by)}: all mounts become {become} after the hooks; "
                f'set linux.rootfsPropagation of config.json to "{advice}"'
            )
        # At createContainer the word also changes the source's mount: one warning is enough. "": no runtime is known.
        others = [name for name in runtimes.names or ("",) if name not in by or not runtimes.is_inside]
        source.warnings += _of_the_source(source, base, runtimes, others)


def _of_the_source(source: Source, base: str, runtimes: Runtimes, names: Sequence[str]) -> list[str]:
    info = source.info
    assert info is not None
    kinds = {name: runtimes.kind_of(info, name) for name in names}
    if not (by := [name for name, kind in kinds.items() if not _gives(base, kind)]):
        return []
    kind = " or ".join(dict.fromkeys("a slave" if kinds[name] == "slave" else kinds[name] for name in by))
    of = f"{info.mount_point}, which the source is on, is {kind}"
    if runtimes.is_inside:
        under = f" under {_listed(by)}" if by != [""] else ""
        return [
            f"{source.request.propagation} has no effect at createContainer{under}: {of} in the container's mount "
            "namespace; register the hook for createRuntime"
        ]
    return [f"{source.request.propagation} has no effect: {of}; make it shared on the host with mount --make-shared"]


def _base(source: Source) -> str:
    return source.request.propagation.removeprefix("r")


def _lasts(base: str, last: str) -> bool:
    """Whether a bind with the propagation ``base`` still has its effect after the runtime sets ``last``."""
    # A private mount that becomes shared is alone in a new peer group, so nothing propagates. A slave that becomes
    # shared still receives from its master, and MS_SLAVE turns a shared mount into a slave.
    return base == "private" or last in {"slave": ("", "slave", "shared"), "shared": ("", "shared")}.get(
        base, ("", "slave", "unbindable")
    )


def _gives(base: str, kind: str) -> bool:
    """Whether the clone of a mount of this ``kind`` can have the propagation ``base``."""
    return base in ("private", "unbindable") or kind == "shared" or (base, kind) == ("slave", "slave")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(names)
