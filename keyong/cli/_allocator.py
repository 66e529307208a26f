"""How a service asks the C library to keep memory, so that weeks of jobs do not scatter it.

glibc gives each thread that meets another in malloc an arena of its own, up to eight a core. What one job leaves free in
an arena is of no use to the next one's threads, and few pages of it are wholly free to be given back: a coordinator's
memory rises with each job though what it holds does not. Our threads take turns at the interpreter, and large arrays are
mapped apart; they need no arenas of their own.
"""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
_M_ARENA_MAX = -8


def share_arenas() -> None:
    """Let all threads share few arenas, before any is started; ``MALLOC_ARENA_MAX`` of the environment has precedence.

    Another C library than glibc knows no arenas, and nothing is done.
    """
    if "MALLOC_ARENA_MAX" in os.environ:
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
