"""Queries without parties: text to plan, plan to statement, statement to vector, sum to table."""

from __future__ import annotations

import secrets
from typing import Any

import duckdb
import numpy as np
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from federation.query import (
    MODULUS,
    RING,
    CellEvidence,
    QuerySchemaError,
    QueryTextError,
    QueryVoidError,
    Regression,
    Total,
    VectorLayout,
    cell_statement,
    check_query,
    contributes,
    decode_answer,
    distinct_statement,
    encode_cells,
    fill_slots,
    is_cut,
    is_undecided,
    loaded_columns,
    open_flags,
    opened,
    parts_statement,
    plan_of,
    read_rows,
    seal_flags,
    with_parts,
)
from federation.query.front import common_columns, parse_question
from federation.query.ring import from_limbs, to_limbs
from federation.statements import Column
from federation.statements.query import QueryPlan

DIGEST = "sha256:" + "0" * 64
COLUMNS = [
    Column(name="alloy", type="text", categories=("a", "b", "c")),
    Column(name="force", type="number", minimum="-1000", maximum="1000"),
    Column(name="width", type="number", nullable=True),
    Column(name="passes", type="integer"),
    Column(name="hot", type="boolean"),
    Column(name="at", type="timestamp"),
    Column(name="heat", type="text"),
]
SCHEMA = common_columns([COLUMNS, COLUMNS, COLUMNS])


def planned(text: str, columns: dict[str, Column] | None = None) -> QueryPlan:
    known = columns or SCHEMA
    plan = plan_of(parse_question(text, known), known, 10_000, DIGEST)
    check_query(plan, known.values())
    return plan


def node_rows(seed: int, rows: int = 300) -> Any:
    import pyarrow as pa

    make = np.random.default_rng(seed)
    width = make.normal(5, 2, rows)
    return pa.table(
        {
            "alloy": make.choice(["a", "b", "c"], rows),
            "force": make.normal(100, 30, rows),
            "width": pa.array(width, mask=make.random(rows) < 0.1),
            "passes": make.integers(0, 50, rows),
            "hot": make.random(rows) < 0.5,
            "at": pa.array(make.integers(0, 10**9, rows), type=pa.int64()).cast(pa.timestamp("s")),
            "heat": [f"h{one}" for one in make.integers(0, 80, rows)],
        }
    )


def answer(plan: QueryPlan, tables: list[Any], unit: str = "", columns: dict[str, Column] | None = None) -> Any:
    """What the parties compute together, without masks."""
    known = {column.name: column for column in (columns or SCHEMA).values()}
    statement = cell_statement(plan, known, unit)
    common = secrets.token_bytes(32)
    parts, flags = [], np.zeros(2 * (plan.cells + 1), dtype=np.uint64)
    for data in tables:
        engine = duckdb.connect()
        engine.register("data", data)
        cells = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
        mine = contributes(plan, [cell and cell.evidence for cell in cells])
        keys = {}
        for one in plan.measures:
            if one.kind == "distinct":
                found: dict[int, list[str]] = {}
                for cell, key in engine.execute(distinct_statement(plan, one.columns[0])).fetchall():
                    found.setdefault(cell, []).append(key)
                keys[one.name] = found
        parts.append((cells, mine, keys))
        flags = (flags + seal_flags(mine, common, DIGEST)) % np.uint64(MODULUS)
    counts = open_flags(flags, plan.cells, common, DIGEST, len(tables))
    shown = opened(counts, 3)
    total = None
    for cells, mine, keys in parts:
        chosen = [a and b for a, b in zip(mine, shown, strict=True)]
        vector = encode_cells(plan, statement, cells, chosen, len(tables))
        for name, found in keys.items():
            fill_slots(vector, plan, name, found, chosen, common, DIGEST)
        total = vector if total is None else (total + vector) % np.uint64(MODULUS)
    return decode_answer(plan, [int(one) for one in total], len(tables))


def pooled(tables: list[Any], sql: str) -> list[tuple[Any, ...]]:
    import pyarrow as pa

    engine = duckdb.connect()
    engine.register("passes", pa.concat_tables(tables))
    return engine.execute(sql).fetchall()


TABLES = [node_rows(seed) for seed in (1, 2, 3)]


