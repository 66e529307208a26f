"""Gives memory back to the machine that the C library's allocator keeps after large bodies.

What gRPC takes for the pieces of a model lies between other things when it is freed, in an arena of each of its threads:
hundreds of megabytes stay with the process after a few exchanges though nothing uses them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Callable

LARGE_BYTES = 16 * 1024 * 1024
"""Bodies from this size on leave something worth giving back."""


def _trim() -> None:
    """Give back every page that is free; does nothing where the C library is not glibc, or has no such function."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


class LargeBodies:
    """The large bodies that cross this process's links now; free memory is given back when the last of them is through."""

    def __init__(self, trim: Callable[[], None] = _trim) -> None:
        self._trim = trim
        self._open = 0

    def began(self, size: int) -> None:
        """A body of that size begins to cross."""
        self._open += size >= LARGE_BYTES

    def ended(self, size: int) -> None:
        """It is through, or given up; call it once for each that began, on the event loop."""
        if size < LARGE_BYTES:
            return
        self._open -= 1
        if not self._open:
            with contextlib.suppress(RuntimeError):  # the loop, or its threads, are at their end
                asyncio.get_running_loop().run_in_executor(None, self._trim)


LARGE_BODIES = LargeBodies()
"""This process's."""
