# SPDX-License-Identifier: Apache-2.0
"""Parses the text of a bind in ``--mount`` and annotations: the CSV syntax of docker, podman and Sarus."""

from __future__ import annotations

from ..errors import RequestError, UsageError
from .request import NOFOLLOW, PROPAGATIONS, WORDS, IdMap, Request, most_similar, nearest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..documents.oci import IdMappings
    from .request import OriginKind

FLAG, PATH, BELOW, ID_MAP = "flag", "path", "path below", "id map"

# Field -> the member that it sets, its kind (or the allowed words), and whether another value makes another bind, which
# then does not match a recorded one. Every other field is an option of runtime-spec, request.WORDS, and makes another
# bind. commands/reference.py, which no start of a container loads, explains the fields.
FIELDS: dict[str, tuple[str, str | tuple[str, ...], bool]] = {
    "src": ("source", PATH, True),
    "source": ("source", PATH, True),
    "dst": ("destination", PATH, True),
    "destination": ("destination", PATH, True),
    "target": ("destination", PATH, True),
    "subpath": ("subpath", BELOW, True),
    "volume-subpath": ("subpath", BELOW, True),
    "type": ("type", ("bind", "glob"), False),
    "bind-propagation": ("bind-propagation", PROPAGATIONS, True),
    "bind-recursive": ("bind-recursive", ("enabled", "disabled", "writable", "readonly"), True),
    "when-exists": ("when-exists", PATH, False),
    "idmap": ("idmap", ID_MAP, True),
    "ridmap": ("idmap", ID_MAP, True),
    "ro": ("ro", FLAG, True),
    "readonly": ("ro", FLAG, True),
    "bind-nonrecursive": ("bind-recursive", FLAG, True),
    "nofollow": ("nofollow", FLAG, True),
    "dest-nofollow": ("nofollow", FLAG, True),
    "optional": ("optional", FLAG, False),
    "glob": ("glob", FLAG, False),
    "follow-links": ("follow-links", FLAG, False),
}

# The values of Go's strconv.ParseBool.
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_LARGEST_ID = 2**32 - 1
# The limit for a path in the container, path_resolution(7). Each match of a pattern requires a walk to it.
_PATH_MAX = 4096


def parse_mount(text: str, origin: str, place: str, origin_kind: OriginKind = "argument") -> Request:
    """The request in ``type=bind,src=/a,dst=/b[,ro]...``; ``origin`` and ``place`` are those of Request.

    Binds are recursive by default, as in docker and podman. Raises UsageError for malformed text, RequestError for a
    key or word that is unknown or invalid.
    """
    members: dict[str, str | bool] = {}
    words: list[str] = []
    cut: dict[str, str] = {}  # by field, the one before it: if that is a path, both may be one path with a comma
    before = ""
    for field in split_csv(text, place):
        cut[field], before = before, field
        key, equals, value = field.partition("=")
        if not key:
            raise UsageError(
                f'the field "{field}" has no name', where=place, hint="for example type=bind,src=/a,dst=/b"
            )
        if key not in FIELDS:
            if equals and key in WORDS:
                raise UsageError(f'"{key}" takes no value', where=place)
            words.append(field)
            continue
        name = FIELDS[key][0]
        if name in members:
            raise UsageError(f'the {name} is set twice, the second time by "{key}"', where=place)
        members[name] = _value(key, equals, value, place)
    # Checked after all fields are parsed, so that malformed text is reported first.
    _check_words(members, place)
    request = _request(members, words, origin, place, origin_kind, cut)
    # Checked after unknown words, because a missing field may be there under a misspelt name.
    for name in ("source", "destination"):
        if name not in members:
            raise UsageError(
                f"the {name} is missing", where=place, hint="for example type=bind,src=/on/host,dst=/in/container"
            )
    for name, (_, kind, _) in FIELDS.items():
        if kind == PATH and not str(members.get(name, "/")).startswith("/"):
            hint = "variables and ~ are not expanded" if str(members[name])[:1] in ("$", "~") else ""
            raise RequestError(f'the {name} "{members[name]}" is not an absolute path', where=place, hint=hint)
    for name in ("destination", "when-exists"):
        if (length := len(str(members.get(name, "")))) >= _PATH_MAX:
            raise RequestError(f"the {name} has {length} characters, and the limit is {_PATH_MAX - 1}", where=place)
    _check_below(request, place)
    if request.is_glob and "*" in request.destination:
        _check_stars(request)
    return request


