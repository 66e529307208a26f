"""Makes the examples importable and draws small made-up utilities."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parents[3]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

import examples.grid_load  # noqa: E402, F401  (makes gridload importable)

MakeTable = Callable[..., pd.DataFrame]


@pytest.fixture
def make_table() -> MakeTable:
    """Returns a function that makes a clean hourly table with a daily, weekly and yearly rhythm."""

    def make(days: int = 120, *, start: str = "2016-09-20 01:00", mean: float = 900.0, seed: int = 1) -> pd.DataFrame:
        stamps = pd.date_range(start, periods=24 * days, freq="h")
        hour, day = np.asarray(stamps.hour), np.asarray(stamps.day_of_year)
        rhythm = 1 + 0.2 * np.sin(2 * np.pi * (hour - 8) / 24) + 0.1 * np.cos(2 * np.pi * day / 365)
        weekend = np.where(np.asarray(stamps.day_of_week) >= 5, 0.9, 1.0)
        drift = pd.Series(np.random.default_rng(seed + 100).normal(0, 0.06, days)).ewm(alpha=0.5).mean().to_numpy()
        weather = 1 + np.repeat(drift, 24)  # a mild week says little about the next
        noise = np.random.default_rng(seed).normal(1.0, 0.02, len(stamps))
        return pd.DataFrame({"datetime": stamps, "load_mw": mean * rhythm * weekend * weather * noise})

    return make
