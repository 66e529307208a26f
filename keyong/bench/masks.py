"""What masks cost: a node's, the sum's beside Flower's own averaging of the same vectors, the upload, and a whole round.

Times are the least of several repetitions, on this machine and in this run; ratios are what to trust on a shared one. The
CKKS row takes NVFLARE's parameters (N = 8192, moduli of 60, 40 and 40 bits) for the same vector, processor time against
processor time; it needs tenseal.
"""

from __future__ import annotations

import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from federation.jobs.codec import Content
from federation.secagg import (
    Accumulator,
    EncodedReply,
    Layout,
    MaskKey,
    choose_encoding,
    encode,
    neighbourhood,
    reply_bytes,
)
from federation.statements import Encoding, StageOutput
from keyong.bench.figure import Figure, over
from keyong.bench.line import permit, run_job, stand
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.text import mark

PARAMETERS = 1_000_000
FULL_PARAMETERS = 100_000_000
COHORTS = (10, 100)
ROUNDS = 21
NODES = 3
CKKS_PARAMETERS = 100_000
_APP = Path(__file__).parent / "masks_app"


def measure(rounds: int = ROUNDS, *, full: bool = False, governed: bool = True) -> list[Figure]:
    """Measure all rows; ``full`` also at a hundred million parameters, ``governed`` the whole rounds too."""
    figures: list[Figure] = []
    for nodes in COHORTS:
        figures += _core(PARAMETERS, nodes, f"masks-{nodes}", 7 if nodes <= 10 else 3)
    if full:
        figures += _full()
    figures += [_upload(), *_ckks()]
    if governed:
        figures += _rounds(rounds)
    return figures


def _vector(size: int, nodes: int) -> tuple[Layout, Encoding, EncodedReply, float]:
    """One encoded reply of that many float32, and the seconds that its encoding took."""
    sent = {"arrays": {"w": np.zeros(size, dtype=np.float32)}}
    layout = Layout.derive(sent, StageOutput(sent=True))
    encoding = choose_encoding([(10, 1000)] * nodes)

    arrays = {"arrays": {"w": np.random.default_rng(1).normal(size=size).astype(np.float32)}}
    content = Content(arrays=arrays)
    began = time.perf_counter()
    reply = encode(content, sent, layout, encoding, 500, nodes)
    return layout, encoding, reply, time.perf_counter() - began


def _keys(count: int, sign: int) -> list[MaskKey]:
    return [MaskKey(secrets.token_bytes(16), sign) for _ in range(count)]


def _least(work: Callable[[], object], repetitions: int, clock: Callable[[], float] = time.perf_counter) -> float:
    taken = []
    for _ in range(repetitions):
        began = clock()
        work()
        taken.append(clock() - began)
    return min(taken)


def _sum_seconds(layout: Layout, encoding: Encoding, reply: EncodedReply, nodes: int, repetitions: int) -> float:
    def add_all() -> None:
        total = Accumulator(layout, encoding, nodes)
        for _ in range(nodes):
            total.add(reply)
        total.add_masks(_keys(nodes, -1))

    return _least(add_all, repetitions)


def _core(size: int, nodes: int, name: str, repetitions: int) -> list[Figure]:
    layout, encoding, reply, encoding_seconds = _vector(size, nodes)
    masks = neighbourhood(nodes)  # one in common with each other of it, and one of its own
    node = _least(lambda: reply.mask(_keys(masks, 1)), repetitions)
    cpu = _least(lambda: reply.mask(_keys(masks, 1)), repetitions, time.process_time)
    total = _sum_seconds(layout, encoding, reply, nodes, repetitions)
    theirs = _flower(size, nodes, repetitions)
    note = (
        f"{size:,} float32, {nodes} nodes, {masks} masks at each; {cpu * 1000:.1f} ms of processor time over all cores; "
        f"beside it, encoding took {encoding_seconds * 1000:.1f} ms"
    )
    figures = [published(f"{name}-node-seconds", node, note=note)]
    if theirs is not None:
        compared = "Flower's aggregate_arrayrecords on as many vectors of that size, in seconds the same run"
        note = f"additions and {nodes} masks taken away: {total * 1000:.1f} ms; Flower: {theirs * 1000:.1f} ms"
        figures.append(published(f"{name}-sum-ratio", total / theirs, compared_with=compared, note=note))
    return figures


def _flower(size: int, nodes: int, repetitions: int) -> float | None:
    if find_spec("flwr") is None:
        return None
    return float(_script("flower_sum.py", size, nodes, repetitions)[0])


def _script(name: str, *arguments: int) -> list[str]:
    command = [sys.executable, str(_APP / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def _full() -> list[Figure]:
    layout, encoding, reply, _ = _vector(FULL_PARAMETERS, 10)
    node = _least(lambda: reply.mask(_keys(10, 1)), 2)
    total = _sum_seconds(layout, encoding, reply, 10, 1)
    held = reply_bytes(layout, encoding)
    figures = [
        Figure("masks-full-node-seconds", node, "s", 0.7, note="100,000,000 float32, 10 nodes"),
        Figure(
            "masks-full-sum-seconds", total, "s", note=f"the running sum holds {held / 1e6:.0f} MB, whatever the nodes"
        ),
    ]
    theirs = _flower(FULL_PARAMETERS, 10, 1)
    if theirs is not None:
        figures.append(
            Figure("masks-full-sum-ratio", total / theirs, "x", 1.7, compared_with="Flower's aggregate_arrayrecords")
        )
    return figures


def _upload() -> Figure:
    layout, encoding, _, _ = _vector(PARAMETERS, 10)
    ratio = reply_bytes(layout, encoding) / (4 * PARAMETERS)
    return published("masks-upload-ratio", ratio, note=f"ring {encoding.ring}, against float32")


def _ckks() -> list[Figure]:
    if find_spec("tenseal") is None:
        return []
    seconds, size = map(float, _script("ckks.py", CKKS_PARAMETERS, NODES))
    layout, encoding, reply, _ = _vector(CKKS_PARAMETERS, NODES)
    began = time.process_time()
    for _ in range(20):
        reply.mask(_keys(NODES, 1))
    ours = (time.process_time() - began) / 20
    compared = "masks on the same vector, processor time in the same run"
    note = f"{CKKS_PARAMETERS:,} values, NVFLARE's parameters"
    return [
        Figure("ckks-seconds", seconds, "s", compared_with=compared, ratio=over(seconds, ours), note=note),
        Figure(
            "ckks-bytes", size, "B", compared_with="the masked vector", ratio=over(size, reply_bytes(layout, encoding))
        ),
    ]


def _rounds(rounds: int) -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        line = stand(stack, Path(name), NODES)
        permit(line, uses=1, protection="none")
        with bar(mark("rounds without masks")) as advance:
            plain = run_job(line, rounds, 1000, advance)
        permit(line, uses=2, protection="masked")  # newer, so jobs rest on these from here on
        with bar(mark("masked rounds")) as advance:
            masked = run_job(line, rounds, 1000, advance)
        with bar(mark("masked rounds of a million floats")) as advance:
            big = run_job(line, max(5, rounds // 4), PARAMETERS, advance)
    middle = [statistics.median(times[1:]) for times in (plain, masked, big)]
    note = f"half of train and evaluate at {NODES} nodes: {middle[1]:.3f} s with masks, {middle[0]:.3f} s without"
    return [
        published("masks-round-added-seconds", (middle[1] - middle[0]) / 2, note=note),
        published("masks-round-million-seconds", middle[2] / 2, note=f"per exchange; {NODES} nodes"),
    ]
