"""A score's moments: what the engine adds up, how far one unit can move it, what its noise costs and what a loss makes of it."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from federation.bilateral import (
    BilateralFailedError,
    BilateralPlanError,
    BilateralVoidError,
    Moments,
    ScorePlan,
    WeightsError,
    check_score,
    check_subjects,
    loss_of,
    moment_count,
    moment_statement,
    noised,
    read_moments,
    scaled,
    score_micro_rho,
    score_of,
    shift_for,
    variance_for,
)
from federation.bilateral.moments import GRID, places, reach
from federation.privacy import exact
from federation.statements.bilateral import Range

NOBODY = "sha256:" + "0" * 64


def plan_of(
    model: str = "linear", clip: str = "3", variance: str = "0", unit_rows: int = 1, shift: int = 0
) -> ScorePlan:
    target = (
        Range(column="y", minimum="0", maximum="1")
        if model == "logistic"
        else Range(column="y", minimum="-4", maximum="8")
    )
    return ScorePlan(
        model=model,  # type: ignore[arg-type]
        features=(Range(column="a", minimum="0", maximum="10"), Range(column="b", minimum="-1", maximum="1")),
        target=target,
        clip=clip,
        unit_rows=unit_rows,
        variance=variance,
        shift=shift,
        context=NOBODY,
    )


def moments(plan: ScorePlan, rows: list[tuple[Any, ...]], unit: str = "") -> Moments:
    """What DuckDB makes of the statement over these rows (a, b, y, u)."""
    engine = duckdb.connect()
    types = (pa.float64(), pa.float64(), pa.float64(), pa.string())
    columns = zip(*rows, strict=True) if rows else [()] * 4
    engine.register(
        "data", pa.table([pa.array(list(one), kind) for one, kind in zip(columns, types, strict=True)], list("abyu"))
    )
    return read_moments(plan, engine.execute(moment_statement(plan, unit)).fetchall())


def drawn(count: int, seed: int = 1) -> list[tuple[Any, ...]]:
    make = np.random.default_rng(seed)
    a, b = make.uniform(0, 10, count), make.uniform(-1, 1, count)
    y = 0.5 * a - b + make.normal(0, 0.7, count)
    return [(*row, f"u{at % 40}") for at, row in enumerate(zip(a.tolist(), b.tolist(), y.tolist(), strict=True))]


def loss_without_noise(
    plan: ScorePlan, rows: list[tuple[Any, ...]], weights: dict[str, float], intercept: float
) -> Any:
    found = moments(plan, rows)
    values = scaled(plan, noised(plan, found))
    loss = loss_of(plan, weights, intercept)
    return loss, score_of(plan, loss, float(values @ loss.coefficients), float(values[0]))


def test_a_linear_loss_is_the_mean_squared_error() -> None:
    rows = drawn(2000)
    _, score = loss_without_noise(plan_of(shift=11), rows, {"a": 0.4, "b": -0.8}, 0.3)
    wanted = np.mean([(0.4 * a - 0.8 * b + 0.3 - y) ** 2 for a, b, y, _ in rows])
    assert score.loss == pytest.approx(wanted, rel=2e-3) and round(score.rows) == 2000 and score.approximation == 0


def test_a_logistic_loss_is_within_its_approximation() -> None:
    make = np.random.default_rng(2)
    rows = [(a, b, int(make.random() < 1 / (1 + math.exp(4 - a))), "") for a, b, _, _ in drawn(3000)]
    _, score = loss_without_noise(plan_of("logistic", shift=12), rows, {"a": 0.3, "b": 0.1}, -1.0)
    margins = np.array([(2 * y - 1) * (0.3 * a + 0.1 * b - 1.0) for a, b, y, _ in rows])
    wanted = np.logaddexp(0, -margins).mean()
    assert abs(score.loss - wanted) <= score.approximation < 0.1


def test_values_beyond_the_ranges_are_clamped_and_rows_with_gaps_left_out() -> None:
    inside, beyond = [(10.0, 1.0, 8.0, "")] * 3, [(99.0, 7.0, 1e300, "")] * 3
    assert moments(plan_of(), inside) == moments(plan_of(), beyond)
    gaps = [(None, 0.0, 0.0, ""), (1.0, float("nan"), 0.0, ""), (1.0, 0.0, float("inf"), "")]
    assert moments(plan_of(), [*inside, *gaps]) == moments(plan_of(), inside)


row_values = st.tuples(*(st.floats(allow_nan=False, allow_infinity=False, width=32) for _ in range(3)))


@given(row_values, st.sampled_from(["1", "1.5", "2", "6"]), st.integers(1, 5))
def test_one_unit_moves_the_moments_by_no_more_than_is_charged(row: tuple[float, ...], clip: str, times: int) -> None:
    """The Frobenius norm of what the rows of one unit add is within the reach that the cost counts; no row can exceed it."""
    plan = plan_of(clip=clip, unit_rows=times)
    found = moments(plan, [(*row, "u")] * times)
    squared = sum(
        (1 if one == two else 2) * value**2 for (one, two), value in zip(places(plan), found.sums, strict=True)
    )
    assert squared <= reach(plan) ** 2


def test_the_cost_is_that_of_a_gaussian_of_each_entry() -> None:
    """What is charged is the sum over entries of shift squared over twice the variance, and the plan's budget is not exceeded."""
    plan = plan_of(clip="2", unit_rows=3)
    plan = plan.model_copy(update={"variance": variance_for(plan, 5000)})
    assert 4990 <= score_micro_rho(plan) <= 5000
    # a row at the bound in each coordinate alone: its cost, entry by entry, is what the formula says
    bound = Fraction(3 * (2 * GRID) ** 2)
    by_entry = bound**2 / (2 * int(plan.variance))
    assert 0.99 * score_micro_rho(plan) <= by_entry * 10**6 <= score_micro_rho(plan)
    assert score_micro_rho(plan_of()) == 0


