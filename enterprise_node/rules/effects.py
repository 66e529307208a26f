"""What rules do to a schema: the columns as they are published, or why a rule does not fit one."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

from enterprise_node.rules.model import (
    TIME_PARTS,
    Bucket,
    Codes,
    Drop,
    Pseudonym,
    Round,
    Rule,
    Rules,
    RulesError,
    Shift,
)
from enterprise_node.rules.words import describe_rule

if TYPE_CHECKING:
    from federation.statements import Column

_NUMERIC: Final = ("integer", "number")
_DATED: Final = ("date", "timestamp")


def after(columns: Sequence[Column], rules: Rules) -> tuple[Column, ...]:
    """The columns as jobs see them and the catalog shows them; the rules fit (`check_fit`).

    Raises:
        RulesError: no column is left.
    """
    shown = []
    for column in columns:
        rule = rules.column(column.name)
        if rule is None:
            shown.append(column)
        elif not isinstance(rule, Drop):
            shown.append(column.model_copy(update=_changes(column, rule)))
    if not shown:
        raise RulesError("the rules leave no column that a job could see")
    return tuple(shown)


def check_fit(columns: Sequence[Column], rules: Rules) -> None:
    """Raise unless every rule names a column of a type that it can be applied to.

    Raises:
        RulesError: naming rule and column.
    """
    types = {column.name: column.type for column in columns}
    for name, rule in rules.columns.items():
        if name not in types:
            raise RulesError(
                "the rules name a column {name} that the dataset does not have",
                hint="it has: {known}",
                name=name,
                known=", ".join(types)[:400],
            )
        if isinstance(rule, Shift) and rule.unit and rule.unit not in types:
            raise RulesError("column {name}: there is no column {unit} to shift by", name=name, unit=rule.unit)
        wanted = _wanted(rule)
        if wanted and types[name] not in wanted:
            raise RulesError(
                "column {name} is of type {type}, and the rule {rule} is for {wanted}",
                hint="choose another rule, or declare the column's type with --column",
                name=name,
                type=types[name],
                rule=rule.NAME,
                wanted=", ".join(wanted),
            )


def _wanted(rule: Rule) -> tuple[str, ...]:
    """The types a rule can be applied to; empty for any."""
    match rule:
        case Round(to="") | Bucket():
            return _NUMERIC
        case Round(to=part) if part in TIME_PARTS:
            return ("timestamp",)
        case Round() | Shift():
            return _DATED
    return ()


def _changes(column: Column, rule: Rule) -> dict[str, Any]:
    """What of a column's published description a rule changes."""
    said = {} if column.description else {"description": describe_rule(rule, "en")}
    whole = column.type == "integer" and result_type(column.type, rule) == "integer"
    kind = result_type(column.type, rule)
    match rule:
        case Pseudonym() | Codes():
            return {**said, "type": kind, "unit": "", "minimum": None, "maximum": None, "categories": ()}
        case Bucket(edges=edges) if edges:
            labels = tuple(label for label, _ in intervals(edges))
            return {**said, "type": kind, "minimum": None, "maximum": None, "categories": labels}
        case Round(step=step) if step:
            bounds = {key: _moved(getattr(column, key), step, ROUND_HALF_UP, whole) for key in ("minimum", "maximum")}
            return {**said, **bounds, "type": kind, "categories": ()}
        case Bucket(width=width):
            bounds = {key: _moved(getattr(column, key), width, ROUND_FLOOR, whole) for key in ("minimum", "maximum")}
            return {**said, **bounds, "type": kind, "categories": ()}
    return said


def result_type(kind: str, rule: Rule | None) -> str:
    """The type of a column's values after its rule."""
    match rule:
        case Pseudonym() | Codes():
            return "text"
        case Bucket(edges=edges) if edges:
            return "text"
        case Round(step=amount) | Bucket(width=amount) if amount:
            return "integer" if kind == "integer" and Decimal(amount) % 1 == 0 else "number"
    return kind


def intervals(edges: Sequence[str]) -> list[tuple[str, str | None]]:
    """Each interval's name and upper edge, which it does not hold; the last has none."""
    named: list[tuple[str, str | None]] = [(f"< {edges[0]}", edges[0])]
    named += [(f"{low} .. {high}", high) for low, high in pairwise(edges)]
    return [*named, (f">= {edges[-1]}", None)]


def _moved(bound: str | None, step: str, how: str, whole: bool) -> str | None:
    if bound is None:
        return None
    moved = (Decimal(bound) / Decimal(step)).to_integral_value(rounding=how) * Decimal(step)
    text = format(moved.normalize(), "f")
    return "0" if text in ("-0", "0") else text
