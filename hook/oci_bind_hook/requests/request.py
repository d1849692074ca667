# SPDX-License-Identifier: Apache-2.0
"""One requested mount, and the table of mount options.

The option table is that of runtime-spec config.md, "Linux mount options". The kernel's flags are in ``mounting``.
"""

from __future__ import annotations

from ..errors import RequestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Sequence
    from typing import Literal, Protocol

    from ..documents.oci import IdMappings
    from ..record.state_file import MountRecord

    Propagation = Literal["private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"]
    # The origin: an entry of config.json's mounts, its root.readonly, a --mount argument, an annotation, or the command
    # attach for a running container.
    OriginKind = Literal["mounts", "root", "argument", "annotation", "attach"]

    class Opener(Protocol):
        """Opens a source that must stay in a folder, and is not simply opened by its path."""

        def open(self, request: Request, /) -> int: ...


PROPAGATIONS: tuple[Propagation, ...] = (
    "private",
    "rprivate",
    "slave",
    "rslave",
    "shared",
    "rshared",
    "unbindable",
    "runbindable",
)
DEFAULT_PROPAGATION: Propagation = "rprivate"

# Option -> (attribute, value). Without an option, an attribute stays as on the source. The atime words are one
# attribute with three values; a word that clears one of them means the kernel's default, relatime.
_ATTRIBUTES: dict[str, tuple[str, bool | str]] = {
    "ro": ("ro", True),
    "rw": ("ro", False),
    "nosuid": ("nosuid", True),
    "suid": ("nosuid", False),
    "nodev": ("nodev", True),
    "dev": ("nodev", False),
    "noexec": ("noexec", True),
    "exec": ("noexec", False),
    "nodiratime": ("nodiratime", True),
    "diratime": ("nodiratime", False),
    "nosymfollow": ("nosymfollow", True),
    "symfollow": ("nosymfollow", False),
    "noatime": ("atime", "noatime"),
    "relatime": ("atime", "relatime"),
    "strictatime": ("atime", "strictatime"),
    "atime": ("atime", "relatime"),
    "norelatime": ("atime", "relatime"),
    "nostrictatime": ("atime", "relatime"),
}
_BINDS = {"bind": False, "rbind": True}

# Options of a whole file system, which a bind cannot change.
_SUPERBLOCK = frozenset(
    "sync async dirsync mand nomand lazytime nolazytime iversion noiversion acl noacl tmpcopyup".split()
)
# docker accepts "consistency" on Linux, too, and ignores it.
_WITHOUT_EFFECT = frozenset(("defaults", "silent", "loud", "consistency"))

# Options that only an engine can implement, before it calls a runtime, and so this hook.
_ENGINE_OPTIONS = {
    "z": "relabels the source for SELinux",
    "Z": "relabels the source for SELinux",
    "U": "changes the owner of the source",
    "relabel": "relabels the source for SELinux",
}
NOFOLLOW = "dest-nofollow"  # an option of crun
# With these words in config.json's options crun does something else than bind the target of the source, crun(1):
# copy-symlink since 1.10, the others since 1.22. "idmap=" is crun's; the word alone is runtime-spec's.
_RUNTIMES_OPTIONS = {
    "copy-symlink": "copies a link and mounts nothing",
    "src-nofollow": "binds a link itself",
    "idmap": "maps owners in crun's syntax",
    "ridmap": "maps owners in crun's syntax",
}
_IDMAPS = {"idmap": False, "ridmap": True}
WORDS = (*_BINDS, *_ATTRIBUTES, *(f"r{word}" for word in _ATTRIBUTES), *PROPAGATIONS, *_IDMAPS)


class IdMap:
    """An id map: ranges (id in the source, id on the host, number of ids), for users and for groups.

    ``recursive``: it also applies to the mounts below. If both maps are None, they are those of the container's user
    namespace, or of the user namespace at the path ``namespace``.
    """

    def __init__(
        self, uids: IdMappings | None, gids: IdMappings | None, *, recursive: bool, namespace: str | None = None
    ) -> None:
        self.uids = uids
        self.gids = gids
        self.recursive = recursive
        self.namespace = namespace


