"""Gives memory back to the machine that the C library's allocator keeps after large bodies.

What gRPC takes for the pieces of a model lies between other things when it is freed, in an arena of each of its threads:
hundreds of megabytes stay with the process after a few exchanges though nothing uses them. What is kept for the next large
vector (:mod:`federation.pages`) goes back later: between the exchanges of a job there is always a next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Callable

from federation.pages import PAGES

LARGE_BYTES = 16 * 1024 * 1024
"""Bodies from this size on leave something worth giving back."""
IDLE_SECONDS = 10.0
"""How long the pages of large vectors wait for the next body."""


def _trim() -> None:
    """Give back every page that is free; does nothing where the C library is not glibc, or has no such function."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


class LargeBodies:
    """The large bodies that cross this process's links now; free memory is given back when the last of them is through.

    Args:
        trim: gives back what the allocator has free; called in a thread.
        let_go: gives back what is kept for later, once none came for a while.
        idle_seconds: how long that is.
    """

    def __init__(
        self,
        trim: Callable[[], None] = _trim,
        let_go: Callable[[], None] = PAGES.let_go,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._trim = trim
        self._let_go = let_go
        self._idle_seconds = idle_seconds
        self._open = 0
        self._waiting: asyncio.TimerHandle | None = None

    def began(self, size: int) -> None:
        """A body of that size begins to cross."""
        if size < LARGE_BYTES:
            return
        self._open += 1
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def ended(self, size: int) -> None:
        """It is through, or given up; call it once for each that began, on the event loop."""
        if size < LARGE_BYTES:
            return
        self._open -= 1
        if not self._open:
            with contextlib.suppress(RuntimeError):  # the loop, or its threads, are at their end
                loop = asyncio.get_running_loop()
                loop.run_in_executor(None, self._trim)
                self._waiting = loop.call_later(self._idle_seconds, self._let_go)


LARGE_BODIES = LargeBodies()
"""This process's."""
