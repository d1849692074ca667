# SPDX-License-Identifier: Apache-2.0
"""A strict JSON reader, and a writer.

The runtime and this hook both read config.json. If they understood it differently, they could work on different
containers. So everything that Go, C and Python readers read differently is refused. This module does not interpret
documents.

Loaded by every start of a container: import only gc and itertools, and the C module behind json. The module json
imports re, which takes half as long to import as Python takes to start.
"""

from __future__ import annotations

import gc
from itertools import accumulate, islice

from ..errors import DataError
from ..log import one_line

# The C functions behind json, without importing json and re.
try:
    import _json
except ImportError:  # another Python than CPython
    _json = None  # type: ignore[assignment]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any, NoReturn

    Path = tuple[Any, ...]

MAX_BYTES = 16 * 1024 * 1024
MAX_DEPTH = 200  # far above any real document, far below every Python's own limit
LEAST, MOST = -(2**63), 2**64 - 1  # the range of Go and C readers; for every member, because a runtime may read any
MAX_SHOWN = 200  # characters of a value or name in a message
MAX_VIOLATIONS = 1000  # in one report: a container start does not wait for a million of them
BLANKS = " \t\n\r"  # RFC 8259, ws


def documents(data: bytes, name: str, most: int = 1) -> list[object]:
    """The JSON documents in ``data``, at least one and at most ``most``, one after the other (RFC 8259, RFC 7493).

    Strict: UTF-8 without BOM, no larger than MAX_BYTES, no deeper than MAX_DEPTH, no duplicate members, no numbers
    outside 64 bits, no half surrogate pairs. Raises DataError for the document ``name``, with the place.
    """
    text = _text(data, name).rstrip(BLANKS)
    was_collecting = gc.isenabled()
    gc.disable()  # Documents have no cycles, and searching millions of lists for cycles would take most of the time.
    # Two readers share the work. _scan is fast and has no messages: it returns documents that certainly have no fault,
    # otherwise None. Then _decode reads again from the start and finds the place and the message of every fault. A
    # mistake in _scan must cost only time, never strictness: what it returns is not read a second time. So it gives up
    # at the first doubt, even if nothing is wrong (any escaped surrogate). Property tests check that _decode accepts
    # everything that _scan returns, with the same result.
    try:
        found = _scan(data, text, most)
        return _decode(text, name, most) if found is None else found
    finally:
        if was_collecting:
            gc.enable()


def parse_trusted(data: bytes) -> object:
    """The document in ``data``, which this package wrote, read without the checks of ``documents``."""
    if _json is None:
        import json

        return json.loads(data)
    scan = _json.make_scanner(_TrustedContext(_refuse, has_large=False))  # type: ignore[arg-type]
    document, _ = scan(data.decode(), 0)
    return document


def encoded(document: object) -> bytes:
    """``document`` as JSON on one line. It may contain dicts, lists, strings, integers, bools and None.

    Raises UnicodeEncodeError for a string that is not UTF-8, and TypeError for another type.
    """
    if _json is None:
        import json

        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    # Positional: markers (no check for cycles), default, encoder, indent, separators, sort_keys, skipkeys, allow_nan.
    encoder = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", *(False, False, False))
    return "".join(encoder(document, 0)).encode()


def members(text: str) -> dict[str, tuple[int, int]]:
    """By name, the start and end of each member's value in ``text``, an object that ``documents`` has read."""
    scan = _scanner()
    found: dict[str, tuple[int, int]] = {}
    at = _next(text, text.index("{") + 1)
    while text[at] != "}":
        name, at = scan(text, _next(text, at + 1) if text[at] == "," else at)
        start = _next(text, _next(text, at) + 1)  # after the colon
        _, end = scan(text, start)
        found[name] = start, end
        at = _next(text, end)
    return found


def items(text: str) -> list[tuple[int, int]]:
    """The start and end of each item in ``text``, an array that ``documents`` has read."""
    scan = _scanner()
    found: list[tuple[int, int]] = []
    at = _next(text, text.index("[") + 1)
    while text[at] != "]":
        start = _next(text, at + 1) if text[at] == "," else at
        _, end = scan(text, start)
        found.append((start, end))
        at = _next(text, end)
    return found


