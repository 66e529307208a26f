"""Makes the table a plant's node registers out of one year's raw file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from examples.common.raw import PrepareError
from noxmodel.features import NOMINAL, TARGET, UNSEEN

YEARS = {"plant-a": 2011, "plant-b": 2012, "plant-c": 2013, "plant-d": 2014, "plant-e": 2015}
"""The data are of one turbine; five years stand in for five plants."""
EVERY = 5


def prepare(raw: Path) -> pd.DataFrame:
    """Returns the nine inputs, `NOX` and `unseen` (every fifth hour): what was measured beside them (CO) is left out.

    Raises:
        PrepareError: a column is missing, or a value.
    """
    table = pd.read_csv(raw).rename(columns=str.strip)  # 2015 writes "AFDP "
    wanted = [*NOMINAL, TARGET]
    if missing := set(wanted) - set(table.columns):
        raise PrepareError(f"{raw.name} has no column {sorted(missing)[0]}")
    table = table[wanted].astype(float)
    if not np.isfinite(table.to_numpy()).all():
        raise PrepareError(f"{raw.name} holds a value that is missing or no number")
    table[UNSEEN] = np.arange(len(table)) % EVERY == EVERY - 1
    return table
