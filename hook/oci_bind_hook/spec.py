# SPDX-License-Identifier: Apache-2.0
"""From bytes to strict JSON to validated, typed ``State`` and ``Config``.

config.json is read by two programs, the runtime and this hook, and whatever two JSON readers can understand
differently is a way to make them work on different containers. So what Go and C readers disagree about is refused.
What the values *mean* (which options exist, whether a path is sane) is beyond the scope of this module.
"""

from __future__ import annotations

import json
import os

from .errors import DataError
from .log import one_line

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    IdMappings = tuple[tuple[int, int, int], ...]

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 200  # far above any real document, far below every Python's own limit
LEAST, MOST = -(2**63), 2**64 - 1  # what a reader in Go or C can hold
MAX_SHOWN = 200  # characters of a value or name that a message repeats
BLANKS = " \t\n\r"  # RFC 8259, ws
ADDRESS = "urn:oci-bind-hook:"  # and a name: what schemas call each other
SCHEMAS = (
    "bind-request",
    *("config", "config-freebsd", "config-linux", "config-linux-resources", "config-process", "config-seccomp"),
    *("config-solaris", "config-used", "config-vm", "config-windows", "config-zos"),
    *("defs", "doctor", "hooks-check", "hooks-d", "hooks-d-old", "plan", "state", "state-file", "validation"),
)

_validators: dict[str, Any] = {}  # built once each: it takes longer than most validations


def documents(data: bytes, name: str, most: int = 1) -> list[object]:
    """One to ``most`` JSON documents out of ``data``, one behind the other.

    Strict: UTF-8 without BOM, at most MAX_BYTES and MAX_DEPTH, no member twice, nothing that JSON or a file name
    cannot hold. DataError with ``name`` and the byte, the line and column or the JSON pointer (RFC 8259, RFC 7493).
    """
    text = _text(data, name).rstrip(BLANKS)
    doubts = _Doubts()
    decoder = json.JSONDecoder(
        object_pairs_hook=doubts.members,
        parse_int=doubts.integer,
        parse_float=doubts.real,
        parse_constant=doubts.constant,
    )
    found: list[object] = []
    end = 0
    try:
        _refuse_depth(text)
        while end < len(text):
            start = len(text) - len(text[end:].lstrip(BLANKS))
            if len(found) == most:
                raise json.JSONDecodeError("Text after the end of the document", text, start)
            document, end = decoder.raw_decode(text, start)
            found.append(document)
    except json.JSONDecodeError as error:
        raise DataError(name, [("", str(error))]) from None
    if doubts.any or "\\ud" in text or "\\uD" in text:
        for document in found:
            if bad := list(_faults(document, ())):
                raise DataError(name, _sorted(bad))
    return found


def violations(document: object, schema: str) -> list[tuple[str, str]]:
    """Every place where ``document`` breaks the bundled ``schema`` ("config", "plan", ...), sorted, none twice.

    A place is a JSON pointer (RFC 6901; a missing member is pointed to as if it were there) and a message of one
    line. Numbers are strict: ``true`` and ``1.0`` are no integers. Nothing is ever fetched.
    "config" is the whole of config.json, "config-used" what ``config`` judges.
    """
    return _sorted([place for error in _validator(schema).iter_errors(document) for place in _worded(error)])


def schema(name: str) -> dict[str, Any]:
    """The bundled schema ``name`` as a dict; its ``$id`` is ``ADDRESS`` and the name."""
    with open(os.path.join(os.path.dirname(__file__), "schemas", f"{name}.json"), encoding="utf-8") as file:
        document: dict[str, Any] = json.load(file)
    return document


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


# Strict JSON