@pytest.mark.parametrize(
    ("figure", "reference"),
    [
        ("COUNT(*)", "count(*)"),
        ("COUNT(width)", "count(width)"),
        ("SUM(passes)", "sum(passes)"),
        ("SUM(force)", "sum(force)"),
        ("AVG(width)", "avg(width)"),
        ("VARIANCE(force)", "var_samp(force)"),
        ("VAR_POP(width)", "var_pop(width)"),
        ("STDDEV(passes)", "stddev_samp(passes)"),
        ("COVAR_SAMP(force, width)", "covar_samp(force, width)"),
        ("CORR(force, passes)", "corr(force, passes)"),
    ],
)
def test_figures_equal_those_of_the_pooled_rows(figure: str, reference: str) -> None:
    where = "WHERE passes BETWEEN 5 AND 45 AND (hot OR force > 80.5) AND NOT width IS NULL"
    plan = planned(f"SELECT alloy, {figure} AS f FROM passes {where} GROUP BY alloy")
    got = answer(plan, TABLES)
    wanted = pooled(TABLES, f"SELECT alloy, {reference} FROM passes {where} GROUP BY alloy ORDER BY alloy")
    for cell, (alloy, value) in zip(got.cells, wanted, strict=True):
        assert cell.labels == (alloy,) and cell.contributing == 3
        assert cell.figures["f"] == pytest.approx(float(value), rel=1e-8, abs=1e-8)


def test_regression_of_grunfelds_firms_to_six_digits() -> None:
    """One node a firm; the reference's coefficients (statsmodels' bundled data)."""
    import pyarrow as pa
    from statsmodels.datasets import grunfeld

    frame = grunfeld.load_pandas().data
    firms = [name for name in frame.firm.unique() if name != "American Steel"]
    assert len(firms) == 10
    kept = [frame[frame.firm == name][["invest", "value", "capital"]] for name in firms]
    columns = {n: Column(name=n, type="number") for n in ("invest", "value", "capital")}
    plan = planned("SELECT LINREG(invest, value, capital) AS fit FROM grunfeld", columns)
    # two of the firms stand out by their own largest years no more than the rules allow
    got = answer(plan, [pa.Table.from_pandas(one, preserve_index=False) for one in kept], columns=columns)
    fit = got.cells[0].figures["fit"]
    assert isinstance(fit, Regression) and fit.rows == 200 and got.cells[0].contributing == 10
    assert fit.coefficients == pytest.approx((-42.714369, 0.115562, 0.230678), abs=5e-7)


def test_histogram_and_grouping_make_one_table() -> None:
    plan = planned("SELECT HISTOGRAM(force, -50, 60, 90, 120, 400), hot, COUNT(*) FROM passes GROUP BY hot")
    tables = [node_rows(seed, 2000) for seed in (4, 5, 6)]
    got = answer(plan, tables)
    assert [axis.column for axis in plan.axes] == ["hot", "force"] and plan.cells == 8
    edges = [(-50, 60), (60, 90), (90, 120), (120, 400)]
    for cell, (hot, (low, high)) in zip(got.cells, [(h, e) for h in (False, True) for e in edges], strict=True):
        wanted = pooled(tables, f"SELECT count(*) FROM passes WHERE hot = {hot} AND force >= {low} AND force < {high}")
        assert cell.figures["count"] == wanted[0][0] and cell.labels[0] == str(hot).lower()


def test_distinct_counts_of_shared_and_of_local_keys() -> None:
    plan = planned("SELECT COUNT(DISTINCT heat) AS shared, LOCAL_DISTINCT(heat) AS own FROM passes")
    cell = answer(plan, TABLES).cells[0]
    union = pooled(TABLES, "SELECT count(DISTINCT heat) FROM passes")[0][0]
    own = sum(pooled([one], "SELECT count(DISTINCT heat) FROM passes")[0][0] for one in TABLES)
    assert abs(cell.figures["shared"] - union) <= 3 + 4 * cell.errors["shared"]
    assert cell.figures["own"] == own > union


