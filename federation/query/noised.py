"""A node's part of an answer under noise: every cell, whether rows fall into it or not, its sums and its noise together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from federation.query.errors import QueryFailedError
from federation.query.flags import Elements
from federation.query.layout import FitSum, Moment, VectorLayout
from federation.query.noising import Noise, Release
from federation.query.ring import MODULUS, to_limbs
from federation.query.sql import CellStatement
from federation.query.vector import CellRow
from federation.statements.query import QueryPlan

Leaves = NDArray[np.int64]
_MOST = 2**39 - 1


def encode_noised(
    plan: QueryPlan,
    statement: CellStatement,
    cells: Sequence[CellRow | None],
    leaves: Mapping[str, Leaves],
    noise: Noise,
) -> Elements:
    """The vector of a node whose plan has noise.

    Args:
        leaves: of each tree, rows by cell and leaf (`read_leaves`).
        noise: this node's, for every release (`draw_noise`).

    Raises:
        QueryFailedError: a sum is no integer.
    """
    layout = VectorLayout.of(plan)
    vector: Elements = np.zeros(layout.size, dtype=np.uint64)
    vector[0] = 1
    for number in range(plan.cells):
        vector[layout.cell(number)] = 1
    for release, drawn in noise.items():
        if isinstance(release.of, Moment):
            _put_moment(vector, layout, release.of, _column(cells, statement.moments.index(release.of)), drawn)
        elif isinstance(release.of, FitSum):
            _put_fit(vector, layout, release.of, cells[0], drawn)
        elif not release.level:
            which = statement.locals.index(release.of)
            for number, cell in enumerate(cells):
                count = (cell.locals[which] if cell is not None else 0) + int(drawn[number])
                vector[layout.local(number, release.of)] = to_limbs(count, 1)[0]
        else:
            _put_level(vector, layout, release, leaves[release.of], drawn)
    return vector


def read_leaves(plan: QueryPlan, rows: Sequence[Sequence[Any]]) -> Leaves:
    """The engine's rows of a tree's statement, by cell and leaf.

    Raises:
        QueryFailedError: they are not of the statement.
    """
    found = np.zeros((plan.cells, 2 ** VectorLayout.of(plan).levels), dtype=np.int64)
    for row in rows:
        if len(row) != 3 or not all(isinstance(value, int) for value in row):
            raise QueryFailedError("the engine's answer is not of its statement", code="query-engine")
        cell, leaf, count = row
        if not (0 <= cell < found.shape[0] and 0 <= leaf < found.shape[1] and 0 <= count < 2**39):
            raise QueryFailedError("the engine's answer is not of its statement", code="query-engine")
        found[cell, leaf] = count
    return found


def _column(cells: Sequence[CellRow | None], place: int) -> list[int]:
    found = []
    for cell in cells:
        value = cell.moments[place] if cell is not None else None
        if value is not None and not isinstance(value, int):
            raise QueryFailedError("the engine's answer is not of its statement", code="query-engine")
        found.append(value or 0)
    return found


def _put_moment(
    vector: Elements, layout: VectorLayout, moment: Moment, sums: Sequence[int], drawn: NDArray[np.int64]
) -> None:
    first, last = next((start, stop) for one, start, stop in layout.places(0) if one == moment)
    for number, total in enumerate(sums):
        start, stop = first + number * layout.width, last + number * layout.width
        vector[start:stop] = to_limbs(total + int(drawn[number]), stop - start)


def _put_fit(
    vector: Elements, layout: VectorLayout, part: FitSum, row: CellRow | None, drawn: NDArray[np.int64]
) -> None:
    """One sum of a logistic step; there is one cell."""
    before, size = (0 if part is FitSum.GRADIENT else FitSum.GRADIENT.size(layout.terms)), part.size(layout.terms)
    sums = row.fitted[before : before + size] if row is not None else (0,) * size
    limbs = [
        limb for total, own in zip(sums, drawn, strict=True) for limb in to_limbs(total + int(own), layout.plan.limbs)
    ]
    start, stop = layout.fit(part)
    vector[start:stop] = limbs


def _put_level(
    vector: Elements, layout: VectorLayout, release: Release, leaves: Leaves, drawn: NDArray[np.int64]
) -> None:
    assert isinstance(release.of, str)
    width = 2**release.level
    counts = leaves.reshape(len(leaves), width, -1).sum(axis=2) + drawn.reshape(len(leaves), width)
    counts = np.clip(counts, -_MOST, _MOST)  # as `to_limbs` does: nothing fails by what a row holds
    for number, row in enumerate(counts):
        start = layout.tree(number, release.of)[0] + width - 2
        vector[start : start + width] = np.mod(row, MODULUS).astype(np.uint64)
