"""How soon a node is back in service after its coordinator was restarted.

Half of the times the coordinator ends as an operator ends it, half of the times it is killed. The clock runs from the moment
the new coordinator says that it is ready to the moment the node says that it is attached; what the node waits between its
attempts (with jitter, so that many nodes do not come at once) is inside.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from keyong.bench.figure import Figure
from keyong.bench.line import stand
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.text import mark

REPETITIONS = 10
OUTAGE_SECONDS = 2.0
"""How long the coordinator stays away, so that the node has met a refused connection more than once."""


def measure(repetitions: int = REPETITIONS, nodes: int = 3) -> list[Figure]:
    """Restart the coordinator so many times; the figure with the target is the worst of all nodes and times."""
    worst, restarts = [], []
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), nodes)
        coordinator, service = line.coordinator, line.coordinator_service
        with bar(mark("restarts of the coordinator")) as advance:
            for number in range(repetitions):
                service.kill() if number % 2 else service.stop()
                time.sleep(OUTAGE_SECONDS)
                began = time.monotonic()
                service = stack.enter_context(coordinator.serve("coordinator", "serve", logs=line.folder / "logs"))
                service.wait_for("ready")
                ready = time.monotonic()
                for one in line.services:
                    one.wait_for("attached", number + 2)
                worst.append(time.monotonic() - ready)
                restarts.append(time.monotonic() - began)
                advance(number + 1, repetitions)
    note = f"slowest of {nodes} nodes; worst of {repetitions} restarts, every second one after kill -9"
    return [
        published("reconnect-seconds", max(worst), spread=(min(worst), max(worst)), note=note),
        Figure("reconnect-median-seconds", statistics.median(worst), "s"),
        Figure(
            "restart-to-service-seconds",
            statistics.median(restarts),
            "s",
            note="median, from the command that starts the coordinator to the last node attached",
        ),
    ]
