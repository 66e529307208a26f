"""Resident memory at rest of a node and of a coordinator, beside a Flower SuperNode with its executor in the same run.

At rest: attached, nothing running, processor time standing still. The figure with the target is taken before any job, as
Flower's is; what both hold after a job stands beside it, because some of what a job loads stays.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from keyong.bench import flower
from keyong.bench.figure import Figure
from keyong.bench.line import permit, run_job, stand
from keyong.bench.processes import below, pss_bytes, rss_bytes, until_quiet
from keyong.bench.progress import bar
from keyong.bench.rows import MEGABYTE, published
from keyong.text import mark

ROUNDS = 3
FLOATS = 1000


@dataclass(frozen=True)
class Held:
    """Megabytes of a process and all below it: resident, and its share of what is shared."""

    rss: float
    pss: float

    @classmethod
    def of(cls, root: int) -> Held:
        """What they hold now."""
        processes = below([root])
        return cls(sum(map(rss_bytes, processes)) / MEGABYTE, sum(map(pss_bytes, processes)) / MEGABYTE)


def measure(nodes: int = 3, *, compare: bool = True) -> list[Figure]:
    """Measure one of the nodes and the coordinator, before a job and after it."""
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), nodes)
        roots = (line.services[0].pid, line.coordinator_service.pid)
        before = _at_rest(roots)
        permit(line)
        with bar(mark("rounds")) as advance:
            run_job(line, ROUNDS, FLOATS, advance)
        after = _at_rest(roots)
    other = _flower() if compare and flower.available() else None
    engine = "a Flower SuperNode with its executor at rest, same run (RSS)"
    figures = []
    for place, (figure, compared) in enumerate((("node-rest-memory", True), ("coordinator-rest-memory", False))):
        held, later = before[place], after[place]
        figures += [
            published(
                figure,
                held.rss,
                compared_with=engine if compared else "",
                other=other.rss if other and compared else None,
                note=f"RSS, attached and before any job; PSS {held.pss:.0f} MB",
            ),
            Figure(f"{figure}-after-job", later.rss, "MB", note=f"RSS, after a job has ended; PSS {later.pss:.0f} MB"),
        ]
    if other:
        figures.append(Figure("flower-supernode-rest-memory", other.rss, "MB", note=f"RSS; PSS {other.pss:.0f} MB"))
    return figures


def _at_rest(roots: Sequence[int]) -> list[Held]:
    until_quiet(process for root in roots for process in below([root]))
    return [Held.of(root) for root in roots]


def _flower() -> Held:
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, flower.engine(Path(name), 1) as (roots, _):
        flower.until_executor(roots[1])
        until_quiet(below(roots))
        return Held.of(roots[1])
