# SPDX-License-Identifier: Apache-2.0
"""The stars of a pattern, glob(7): what each one matched, and where the destination wants it.

The first ``*`` of the destination stands for what the first ``*`` of the source matched, the second for the second.
``**`` is one star, and none of them matches a slash. ``?`` and ``[...]`` have no number: in the destination they are
names like any other, but for ``[*]``, which is a star that is meant as such, in the source and in the destination.

Loaded only where there is a pattern, before setns(2), since it needs fnmatch.
"""

from __future__ import annotations

import fnmatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_STAR = "*"


def count(path: str) -> int:
    """How many stars a pattern or a destination has."""
    return sum(_tokens(name).count(_STAR) for name in path.split("/"))


def matched(pattern: Sequence[str], path: Sequence[str]) -> list[str]:
    """What each star matched, in their order. ``path`` are the names that the names of ``pattern`` match."""
    return [part for wild, name in zip(pattern, path, strict=True) for part in _parts(_tokens(wild), name)]


def filled(destination: str, parts: Sequence[str]) -> str | None:
    """The destination with ``parts`` for its stars. None if a name of it would be nothing, "." or "..".

    Such a name would lead to another folder, and who makes names for the pattern to match could choose which one.
    """
    left = iter(parts)
    names = []
    for name in destination.split("/"):
        tokens = _tokens(name)
        made = "".join(next(left) if token == _STAR else _STAR if token == "[*]" else token for token in tokens)
        if _STAR in tokens and made in ("", ".", ".."):
            return None
        names.append(made)
    return "/".join(names)


def _tokens(name: str) -> list[str]:
    """A name of a pattern in pieces: stars, and what matches one character each, such as ``a``, ``?`` or ``[a-z]``."""
    return [*_split(name)]


def _split(name: str) -> Iterator[str]:
    at, may_close, was_star = 0, True, False
    while at < len(name):
        end = at + 1
        if name[at] == "[" and may_close:
            # A "]" right after the bracket, or after its "!", is one of the characters.
            first = end + (name[end : end + 1] == "!")
            close = name.find("]", first + 1)
            may_close = close >= 0  # else a bracket is a character, and so are all after it
            end = close + 1 if may_close else end
        token = name[at:end]
        if not (was_star and token == _STAR):
            yield token
        was_star = token == _STAR
        at = end


def _parts(tokens: Sequence[str], name: str) -> Iterator[str]:
    """What each star matched of a name: each one as little as it can, but for the last, which takes the rest."""
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
    """Whether characters of a name are matched by a piece without stars."""
    return fnmatch.fnmatchcase(name[at : at + len(piece)], "".join(piece))
