# SPDX-License-Identifier: Apache-2.0
"""JSON as Go's encoding/json decodes it into a structure, which engines do with hooks.d and CDI files.

Go ignores the letter case of names and treats null as absent. The caller decides about unknown names.
"""

from __future__ import annotations

import json

from ...documents.strictjson import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = {str: "a string", bool: "true or false", int: "an integer"}


class Refused(Exception):
    """The engine cannot use a file. ``pointer`` is the place, "" for the file. As a str it is "POINTER: MESSAGE".

    ``is_fatal``: reading the file crashes the engine.
    """

    def __init__(self, pointer: str, message: str, *, is_fatal: bool = False) -> None:
        super().__init__(": ".join(filter(None, (pointer, message))))
        self.pointer = pointer
        self.message = message
        self.is_fatal = is_fatal


def loads(text: str) -> Any:
    """Parses a JSON text. Go accepts more than RFC 7493 allows. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=_no_constant)


def typed(value: Any, shape: Any, pointer: str, *, is_strict: bool = False) -> Any:
    """Returns what Go decodes ``value`` into if it expects ``shape``, with names as in ``shape``. Raises Refused.

    A shape is str, int or bool, a list of one shape, or a dict of shapes by name. The name "" stands for any.
    ``is_strict``: unknown names are refused (`DisallowUnknownFields`), and null for an object in an array is a nil
    pointer, which crashes the engine.
    """
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise Refused(pointer, "must be an object")
        if "" in shape:
            members = ((key, each) for key, each in value.items() if each is not None)
            return {key: typed(each, shape[""], at(pointer, key), is_strict=is_strict) for key, each in members}
        return _object(value, shape, pointer, is_strict=is_strict)
    if isinstance(shape, list):
        if not isinstance(value, list):
            raise Refused(pointer, "must be an array")
        return [_item(each, shape[0], f"{pointer}/{index}", is_strict=is_strict) for index, each in enumerate(value)]
    if type(value) is not shape:
        raise Refused(pointer, f"must be {_KINDS[shape]}")
    if shape is int and not -(1 << 63) <= value < 1 << 63:
        raise Refused(pointer, "must be an integer of 64 bits")
    return value


def at(pointer: str, name: str) -> str:
    """Returns the pointer to a member, RFC 6901."""
    return f"{pointer}{step(name)}"


def _object(value: dict[str, Any], shape: dict[str, Any], pointer: str, *, is_strict: bool) -> dict[str, Any]:
    names = {name.lower(): name for name in shape}
    found = {}
    for key, each in value.items():
        name = names.get(key.lower())
        if name is None and is_strict:
            raise Refused(at(pointer, key), "is not a known member")
        if name is not None and each is not None:
            found[name] = typed(each, shape[name], at(pointer, key), is_strict=is_strict)
    return found


def _item(value: Any, shape: Any, pointer: str, *, is_strict: bool) -> Any:
    if value is None and isinstance(shape, dict) and is_strict:
        raise Refused(pointer, "is null", is_fatal=True)
    return typed("" if value is None else value, shape, pointer, is_strict=is_strict)


def _no_constant(word: str) -> Any:
    raise ValueError(word)
