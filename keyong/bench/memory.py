"""Peak memory of coordinator and server session under ``sum``, with three nodes and with twelve.

Replies are added as they stream in, so memory must grow with the model and not with the number of nodes.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import ExitStack
from pathlib import Path

from keyong.bench.figure import Figure
from keyong.bench.line import permit, run_job, stand
from keyong.bench.processes import Peak
from keyong.bench.progress import bar
from keyong.bench.rows import MEGABYTE, published
from keyong.text import mark

FEW, MANY = 3, 12
ROUNDS = 3
FLOATS = 25_000_000


def measure(floats: int = FLOATS, few: int = FEW, many: int = MANY, rounds: int = ROUNDS) -> list[Figure]:
    """Measure both; the ratio is the larger over the smaller, so that it holds in both directions."""
    peaks = [_peak(count, floats, rounds) for count in (few, many)]
    note = f"{floats:,} floats; peak of the sum of PSS over the coordinator and the server part, {rounds} rounds"
    first, second = (peak.total / MEGABYTE for peak in peaks)
    return [
        published("sum-memory-ratio", ratio(first, second), note=f"{many} nodes against {few}, {note}"),
        Figure(f"sum-memory-{few}-nodes", first, "MB", note=note),
        Figure(f"sum-memory-{many}-nodes", second, "MB", note=note),
    ]


def ratio(first: float, second: float) -> float:
    """How far apart two sizes are: the larger over the smaller."""
    return max(first, second) / min(first, second)


def _peak(nodes: int, floats: int, rounds: int) -> Peak:
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), nodes)
        permit(line)
        root = line.coordinator_service.pid
        with bar(mark("rounds of a large model")) as advance, Peak(lambda: [root], frozenset([os.getpid()])) as peak:
            run_job(line, rounds, floats, advance)
        return peak
