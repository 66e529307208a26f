"""Logistic regression under noise without parties: sensitivity, cost, coefficients, intervals, refusals, attacks."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from federation.query import (
    MODULUS,
    Answer,
    Descent,
    Logistic,
    Private,
    QuerySchemaError,
    QueryTextError,
    QueryVoidError,
    VectorLayout,
    cell_statement,
    check_query,
    draw_noise,
    drowned_rows,
    encode_noised,
    plan_of,
    query_micro_rho,
    read_rows,
    read_step,
    signed,
    steps_of,
)
from federation.query.fitting import StepSums
from federation.query.front import common_columns, parse_question
from federation.query.layout import FitSum
from federation.query.noising import FIT_BITS, Release, releases, share_variance
from federation.statements import Column
from federation.statements.query import FitStep, QueryPlan

DIGEST = "sha256:" + "0" * 64
COLUMNS = [
    Column(name="cracked", type="boolean"),
    Column(name="share", type="number", minimum="0", maximum="1"),
    Column(name="alloy", type="text", categories=("a", "b")),
    Column(name="force", type="number", minimum="0", maximum="60"),
    Column(name="width", type="number", minimum="-1.5", maximum="2.5"),
    Column(name="passes", type="integer", minimum="0", maximum="50"),
    Column(name="free", type="number"),
]
SCHEMA = common_columns([COLUMNS, COLUMNS, COLUMNS])
NODES, SHARES = 3, 1
ENGINE = duckdb.connect(config={"threads": 1})
SQL = "SELECT LOGREG(cracked, force, width, passes) AS fit FROM plates"
TERMS = 4
Floats = NDArray[np.float64]


def planned(text: str = SQL, rho: int = 100_000, unit_rows: int = 1) -> QueryPlan:
    question = parse_question(text, SCHEMA, private=True)
    plan = plan_of(question, SCHEMA, 100_000, DIGEST, Private(rho, unit_rows, NODES, SHARES))
    check_query(plan, COLUMNS)
    return plan


def at(plan: QueryPlan, *coefficients: str, step: int = 1, steps: int = 8) -> QueryPlan:
    """The plan of a step at coefficients of one's own choice."""
    (measure,) = plan.measures
    fit = FitStep(step=step, steps=steps, at=coefficients)
    return plan.model_copy(update={"measures": (measure.model_copy(update={"fit": fit}),)})


def plates(rows: int, seed: int) -> pa.Table:
    make = np.random.default_rng(seed)
    force, width = make.normal(30, 12, rows), make.normal(0.5, 0.7, rows)  # some lie beyond the bounds
    passes = make.integers(0, 51, rows)
    logit = -2 + 0.08 * np.clip(force, 0, 60) - 1.2 * np.clip(width, -1.5, 2.5) + 0.02 * passes
    cracked = make.random(rows) < 1 / (1 + np.exp(-logit))
    share = cracked.astype(float)
    return pa.table({"cracked": cracked, "share": share, "force": force, "width": width, "passes": passes})


def silent(plan: QueryPlan) -> dict[Release, NDArray[np.int64]]:
    return {one: np.zeros(one.size, dtype=np.int64) for one in releases(plan)}


def vector(plan: QueryPlan, data: pa.Table, noise: dict[Release, NDArray[np.int64]] | None = None) -> Any:
    """A node's vector; without noise of its own where that is given."""
    ENGINE.register("data", data)
    statement = cell_statement(plan, SCHEMA)
    cells = read_rows(plan, statement, ENGINE.execute(statement.sql).fetchall())
    return encode_noised(plan, statement, cells, {}, noise if noise is not None else draw_noise(plan, SHARES))


def fitted(first: QueryPlan, data: list[pa.Table], *, noised: bool = True) -> Answer:
    descent = Descent(first)
    while (plan := descent.plan()) is not None:
        check_query(plan, COLUMNS)
        total = sum(vector(plan, one, None if noised else silent(plan)).astype(object) for one in data) % MODULUS
        descent.take(read_step(plan, [int(one) for one in total], len(data), SHARES))
    return descent.answer()


