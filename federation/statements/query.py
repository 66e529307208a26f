"""The structured aggregate plan of a query: what is signed and sent, and all that a node knows of the question.

No text that anybody wrote as SQL is in it: a node checks these parts against its schema and makes its own statements of
them. The meaning of each part, and what it is checked against, is in ``federation.query``.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, StringConstraints, model_serializer, model_validator

from federation.statements._base import Decimal, Digest, Part

MOST_CELLS = 4096
"""Cells of one table."""
MOST_MEASURES = 32
MOST_TERMS = 100
"""Conditions that one level of a WHERE joins."""
DEPTH = 8
"""Levels of a WHERE."""

ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f\"]+$")]
ValueText = Annotated[str, StringConstraints(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
ValueType = Literal["number", "text", "boolean", "timestamp", "date"]
Comparator = Literal["=", "<>", "<", "<=", ">", ">="]
MeasureKind = Literal[
    "count",
    "sum",
    "mean",
    "variance",
    "deviation",
    "covariance",
    "correlation",
    "regression",
    "logistic",
    "distinct",
    "distinct-local",
    "clamped",
    "quantile",
    "minimum",
    "maximum",
]
ORDERED = ("quantile", "minimum", "maximum")
"""Figures that are read off a tree of counts, under noise alone."""
MOST_LEVELS = 12
MOST_STEPS = 25
"""Of one logistic regression."""


class Value(Part):
    """A constant; never a float, for it is hashed."""

    type: ValueType
    text: ValueText


class Compare(Part):
    """A column against a constant."""

    kind: Literal["compare"] = "compare"
    column: ColumnName
    op: Comparator
    value: Value


class Among(Part):
    """A column's value is one of these."""

    kind: Literal["among"] = "among"
    column: ColumnName
    values: Annotated[tuple[Value, ...], Field(min_length=1, max_length=MOST_TERMS)]


class Empty(Part):
    """A column has no value."""

    kind: Literal["empty"] = "empty"
    column: ColumnName


class Not(Part):
    """The opposite of a condition, as SQL has it: unknown stays unknown."""

    kind: Literal["not"] = "not"
    term: Condition


class Join(Part):
    """All of these conditions, or any of them."""

    kind: Literal["all", "any"]
    terms: Annotated[tuple[Condition, ...], Field(min_length=2, max_length=MOST_TERMS)]


Condition = Annotated[Compare | Among | Empty | Not | Join, Field(discriminator="kind")]


class Categories(Part):
    """One axis of the table: a column's declared categories, each a cell."""

    kind: Literal["categories"] = "categories"
    column: ColumnName
    values: Annotated[tuple[ValueText, ...], Field(min_length=1, max_length=MOST_CELLS)]

    @property
    def size(self) -> int:
        """How many cells it has."""
        return len(self.values)


class Bins(Part):
    """One axis of the table: a column's values between neighbouring edges, the upper one left out but for the last."""

    kind: Literal["bins"] = "bins"
    column: ColumnName
    edges: Annotated[tuple[Decimal, ...], Field(min_length=2, max_length=1001)]

    @property
    def size(self) -> int:
        """How many cells it has."""
        return len(self.edges) - 1


Axis = Annotated[Categories | Bins, Field(discriminator="kind")]


class FitStep(Part):
    """One step of a logistic regression: which of how many, and the coefficients at which its sums are taken."""

    step: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    at: Annotated[tuple[Decimal, ...], Field(min_length=1, max_length=9)]
    """Of scaled values (``federation.query.fitting``), the intercept first; what earlier steps' noisy sums led to."""

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.step > self.steps:
            raise ValueError("a step comes after the last")
        return self


class Measure(Part):
    """One figure of each cell."""

    kind: MeasureKind
    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
    columns: Annotated[tuple[ColumnName, ...], Field(max_length=17)] = ()
    """None: rows are counted. Of a regression, linear or logistic, the first is what is explained."""
    population: bool = False
    """Of variance, deviation and covariance: divided by n instead of n - 1."""
    at: Decimal | None = None
    """Of a quantile: the share of rows below it."""
    values: Annotated[tuple[ValueText, ...], Field(max_length=MOST_CELLS)] | None = None
    """Of distinct values that are declared: all that count, so that they are counted exactly; else None."""
    fit: FitStep | None = None
    """Of a logistic regression: the step."""

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(_without(_without(dump(self), "at"), "values"), "fit")