@pytest.mark.parametrize(
    ("text", "what", "place"),
    [
        ("SELECT *\nFROM passes", "*", (1, 8)),
        ("SELECT force FROM passes", "force", (1, 8)),
        ("SELECT COUNT(*) FROM passes ORDER BY force", "ORDER", (1, 38)),
        ("SELECT COUNT(*) FROM passes LIMIT 3", "LIMIT", (1, 35)),
        ("SELECT COUNT(*) FROM passes GROUP BY alloy HAVING COUNT(*) > 3", "HAVING", (1, 51)),
        ("SELECT COUNT(*) FROM a, b", "JOINS", (1, 25)),
        ("SELECT COUNT(*) FROM passes JOIN b ON true", "JOINS", (1, 34)),
        ("SELECT COUNT(*) FROM (SELECT 1)", "FROM", (1, 30)),
        ("SELECT COUNT(*) FROM passes WHERE force > width", "width", (1, 43)),
        ("SELECT COUNT(*) FROM passes WHERE sqrt(force) > 2", "SQRT", (1, 35)),
        ("SELECT COUNT(*) FROM passes\nWHERE force IN (SELECT 1)", "IN (SELECT 1)", (2, 7)),
        ("SELECT COUNT(*) FROM passes WHERE alloy > 'a'", "alloy", (1, 35)),
        ("SELECT COUNT(*) FROM passes WHERE alloy LIKE 'a%'", "LIKE", (1, 35)),
        ("SELECT SUM(force * 2) FROM passes", "force", (1, 12)),
        ("SELECT SUM(DISTINCT force) FROM passes", "DISTINCT", (1, 8)),
        ("SELECT SUM(force) OVER () FROM passes", "OVER", (1, 8)),
        ("SELECT SUM(force) FILTER (WHERE hot) FROM passes", "FILTER", (1, 8)),
        ("SELECT SUM(nothing) FROM passes", "nothing", (1, 12)),
        ("SELECT heat, COUNT(*) FROM passes GROUP BY heat", "heat", (1, 44)),
        ("SELECT COUNT(*) FROM passes GROUP BY ALL", "ALL", None),
        ("SELECT COUNT(*) FROM passes GROUP BY ROLLUP (alloy)", "ROLLUP", None),
        ("SELECT STRING_AGG(alloy) FROM passes", "alloy", None),
        ("SELECT read_csv('/etc/passwd') FROM passes", "", (1, 8)),
        ("SELECT COUNT(*) FROM read_parquet('x')", "", None),
        ("SELECT DISTINCT alloy FROM passes", "DISTINCT", None),
        ("SELECT COUNT(*) FROM passes TABLESAMPLE 10%", "", None),
    ],
)
def test_what_is_not_answered_is_refused_with_its_place(text: str, what: str, place: tuple[int, int] | None) -> None:
    with pytest.raises(QueryTextError) as caught:
        parse_question(text, SCHEMA)
    assert what.lower() in str(caught.value).lower()
    if place is not None:
        assert (caught.value.params["line"], caught.value.params["column"]) == place


@pytest.mark.parametrize(
    "text",
    [
        "",
        "DROP TABLE passes",
        "SELECT COUNT(*) FROM passes; DROP TABLE x",
        "SELECT 1 UNION SELECT 2",
        "WITH a AS (SELECT 1) SELECT COUNT(*) FROM a",
        "SELECT COUNT( FROM",
    ],
)
def test_what_is_no_single_select_is_refused(text: str) -> None:
    with pytest.raises(QueryTextError):
        parse_question(text, SCHEMA)


@pytest.mark.parametrize("figure", ["MIN(force)", "MAX(force)", "MEDIAN(force)", "QUANTILE_CONT(force, 0.5)"])
def test_figures_that_show_single_rows_are_answered_under_noise_only(figure: str) -> None:
    with pytest.raises(QueryTextError) as caught:
        parse_question(f"SELECT {figure} FROM passes", SCHEMA)
    assert caught.value.code == "query-needs-noise" and caught.value.params["column"] >= 8


def test_a_plan_is_judged_by_the_columns_that_are_granted() -> None:
    plan = planned("SELECT AVG(force) FROM passes WHERE heat = 'h1'")
    with pytest.raises(QuerySchemaError) as caught:
        check_query(plan, [column for column in COLUMNS if column.name != "heat"])
    assert caught.value.code == "column"
    weak = plan.model_copy(update={"rules": plan.rules.model_copy(update={"subjects": 3})})
    with pytest.raises(QuerySchemaError) as caught:
        check_query(weak, COLUMNS)
    assert caught.value.code == "disclosure-rules"


def test_constants_cannot_leave_their_quotation() -> None:
    plan = planned("SELECT COUNT(*) FROM passes WHERE heat = 'x'' OR 1=1 --'")
    sql = cell_statement(plan, SCHEMA).sql
    engine = duckdb.connect()
    engine.register("data", TABLES[0])
    assert engine.execute(sql).fetchall() == []
    assert "'x'' OR 1=1 --'" in sql


