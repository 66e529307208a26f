"""Reading rules: as an owner writes them (TOML), and as the store keeps them (JSON)."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final

from enterprise_node.rules.model import (
    DATE_PARTS,
    KINDS,
    TIME_PARTS,
    Bucket,
    Codes,
    Drop,
    Pseudonym,
    Round,
    Rule,
    Rules,
    RulesError,
    Scope,
    Shift,
    rule_of,
)

_SCOPES: Final[tuple[Scope, ...]] = ("agreement", "dataset")
_OPTIONS: Final[dict[str, frozenset[str]]] = {
    "drop": frozenset(),
    "pseudonym": frozenset({"scope"}),
    "codes": frozenset({"prefix", "scope"}),
    "round": frozenset({"step", "to"}),
    "bucket": frozenset({"width", "edges"}),
    "shift": frozenset({"days", "unit", "scope"}),
}
MAX_BYTES: Final = 256 * 1024
MAX_EDGES: Final = 1000
MAX_DAYS: Final = 3650
_PLACES: Final = 12
"""Decimal places of an amount; a double has no more that mean anything here."""


def read_rules(text: str) -> Rules:
    """Read what `Rules.canonical` wrote; empty text is no rules."""
    document = json.loads(text) if text else {"columns": {}}
    return Rules({name: rule_of(one) for name, one in document["columns"].items()})


def parse_rules(text: str) -> Rules:
    """Read an owner's rules: a TOML table ``[columns.NAME]`` for each column that has one.

    Raises:
        RulesError: naming the column and the option; nothing is guessed and nothing unknown is passed over.
    """
    if len(text.encode()) > MAX_BYTES:
        raise RulesError("the rules are longer than {limit} bytes", limit=MAX_BYTES)
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise RulesError("the rules are not TOML: {why}", why=str(error)[:200]) from None
    unknown = sorted(set(document) - {"format", "columns"})
    if unknown:
        raise RulesError(
            "rules have no {key}",
            hint="each rule stands in a table [columns.NAME]; a name with dots or spaces goes in quotes",
            key=unknown[0][:64],
        )
    if document.get("format", 1) != 1:
        raise RulesError("this release reads rules of format 1 alone")
    columns = document.get("columns", {})
    if not isinstance(columns, dict) or not columns:
        raise RulesError("the rules name no column", hint="write a table [columns.NAME] with rule = ...")
    return Rules({name: _rule(name, options) for name, options in columns.items()})


def _rule(name: str, options: Any) -> Rule:
    if not isinstance(options, dict):
        raise _bad(name, "rule", "a table with rule = ...")
    kind = options.get("rule")
    if kind is None and any(isinstance(value, dict) for value in options.values()):
        raise RulesError(
            "[columns.{name}] holds another table instead of a rule",
            hint='put a name with dots in quotes: [columns."{name}.x"]',
            name=name,
        )
    if not isinstance(kind, str) or kind not in KINDS:
        raise RulesError(
            "column {name}: there is no such rule",
            hint="use one of: {known}",
            name=name,
            known=", ".join(KINDS),
        )
    unknown = sorted(set(options) - {"rule"} - _OPTIONS[kind])
    if unknown:
        raise RulesError(
            "column {name}: the rule {rule} has no option {option}",
            hint="it takes: {known}",
            name=name,
            rule=kind,
            option=unknown[0][:64],
            known=", ".join(sorted(_OPTIONS[kind])) or "-",
        )
    return _READERS[kind](name, options)


def _pseudonym(name: str, options: Mapping[str, Any]) -> Rule:
    return Pseudonym(_scope(name, options, "agreement"))


def _codes(name: str, options: Mapping[str, Any]) -> Rule:
    prefix = options.get("prefix", "")
    if not isinstance(prefix, str) or len(prefix) > 16 or not (prefix.isprintable() and '"' not in prefix):
        raise _bad(name, "prefix", "at most 16 printable characters without quotes")
    return Codes(prefix, _scope(name, options, "dataset"))


def _round(name: str, options: Mapping[str, Any]) -> Rule:
    if ("step" in options) == ("to" in options):
        raise RulesError(
            "column {name}: rounding takes either step (a number) or to (a part of the calendar)", name=name
        )
    if "step" in options:
        return Round(step=_amount(name, "step", options["step"], positive=True))
    if options["to"] not in (*DATE_PARTS, *TIME_PARTS):
        raise _bad(name, "to", ", ".join((*TIME_PARTS, *DATE_PARTS)))
    return Round(to=options["to"])


def _bucket(name: str, options: Mapping[str, Any]) -> Rule:
    if ("width" in options) == ("edges" in options):
        raise RulesError("column {name}: buckets take either width (a number) or edges (a list of numbers)", name=name)
    if "width" in options:
        return Bucket(width=_amount(name, "width", options["width"], positive=True))
    edges = options["edges"]
    if not isinstance(edges, list) or not 1 <= len(edges) <= MAX_EDGES:
        raise _bad(name, "edges", "a list of 1 to 1000 numbers")
    found = tuple(_amount(name, "edges", edge) for edge in edges)
    if any(Decimal(low) >= Decimal(high) for low, high in pairwise(found)):
        raise _bad(name, "edges", "numbers that rise")
    return Bucket(edges=found)


def _shift(name: str, options: Mapping[str, Any]) -> Rule:
    days, unit = options.get("days"), options.get("unit", "")
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MAX_DAYS:
        raise _bad(name, "days", "a whole number from 1 to 3650: the furthest that a date moves")
    if not isinstance(unit, str) or unit == name:
        raise _bad(name, "unit", "the name of another column")
    return Shift(days, unit, _scope(name, options, "agreement"))


_READERS: Final[Mapping[str, Callable[[str, Mapping[str, Any]], Rule]]] = {
    "drop": lambda name, options: Drop(),
    "pseudonym": _pseudonym,
    "codes": _codes,
    "round": _round,
    "bucket": _bucket,
    "shift": _shift,
}


def _scope(name: str, options: Mapping[str, Any], default: Scope) -> Scope:
    scope = options.get("scope", default)
    if scope not in _SCOPES:
        raise _bad(name, "scope", ", ".join(_SCOPES))
    found: Scope = scope
    return found


def _amount(name: str, option: str, value: Any, *, positive: bool = False) -> str:
    """A number as plain decimal text without trailing zeros."""
    number = Decimal(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(number, Decimal) or not number.is_finite() or abs(number) > Decimal(10) ** 15:
        raise _bad(name, option, "a number")
    if positive and number <= 0:
        raise _bad(name, option, "a number above 0")
    text = format(number.normalize(), "f")
    if len(text.partition(".")[2]) > _PLACES:
        raise _bad(name, option, "a number of at most 12 decimal places")
    return "0" if text == "-0" else text


def _bad(name: str, option: str, wanted: str) -> RulesError:
    return RulesError(
        "column {name}: {option} is not what it should be",
        hint="it is {wanted}",
        name=name,
        option=option,
        wanted=wanted,
    )
