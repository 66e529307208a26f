"""Gives memory back to the machine that the C library's allocator keeps after large bodies.

What gRPC takes for the pieces of a model lies between other things when it is freed, in an arena of each of its threads:
hundreds of megabytes stay with the process after a few exchanges though nothing uses them. With them goes what is kept for
the next large vector (:mod:`federation.pages`).
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
"""How long free memory waits for the next body: between the exchanges of a job there is always a next one."""


def _trim() -> None:
    """Give back every page that is free; does nothing where the C library is not glibc, or has no such function."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))


def _give_back() -> None:
    PAGES.let_go()
    _trim()


class LargeBodies:
    """The large bodies that cross this process's links now; free memory is given back once none came for a while.

    Not as soon as the last is through: in a job the next is near, and would have every page made for it anew.

    Args:
        give_back: called in a thread.
        idle_seconds: how long nothing came.
    """

    def __init__(self, give_back: Callable[[], None] = _give_back, idle_seconds: float = IDLE_SECONDS) -> None:
        self._give_back = give_back
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
            with contextlib.suppress(RuntimeError):  # the loop is at its end
                self._waiting = asyncio.get_running_loop().call_later(self._idle_seconds, self._idle)

    def _idle(self) -> None:
        self._waiting = None
        asyncio.get_running_loop().run_in_executor(None, self._give_back)


LARGE_BODIES = LargeBodies()
"""This process's."""
