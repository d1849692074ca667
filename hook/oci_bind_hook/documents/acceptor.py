# SPDX-License-Identifier: Apache-2.0
"""Accepts documents that are certainly valid by the bundled schemas, without jsonschema.

Importing jsonschema takes longer than the rest of a run, so this acceptor checks each document first. It reads the same
schema files and compiles them to closures over a closed list of keywords.

Loaded by every start of a container: import only posix. A pattern without a function below needs re, but no document of
a normal run has one.
"""

from __future__ import annotations

import posix

from .. import FOLDER
from ..kernel import files
from .strictjson import parse_trusted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    __loader__: Any
    Accept = Callable[[Any], bool]
    Schema = Mapping[str, Any]

ADDRESS = "urn:oci-bind-hook:"  # the $id of a schema is this and its name
SCHEMAS = (
    *("bind-request", "cdi"),
    *("config", "config-freebsd", "config-linux", "config-linux-resources", "config-process", "config-seccomp"),
    *("config-solaris", "config-used", "config-vm", "config-windows", "config-zos"),
    *("defs", "doctor", "gc", "hooks-check", "hooks-d", "hooks-d-old", "plan", "records", "registrations", "state"),
    *("state-file", "state-file-1", "validation"),
)


def head(name: str, version: int = 1) -> dict[str, object]:
    """The first members of every document of this package: the ``$id`` of its schema, and its version."""
    return {"$schema": ADDRESS + name, "version": version}


def schema(name: str) -> dict[str, Any]:
    """The bundled schema ``name``, which may begin with ``ADDRESS``, as a dict. Raises OSError."""
    document = parse_trusted(source(name))
    assert isinstance(document, dict)
    return document


def source(name: str) -> bytes:
    """The content of the file of a bundled schema. Raises OSError."""
    path = f"{FOLDER}/schemas/{name.removeprefix(ADDRESS)}.json"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except NotADirectoryError:  # the package is in a zip archive
        data: bytes = __loader__.get_data(path)
        return data
    try:
        with files.Named(path):
            return files.read_all(fd)
    finally:
        posix.close(fd)


# Annotations: keywords that do not restrict a document.
_REMARKS = frozenset(("$comment", "$defs", "$id", "$schema", "description", "title"))


