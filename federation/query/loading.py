"""What a node's engine works out once, when it loads a snapshot, so that no question works it out again for every row.

Beside each column that has categories stands the number of the category, and beside each column of numbers its values within
the bounds that the owner declared. Texts are then compared once a snapshot and not once a question. Names begin with a
quotation mark, as no column's name can.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from federation.query.schema import LARGEST, NUMBERS, categories_of
from federation.statements import Column
from federation.statements.query import Axis, Bins

MOST_CODES = 4096
"""Categories of a column that are numbered; a column with more is compared as it is."""


def loaded_columns(columns: Iterable[Column]) -> list[tuple[str, str]]:
    """Name and expression, both SQL, of each column that an engine adds to a snapshot of these columns."""
    found = []
    for column in columns:
        values = categories_of(column)
        if 0 < len(values) <= MOST_CODES:
            kind = "UTINYINT" if len(values) < 256 else "USMALLINT"
            found.append((code_name(column.name), f"CAST({number_of(column.name, values)} AS {kind})"))
        if column.type in NUMBERS:
            found.append((clamped_name(column.name), clamped(column)))
    return found


def coded_axis(axis: Axis, columns: Mapping[str, Column]) -> str | None:
    """An axis by the loaded numbers of its categories; None where they do not tell all of its cells."""
    if isinstance(axis, Bins) or axis.column not in columns:
        return None
    values = categories_of(columns[axis.column])
    if not 0 < len(values) <= MOST_CODES or not set(axis.values) <= set(values):
        return None  # a row may hold a category that others declared: the text has to be looked at
    code = code_name(axis.column)
    if tuple(axis.values) == values:
        return code
    cases = " ".join(f"WHEN {values.index(value)} THEN {at}" for at, value in enumerate(axis.values))
    return f"CASE {code} {cases} END"


def number_of(column: str, values: Iterable[str]) -> str:
    """The place of a column's value among some; NULL where it is not there."""
    cases = " ".join(f"WHEN CAST({text_of(value)} AS VARCHAR) THEN {at}" for at, value in enumerate(values))
    return f"CASE CAST({name_of(column)} AS VARCHAR) {cases} END"


def clamped(column: Column) -> str:
    """A measured value: within the declared bounds and `LARGEST`, never infinite or not a number."""
    name = name_of(column.name)
    if column.type not in NUMBERS:
        return name
    if column.type == "number":
        low, high = (f"CAST('{bound}' AS DOUBLE)" for bound in bounds_of(column))
        return f"CASE WHEN isfinite({name}) THEN least(greatest(CAST({name} AS DOUBLE), {low}), {high}) END"
    low, high = (f"CAST(CAST('{bound}' AS DOUBLE) AS BIGINT)" for bound in bounds_of(column))
    # least and greatest leave out what is NULL
    return f"CASE WHEN {name} IS NOT NULL THEN CAST(least(greatest({name}, {low}), {high}) AS BIGINT) END"


def outside(column: Column) -> str:
    """1 where a column's value lies outside its declared bounds, and was clamped; else NULL."""
    name = name_of(column.name)
    low, high = (f"CAST('{bound}' AS DOUBLE)" for bound in bounds_of(column))
    finite = f"isfinite({name}) AND " if column.type == "number" else ""
    return f"CASE WHEN {finite}({name} < {low} OR {name} > {high}) THEN 1 END"


def bounds_of(column: Column) -> tuple[Decimal, Decimal]:
    """The least and the largest that a value of a column of numbers counts as."""
    largest = Decimal(LARGEST[column.type])
    least, most = (
        fallback if bound is None else min(max(Decimal(bound), -largest), largest)
        for bound, fallback in ((column.minimum, -largest), (column.maximum, largest))
    )
    return least, most


def name_of(column: str) -> str:
    """A column's name, quoted; raises ValueError where it could end its quotation."""
    if '"' in column or "\x00" in column:
        raise ValueError("a column's name holds a quotation mark")
    return f'"{column}"'


def code_name(column: str) -> str:
    """The loaded number of a column's category, as SQL."""
    return '"""#' + name_of(column)[1:]


def clamped_name(column: str) -> str:
    """The loaded value of a column within its bounds, as SQL."""
    return '"""=' + name_of(column)[1:]


def text_of(value: str) -> str:
    """A text as SQL."""
    return "'" + value.replace("'", "''") + "'"
