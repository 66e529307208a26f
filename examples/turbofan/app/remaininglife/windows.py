"""From a fleet's table to what the network sees: the last 30 cycles of an engine, never a later one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float32]
SENSORS = {
    "s2": (642.7, 0.5), "s3": (1590.0, 6.0), "s4": (1409.0, 9.0), "s7": (553.4, 0.9), "s8": (2388.1, 0.07),
    "s9": (9065.0, 22.0), "s11": (47.5, 0.27), "s12": (521.4, 0.74), "s13": (2388.1, 0.07), "s14": (8144.0, 19.0),
    "s15": (8.44, 0.04), "s17": (393.0, 1.5), "s20": (38.8, 0.18), "s21": (23.3, 0.11),
}  # fmt: skip
"""Each sensor's middle and spread as the partners agreed on them, rounded; the other seven do not move in this data set."""
WINDOW = 30
RECENT = 5
CAP = 125.0
"""An engine far from its end shows nothing of it: longer lives count as this long, in training and in judging, as is usual."""
INPUTS = 3 * len(SENSORS)


@dataclass(frozen=True)
class Examples:
    """Windows as features, shape (n, `INPUTS`), the cycles left at their end, and which engine each is of."""

    x: Floats
    life: Floats
    engine: npt.NDArray[np.int64]

    def where(self, keep: npt.NDArray[np.bool_]) -> Examples:
        """Returns the windows that `keep` marks."""
        return Examples(self.x[keep], self.life[keep], self.engine[keep])


@dataclass(frozen=True)
class Fleet:
    """A fleet's windows: all of the engines that ran to failure, and the last one of each that was taken out before."""

    failed: Examples
    judged: Examples


def read_fleet(directory: Path) -> Fleet:
    """Reads the table that a node put into `directory`: `data.parquet`."""
    return make_fleet(pd.read_parquet(directory / "data.parquet"))


def make_fleet(table: pd.DataFrame) -> Fleet:
    """Cuts a table into windows.

    Args:
        table: `engine`, `cycle`, `life_left`, `failed` and the sensors, one row a cycle, in any order.
    """
    ordered = table.sort_values(["engine", "cycle"])
    failed = ordered["failed"].to_numpy(dtype=bool)
    return Fleet(_windows(ordered[failed], every=True), _windows(ordered[~failed], every=False))


def _windows(rows: pd.DataFrame, *, every: bool) -> Examples:
    middle, spread = (np.array(column) for column in zip(*SENSORS.values(), strict=True))
    time = np.arange(WINDOW) - (WINDOW - 1) / 2.0
    x, life, engines = [], [], []
    for engine, cycles in rows.groupby("engine"):
        values = (cycles[list(SENSORS)].to_numpy(dtype=np.float64) - middle) / spread
        if len(values) < WINDOW:
            continue
        windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW, axis=0)  # (n, sensors, cycles)
        if not every:
            windows = windows[-1:]
        slope = windows @ time / (time @ time) * WINDOW
        x.append(np.concatenate([windows.mean(axis=2), windows[:, :, -RECENT:].mean(axis=2), slope], axis=1))
        life.append(cycles["life_left"].to_numpy(dtype=np.float64)[-len(windows) :])
        engines.append(np.full(len(windows), int(str(engine))))
    return Examples(
        np.concatenate(x).astype(np.float32),
        np.minimum(np.concatenate(life), CAP).astype(np.float32),
        np.concatenate(engines),
    )
