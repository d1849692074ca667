# SPDX-License-Identifier: Apache-2.0
"""What is asked for: config.json and ``--mount`` arguments as an ordered list of bind requests.

Pure: the file system is never looked at, and the kernel's numbers are not known here. The option table is that of
runtime-spec config.md, "Linux mount options".
"""

from __future__ import annotations

from .errors import RequestError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .spec import Config, Mount

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable")
DEFAULT_PROPAGATION = "rprivate"

# Option -> (attribute, value). An attribute that no option mentions is kept as the source has it. The atime words are
# one attribute of three values; what clears one of them means the kernel's default, relatime.
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

# They belong to the file system as a whole, so that a bind cannot change them.
_SUPERBLOCK = frozenset(
    "sync async dirsync mand nomand lazytime nolazytime iversion noiversion acl noacl tmpcopyup".split()
)
_WITHOUT_EFFECT = frozenset(("defaults", "silent", "loud"))

# --mount key -> the member it fills; docker, podman and Sarus spell them alike.
_SOURCES = frozenset(("src", "source"))
_DESTINATIONS = frozenset(("dst", "destination", "target"))


class Request:
    """One mount that is asked for.

    ``origin`` tells by whom (``config.json#/mounts/3``, ``--mount 1``). ``type`` is "bind", or the file system type of
    a mount that only the runtime makes. ``top`` are the attributes of the mount itself, ``deep`` those of all mounts
    below it too. ``options`` is the same in OCI words, in a fixed order, so that equal requests compare equal.
    """

    def __init__(self, origin: str, place: str, source: str, destination: str, options: Iterable[str]) -> None:
        self.origin = origin
        self.place = place
        self.from_config = place.startswith("config.json")
        self.source = source
        self.destination = destination
        self.type = "bind"
        self.recursive = False
        self.top: dict[str, bool | str] = {}
        self.deep: dict[str, bool | str] = {}
        self.propagation = DEFAULT_PROPAGATION
        self.unsupported = ""
        self.warnings: list[str] = []
        for option in options:
            self._take(option)
        self.options = tuple(self._words())

    @property
    def is_bind(self) -> bool:
        return self.type == "bind"

    def at(self, member: str) -> str:
        """The place of one member of the request, for an error."""
        return f"{self.place}/{member}" if self.from_config else self.place

    def _take(self, option: str) -> None:
        """The last word wins, as in runc. What is not known here is left to the runtime, with a warning."""
        if option in _BINDS:
            self.recursive = _BINDS[option]
        elif option in PROPAGATIONS:
            self.propagation = option
        elif option in _ATTRIBUTES:
            attribute, value = _ATTRIBUTES[option]
            self.top[attribute] = value
        elif option[:1] == "r" and option[1:] in _ATTRIBUTES:
            attribute, value = _ATTRIBUTES[option[1:]]
            self.deep[attribute] = value
            self.top.pop(attribute, None)
        elif option in ("idmap", "ridmap") or option.startswith("idmap="):
            self.unsupported = "an id-mapped bind is not made by this hook"
        elif option in _SUPERBLOCK:
            self.warnings.append(f'option "{option}" belongs to a whole file system and does nothing to a bind')
        elif option not in _WITHOUT_EFFECT:
            self.warnings.append(f'option "{option}" is not known; the runtime decides about it')

    def _words(self) -> Iterator[str]:
        yield "rbind" if self.recursive else "bind"
        for prefix, attributes in (("r", self.deep), ("", self.top)):
            for attribute in sorted(attributes):
                yield prefix + _word(attribute, attributes[attribute])
        yield self.propagation

    def as_mount(self) -> dict[str, object]:
        """The request as an OCI mount object, schemas/bind-request.json."""
        return {
            "destination": self.destination if self.destination.startswith("/") else f"/{self.destination}",
            "source": self.source,
            "type": "bind",
            "options": list(self.options),
        }


def _word(attribute: str, value: object) -> str:
    return next(word for word, meaning in _ATTRIBUTES.items() if meaning == (attribute, value))


def requests(config: Config, arguments: Sequence[str]) -> list[Request]:
    """All mounts asked for, in the order in which they are mounted: config.json's, then the ``--mount`` arguments.

    Mounts of config.json that are no binds are in it too, since a later destination may lie below them.
    UsageError for a malformed argument, RequestError for what makes no sense, in an argument or in config.json.
    """
    found = [_from_config(mount) for mount in config.mounts]
    found += [parse_mount(text, number) for number, text in enumerate(arguments, 1)]
    return found


