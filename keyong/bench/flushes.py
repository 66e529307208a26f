"""What the disk takes to make a few kilobytes durable: no entry of a ledger can be faster."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

_TIMES, _BYTES = 100, 8192


def flush_seconds(folder: Path) -> float:
    """The median of a hundred flushes of 8 KiB written over what a file on that disk holds already."""
    taken = []
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_TIMES * _BYTES))
        file.flush()
        os.fsync(file.fileno())
        for number in range(_TIMES):
            began = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(_BYTES), number * _BYTES)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)