def integers(plan: QueryPlan, found: Any) -> dict[FitSum, list[int]]:
    """The sums in one node's vector."""
    layout, told = VectorLayout.of(plan), {}
    for part in FitSum:
        start, stop = layout.fit(part)
        limbs = [signed(int(one)) for one in found[start:stop]]
        told[part] = [
            sum(limb << (40 * place) for place, limb in enumerate(limbs[one : one + plan.limbs]))
            for one in range(0, len(limbs), plan.limbs)
        ]
    return told


def pooled(data: list[pa.Table]) -> tuple[Floats, int]:
    """What statsmodels makes of all rows together, clamped as the nodes clamp."""
    rows = pa.concat_tables(data)
    force, width = np.clip(rows["force"].to_numpy(), 0, 60), np.clip(rows["width"].to_numpy(), -1.5, 2.5)
    sm = importlib.import_module("statsmodels.api")  # it takes long: not where tests are only collected
    features = sm.add_constant(np.column_stack([force, width, rows["passes"].to_numpy()]))
    found = sm.Logit(rows["cracked"].to_numpy().astype(float), features).fit(disp=0)
    return np.asarray(found.params), rows.num_rows


DATA = [plates(1500, seed) for seed in (1, 2, 3)]


def test_with_hardly_any_noise_the_coefficients_are_those_of_the_pooled_rows() -> None:
    wanted, rows = pooled(DATA)
    for target in ("cracked", "share"):
        cell = fitted(planned(SQL.replace("cracked", target), 10**11), DATA).cells[0]
        fit = cell.figures["fit"]
        assert isinstance(fit, Logistic) and cell.contributing == 3
        assert fit.coefficients == pytest.approx(wanted, rel=2e-3) and fit.rows == pytest.approx(rows, abs=5)
    still = fitted(planned(rho=10**11), DATA, noised=False).cells[0].figures["fit"]
    assert isinstance(still, Logistic) and still.rows == rows
    assert still.coefficients == pytest.approx(wanted, rel=1e-5), "what is left is rounding"


@pytest.mark.parametrize("where", ["WHERE force > 100", "WHERE passes < 25"])
def test_where_chooses_rows_and_none_give_no_figure(where: str) -> None:
    cell = fitted(planned(f"{SQL} {where}", 10**11), DATA).cells[0]
    if "100" in where:
        assert cell.figures == {"fit": None} and cell.intervals == {"fit": (None,)}
    else:
        wanted, rows = pooled([one.filter(pa.compute.less(one["passes"], 25)) for one in DATA])
        fit = cell.figures["fit"]
        assert isinstance(fit, Logistic) and fit.coefficients == pytest.approx(wanted, rel=2e-2)
        assert fit.rows == pytest.approx(rows, abs=5)


def test_rows_with_a_value_missing_are_left_out() -> None:
    empty = pa.table(
        {
            "cracked": pa.array([None, True, True], pa.bool_()),
            "share": pa.array([0.0] * 3),
            "force": pa.array([1.0, math.nan, None], pa.float64()),
            "width": pa.array([1.0] * 3),
            "passes": pa.array([1] * 3, pa.int64()),
        }
    )
    plan = planned()
    assert (vector(plan, pa.concat_tables([DATA[0], empty]), silent(plan)) == vector(plan, DATA[0], silent(plan))).all()


