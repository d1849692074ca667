# SPDX-License-Identifier: Apache-2.0
"""The bundled schemas for printing: their names, one schema, or one with all schemas that it refers to."""

from __future__ import annotations

from ..documents.acceptor import ADDRESS, SCHEMAS, schema, source
from ..errors import UsageError
from ..requests.request import nearest
from .json_text import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def known(word: str, where: str) -> str:
    """Returns the name of a schema given by name, file name or ``$id``. Raises UsageError, which names ``where``."""
    name = word.removeprefix(ADDRESS).removesuffix(".json")
    if name not in SCHEMAS:
        hint = f"{nearest(name, SCHEMAS)} oci-bind-hook schema lists all".strip()
        raise UsageError(f'there is no schema "{word}"', where=where, hint=hint)
    return name


def as_list() -> str:
    """Returns a line for each schema: its name and its title."""
    width = max(map(len, SCHEMAS))
    return "".join(f"{name.ljust(width)}  {schema(name)['title']}\n" for name in SCHEMAS)


def as_text(name: str) -> str:
    """Returns one schema as in its file."""
    return source(name).decode()


def bundled(name: str) -> dict[str, Any]:
    """Returns a schema with all schemas that it refers to in its ``$defs``, so that no reference leaves the document.

    References are JSON pointers, and no subschema has a ``$id`` or an anchor: editors only follow pointers.
    ``uniqueBy``, which validators of draft 2020-12 do not know, is left out.
    """
    return _Bundle(name).document


class _Bundle:
    def __init__(self, name: str) -> None:
        self._name = name
        self._needed = [name]
        document, *others = (self._local(schema(each), each) for each in self._needed)
        for other in others:
            del other["$schema"], other["$id"]
        inside = dict(zip(self._needed[1:], others, strict=True))
        own = document.pop("$defs", {})
        assert not own.keys() & inside.keys()
        self.document: dict[str, Any] = document | ({"$defs": own | inside} if own or inside else {})

    def _local(self, value: Any, base: str) -> Any:
        """Returns a part of the schema ``base``, with its references changed to places in the bundle."""
        if isinstance(value, list):
            return [self._local(each, base) for each in value]
        if not isinstance(value, dict):
            return value
        found = {keyword: self._local(each, base) for keyword, each in value.items()}
        if isinstance(reference := value.get("$ref"), str):
            found["$ref"] = self._reference(reference, base)
        if isinstance(value.get("uniqueBy"), str):
            del found["uniqueBy"]
        return found

    def _reference(self, reference: str, base: str) -> str:
        address, _, pointer = reference.partition("#")
        name = address.removeprefix(ADDRESS) or base
        if name not in self._needed:
            self._needed.append(name)
        return f"#{pointer}" if name == self._name else f"#/$defs/{name}{pointer}"


def as_one_document(name: str) -> str:
    """Returns the bundled schema as JSON."""
    return json_text(bundled(name))
