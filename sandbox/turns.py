"""How long a thread computes before another has its turn: short for services, as the machine has it for job code.

Whoever asks for shorter turns than the running thread has goes first as soon as it wakes; else it may wait for the next tick,
4 ms and more, behind a job at work, and so would an owner's word to end that very job. How much of the processor each has
stays the same. Linux 6.12 and newer; an older kernel takes no notice (sched_setattr(2), EEVDF's custom slices).
"""

from __future__ import annotations

import os
from contextlib import suppress

from sandbox._kernel import set_turns

SHORT_NANOSECONDS = 200_000
_THE_MACHINES = 0


def have_short_turns() -> None:
    """Let the calling thread, and all that it starts from now on, go before what computes for long."""
    _have(0, SHORT_NANOSECONDS)


def have_usual_turns(process: int) -> None:
    """Let a process of one thread, and all that it starts from now on, have the machine's own turns again."""
    _have(process, _THE_MACHINES)


def _have(process: int, nanoseconds: int) -> None:
    # Where it may not be asked for, or the process is over, everything goes on as it was.
    with suppress(OSError):
        set_turns(process, os.getpriority(os.PRIO_PROCESS, process), nanoseconds)