class Acceptor:
    """Compiles schemas as documents need them. ``load`` returns a schema by its ``$id``."""

    # An acceptor returns True for "certainly valid" and False for "not sure", never for "invalid". After False,
    # jsonschema judges the document and words the errors. So a mistake here that returns False costs 70 ms, but one
    # that returns True accepts a document of an attacker, because nothing checks it again. Hence the closed list of
    # keywords, exact types (``type(value) is int``, so that no bool or 1.0 passes), and no ``not``, ``oneOf`` or ``if``
    # without ``then``: they would need "certainly invalid", which False does not mean. A new keyword must also be added
    # to the property tests, which check that jsonschema accepts everything that this class accepts.

    def __init__(self, load: Callable[[str], Schema]) -> None:
        self._load = load
        self._schemas: dict[str, Schema] = {}
        self._accepts: dict[str, Accept] = {}

    def accepts(self, document: object, address: str) -> bool:
        """Whether ``document`` is certainly valid by the schema ``address``. False means not sure."""
        return self._at(address)(document)

    def _at(self, address: str) -> Accept:
        """The acceptor for a (sub)schema: an ``$id``, with ``#`` and a JSON pointer for a part of it."""
        if address not in self._accepts:
            # A schema that refers to itself gets this one while it is being compiled.
            self._accepts[address] = lambda value: self._accepts[address](value)
            try:
                self._accepts[address] = self._compile(self._dig(address), address.partition("#")[0])
            except BaseException:
                del self._accepts[address]  # otherwise it would call itself forever when it is used again
                raise
        return self._accepts[address]

    def _dig(self, address: str) -> Schema:
        base, _, pointer = address.partition("#")
        if base not in self._schemas:
            self._schemas[base] = self._load(base)
        found = self._schemas[base]
        for step in pointer.split("/")[1:]:
            found = found[step]
        return found

    def _compile(self, schema: Any, base: str) -> Accept:
        """An acceptor for all keywords of ``schema``, a part of the schema with the ``$id`` ``base``."""
        if isinstance(schema, bool):
            return _anything if schema else _not_sure
        parts: list[Accept] = []
        for keyword, wanted in schema.items():
            if keyword in _SIMPLE:
                parts.append(_SIMPLE[keyword](wanted))
            elif keyword == "$ref":
                parts.append(self._at(base + wanted if wanted.startswith("#") else wanted))
            elif keyword == "properties":
                parts.append(self._properties(schema, base))
            elif keyword == "items":
                parts.append(_items(self._compile(wanted, base)))
            elif keyword == "propertyNames":
                parts.append(_names(self._compile(wanted, base)))
            elif keyword == "additionalProperties":
                if "properties" not in schema:
                    parts.append(self._properties(schema, base))
            elif keyword == "anyOf":
                parts.append(_any([self._compile(each, base) for each in wanted]))
            elif keyword == "then":
                # If `then` holds, the result does not depend on `if`.
                parts.append(self._compile(wanted, base))
            elif keyword not in _REMARKS and keyword != "if":
                return _not_sure
        if "if" in schema and "then" not in schema:
            return _not_sure
        return _all(parts)

    def _properties(self, schema: Schema, base: str) -> Accept:
        properties = schema.get("properties", {})
        folded = [name.lower() for name in properties]
        # Of two known names that differ only in letter case, a document may have one: the judge checks this.
        known = {name: each for name, each in properties.items() if folded.count(name.lower()) == 1}
        # Compiled when a document first has that member. Most members never occur, so this saves half of the work.
        parts: dict[str, Accept] = {}
        others = self._compile(schema.get("additionalProperties", True), base)

        def accept(value: Any) -> bool:
            if type(value) is not dict:
                return type(value) in _PLAIN
            for name, member in value.items():
                if name in known:
                    if name not in parts:
                        parts[name] = self._compile(known[name], base)
                    if not parts[name](member):
                        return False
                # Go readers ignore letter case in names, and C readers stop at a NUL. Such a name, and any that is not
                # ASCII and so may have several lower-case forms, is left to the judge.
                elif properties and (not name.isascii() or "\0" in name or name.lower() in folded):
                    return False
                elif not others(member):
                    return False
            return True

        return accept


# The types that json.loads returns. Values of other types are not accepted.
_PLAIN = frozenset((dict, list, str, int, float, bool, type(None)))
_TYPES = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}


def _anything(_: Any) -> bool:
    return True


def _not_sure(_: Any) -> bool:
    return False


def _all(parts: list[Accept]) -> Accept:
    if not parts:
        return _anything
    first, *rest = parts
    if not rest:
        return first
    if len(rest) == 1:
        second = rest[0]
        return lambda value: first(value) and second(value)

    def accept(value: Any) -> bool:
        for part in parts:
            if not part(value):
                return False
        return True

    return accept


def _any(parts: list[Accept]) -> Accept:
    return lambda value: any(part(value) for part in parts)


def _items(part: Accept) -> Accept:
    def accept(value: Any) -> bool:
        if type(value) is not list:
            return type(value) in _PLAIN
        for item in value:
            if not part(item):
                return False
        return True

    return accept


def _names(part: Accept) -> Accept:
    return lambda value: type(value) in _PLAIN and (type(value) is not dict or all(map(part, value)))


def _type(wanted: str | list[str]) -> Accept:
    names = [wanted] if isinstance(wanted, str) else wanted
    # A type that is not listed ("number") accepts nothing. bool and 1.0 are not int.
    kinds = frozenset(_TYPES[name] for name in names if name in _TYPES)
    return lambda value: type(value) in kinds


def _enum(wanted: list[Any]) -> Accept:
    words = frozenset(word for word in wanted if type(word) is str)
    return lambda value: type(value) is str and value in words


def _const(wanted: Any) -> Accept:
    kind = type(wanted)
    if kind not in (str, int, bool):
        return _not_sure
    return lambda value: type(value) is kind and value == wanted


def _minimum(least: int) -> Accept:
    return lambda value: value >= least if type(value) is int else type(value) in _PLAIN and type(value) is not float


def _maximum(most: int) -> Accept:
    return lambda value: value <= most if type(value) is int else type(value) in _PLAIN and type(value) is not float


