"""Which type a column's values have: the SQL conditions by which a value is, or is not, of one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from federation.statements.dataset import ColumnType

SQL_TYPE: Final[dict[ColumnType, str]] = {
    "integer": "BIGINT",
    "number": "DOUBLE",
    "text": "VARCHAR",
    "boolean": "BOOLEAN",
    "timestamp": "TIMESTAMP",
    "date": "DATE",
}
LADDER: Final[dict[ColumnType, ColumnType]] = {
    "integer": "number",
    "number": "text",
    "boolean": "text",
    "date": "timestamp",
    "timestamp": "text",
}
"""What a column is tried as next when a value does not fit; everything fits text."""

# Found types keep codes whole: 007 stays text, and so does an identifier of more digits than a double holds.
_INTEGER = r"[+-]?(0|[1-9][0-9]{0,17})"
_NUMBER = r"[+-]?((0|[1-9][0-9]{0,17})(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_BOOLEAN = r"(?i)(true|false)"
# Declared types mean what the owner says: 007 is seven.
_ANY_INTEGER = r"[+-]?[0-9]{1,18}"
_ANY_NUMBER = r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?"
_ANY_BOOLEAN = r"(?i)(true|false|t|f|yes|no|y|n|1|0)"
_DATE = r"[0-9]{4}(-[0-9]{1,2}-|/[0-9]{1,2}/)[0-9]{1,2}"
_TIMESTAMP = _DATE + r"([ T][0-9]{1,2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?Z?)?"

_PATTERN: Final[dict[tuple[ColumnType, bool], str]] = {
    ("integer", False): _INTEGER,
    ("integer", True): _ANY_INTEGER,
    ("number", False): _NUMBER,
    ("number", True): _ANY_NUMBER,
    ("boolean", False): _BOOLEAN,
    ("boolean", True): _ANY_BOOLEAN,
    ("date", False): _DATE,
    ("date", True): _DATE,
    ("timestamp", False): _TIMESTAMP,
    ("timestamp", True): _TIMESTAMP,
}
_GUESSES: Final[tuple[ColumnType, ...]] = ("integer", "number", "boolean", "date", "timestamp")


def accepts(expression: str, kind: ColumnType, *, text: bool, lenient: bool) -> str:
    """The SQL condition under which ``expression`` is a value of ``kind``.

    Args:
        expression: the value.
        kind: the type asked for.
        text: the value is text as in a CSV file; otherwise it has a type of its own and need only convert without loss.
        lenient: take every spelling the type has, as where the owner declared it.
    """
    if kind == "text":
        return "true"
    if not text:
        whole = f" AND TRY_CAST({expression} AS DOUBLE) = trunc(TRY_CAST({expression} AS DOUBLE))"
        return f"TRY_CAST({expression} AS {SQL_TYPE[kind]}) IS NOT NULL" + (whole if kind == "integer" else "")
    matches = f"regexp_full_match({expression}, '{_PATTERN[kind, lenient]}')"
    if kind == "number":
        return f"{matches} AND isfinite(TRY_CAST({expression} AS DOUBLE))"
    return f"{matches} AND TRY_CAST({expression} AS {SQL_TYPE[kind]}) IS NOT NULL"


def first_guess(values: Sequence[str | None]) -> ColumnType:
    """The narrowest type that all of these fields have; text where there is none. All values are judged afterwards."""
    present = [value.strip() for value in values if value is not None and value.strip()]
    for kind in _GUESSES:
        pattern = re.compile(_PATTERN[kind, False], re.ASCII)
        if present and all(pattern.fullmatch(value) for value in present):
            return kind
    return "text"


def parquet_type(native: str) -> ColumnType | None:
    """The type of a Parquet column as DuckDB names it; None where none of ours fits."""
    name = native.split("(")[0]
    if name.endswith("]"):
        return None
    if name in ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "HUGEINT"):
        return "integer"
    if name in ("FLOAT", "DOUBLE", "DECIMAL"):
        return "number"
    if name in ("VARCHAR", "ENUM", "UUID"):
        return "text"
    if name.startswith("TIMESTAMP"):
        return "timestamp"
    return {"BOOLEAN": "boolean", "DATE": "date"}.get(name)  # type: ignore[return-value]
