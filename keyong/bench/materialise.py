"""A job's snapshot of a large Parquet file under two rules, beside DuckDB's plain copy of the same file in the same run.

Both are made by processes of their own with as many threads, from a file that is in the page cache. The snapshot hashes its
source before and after, and what it wrote; the copy does nothing but copy.
"""

from __future__ import annotations

import asyncio
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from keyong.bench.figure import Figure
from keyong.bench.processes import below
from keyong.bench.rows import MEGABYTE, published

ROWS = 10_000_000
REPETITIONS = 3
RULES = """
[columns.coil]
rule = "pseudonym"
[columns.force]
rule = "round"
step = 0.5
"""
_MAKE = """
COPY (SELECT 'C' || lpad((i // 40)::VARCHAR, 8, '0') AS coil, 'G' || (hash(i) % 40)::VARCHAR AS grade,
    (hash(i + 1) % 3000000) / 100.0 AS force, (hash(i + 2) % 90000) / 1000.0 AS thickness,
    (hash(i + 3) % 500000) / 100.0 AS width, 800 + (hash(i + 4) % 40000) / 100.0 AS temperature,
    (hash(i + 5) % 12000) / 1000.0 AS speed, (i % 11)::INTEGER AS pass, (hash(i + 6) % 100000) / 1000.0 AS gap,
    TIMESTAMP '2024-01-01' + to_seconds(i) AS at FROM range({rows}) t(i)) TO '{path}' (FORMAT parquet)
"""
_COPY = """
import duckdb
connection = duckdb.connect(config={{"threads": {threads}, "preserve_insertion_order": True}})
connection.execute("SET enable_progress_bar = false")
connection.execute("COPY (SELECT * FROM read_parquet('{source}')) TO '{target}' (FORMAT parquet)")
"""


@dataclass(frozen=True)
class Cost:
    """What one run took: wall time, processor time of the child, and its largest resident memory."""

    seconds: float
    cpu: float
    peak: int


def measure(rows: int = ROWS, repetitions: int = REPETITIONS) -> Sequence[Figure]:
    """Measure both, turn by turn; medians count."""
    import duckdb

    from enterprise_node._duckdb import THREADS
    from enterprise_node.datasets import inspect_source

    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name:
        folder = Path(name)
        path = folder / "passes.parquet"
        with duckdb.connect() as connection:
            connection.execute(_MAKE.format(rows=rows, path=path))
        source = inspect_source(path)
        ours: list[Cost] = []
        plain: list[Cost] = []
        for number in range(repetitions):
            ours.append(_cost(partial(_snapshot, source, folder, number)))
            plain.append(_cost(partial(_copy, path, folder / "copy.parquet", THREADS)))
        size = path.stat().st_size
    seconds, other = (statistics.median(one.seconds for one in costs) for costs in (ours, plain))
    cpu, other_cpu = (statistics.median(one.cpu for one in costs) for costs in (ours, plain))
    what = f"DuckDB's plain copy, same run: {other:.1f} s"
    note = f"{rows} rows x 10 columns, {size / MEGABYTE:.0f} MB of Parquet, a pseudonym and a rounding"
    ratios = [mine.seconds / theirs.seconds for mine, theirs in zip(ours, plain, strict=True)]
    return [
        published("materialise-ratio", seconds / other, spread=(min(ratios), max(ratios)), note=note),
        published(
            "materialise-memory", max(one.peak for one in ours) / MEGABYTE, note="of the process, resident, at most"
        ),
        Figure("materialise-seconds", seconds, "s", compared_with=what, ratio=seconds / other),
        Figure(
            "materialise-cpu-seconds",
            cpu,
            "s",
            compared_with=f"DuckDB's plain copy, same run: {other_cpu:.1f} s",
            ratio=cpu / other_cpu,
        ),
    ]


def _snapshot(source: object, folder: Path, number: int) -> None:
    from enterprise_node.datasets import SourceDescription
    from enterprise_node.materialise import Grant, materialise_apart
    from enterprise_node.rules import Kept, parse_rules

    assert isinstance(source, SourceDescription)
    (folder / "home" / "keys").mkdir(parents=True, exist_ok=True, mode=0o700)
    kept = Kept(folder / "home", "passes")
    kept.ensure_key()
    rules = parse_rules(RULES)
    grant = Grant(source.place, source.reading, source.fingerprint, source.columns, rules, kept, f"sha256:{number}")
    made = materialise_apart(grant, folder / "snapshot", seconds=3600, log=structlog.get_logger("keyong.bench"))
    asyncio.run(made).discard()


def _copy(source: Path, target: Path, threads: int) -> None:
    code = _COPY.format(source=source, target=target, threads=threads)
    subprocess.run([sys.executable, "-c", code], check=True)
    target.unlink()


def _cost(run: Callable[[], None]) -> Cost:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    with _peak_of_children() as peak:
        run()
    seconds = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(seconds, cpu, max(peak, default=0))


@contextmanager
def _peak_of_children() -> Iterator[set[int]]:
    """The high-water marks of all processes below this one, looked at until the block ends."""
    found: set[int] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            found.add(max(map(_high_water, set(below([os.getpid()])) - {os.getpid()}), default=0))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield found
    finally:
        over.set()
        watching.join()


def _high_water(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    lines = (line.split() for line in text.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) * 1024 for words in lines), 0)
