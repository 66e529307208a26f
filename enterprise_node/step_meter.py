"""How long one step computes, and when it has used up what was reserved for it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from federation.statements import Metered

METERED_TIME = "metered-time"


class StepMeter:
    """Counts from its making on, by a clock that only rises: the time of day may be set while a step runs.

    Args:
        reserved: what the step's INTENT reserved; it is never charged with more, and is ended at that.
        slot_seconds: width of the time slots at whose ends answers leave, so that the charge tells no more than they do.
        clock: seconds that only rise.
    """

    def __init__(self, reserved: Metered, slot_seconds: int = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self._reserved = reserved
        self._slot = max(slot_seconds, 1)
        self._clock = clock
        self._began = clock()
        self._seconds: int | None = None

    @classmethod
    def used_up(cls, reserved: Metered) -> StepMeter:
        """The meter of a step that ran in a process before this one: all that was reserved is charged."""
        meter = cls(reserved)
        meter._seconds = reserved.seconds
        return meter

    @property
    def left(self) -> float:
        """Seconds until what was reserved is used up."""
        return max(0.0, self._began + self._reserved.seconds - self._clock())

    def stop(self) -> None:
        """The step has computed; what it waits for from now on (its owner, its slot, its round) is not counted."""
        if self._seconds is None:
            whole = math.ceil(max(self._clock() - self._began, 1e-9) / self._slot) * self._slot
            self._seconds = min(whole, self._reserved.seconds)

    def charge(self, size: int) -> Metered:
        """What the step is charged with, for a reply of ``size`` bytes."""
        self.stop()
        seconds = self._reserved.seconds if self._seconds is None else self._seconds
        return Metered(seconds=seconds, bytes=size)
