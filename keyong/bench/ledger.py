"""Durable entries a second: many threads append to one ledger, each waiting for its COMMIT.

Compared with what the same disk does without a ledger: one fsync'd write after another.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from federation.crypto import SigningKey
from federation.ledger import Ledger
from keyong.bench import tampering, witnesses
from keyong.bench.figure import Figure, percentile
from keyong.bench.rows import published

FIELDS = {"plan": "sha256:" + "0" * 64, "action": "fed:train"}


def measure(entries: int = 20_000, threads: int = 64, nodes: int = witnesses.NODES) -> list[Figure]:
    """Append ``entries`` from ``threads`` threads at once, without witnesses and with three; then what ``nodes`` nodes take."""
    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        folder = Path(name)
        one_write = _one_write(folder / "plain", 50)
        waits: list[float] = []
        with Ledger.create(folder, "keyong/bench", SigningKey.generate()) as ledger:
            seconds = _append(ledger, entries // threads, threads, waits)
        witnessed: list[float] = []
        with witnesses.shown(folder) as (ledger, settled):
            began = time.perf_counter()
            _append(ledger, entries // threads, threads, witnessed)
            settled()
            shown = time.perf_counter() - began
    waits.sort()
    rate, p99 = len(waits) / seconds, percentile(waits, 99)
    note = f"{len(waits):,} entries from {threads} threads, each acknowledged after COMMIT"
    compared = "fsync'd writes of 200 bytes, one after another, same disk and run"
    return [
        published("ledger-entries-per-second", rate, compared_with=compared, other=1 / one_write, note=note),
        published("ledger-p99-seconds", p99, spread=(waits[0], waits[-1])),
        published(
            "ledger-witnessed-entries-per-second",
            len(witnessed) / shown,
            compared_with="the same without witnesses",
            other=rate,
            note=f"until all {len(witnessed):,} are witnessed by {witnesses.WITNESSES}",
        ),
        *witnesses.delay(nodes),
        tampering.measure(),
        Figure("ledger-seconds-per-entry", seconds / len(waits), "s"),
        Figure("plain-write-seconds", one_write, "s"),
    ]


def _append(ledger: Ledger, count: int, threads: int, waits: list[float]) -> float:
    def work() -> None:
        mine = []
        for number in range(count):
            began = time.perf_counter()
            ledger.append("intent", {**FIELDS, "round": number})
            mine.append(time.perf_counter() - began)
        waits.extend(mine)

    workers = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return time.perf_counter() - began


def _one_write(path: Path, count: int) -> float:
    times = []
    with path.open("wb") as file:
        for _ in range(count):
            began = time.perf_counter()
            file.write(b"x" * 200)
            file.flush()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return statistics.median(times)
