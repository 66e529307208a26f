"""Which cells a node contributes to, and which cells the nodes open together.

Within a node (defaults after ACRO and DataSHIELD; a plan may be stricter, never weaker): at least ten distinct subjects
behind every figure, the two largest subjects hold at most nine tenths of a measured total, all others together at least a
tenth of the largest, a total of zeros is not shown, a regression has at most a third as many parameters as rows. What is
left out must not follow from what is shown: one cell alone is never left out.

Between nodes: a cell opens where enough of them contribute. Dominance of one company over others is not seen by anybody.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from federation.statements.query import QueryPlan, Rules


@dataclass(frozen=True)
class Total:
    """What the dominance rules look at: absolute values of one column in a cell, by subject."""

    all: Fraction
    largest: Fraction
    second: Fraction


@dataclass(frozen=True)
class CellEvidence:
    """What a node knows of its part of a cell."""

    subjects: int
    """The fewest behind any of the figures."""
    rows: int
    """The fewest that any regression rests on; all of them where there is none."""
    totals: tuple[Total, ...]


def contributes(plan: QueryPlan, cells: Sequence[CellEvidence | None]) -> list[bool]:
    """Of each cell, whether this node contributes to it; None is a cell without rows. Under noise to all of them: what is shown
    would say something of the rows that no noise hides."""
    if plan.noise is not None:
        return [True] * len(cells)
    kept = [cell is not None and is_safe(plan, cell) for cell in cells]
    left = [at for at, cell in enumerate(cells) if cell is not None and not kept[at]]
    while left and (len(left) == 1 or sum(_subjects(cells[at]) for at in left) < plan.rules.subjects):
        shown = [at for at, keep in enumerate(kept) if keep]
        if not shown:
            break
        least = min(shown, key=lambda at: (_subjects(cells[at]), at))
        kept[least] = False
        left.append(least)
    return kept


def is_safe(plan: QueryPlan, cell: CellEvidence) -> bool:
    """Whether one cell alone may be contributed to."""
    return _is_large(plan, cell) and all(not_dominated(plan.rules, total) for total in cell.totals)


def _is_large(plan: QueryPlan, cell: CellEvidence) -> bool:
    parameters = max((len(one.columns) for one in plan.measures if one.kind == "regression"), default=0)
    if parameters and parameters > Fraction(plan.rules.parameters) * cell.rows:
        return False
    return cell.subjects >= plan.rules.subjects


def is_undecided(plan: QueryPlan, cells: Sequence[CellEvidence | None]) -> bool:
    """Whether a cell seems dominated by evidence in which the largest subject stands for the second, too: it may not be."""
    large = (cell for cell in cells if cell is not None and _is_large(plan, cell))
    return any(not not_dominated(plan.rules, total) for cell in large for total in cell.totals)


def not_dominated(rules: Rules, total: Total) -> bool:
    """Whether the two largest subjects of a total do not stand out."""
    if total.all == 0:
        return False
    others = total.all - total.largest - total.second
    return (
        total.largest + total.second <= Fraction(rules.dominance) * total.all
        and others >= Fraction(rules.p_ratio) * total.largest
    )


def opened(counts: Sequence[int], least: int) -> list[bool]:
    """Of each cell, whether the nodes open it: the same for all that were shown the same counts.

    Where one contributed cell alone stayed closed, a total would give it away; then the open cell with the fewest
    contributors stays closed with it.
    """
    shown = [count >= least for count in counts]
    closed = [at for at, count in enumerate(counts) if count and not shown[at]]
    if len(closed) == 1 and any(shown):
        fewest = min((at for at, keep in enumerate(shown) if keep), key=lambda at: (counts[at], at))
        shown[fewest] = False
    return shown


def _subjects(cell: CellEvidence | None) -> int:
    return cell.subjects if cell is not None else 0
