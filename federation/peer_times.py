"""This machine's clock, held against what others said of theirs: terms and deadlines are judged by it, so it must not jump.

The coordinator says its time at each greeting, and every witness in each cosignature. What was heard is carried on by a
clock that nobody sets (time since this machine started, sleep included), so a jump shows at once, before anybody is asked again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from federation.errors import UnavailableError
from federation.statements import CLOCK_SKEW

ON_THE_WAY: Final = timedelta(seconds=5)
"""What another's word of its time may take to arrive, before the clocks themselves are blamed."""
APART: Final = CLOCK_SKEW + ON_THE_WAY


class ClockError(UnavailableError):
    """This machine's clock and others' differ too much to judge any date."""

    code = "clock"


def _since_start() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Heard:
    ahead: float
    """Seconds by which their clock was ahead of ours."""
    wall: datetime
    steady: float


class PeerTimes:
    """What each party last said of its time.

    Args:
        clock: this machine's time.
        steady: seconds that nobody sets.
    """

    def __init__(self, clock: Callable[[], datetime] = _now, steady: Callable[[], float] = _since_start) -> None:
        self._clock = clock
        self._steady = steady
        self._heard: dict[str, _Heard] = {}
        self._lock = threading.Lock()

    def greeted(self, party: str, said: datetime) -> None:
        """Note the word of whoever we are linked to, and forget what was heard over links before."""
        with self._lock:
            self._heard.clear()
        self.heard(party, said)

    def heard(self, party: str, said: datetime) -> None:
        """Note a party's word of its time, just received."""
        wall = self._clock()
        one = _Heard((said - wall).total_seconds(), wall, self._steady())
        with self._lock:
            self._heard[party] = one

    def apart(self) -> dict[str, float]:
        """Seconds by which each party's clock is ahead of ours now, as far as it can be told."""
        wall, steady = self._clock(), self._steady()
        with self._lock:
            heard = dict(self._heard)
        return {
            party: one.ahead - ((wall - one.wall).total_seconds() - (steady - one.steady))
            for party, one in heard.items()
        }

    def check(self) -> None:
        """Raise where our clock and those of at least half of the parties that were heard are too far apart.

        Whose clock is wrong cannot be told from two; where nobody was heard, nothing is known and nothing comes over a link.

        Raises:
            ClockError: nothing may be judged by this clock.
        """
        apart = self.apart()
        far = {party: seconds for party, seconds in apart.items() if abs(seconds) > APART.total_seconds()}
        if far and 2 * len(far) >= len(apart):
            party = max(far, key=lambda name: abs(far[name]))
            raise ClockError(
                "this machine's clock and {party}'s are {seconds} s apart, and {count} of {heard} parties agree with it",
                hint="set the clock (timedatectl set-ntp true); agreements and invocations are judged by it",
                party=party,
                seconds=int(abs(far[party])),
                count=len(far),
                heard=len(apart),
            )