@pytest.mark.usefixtures("seeded_noise")
def test_noise_has_the_variance_that_is_charged() -> None:
    plan = plan_of(variance=str(40**2))
    empty = Moments(0, 0, (0,) * moment_count(plan))
    values = np.array([noised(plan, empty) for _ in range(600)])
    squared = np.array([one == two for one, two in places(plan)])
    for columns, sigma in ((values[:, squared], 40.0), (values[:, ~squared], 40.0 / math.sqrt(2))):
        assert stats.kstest(columns.ravel() / sigma, "norm").pvalue > 1e-6
    # weakened copy: noise of half the variance in all of them does not pass for it
    assert stats.kstest(values[:, ~squared].ravel() / 40.0, "norm").pvalue < 1e-6


@pytest.mark.usefixtures("seeded_noise")
def test_any_weights_learn_moments_under_noise_alone() -> None:
    """Attack: weights that single one row out, as large as they may be. What they read is noise that grows with them.

    The weakened copy adds noise of a fixed size to the loss, as if the weights were known to be small: it gives the row away.
    """
    rows = drawn(200)
    with_row, without = [*rows, (10.0, 1.0, 8.0, "victim")], rows
    plan = plan_of(clip="2")
    plan = plan.model_copy(update={"variance": variance_for(plan, 5000)})
    chosen = np.array([(1 if one == two else 2) * 1000.0 for one, two in places(plan)])
    gap = float(chosen @ (scaled(plan, moments(plan, with_row).sums) - scaled(plan, moments(plan, without).sums)))
    found = moments(plan, with_row)
    answers = [float(chosen @ scaled(plan, noised(plan, found))) for _ in range(200)]
    spread = float(np.std(answers))
    assert abs(gap) < 0.2 * spread  # rho 0.005: the two tables are less than a fifth of a deviation apart
    fixed = math.sqrt(int(plan.variance)) / GRID**2
    assert abs(gap) > 100 * fixed


def test_too_few_stand_behind_a_score() -> None:
    plan = plan_of()
    check_subjects(plan, moments(plan, drawn(200), unit="u"))
    for rows, unit in ((drawn(9), ""), ([(1.0, 0.0, 0.0, f"u{at % 9}") for at in range(500)], "u"), ([], "")):
        with pytest.raises(BilateralPlanError) as caught:
            check_subjects(plan, moments(plan, rows, unit=unit))
        assert caught.value.code == "too-few-subjects"


def test_what_is_no_plan_or_no_answer_is_refused() -> None:
    for clip in ("0.5", "7", "-1"):
        with pytest.raises(BilateralPlanError):
            check_score(plan_of(clip=clip))
    with pytest.raises(BilateralPlanError):
        check_score(plan_of(variance="9" * 28))
    with pytest.raises(BilateralFailedError):
        read_moments(plan_of(), [(1, 2, 3)])
    with pytest.raises(BilateralFailedError):
        read_moments(plan_of(), [("x",) * (2 + moment_count(plan_of()))])
    for weights, intercept in (({"a": 1.0}, 0.0), ({"a": 1.0, "b": math.nan}, 0.0), ({"a": 1e9, "b": 0.0}, 0.0)):
        with pytest.raises(WeightsError):
            loss_of(plan_of(), weights, intercept)
    loss = loss_of(plan_of(), {"a": 0.1, "b": 0.0}, 0.0)
    for total, count in ((math.nan, 1.0), (1.0, 0.0), (1.0, -3.0)):
        with pytest.raises(BilateralVoidError):
            score_of(plan_of(), loss, total, count)


def test_intervals_hold_what_they_say() -> None:
    """Of 200 scores under noise, the true loss lies within the interval of at least 180 (0.95 promised)."""
    rows = drawn(20_000)
    plan = plan_of(clip="2", shift=shift_for(20_000))
    plan = plan.model_copy(update={"variance": variance_for(plan, 20_000)})
    found = moments(plan, rows)
    loss = loss_of(plan, {"a": 0.4, "b": -0.8}, 0.3)
    values = scaled(plan, found.sums)
    truth = float(values @ loss.coefficients) / float(values[0]) * loss.unit
    held = 0
    for _ in range(200):
        values = scaled(plan, noised(plan, found))
        score = score_of(plan, loss, float(values @ loss.coefficients), float(values[0]))
        held += abs(score.loss - truth) <= score.half_width
    assert held >= 180
    assert exact("2") == 2