coefficient = st.floats(-30, 30).map(lambda one: f"{one:.6f}")


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([True, False, None]),
            st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.just(60.0), st.none()),
            st.one_of(st.floats(-3, 3), st.none()),
            st.one_of(st.integers(-100, 100), st.none()),
        ),
        min_size=1,
        max_size=4,
    ),
    st.tuples(coefficient, coefficient, coefficient, coefficient),
)
def test_one_unit_moves_no_sum_by_more_than_its_sensitivity(unit: list[Any], chosen: tuple[str, ...]) -> None:
    """Whatever is in its rows and whichever coefficients are asked: the L2 distance that the noise is reckoned for."""
    plan = at(planned(unit_rows=len(unit)), *chosen)
    check_query(plan, COLUMNS)
    cracked, force, width, passes = zip(*unit, strict=True)
    own = pa.table(
        {
            "cracked": pa.array(cracked, pa.bool_()),
            "share": pa.array([0.0] * len(unit)),
            "force": pa.array(force, pa.float64()),
            "width": pa.array(width, pa.float64()),
            "passes": pa.array(passes, pa.int64()),
        }
    )
    others = DATA[0].slice(0, 40)
    before = integers(plan, vector(plan, others, silent(plan)))
    after = integers(plan, vector(plan, pa.concat_tables([others, own]), silent(plan)))
    for one in releases(plan):
        assert isinstance(one.of, FitSum) and len(after[one.of]) == one.size
        moved = math.sqrt(sum((a - b) ** 2 for a, b in zip(after[one.of], before[one.of], strict=True)))
        assert moved <= len(unit) * one.reach, one


def test_all_steps_together_cost_what_was_given_and_no_more() -> None:
    for rho in (500, 5_000, 100_000):
        for steps in (3, 8, 25):
            plan = planned(SQL.replace("passes)", f"passes, {steps})"), rho)
            assert steps_of(plan) == steps
            assert rho - 3 * steps <= steps * query_micro_rho(plan, SHARES) <= rho


@pytest.mark.usefixtures("seeded_noise")
def test_noise_is_in_both_sums_and_of_its_size() -> None:
    plan = planned()
    drawn: dict[FitSum, list[int]] = {part: [] for part in FitSum}
    nothing = plates(0, 1)
    for _ in range(60):
        for part, values in integers(plan, vector(plan, nothing)).items():
            drawn[part] += values
    for one in releases(plan):
        assert isinstance(one.of, FitSum)
        expected, values = math.sqrt(share_variance(plan, one, SHARES)), drawn[one.of]
        assert abs(float(np.std(values)) / expected - 1) < 6 / math.sqrt(2 * len(values))


def scaled(data: list[pa.Table]) -> tuple[Floats, Floats]:
    rows = pa.concat_tables(data)
    columns = [rows[name].to_numpy().astype(float) for name in ("force", "width", "passes")]
    inner = [columns[0] / 30 - 1, (columns[1] - 0.5) / 2, columns[2] / 25 - 1]
    features = np.column_stack([np.ones(rows.num_rows), *(np.clip(one, -1, 1) for one in inner)]) / 2
    return features, rows["cracked"].to_numpy().astype(float)


def drawn(plan: QueryPlan, features: Floats, target: Floats, random: np.random.Generator) -> StepSums:
    """A step's sums, its noise from a generator that can be seeded."""
    (measure,) = plan.measures
    assert measure.fit is not None
    chosen = np.array([float(one) for one in measure.fit.at])
    p = 1 / (1 + np.exp(-features @ chosen))
    one, two = (NODES * float(share_variance(plan, each, SHARES)) / 4**FIT_BITS for each in releases(plan))
    noise = np.triu(random.normal(0, math.sqrt(two), (TERMS, TERMS)))
    gradient = features.T @ (p - target) + random.normal(0, math.sqrt(one), TERMS)
    curvature = (features * (p * (1 - p))[:, None]).T @ features + noise + np.triu(noise, 1).T
    return StepSums(chosen, gradient, curvature, (one, two), 3, 3)


def test_the_sums_that_a_step_opens_are_those_of_the_scaled_rows() -> None:
    plan = at(planned(rho=10**11), "0.5", "-3", "2.25", "1")
    total = sum(vector(plan, one, silent(plan)).astype(object) for one in DATA) % MODULUS
    got = read_step(plan, [int(one) for one in total], 3, SHARES)
    features, target = scaled(DATA)
    p = 1 / (1 + np.exp(-features @ np.array([0.5, -3, 2.25, 1])))
    assert got.gradient == pytest.approx(features.T @ (p - target), abs=2e-4)
    assert got.curvature == pytest.approx((features * (p * (1 - p))[:, None]).T @ features, abs=2e-4)
    with pytest.raises(QueryVoidError):
        read_step(plan, [int(one) for one in total], 2, SHARES)


