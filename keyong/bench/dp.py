"""What noise costs: a value drawn, a node's reply noised, and a budget reserved, drawn and settled."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np

from enterprise_node import budgets
from federation.jobs.codec import Content
from federation.noise import TABLE_FROM, discrete_gaussian
from federation.secagg import Layout, add_noise, encode, noised_encoding
from federation.statements import StageOutput
from keyong.bench.figure import Figure, over
from keyong.bench.progress import bar
from keyong.text import mark

PARAMETERS = 1_000_000
SHORT = 10_000
USES = 1_000
SHARES = 4
"""Of ten nodes under masks (`federation.secagg.noise_shares`)."""


def measure(parameters: int = PARAMETERS, uses: int = USES) -> list[Figure]:
    """Measure all rows; times are the least of three."""
    with bar(mark("drawing noise")) as advance:
        table = _least(lambda: discrete_gaussian(max(parameters, TABLE_FROM), Fraction(10_000)))
        advance(1, 3)
        exact = _least(lambda: discrete_gaussian(SHORT, Fraction(10_000)))
        advance(2, 3)
        encoding, noise = _reply(parameters)
        advance(3, 3)
    each = table / max(parameters, TABLE_FROM) * 1e9
    return [
        Figure(
            "dp-noise-nanoseconds",
            each,
            "ns",
            compared_with="OpenDP's make_gaussian, a value of a vector of 10,000",
            ratio=over(each, exact / SHORT * 1e9),
            note="a value of variance 10,000, on all cores",
        ),
        Figure(
            "dp-reply-seconds",
            noise,
            "s",
            compared_with="encoding the same reply",
            ratio=over(noise, encoding),
            note=f"noise of a node's reply of {parameters:,} floats",
        ),
        Figure("dp-budget-microseconds", _budget(uses), "us", note="reserve, draw and settle, without the disk's part"),
    ]


def _least(work: Callable[[], object], repetitions: int = 3) -> float:
    taken = []
    for _ in range(repetitions):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def _reply(size: int) -> tuple[float, float]:
    sent = {"arrays": {"w": np.zeros(size, dtype=np.float32)}}
    layout = Layout.derive(sent, StageOutput(sent=True))
    chosen = noised_encoding(10, "1", "1", SHARES)
    content = Content(arrays={"arrays": {"w": np.random.default_rng(1).normal(size=size).astype(np.float32)}})
    reply = encode(content, sent, layout, chosen, 1, 10)
    encoding = _least(lambda: encode(content, sent, layout, chosen, 1, 10))
    return encoding, _least(lambda: add_noise(reply, chosen, layout, SHARES))


def _budget(uses: int) -> float:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in budgets.SCHEMA:
        connection.execute(statement)
    budgets.set_limits(connection, "passes", budgets.Limits(2**50, 2**50))
    now = datetime.now(UTC)
    began = time.perf_counter()
    for number in range(uses):
        connection.execute("BEGIN IMMEDIATE")
        plan = f"plan-{number}"
        budgets.reserve(connection, budgets.Use(plan, "passes", "one", "agreement"), 1000, now)
        budgets.draw(connection, plan, number, 1000)
        budgets.settle(connection, number, 1000)
        budgets.close(connection, plan)
        connection.execute("COMMIT")
    return (time.perf_counter() - began) / uses * 1e6