def _scanner() -> Callable[[str, int], tuple[Any, int]]:
    """A function that reads the value at an index of a text, and returns the value and its end."""
    if _json is None:
        import json

        return json.JSONDecoder().raw_decode
    return _json.make_scanner(_TrustedContext(_refuse, has_large=False))  # type: ignore[arg-type]


def _next(text: str, at: int) -> int:
    while text[at] in BLANKS:
        at += 1
    return at


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"JSON has no {type(value).__name__}")


def in_order(found: Iterable[tuple[Path, str]]) -> list[tuple[str, str]]:
    """Pairs of path and message, sorted and unique, each path as a JSON pointer (RFC 6901).

    Uses at most MAX_VIOLATIONS of ``found``. If there are more, a last pair reports this.
    """
    some = list(islice(found, MAX_VIOLATIONS + 1))
    violations = [(_pointer(path), message) for path, message in sorted(set(some[:MAX_VIOLATIONS]))]
    if len(some) > MAX_VIOLATIONS:
        violations.append(("", f"has more errors than the {MAX_VIOLATIONS} listed"))
    return violations


def _pointer(path: Path) -> str:
    return "".join(step(shortened(str(each))) for each in path)


def step(name: str) -> str:
    """The name of a member as a step of a JSON pointer, with the slash before it (RFC 6901)."""
    return "/" + name.replace("~", "~0").replace("/", "~1")


def shortened(text: str) -> str:
    """``text`` for use in a message: at most MAX_SHOWN characters, and none that controls a terminal."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    # Here, half a surrogate pair does not stand for a byte of a file name.
    return one_line(cut.encode(errors="backslashreplace").decode())


def folded(name: str) -> str:
    """The name of a member as other readers compare it: Go without letter case, C up to the first NUL.

    Go folds U+017F (long s) to s and U+212A (kelvin sign) to k; str.lower already does the latter.
    """
    return name.partition("\0")[0].replace("\u017f", "s").lower()


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        problem = f"is larger than {MAX_BYTES // (1024 * 1024)} MiB"
    elif not data.strip(BLANKS.encode()):
        problem = "is empty"
    elif data.startswith(b"\xef\xbb\xbf"):
        problem = "starts with a byte order mark, which JSON does not allow"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        problem = "is not UTF-8 (it looks like UTF-16 or UTF-32)"
    else:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8 at byte offset {error.start}"
            raise DataError(name, [("", problem)], len(data[: error.start].decode())) from None
    raise DataError(name, [("", problem)])


# The fast reader: documents without any fault


class _Context:
    """The attributes that make_scanner reads, as json.JSONDecoder has them. A possible fault calls ``doubt``."""

    def __init__(self, doubt: Callable[[object], None], *, has_large: bool) -> None:
        self.strict = True
        self.object_hook = None
        self.array_hook = None  # read by Python 3.15
        self.parse_int = self._parse_int if has_large else int
        self.parse_constant = doubt
        self._doubt = doubt

    def object_pairs_hook(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) < len(pairs):
            self._doubt(pairs)
        return members

    def _parse_int(self, digits: str) -> int:
        if len(digits) > 20 or not LEAST <= int(digits) <= MOST:
            self._doubt(digits)
            return 0
        return int(digits)

    def parse_float(self, digits: str) -> float:
        number = float(digits)
        if abs(number) == float("inf"):
            self._doubt(digits)
        return number


class _TrustedContext(_Context):
    """For documents that this package wrote, which have no duplicate members."""

    object_pairs_hook = None  # type: ignore[assignment]


_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def _scan(data: bytes, text: str, most: int) -> list[object] | None:
    """The documents in ``text`` if they certainly have no fault. None means not sure."""
    if _json is None or b"\\ud" in data or b"\\uD" in data or _is_deep(text):
        return None
    # Fewer digits always fit into 64 bits. One search for a long run of digits is faster than a call for each number.
    zeros = data.translate(_ZEROS)
    has_large = b"0" * 20 in zeros or b"-" + b"0" * 19 in zeros
    doubts: list[object] = []
    found: list[object] = []
    end = 0
    try:
        scan = _json.make_scanner(_Context(doubts.append, has_large=has_large))  # type: ignore[arg-type]
        while end < len(text) and len(found) < most:
            document, end = scan(text, len(text) - len(text[end:].lstrip(BLANKS)))
            found.append(document)
    except (StopIteration, ValueError, RecursionError, SystemError, AttributeError):
        # SystemError: before Python 3.13 the scanner cannot raise json's own error if json is not imported.
        # AttributeError: a later Python reads more attributes of the context.
        return None
    return None if doubts or end < len(text) else found


# The slow reader: the place and the message of every fault


def _decode(text: str, name: str, most: int) -> list[object]:
    """The documents in ``text``. Raises DataError for ``name``, with every fault or the first syntax error."""
    import json

    doubts = _Doubts()
    decoder = json.JSONDecoder(
        object_pairs_hook=doubts.members,
        parse_int=doubts.integer,
        parse_float=doubts.real,
        parse_constant=doubts.constant,
    )
    found: list[object] = []
    end = 0
    try:
        if _is_deep(text):
            raise json.JSONDecodeError(f"Nested deeper than {MAX_DEPTH} levels", text, _first_too_deep(text))
        while end < len(text):
            start = len(text) - len(text[end:].lstrip(BLANKS))
            if len(found) == most:
                raise json.JSONDecodeError("Text after the end of the document", text, start)
            document, end = decoder.raw_decode(text, start)
            found.append(document)
    except json.JSONDecodeError as error:
        raise DataError(name, [("", str(error))], error.pos) from None
    if doubts.any or "\\ud" in text or "\\uD" in text:
        for document in found:
            if bad := in_order(_faults(document, ())):
                raise DataError(name, bad)
    return found


class _Fault:
    """Stands in a decoded document for a refused value, until ``_faults`` has found its path."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message