def test_intervals_hold_as_often_as_they_say() -> None:
    first, (wanted, rows) = planned(rho=500_000), pooled(DATA)
    features, target = scaled(DATA)
    random = np.random.default_rng(7)
    held, times = np.zeros(TERMS + 1), 150
    for _ in range(times):
        descent = Descent(first)
        while (plan := descent.plan()) is not None:
            descent.take(drawn(plan, features, target, random))
        cell = descent.answer().cells[0]
        for place, value in enumerate((*wanted, rows)):
            interval = cell.intervals["fit"][place]
            assert interval is not None
            held[place] += interval[0] <= value <= interval[1]
    assert (held >= 0.9 * times).all() and (held < times).all(), held


def test_rows_that_a_line_parts_have_no_coefficients() -> None:
    """There is no largest likelihood: the coefficients grow for ever, and the curvature goes under."""
    apart = [
        one.set_column(0, "cracked", pa.compute.greater(one["force"], 30.0)).filter(
            pa.compute.greater(pa.compute.abs(pa.compute.subtract(one["force"], 30.0)), 5.0)
        )
        for one in DATA
    ]
    assert fitted(planned(SQL.replace("passes)", "passes, 25)")), apart).cells[0].figures == {"fit": None}


def test_few_rows_under_much_noise_have_none_either() -> None:
    assert fitted(planned(rho=1_000), [one.slice(0, 50) for one in DATA]).cells[0].figures == {"fit": None}


def test_steps_that_have_not_settled_are_no_answer() -> None:
    """One plate in a hundred cracks: the intercept is far from where the steps begin."""
    rare = [one.set_column(0, "cracked", pa.array(np.arange(one.num_rows) % 150 == 0)) for one in DATA]
    few = fitted(planned(SQL.replace("passes)", "passes, 3)"), 10**11), rare, noised=False).cells[0]
    many = fitted(planned(SQL.replace("passes)", "passes, 14)"), 10**11), rare, noised=False).cells[0].figures["fit"]
    assert few.figures == {"fit": None}
    wanted, _ = pooled(rare)
    assert isinstance(many, Logistic) and many.coefficients == pytest.approx(wanted, rel=1e-3)


def test_the_same_answers_lead_to_the_same_plans() -> None:
    """So that what is kept of a question answers it again, step by step."""
    first, (features, target) = planned(), scaled(DATA)

    def asked() -> list[QueryPlan]:
        random, descent, plans = np.random.default_rng(3), Descent(first), []
        while (plan := descent.plan()) is not None:
            plans.append(plan)
            descent.take(drawn(plan, features, target, random))
        return plans

    once = asked()
    assert once == asked() and len({one.model_dump_json() for one in once}) == 8
    assert once[0] == first and QueryPlan.model_validate_json(once[-1].model_dump_json()) == once[-1]


