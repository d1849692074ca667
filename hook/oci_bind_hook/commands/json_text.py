# SPDX-License-Identifier: Apache-2.0
"""The documents that commands print, as JSON that every parser accepts."""

from __future__ import annotations

import json
import re

from ..errors import UsageError
from ..log import readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Characters that YAML 1.2 does not accept unescaped or treats as the end of a line, although JSON allows them.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def json_text(document: object) -> str:
    r"""Returns a document as JSON. A byte of a name that is not UTF-8 becomes the text ``\xff``."""
    return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"


ITEMS = "the items"  # the placeholder for the items in the frame of a document


def json_pieces(frame: dict[str, object], items: Iterable[object]) -> Iterator[str]:
    """Yields a document as JSON in pieces: ``frame``, with ``items`` in place of ITEMS in one of its arrays."""
    before, _, after = json_text(frame).partition(f'"{ITEMS}"')
    start = before.rindex("\n")
    indent, separator = before[start:], ""
    yield before[:start]
    for item in items:
        yield separator + indent + json_text(item).rstrip("\n").replace("\n", indent)
        separator = ","
    yield after


def plain(value: object) -> object:
    """Returns a JSON value with all its strings readable, log.readable."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [plain(each) for each in value]
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value


def written(document: object) -> str:
    """Returns a document as JSON for engines, of which some read YAML. Raises UsageError for text that is not UTF-8."""
    # Not with ensure_ascii: it writes surrogate pairs, which are one character in JSON but invalid in YAML.
    text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(f"{error.object[error.start :]!r} is not UTF-8", where="install") from None
    return _ESCAPED.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
