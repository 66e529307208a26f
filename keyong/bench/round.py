"""Seconds of a governed round: train and evaluate at three nodes, everything on.

Real processes on one machine: coordinator, server part and three nodes, each with its sandbox, mutual TLS, policy decision,
two durable ledger entries an invocation. A round ends when the aggregate of its evaluation is known; the first is left out,
for it opens the sessions. Compared, in the same run, with Flower's own deployment engine and the same app; a large model also
with bare gRPC streams of its size.
"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from keyong.bench import flower, streams
from keyong.bench.figure import Figure, over
from keyong.bench.line import permit, run_job, stand
from keyong.bench.processes import Peak, below, cpu_seconds
from keyong.bench.progress import bar
from keyong.bench.rows import MEGABYTE, published
from keyong.text import mark

NODES = 3
Protection = Literal["none", "masked"]
FLOATS = 1000
BIG_FLOATS = 25_000_000
STREAMED_FROM = 1_000_000
"""Floats from which a model is compared with bare streams of its size."""
FLOWER_ROUNDS = 21
MEMORY_ROUNDS = 5
NVFLARE = "NVFLARE (its published figures; not measured here): 2.5 s a round with 1,000 floats, 5.4 s and 5.0 GB with 25,000,000"


def measure(
    rounds: int = 40, floats: int = FLOATS, *, compare: bool = True, protection: Protection = "none"
) -> list[Figure]:
    """Measure over ``rounds`` rounds, the first one apart.

    Args:
        protection: ``none`` as what it is compared with, which masks nothing; or ``masked``, whose figures have names of
            their own.

    Raises:
        DemoError: the job does not run.
    """
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), NODES)
        permit(line, uses=2, protection=protection)
        marks = [_spent()]
        with bar(mark("governed rounds")) as advance:
            times = run_job(line, rounds, floats, advance)
        marks.append(_spent())
        # A run of its own: whoever looks at eleven processes ten times a second takes a third of a core from them.
        with bar(mark("governed rounds")) as advance, Peak(lambda: [os.getpid()], frozenset([os.getpid()])) as peak:
            run_job(line, MEMORY_ROUNDS, floats, advance)
        marks.append(_spent())
    other = _flower(floats) if compare and flower.available() else None
    figures = [*_ours(times, floats, peak, other, protection), *_cpu(marks, rounds), *(_theirs(other) if other else [])]
    if floats >= STREAMED_FROM:
        figures += _streams(floats, statistics.median(times[1:]))
    return figures


def _spent() -> float:
    return sum(cpu_seconds(process) for process in below([os.getpid()]) if process != os.getpid())


def _cpu(marks: Sequence[float], rounds: int) -> list[Figure]:
    """Processor time of a round: what the longer job took more than the shorter one, whose start and end cost the same."""
    before, between, after = marks
    more = rounds - MEMORY_ROUNDS
    if more < MEMORY_ROUNDS:
        return []
    note = "processor time of all services and sessions in a round, which other load on the machine hardly changes"
    return [Figure("round-cpu-seconds", ((between - before) - (after - between)) / more, "s", note=note)]


def _flower(floats: int) -> flower.FlowerRun:
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, bar(mark("rounds of Flower's engine")) as advance:
        return flower.run_rounds(Path(name), FLOWER_ROUNDS, floats, NODES, advance)


def _ours(
    times: list[float], floats: int, peak: Peak, other: flower.FlowerRun | None, protection: Protection
) -> list[Figure]:
    steady = times[1:]
    median, spread = statistics.median(steady), (min(steady), max(steady))
    engine = f"Flower {other.version}'s deployment engine, same app, same run" if other else ""
    theirs = statistics.median(other.rounds[1:]) if other else None
    held, held_there = peak.total / MEGABYTE, other.peak.total / MEGABYTE if other else None
    prefix = {FLOATS: "", BIG_FLOATS: "big-"}.get(floats)
    if protection == "masked":
        prefix = "masked-" + (prefix or "")
        note = f"{floats:,} floats, every reply under masks"
        seconds = Figure(
            f"{prefix}round-seconds", median, "s", None, "at most", engine, over(median, theirs), spread, note
        )
    elif prefix is None:
        seconds = Figure("round-seconds-other", median, "s", None, "at most", engine, over(median, theirs), spread)
    else:
        note = f"{floats:,} floats; {NVFLARE}"
        seconds = published(
            f"{prefix}round-seconds", median, compared_with=engine, other=theirs, spread=spread, note=note
        )
    memory_note = f"peak of the sum of PSS over all processes, {peak.samples} samples; most in one: {peak.name}"
    if prefix == "big-":
        memory = published("big-round-memory", held, compared_with=engine, other=held_there, note=memory_note)
    else:
        name = "masked-round-memory" if protection == "masked" else "round-memory"
        memory = Figure(name, held, "MB", compared_with=engine, ratio=over(held, held_there), note=memory_note)
    start = prefix or ""
    return [
        seconds,
        Figure(f"{start}first-round-seconds", times[0], "s"),
        memory,
        Figure(f"{start}round-largest-process", peak.single / MEGABYTE, "MB", note=peak.name),
    ]


def _theirs(other: flower.FlowerRun) -> list[Figure]:
    steady = other.rounds[1:]
    return [
        Figure("flower-round-seconds", statistics.median(steady), "s", spread=(min(steady), max(steady))),
        Figure(
            "flower-poll-share",
            other.poll_share,
            "share",
            note="of the steady rounds' time, what Flower's Grid slept between its polls (3 s each)",
        ),
        Figure(
            "flower-round-cpu",
            other.cpu_seconds_per_round,
            "s",
            note="processor time of all of Flower's processes in a round",
        ),
        Figure(
            "flower-memory", other.peak.total / MEGABYTE, "MB", note="peak of the sum of PSS over all its processes"
        ),
    ]


def _streams(floats: int, round_seconds: float) -> list[Figure]:
    size = 4 * floats
    took = streams.measure(size, NODES)
    times = round_seconds / took
    note = f"{NODES} x {size / MEGABYTE:g} MB there and back over bare gRPC, no TLS; a round is {times:.1f} times that"
    return [Figure("bare-streams-seconds", took, "s", note=note)]
