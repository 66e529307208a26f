"""From SQL to the structured plan, once, at the asker's; whatever is not understood in full is refused with its place.

The text is parsed (sqlglot, DuckDB's dialect), walked, and forgotten: the plan is built from the parts that are known here,
so nothing that is overlooked can reach a node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from sqlglot import exp

from federation.query._conditions import read_condition
from federation.query._text import ANSWERED, DIALECT, QueryText
from federation.query.errors import HintNotice
from federation.query.schema import NUMBERS
from federation.statements import Column
from federation.statements.query import (
    MOST_CELLS,
    MOST_STEPS,
    Axis,
    Bins,
    Categories,
    Condition,
    FitStep,
    Measure,
    MeasureKind,
)

STEPS, LEAST_STEPS = 8, 3
"""Of a logistic regression that does not say how many, and at least."""
_FIGURES: dict[type[exp.Expression], tuple[MeasureKind, bool]] = {
    exp.Sum: ("sum", False),
    exp.Avg: ("mean", False),
    exp.Variance: ("variance", False),
    exp.VariancePop: ("variance", True),
    exp.Stddev: ("deviation", False),
    exp.StddevSamp: ("deviation", False),
    exp.StddevPop: ("deviation", True),
    exp.Corr: ("correlation", False),
    exp.CovarSamp: ("covariance", False),
    exp.CovarPop: ("covariance", True),
}
_NAMED: dict[str, tuple[MeasureKind, bool]] = {
    "LINREG": ("regression", False),
    "LOGREG": ("logistic", False),
    "LOCAL_DISTINCT": ("distinct-local", False),
    "CLAMPED": ("clamped", False),
    "VAR_SAMP": ("variance", False),
    "VAR_POP": ("variance", True),
    "COVAR_SAMP": ("covariance", False),
}
_ORDERED = (
    exp.Min, exp.Max, exp.Median, exp.Quantile, exp.ApproxQuantile, exp.PercentileCont, exp.PercentileDisc,
)  # fmt: skip
_CLAUSES = ("expressions", "from", "from_", "where", "group", "kind")
"""Parts of a SELECT that are looked at; any other that is there is refused."""


@dataclass(frozen=True)
class Question:
    """What a text asks, before it is known of whom.

    Attributes:
        table: as the text names it.
        shown: the columns of the table that is printed, in order: names of axes' columns and of figures.
    """

    table: str
    axes: tuple[Axis, ...]
    measures: tuple[Measure, ...]
    where: Condition | None
    shown: tuple[tuple[str, str], ...]
    """For each: ``axis`` or ``figure`` and its name; an axis by its column, what it is called where it is renamed."""


def parse_question(text: str, columns: Mapping[str, Column], *, private: bool = False) -> Question:
    """Read one SELECT.

    Args:
        text: the SQL.
        columns: that all datasets have in common, by name.
        private: whether noise will be added, without which quantiles, least and largest values are not answered.

    Raises:
        QueryTextError: what is wrong, or not answered, and where.
    """
    return _Reader(text, columns, private).read()


def table_of(text: str) -> str:
    """The dataset that a text names after FROM; raises QueryTextError where it is no single SELECT."""
    reader = _Reader(text, {})
    return reader.table()


class _Reader:
    def __init__(self, text: str, columns: Mapping[str, Column], private: bool = False) -> None:
        self._text = QueryText(text, columns)
        self._noised = private

    def read(self) -> Question:
        select = self._text.parse()
        for name, value in select.args.items():
            if value and name not in _CLAUSES:
                node = value[0] if isinstance(value, list) else value
                self._text.refuse(node if isinstance(node, exp.Expression) else select, name.upper().rstrip("_"))
        if select.args.get("kind"):
            self._text.refuse(select, "SELECT AS")
        table = self._table(select)
        groups = self._groups(select)
        axes: list[Axis] = []
        measures: list[Measure] = []
        shown: list[tuple[str, str]] = []
        for item in select.expressions:
            node, alias = (item.this, item.alias) if isinstance(item, exp.Alias) else (item, "")
            if isinstance(node, exp.Column):
                name = self._text.column(node)
                if name not in groups:
                    self._text.refuse(
                        node, name, hint=HintNotice("a column stands alone only where the query groups by it")
                    )
                shown.append(("axis", name))
                continue
            if isinstance(node, exp.Anonymous) and str(node.this).upper() in ("HISTOGRAM", "BIN"):
                axis = self._bins(node)
                axes.append(axis)
                shown.append(("axis", axis.column))
                continue
            measure = self._measure(node, alias)
            if measure.name in {one.name for one in measures}:
                self._text.refuse(node, measure.name, hint=HintNotice("give two figures two names (AS)"))
            measures.append(measure)
            shown.append(("figure", measure.name))
        binned = {axis.column for axis in axes}
        axes = [*(self._categories(name, node) for name, node in groups.items() if name not in binned), *axes]
        if not measures and axes:
            measures.append(Measure(kind="count", name="count"))
            shown.append(("figure", "count"))
        if any(one.kind == "logistic" for one in measures) and (len(measures) > 1 or axes):
            self._text.refuse(
                select, "LOGREG", hint=HintNotice("a logistic regression is asked alone, of all rows that WHERE leaves")
            )
        if not measures:
            self._text.refuse(
                select, "SELECT", hint=HintNotice("ask for a figure: COUNT(*), SUM, AVG, STDDEV, CORR, LINREG, ...")
            )
        named = {name for kind, name in shown if kind == "axis"}
        shown = [*(("axis", axis.column) for axis in axes if axis.column not in named), *shown]
        cells = 1
        for one in axes:
            cells *= one.size
        if cells > MOST_CELLS:
            self._text.refuse(select, f"{cells} cells", hint=HintNotice("a table has at most 4096 cells"))
        where = select.args.get("where")
        condition = read_condition(self._text, where.this) if where is not None else None
        return Question(table, tuple(axes), tuple(measures), condition, tuple(shown))

    def table(self) -> str:
        """The dataset's name."""
        return self._table(self._text.parse(loosely=True))

    # -- parts --------------------------------------------------------------------------------------------------------

    def _table(self, select: exp.Select) -> str:
        source = select.args.get("from_") or select.args.get("from")
        if source is None:
            self._text.refuse(select, "SELECT", hint=HintNotice("name the dataset: FROM passes"))
        table = source.this
        if not isinstance(table, exp.Table) or not isinstance(table.this, exp.Identifier):
            self._text.refuse(source, "FROM", hint=HintNotice("FROM takes one dataset's name"))
        extra = [name for name, value in table.args.items() if value and name not in ("this", "alias")]
        if extra:
            self._text.refuse(table, ", ".join(extra).upper())
        return str(table.this.this)

    def _groups(self, select: exp.Select) -> dict[str, exp.Expression]:
        group = select.args.get("group")
        if group is None:
            return {}
        extra = [name for name, value in group.args.items() if value and name != "expressions"]
        if extra:
            self._text.refuse(group, ", ".join(extra).upper())
        found: dict[str, exp.Expression] = {}
        for node in group.expressions:
            if isinstance(node, exp.Anonymous) and str(node.this).upper() in ("HISTOGRAM", "BIN"):
                continue  # it stands in the SELECT, too
            if not isinstance(node, exp.Column):
                self._text.refuse(
                    node, node.sql(DIALECT), hint=HintNotice("GROUP BY takes columns with declared categories")
                )
            found[self._text.column(node)] = node
        return found

    def _categories(self, name: str, node: exp.Expression) -> Categories:
        column = self._text.columns[name]
        values = ("false", "true") if column.type == "boolean" else column.categories
        if not values:
            self._text.refuse(
                node,
                f"GROUP BY {name}",
                hint=HintNotice(
                    "no categories are declared for this column; numbers are grouped with HISTOGRAM(column, edge, edge, ...)"
                ),
            )
        return Categories(column=name, values=tuple(values))

    def _bins(self, node: exp.Anonymous) -> Bins:
        if len(node.expressions) < 3 or not isinstance(node.expressions[0], exp.Column):
            self._text.refuse(node, "HISTOGRAM", hint=HintNotice("write HISTOGRAM(column, edge, edge, ...)"))
        name = self._text.column(node.expressions[0])
        edges = tuple(self._text.number(one) for one in node.expressions[1:])
        if self._text.columns[name].type not in NUMBERS or [Decimal(e) for e in edges] != sorted(
            {Decimal(e) for e in edges}
        ):
            self._text.refuse(
                node, "HISTOGRAM", hint=HintNotice("a histogram takes a column of numbers and edges that rise")
            )
        if len(edges) > 1001:
            self._text.refuse(node, "HISTOGRAM", hint=HintNotice("a histogram takes at most 1,001 edges"))
        return Bins(column=name, edges=edges)

    def _measure(self, node: exp.Expression, alias: str) -> Measure:
        name = alias or node.sql(DIALECT).replace('"', "").lower()
        if isinstance(node, _ORDERED):
            return self._ordered(node, name)
        if isinstance(node, exp.Count):
            return self._count(node, name)
        called = str(node.this).upper() if isinstance(node, exp.Anonymous) else ""
        if called in _NAMED:
            kind, population = _NAMED[called]
            arguments = node.expressions
        elif type(node) in _FIGURES:
            kind, population = _FIGURES[type(node)]
            arguments = [node.this, node.args["expression"]] if node.args.get("expression") else [node.this]
        else:
            self._text.refuse(node, node.sql(DIALECT)[:60], hint=ANSWERED)
        if isinstance(node, exp.Func) and any(isinstance(one, exp.Distinct) for one in arguments):
            self._text.refuse(node, "DISTINCT", hint=HintNotice("COUNT(DISTINCT column) alone takes it"))
        fit = None
        if kind == "logistic":
            if not self._noised:
                self._text.refuse_unnoised(node)
            fit, arguments = self._fit(arguments)
        columns = tuple(self._text.column(one) for one in arguments)
        least, most = (
            (2, 9)
            if kind in ("regression", "logistic")
            else (2, 2)
            if kind in ("correlation", "covariance")
            else (1, 1)
        )
        if not least <= len(columns) <= most or len(set(columns)) != len(columns):
            self._text.refuse(node, node.sql(DIALECT)[:60], hint=ANSWERED)
        for at, column in enumerate(columns):
            explained = kind == "logistic" and at == 0 and self._text.columns[column].type == "boolean"
            if kind != "distinct-local" and not explained and self._text.columns[column].type not in NUMBERS:
                self._text.refuse(node, f"{column}", hint=HintNotice("this figure takes columns of numbers"))
        if fit is not None:
            fit = fit.model_copy(update={"at": ("0",) * len(columns)})
        return Measure(kind=kind, name=name, columns=columns, population=population, fit=fit)

    def _fit(self, arguments: list[exp.Expression]) -> tuple[FitStep, list[exp.Expression]]:
        """The first step of a logistic regression, and its columns; how many steps may be the last argument."""
        steps, columns = str(STEPS), arguments
        if arguments and isinstance(arguments[-1], exp.Literal | exp.Neg):
            steps, columns = self._text.number(arguments[-1]), arguments[:-1]
        if not steps.isdigit() or not LEAST_STEPS <= int(steps) <= MOST_STEPS:
            self._text.refuse(
                arguments[-1], f"LOGREG(..., {steps})", hint=HintNotice("a logistic regression takes 3 to 25 steps")
            )
        return FitStep(step=1, steps=int(steps), at=("0",)), columns

    def _ordered(self, node: exp.Expression, name: str) -> Measure:
        if not self._noised:
            self._text.refuse_unnoised(node)
        if len([one for one in node.args.values() if one]) > (
            1 if isinstance(node, exp.Min | exp.Max | exp.Median) else 2
        ):
            self._text.refuse(node, node.sql(DIALECT)[:60], hint=ANSWERED)
        column = self._text.column(node.this)
        if self._text.columns[column].type not in NUMBERS:
            self._text.refuse(node, f"{column}", hint=HintNotice("this figure takes columns of numbers"))
        if isinstance(node, exp.Min | exp.Max):
            return Measure(kind="minimum" if isinstance(node, exp.Min) else "maximum", name=name, columns=(column,))
        share = "0.5"
        if not isinstance(node, exp.Median):
            given = node.args.get("quantile") or node.args.get("expression")
            share = self._text.number(given) if given is not None else ""
            if not share or not 0 < Decimal(share) < 1:
                self._text.refuse(
                    node,
                    node.sql(DIALECT)[:60],
                    hint=HintNotice("a quantile lies between 0 and 1: QUANTILE_CONT(x, 0.9)"),
                )
        return Measure(kind="quantile", name=name, columns=(column,), at=share)

    def _count(self, node: exp.Count, name: str) -> Measure:
        inner = node.this
        if inner is None or isinstance(inner, exp.Star):
            return Measure(kind="count", name="count" if name == "count(*)" else name)
        if isinstance(inner, exp.Distinct):
            if len(inner.expressions) != 1:
                self._text.refuse(node, "COUNT(DISTINCT ...)", hint=HintNotice("it takes one column"))
            return Measure(kind="distinct", name=name, columns=(self._text.column(inner.expressions[0]),))
        return Measure(kind="count", name=name, columns=(self._text.column(inner),))


def common_columns(datasets: Sequence[Sequence[Column]]) -> dict[str, Column]:
    """The columns that all of some datasets have, as a question may use them: categories of all, the widest of types and
    bounds."""
    found: dict[str, Column] = {}
    for column in datasets[0]:
        others = [next((one for one in columns if one.name == column.name), None) for columns in datasets]
        if any(one is None for one in others):
            continue
        same = [one for one in others if one is not None]
        types = {one.type for one in same}
        if len(types) > 1 and not types <= set(NUMBERS):
            continue
        declared = all(one.categories for one in same)  # one that declares none can be grouped by none
        categories = tuple(dict.fromkeys(value for one in same for value in one.categories if declared))
        bounded = all(one.minimum is not None and one.maximum is not None for one in same)
        found[column.name] = column.model_copy(
            update={
                "type": "integer" if types == {"integer"} else "number" if len(types) > 1 else column.type,
                "categories": categories,
                "minimum": min((str(one.minimum) for one in same), key=Decimal) if bounded else None,
                "maximum": max((str(one.maximum) for one in same), key=Decimal) if bounded else None,
            }
        )
    return found
