# SPDX-License-Identifier: Apache-2.0
"""Functions of the C library, called by the C module behind ctypes.

ctypes itself takes about 0.2 units to import, a unit being the start of Python; _ctypes takes 0.05.
"""

from __future__ import annotations

import _ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Simple = _ctypes._SimpleCData[Any]
else:
    Simple = _ctypes._SimpleCData


class _Function(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_USE_ERRNO


class _Library:
    """The one that Python itself is linked with."""

    _handle = _ctypes.dlopen(None, 0)  # type: ignore[arg-type]


class _Pointer(Simple):
    """void *. It takes numbers of any size, bytes, buffers and None: whatever fits into a register."""

    _type_ = "P"


class _Int(Simple):
    _type_ = "i"


class _Long(Simple):
    _type_ = "l"


class _Number(Simple):
    """A 64-bit number without a sign."""

    _type_ = "Q"


class Function:
    """The C function ``name`` with so many ``arguments``: numbers, bytes that end at their NUL, buffers, None.

    ``is_long`` tells that it returns a long, and not an int. A call raises OSError with errno where that is below 0.
    """

    def __init__(self, name: str, arguments: int, *, is_long: bool = False) -> None:
        self._call: Any = _Function((name, _Library))  # type: ignore[arg-type]
        self._call.argtypes = (_Pointer,) * arguments
        self._call.restype = _Long if is_long else _Int

    def __call__(self, *arguments: Any, path: str | None = None) -> int:
        result: int = self._call(*arguments)
        if result < 0:
            number = _ctypes.get_errno()
            raise OSError(number, os.strerror(number), path)
        return result


def numbers(*values: int, size: int = 0) -> Any:
    """A buffer of 64-bit numbers without a sign, at least ``size`` of them; bytes() of it is what is in it."""
    count = max(size, len(values))
    return (_Number * count)(*values)
