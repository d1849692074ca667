# SPDX-License-Identifier: Apache-2.0
"""JSON as Go's encoding/json reads it into a structure: engines do so with hooks.d and CDI files.

Go folds the letter case of names and takes null for absent. What it does with unknown names is up to the caller.
"""

from __future__ import annotations

import json

from ...documents.strictjson import step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = {str: "a string", bool: "true or false", int: "an integer"}


class Refused(Exception):
    """The engine cannot use a file; ``pointer`` is the place in it. ``is_fatal``: reading it ends the engine itself."""

    def __init__(self, pointer: str, message: str, *, is_fatal: bool = False) -> None:
        super().__init__(message)
        self.pointer = pointer
        self.message = message
        self.is_fatal = is_fatal


def loads(text: str) -> Any:
    """A JSON text, of which Go minds less than RFC 7493 does. Raises ValueError, RecursionError."""
    return json.loads(text, parse_constant=_no_constant)


def typed(value: Any, shape: Any, pointer: str, *, is_strict: bool = False) -> Any:
    """What Go makes of ``value`` where it expects ``shape``, with names as ``shape`` has them. Raises Refused.

    A shape is str, int or bool, a list of one shape, or a dict of shapes by name; the name "" stands for any.
    ``is_strict``: unknown names are refused, and null for an object in an array is a nil pointer, which ends the engine
    (`DisallowUnknownFields`).
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
    """The pointer to a member, RFC 6901."""
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