class _Doubts:
    """The callbacks of the decoder. They do not know the path of a value, so they leave a _Fault in its place.

    ``any`` is true after the first one.
    """

    __slots__ = ("any",)

    def __init__(self) -> None:
        self.any = False

    def fault(self, message: str) -> _Fault:
        self.any = True
        return _Fault(message)

    def members(self, pairs: list[tuple[str, object]]) -> dict[str, object]:
        members = dict(pairs)
        if len(members) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    members[name] = self.fault("appears twice; runtimes disagree about which one applies")
                seen.add(name)
        return members

    def integer(self, digits: str) -> object:
        if len(digits) < 19 or (len(digits) < 21 and LEAST <= int(digits) <= MOST):
            return int(digits)
        return self.fault("does not fit into 64 bits")

    def real(self, digits: str) -> object:
        number = float(digits)
        return number if abs(number) != float("inf") else self.fault("exceeds the range of numbers")

    def constant(self, word: str) -> object:
        return self.fault(f"is {word}, which is not valid JSON")


def _faults(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, _Fault):
        yield path, value.message
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield path, "contains half a surrogate pair"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if not _is_plain(item):
                yield from _faults(item, (*path, index))
    elif isinstance(value, dict):
        for name, member in value.items():
            if not _is_plain(name):
                yield from _faults(name, (*path, name))
            if not _is_plain(member):
                yield from _faults(member, (*path, name))


def _is_plain(value: object) -> bool:
    """Whether a value certainly has no fault inside. Most values are plain, so their paths are never built."""
    return value.isascii() if isinstance(value, str) else not value or isinstance(value, (int, float))


# Depth, measured before decoding, because the limit differs between versions of Python

_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # as signed bytes: one in, one out
_NO_BRACKETS = bytes(set(range(256)) - set(b"[{]}"))


def _is_deep(text: str) -> bool:
    """Whether brackets nest deeper than MAX_DEPTH."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    outside = _without_escapes(text).split('"')[::2]
    steps = "".join(outside).encode().translate(_STEPS, _NO_BRACKETS)
    return max(accumulate(memoryview(steps).cast("b")), default=0) > MAX_DEPTH


def _first_too_deep(text: str) -> int:
    """The index of the first bracket deeper than MAX_DEPTH, -1 if there is none."""
    depth, in_string = 0, False
    for place, character in enumerate(_without_escapes(text)):
        if character == '"':
            in_string = not in_string
        elif not in_string:
            depth += (character in "[{") - (character in "]}")
            if depth > MAX_DEPTH:
                return place
    return -1


def _without_escapes(text: str) -> str:
    """``text`` at the same length, with escapes replaced so that each quote begins or ends a string."""
    if "\\" not in text:
        return text
    return text.replace("\\\\", "__").replace('\\"', "__")
