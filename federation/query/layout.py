"""Which sums a plan's figures are made of, and where each stands in the vector that is added.

::

    1                               the constant 1 of each node
    for each cell                   1 where the node contributes, then its moments, each in one limb or the plan's
    for each cell and distinct      the slots of occupied values
    for each cell and tree          rows below each node of the tree, level by level, the root left out
    for a step of a logistic fit    the sums of its gradient, then of its curvature, each in the plan's limbs

A *moment* is the sum, over the rows in which all columns of ``over`` have a value, of the product of ``factors``: with no
factor it counts rows. A *tree* halves a column's range again and again, under noise alone. Every figure but distinct counts is a
function of moments and trees.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction
from functools import cached_property
from itertools import combinations_with_replacement

from federation.query.errors import QuerySchemaError
from federation.secagg import OUTCOME_BITS
from federation.statements.query import ORDERED, Measure, QueryPlan

ELEMENT_BITS = 50
ATTEMPTS = 3
"""How often a stage may be tried."""
MOST_ELEMENTS = 2**18
"""Of one node's vector: 32 ciphertexts, 8 MiB."""


NOISED_BITS = 20
"""Of a row's largest value under noise."""


@dataclass(frozen=True)
class Moment:
    """One sum of a cell; see the module."""

    over: tuple[str, ...] = ()
    factors: tuple[str, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is a number of rows."""
        return not self.factors


class FitSum(Enum):
    """What a step of a logistic regression sums, as vectors over all rows (`federation.query.fitting`)."""

    GRADIENT = "gradient"
    CURVATURE = "curvature"

    def size(self, terms: int) -> int:
        """Elements for so many coefficients, the intercept included; of the curvature the upper triangle."""
        return terms if self is FitSum.GRADIENT else terms * (terms + 1) // 2


def beyond(column: str) -> str:
    """What stands for the values of a column that lie outside its bounds: no column's name begins with a quotation mark."""
    return '"' + column


def moments_of(measure: Measure) -> tuple[Moment, ...]:
    """The moments that a figure is made of, in the order in which `federation.query.figures` takes them."""
    over, kind = tuple(sorted(set(measure.columns))), measure.kind
    if kind in ("distinct", "distinct-local", "logistic"):
        return ()
    if kind == "clamped":
        return (Moment((beyond(over[0]),)),)
    if kind == "count" or kind in ORDERED:
        return (Moment(over),)
    if kind in ("sum", "mean"):
        return (Moment(over), Moment(over, measure.columns))
    names = measure.columns
    pairs = [tuple(sorted(pair)) for pair in combinations_with_replacement(names, 2)]
    return (Moment(over), *(Moment(over, (name,)) for name in names), *(Moment(over, pair) for pair in pairs))


@dataclass(frozen=True)
class VectorLayout:
    """Where a plan's sums stand in the vector."""

    plan: QueryPlan
    slots: tuple[int, ...]
    """Of each distinct count, in the order of the measures."""

    @classmethod
    def of(cls, plan: QueryPlan) -> VectorLayout:
        """The layout of a plan.

        Raises:
            QuerySchemaError: the vector would be too large.
        """
        slots = tuple(
            plan.slots if measure.values is None else len(measure.values)
            for measure in plan.measures
            if measure.kind == "distinct"
        )
        layout = cls(plan, slots)
        if layout.size > MOST_ELEMENTS:
            raise QuerySchemaError(
                "the query has {cells} cells with {figures} sums each, more than one answer can hold",
                hint="ask for fewer categories, edges or figures at once",
                code="query-size",
                cells=plan.cells,
                figures=layout.width,
            )
        return layout

    @cached_property
    def moments(self) -> tuple[Moment, ...]:
        """All moments of a cell, each once."""
        found: dict[Moment, None] = {}
        for measure in self.plan.measures:
            found.update(dict.fromkeys(moments_of(measure)))
        return tuple(found)

    @cached_property
    def locals(self) -> tuple[str, ...]:
        """Names of the figures that count a node's own distinct keys; each has one more limb in a cell."""
        return tuple(one.name for one in self.plan.measures if one.kind == "distinct-local")

    @cached_property
    def shared(self) -> tuple[str, ...]:
        """Names of the figures that count distinct keys over all nodes."""
        return tuple(one.name for one in self.plan.measures if one.kind == "distinct")

    @cached_property
    def width(self) -> int:
        """Elements of one cell, slots left out."""
        return 1 + sum(self.limbs(moment) for moment in self.moments) + len(self.locals)

    @property
    def size(self) -> int:
        """Elements of the whole vector."""
        fit = sum(part.size(self.terms) for part in FitSum) * self.plan.limbs
        return 1 + self.plan.cells * (self.width + sum(self.slots) + len(self.trees) * self.tree_size) + fit

    @cached_property
    def terms(self) -> int:
        """Coefficients of the logistic regression, the intercept included; 0 where there is none."""
        return sum(len(one.columns) for one in self.plan.measures if one.kind == "logistic")

    @cached_property
    def trees(self) -> tuple[str, ...]:
        """The columns that a tree is made of, each once."""
        return tuple(dict.fromkeys(one.columns[0] for one in self.plan.measures if one.kind in ORDERED))

    @property
    def levels(self) -> int:
        """Depth of each tree."""
        return self.plan.noise.levels if self.plan.noise is not None else 0

    @property
    def tree_size(self) -> int:
        """Elements of one tree: its levels have 2, 4, 8, ... nodes."""
        return (2 << self.levels) - 2

    def limbs(self, moment: Moment) -> int:
        """Elements that a moment takes."""
        return 1 if moment.counts else self.plan.limbs

    def bits(self, moment: Moment) -> int:
        """Fraction bits of a moment."""
        if self.plan.noise is not None:
            return noised_bits(self.plan, moment)
        return max((self.plan.used(name).fraction_bits for name in moment.factors), default=0)

    def cell(self, number: int) -> int:
        """Where a cell begins."""
        return 1 + number * self.width

    def places(self, number: int) -> Iterator[tuple[Moment, int, int]]:
        """Each moment of a cell with the beginning and the end of its limbs."""
        at = self.cell(number) + 1
        for moment in self.moments:
            yield moment, at, at + self.limbs(moment)
            at += self.limbs(moment)

    def local(self, number: int, name: str) -> int:
        """Where a cell's own distinct count stands."""
        return self.cell(number) + self.width - len(self.locals) + self.locals.index(name)

    def slots_of(self, number: int, name: str) -> tuple[int, int]:
        """Beginning and end of the slots of a cell's distinct count."""
        which = self.shared.index(name)
        start = 1 + self.plan.cells * self.width + number * sum(self.slots) + sum(self.slots[:which])
        return start, start + self.slots[which]

    def tree(self, number: int, column: str) -> tuple[int, int]:
        """Beginning and end of a cell's tree."""
        before = 1 + self.plan.cells * (self.width + sum(self.slots))
        start = before + (number * len(self.trees) + self.trees.index(column)) * self.tree_size
        return start, start + self.tree_size

    def fit(self, part: FitSum) -> tuple[int, int]:
        """Beginning and end of one of a step's sums, limbs of an element one after another."""
        stop = self.size
        for one in reversed(FitSum):
            start = stop - one.size(self.terms) * self.plan.limbs
            if one is part:
                return start, stop
            stop = start
        raise KeyError(part)


def reach_of(plan: QueryPlan, moment: Moment) -> Fraction:
    """The largest absolute value that one row adds to a moment under noise, in its own units.

    Raises:
        QuerySchemaError: the plan has no range for one of its columns.
    """
    reach = Fraction(1)
    for name in moment.factors:
        low, high = range_of(plan, name)
        shift = Fraction(plan.used(name).shift)
        reach *= max(abs(low - shift), abs(high - shift))
    return reach


def range_of(plan: QueryPlan, column: str) -> tuple[Fraction, Fraction]:
    """What a column's values are clamped to under noise; raises QuerySchemaError where the plan does not say."""
    for one in plan.noise.bounds if plan.noise is not None else ():
        if one.name == column and Fraction(one.minimum) < Fraction(one.maximum):
            return Fraction(one.minimum), Fraction(one.maximum)
    raise QuerySchemaError(
        "noise needs the range of {column}, and none is declared",
        hint="its owner declares bounds when it registers the data (--column name:number=0..60)",
        code="query-bounds",
        column=column,
    )


def noised_bits(plan: QueryPlan, moment: Moment) -> int:
    """Fraction bits of a moment under noise: a row's largest value takes about 20 bits, finer than any noise; whole numbers
    take none."""
    if not moment.factors or all(
        plan.used(name).fraction_bits == 0 and "." not in plan.used(name).shift for name in moment.factors
    ):
        return 0
    reach = reach_of(plan, moment)
    whole = math.ceil(reach)
    size = (whole - 1).bit_length() if reach >= 1 else -(math.floor(1 / reach).bit_length() - 1) if reach else 0
    return min(max(NOISED_BITS - size, 0), 30)


def stage_bits(plan: QueryPlan, stage: str) -> int:
    """Bits of what leaves a node in one stage: each element could carry a number modulo t, and the outcome comes on top."""
    elements = 2 * (plan.cells + 1) if stage == "flags" else VectorLayout.of(plan).size
    return ELEMENT_BITS * elements


def query_bits(plan: QueryPlan) -> int:
    """Bits that a query carries out of a node at most, every try of its two stages counted."""
    return stage_bits(plan, "flags") + stage_bits(plan, "cells") + 2 * ATTEMPTS * OUTCOME_BITS
