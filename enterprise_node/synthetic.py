"""Made-up rows with a published schema, so that a job can be tried before anyone is asked for data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from enterprise_node.extraction import DATA_FILE
from enterprise_node.materialise import Snapshot, fresh_folder, seal
from federation.errors import UsageError
from federation.statements import Column

_MISSING = 0.05
"""Share of missing values in a column that may have them: enough to trip a job that forgot."""


def synthetic_rows(columns: Sequence[Column], n: int, seed: int, folder: Path) -> Snapshot:
    """Write ``n`` rows that fit the schema into ``folder``, as the files a job would find.

    Values are drawn within declared bounds and categories, column by column, from ``seed`` and nothing else: no real
    value and no relation between columns is in them.

    Raises:
        UsageError: no column, no row, or ``folder`` exists.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not columns or n < 1:
        raise UsageError("made-up data needs at least one column and one row")
    random = np.random.default_rng(seed)
    with fresh_folder(folder):
        arrays = [_column(column, n, random) for column in columns]
        pq.write_table(pa.table(arrays, names=[column.name for column in columns]), folder / DATA_FILE)
        with (folder / DATA_FILE).open("rb") as file:
            digest = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        return seal(folder, columns, n, {DATA_FILE: digest})


def _column(column: Column, n: int, random: np.random.Generator) -> Any:
    import pyarrow as pa

    missing = random.random(n) < (_MISSING if column.nullable else 0.0)
    types = {
        "integer": pa.int64(),
        "number": pa.float64(),
        "text": pa.string(),
        "boolean": pa.bool_(),
        "timestamp": pa.timestamp("us"),
        "date": pa.date32(),
    }
    return pa.array(_values(column, n, random), type=types[column.type], mask=missing)


def _values(column: Column, n: int, random: np.random.Generator) -> Any:
    if column.type == "boolean":
        return random.random(n) < 0.5
    if column.type == "date":
        return np.datetime64("2024-01-01", "D") + np.arange(n)
    if column.type == "timestamp":
        return np.datetime64("2024-01-01", "us") + np.arange(n) * np.timedelta64(3600, "s")
    if column.type == "text":
        labels = column.categories or ("a", "b", "c")
        return np.array(labels, dtype=object)[random.integers(len(labels), size=n)]
    low, high = _range(column)
    if column.type == "number":
        return random.uniform(low, high, n)
    whole = [int(label) for label in column.categories if label.lstrip("-").isdecimal()]
    if whole:
        return np.array(whole, dtype=np.int64)[random.integers(len(whole), size=n)]
    return random.integers(int(np.ceil(low)), int(np.floor(high)), size=n, endpoint=True)


def _range(column: Column) -> tuple[float, float]:
    """The declared bounds; where one is missing, a span of 100 from the other."""
    low = None if column.minimum is None else float(column.minimum)
    high = None if column.maximum is None else float(column.maximum)
    if low is None:
        low = 0.0 if high is None else min(0.0, high - 100.0)
    return low, low + 100.0 if high is None else high