class _Fault:
    """Stands in a decoded document for a value that is refused, until the walk has found out where that is."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message


class _Doubts:
    """The decoder's callbacks: they cannot know the place, so they leave a fault there and note that there is one."""

    __slots__ = ("any",)

    def __init__(self) -> None:
        self.any = False

    def fault(self, message: str) -> _Fault:
        self.any = True
        return _Fault(message)

    def members(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    members[name] = self.fault("is there twice; runtimes disagree about which one counts")
                seen.add(name)
        return members

    def integer(self, digits: str) -> object:
        if len(digits) < 19 or (len(digits) < 21 and LEAST <= int(digits) <= MOST):
            return int(digits)
        return self.fault("does not fit into 64 bits")

    def real(self, digits: str) -> object:
        number = float(digits)
        return number if abs(number) != float("inf") else self.fault("is too large a number")

    def constant(self, word: str) -> object:
        return self.fault(f"is {word}, which JSON does not know")


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        problem = f"is larger than {MAX_BYTES // (1024 * 1024)} MiB"
    elif not data.strip(BLANKS.encode()):
        problem = "is empty"
    elif data.startswith(b"\xef\xbb\xbf"):
        problem = "begins with a byte order mark, which JSON forbids"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        problem = "is not UTF-8 (it looks like UTF-16 or UTF-32)"
    else:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8 at byte offset {error.start}"
    raise DataError(name, [("", problem)])


def _refuse_depth(text: str) -> None:
    """JSONDecodeError where brackets nest too deep: before decoding, since every Python has a limit of its own."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return
    same_length = text.replace("\\\\", "__").replace('\\"', "__")
    brackets = "".join(same_length.split('"')[::2]).encode().translate(_ROUND, _NO_BRACKETS)
    for _ in range(MAX_DEPTH):
        if b"()" not in brackets:
            break
        brackets = brackets.replace(b"()", b"")  # takes one level away, many times faster than to count
    if not brackets:
        return
    depth, in_string = 0, False
    for place, character in enumerate(same_length):
        if character == '"':
            in_string = not in_string
        elif not in_string:
            depth += (character in "[{") - (character in "]}")
            if depth > MAX_DEPTH:
                raise json.JSONDecodeError(f"Nested deeper than {MAX_DEPTH} levels", text, place)


_ROUND = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def _faults(value: object, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], str]]:
    if isinstance(value, _Fault):
        yield path, value.message
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield path, "has half a surrogate pair in it"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, (*path, index))
    elif isinstance(value, dict):
        for name, member in value.items():
            yield from _faults(name, (*path, name))
            yield from _faults(member, (*path, name))


# Schemas


def _valid(document: object, schema: str, name: str) -> dict[str, Any]:
    found = violations(document, schema)
    if found:
        raise DataError(name, found)
    assert isinstance(document, dict)
    return document


def _validator(name: str) -> Any:
    if name not in _validators:
        from jsonschema import Draft202012Validator, validators
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012

        strict: Any = validators.extend(  # type: ignore[no-untyped-call]
            Draft202012Validator,
            {"properties": _properties},
            type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
        )
        schemas: dict[str, dict[str, Any]] = {}
        needed = [name]
        for each in needed:
            if each not in schemas:
                schemas[each] = schema(each)
                # Where it comes upon $schema, jsonschema takes its own validator instead of the strict one.
                schemas[each].pop("$schema", None)
                needed += _references(schemas[each])
        resources = [(ADDRESS + each, DRAFT202012.create_resource(contents)) for each, contents in schemas.items()]
        registry: Any = Registry().with_resources(resources)
        _validators[name] = strict(schemas[name], registry=registry)
    return _validators[name]


def _references(schema: object) -> Iterator[str]:
    """The names of the schemas that a schema refers to: the others need not be read."""
    if isinstance(schema, dict):
        for keyword, value in schema.items():
            if keyword == "$ref" and isinstance(value, str) and value.startswith(ADDRESS):
                yield value.removeprefix(ADDRESS).partition("#")[0]
            else:
                yield from _references(value)


def _properties(validator: Any, known: dict[str, Any], instance: object, schema: Any) -> Iterator[Any]:
    """The keyword ``properties``, which here also refuses a known name in other letter case: Go would read it."""
    from jsonschema import Draft202012Validator, ValidationError

    yield from Draft202012Validator.VALIDATORS["properties"](validator, known, instance, schema)
    if isinstance(instance, dict):
        spelling = {_folded(name): name for name in known}
        seen: dict[str, str] = {}
        for name in instance:
            folded = _folded(name)
            if name in known:
                if seen.setdefault(folded, name) != name:
                    message = f'must not stand beside "{seen[folded]}": some runtimes take one for the other'
                    yield ValidationError(message, path=(name,))
            elif folded in spelling:
                message = f'must be spelled "{spelling[folded]}": some runtimes take it for that, others do not see it'
                yield ValidationError(message, path=(name,))


def _folded(name: str) -> str:
    """A member's name as Go compares it: without letter case, the long s as s and the sign for kelvin as k."""
    return name.replace("\u017f", "s").lower()


def _worded(error: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    """A validator's error as places and messages for a person: one for each member it is about."""
    path = tuple(error.absolute_path)
    keyword, wanted, value = error.validator, error.validator_value, error.instance
    if "propertyNames" in error.absolute_schema_path:
        yield (*path, value), f"has a name that {_sentence(error)}"
    elif keyword == "required":
        yield from (((*path, name), "is missing") for name in wanted if name not in value)
    elif keyword == "dependentRequired":
        for name in wanted.keys() & value.keys():
            missing = [need for need in wanted[name] if need not in value]
            yield from (((*path, need), f"is missing, but {name} is there") for need in missing)
    elif keyword == "anyOf":
        first, *others = (each["required"] for each in wanted)
        instead = _either(" and ".join(names) for names in others)
        yield from (((*path, name), f"is missing, and so is {instead}") for name in first if name not in value)
    elif keyword == "additionalProperties":
        yield from (((*path, name), "is not known here") for name in value if name not in error.schema["properties"])
    else:
        yield path, _sentence(error)


def _sentence(error: Any) -> str:
    """What an error says of one value."""
    keyword, wanted, value = error.validator, error.validator_value, error.instance
    if keyword == "properties":
        return str(error.message)
    if keyword == "type":
        return f"must be of type {_either([wanted] if isinstance(wanted, str) else wanted)}, not {_shown(value)}"
    if keyword in ("pattern", "enum"):
        return f"must be {error.schema.get('title') or _either(map(_shown, wanted))}, not {_shown(value)}"
    return _MESSAGES[keyword].format(wanted=_shown(wanted), value=_shown(value))


_MESSAGES = {
    "const": "must be {wanted}, not {value}",
    "minimum": "must be at least {wanted}, not {value}",
    "maximum": "must be at most {wanted}, not {value}",
    "minLength": "must have at least {wanted} character",
    "maxLength": "must have at most {wanted} characters, unlike {value}",
    "minItems": "must have at least {wanted} item",
    "uniqueItems": "has the same item twice",
}


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last


def _shown(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return f'"{_printable(value)}"'
    return _printable(json.dumps(value))


def _printable(text: str) -> str:
    """Short, on one line, and without characters that act on a terminal."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    return one_line(cut)


def _sorted(found: list[tuple[tuple[Any, ...], str]]) -> list[tuple[str, str]]:
    return [(_pointer(path), message) for path, message in sorted(set(found))]


def _pointer(path: tuple[Any, ...]) -> str:
    return "".join("/" + _printable(str(step).replace("~", "~0").replace("/", "~1")) for step in path)
