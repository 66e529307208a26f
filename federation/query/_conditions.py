"""WHERE: comparisons of columns with constants, and what joins them, as the structured plan has them."""

from __future__ import annotations

from collections.abc import Iterator

from sqlglot import exp

from federation.query._text import DIALECT, QueryText
from federation.query.errors import HintNotice
from federation.query.schema import NUMBERS, well_formed
from federation.statements.query import Among, Comparator, Compare, Condition, Empty, Join, Not, Value

_COMPARISONS: dict[type[exp.Expression], Comparator] = {
    exp.EQ: "=",
    exp.NEQ: "<>",
    exp.LT: "<",
    exp.LTE: "<=",
    exp.GT: ">",
    exp.GTE: ">=",
}
_MIRRORED: dict[Comparator, Comparator] = {"=": "=", "<>": "<>", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
_CONDITIONS = HintNotice("WHERE takes comparisons of columns with constants, BETWEEN, IN, IS NULL, AND, OR, NOT")


def read_condition(text: QueryText, node: exp.Expression) -> Condition:
    """Return what a part of WHERE says; raises QueryTextError where it is not answered."""
    if isinstance(node, exp.Paren):
        return read_condition(text, node.this)
    if isinstance(node, exp.And | exp.Or):
        kind = type(node)
        terms = tuple(read_condition(text, one) for one in _flat(node, kind))
        return Join(kind="all" if kind is exp.And else "any", terms=terms)
    if isinstance(node, exp.Not):
        return Not(term=read_condition(text, node.this))
    if isinstance(node, exp.Between):
        column = text.column(node.this)
        low, high = (_value(text, column, node.args[name]) for name in ("low", "high"))
        terms = (Compare(column=column, op=">=", value=low), Compare(column=column, op="<=", value=high))
        return Join(kind="all", terms=terms)
    if isinstance(node, exp.In) and node.expressions and not node.args.get("query"):
        column = text.column(node.this)
        return Among(column=column, values=tuple(_value(text, column, one) for one in node.expressions))
    if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
        return Empty(column=text.column(node.this))
    if type(node) in _COMPARISONS:
        op = _COMPARISONS[type(node)]
        left, right = node.this, node.expression
        if not isinstance(left, exp.Column) and isinstance(right, exp.Column):
            left, right, op = right, left, _MIRRORED[op]
        column = text.column(left)
        if op not in ("=", "<>") and text.columns[column].type in ("text", "boolean"):
            text.refuse(node, node.sql(DIALECT)[:60], hint=HintNotice("texts are compared with =, <> and IN"))
        return Compare(column=column, op=op, value=_value(text, column, right))
    if isinstance(node, exp.Column) and text.columns[text.column(node)].type == "boolean":
        return Compare(column=text.column(node), op="=", value=Value(type="boolean", text="true"))
    text.refuse(
        node,
        node.sql(DIALECT)[:60],
        hint=_CONDITIONS,
    )


def _value(text: QueryText, column: str, node: exp.Expression) -> Value:
    kind = text.columns[column].type
    if kind in NUMBERS:
        return Value(type="number", text=text.number(node))
    if isinstance(node, exp.Cast) and isinstance(node.this, exp.Literal):
        node = node.this
    if kind == "boolean" and isinstance(node, exp.Boolean):
        return Value(type="boolean", text="true" if node.this else "false")
    if isinstance(node, exp.Literal) and node.is_string and kind != "boolean":
        given = str(node.this)
        if kind == "timestamp" and len(given) == 10:
            given += " 00:00:00"
        given = given.replace("T", " ") if kind == "timestamp" else given
        value = Value(type=kind, text=given) if len(given) <= 200 and given.isprintable() else None  # type: ignore[arg-type]
        if value is not None and well_formed(value):
            return value
    text.refuse(node, node.sql(DIALECT)[:60], hint=HintNotice("the column {named} is {type}"), named=column, type=kind)


def _flat(node: exp.Expression, kind: type[exp.Expression]) -> Iterator[exp.Expression]:
    for part in (node.this, node.expression):
        if isinstance(part, kind):
            yield from _flat(part, kind)
        else:
            yield part