def _check_below(request: Request, place: str) -> None:
    """Raises RequestError for a ``subpath`` that is not inside the source, or ``nofollow`` without a last step."""
    below = request.subpath
    if below is not None:
        if below.startswith("/"):
            raise RequestError(
                f'the subpath "{below}" is absolute', where=place, hint="use a path relative to the source"
            )
        if ".." in below.split("/"):
            raise RequestError(f'the subpath "{below}" contains ".."', where=place, hint='use the path without ".."')
        if request.is_glob:
            raise RequestError('"subpath" cannot be combined with a pattern as source', where=place)
    if request.nofollow and request.destination.endswith(("/", "/.")) and not _is_folder_of_matches(request):
        problem = f'with "nofollow", the destination "{request.destination}" must end with a name'
        raise RequestError(problem, where=place, hint="a trailing slash follows the link")


def _is_folder_of_matches(request: Request) -> bool:
    """Whether each match of a pattern is bound below the destination, under its own name."""
    if not request.is_glob:
        return False
    from .stars import count

    return not count(request.destination)


def _check_stars(request: Request) -> None:
    """Raises RequestError for a ``*`` in the destination that has no counterpart in the source."""
    from .stars import count

    source, destination = count(request.source), count(request.destination)
    if destination > source:
        problem = (
            f"the destination has {destination} * but the source has {source or 'none'}: each * in dst needs one in src"
        )
        raise RequestError(problem, where=request.place, hint="[*] is a literal star")


def _value(key: str, equals: str, value: str, place: str) -> str | bool:
    """The value of a field: a bool for a flag, text for any other kind."""
    kind = FIELDS[key][1]
    if kind == FLAG:
        if equals and value not in _BOOLEANS:
            raise UsageError(f'"{key}" must be true or false, not "{value}"', where=place)
        flag = _BOOLEANS[value] if equals else True
        if key == "bind-nonrecursive":
            return "disabled" if flag else ""  # also in podman, where false does not concern the mounts below
        return flag
    if kind == ID_MAP and not equals:
        return key
    if not value:
        raise UsageError(f'"{key}" requires a value', where=place, hint=f"{key}=...")
    if "\0" in value:
        raise RequestError(f'"{key}" contains a NUL byte', where=place)
    return f"{key}={value}" if kind == ID_MAP else value


def _check_words(members: dict[str, str | bool], place: str) -> None:
    """Raises RequestError for a field whose value is not one of its allowed words."""
    for name, (_, kind, _) in FIELDS.items():
        word = str(members.get(name, ""))
        if isinstance(kind, tuple) and word and word not in kind:
            hint = nearest(word, kind) or "one of " + ", ".join(kind)
            raise RequestError(f'{name} "{word}" is not known', where=place, hint=hint)


def _request(
    members: dict[str, str | bool],
    words: list[str],
    origin: str,
    place: str,
    origin_kind: OriginKind,
    cut: dict[str, str],
) -> Request:
    """The request with ``members`` and option ``words``. A missing path is empty. Raises RequestError, UsageError.

    ``cut`` maps each field to the one before it.
    """
    options = []
    recursive = members.get("bind-recursive")
    if recursive == "readonly" and members.get("ro") is not True:
        raise RequestError("bind-recursive=readonly also requires ro", where=place)
    if recursive == "writable" and "rro" in words:
        raise RequestError('"rro" contradicts "bind-recursive=writable"', where=place)
    if recursive is not None:
        options.append("bind" if recursive == "disabled" else "rbind")
    elif "bind" not in words:
        options.append("rbind")
    if members.get("ro") is True:
        options.append("rro" if recursive in ("readonly", "enabled") else "ro")
    if members.get("nofollow") is True:
        options.append(NOFOLLOW)
    if "bind-propagation" in members:
        options.append(str(members["bind-propagation"]))
    idmap = _parse_idmap(str(members["idmap"]), place) if "idmap" in members else None
    source, destination = str(members.get("source", "")), str(members.get("destination", ""))
    options += dict.fromkeys(words)  # a repeated word has no further effect
    try:
        request = Request(
            origin, place, source, destination, options, origin_kind=origin_kind, idmap=idmap, is_strict=True
        )
    except RequestError as problem:
        if problem.unknown:
            problem.hint = _hint(problem.unknown, cut)
        raise
    if recursive == "readonly" and request.propagation != "rprivate":
        hint = "mounts that propagate later would be writable; to allow that, use rro instead"
        raise RequestError("bind-recursive=readonly requires rprivate", where=place, hint=hint)
    request.may_stay_writable = recursive == "enabled"
    request.subpath = str(members["subpath"]) if "subpath" in members else None
    request.optional = members.get("optional") is True
    request.is_glob = members.get("type") == "glob" or members.get("glob") is True
    request.follow_links = members.get("follow-links") is True
    if request.follow_links and not request.is_glob:
        hint = "links of a plain source are always followed"
        raise RequestError('"follow-links" requires a pattern', where=place, hint=hint)
    request.when_exists = str(members["when-exists"]) if "when-exists" in members else None
    return request


