"""A node's part of an answer: from what its engine computed to the vector that is masked."""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

from federation.query.disclosure import CellEvidence, Total
from federation.query.errors import QueryFailedError
from federation.query.flags import Elements, derived
from federation.query.layout import VectorLayout
from federation.query.ring import MODULUS, to_limbs
from federation.query.sql import CellStatement, released_overs
from federation.statements.query import Categories, QueryPlan

Number = int | float | None


@dataclass(frozen=True)
class CellRow:
    """One cell as the engine gave it.

    Attributes:
        moments: in the order of the statement.
        locals: a node's own distinct counts.
    """

    moments: tuple[Number, ...]
    locals: tuple[int, ...]
    evidence: CellEvidence
    fitted: tuple[int, ...] = ()
    """Sums of a step of a logistic regression."""


def read_rows(plan: QueryPlan, statement: CellStatement, rows: Sequence[Sequence[Any]]) -> list[CellRow | None]:
    """The engine's rows by cell; None where a cell has none.

    Raises:
        QueryFailedError: they are not of the statement.
    """
    cells: list[CellRow | None] = [None] * plan.cells
    counts, own = len(statement.moments), len(statement.locals)
    width = 1 + counts + own + len(statement.overs) + 3 * len(statement.measured)
    for row in rows:
        row, fitted = row[:width], tuple(row[width:])
        if len(fitted) != statement.fitted or not all(isinstance(value, int) for value in fitted):
            raise QueryFailedError("the engine's answer is not of its statement", code="query-engine")
        if len(row) != width or not isinstance(row[0], int) or not 0 <= row[0] < plan.cells:
            raise QueryFailedError("the engine's answer is not of its statement", code="query-engine")
        moments = tuple(row[1 : 1 + counts])
        at = 1 + counts + own
        subjects = [int(value) for value in row[at : at + len(statement.overs)]]
        at += len(statement.overs)
        totals = tuple(Total(*(_fraction(value) for value in row[place : place + 3])) for place in range(at, width, 3))
        over = {tuple(sorted(one.columns)) for one in plan.measures if one.kind == "regression"}
        explained = [
            int(moments[place] or 0)
            for place, moment in enumerate(statement.moments)
            if moment.counts and (moment.over in over or not over)
        ]
        fewest = min(subjects, default=0)
        evidence = CellEvidence(fewest, min(explained, default=fewest), totals)
        found = tuple(int(value) for value in row[1 + counts : 1 + counts + own])
        cells[row[0]] = CellRow(moments, found, evidence, fitted)
    return cells


def is_cut(plan: QueryPlan, statement: CellStatement, cells: Sequence[CellRow | None]) -> bool:
    """Whether figures of a cell rest on different rows, so that its parts have to be looked at (`parts_statement`)."""
    if plan.noise is not None or len(released_overs(plan)) < 2:
        return False
    if any(one.kind in ("distinct", "distinct-local") for one in plan.measures):
        return True  # their rows are not counted
    counted = [place for place, moment in enumerate(statement.moments) if moment.counts]
    return any(len({cell.moments[place] for place in counted}) > 1 for cell in cells if cell is not None)


def with_parts(
    plan: QueryPlan, statement: CellStatement, cells: Sequence[CellRow | None], rows: Sequence[Sequence[Any]]
) -> list[CellRow | None]:
    """The cells with the evidence of their parts: the fewest subjects of any, and every total of each.

    Raises:
        QueryFailedError: the rows are not those of `parts_statement`.
    """
    found = list(cells)
    width = 3 + 3 * len(statement.measured)
    for row in rows:
        cell = found[row[0]] if len(row) == width and isinstance(row[0], int) and 0 <= row[0] < len(found) else None
        if cell is None:
            raise QueryFailedError("the engine's answer is not of its statement", code="query-engine")
        known = cell.evidence
        totals = [
            Total(*(_fraction(value) for value in row[place : place + 3]))
            for place in range(3, width, 3)
            if row[place] is not None
        ]
        evidence = replace(known, subjects=min(known.subjects, int(row[2])), totals=(*known.totals, *totals))
        found[row[0]] = replace(cell, evidence=evidence)
    return found


