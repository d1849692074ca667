# SPDX-License-Identifier: Apache-2.0
"""The documents that commands print, as JSON that every reader takes."""

from __future__ import annotations

import json

from ..log import readable


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