def _length(kind: type[Any], is_fitting: Callable[[int], bool]) -> Accept:
    return lambda value: is_fitting(len(value)) if type(value) is kind else type(value) in _PLAIN


def _required(names: list[str]) -> Accept:
    needed = frozenset(names)
    return lambda value: needed <= value.keys() if type(value) is dict else type(value) in _PLAIN


def _dependent_required(wanted: Mapping[str, list[str]]) -> Accept:
    def accept(value: Any) -> bool:
        if type(value) is not dict:
            return type(value) in _PLAIN
        return all(name not in value or value.keys() >= set(needed) for name, needed in wanted.items())

    return accept


def _unique_items(wanted: bool) -> Accept:  # noqa: FBT001 - it is the value of the keyword
    def accept(value: Any) -> bool:
        if type(value) is not list:
            return type(value) in _PLAIN
        return all(type(item) is str for item in value) and len(set(value)) == len(value)

    return accept if wanted else _anything


def _unique_by(name: str) -> Accept:
    def accept(value: Any) -> bool:
        if type(value) is not list:
            return type(value) in _PLAIN
        found = [item.get(name) for item in value if type(item) is dict]
        return all(type(each) is str for each in found) and len(set(found)) == len(found)

    return accept


def _pattern(pattern: str) -> Accept:
    matches = _PATTERNS.get(pattern) or _search(pattern)
    return lambda value: matches(value) if type(value) is str else type(value) in _PLAIN


def _search(pattern: str) -> Accept:
    """An acceptor that searches for ``pattern`` as jsonschema does."""
    import re

    search = re.compile(pattern).search
    return lambda text: search(text) is not None


# The patterns of the documents that every run reads, without re: importing it takes half as long as starting Python.
_ID = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_+.-"
_HEX = "0123456789abcdef"
_NO_NAMES = frozenset(("", ".", ".."))


def _is_clean(path: str) -> bool:
    first, *names = path.split("/")
    return not first and bool(names) and _NO_NAMES.isdisjoint(names) and "\0" not in path


def _is_variable(text: str) -> bool:
    name, is_there, _ = text.partition("=")
    return bool(name and is_there) and "\0" not in text


def _is_uuid(text: str) -> bool:
    parts = text.split("-")
    return [len(part) for part in parts] == [8, 4, 4, 4, 12] and not any(part.strip(_HEX) for part in parts)


_PATTERNS: dict[str, Accept] = {
    "^[^\\u0000]*$": lambda text: "\0" not in text,
    "^[^\\u0000]+$": lambda text: text != "" and "\0" not in text,
    "^/[^\\u0000]*$": lambda text: text.startswith("/") and "\0" not in text,
    r"^(/[^\u0000]*)?$(?!\n)": lambda text: text[:1] in ("", "/") and "\0" not in text,
    "^[^=\\u0000]+=[^\\u0000]*$": _is_variable,
    r"^(/(?!\.{1,2}(/|$(?!\n)))[^/\u0000]+)+$(?!\n)": _is_clean,
    r"^(?!\.{1,2}$(?!\n))[^/\u0000]+$(?!\n)": lambda text: "/" not in text and _is_clean(f"/{text}"),
    r"^(/|(/(?!\.{1,2}(/|$(?!\n)))[^/\u0000]+)+)$(?!\n)": lambda text: text == "/" or _is_clean(text),
    r"^(?!\.{1,2}$)[A-Za-z0-9_+.-]{1,200}$(?!\n)": lambda text: (
        0 < len(text) <= 200 and text not in (".", "..") and not text.strip(_ID)
    ),
    r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$(?!\n)": _is_uuid,
}

_SIMPLE: dict[str, Callable[[Any], Accept]] = {
    "type": _type,
    "enum": _enum,
    "const": _const,
    "minimum": _minimum,
    "maximum": _maximum,
    "minLength": lambda least: _length(str, lambda length: length >= least),
    "maxLength": lambda most: _length(str, lambda length: length <= most),
    "minItems": lambda least: _length(list, lambda length: length >= least),
    "required": _required,
    "dependentRequired": _dependent_required,
    "uniqueItems": _unique_items,
    "uniqueBy": _unique_by,
    "pattern": _pattern,
}
