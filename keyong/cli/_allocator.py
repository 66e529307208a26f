"""How a service asks the C library to keep memory, so that weeks of jobs do not scatter it.

glibc gives each thread that meets another in malloc an arena of its own, up to eight a core. What one job leaves free in
an arena is of no use to the next one's threads, and few pages of it are wholly free to be given back: a coordinator's
memory rises with each job though what it holds does not. Our threads take turns at the interpreter, and large arrays are
mapped apart; they need no arenas of their own.

What a link takes for a piece of a model is freed a moment later. Below the bounds here it stays with the process until no
model has come for a while (see ``federation.wire.heap``); else the kernel would be asked for the same pages, zeroed, with every
piece.
"""

from __future__ import annotations

import ctypes
import os

ARENAS = 2
MAPPED_APART_BYTES = 4 * 1024 * 1024
"""What is as large is mapped apart and given back at once: arrays, not pieces."""
KEPT_FREE_BYTES = 16 * 1024 * 1024
"""What may lie free at the end of an arena."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8


def share_arenas() -> None:
    """Let all threads share few arenas, before any is started, and keep what is freed of them for a while.

    Whoever sets one of the C library's own ``MALLOC_…_`` variables has precedence with it. Another C library than glibc knows
    no arenas, and nothing is done.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    for variable, option, value in (
        ("MALLOC_ARENA_MAX", _M_ARENA_MAX, ARENAS),
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, MAPPED_APART_BYTES),
        ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, KEPT_FREE_BYTES),
    ):
        if variable not in os.environ:
            mallopt(option, value)
