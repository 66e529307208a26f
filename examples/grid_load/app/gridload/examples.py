"""From the table a node hands to the job to the examples the network sees."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pandas as pd

from gridload.features import Examples, daily_curves, lagged_examples, mean_load
from gridload.linear_base import with_linear_base


def read_table(directory: Path) -> pd.DataFrame:
    """Reads the dataset a node put into `directory`: `data.parquet` with the columns `datetime` and `load_mw`."""
    return pd.read_parquet(directory / "data.parquet", columns=["datetime", "load_mw"])


def make_examples(table: pd.DataFrame, train_before: date) -> Examples:
    """Builds a node's examples from its table: lags and calendar, then the node's own linear base on top.

    Args:
        table: columns `datetime` (hour ending, local time) and `load_mw`, in any order, one row an hour.
        train_before: first operating day that may influence neither the scale nor the base.

    Raises:
        ValueError: too few days to learn from.
    """
    curves = daily_curves(table)
    return with_linear_base(lagged_examples(curves, mean_load(curves, train_before)), train_before)
