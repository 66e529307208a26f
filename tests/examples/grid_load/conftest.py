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

from examples.grid_load.emulate import Node  # noqa: E402  (also makes gridload importable)

MakeTable = Callable[..., pd.DataFrame]


def draw_table(days: int = 120, *, start: str = "2016-09-20 01:00", mean: float = 900.0, seed: int = 1) -> pd.DataFrame:
    """Returns a clean hourly table with a daily, weekly and yearly rhythm, and weather that lasts a few days."""
    stamps = pd.date_range(start, periods=24 * days, freq="h")
    hour, day = np.asarray(stamps.hour), np.asarray(stamps.day_of_year)
    rhythm = 1 + 0.2 * np.sin(2 * np.pi * (hour - 8) / 24) + 0.1 * np.cos(2 * np.pi * day / 365)
    weekend = np.where(np.asarray(stamps.day_of_week) >= 5, 0.9, 1.0)
    random = np.random.default_rng(seed)
    weather = 1 + np.repeat(pd.Series(random.normal(0, 0.06, days)).ewm(alpha=0.5).mean().to_numpy(), 24)
    noise = random.normal(1.0, 0.02, len(stamps))
    return pd.DataFrame({"datetime": stamps, "load_mw": mean * rhythm * weekend * weather * noise})


@pytest.fixture
def make_table() -> MakeTable:
    """Returns the function that draws a table."""
    return draw_table


@pytest.fixture(scope="session")
def made_utilities(tmp_path_factory: pytest.TempPathFactory) -> list[Node]:
    """Three made-up utilities of different size and length; their features stay cached between tests."""
    nodes = []
    for number, (days, mean) in enumerate(((120, 900.0), (110, 12_000.0), (100, 2_500.0))):
        table = draw_table(days, start=f"2016-09-{20 + number} 01:00", mean=mean, seed=number)
        directory = tmp_path_factory.mktemp(f"node{number}")
        table.to_parquet(directory / "data.parquet", index=False)
        nodes.append(Node(directory, len(table)))
    return nodes