@given(st.lists(st.integers(-(2**110), 2**110), min_size=1, max_size=20))
def test_limbs_add_up_to_the_integer_sum(values: list[int]) -> None:
    totals = [0, 0, 0]
    for value in values:
        totals = [(a + b) % MODULUS for a, b in zip(totals, to_limbs(value, 3), strict=True)]
    assert from_limbs(totals, len(values)) == sum(values)


def evidence(subjects: int, *shares: int) -> CellEvidence:
    largest = sorted(shares or [1] * max(subjects, 3), reverse=True)
    return CellEvidence(subjects, subjects, (Total(sum(largest), largest[0], largest[1]),))


def test_the_rules_of_a_cell() -> None:
    plan = planned("SELECT alloy, SUM(force) FROM passes GROUP BY alloy")
    many = evidence(20)
    assert contributes(plan, [many, many, many]) == [True] * 3
    assert contributes(plan, [many, many, None]) == [True, True, False]
    # nine subjects: left out, and one more with it, for a total would give one alone away
    assert contributes(plan, [many, evidence(9), evidence(30)]) == [False, False, True]
    # two subjects hold more than nine tenths
    assert not contributes(plan, [evidence(12, 50, 45, 5), None, None])[0]
    # all others together hold less than a tenth of the largest
    assert not contributes(plan, [evidence(12, 1000, 1, 99), None, None])[0]
    assert not contributes(plan, [evidence(12, 0, 0, 0), None, None])[0]


def test_cells_open_where_enough_contribute() -> None:
    assert opened([3, 3, 0], 3) == [True, True, False]
    assert opened([3, 4, 2], 3) == [False, True, False]
    assert opened([4, 2, 1], 3) == [True, False, False]
    assert opened([2], 3) == [False]


def test_who_adds_to_the_flags_is_found_out_and_without_the_tag_is_not() -> None:
    common = secrets.token_bytes(32)
    total = np.zeros(8, dtype=np.uint64)
    for mine in ([True, False, True], [True, False, False], [True, False, False]):
        total = (total + seal_flags(mine, common, DIGEST)) % np.uint64(MODULUS)
    assert open_flags(total, 3, common, DIGEST, 3) == [3, 0, 1]
    raised = total.copy()
    raised[3] = (int(raised[3]) + 2) % MODULUS  # two more contributors to the last cell
    with pytest.raises(QueryVoidError):
        open_flags(raised, 3, common, DIGEST, 3)
    # weakened copy of the step: no tags, the blinds alone
    blinds = seal_flags([False] * 3, common, DIGEST)
    assert [(int(a) - 3 * int(b)) % MODULUS for a, b in zip(raised[1:4], blinds[1:4], strict=True)] == [3, 0, 3]


