# SPDX-License-Identifier: Apache-2.0
"""The documents that commands print, as JSON that every reader takes."""

from __future__ import annotations

import json
import re

from ..errors import UsageError
from ..log import readable

# What YAML 1.2 does not take as it is, or takes for the end of a line; all else that JSON leaves as it is, it takes.
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def json_text(document: object) -> str:
    r"""A document as JSON. A byte of a name that is not UTF-8 is the text ``\xff`` in it."""
    return json.dumps(plain(document), indent=2, ensure_ascii=False) + "\n"


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
