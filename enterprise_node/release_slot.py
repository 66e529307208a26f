"""When an answer leaves: at once, or at the end of a time slot, so that how long a step took tells nobody anything.

One millisecond's resolution over a minute carries 15.9 bits a step; slots of that minute carry none, as long as every step
ends within one. A step that needs more takes the next slot, and the number of slots is then what can be seen.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import datetime, timedelta

Clock = Callable[[], float]


class ReleaseSlot:
    """The slots of one step.

    Args:
        width: seconds of a slot; 0 releases at once.
        clock: seconds that only rise; the time of day may be set, and a set clock would shift a slot.
    """

    def __init__(self, width: float, clock: Clock = time.monotonic) -> None:
        self._width = width
        self._clock = clock
        self._began = clock()

    @property
    def slots(self) -> int:
        """How many slots have begun; at least one, and the answer leaves at the end of the last of them."""
        if not self._width:
            return 0
        return int((self._clock() - self._began) // self._width) + 1

    async def end(self, stopped: asyncio.Event) -> int:
        """Wait for the end of the slot that runs; returns its number. A job that was stopped waits for nothing."""
        number = self.slots
        left = self._began + number * self._width - self._clock()
        if number and left > 0 and not stopped.is_set():
            try:
                async with asyncio.timeout(left):
                    await stopped.wait()
            except TimeoutError:
                pass
        return number

    def moment(self, started: datetime, number: int) -> datetime | None:
        """The time of day that an answer of that slot states as its end; None where there are no slots."""
        return started + timedelta(seconds=number * self._width) if number else None