class Request:
    """One requested mount.

    ``origin`` is where the request comes from (``config.json#/mounts/3``, ``--mount 1``), ``place`` its form in an
    error. ``type`` is "bind", or the file system type of a mount that only the runtime makes. ``top`` are the
    attributes of the top mount, ``deep`` those of all mounts. ``options`` are the same as OCI words, in a fixed order,
    so that equal requests compare equal. ``opener`` opens the source; None for one that may lead anywhere. ``subpath``
    is the part of the source that is bound, None for all of it. ``nofollow``: a link at the last step of the
    destination is not followed. ``is_runtimes_alone``: an option asks for what only the runtime does. ``pattern`` is
    the request that this one is a match of, or None. ``may_stay_writable``: if mounts below the source cannot be made
    read-only, only the top mount is. ``time``, in seconds since 1970, is when a bind to a running container was
    requested. With ``is_strict`` a word that is unknown, has no effect or contradicts an earlier one raises
    RequestError; otherwise the last word wins, as in runc, with a warning.
    """

    def __init__(
        self,
        origin: str,
        place: str,
        source: str,
        destination: str,
        options: Iterable[str],
        *,
        origin_kind: OriginKind = "argument",
        idmap: IdMap | None = None,
        is_strict: bool = False,
    ) -> None:
        self.origin = origin
        self.place = place
        self.origin_kind = origin_kind
        self.source = source
        self.subpath: str | None = None
        self.destination = destination
        self.nofollow = False
        self.is_runtimes_alone = False
        self.type = "bind"
        self.recursive = False
        self.top: dict[str, bool | str] = {}
        self.deep: dict[str, bool | str] = {}
        self.propagation: Propagation = DEFAULT_PROPAGATION
        self.idmap = idmap
        self.may_stay_writable = False
        self.optional = False
        self.when_exists: str | None = None
        self.is_glob = False
        self.pattern: Request | None = None
        self.follow_links = False
        self.opener: Opener | None = None
        self.time: int | None = None
        self.warnings: list[str] = []
        self._is_strict = is_strict
        self._said: dict[str, tuple[str, object]] = {}
        for option in options:
            self._take(option)
        self.options = tuple(self._words())

    @property
    def is_bind(self) -> bool:
        return self.type == "bind"

    @property
    def is_from_mounts(self) -> bool:
        return self.origin_kind == "mounts"

    @property
    def is_root(self) -> bool:
        """Whether this is the bind of the rootfs on itself."""
        return self.origin_kind == "root"

    @property
    def absolute_destination(self) -> str:
        """The destination as an absolute path; config.json may omit the first slash."""
        return self.destination if self.destination.startswith("/") else f"/{self.destination}"

    @property
    def is_read_only(self) -> bool:
        """Whether ``ro`` or ``rro`` is requested."""
        return self.top.get("ro", self.deep.get("ro")) is True

    def match(self, source: str, destination: str) -> Request:
        """The request for one match of the pattern."""
        one = Request.__new__(Request)
        one.__dict__.update(self.__dict__)
        one.is_glob = False
        one.pattern = self
        one.source = source
        one.destination = destination
        return one

    def settle_for_top(self) -> None:
        """Restricts read-only to the top mount."""
        self.deep = {name: value for name, value in self.deep.items() if name != "ro"}
        self.top = {**self.top, "ro": True}

    @property
    def apart(self) -> str:
        """The hint for a pattern whose matches have the same destination."""
        names = self.source.split("/")
        while names and {"*", "?", "["}.isdisjoint(names[0]):
            names.pop(0)
        wild = "/".join(names)
        if "*" in self.destination or "*" not in wild or not {"?", "["}.isdisjoint(wild):
            return "use one * in dst for each * in src to keep them apart"
        return f"use dst={self.destination.rstrip('/')}/{wild} to keep them apart"

    @property
    def may_mean_star(self) -> bool:
        """Whether a ``*`` in a path was written by a user, who may have meant a pattern."""
        return self.pattern is None and self.origin_kind in ("argument", "annotation", "attach")

    def at(self, member: str) -> str:
        """The place of a member of the request, for error messages."""
        return f"{self.place}/{member}" if self.is_from_mounts else self.place

    def _take(self, option: str) -> None:
        if option in _BINDS:
            self._say("bind", option, _BINDS[option])
            self.recursive = _BINDS[option]
        elif option in PROPAGATIONS:
            self._say("propagation", option, option)
            self.propagation = option
        elif option in _ATTRIBUTES:
            attribute, value = _ATTRIBUTES[option]
            self._say(attribute, option, value)
            if self.deep.get(attribute) == value:
                self.top.pop(attribute, None)
            else:
                self.top[attribute] = value
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            attribute, value = _ATTRIBUTES[option[1:]]
            self._say(attribute, option, value)
            self.deep[attribute] = value
            self.top.pop(attribute, None)
        elif option in _IDMAPS:
            known = self.idmap or IdMap(None, None, recursive=False)
            self.idmap = IdMap(known.uids, known.gids, recursive=_IDMAPS[option])
        elif option == NOFOLLOW:
            self.nofollow = True
        else:
            self._refuse(option)

    def _say(self, about: str, option: str, value: object) -> None:
        before = self._said.setdefault(about, (option, value))
        if self._is_strict and before[1] != value:
            raise RequestError(f'"{option}" contradicts "{before[0]}"', where=self.place)

    def _refuse(self, option: str) -> None:
        key = option.partition("=")[0]
        if key == "remount":
            problem = "changes an existing mount, but a bind creates a new one"
        elif key in _ENGINE_OPTIONS:
            problem = f"{_ENGINE_OPTIONS[key]}; only the engine can do that"
        elif key in _RUNTIMES_OPTIONS:
            problem = f"{_RUNTIMES_OPTIONS[key]}; only the runtime can do that"
            self.is_runtimes_alone = True
        elif key in _SUPERBLOCK:
            problem = "applies to a whole file system and has no effect on a bind"
        elif key in _WITHOUT_EFFECT:
            return
        elif self._is_strict:
            unknown = RequestError(f'"{key}" is not known', where=self.place)
            unknown.unknown = key
            raise unknown
        else:
            problem = "is not known to the hook; the runtime decides"
        if self._is_strict:
            raise RequestError(f'"{key}" {problem}', where=self.place)
        self.warnings.append(f'option "{option}" {problem}')

    def _words(self) -> Iterator[str]:
        yield "rbind" if self.recursive else "bind"
        for prefix, attributes in (("r", self.deep), ("", self.top)):
            for attribute in sorted(attributes):
                yield prefix + _word(attribute, attributes[attribute])
        if self.idmap is not None:
            yield "ridmap" if self.idmap.recursive else "idmap"
        if self.nofollow:
            yield "nofollow"
        yield self.propagation  # the last: mounting.undo.propagation_of

    def as_mount(self) -> dict[str, object]:
        """The request as an OCI mount object, schemas/bind-request.json."""
        mount: dict[str, object] = {
            "destination": self.absolute_destination,
            "source": self.source,
            "type": "bind",
            "options": list(self.options),
        }
        if self.subpath is not None:
            mount["subpath"] = self.subpath
        if self.idmap is not None and self.idmap.uids is not None and self.idmap.gids is not None:
            mount["uidMappings"] = _as_mappings(self.idmap.uids)
            mount["gidMappings"] = _as_mappings(self.idmap.gids)
        return mount


