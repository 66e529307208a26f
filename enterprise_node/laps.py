"""Where a step's time went, part by part of the line."""

from __future__ import annotations

import time
from collections.abc import Callable

PARTS = ("admission", "intent", "materialise", "session", "sandbox", "gate", "protection", "masks", "outcome")
"""The line in its order. ``session`` is the start of the job's sandbox; ``intent`` is decision and INTENT together;
``masks`` ends when a masked vector leaves, and ``outcome`` then holds the time until its round is opened."""


class Laps:
    """A stopwatch for one step: each lap is the time since the one before."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._last = clock()
        self.seconds: dict[str, float] = {}

    def lap(self, part: str) -> None:
        """A part of the line has ended."""
        now = self._clock()
        self.seconds[part] = now - self._last
        self._last = now
