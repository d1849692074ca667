# SPDX-License-Identifier: Apache-2.0
"""Converts a record to the JSON document of a state file, schemas/state-file.json, and back.

Loaded by every start of a container: import nothing of the standard library.
"""

from __future__ import annotations

from ..documents import oci
from ..documents.acceptor import head
from ..documents.strictjson import MAX_BYTES, documents, encoded, parse_trusted
from ..errors import DataError
from ..rootfs.walk import PATH_MAX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, cast

    from .state_file import Record

else:
    # typing.cast, without typing.
    def cast(_: object, value: object) -> object:
        return value


class NewerError(DataError):
    """A newer version of this hook wrote the state file."""


VERSION = 2
_HEAD = head("state-file", VERSION)
_ENTRY = 300  # the most bytes of an entry in JSON without its texts


def write(record: Record) -> bytes:
    """The document of ``record`` as bytes. Raises OverflowError if it is larger than ``read`` accepts."""
    data = _encoded(record)
    if len(data) > MAX_BYTES:
        raise OverflowError(f"{len(data)} bytes")
    return data


def read(data: bytes, name: str) -> Record:
    """The record in ``data``, the content of a state file.

    Raises DataError, which names the document ``name``, and NewerError.
    """
    document = documents(data, name)[0]
    version = document.get("version") if isinstance(document, dict) else None
    if version == 1:
        from . import version1

        return version1.read(document, name)
    if isinstance(version, int) and version > VERSION:
        raise NewerError(name, [("/version", f"is {version}, written by a newer oci-bind-hook")])
    if violations := oci.violations(document, "state-file"):
        raise DataError(name, violations)
    try:
        return _decoded(data, document)
    except ValueError as reason:
        raise DataError(name, [("", str(reason))]) from None


def read_again(data: bytes) -> Record:
    """The record in ``data``, which ``read`` has accepted before: it is not validated again."""
    document = cast("dict[str, Any]", parse_trusted(data))
    if document["version"] != VERSION:
        return read(data, "")
    return _decoded(data, document)


def is_too_large(record: Record) -> bool:
    """Whether the document of ``record``, now or with all identities added, is larger than ``read`` accepts."""
    texts = [*record["uses"], *(made["path"] for made in record["made"])]
    for mount in record["mounts"]:
        texts += [mount["by"], mount["resolved"], *map(str, mount["requested"].values())]
        texts += [text for attached in mount["attached"] for text in (attached["root"], attached["source"])]
    # A short way: a character takes at most twelve bytes in JSON, as an escaped surrogate pair or an escaped byte.
    if 12 * sum(map(len, texts)) + _ENTRY * len(texts) < MAX_BYTES:
        return False
    return len(_encoded(record)) + _ENTRY * len(record["made"]) > MAX_BYTES


# -- paths as a tree -------------------------------------------------------------------------------------------------

# A container uses every folder on the way to a mount point. The size of full paths, /a/b/c, /a/b and /a, grows with the
# square of the depth, and a link in an image can lead 2048 folders deep. So each name is written once, with the number
# of the folder that contains it. Numbers start at 1, and 0 is the rootfs.


def _encoded(record: Record) -> bytes:
    rows: list[dict[str, object]] = []
    numbers = {"": 0}

    def number(path: str) -> int:
        missing = []
        while path not in numbers:
            path, _, name = path.rpartition("/")
            missing.append(name)
        while missing:
            rows.append({"in": numbers[path], "name": missing[-1]})
            path = f"{path}/{missing.pop()}"
            numbers[path] = len(rows)
        return numbers[path]

    for path in record["uses"]:
        number(path)
    made = [{"at": number(one["path"]), **{key: one[key] for key in _MADE}} for one in record["made"]]  # type: ignore[literal-required]
    document = {**_HEAD, **record, "uses": rows, "made": made}
    try:
        data = encoded(document)
    except UnicodeEncodeError:
        return encoded(_each_text(document, escape))
    # A short way, because hardly any path has a backslash.
    return encoded(_each_text(document, escape)) if b"\\\\" in data else data


_MADE = ("kind", "filesystem", "identity")


def _decoded(data: bytes, document: Any) -> Record:
    if b"\\\\" in data:
        document = _each_text(document, unescape)
    del document["version"]
    document.pop("$schema", None)
    document["rootfs"].setdefault("mounts", [])
    paths = [""]
    for one in document["uses"]:
        parent, name = one["in"], one["name"]
        if parent >= len(paths):
            raise ValueError(f"the name {name!a} refers to no earlier folder")
        if len(paths[parent]) + len(name) >= PATH_MAX:  # no walk goes deeper
            raise ValueError(f"the path to {name!a} is longer than {PATH_MAX} bytes")
        paths.append(f"{paths[parent]}/{name}")
    for one in document["made"]:
        at = one.pop("at")
        if at >= len(paths):
            raise ValueError(f"a mount point refers to path {at}, but there are {len(paths) - 1} paths")
        one["path"] = paths[at]
    document["uses"] = paths[1:]
    return cast("Record", document)


# -- names that are not UTF-8 ----------------------------------------------------------------------------------------


def escape(text: str) -> str:
    r"""A text as a state file has it: a byte that is not UTF-8 as ``\xff``, and each backslash doubled.

    Python decodes such bytes of file names as lone surrogates, PEP 383, which JSON in UTF-8 cannot contain.
    """
    return text.replace("\\", "\\\\").encode(errors="surrogateescape").decode(errors="backslashreplace")


def unescape(text: str) -> str:
    """The reverse of ``escape``. Raises ValueError for any other backslash."""
    head, *tails = text.split("\\")
    found = [head]
    rest = iter(tails)
    for tail in rest:
        if not tail and (after := next(rest, None)) is not None:
            found.append(f"\\{after}")
        elif tail[:1] == "x" and (byte := int(tail[1:3], 16)) >= 0x80:
            found.append(chr(0xDC00 + byte) + tail[3:])
        else:
            raise ValueError(f"in {text!a} the backslash before {tail[:3]!a} starts no known escape")
    return "".join(found)


def _each_text(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed, except the names of members."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {name: _each_text(member, change) for name, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_each_text(each, change) for each in value]
    return value
