"""Attacks on logistic regression in queries: each fails as it is, and succeeds where the step it attacks is weakened.

The attacker is the asker. It knows that one row alone lies where it does, chooses coefficients that leave no other row weight,
and reads that row's value off the curvature: the ratio of two of its elements.
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from enterprise_node import budgets
from federation.query import (
    Private,
    QuerySchemaError,
    StepSums,
    cell_statement,
    check_query,
    draw_noise,
    encode_noised,
    plan_of,
    query_micro_rho,
    read_rows,
    read_step,
)
from federation.query.front import common_columns, parse_question
from federation.query.layout import FitSum
from federation.query.noising import releases, share_variance
from federation.statements import Column
from federation.statements.query import FitStep, QueryPlan

COLUMNS = [
    Column(name="ill", type="boolean"),
    Column(name="age", type="integer", minimum="20", maximum="80"),
    Column(name="pay", type="integer", minimum="0", maximum="1000"),
]
SCHEMA = common_columns([COLUMNS])
ENGINE = duckdb.connect(config={"threads": 1})
TARGET_PAY, RHO = 871, 100_000
"""All that the standard budget lets one company spend, in one question."""


def people(pay: int = TARGET_PAY) -> pa.Table:
    """One row alone is 80 years old."""
    make = np.random.default_rng(1)
    age, pays = make.integers(20, 40, 200), make.integers(100, 600, 200)
    age[0], pays[0] = 80, pay
    return pa.table({"ill": make.random(200) < 0.5, "age": age, "pay": pays})


def isolating(steps: int = 3, shift: str = "0") -> QueryPlan:
    """A plan of one step whose coefficients give weight to the row of 80 years, and hardly any to others."""
    question = parse_question(f"SELECT LOGREG(ill, age, pay, {steps}) FROM people", SCHEMA, private=True)
    plan = plan_of(question, SCHEMA, 1000, "sha256:" + "0" * 64, Private(RHO, 1, 3, 1))
    (measure,) = plan.measures
    fit = FitStep(step=1, steps=steps, at=("-44", "44", shift))
    return plan.model_copy(update={"measures": (measure.model_copy(update={"fit": fit}),)})


def opened(plan: QueryPlan, table: pa.Table, *, noised: bool) -> StepSums:
    ENGINE.register("data", table)
    statement = cell_statement(plan, SCHEMA)
    cells = read_rows(plan, statement, ENGINE.execute(statement.sql).fetchall())
    drawn = draw_noise(plan, 1) if noised else {one: np.zeros(one.size, dtype=np.int64) for one in releases(plan)}
    return read_step(plan, [int(one) for one in encode_noised(plan, statement, cells, {}, drawn)], 1, 1)


def guess(curvature: NDArray[np.float64]) -> float:
    """The pay of whoever has weight: the curvature is ``w z z'``, and the first of ``z`` is the same for everybody."""
    return float((curvature[0, 2] / curvature[0, 0] + 1) * 500)


def test_coefficients_that_isolate_a_row_do_not_tell_its_value() -> None:
    plan = isolating()
    check_query(plan, COLUMNS)  # no rule is what stops it
    assert guess(opened(plan, people(), noised=False).curvature) == pytest.approx(TARGET_PAY, abs=1), (
        "without the noise it is told"
    )
    apart = [guess(opened(plan, people(), noised=True).curvature) - TARGET_PAY for _ in range(25)]
    # the row's whole weight is 1/12, and the noise of an element has a standard deviation of 1.4
    assert np.median(np.abs(apart)) > 100
    with pytest.raises(QuerySchemaError) as caught:
        check_query(plan.model_copy(update={"noise": None}), COLUMNS)
    assert caught.value.code == "query-needs-noise"


def test_the_noise_is_larger_than_what_the_row_does_to_any_sum() -> None:
    """Whatever its value: 0 and 1,000 lead to sums that lie less than a standard deviation apart."""
    plan = isolating()
    low, high = (opened(plan, people(pay), noised=False) for pay in (0, 1000))
    moved = {
        FitSum.GRADIENT: np.linalg.norm(high.gradient - low.gradient),
        FitSum.CURVATURE: np.linalg.norm((high.curvature - low.curvature)[np.triu_indices(3)]),
    }
    for one in releases(plan):
        assert isinstance(one.of, FitSum)
        assert 0 < moved[one.of] * 2**20 < float(share_variance(plan, one, 1)) ** 0.5


def steps_answered(connection: sqlite3.Connection, most: int, *, charged: bool) -> int:
    """How many steps a node answers one company under the standard budget, each at other coefficients."""
    now = datetime(2026, 3, 1, tzinfo=UTC)
    for number in range(most):
        if charged:
            cost = query_micro_rho(isolating(shift=f"0.{number + 1:04}"), 1)
            use = budgets.Use(f"plan-{number}", "people", "asker", "agreement")
            try:
                budgets.reserve(connection, use, cost, now)
                budgets.draw(connection, use.plan, number, cost)
            except budgets.BudgetError:
                return number
    return most


@pytest.mark.parametrize("charged", [True, False])
def test_asking_a_step_again_and_again_ends_with_the_budget(charged: bool) -> None:
    """A step at other coefficients, or the first one over and over, is a question like any: it is paid for."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in budgets.SCHEMA:
        connection.execute(statement)
    times = steps_answered(connection, 40_000, charged=charged)
    plan = isolating()
    curvature = opened(plan, people(), noised=False).curvature
    (variance,) = (float(share_variance(plan, one, 1)) / 4**20 for one in releases(plan) if one.of is FitSum.CURVATURE)
    random = np.random.default_rng(5)
    apart = []
    for _ in range(60):
        # what the mean of all answers is: its noise is drawn at once
        mean = curvature + random.normal(0, (variance / times) ** 0.5, curvature.shape)
        apart.append(guess(mean) - TARGET_PAY)
    if charged:
        assert times == 3 and np.median(np.abs(apart)) > 100
    else:
        assert np.median(np.abs(apart)) < 60, "without the budget it is found out"