@pytest.mark.parametrize(
    ("text", "private"),
    [
        (SQL, False),
        ("SELECT LOGREG(cracked) FROM plates", True),
        ("SELECT LOGREG(alloy, force) FROM plates", True),
        ("SELECT LOGREG(cracked, alloy) FROM plates", True),
        ("SELECT LOGREG(cracked, force, force) FROM plates", True),
        ("SELECT LOGREG(cracked, force, 2) FROM plates", True),
        ("SELECT LOGREG(cracked, force, 26) FROM plates", True),
        ("SELECT LOGREG(cracked, force, 7.5) FROM plates", True),
        ("SELECT LOGREG(cracked, force, -8) FROM plates", True),
        ("SELECT LOGREG() FROM plates", True),
        ("SELECT LOGREG(cracked, force), COUNT(*) FROM plates", True),
        ("SELECT alloy, LOGREG(cracked, force) FROM plates GROUP BY alloy", True),
    ],
)
def test_what_is_not_answered_is_refused_with_its_place(text: str, private: bool) -> None:
    with pytest.raises(QueryTextError) as caught:
        parse_question(text, SCHEMA, private=private)
    assert "line 1" in str(caught.value)
    assert caught.value.code == ("query-text" if private else "query-needs-noise")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("SELECT LOGREG(cracked, free) FROM plates", "query-bounds"),
        ("SELECT LOGREG(width, force) FROM plates", "query-figure"),
    ],
)
def test_columns_without_bounds_and_other_targets_are_refused(text: str, code: str) -> None:
    with pytest.raises(QuerySchemaError) as caught:
        planned(text)
    assert caught.value.code == code


def widened(plan: QueryPlan) -> QueryPlan:
    (measure,) = plan.measures
    return plan.model_copy(update={"measures": (measure, measure.model_copy(update={"name": "more"}))})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda plan: plan.model_copy(update={"noise": None}), "query-needs-noise"),
        (lambda plan: at(plan, "64", "1", "0", "0"), "query-figure"),
        (lambda plan: at(plan, "0", "0", "0"), "query-figure"),
        (lambda plan: at(plan, "0", "0", "0", "0", "0"), "query-figure"),
        (widened, "query-figure"),
        (
            lambda plan: plan.model_copy(update={"measures": (plan.measures[0].model_copy(update={"fit": None}),)}),
            "query-figure",
        ),
        (
            lambda plan: plan.model_copy(update={"measures": (plan.measures[0].model_copy(update={"kind": "mean"}),)}),
            "query-figure",
        ),
    ],
)
def test_a_node_refuses_a_step_that_is_none(change: Callable[[QueryPlan], QueryPlan], code: str) -> None:
    with pytest.raises(QuerySchemaError) as caught:
        check_query(change(planned()), COLUMNS)
    assert caught.value.code == code


@pytest.mark.parametrize("fit", [{"step": 9, "steps": 8}, {"step": 0, "steps": 8}, {"step": 1, "steps": 26}])
def test_a_step_outside_its_plan_is_no_statement(fit: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        FitStep(**fit, at=("0",))


@pytest.mark.parametrize("number", ["inf", "nan", "1e400", "-Infinity", ""])
def test_coefficients_that_are_no_numbers_are_no_statement(number: str) -> None:
    with pytest.raises(ValidationError):
        FitStep(step=1, steps=8, at=(number,))


def test_plans_of_other_figures_say_what_they_said_before() -> None:
    plan = planned("SELECT COUNT(*) FROM plates")
    assert all("fit" not in measure for measure in plan.model_dump(mode="json")["measures"])


@pytest.mark.parametrize("features", ["force", "force, width, passes"])
def test_rows_that_are_said_to_drown_do_even_where_they_lie_as_well_as_they_can(features: str) -> None:
    """Every value at a bound, each label as likely as the other: no data bends the sums more."""
    plan = planned(f"SELECT LOGREG(cracked, {features}) AS fit FROM plates")
    rows = drowned_rows(plan, NODES, SHARES) // NODES
    answers = []
    for seed, times in ((1, 1), (2, 1), (3, 40)):
        make = np.random.default_rng(seed)

        def at_bounds(make: np.random.Generator = make, size: int = rows * times) -> pa.Table:
            force, width, passes = (make.choice(edges, size) for edges in ((0.0, 60.0), (-1.5, 2.5), (0, 50)))
            cracked = make.random(size) < 0.5
            return pa.table({"cracked": cracked, "force": force, "width": width, "passes": passes})

        answers.append(fitted(plan, [at_bounds() for _ in range(NODES)]).cells[0].figures["fit"] is None)
    assert answers == [True, True, False], "so many do not; many times as many do"
