# SPDX-License-Identifier: Apache-2.0
"""The stars of a pattern, glob(7): what each one matched, and its place in the destination.

The first ``*`` of the destination stands for what the first ``*`` of the source matched, the second for the second.
``**`` is one star, and no star matches a slash. ``?`` and ``[...]`` do not count as stars: in the destination they are
ordinary characters, except ``[*]``, which is a literal star, in the source and in the destination.

Loaded only for a pattern, before setns(2), because it imports fnmatch and functools. A pattern has thousands of matches
and one destination, which is parsed once.
"""

from __future__ import annotations

import fnmatch
import functools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STAR = "*"


@functools.lru_cache(maxsize=2)
def count(path: str) -> int:
    """The number of stars in a pattern or a destination."""
    return sum(_tokens(name).count(_STAR) for name in path.split("/"))


def matched(pattern: Sequence[str], path: Sequence[str]) -> list[str]:
    """What each star of ``pattern`` matched, in order. ``path`` are the names that the names of ``pattern`` match."""
    return [part for wild, name in zip(pattern, path, strict=True) for part in _parts(_tokens(wild), name)]


def filled(destination: str, parts: Sequence[str]) -> str | None:
    """The destination with ``parts`` in place of its stars. None if a name of it would be empty, "." or "..".

    Such a name would lead to another folder, which a user who creates names that the pattern matches could choose.
    """
    left = iter(parts)
    names = []
    for name in _names(destination):
        if isinstance(name, str):
            names.append(name)
            continue
        made = "".join(next(left) if piece is None else piece for piece in name)
        if made in ("", ".", ".."):
            return None
        names.append(made)
    return "/".join(names)


@functools.lru_cache(maxsize=1)
def _names(destination: str) -> list[str | list[str | None]]:
    """The names of a destination. A name with a star is a list of pieces, with None for the star."""
    return [_pieces(name) for name in destination.split("/")]


def _pieces(name: str) -> str | list[str | None]:
    found: list[str | None] = [
        None if token == _STAR else _STAR if token == "[*]" else token for token in _tokens(name)
    ]
    return found if None in found else "".join(piece for piece in found if piece is not None)


def _tokens(name: str) -> list[str]:
    """A name of a pattern as tokens: stars, and tokens for one character, such as ``a``, ``?`` or ``[a-z]``."""
    return [*_split(name)]


def _split(name: str) -> Iterator[str]:
    at, may_close, was_star = 0, True, False
    while at < len(name):
        end = at + 1
        if name[at] == "[" and may_close:
            # A "]" right after the bracket, or after its "!", is one of the characters.
            first = end + (name[end : end + 1] == "!")
            close = name.find("]", first + 1)
            may_close = close >= 0  # otherwise this bracket, and all after it, are ordinary characters
            end = close + 1 if may_close else end
        token = name[at:end]
        if not (was_star and token == _STAR):
            yield token
        was_star = token == _STAR
        at = end


def _parts(tokens: Sequence[str], name: str) -> Iterator[str]:
    """What each star matched of a name: each as little as possible, except the last, which matches the rest."""
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if token == _STAR:
            pieces.append([])
        else:
            pieces[-1].append(token)
    if len(pieces) == 1:
        return
    begin, end = len(pieces[0]), len(name) - len(pieces[-1])
    for piece in pieces[1:-1]:
        at = next(at for at in range(begin, end + 1) if _is_at(piece, name, at))
        yield name[begin:at]
        begin = at + len(piece)
    yield name[begin:end]


def _is_at(piece: Sequence[str], name: str, at: int) -> bool:
    """Whether ``piece``, which has no stars, matches the characters of ``name`` from ``at`` on."""
    return fnmatch.fnmatchcase(name[at : at + len(piece)], "".join(piece))
