"""Seconds of a sealed query: a group-by over several nodes of a million rows each, from its text to its table.

Real processes on one machine: coordinator and nodes, each with its engine and its encryption in sandboxes, mutual TLS, policy
decisions, two durable ledger entries a stage. Every repetition asks anew, under a key of its own, and waits for nothing that is
kept but for sessions. Compared, in the same run, with plain DuckDB over the slowest node's rows.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from keyong.bench.figure import Figure, over
from keyong.bench.line import PURPOSE, attach, found
from keyong.bench.progress import bar
from keyong.bench.rows import published
from keyong.demo.consortium import agree, two_at_a_time
from keyong.demo.parties import Party
from keyong.text import mark

NODES = 3
MANY = 14
ROWS = 1_000_000
QUERIES = 21
ALLOWANCE = 0.150
"""Seconds beyond one and a half times the slowest node's own."""
FIGURES = "COUNT(*) AS n, AVG(force) AS mean, SUM(tons) AS tons"
SQL = f"SELECT alloy, {FIGURES} FROM passes GROUP BY alloy"  # noqa: S608
CATEGORIES = ("mild", "hard", "stainless", "clad")


def measure(queries: int = QUERIES, rows: int = ROWS, many: int = MANY) -> list[Figure]:
    """Measure over some queries, the first of which opens the sessions and is told apart.

    Args:
        many: how many nodes the reported second row has; 0 leaves it out.

    Raises:
        DemoError: the consortium does not come about.
    """
    times, plain = _course(NODES, queries, rows)
    steady = statistics.median(times[1:])
    slowest = max(plain)
    limit = 1.5 * slowest + ALLOWANCE
    note = f"{NODES} nodes of {rows:,} rows, {len(CATEGORIES)} groups; median of {len(times) - 1}"
    figures = [
        published(
            "query-seconds",
            steady,
            compared_with="plain DuckDB over the slowest node's rows",
            other=slowest,
            spread=(min(times[1:]), max(times[1:])),
            note=note,
        ),
        published("query-over-allowance", steady / limit, note=f"of 1.5 x {slowest:.3f} s + {ALLOWANCE:.3f} s"),
        Figure("query-first-seconds", times[0], "s", note="snapshots are made and sessions opened"),
        Figure(
            "query-duckdb-seconds", slowest, "s", note="plain DuckDB, the table in memory, as many threads as it takes"
        ),
    ]
    if many:
        other, _ = _course(many, max(4, queries // 3), rows)
        figures.append(
            Figure(
                "query-many-nodes-seconds",
                statistics.median(other[1:]),
                "s",
                compared_with=f"the same over {NODES} nodes",
                ratio=over(statistics.median(other[1:]), steady),
                spread=(min(other[1:]), max(other[1:])),
                note=f"{many} nodes of {rows:,} rows on one machine",
            )
        )
    return figures


def _course(count: int, queries: int, rows: int) -> tuple[list[float], list[float]]:
    """Seconds of each query, and of plain DuckDB at each node."""
    import keyong

    with tempfile.TemporaryDirectory(prefix="keyong-bench-") as name, ExitStack() as stack:
        folder = Path(name)
        coordinator, nodes = found(stack, folder, count)
        plain = []
        for number, node in enumerate(nodes):
            plain.append(_write(folder / f"{node.name}.parquet", rows, number))
        two_at_a_time(nodes, lambda node: _register(folder, node))
        attach(stack, folder, nodes)
        for node in nodes:
            node.run("peers", "accept", "--all")
        agree(
            coordinator, nodes, dataset="passes", title="Queries", purpose=PURPOSE, app=None, count=queries,
            expires="1d", actions=("aggregateQuery",),
        )  # fmt: skip
        times = []
        with bar(mark("queries")) as advance, keyong.connect(coordinator.home) as mine:
            for number in range(queries):
                began = time.perf_counter()
                mine.query(SQL, purpose=PURPOSE, again=True)
                times.append(time.perf_counter() - began)
                advance(number + 1, queries)
        return times, plain


def _register(folder: Path, node: Party) -> None:
    columns = [f"alloy:text={'|'.join(CATEGORIES)}", "force:number=0..60", "tons:integer=0..100"]
    options = [part for column in columns for part in ("--column", column)]
    node.run("node", "dataset", "add", "passes", str(folder / f"{node.name}.parquet"), "--title", "Passes", *options)


def _write(path: Path, rows: int, seed: int) -> float:
    """Write a node's rows; the least of the seconds that plain DuckDB takes for the same group-by over them in memory."""
    import duckdb

    engine = duckdb.connect()
    engine.execute(
        "CREATE TABLE passes AS SELECT ['mild', 'hard', 'stainless', 'clad'][1 + (hash(i * 4 + 1 + $seed) % 4)::INTEGER]"
        " AS alloy, round(60 * (hash(i * 4 + 2 + $seed) % 1000000) / 1e6, 4) AS force,"
        " (hash(i * 4 + 3 + $seed) % 100)::INTEGER AS tons FROM range($rows) AS of(i)",
        {"seed": 10**9 * (1 + seed), "rows": rows},
    )
    taken = []
    for _ in range(7):
        began = time.perf_counter()
        engine.execute(SQL).fetchall()
        taken.append(time.perf_counter() - began)
    engine.execute(f"COPY passes TO '{path}' (FORMAT parquet)")
    engine.close()
    return statistics.median(taken)