def _hint(unknown: str, cut: dict[str, str]) -> str:
    """The hint for an unknown word. ``cut`` is as in ``_request``."""
    if near := nearest(unknown, [name for name, (_, kind, _) in FIELDS.items() if kind != FLAG]):
        return near
    near = most_similar(unknown, (*FIELDS, *WORDS))
    hint = f'did you mean "{near}"?' if near else "one of " + ", ".join(FIELDS) + ", or an option of runtime-spec"
    field = next((each for each in cut if each.partition("=")[0] == unknown), unknown)
    before = cut.get(field, "")
    is_path = FIELDS.get(before.partition("=")[0], ("", ""))[1] in (PATH, BELOW)
    if not is_path or (near and "=" not in field):
        return hint
    start = f'use "{near}", or' if near else f"{hint};"
    return f'{start} if it belongs to the path before it, quote both: "{before},{field}"'


def _parse_idmap(text: str, place: str) -> IdMap:
    """``idmap[=uids=0-1000-1#1-2000-1;gids=...]``: id in the source, id on the host, number of ids."""
    key, _, value = text.partition("=")
    runs: dict[str, IdMappings] = {}
    for part in filter(None, value.split(";")):
        name, _, triples = part.partition("=")
        if name not in ("uids", "gids") or name in runs:
            raise UsageError(
                f'"{part}" is unexpected: an id map takes uids=... once and gids=... once', where=f"{place}: {key}"
            )
        runs[name] = tuple(_parse_run(triple, f"{place}: {key}") for triple in triples.split("#"))
    if len(runs) == 1:
        raise RequestError("uids and gids must both be set", where=f"{place}: {key}")
    return IdMap(runs.get("uids"), runs.get("gids"), recursive=key == "ridmap")


def _parse_run(text: str, place: str) -> tuple[int, int, int]:
    numbers = text.split("-")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        hint = "id in the source, id on the host, number of ids"
        raise UsageError(f'"{text}" does not have the form 0-1000-1', where=place, hint=hint)
    # Cut, because Python limits the digits that int() converts.
    inside, host, size = (int(number.lstrip("0")[:20] or "0") for number in numbers)
    if not size or max(inside, host) + size - 1 > _LARGEST_ID:
        raise RequestError(f'"{text}" is empty or exceeds the largest id', where=place)
    return inside, host, size


def split_csv(text: str, place: str) -> list[str]:
    """The fields of a CSV line as in Go's encoding/csv: ``a,"b,c","d""e"``. Raises UsageError for a stray quote."""
    # An annotation may have megabytes. It is split once, at its quotes, so that the time stays linear.
    pieces = text.split('"')
    fields: list[str] = []
    at = 0  # the index of the piece outside quotes, which starts at the beginning of a field
    while True:
        outside = pieces[at].split(",")
        if at + 1 == len(pieces):
            return fields + outside
        if begun := outside.pop():
            field = begun + '"' + '"'.join(pieces[at + 1 :]).partition(",")[0]
            raise UsageError(f"the field {field} contains a quote", where=place, hint='quote the whole field: "a,b"')
        fields += outside
        first, at = at + 1, at + 2
        while at + 1 < len(pieces) and not pieces[at]:  # an empty piece between two quotes is a doubled quote
            at += 2
        if at >= len(pieces):
            raise UsageError("the closing quote is missing", where=place)
        fields.append('"'.join(pieces[first:at:2]))
        if pieces[at][:1] == ",":
            pieces[at] = pieces[at][1:]
        elif at + 1 == len(pieces) and not pieces[at]:
            return fields
        else:
            rest = '"'.join(pieces[at:])
            raise UsageError(f"the comma is missing before {rest}", where=place)
