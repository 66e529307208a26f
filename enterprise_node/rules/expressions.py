"""Rules as SQL over typed values. Keys stand in it as literals: the text lives in this process alone and in no error."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from enterprise_node.rules.effects import intervals, result_type
from enterprise_node.rules.model import TIME_PARTS, Bucket, Codes, Pseudonym, Round, Rule, Shift

PSEUDONYM_DIGITS: Final = 20
"""Hex digits of the HMAC that are kept: 80 bits; among 10^8 values two collide with a chance of 4 in a billion."""
_BLOCK: Final = 64


def ruled(
    expression: str,
    kind: str,
    rule: Rule | None,
    secret: bytes = b"",
    unit: str = "",
    found: tuple[str, str] = ("", ""),
) -> str:
    """The SQL of a value after its rule; a missing value stays missing.

    Args:
        expression: the value, already of ``kind``.
        kind: the column's type.
        rule: None leaves the value as it is. `Drop` has no expression: such a column is not selected.
        secret: see `Kept.secret`.
        unit: for a shift by unit, the SQL of that column's value as text.
        found: what stands before and after a text to look it up: for codes see `code_list`; for pseudonyms and shifts by
            unit see `keyed_list`, empty where each row's is to be computed.
    """
    match rule:
        case Pseudonym():
            return _keyed(secret, f"CAST({expression} AS VARCHAR)", found)
        case Codes():
            return f"{found[0]}CAST({expression} AS VARCHAR){found[1]}"
        case Round(step=step) if step:
            return _nearest(expression, kind, rule, step)
        case Round(to=part):
            cut = f"date_trunc('{part}', {expression})"
            return cut if part in TIME_PARTS or kind == "timestamp" else f"CAST({cut} AS DATE)"
        case Bucket(width=width) if width:
            return _lower(expression, kind, rule, width)
        case Bucket(edges=edges):
            cases = "".join(
                f" WHEN {expression} < {upper} THEN '{label}'" for label, upper in intervals(edges) if upper is not None
            )
            last = intervals(edges)[-1][0]
            absent = f"{expression} IS NULL" + (f" OR isnan({expression})" if kind == "number" else "")
            return f"CASE WHEN {absent} THEN NULL{cases} ELSE '{last}' END"
        case Shift(days=days):
            moved = f"{expression} + to_days(CAST({_days(days, secret, unit, found)} AS INTEGER))"
            return f"CAST({moved} AS DATE)" if kind == "date" else moved
    return expression


def constant_shift(rule: Shift, secret: bytes) -> int:
    """The number of days that a shift without unit moves by: from ``-days`` to ``days``, never 0, each equally likely
    but for 2^-40."""
    return _off_zero(int.from_bytes(secret[:6], "big") % (2 * rule.days), rule.days)


def _off_zero(number: int, days: int) -> int:
    return number - days if number < days else number - days + 1


def _days(days: int, secret: bytes, unit: str, found: tuple[str, str]) -> str:
    if not unit:
        return str(constant_shift(Shift(days), secret))
    digest = _keyed(secret, f"coalesce({unit}, '')", found)
    number = f"(CAST('0x' || substr({digest}, 1, 12) AS BIGINT) % {2 * days})"
    return f"({number} - {days} + CAST({number} >= {days} AS BIGINT))"


def hmac_sha256(key: bytes, text: str) -> str:
    """HMAC-SHA-256 (RFC 2104) over the UTF-8 of a text expression, in hex; DuckDB has SHA-256 alone."""
    padded = key.ljust(_BLOCK, b"\0")
    inner, outer = (_blob(bytes(byte ^ mask for byte in padded)) for mask in (0x36, 0x5C))
    return f"sha256({outer} || unhex(sha256({inner} || encode({text}))))"


def _keyed(secret: bytes, text: str, found: tuple[str, str]) -> str:
    if found[0]:
        return f"{found[0]}{text}{found[1]}"
    return f"substr({hmac_sha256(secret, text)}, 1, {PSEUDONYM_DIGITS})"


def keyed_list(name: str, secret: bytes) -> tuple[str, tuple[str, str]]:
    """For an ENUM type of texts: the query of their HMACs' first digits as one text in the type's order, and the SQL before
    and after a text that takes its own digits out of it; a variable of the type's name keeps it.

    One text and not a list, because DuckDB copies a constant for every 2,048 rows, and a text is copied whole.
    """
    digits = _keyed(secret, "one", ("", ""))
    made = f"SELECT array_to_string(list_transform(enum_range(NULL::{name}), lambda one: {digits}), '')"
    begin = f"substr(getvariable('{name}'), {PSEUDONYM_DIGITS} * CAST(enum_code(CAST("
    return made, (begin, f" AS {name})) AS BIGINT) + 1, {PSEUDONYM_DIGITS})")


def code_list(name: str, codes: Mapping[str, str]) -> tuple[tuple[str, ...], tuple[str, str]]:
    """The values of an ENUM type, in order, and the SQL before and after a value that gives its code.

    An ENUM, because a cast to one is a look-up by hash, while a join would not keep the rows' order by itself.
    """
    values = tuple(codes)
    literals = ", ".join("'" + codes[value].replace("'", "''") + "'" for value in values)
    return values, (f"list_extract([{literals}], CAST(enum_code(CAST(", f" AS {name})) AS BIGINT) + 1)")


def _nearest(expression: str, kind: str, rule: Rule, step: str) -> str:
    if result_type(kind, rule) == "integer":  # whole steps in whole numbers: a double would not hold all of them
        whole = int(Decimal(step))
        return (
            f"CAST((CAST({expression} AS HUGEINT) + sign({expression}) * {whole // 2}) // {whole} * {whole} AS BIGINT)"
        )
    return f"round(round(CAST({expression} AS DOUBLE) / {step}) * {step}, {_places(step)})"


def _lower(expression: str, kind: str, rule: Rule, width: str) -> str:
    if result_type(kind, rule) == "integer":
        whole = int(Decimal(width))
        return f"CAST({expression} - ((({expression}) % {whole}) + {whole}) % {whole} AS BIGINT)"
    # A value such as 0.3 in steps of 0.1 lies below its own edge by the last bit: what is that near counts as on it.
    return f"round(floor(round(CAST({expression} AS DOUBLE) / {width}, 9)) * {width}, {_places(width)})"


def _places(amount: str) -> int:
    return len(amount.partition(".")[2])


def _blob(data: bytes) -> str:
    return "'" + "".join(f"\\x{byte:02X}" for byte in data) + "'::BLOB"