def test_what_opens_to_other_nodes_is_void() -> None:
    plan = planned("SELECT COUNT(*) FROM passes")
    vector = [3, 3, 90]
    assert decode_answer(plan, vector, 3).cells[0].figures == {"count": 90}
    for wrong in ([2, 3, 90], [3, 4, 90], [3, 3, MODULUS // 2 - 5]):
        with pytest.raises(QueryVoidError):
            decode_answer(plan, wrong, 3)
    assert RING.modulus == MODULUS


def holed(rows: int, holes: int) -> Any:
    """Rows of which some have no width."""
    import pyarrow as pa

    make = np.random.default_rng(rows)
    mask = np.arange(rows) < holes
    return pa.table(
        {
            "alloy": ["a"] * rows,
            "force": make.normal(100, 30, rows),
            "width": pa.array(make.normal(5, 2, rows), mask=mask),
            "heat": [f"h{at % 40}" for at in range(rows)],
        }
    )


@pytest.mark.parametrize("unit", ["", "heat"])
@pytest.mark.parametrize(("holes", "shown"), [(0, True), (1, False), (9, False), (30, True)])
def test_inv5_figures_over_different_rows_do_not_single_out_their_difference(
    holes: int, shown: bool, unit: str
) -> None:
    """SUM(force) less the sum of force that COVAR_POP(force, width) shows is that of the rows without a width."""
    columns = {one.name: one for one in COLUMNS}
    plan = planned("SELECT SUM(force) AS s, COVAR_POP(force, width) AS c FROM passes", columns)
    data = holed(300, holes)
    engine = duckdb.connect()
    engine.register("data", data)
    statement = cell_statement(plan, columns, unit)
    cells = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
    assert contributes(plan, [cell and cell.evidence for cell in cells]) == [True], "without the look at its parts"
    if is_cut(plan, statement, cells):
        parts = engine.execute(parts_statement(plan, columns, unit)).fetchall()
        cells = with_parts(plan, statement, cells, parts)
    assert contributes(plan, [cell and cell.evidence for cell in cells]) == [shown]


def test_inv5_one_row_stands_out_in_a_part_alone() -> None:
    """Nearly all force of the rows without a width is one row's: in the whole cell it does not stand out."""
    import pyarrow as pa

    columns = {one.name: one for one in COLUMNS}
    plan = planned("SELECT SUM(force) AS s, COVAR_POP(force, width) AS c FROM passes", columns)
    force = [900.0] + [1.0] * 29 + [100.0] * 270
    data = pa.table({"force": force, "width": pa.array([None] * 30 + [float(at) for at in range(270)])})
    engine = duckdb.connect()
    engine.register("data", data)
    statement = cell_statement(plan, columns)
    cells = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
    assert contributes(plan, [cell and cell.evidence for cell in cells]) == [True]
    cells = with_parts(plan, statement, cells, engine.execute(parts_statement(plan, columns)).fetchall())
    assert contributes(plan, [cell and cell.evidence for cell in cells]) == [False]


def test_counts_are_rounded_at_each_node_before_they_are_added() -> None:
    plan = planned("SELECT COUNT(*) AS n, SUM(passes) AS s FROM passes")
    rounded = plan.model_copy(update={"rules": plan.rules.model_copy(update={"rounding": 25})})
    tables = [node_rows(seed, rows) for seed, rows in ((1, 311), (2, 340), (3, 388))]
    exact, told = (answer(one, tables).cells[0].figures for one in (plan, rounded))
    assert (exact["n"], told["n"]) == (1039, 300 + 350 + 400) and exact["s"] == told["s"]
    assert "rounding" not in plan.model_dump(mode="json")["rules"]


def loaded_engine(data: Any, known: dict[str, Column]) -> Any:
    """A node's engine as its session makes it: loaded columns beside the snapshot's."""
    engine = duckdb.connect()
    engine.register("snapshot", data)
    beside = "".join(f", {expression} AS {name}" for name, expression in loaded_columns(known.values()))
    engine.execute(f"CREATE TABLE data AS SELECT *{beside} FROM snapshot")
    return engine


@pytest.mark.parametrize(
    "text",
    [
        "SELECT alloy, COUNT(*), SUM(force), AVG(width), SUM(passes) FROM passes GROUP BY alloy",
        "SELECT alloy, hot, COUNT(*), STDDEV(force), CORR(force, width) FROM passes WHERE alloy <> 'b' GROUP BY alloy, hot",
        "SELECT hot, LINREG(force, width, passes) FROM passes WHERE force > 90 GROUP BY hot",
        "SELECT HISTOGRAM(force, 0, 90, 110, 200), alloy, COUNT(*), LOCAL_DISTINCT(heat) FROM passes GROUP BY alloy",
        "SELECT alloy, COUNT(DISTINCT heat) FROM passes GROUP BY alloy",
    ],
)
@pytest.mark.parametrize("own", [("a", "b", "c"), ("c", "a", "b"), ("a", "b"), ("a", "b", "c", "d")])
@pytest.mark.parametrize("unit", ["", "heat"])
def test_what_is_worked_out_at_load_changes_no_answer(text: str, own: tuple[str, ...], unit: str) -> None:
    """Whatever categories a node declares itself, in whatever order: as if texts were compared and values clamped anew."""
    plan = planned(text)
    known = {**SCHEMA, "alloy": SCHEMA["alloy"].model_copy(update={"categories": own})}
    known["force"] = known["force"].model_copy(update={"minimum": "60", "maximum": "130"})
    plain, loaded = duckdb.connect(), loaded_engine(TABLES[0], known)
    plain.register("data", TABLES[0])
    pairs = [
        (cell_statement(plan, known, unit).sql, cell_statement(plan, known, unit, loaded=True).sql),
        (distinct_statement(plan, "heat"), distinct_statement(plan, "heat", known)),
    ]
    if any(one.columns for one in plan.measures):
        pairs.append((parts_statement(plan, known, unit), parts_statement(plan, known, unit, loaded=True)))
    for wanted, sql in pairs:
        rows, others = plain.execute(wanted).fetchall(), loaded.execute(sql).fetchall()
        assert len(rows) == len(others) > 0
        for row, other in zip(rows, others, strict=True):
            assert all(a == b or a == pytest.approx(b, rel=1e-12) for a, b in zip(other, row, strict=True))


@pytest.mark.parametrize(
    ("values", "undecided", "kept"),
    [
        ([1.0] * 40, False, True),
        # the largest twice would be nine tenths and more, the largest and the second are not
        ([100.0, *[1.0] * 102], True, True),
        ([100.0, 100.0, *[0.1] * 40], True, False),
        ([100.0] * 5, False, False),
    ],
)
def test_one_largest_value_decides_where_it_can_and_two_where_it_cannot(
    values: list[float], undecided: bool, kept: bool
) -> None:
    import pyarrow as pa

    known = {"force": Column(name="force", type="number", minimum="0", maximum="1000")}
    plan = planned("SELECT SUM(force) AS total FROM passes", known)
    engine = loaded_engine(pa.table({"force": values}), known)

    def evidence_of(*, bounded: bool) -> list[CellEvidence | None]:
        statement = cell_statement(plan, known, loaded=True, bounded=bounded)
        cells = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
        return [cell and cell.evidence for cell in cells]

    first, second = evidence_of(bounded=True), evidence_of(bounded=False)
    assert is_undecided(plan, first) is undecided
    assert contributes(plan, second) == [kept]
    if not undecided:
        assert contributes(plan, first) == contributes(plan, second), "what is decided at once is decided alike"


def test_clamped_values_are_counted_under_the_same_rules() -> None:
    """As many as a node has to have for any figure, in the part that was clamped and in the part that was not."""
    text = "SELECT hot, COUNT(force) AS n, CLAMPED(force) AS k FROM passes GROUP BY hot"
    narrow = {**SCHEMA, "force": SCHEMA["force"].model_copy(update={"minimum": "60", "maximum": "130"})}
    found = answer(planned(text, narrow), TABLES, columns=narrow)
    wanted = pooled(
        TABLES,
        "SELECT count(force), count(*) FILTER (WHERE force < 60 OR force > 130) FROM passes GROUP BY hot ORDER BY hot",
    )
    assert [(cell.figures["n"], cell.figures["k"]) for cell in found.cells] == wanted
    few = {**SCHEMA, "force": SCHEMA["force"].model_copy(update={"minimum": "10", "maximum": "190"})}
    for known in (few, SCHEMA):  # hardly any, and none
        assert all(cell.suppressed for cell in answer(planned(text, known), TABLES, columns=known).cells)
    with pytest.raises(QuerySchemaError, match="bounds"):
        planned("SELECT CLAMPED(width) AS k FROM passes")


def test_declared_values_are_counted_exactly_and_their_places_are_the_nodes_secret() -> None:
    """Union over the companies, an asker's own choice of values refused, others' values counted by those who declare them."""
    narrowed = [table.filter(pc.not_equal(table["alloy"], "c")) for table in TABLES]
    found = answer(planned("SELECT hot, COUNT(DISTINCT alloy) AS k, COUNT(*) FROM passes GROUP BY hot"), narrowed)
    assert [(cell.figures["k"], cell.errors) for cell in found.cells] == [(2, {}), (2, {})]
    plan = planned("SELECT COUNT(DISTINCT alloy) AS k FROM passes")
    assert plan.slots == 0 and plan.measures[0].values == ("a", "b", "c")
    narrower = plan.model_copy(update={"measures": (plan.measures[0].model_copy(update={"values": ("b",)}),)})
    with pytest.raises(QuerySchemaError, match="all values"):
        check_query(narrower, COLUMNS)
    where = set()
    for number in range(60):
        vector = np.zeros(VectorLayout.of(plan).size, dtype=np.uint64)
        fill_slots(vector, plan, "k", {0: ["b", "zinc"]}, [True], bytes([number]) * 32, DIGEST)
        (place,) = np.flatnonzero(vector)
        where.add(int(place))
    assert len(where) == 3, "one slot, in any of the places"
