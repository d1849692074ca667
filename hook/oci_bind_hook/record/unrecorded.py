# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the state folder, for a process that may not write it. Loaded only then, and imports only errors."""

from __future__ import annotations

from ..errors import UnavailableError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    from collections.abc import Callable

    from .folder import HeldLock
    from .state_file import MadeRecord, ObjectRecord, Record


class Unrecorded:
    """A state folder that holds no records, saves none and locks nothing. ``problem`` says why, and what helps."""

    def __init__(self, problem: UnavailableError) -> None:
        self._problem = problem

    def why_unrecorded(self) -> UnavailableError | None:
        return self._problem

    def lock_id(self, container: str, *, wait: bool = True) -> HeldLock:
        return Unlocked()

    def lock_rootfs(self, stat: posix.stat_result | ObjectRecord) -> HeldLock:
        return Unlocked()

    def load(self, container: str) -> Record | None:
        return None

    def save(self, record: Record) -> None:
        pass

    def remove(self, container: str) -> None:
        pass

    def staging(self, container: str) -> str:
        return ""

    def make_staging(self, container: str) -> None:
        pass

    def remove_staging(self, container: str) -> None:
        pass

    def on_rootfs(self, rootfs: posix.stat_result | ObjectRecord, besides: str) -> tuple[list[Record], list[str]]:
        return [], []

    def hand_over(
        self, made: MadeRecord, neighbours: list[Record], is_live: Callable[[Record], bool] | None = None
    ) -> bool:
        return False


class Unlocked:
    """A lock that locks nothing."""

    def __enter__(self) -> Unlocked:
        return self

    def __exit__(self, *_: object) -> None:
        pass
