# SPDX-License-Identifier: Apache-2.0
"""Patterns as sources, glob(7): finds the names that match. None is followed out of the folder of the pattern.

Loaded only for a pattern, before setns(2), because it imports glob and fnmatch with all their imports.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import posix

from ..errors import MissingError, RequestError
from ..kernel.errnos import ABSENT, unopened
from ..kernel.proc import Proc
from ..requests import stars
from .confined import Allowed, Folder, Within

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..requests.request import Request


_WILD = frozenset("*?[")

# The most names that are looked up for one pattern. A pattern that needs more is an attack: a user who can write there
# created very deep folders, or links from a folder to itself, so that each name of the pattern multiplies the matches.
MOST_NAMES = 100_000


class Look:
    """A search for matches of a pattern. ``passed`` is the first error of a name that exists but cannot be followed.

    It counts the names that are looked up. Raises RequestError if they are more than ``MOST_NAMES``.
    """

    def __init__(self, pattern: Request) -> None:
        self.passed: MissingError | None = None
        self._pattern = pattern
        self._left = MOST_NAMES

    def at(self, path: str) -> str:
        """Counts the names of ``path``, which is looked up next, and returns it. Raises RequestError."""
        self._left -= path.count("/") + 1
        if self._left < 0:
            problem = f"the pattern {self._pattern.source} requires more than {MOST_NAMES} lookups"
            raise RequestError(problem, where=self._pattern.at("source"), hint="check for links to a parent folder")
        return path

    def passing(self, path: str) -> _Passing:
        """A context manager that skips ``path`` if it does not exist. Any other OSError is raised as HookError."""
        return _Passing(self, self._pattern, path)


class _Passing:
    # A folder on a file system that does not work now may have matches. A start without them would look as if nothing
    # had been requested, so the error is raised. A loop of links, or a path that is too long, has no matches: it is
    # skipped, as glob(7) does. But it exists: if nothing else matches, it is an error, even for an optional pattern.

    def __init__(self, look: Look, pattern: Request, path: str) -> None:
        self._look = look
        self._pattern = pattern
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, reason: BaseException | None, _trace: object) -> bool:
        if not isinstance(reason, OSError):
            return False
        if reason.errno in ABSENT:
            return True
        path = self._path.rstrip("/") or "/"
        problem = unopened(path, reason, where=self._pattern.at("source"))
        problem.__cause__ = reason
        # The author of an annotation must learn nothing about the host.
        if reason.errno == errno.EACCES and self._pattern.origin_kind != "annotation":
            from .unopened import why_denied

            problem.hint = why_denied(path, Proc()) or problem.hint
        if reason.errno not in (errno.ELOOP, errno.ENAMETOOLONG):
            raise problem
        self._look.passed = self._look.passed or problem
        return True


def found(pattern: Request) -> list[Request]:
    """One request for each match; an empty list only for an optional pattern.

    If nothing matches, raises MissingError, or returns a request that cannot be opened if the pattern has a condition.
    Raises the errors of ``matches``.
    """
    look = Look(pattern)
    if requests := matches(pattern, look):
        return requests
    problem = look.passed
    if problem is None:
        if pattern.optional:
            return []
        where = pattern.at("source")
        problem = MissingError(f"nothing matches {pattern.source}", where=where, hint="to allow this, set optional")
    if pattern.when_exists is None:
        raise problem
    # As for a source that does not exist, it is an error only in containers in which the condition is met.
    unmatched = pattern.match(pattern.source, pattern.destination)
    unmatched.opener = _Unmatched(problem)
    return [unmatched]


class _Unmatched:
    """The opener of a pattern without a match."""

    def __init__(self, problem: MissingError) -> None:
        self._problem = problem

    def open(self, _: Request, /) -> int:
        raise self._problem


def matches(pattern: Request, look: Look | None = None) -> list[Request]:
    """One request for each match, sorted by name; an empty list if nothing matches.

    Raises RequestError if too many names would be looked up; EscapeError for a pattern of an annotation that leads out
    of the allowed folders; and HookError for a folder or name that cannot be looked up, unless it does not exist.
    """
    look = look or Look(pattern)
    if isinstance(pattern.opener, Allowed):
        return _allowed_matches(pattern, pattern.opener, look)
    names = pattern.source.split("/")
    found = [_match(pattern, path, names, path.split("/")) for path in sorted(_plain_matches(pattern, look))]
    if found and not pattern.follow_links:
        # The check is in ``Within.open``: a match may be changed at any moment, so it is judged when it is opened.
        above = "/".join(names[: _first_wild(names)]) or "/"
        try:
            within = Within(pattern, Folder.at(above), above)
        except OSError as reason:
            raise unopened(f"the folder {above}", reason, where=pattern.at("source")) from reason
        for match in found:
            match.opener = within
    return found


def _plain_matches(pattern: Request, look: Look) -> list[str]:
    """The paths that glob(7) finds, following all links."""
    names = pattern.source.split("/")
    first = _first_wild(names)
    tail = "/" if names[-1] == "" else ""
    paths = ["".join(f"{name}/" for name in names[:first])]
    for name in names[first : len(names) - len(tail)]:
        found = []
        for path in paths:
            with look.passing(path):
                found += [look.at(f"{path}{each}/") for each in _matching(name, look.at(path))]
        paths = found
    return [path for path in (each[:-1] + tail for each in paths) if _is_there(look, path)]


def _is_there(look: Look, path: str) -> bool:
    with look.passing(path):
        posix.lstat(path)
        return True
    return False


def _allowed_matches(pattern: Request, allowed: Allowed, look: Look) -> list[Request]:
    """The matches of a pattern in an annotation, found without a lookup outside the allowed folders.

    A folder is read once for each name of the pattern, even if several links lead to it.
    """
    fixed = None
    with look.passing(pattern.source):
        folder, above, names = allowed.named(pattern, glob.escape)
        if not names:
            return [_match(pattern, above, [], [])]
        first = _first_wild(names)
        start = "".join(f"{name}/" for name in names[:first])
        with allowed.walk(folder, start, pattern) as walk:
            fixed = Folder(walk.keep())
    if fixed is None:
        return []
    above = above.rstrip("/")
    tail = "/" if names[-1] == "" else ""
    paths = [start]
    for name in names[first : len(names) - len(tail)]:
        found: dict[object, list[str]] = {}
        for path in paths:
            with look.passing(f"{above}/{path}"), allowed.walk(folder, look.at(path), pattern) as walk:
                if (key := walk.steps[-1].key) not in found:
                    found[key] = [look.at(f"{path}{each}/") for each in _matching(name, walk.steps[-1].fd)]
        paths = [path for each in found.values() for path in each]
    within = Within(pattern, fixed, f"{above}/{start}".rstrip("/") or "/", allowed)
    matches = []
    for path in sorted(each.rstrip("/") + tail for each in paths):
        is_there = False
        with look.passing(f"{above}/{path}"), allowed.walk(folder, path, pattern):
            is_there = True
        if not is_there and (tail or not _is_wild(names[-1])):
            continue  # otherwise it is a dangling link, which matches
        match = _match(pattern, f"{above}/{path}", names, path.split("/"))
        match.opener = within
        matches.append(match)
    return matches


def _match(pattern: Request, source: str, names: Sequence[str], found: Sequence[str]) -> Request:
    """The request for one match: ``found`` are the names that the ``names`` of the pattern matched.

    Raises RequestError if a match provides no name for a ``*`` in the destination.
    """
    if not stars.count(pattern.destination):
        name = source.rstrip("/").rpartition("/")[2]
        return pattern.match(source, f"{stars.filled(pattern.destination, ())}".rstrip("/") + f"/{name}")
    destination = stars.filled(pattern.destination, stars.matched(names, found))
    if destination is None:
        problem = f"{source} would make a name in {pattern.destination} empty, . or .."
        raise RequestError(problem, where=pattern.at("destination"), hint="change src or dst")
    return pattern.match(source, destination)


def _matching(pattern: str, folder: int | str) -> list[str]:
    """The names in a folder that one name of a pattern matches, sorted. Raises OSError."""
    if not _is_wild(pattern):
        return [pattern]
    flags = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC
    fd = posix.open(folder, flags) if isinstance(folder, str) else posix.open(".", flags, dir_fd=folder)
    try:
        names = posix.listdir(fd)
    finally:
        posix.close(fd)
    return sorted(name for name in fnmatch.filter(names, pattern) if name[0] != "." or pattern[0] == ".")


def _is_wild(name: str) -> bool:
    return not _WILD.isdisjoint(name)


def _first_wild(names: list[str]) -> int:
    """The index of the first name that is a pattern, or of the last name if none is."""
    last = len(names) - (2 if names[-1] == "" else 1)
    return next((number for number, name in enumerate(names) if _is_wild(name)), last)
