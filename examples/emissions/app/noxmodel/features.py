"""From a plant's table to the features that a linear regression sees; nothing here looks at more than one plant."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

Doubles = npt.NDArray[np.float64]
NOMINAL = {
    "AT": (18.0, 15.0),  # ambient temperature, degrees Celsius
    "AP": (1013.0, 13.0),  # ambient pressure, mbar
    "AH": (78.0, 25.0),  # ambient humidity, per cent
    "AFDP": (3.9, 1.5),  # air filter difference pressure, mbar
    "GTEP": (25.5, 8.0),  # gas turbine exhaust pressure, mbar
    "TIT": (1081.0, 35.0),  # turbine inlet temperature, degrees Celsius
    "TAT": (546.0, 12.0),  # turbine after temperature, degrees Celsius
    "TEY": (133.0, 30.0),  # turbine energy yield, MWh
    "CDP": (12.0, 2.2),  # compressor discharge pressure, mbar
}
"""Each input's middle and half range: such as a data sheet of the machine gives, the same for all, from nobody's records."""
TARGET, TARGET_MIDDLE, TARGET_RANGE = "NOX", 65.0, 12.0  # mg/m3
UNSEEN = "unseen"


@dataclass(frozen=True)
class Hours:
    """Scaled operating data, shape (hours, 9), and scaled emissions, shape (hours,)."""

    x: Doubles
    y: Doubles


@dataclass(frozen=True)
class Plant:
    """One plant's hours to fit on and those that no fit may use, and how many rows its table has."""

    seen: Hours
    unseen: Hours
    rows: int


def read_plant(directory: Path) -> Plant:
    """Reads the table that a node put into `directory`: `data.parquet` with the inputs, `NOX` and `unseen`."""
    return make_plant(pd.read_parquet(directory / "data.parquet", columns=[*NOMINAL, TARGET, UNSEEN]))


def make_plant(table: pd.DataFrame) -> Plant:
    """Scales a table's columns and parts its rows."""
    middle, half = (np.array(column) for column in zip(*NOMINAL.values(), strict=True))
    x = (table[list(NOMINAL)].to_numpy(dtype=np.float64) - middle) / half
    y = (table[TARGET].to_numpy(dtype=np.float64) - TARGET_MIDDLE) / TARGET_RANGE
    unseen = table[UNSEEN].to_numpy(dtype=bool)
    return Plant(Hours(x[~unseen], y[~unseen]), Hours(x[unseen], y[unseen]), len(table))


def expand(x: Doubles, count: int, width: float, seed: int) -> Doubles:
    """Returns `count` random cosines of the inputs, the inputs themselves and a constant, shape (hours, count + 10).

    A linear regression on them approximates one with a Gaussian kernel (Rahimi and Recht, Random Features for Large-Scale
    Kernel Machines, 2007). All plants draw the same cosines from the seed.
    """
    random = np.random.default_rng(seed)
    turns = random.normal(size=(x.shape[1], count)) * width
    shifts = random.uniform(0.0, 2.0 * np.pi, count)
    return np.concatenate([np.sqrt(2.0) * np.cos(x @ turns + shifts), x, np.ones((len(x), 1))], axis=1)
