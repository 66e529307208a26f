"""Makes the table a fleet's owner registers out of its share of the raw C-MAPSS files."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from examples.common.raw import PrepareError
from remaininglife.windows import SENSORS

FLEETS = {f"fleet-{letter}": (20 * place + 1, 20 * place + 20) for place, letter in enumerate("abcde")}
"""Engines 1 to 100 in five fleets of twenty, by number: the publisher names no owner."""
_COLUMNS = ["engine", "cycle", "setting1", "setting2", "setting3", *(f"s{number}" for number in range(1, 22))]
_TAKEN_OUT = 1000  # engines that were taken out before failure get numbers of their own


def prepare(raw: Path) -> pd.DataFrame:
    """Returns every cycle of every engine: `engine`, `cycle`, `life_left` (cycles), `failed`, and 14 sensors.

    Raises:
        PrepareError: the files do not hold 100 engines of each kind.
    """
    failed = pd.read_csv(raw / "train_FD001.txt.gz", sep=r"\s+", header=None, names=_COLUMNS)
    failed["life_left"] = failed.groupby("engine")["cycle"].transform("max") - failed["cycle"]
    taken_out = pd.read_csv(raw / "test_FD001.txt.gz", sep=r"\s+", header=None, names=_COLUMNS)
    left = pd.read_csv(raw / "RUL_FD001.txt", header=None)[0]
    if failed["engine"].nunique() != 100 or taken_out["engine"].nunique() != 100 or len(left) != 100:
        raise PrepareError("the files do not hold 100 engines each")
    at_end = taken_out["engine"].map(dict(enumerate(left, start=1)))
    taken_out["life_left"] = at_end + taken_out.groupby("engine")["cycle"].transform("max") - taken_out["cycle"]
    both = pd.concat([failed.assign(failed=True), taken_out.assign(failed=False)], ignore_index=True)
    return both[["engine", "cycle", "life_left", "failed", *SENSORS]]


def fleet(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """Returns one fleet's rows, with engine numbers that tell failed engines from those taken out before."""
    first, last = FLEETS[name]
    mine = table[table["engine"].between(first, last)].copy()
    mine["engine"] = mine["engine"] + (~mine["failed"]) * _TAKEN_OUT
    return mine.reset_index(drop=True)
