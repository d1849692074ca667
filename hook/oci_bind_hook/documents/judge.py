# SPDX-License-Identifier: Apache-2.0
"""Schema violations by jsonschema, worded for people.

The judge decides if the acceptor is not sure. It is the only source of messages about schema violations, and the only
module that imports jsonschema. A container start loads it only for a document that the acceptor did not accept.
"""

from __future__ import annotations

import json

from jsonschema import Draft202012Validator, ValidationError, validators
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from .acceptor import ADDRESS, schema
from .strictjson import folded, in_order, shortened

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

_validators: dict[str, Any] = {}  # each is built once, because that takes longer than most validations


def violations(document: object, name: str) -> list[tuple[str, str]]:
    """Every place where ``document`` breaks the bundled schema ``name``, as ``oci.violations`` returns them."""
    return in_order(place for error in validator(name).iter_errors(document) for place in _worded(error))


def validator(name: str) -> Any:
    """The validator for a bundled schema, strict about integers and about the letter case of names."""
    if name not in _validators:
        schemas: dict[str, dict[str, Any]] = {}
        needed = [name]
        for each in needed:
            if each not in schemas:
                schemas[each] = schema(each)
                # With $schema jsonschema would use its own validator class instead of STRICT.
                schemas[each].pop("$schema", None)
                needed += _references(schemas[each])
        resources = [(ADDRESS + each, DRAFT202012.create_resource(contents)) for each, contents in schemas.items()]
        registry: Any = Registry().with_resources(resources)
        _validators[name] = STRICT(schemas[name], registry=registry)
    return _validators[name]


def _references(schema: object) -> Iterator[str]:
    """The names of the bundled schemas that ``schema`` refers to. Only these need to be read."""
    if isinstance(schema, dict):
        for keyword, value in schema.items():
            if keyword == "$ref" and isinstance(value, str) and value.startswith(ADDRESS):
                yield value.removeprefix(ADDRESS).partition("#")[0]
            else:
                yield from _references(value)


def _properties(validator: Any, known: dict[str, Any], instance: object, schema: Any) -> Iterator[Any]:
    """The keyword ``properties``, which also refuses a name that another JSON reader would treat as a known one."""
    yield from Draft202012Validator.VALIDATORS["properties"](validator, known, instance, schema)
    if isinstance(instance, dict):
        spelling = {folded(name): name for name in known}
        seen: dict[str, str] = {}
        for name in instance:
            known_as = folded(name)
            if name in known:
                if seen.setdefault(known_as, name) != name:
                    message = (
                        f'must not appear together with "{seen[known_as]}": some runtimes treat both as the same name'
                    )
                    yield ValidationError(message, path=(name,))
            elif known_as in spelling:
                message = f'must be spelled "{spelling[known_as]}": some runtimes accept it as it is, others ignore it'
                yield ValidationError(message, path=(name,))


def _unique_by(_validator: Any, name: str, instance: object, _schema: Any) -> Iterator[Any]:
    """The keyword ``uniqueBy`` of this package: no two objects of an array have the same string in member ``name``."""
    seen: set[str] = set()
    for index, item in enumerate(instance if isinstance(instance, list) else ()):
        text = item.get(name) if isinstance(item, dict) else None
        if isinstance(text, str):
            if text in seen:
                message = f"must not repeat {_shown(text)}; runtimes disagree about which one applies"
                yield ValidationError(message, path=(index, name))
            seen.add(text)


STRICT: Any = validators.extend(  # type: ignore[no-untyped-call]
    Draft202012Validator,
    {"properties": _properties, "uniqueBy": _unique_by},
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int),
)


def _worded(error: Any) -> Iterator[tuple[tuple[Any, ...], str]]:
    """A validator's error as pairs of path and message, one for each member concerned."""
    path = tuple(error.absolute_path)
    keyword, wanted, value = error.validator, error.validator_value, error.instance
    if "propertyNames" in error.absolute_schema_path:
        yield (*path, value), f"has a name that {_sentence(error)}"
    elif keyword == "required":
        yield from (((*path, name), "is missing") for name in wanted if name not in value)
    elif keyword == "dependentRequired":
        for name in wanted.keys() & value.keys():
            missing = [need for need in wanted[name] if need not in value]
            yield from (((*path, need), f"is missing, but required with {name}") for need in missing)
    elif keyword == "anyOf":
        first, *others = (each["required"] for each in wanted)
        instead = _either(" and ".join(names) for names in others)
        yield from (
            ((*path, name), f"is missing, and required unless {instead} is present")
            for name in first
            if name not in value
        )
    elif keyword == "additionalProperties":
        yield from (
            ((*path, name), "is not a known member") for name in value if name not in error.schema["properties"]
        )
    else:
        yield path, _sentence(error)


def _sentence(error: Any) -> str:
    """The message of an error about a single value, which follows the place."""
    keyword, wanted, value = error.validator, error.validator_value, error.instance
    if keyword in ("properties", "uniqueBy"):
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
    "maxLength": "must have at most {wanted} characters, but is {value}",
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
        return f'"{shortened(value)}"'
    return shortened(json.dumps(value))