def encode_cells(
    plan: QueryPlan, statement: CellStatement, cells: Sequence[CellRow | None], chosen: Sequence[bool], addends: int
) -> Elements:
    """The vector of this node, its slots still empty: the chosen cells as they are, zeros in all others.

    Args:
        chosen: cells that it contributes to and that the nodes open.
        addends: nodes in the plan, for what a sum may reach.

    Raises:
        QueryFailedError: a sum does not fit, or is not a number.
    """
    layout = VectorLayout.of(plan)
    if not 1 <= addends <= 512:
        raise QueryFailedError("a query has at most 512 nodes", code="query-overflow")
    vector: Elements = np.zeros(layout.size, dtype=np.uint64)
    vector[0] = 1
    for number, cell in enumerate(cells):
        if cell is None or not chosen[number]:
            continue
        vector[layout.cell(number)] = 1
        values = dict(zip(statement.moments, cell.moments, strict=True))
        for moment, start, stop in layout.places(number):
            whole = encoded(values[moment], layout.bits(moment))
            if moment.counts and plan.rules.rounding:
                whole = plan.rules.rounding * round(Fraction(whole, plan.rules.rounding))
            vector[start:stop] = to_limbs(whole, stop - start)
        for name, count in zip(statement.locals, cell.locals, strict=True):
            vector[layout.local(number, name)] = to_limbs(count, 1)[0]
    return vector


def encoded(value: Number, bits: int) -> int:
    """A sum in fixed point, rounded once.

    Raises:
        QueryFailedError: it is not finite.
    """
    if value is None:
        return 0
    if isinstance(value, float) and not math.isfinite(value):
        raise QueryFailedError("a sum is not a finite number", code="query-overflow")
    return round(Fraction(value) * (1 << bits))


def fill_slots(
    vector: Elements,
    plan: QueryPlan,
    name: str,
    keys: Mapping[int, Sequence[str]],
    chosen: Sequence[bool],
    common: bytes,
    digest: str,
) -> None:
    """Mark the slots of a node's distinct values, in place: a random nonzero element in each occupied one.

    Slots are the declared values, where the plan lists them, in an order that the nodes alone know, else a hash under a key that
    they alone know; who opens the sum sees how many are occupied, and of none which value it stands for.

    Args:
        keys: the distinct values of each cell.
        common: the nodes' secret.
        digest: of the plan.
    """
    layout = VectorLayout.of(plan)
    key = derived(common, digest, f"slots/{name}", 32)
    listed = next(one.values for one in plan.measures if one.name == name)
    order = sorted(listed, key=lambda value: hmac.digest(key, value.encode(), hashlib.sha256)) if listed else []
    places = {value: at for at, value in enumerate(order)}
    for number, values in keys.items():
        if not chosen[number]:
            continue
        start, stop = layout.slots_of(number, name)
        for value in values:
            if listed is None:
                place = int.from_bytes(hmac.digest(key, value.encode(), hashlib.sha256)[:16], "little") % (stop - start)
            elif value in places:
                place = places[value]
            else:
                continue  # declared by nobody
            vector[start + place] = 1 + secrets.randbelow(MODULUS - 1)


def labels(plan: QueryPlan) -> list[tuple[str, ...]]:
    """What each cell is called on each axis, in the order of the cells."""
    rows: list[tuple[str, ...]] = [()]
    for axis in plan.axes:
        if isinstance(axis, Categories):
            named = list(axis.values)
        else:
            last = len(axis.edges) - 2
            pairs = zip(axis.edges, axis.edges[1:], strict=False)
            named = [f"[{low}, {high}{']' if at == last else ')'}" for at, (low, high) in enumerate(pairs)]
        rows = [(*row, name) for row in rows for name in named]
    return rows


def _fraction(value: Any) -> Fraction:
    if value is None:
        return Fraction(0)
    if isinstance(value, float) and not math.isfinite(value):
        raise QueryFailedError("a sum is not a finite number", code="query-overflow")
    return Fraction(Decimal(str(value))) if isinstance(value, Decimal) else Fraction(value)
