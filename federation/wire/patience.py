"""How long one end of a link waits for the other: never a fixed time for a whole transfer, always one without progress.

Nobody can say how long a model takes on a line that is not known here. What can be said is how slow a line may be
before it is of no use, and from that the rest follows.
"""

from __future__ import annotations

import asyncio

from federation.wire.body import CHUNK_BYTES

__all__ = ["ANSWER_SECONDS", "SLOWEST_LINE", "STALL_SECONDS", "Patience"]

SLOWEST_LINE = 16 * 1024
"""Bytes a second: what an exchange must move on the average to go on (128 kbit/s, a poor mobile line)."""
STALL_SECONDS = 2.0 * CHUNK_BYTES / SLOWEST_LINE
"""Longest that one frame may wait for the other end to take it: a whole frame on twice the slowest line."""
ANSWER_SECONDS = 60.0
"""What a party may take for an answer that needs no computing: reading and writing its own stores."""


class Patience:
    """A deadline that moves on with the bytes of an exchange, by the time they take on the slowest line.

    So a body of any length arrives on any line that is fast enough, silence still ends after ``seconds``, and who lets
    single bytes trickle in gains nothing by it.
    """

    def __init__(self, limit: asyncio.Timeout, seconds: float | None) -> None:
        self._limit = limit
        self._seconds = seconds
        self._left: float | None = None

    def moved(self, count: int) -> None:
        """So many bytes were handed on, or have arrived."""
        when = self._limit.when()
        if self._seconds is None or when is None or self._limit.expired():
            return
        latest = asyncio.get_running_loop().time() + self._seconds
        self._limit.reschedule(min(latest, when + count / SLOWEST_LINE))

    def pause(self) -> None:
        """The other end waits for us from here on: nothing counts until :meth:`resume`."""
        when = self._limit.when()
        if when is not None and not self._limit.expired():
            self._left = when - asyncio.get_running_loop().time()
            self._limit.reschedule(None)

    def resume(self) -> None:
        """Count on, with what was left."""
        if self._left is not None:
            self._limit.reschedule(asyncio.get_running_loop().time() + self._left)
            self._left = None
