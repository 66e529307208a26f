"""How long ``keyong verify --help`` takes: the start of the command, which imports nothing that it does not need."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from keyong.bench.figure import Figure
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.text import mark


def measure(repetitions: int = 20) -> list[Figure]:
    """The median of so many starts, each a process of its own, after one that fills the caches."""
    with bar(mark("starts")) as advance:
        plain = _median([sys.executable, "-c", "pass"], repetitions)
        times = []
        for number in range(repetitions + 1):
            times.append(_seconds([sys.executable, "-m", "keyong", "verify", "--help"]))
            advance(number, repetitions)
    steady = times[1:]
    return [
        published(
            "verify-help-seconds",
            statistics.median(steady),
            compared_with="python -c pass, same run",
            other=plain,
            spread=(min(steady), max(steady)),
        )
    ]


def _median(command: list[str], repetitions: int) -> float:
    return statistics.median(_seconds(command) for _ in range(repetitions))


def _seconds(command: list[str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - began
