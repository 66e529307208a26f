"""inv3: no step of a query fails, or fits, by what a single row holds: an asker who saw it fail could ask for any row."""

from __future__ import annotations

import math

import duckdb
import pandas as pd
import pytest

from federation.query import MODULUS, QuerySchemaError, cell_statement, check_query, encode_cells, read_rows, schema
from federation.query.ring import from_limbs, to_limbs
from federation.statements import Column
from federation.statements.query import Compare, Measure, QueryPlan, UsedColumn, Value

DIGEST = "sha256:" + "0" * 64
WHOLE, REAL = Column(name="tons", type="integer"), Column(name="force", type="number")
CUSTOMER = Column(name="customer", type="text")
KNOWN = {column.name: column for column in (WHOLE, REAL, CUSTOMER)}
FAR = str(-2 * math.isqrt(2**127 - 1))
"""A shift whose square is beyond 128 bits."""


def asked(customer: str, kind: str = "variance", column: str = "tons", shift: str = "0", limbs: int = 3) -> QueryPlan:
    """The variance over one customer's rows."""
    return QueryPlan(
        measures=(Measure(kind=kind, name="v", columns=(column,)),),  # type: ignore[arg-type]
        columns=(UsedColumn(name=column, fraction_bits=0, shift=shift),),
        where=Compare(column="customer", op="=", value=Value(type="text", text=customer)),
        limbs=limbs,
        context=DIGEST,
    )


def computed(plan: QueryPlan, tons: int = 4242, force: float = 1.5) -> list[int]:
    """A node's vector, whose only row is Siemens's; raises where its engine or the encoding does."""
    statement = cell_statement(plan, KNOWN)
    engine = duckdb.connect()
    engine.register("data", pd.DataFrame({"customer": ["Siemens"], "tons": [tons], "force": [force]}))
    cells = read_rows(plan, statement, engine.execute(statement.sql).fetchall())
    return [int(one) for one in encode_cells(plan, statement, cells, [True], 3)]


def test_a_shift_at_which_the_engine_would_fail_is_refused_and_without_that_tells_of_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(QuerySchemaError, match="shift"):
        check_query(asked("Siemens", shift=FAR), KNOWN.values())
    monkeypatch.setitem(schema.LARGEST, "integer", 2**100)
    check_query(asked("Siemens", shift=FAR), KNOWN.values())
    assert computed(asked("Bosch", shift=FAR))
    with pytest.raises(duckdb.Error):  # so it is known that Siemens is a customer
        computed(asked("Siemens", shift=FAR))


@pytest.mark.parametrize("kind", ["sum", "variance"])
@pytest.mark.parametrize(("column", "value"), [("tons", 2**63 - 1), ("tons", -(2**63)), ("force", 1.7e308)])
def test_no_value_makes_the_engine_fail(kind: str, column: str, value: float) -> None:
    shift = str(schema.LARGEST["integer"] if column == "tons" else 10**29)
    plan = asked("Siemens", kind, column, shift)
    check_query(plan, KNOWN.values())
    assert computed(plan, **{column: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("limbs", [1, 2, 3])
def test_a_sum_that_does_not_fit_is_the_largest_that_does(limbs: int) -> None:
    most = from_limbs(to_limbs(10**60, limbs), 1)
    assert most == sum((2**39 - 1) << (40 * at) for at in range(limbs))
    assert from_limbs(to_limbs(-(10**60), limbs), 1) == -most
    assert from_limbs(to_limbs(most, limbs), 1) == most and from_limbs(to_limbs(most - 1, limbs), 1) == most - 1
    assert all(0 <= one < MODULUS for one in to_limbs(10**60, limbs))
    assert computed(asked("Siemens", "sum", limbs=1), tons=2**47)[-1] == 2**39 - 1