class UsedColumn(Part):
    """How the values of a measured column are encoded."""

    name: ColumnName
    fraction_bits: Annotated[int, Field(ge=0, le=30)]
    shift: Decimal = "0"
    """Taken off each value before it is multiplied, so that sums of squares stay small; put back by who asks."""


class Rules(Part):
    """Disclosure rules of a query; a node applies the stricter of these and its own."""

    contributors: Annotated[int, Field(ge=3, le=500)] = 3
    """Fewest nodes of distinct companies in a cell, those of the asker and the coordinator not counted."""
    subjects: Annotated[int, Field(ge=1, le=10**9)] = 10
    """Fewest distinct subjects of a node in a cell."""
    dominance: Decimal = "0.9"
    """Largest share of a cell's total that its two largest subjects may have together."""
    p_ratio: Decimal = "0.1"
    """Least ratio of what others than the two largest subjects hold to what the largest holds."""
    parameters: Decimal = "0.33"
    """Largest ratio of a regression's parameters to a node's rows."""
    rounding: Annotated[int, Field(ge=1, le=10**6)] | None = None
    """Each node's counts of rows are rounded to multiples of it."""

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "rounding")


class Bounded(Part):
    """The range that a measured column's values are clamped to before noise hides them."""

    name: ColumnName
    minimum: Decimal
    maximum: Decimal


class QueryNoise(Part):
    """Noise that every node adds to its sums; how much follows from this and from the figures (``federation.query.noising``)."""

    unit_rows: Annotated[int, Field(ge=1, le=1_000_000)]
    """Most rows of one privacy unit, at any of the nodes."""
    micro_rho: Annotated[int, Field(ge=1, le=2**40)]
    """What each of the query's releases costs: each moment of the figures, each level of a tree."""
    bounds: Annotated[tuple[Bounded, ...], Field(max_length=64)] = ()
    levels: Annotated[int, Field(ge=0, le=MOST_LEVELS)] = 0
    """Depth of the trees that quantiles are read off; 0 without any."""


class QueryPlan(Part):
    """What is asked, in full. Figures of cells, in the order of `measures`; cells, the last axis running fastest."""

    axes: Annotated[tuple[Axis, ...], Field(max_length=4)] = ()
    measures: Annotated[tuple[Measure, ...], Field(min_length=1, max_length=MOST_MEASURES)]
    where: Condition | None = None
    columns: Annotated[tuple[UsedColumn, ...], Field(max_length=64)] = ()
    limbs: Annotated[int, Field(ge=1, le=3)] = 3
    """Of 40 bits each, that a sum is cut into."""
    slots: Annotated[int, Field(ge=0, le=65536)] = 0
    """Of a hash table, where distinct values that are not enumerated are counted."""
    rules: Rules = Rules()
    context: Digest
    """Of the public encryption context that answers are encrypted under."""
    noise: QueryNoise | None = None
    """Left out of the payload where there is none, as plans from before it were signed."""

    @model_serializer(mode="wrap")
    def _without_none(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return _without(dump(self), "noise")

    @model_validator(mode="after")
    def _sound(self) -> Self:
        if self.cells > MOST_CELLS:
            raise ValueError(f"a table has at most {MOST_CELLS} cells")
        if len({axis.column for axis in self.axes}) != len(self.axes):
            raise ValueError("a column is the axis of a table twice")
        for axis in self.axes:
            values = axis.values if isinstance(axis, Categories) else axis.edges
            if len(set(values)) != len(values):
                raise ValueError("an axis names one value twice")
        if len({measure.name for measure in self.measures}) != len(self.measures):
            raise ValueError("two figures share a name")
        if self.where is not None and _depth(self.where) > DEPTH:
            raise ValueError(f"a condition has more than {DEPTH} levels")
        return self

    @property
    def cells(self) -> int:
        """How many cells the table has; 1 without axes."""
        product = 1
        for axis in self.axes:
            product *= axis.size
        return product

    def used(self, name: str) -> UsedColumn:
        """How a measured column is encoded; raises KeyError where it is not."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


def _without(fields: dict[str, Any], name: str) -> dict[str, Any]:
    if fields.get(name) is None:
        fields.pop(name, None)
    return fields


def _depth(condition: Compare | Among | Empty | Not | Join) -> int:
    if isinstance(condition, Not):
        return 1 + _depth(condition.term)
    if isinstance(condition, Join):
        return 1 + max(_depth(term) for term in condition.terms)
    return 1


Not.model_rebuild()
Join.model_rebuild()