class Recorded:
    """The binds of a record, indexed by their request.

    A bind is identified by its source and subpath, destination, options, propagation and id map, that is by
    ``Request.as_mount``. Conditions, such as ``optional``, do not make it another bind.
    """

    def __init__(self, mounts: Sequence[MountRecord]) -> None:
        # Of equal binds the first one counts.
        self._found = {_frozen(mount["requested"]): mount for mount in reversed(mounts)}

    def find(self, request: Request) -> MountRecord | None:
        """The record of this bind, None if there is none, which is usual at the start of a container."""
        return self._found.get(_frozen(request.as_mount())) if self._found else None


def _frozen(value: object) -> Hashable:
    """A hashable form of a JSON value: equal for equal values."""
    if isinstance(value, dict):
        return frozenset((name, _frozen(member)) for name, member in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def _as_mappings(mappings: IdMappings) -> list[dict[str, int]]:
    return [{"containerID": inside, "hostID": host, "size": size} for inside, host, size in mappings]


def _word(attribute: str, value: object) -> str:
    return next(word for word, meaning in _ATTRIBUTES.items() if meaning == (attribute, value))


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint with the word of ``known`` that is most similar to ``word``, "" if none is."""
    near = most_similar(word, known)
    return f'did you mean "{near}"?' if near else ""


def most_similar(word: str, known: Sequence[str]) -> str:
    """The word of ``known`` that is most similar to ``word``, "" if none is."""
    if len(word) > 3 * max(map(len, known)):
        return ""  # no word is similar to it, and difflib would index all of it
    if (letters := word.replace("0", "o")) in known:
        return letters  # of two characters, half are too few for difflib

    import difflib

    return next(iter(difflib.get_close_matches(word, known, 1)), "")