def _from_config(mount: Mount) -> Request:
    origin, place = f"config.json#/mounts/{mount.index}", f"config.json: /mounts/{mount.index}"
    is_bind = mount.type == "bind" or any(option in _BINDS for option in mount.options)
    if not is_bind or "remount" in mount.options:
        request = Request(origin, place, mount.source or "", mount.destination, ())
        request.type = "remount" if is_bind else mount.type or "none"
        return request
    if not mount.source:
        raise RequestError("a bind needs a source", where=f"{place}/source")
    request = Request(origin, place, mount.source, mount.destination, mount.options)
    if not any(option in _BINDS for option in mount.options):
        request.warnings.append('type is "bind" but no option says bind or rbind: runtimes refuse that')
    if not mount.destination.startswith("/"):
        request.warnings.append("the destination is relative, which runtime-spec deprecates: taken from /")
    if mount.uid_mappings or mount.gid_mappings:
        request.unsupported = "an id-mapped bind is not made by this hook"
    return request


def parse_mount(text: str, number: int) -> Request:
    """A ``--mount`` argument, ``type=bind,src=/a,dst=/b[,ro]...``, as docker, podman and Sarus spell it.

    Binds are recursive unless said otherwise, as there. UsageError where it is malformed, RequestError where a key is
    not known or makes no sense.
    """
    place = f"--mount {number}"
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{text} is not UTF-8, and the state file can hold nothing else", where=place) from None
    members: dict[str, str] = {}
    options = ["rbind"]
    for field in split_csv(text, place):
        key, equals, value = field.partition("=")
        if not key:
            raise UsageError(f'the field "{field}" has no name', where=place, hint="type=bind,src=/a,dst=/b")
        name = _member(key, place)
        if name in members:
            raise UsageError(f'the {name} is given twice, the second time as "{key}"', where=place)
        members[name] = value
        if name == "ro":
            if equals:
                raise UsageError(f'"{key}" takes no value', where=place)
            options.append("ro")
        elif not value:
            raise UsageError(f'"{key}" needs a value', where=place, hint=f"{key}=...")
    if members.get("type", "bind") != "bind":
        raise RequestError(f'type "{members["type"]}" cannot be mounted by this hook', where=place, hint="type=bind")
    for name in ("source", "destination"):
        if name not in members:
            raise UsageError(f"no {name} is given", where=place, hint="type=bind,src=/on/host,dst=/in/container")
        if not members[name].startswith("/"):
            raise RequestError(f'the {name} "{members[name]}" is not an absolute path', where=place)
        if "\0" in members[name]:
            raise RequestError(f"the {name} holds a NUL", where=place)
    if "bind-propagation" in members:
        word = members["bind-propagation"]
        if word not in PROPAGATIONS:
            hint = nearest(word, PROPAGATIONS) or "one of " + ", ".join(PROPAGATIONS)
            raise RequestError(f'bind-propagation "{word}" is not known', where=place, hint=hint)
        options.append(word)
    return Request(place, place, members["source"], members["destination"], options)


def _member(key: str, place: str) -> str:
    if key in _SOURCES:
        return "source"
    if key in _DESTINATIONS:
        return "destination"
    if key in ("ro", "readonly"):
        return "ro"
    if key in ("type", "bind-propagation"):
        return key
    known = (*sorted(_SOURCES | _DESTINATIONS), "ro", "readonly", "type", "bind-propagation")
    raise RequestError(f'"{key}" is not known', where=place, hint=nearest(key, known) or "one of " + ", ".join(known))


def nearest(word: str, known: Sequence[str]) -> str:
    """A hint for somebody who wrote a ``word`` that is not among those ``known``; "" if it is like none of them."""
    import difflib

    near = difflib.get_close_matches(word, known, 1)
    return f'did you mean "{near[0]}"?' if near else ""


def split_csv(text: str, place: str) -> list[str]:
    """The fields of one CSV line as Go's encoding/csv reads them: ``a,"b,c","d""e"``. UsageError for a stray quote."""
    fields = []
    rest = text
    while True:
        if rest.startswith('"'):
            field, rest = _quoted(rest[1:], place)
        else:
            comma = rest.find(",")
            field, rest = (rest, "") if comma < 0 else (rest[:comma], rest[comma:])
            if '"' in field:
                raise UsageError(f"a quote stands inside the field {field}", where=place, hint='quote it whole: "a,b"')
        fields.append(field)
        if not rest:
            return fields
        if not rest.startswith(","):
            raise UsageError(f"a comma is missing before {rest}", where=place)
        rest = rest[1:]


def _quoted(text: str, place: str) -> tuple[str, str]:
    field = ""
    while True:
        part, quote, text = text.partition('"')
        if not quote:
            raise UsageError("a quote is not closed", where=place)
        field += part
        if not text.startswith('"'):
            return field, text
        field += '"'
        text = text[1:]
