# SPDX-License-Identifier: Apache-2.0
"""A stand-in for the state folder, loaded only by a process that must not write it."""

from __future__ import annotations

from ..errors import UnavailableError
from .held import Users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .state_file import MadeRecord, Record, RootfsRecord


class Unrecorded:
    """A state folder without records, which saves nothing and locks nothing. ``problem`` is the reason and a remedy."""

    def __init__(self, problem: UnavailableError) -> None:
        self._problem = problem

    def why_unrecorded(self) -> UnavailableError | None:
        return self._problem

    def lock_id(self, container: str, *, wait: bool = True) -> Unlocked:
        return Unlocked()

    def lock_rootfs(self, *rootfs: RootfsRecord) -> Unlocked:
        return Unlocked()

    def load(self, container: str) -> Record | None:
        return None

    def everyone(self) -> tuple[list[Record], list[tuple[int, str]]]:
        return [], []

    def remove(self, container: str) -> None:
        pass

    def staging(self, container: str) -> str:
        return ""

    def make_staging(self, container: str) -> None:
        pass

    def remove_staging(self, container: str) -> None:
        pass


class Unlocked:
    """A lock that locks nothing, for a rootfs without records."""

    def __enter__(self) -> Unlocked:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def users(self, rootfs: RootfsRecord, boot: str, recorded: str = "") -> Users:
        return Users(())

    def holds(self, rootfs: RootfsRecord) -> bool:
        return True

    def save(self, record: Record) -> None:
        pass

    def remove(self, container: str) -> None:
        pass

    def hand_over(
        self, made: MadeRecord, users: Users, besides: str, is_live: Callable[[Record], bool] | None = None
    ) -> bool:
        return False
