# SPDX-License-Identifier: Apache-2.0
"""The documents that commands print, as JSON that every reader takes."""

from __future__ import annotations

import json
import re

from ..errors import UsageError
from ..log import readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# What YAML 1.2 does not take as it is, or takes for the end of a line; all else that JSON leaves as it is, it takes.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def json_text(document: object) -> str:
    r"""A document as JSON. A byte of a name that is not UTF-8 is the text ``\xff`` in it."""
    return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"


ITEMS = "the items"  # stands for them in the frame of a document


def json_pieces(frame: dict[str, object], items: Iterable[object]) -> Iterator[str]:
    """A document as JSON, piece by piece: ``frame``, with ``items`` for the ITEMS in one of its arrays."""
    before, _, after = json_text(frame).partition(f'"{ITEMS}"')
    start = before.rindex("\n")
    indent, separator = before[start:], ""
    yield before[:start]
    for item in items:
        yield separator + indent + json_text(item).rstrip("\n").replace("\n", indent)
        separator = ","
    yield after


def plain(value: object) -> object:
    """A JSON value with every text in it readable, log.readable."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def written(document: object) -> str:
    """A document as JSON for engines, some of which read it as YAML. UsageError for text that JSON cannot hold."""
    # Not with ensure_ascii: a pair of surrogates is one character for JSON, and none for YAML.
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object[error.start :]!r} is not UTF-8", where="install") from None
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
