# SPDX-License-Identifier: Apache-2.0
"""JSON as bytes: read strictly, and written.

config.json is read by two programs, the runtime and this hook, and whatever two JSON readers can understand
differently is a way to make them work on different containers. So what Go and C readers disagree about is refused.
What is in a document is beyond the scope of this module.
"""

from __future__ import annotations

import gc
from itertools import accumulate, islice

from ..errors import DataError
from ..log import one_line

# The C functions behind json: with that module comes re, which takes nearly as long to import as Python to start.
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
LEAST, MOST = -(2**63), 2**64 - 1  # what a reader in Go or C can hold, in any member: a later runtime may know it
MAX_SHOWN = 200  # characters of a value or name that a message repeats
MAX_VIOLATIONS = 1000  # in one report: a container start does not wait for a million of them
BLANKS = " \t\n\r"  # RFC 8259, ws


def documents(data: bytes, name: str, most: int = 1) -> list[object]:
    """One to ``most`` JSON documents out of ``data``, one behind the other.

    Strict: UTF-8 without BOM, at most MAX_BYTES and MAX_DEPTH, no member twice, nothing that JSON or a file name
    cannot hold. DataError with ``name`` and the byte, the line and column or the JSON pointer (RFC 8259, RFC 7493).
    """
    text = _text(data, name).rstrip(BLANKS)
    was_collecting = gc.isenabled()
    gc.disable()  # No cycles are made here, and to look for them takes most of the time where millions of lists are.
    try:
        found = _scan(data, text, most)
        return _decode(text, name, most) if found is None else found
    finally:
        if was_collecting:
            gc.enable()


def parse_trusted(data: bytes) -> object:
    """A document of our own, which needs no strict reader."""
    if _json is None:
        import json

        return json.loads(data)
    scan = _json.make_scanner(_TrustedContext(_refuse, has_large=False))  # type: ignore[arg-type]
    document, _ = scan(data.decode(), 0)
    return document


def encoded(document: object) -> bytes:
    """JSON on one line, of dicts, lists, strings, integers, bools and None. UnicodeEncodeError."""
    if _json is None:
        import json

        return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    # No markers for cycles, no indent, and false: to sort, to skip names that are no text, to allow NaN.
    encoder = _json.make_encoder(None, _refuse, _json.encode_basestring, None, ":", ",", *(False, False, False))
    return "".join(encoder(document, 0)).encode()


def _refuse(value: object) -> NoReturn:
    raise TypeError(f"JSON has no {type(value).__name__}")


def in_order(found: Iterable[tuple[Path, str]]) -> list[tuple[str, str]]:
    """Places and messages as they are reported: sorted, none twice, each place as a JSON pointer (RFC 6901).

    Of more than MAX_VIOLATIONS only so many are looked for; the last message then says so.
    """
    some = list(islice(found, MAX_VIOLATIONS + 1))
    violations = [(_pointer(path), message) for path, message in sorted(set(some[:MAX_VIOLATIONS]))]
    if len(some) > MAX_VIOLATIONS:
        violations.append(("", f"is wrong in more places than the {MAX_VIOLATIONS} found first"))
    return violations


def _pointer(path: Path) -> str:
    return "".join("/" + shortened(str(step)).replace("~", "~0").replace("/", "~1") for step in path)


def shortened(text: str) -> str:
    """Text of a document as a message can repeat it: short, and without characters that act on a terminal."""
    cut = text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."
    return one_line(cut)


def _text(data: bytes, name: str) -> str:
    if len(data) > MAX_BYTES:
        problem = f"is larger than {MAX_BYTES // (1024 * 1024)} MiB"
    elif not data.strip(BLANKS.encode()):
        problem = "is empty"
    elif data.startswith(b"\xef\xbb\xbf"):
        problem = "begins with a byte order mark, which JSON forbids"
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        problem = "is not UTF-8 (it looks like UTF-16 or UTF-32)"
    else:
        try:
            return data.decode()
        except UnicodeDecodeError as error:
            problem = f"is not UTF-8 at byte offset {error.start}"
    raise DataError(name, [("", problem)])


# Reading what nothing can be said against


class _Context:
    """What make_scanner asks for, as json.JSONDecoder has it; ``doubt`` is called with what is not beyond doubt."""

    def __init__(self, doubt: Callable[[object], None], *, has_large: bool) -> None:
        self.strict = True
        self.object_hook = None
        self.array_hook = None  # Python 3.15 asks for it
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
    """Nothing is there twice in what we wrote."""

    object_pairs_hook = None  # type: ignore[assignment]


_ZEROS = bytes.maketrans(b"123456789", b"000000000")


def _scan(data: bytes, text: str, most: int) -> list[object] | None:
    """The documents in ``text``, where there is nothing to say against any of them. None says nothing."""
    if _json is None or b"\\ud" in data or b"\\uD" in data or _is_deep(text):
        return None
    # Fewer digits always fit into 64 bits, and to look for so many once takes less than a call for each number.
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
        # SystemError: before Python 3.13 it cannot find json's own error where json has not been imported.
        # AttributeError: a later Python asks the context for more.
        return None
    return None if doubts or end < len(text) else found


# Reading to tell what is wrong


def _decode(text: str, name: str, most: int) -> list[object]:
    """As ``documents`` promises."""
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
        raise DataError(name, [("", str(error))]) from None
    if doubts.any or "\\ud" in text or "\\uD" in text:
        for document in found:
            if bad := in_order(_faults(document, ())):
                raise DataError(name, bad)
    return found


class _Fault:
    """Stands in a decoded document for a value that is refused, until the walk has found out where that is."""

    __slots__ = ("message",)

    def __init__(self, message: str) -> None:
        self.message = message


class _Doubts:
    """The decoder's callbacks: they cannot know the place, so they leave a fault there and note that there is one."""

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
                    members[name] = self.fault("is there twice; runtimes disagree about which one counts")
                seen.add(name)
        return members

    def integer(self, digits: str) -> object:
        if len(digits) < 19 or (len(digits) < 21 and LEAST <= int(digits) <= MOST):
            return int(digits)
        return self.fault("does not fit into 64 bits")

    def real(self, digits: str) -> object:
        number = float(digits)
        return number if abs(number) != float("inf") else self.fault("is too large a number")

    def constant(self, word: str) -> object:
        return self.fault(f"is {word}, which JSON does not know")


def _faults(value: object, path: Path) -> Iterator[tuple[Path, str]]:
    if isinstance(value, _Fault):
        yield path, value.message
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            yield path, "has half a surrogate pair in it"
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
    """Whether there is certainly no fault in it, known without the place: of most values of a document."""
    return value.isascii() if isinstance(value, str) else not value or isinstance(value, (int, float))


# Depth, known before decoding, since every Python has a limit of its own

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
    """The place of the first bracket that nests too deep, -1 where there is none: brackets that are left open."""
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
    """Text of the same length in which each quote begins or ends a string."""
    if "\\" not in text:
        return text
    return text.replace("\\\\", "__").replace('\\"', "__")
